"""Task joint_reach: reward, cost and margin by hand; the arm's episodes, with the filter; what is refused."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from safe_rl_ros.envs.observers import make_observer
from safe_rl_ros.envs.robot_env import make_robot_env
from safe_rl_ros.envs.robot_spec import load_robot_spec
from safe_rl_ros.envs.tasks.joint_reach import JointReach, JointReachConfig
from safe_rl_ros.envs.tasks.robot_tasks import load_robot_task, read_robot_task
from safe_rl_ros.safety.action_filter import ActionFilter
from safe_rl_ros.safety.contracts import FilterConfig
from safe_rl_ros.safety.wrapper import SafetyFilterWrapper
from safe_rl_ros.training.session import make_action_filter
from safe_rl_ros.types import NO_TURN, NO_VECTOR, ConfigError, Reason, RobotState

ARM = load_robot_spec("arm")
POST = {"centre": (0.37, 0.25, 0.55), "radius": 0.12}
REST, ROUND, TARGET = [0.0, 0.0, 0.5], [1.2, 0.0, 0.5], [1.2, 0.9, 1.2]


def config(**changes: Any) -> JointReachConfig:
    values = {"tool": "tool_link", "target": (0.0, 0.3, 0.57), "guards": {"tool_link": 0.05, "forearm_link": 0.06}}
    return JointReachConfig(**{**values, "keep_out": [POST], **changes})


def state(*joints: float) -> RobotState:
    position = np.array(joints)
    nothing = np.zeros(0, dtype=np.float32)
    return RobotState(0, NO_VECTOR, NO_TURN, NO_VECTOR, NO_VECTOR, position, 0.0 * position, nothing)


def test_margin_by_hand():
    task = JointReach(config(), ARM)
    # Straight up the elbow is .57 m high and the tool .87 m: the post is nearer to the elbow than the floor.
    upright = math.dist((0.0, 0.0, 0.57), POST["centre"]) - 0.12 - 0.06
    assert task.margin(state(0.0, 0.0, 0.0)) == pytest.approx(upright)
    # The forearm level along x: the tool is at (.3, 0, .57), and nearer to the post than the elbow.
    level = math.dist((0.3, 0.0, 0.57), POST["centre"]) - 0.12 - 0.05
    assert task.margin(state(0.0, 0.0, math.pi / 2)) == pytest.approx(level)
    # Turned right: the same along -y, away from the post; what counts is the elbow again.
    assert task.margin(state(-math.pi / 2, 0.0, math.pi / 2)) == pytest.approx(upright)
    # A floor .5 m high is .57 - .5 - .06 below the elbow.
    assert JointReach(config(floor_m=0.5), ARM).margin(state(0.0, 0.0, 0.0)) == pytest.approx(0.01)
    assert JointReach(config(keep_out=[]), ARM).margin(state(0.0, 0.0, 0.0)) == pytest.approx(0.51)


def test_reward_cost_and_arrival_by_hand():
    task, far, near = JointReach(config(), ARM), state(0.0, 0.0, math.pi / 2), state(1.5, 0.0, math.pi / 2)
    # From (.3, 0) to (.3 cos 1.5, .3 sin 1.5), the target is (0, .3).
    before, after = 0.3 * math.sqrt(2.0), 2.0 * 0.3 * math.sin((math.pi / 2 - 1.5) / 2.0)
    arrival = task.evaluate(far, near, task.layout(0), task.initial())
    assert arrival.reward == pytest.approx(5.0 * (before - after) + 0.05)
    assert (arrival.cost, arrival.terminated, arrival.goal_reached) == (0.0, False, True)
    stay = task.evaluate(near, near, task.layout(0), arrival.task_state)
    assert (stay.reward, stay.goal_reached, stay.task_state.goal_index) == (0.05, False, 1)
    leave = task.evaluate(near, far, task.layout(0), stay.task_state)
    assert leave.reward == pytest.approx(5.0 * (after - before))
    touch = task.evaluate(far, state(0.6, 0.35, 1.0), task.layout(0), task.initial())
    assert touch.margin < 0.0
    assert (touch.cost, touch.terminated) == (1.0, True)


def test_a_joint_that_was_not_measured_is_a_failure():
    task = JointReach(config(), ARM)
    outcome = task.evaluate(state(0.0, 0.0, 0.0), state(0.0, math.nan, 0.0), task.layout(0), task.initial())
    assert (outcome.cost, outcome.terminated) == (1.0, True)
    assert math.isnan(outcome.margin)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"tool": "forearm"}, "tool is 'forearm', expected one of the guards"),
        ({"tool": "hand", "guards": {"hand": 0.1}}, "link 'hand' is not in the URDF"),
        ({"target": (0.3, 0.25, 0.55)}, "the tool's margin at the target is -.*, expected more than 0"),
        ({"target": (0.3, -0.3, 0.04)}, "the tool's margin at the target is -0.01 m"),
    ],
)
def test_what_does_not_fit_the_robot_is_one_error(changes: dict[str, Any], message: str):
    with pytest.raises(ConfigError, match=message):
        JointReach(config(**changes), ARM)


def test_the_policy_sees_joints_by_whatever_name_the_task_is_found():
    assert make_observer(ARM, "joint_reach").names == make_observer(ARM, "joint_hold").names
    assert isinstance(load_robot_task("joint_reach.yaml"), JointReachConfig)
    with pytest.raises(ConfigError, match="observed only on a base"):
        make_observer(ARM, "hazard_nav")
    with pytest.raises(ConfigError, match="task 'point_goal' is not a robot's"):
        read_robot_task("point_goal")
    with pytest.raises(ConfigError, match=r"joint_hold.yaml: no reward and no cost, only an observation \('joints'\)"):
        make_robot_env(task="joint_hold")
    with pytest.raises(ConfigError, match="robot arm is moved by its joints and has none of gain_linear"):
        make_robot_env(task="joint_reach", randomisation="rover")


@pytest.fixture
def env() -> Any:
    pytest.importorskip("pybullet")
    made = make_robot_env(task="joint_reach")
    yield made
    made.close()


def drive(env: Any, way: list[tuple[int, list[float]]], seed: int = 0) -> tuple[float, dict[str, Any], list[Any]]:
    """Send the arm to joint positions, each for so many steps; return the reward, the last info and all states."""
    env.reset(seed=seed)
    rewards, states, info = 0.0, [], {}
    for steps, joints in way:
        for _ in range(steps):
            action = env.unwrapped.command_map.to_action(np.array(joints)).astype(np.float32)
            _, reward, terminated, truncated, info = env.step(action)
            rewards += reward
            states.append(info)
            if terminated or truncated:
                return rewards, info, states
    return rewards, info, states


def test_the_straight_way_fails_and_the_way_round_the_post_arrives(env: Any):
    for seed in range(3):
        rewards, info, _ = drive(env, [(200, TARGET)], seed)
        assert info["failure"]
        assert rewards < 2.0
        rewards, info, states = drive(env, [(45, ROUND), (155, TARGET)], seed)
        assert not info["failure"]
        assert sum(each["goal_reached"] for each in states) == 1
        assert rewards > 8.0
        assert env._steps == 200


def test_episodes_begin_elsewhere_and_repeat_by_their_seed(env: Any):
    starts = [env.reset(seed=seed)[0] for seed in (1, 2, 1)]
    assert starts[0].tobytes() == starts[2].tobytes()
    assert np.abs(starts[0] - starts[1]).max() > 0.01
    check_env(env, skip_render_check=True)


def test_the_filter_takes_up_positions_where_each_episode_begins(env: Any):
    made: ActionFilter = make_action_filter(ARM, FilterConfig(critic="off"))
    wrapper = SafetyFilterWrapper(env, made)
    for seed in (0, 1):
        wrapper.reset(seed=seed)
        start = env.state.joint_position
        _, _, _, _, info = wrapper.step(np.ones(3, dtype=np.float32))
        decision = info["decision"]
        assert decision.reason is not Reason.STOP_INACTIVE
        # A full swing was asked for; what is sent is one period's rate away from where the arm is.
        np.testing.assert_allclose(decision.executed, start + ARM.command_rate * ARM.period_ns * 1e-9, atol=1e-9)
        while not info["failure"]:  # the next episode begins after one that ended far from its start
            *_, info = wrapper.step(np.ones(3, dtype=np.float32))
