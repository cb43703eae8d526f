"""The benchmark of the identification: its figures by hand."""

from __future__ import annotations

import pytest

from benchmarks import identify
from safe_rl_ros.envs.twin_parameters import TwinParameters


def row(delay: tuple[float, float, float] | None, gain: float) -> dict:
    nothing = (None, None, None)
    true = {name: 1.0 for name in (*identify.FITTED, *identify.TRIED)} | {"delay_s": 0.1, "gain_linear": 0.8}
    found = dict.fromkeys(true, nothing) | {"delay_s": delay or nothing, "gain_linear": (gain, gain - 0.1, gain + 0.1)}
    return {"true": true, "found": found, "before": [1.0, 2.0], "after": [0.1, 0.3], "wall_s": 2.0}


def test_errors_in_seconds_and_relative_ones() -> None:
    rows = [row((0.11, 0.09, 0.13), 0.84), row((0.07, 0.06, 0.08), 1.0), row(None, 0.8)]
    figures = identify.summarise(rows)
    assert figures["drives"] == 3
    delay = {"told": 2, "error_mean": 0.02, "error_most": 0.03, "half_width_mean": 0.015, "held_by_interval": 1}
    assert figures["delay_s"] == pytest.approx(delay)
    gain = {"told": 3, "error_mean": 0.1, "error_most": 0.25, "half_width_mean": 0.1, "held_by_interval": 2}
    assert figures["gain_linear"] == pytest.approx(gain)
    assert figures["mass_scale"] == {"told": 0}
    assert figures["error_after"] == pytest.approx([0.1, 0.3])


def test_the_true_delay_counts_whole_substeps() -> None:
    parameters = TwinParameters(actuation_delay_s=0.083, observation_delay_s=0.026, lag_s=0.05, mass_scale=1.2)
    true = identify.true_values(parameters, 0.01)
    assert true["delay_s"] == pytest.approx(0.11)
    assert (true["lag_s"], true["mass_scale"], true["friction_scale"]) == (0.05, 1.2, 1.0)
    assert set(true) == {*identify.FITTED, *identify.TRIED}
