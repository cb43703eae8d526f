"""The benchmark of the twins: its figures by hand, and that it runs."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

pytest.importorskip("pybullet")
from benchmarks import twins
from safe_rl_ros.types import RobotState


def state(x: float, y: float, yaw: float) -> RobotState:
    zeros = np.zeros(3)
    turned = np.array([0.0, 0.0, math.sin(yaw / 2.0), math.cos(yaw / 2.0)])
    return RobotState(0, np.array([x, y, 0.0]), turned, zeros, zeros, zeros, zeros, zeros.astype(np.float32))


@pytest.mark.parametrize(
    ("first", "second", "distance", "heading"),
    [
        ((0.0, 0.0, 0.0), (3.0, 4.0, 0.5), 5.0, 0.5),
        ((1.0, 1.0, 3.0), (1.0, 1.0, -3.0), 0.0, 2.0 * math.pi - 6.0),
        ((0.0, 0.0, 0.2), (-1.0, 0.0, 0.2 + 2.0 * math.pi), 1.0, 0.0),
    ],
)
def test_what_is_between_two_states(first: tuple, second: tuple, distance: float, heading: float) -> None:
    found = twins.apart(state(*first), state(*second))
    assert found == pytest.approx((distance, heading), abs=1e-9)


def test_medians_are_over_rounds() -> None:
    entry = twins.summarise({"rates": [100.0, 300.0, 200.0], "resets": [9.0, 7.0, 8.0], "build_s": 0.1234})
    assert entry == {"steps_per_s": {"median": 200.0, "min": 100.0, "max": 300.0}, "reset_us": 8.0, "build_s": 0.123}


def test_it_runs_and_ends_with_one_json_object(capsys: pytest.CaptureFixture[str]) -> None:
    twins.main(["--quick"])
    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (result["name"], result["quick"], result["seeds"], result["targets"]) == ("twins", True, [0, 1, 2], [])
    assert result["versions"]["pybullet"]
    speed = result["figures"]["speed"]
    assert sorted(speed) == ["jackal mujoco", "jackal pybullet", "rover mujoco", "rover pybullet"]
    assert all(entry["steps_per_s"]["median"] > 0 and entry["reset_us"] > 0 for entry in speed.values())
    for figures in result["figures"]["disagreement"].values():
        for name in ("position_m", "heading_rad"):
            low, high = figures[name]["interval_95"]
            assert low <= figures[name]["mean"] <= high
            assert 0.0 < figures[name]["mean"] <= figures[name]["max"]
