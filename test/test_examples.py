"""The examples are policies of somebody who knows nothing of the filter; they must keep working with the package."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

import numpy as np
import pytest

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"
ORIGIN = {"position": np.zeros(3), "orientation": np.array([0.0, 0.0, 0.0, 1.0])}


@pytest.mark.parametrize("name", ["driver_node", "follow_goal", "give_goals", "mediocre_driver", "sb3_policy"])
def test_examples_know_nothing_of_the_filter(name: str) -> None:
    tree = ast.parse((EXAMPLES / f"{name}.py").read_text(encoding="utf-8"))
    imported = {node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert not [module for module in imported if "safety" in module or "filter" in module]


@pytest.mark.ros
@pytest.mark.parametrize(
    ("goal", "forward", "turn"),
    [
        ([2.0, 0.0], 0.7, 0.0),
        ([0.0, 2.0], 0.0, 2.0),
        ([1.0, -1.0], 0.7 * 0.5**0.5, -np.pi / 2),
        ([-2.0, 0.0], 0.0, 2.0),
    ],
)
def test_follow_goal_turns_to_the_goal_and_drives(
    goal: list[float], forward: float, turn: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(EXAMPLES))
    from follow_goal import follow_goal

    from safe_rl_ros.types import RobotState

    rest = {name: np.zeros(3) for name in ("linear_velocity", "angular_velocity")}
    empty = {"joint_position": np.zeros(2), "joint_velocity": np.zeros(2), "ranges": np.full(72, 3.0, dtype=np.float32)}
    state = RobotState(stamp_ns=0, **ORIGIN, **rest, **empty)
    assert follow_goal(state, np.array(goal)) == pytest.approx([forward, turn], abs=1e-9)
    for module in ("follow_goal", "driver_node"):
        sys.modules.pop(module, None)


@pytest.mark.ros
def test_mediocre_driver_turns_away_when_it_looks_and_repeats_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(EXAMPLES))
    from follow_goal import follow_goal
    from mediocre_driver import MediocreDriver

    from safe_rl_ros.envs.robot_spec import load_robot_spec
    from safe_rl_ros.types import RobotState

    angles = load_robot_spec("rover").base_scan.angles
    rest = {name: np.zeros(3) for name in ("linear_velocity", "angular_velocity")}
    joints = {"joint_position": np.zeros(2), "joint_velocity": np.zeros(2)}
    goal = np.array([2.0, 0.0])

    def seen(bearing: float, distance: float) -> RobotState:
        ranges = np.full(72, 3.0, dtype=np.float32)
        ranges[np.abs(angles - bearing).argmin()] = distance
        return RobotState(stamp_ns=0, **ORIGIN, **rest, **joints, ranges=ranges)

    steady = MediocreDriver(angles, attention=1.0, noise=0.0, seed=0)
    for bearing, side in ((0.4, -1.0), (-0.4, 1.0)):
        forward, turn = steady(seen(bearing, 0.4), goal)
        assert np.sign(turn) == side, "away from the obstacle"
        assert 0.0 < forward < follow_goal(seen(bearing, 0.4), goal)[0]
    for state in (seen(0.4, 0.7), seen(2.0, 0.4)):  # too far, and not where it looks
        assert steady(state, goal) == pytest.approx(follow_goal(state, goal))
    blind = MediocreDriver(angles, attention=0.0, noise=0.0, seed=0)
    assert blind(seen(0.0, 0.3), goal) == pytest.approx(follow_goal(seen(0.0, 0.3), goal))
    drivers = [MediocreDriver(angles, attention=0.5, noise=1.0, seed=seed) for seed in (1, 1, 2)]
    driven = [np.array([driver(seen(0.3, 0.5), goal) for _ in range(20)]) for driver in drivers]
    assert np.array_equal(driven[0], driven[1])
    assert not np.array_equal(driven[0], driven[2])
    for module in ("mediocre_driver", "follow_goal", "driver_node"):
        sys.modules.pop(module, None)
