"""What a calibration leaves behind: its figures as JSON-able data, and the picture of the choice."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")  # a robot or a CI machine has no display

import matplotlib.pyplot as plt
import numpy as np

from safe_rl_ros.bundle import Certificate
from safe_rl_ros.safety.calibration import Calibration
from safe_rl_ros.training.evaluation import Evaluation
from safe_rl_ros.training.report import COLOURS
from safe_rl_ros.training.risk_traces import Recording
from safe_rl_ros.training.run import versions

LEAST_RISK_SHOWN = 1e-4
"""Where the logarithmic axis of thresholds starts, at the lowest."""


def plot_calibration(calibration: Calibration, path: Path) -> Path:
    """Write the picture: miss rate and false-veto rates against the threshold, the chosen one marked."""
    curves = calibration.curves
    figure, axis = plt.subplots(figsize=(6.8, 4.2), layout="constrained")
    lines = (
        ("failing episodes missed", curves.miss_rate, COLOURS["hazard"], "-"),
        ("safe episodes with a veto", curves.episode_vetoes, COLOURS["veto"], "--"),
        ("steps of safe episodes vetoed", curves.step_vetoes, COLOURS["veto"], "-"),
    )
    thresholds = np.maximum(curves.thresholds, LEAST_RISK_SHOWN)
    for label, values, colour, style in lines:
        axis.plot(thresholds, values, style, color=colour, label=label, drawstyle="steps-post")
    axis.axvline(calibration.threshold, color="black", lw=1, label=f"threshold {calibration.threshold:.3g}")
    axis.axhline(
        calibration.miss_rate, color=COLOURS["hazard"], lw=1, ls=":", label=f"miss rate {calibration.miss_rate:g}"
    )
    shown = calibration.scores[calibration.scores > 0.0]
    least = min(float(shown.min()) / 3, calibration.threshold / 3) if shown.size else LEAST_RISK_SHOWN
    axis.set(xscale="log", xlim=(min(max(least, LEAST_RISK_SHOWN), 0.5), 1.0), ylim=(-0.02, 1.02))
    axis.set(xlabel="Threshold (largest risk that passes)", ylabel="Share")
    axis.set_title(f"{calibration.failing} failing and {calibration.safe} safe episodes without veto", fontsize=10)
    axis.spines[["top", "right"]].set_visible(False)
    figure.legend(*axis.get_legend_handles_labels(), frameon=False, fontsize=8, loc="outside lower center", ncols=3)
    figure.savefig(path, dpi=120)
    plt.close(figure)
    return path


def make_report(
    calibration: Calibration,
    recording: Recording,
    closed_loop: Evaluation | None,
    certificate: Certificate | None,
    seed: int,
) -> dict[str, Any]:
    """Return everything as JSON-able data; what is not known is None."""
    curves = calibration.curves
    return {
        "threshold": calibration.threshold,
        "miss_rate": calibration.miss_rate,
        "miss_rate_bound": calibration.miss_rate_bound,
        "confidence": calibration.confidence,
        "order": calibration.order,
        "failing_episodes": calibration.failing,
        "safe_episodes": calibration.safe,
        "dropped_episodes": recording.dropped,
        "lead_steps": calibration.window.lead_steps,
        "window_steps": calibration.window.length_steps,
        "false_veto_rate_steps": _known(calibration.step_veto_rate),
        "false_veto_rate_episodes": _known(calibration.episode_veto_rate),
        "made_by_this_policy": recording.of_policy,
        "without_veto": None if recording.evaluation is None else recording.evaluation.summary(),
        "closed_loop": None if closed_loop is None else closed_loop.summary(),
        "certificate": None if certificate is None else certificate.model_dump(mode="json"),
        "seed": seed,
        "scores": calibration.scores.clip(-1.0, 2.0).tolist(),  # an empty window is -inf, a vetoed NaN inf
        "curves": {
            "threshold": curves.thresholds.tolist(),
            "miss_rate": curves.miss_rate.tolist(),
            "step_vetoes": [_known(value) for value in curves.step_vetoes.tolist()],
            "episode_vetoes": [_known(value) for value in curves.episode_vetoes.tolist()],
        },
        "versions": versions(),
    }


def _known(value: float) -> float | None:
    return value if math.isfinite(value) else None
