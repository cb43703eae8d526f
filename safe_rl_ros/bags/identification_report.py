"""What an identification found, for people (a summary) and for the twin (a randomisation around it)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from safe_rl_ros.bags.bag_topics import BagContract
from safe_rl_ros.bags.identification import DELAY, POOR, TRIED, Estimate, Identification
from safe_rl_ros.bags.import_report import ImportReport
from safe_rl_ros.envs.randomisation import load_randomisation
from safe_rl_ros.envs.twin_parameters import TwinParameters
from safe_rl_ros.types import ConfigError

SUM = "actuation and observation delay together, jitter's mean included"
POOR_FIT = (
    f"the twin leaves more than {POOR:.0%} of the motion unexplained: it misses something (wheels that slip, a slope, "
    "another drive, clocks that differ), and what it takes from that the intervals do not know of"
)
LEFT_OVER = "left over: noise of the odometry and whatever this twin cannot do"


def summarise(
    found: Identification, contract: BagContract, report: ImportReport, bags: Sequence[Path]
) -> dict[str, Any]:
    """Return everything as JSON: parameters, errors on held-out blocks (m/s, rad/s), what was read."""
    return {
        "bags": [str(bag) for bag in bags],
        "contract": contract.source,
        "robot": contract.spec.name,
        "simulator": contract.spec.twin.simulator,
        "clock": contract.config.clock,
        "drives": found.drives,
        "fitted_s": found.fitted_s,
        "held_out_s": found.held_out_s,
        "parameters": {name: _as_json(estimate) for name, estimate in found.estimates.items()},
        "error_before": dict(zip(("linear", "angular"), found.error_before.tolist(), strict=True)),
        "error_after": dict(zip(("linear", "angular"), found.error_after.tolist(), strict=True)),
        "unexplained": {
            axis: None if math.isnan(part) else part
            for axis, part in zip(("linear", "angular"), found.unexplained.tolist(), strict=True)
        },
        "poor_fit": POOR_FIT if found.poor else None,
        "left_over_std": dict(zip(("linear", "angular"), found.noise.tolist(), strict=True)),
        "unusable_messages": report.dropped,
        "problems": dict(report.problems),
    }


def _as_json(estimate: Estimate) -> dict[str, Any]:
    told = {"value": estimate.value, "ci95": None if estimate.value is None else [estimate.low, estimate.high]}
    return told if estimate.value is not None else {**told, "why_not": estimate.why_not}


def write_fitted(path: Path, found: Identification, summary: dict[str, Any], observation_delay_s: float) -> None:
    """Write a randomisation whose ranges are the intervals; what was not identified is left out.

    Args:
        path: the file; it is there as a whole or not at all.
        found: the identification.
        summary: of :func:`summarise`.
        observation_delay_s: what is known of the delay's two parts; the rest is the actuation's.

    Raises:
        ConfigError: more of the delay is said to be the observation's than there is.
    """
    lines = [
        f"# {summary['robot']} in {summary['simulator']}, identified from {', '.join(summary['bags'])}",
        f"# ({summary['fitted_s']:.0f} s, {summary['held_out_s']:.0f} s held out). Ranges are 95 % intervals.",
        "# Velocity error on what was held out, before and after: "
        + ", ".join(
            f"{summary['error_before'][axis]:.3g} -> {summary['error_after'][axis]:.3g} {unit}"
            for axis, unit in (("linear", "m/s"), ("angular", "rad/s"))
        ),
    ]
    lines += [f"# Poor: {POOR_FIT}."] if found.poor else []
    for name, estimate in found.estimates.items():
        if estimate.value is None or estimate.low is None or estimate.high is None:
            lines.append(f"# {name}: not identifiable from these bags: {estimate.why_not}")
        elif name == DELAY:
            lines += _delay_lines(estimate.low, estimate.high, estimate.value, observation_delay_s)
        else:
            kind = "log_uniform" if name in TRIED else "uniform"
            lines.append(f"{name}: {{{kind}: [{estimate.low:.6g}, {estimate.high:.6g}]}}  # {estimate.value:.4g}")
    for name, std in zip(("linear_velocity_std", "angular_velocity_std"), found.noise, strict=True):
        lines.append(f"{name}: {min(float(std), 1.0):.4g}  # {LEFT_OVER}")
    temporary = path.with_name(f".writing-{path.stem}.yaml")
    temporary.write_text("\n".join(lines) + "\n", encoding="utf-8")
    try:
        load_randomisation(temporary)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _delay_lines(low: float, high: float, value: float, observed_s: float) -> list[str]:
    if observed_s > high:
        raise ConfigError(f"the observation delay is said to be {observed_s:g} s, but the whole delay is {value:.3g} s")
    rest = [max(end - observed_s, 0.0) for end in (low, high)]
    lines = [f"actuation_delay_s: {{uniform: [{rest[0]:.6g}, {rest[1]:.6g}]}}"]
    if observed_s > 0.0:
        lines[0] += f"  # less the observation's, which was given: {value:.4g} in all"
        return [*lines, f"observation_delay_s: {observed_s:g}"]
    return [f"{lines[0]}  # {value:.4g}: {SUM}"]


def fitted_parameters(found: Identification) -> TwinParameters:
    """Return the twin of the estimates, with the whole delay as actuation's and without noise."""
    known = {estimate.name: estimate.value for estimate in found.estimates.values() if estimate.value is not None}
    delay_s = known.pop(DELAY, 0.0)
    return TwinParameters.model_validate({**known, "actuation_delay_s": delay_s})
