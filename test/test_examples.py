"""The examples are policies of somebody who knows nothing of the filter; they must keep working with the package."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

import numpy as np
import pytest

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"
ORIGIN = {"position": np.zeros(3), "orientation": np.array([0.0, 0.0, 0.0, 1.0])}


@pytest.mark.parametrize("name", ["driver_node", "follow_goal", "sb3_policy"])
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
