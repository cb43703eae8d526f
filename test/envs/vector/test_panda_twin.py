"""The arm of the tasks panda_push_* in PyBullet: limits, pushing, toppling, leaving, and what is refused."""

from __future__ import annotations

import subprocess
import sys
from xml.etree import ElementTree

import numpy as np
import pytest
from spec_files import write_spec

pytest.importorskip("pybullet")

from safe_rl_ros.envs.robot_spec import load_robot_spec
from safe_rl_ros.envs.tasks.panda_push import PandaPushBoundaryConfig, PandaPushToppleConfig
from safe_rl_ros.envs.tasks.panda_pusher import push
from safe_rl_ros.envs.vector import make_vector_env
from safe_rl_ros.envs.vector.panda_scene import FACING, HandMotion
from safe_rl_ros.types import ConfigError

SPEC = load_robot_spec("panda")
CONFIGS = {"topple": PandaPushToppleConfig, "boundary": PandaPushBoundaryConfig}


def make(task, num_envs=1, **changes):
    twin = make_vector_env(CONFIGS[task](**changes), num_envs, autoreset=False)
    twin.reset(seed=0)
    return twin


def follow(twin, policy, steps):
    """Step by a policy of observations until all copies ended or so many steps; return what happened."""
    obs, total = twin.observations, np.zeros(twin.num_envs)
    reached, failed, least = np.zeros((2, twin.num_envs), bool), np.zeros(twin.num_envs, bool), np.inf
    reached, alive = reached[0], np.ones(twin.num_envs, bool)
    for _ in range(steps):
        obs, reward, terminated, _, info = twin.step(policy(obs))
        total += reward * alive
        reached |= info["goal_reached"] & alive
        failed |= info["failure"] & alive
        least = np.minimum(least, np.where(alive, info["margin"], np.inf))
        alive &= ~terminated
        if not alive.any():
            break
        if terminated.any():  # what they do from there on is not looked at
            obs, _ = twin.reset(options={"reset_mask": terminated})
    return total, reached, failed, least


def ahead(part):
    return lambda obs: np.tile([0.0, part], (len(obs), 1))


@pytest.mark.parametrize("task", CONFIGS)
def test_the_scripted_arm_brings_every_block_to_its_goal(task):
    twin = make(task, 4)
    total, reached, failed, least = follow(twin, lambda obs: push(twin.task, obs, 0.15), 55)
    assert reached.all()
    assert not failed.any()
    assert (total > 2.5).all()  # some 0.2 m at 10 per m, and 1
    assert least.min() > (0.2 if task == "topple" else 0.03)


def test_a_block_that_is_pushed_too_fast_topples():
    twin = make("topple", 3)
    _, reached, failed, _ = follow(twin, ahead(1.0), 40)
    assert failed.all()
    assert not reached.any()
    assert (np.abs(twin.states[:, 15]) < 0.15).all()  # it is far from the table's end


def test_a_block_that_is_pushed_on_and_on_leaves_the_boundary_or_falls_off_the_table():
    *_, failed, least = follow(make("boundary", 3), ahead(0.5), 130)
    assert failed.all()
    assert (least > -0.01).all()  # at the first step beyond: half a centimetre
    *_, failed, least = follow(make("topple", 2), ahead(0.4), 130)
    assert failed.all()


def test_a_block_that_nobody_pushes_stays_where_it_is():
    twin = make("topple", 2)
    before = twin.states[:, 14:17].copy()
    total, _, failed, _ = follow(twin, ahead(0.0), 60)
    np.testing.assert_allclose(twin.states[:, 14:17], before, atol=2e-4)
    np.testing.assert_allclose(total, 0.0, atol=3e-3)
    assert not failed.any()


def test_the_reward_is_the_progress_and_the_bonus_comes_once():
    twin = make("boundary")
    obs = twin.observations
    names = [twin.obs_names.index(name) for name in ("goal_from_block_across", "goal_from_block_along")]
    bonuses, before = 0, np.hypot(*(0.1 * obs[0, names].astype(float)))
    for _ in range(80):
        obs, reward, _, _, info = twin.step(push(twin.task, obs))
        now = np.hypot(*(0.1 * obs[0, names].astype(float)))
        assert reward[0] == pytest.approx(10.0 * (before - now) + info["goal_reached"][0], abs=1e-5)
        bonuses, before = bonuses + int(info["goal_reached"][0]), now
    assert bonuses == 1
    assert before < 0.03


def test_the_tip_moves_as_told_at_its_height_with_the_fingers_down():
    twin = make("boundary")
    names = [twin.obs_names.index(name) for name in ("hand_across", "hand_along")]
    start = 0.2 * twin.observations[0, names]
    for _ in range(10):
        obs, *_ = twin.step([[-0.5, -0.25]])
    moved = 0.2 * obs[0, names] - start
    np.testing.assert_allclose(moved, [-0.05, -0.025], atol=1e-3)  # 0.2 m/s x 0.5 s x action
    tip = twin.hand.chain.motion(twin.joint_positions)
    assert tip.position[0, 2] == pytest.approx(0.12, abs=5e-4)
    np.testing.assert_allclose(tip.rotation[0], FACING, atol=5e-3)
    for _ in range(40):
        obs, *_ = twin.step([[-1.0, 0.0]])
    assert 0.2 * obs[0, names[0]] == pytest.approx(-0.12, abs=1e-3)  # it stays within its reach


@pytest.mark.parametrize(("max_speed", "least", "most"), [(0.3, 0.05, 1.0), (20.0, 0.9, 1.15)])
def test_joints_keep_to_the_robot_spec_whatever_the_action(max_speed, least, most):
    """At the highest speed of the tasks they stay below their limits.

    Where it asks for 20 m/s, to and fro, commands still keep to them, and the drives ask for no more; but the wrist's
    12 N m do not hold it against what the other joints do then: by so much it may be dragged faster.
    """
    twin = make("boundary", 2, max_speed=max_speed)
    rng, last, fastest = np.random.default_rng(0), twin.state_dict()["command"], 0.0
    for action in np.repeat(rng.choice([-1.0, 1.0], (8, 2, 2)), 5, axis=0):
        *_, terminated, _, _ = twin.step(action)
        command = twin.state_dict()["command"]
        assert (np.abs(command - last) <= SPEC.command_rate / SPEC.control_rate_hz * (1 + 1e-9)).all()
        assert ((command >= SPEC.command_lower) & (command <= SPEC.command_upper)).all()
        fastest = max(fastest, float((np.abs(twin.joint_speeds) / SPEC.command_rate).max()))
        if terminated.any():
            twin.reset(options={"reset_mask": terminated})
        last = twin.state_dict()["command"]
    assert least < fastest < most


def test_the_shipped_spec_has_the_limits_of_the_urdf():
    root = ElementTree.fromstring(SPEC.description.xml)
    for axis in SPEC.command.axes:
        (joint,) = [element for element in root.findall("joint") if element.get("name") == axis.name]
        soft, limit = joint.find("safety_controller"), joint.find("limit")
        assert axis.lower == float(soft.get("soft_lower_limit"))
        assert axis.upper == float(soft.get("soft_upper_limit"))
        assert axis.rate == float(limit.get("velocity"))
    assert make("boundary").servo.torques == [87.0] * 4 + [12.0] * 3


def test_joints_slow_down_together_and_stop_at_their_limits():
    hand = HandMotion(SPEC, PandaPushToppleConfig(hand_reach_m=(9.0, 9.0)))
    slow, fast = (hand.wanted(hand.start, np.array([0.0, speed])) - hand.start for speed in (0.1, 50.0))
    period_s = 1.0 / SPEC.control_rate_hz
    assert (np.abs(fast) / (SPEC.command_rate * period_s)).max() == pytest.approx(1.0)
    cosine = slow @ fast / np.linalg.norm(slow) / np.linalg.norm(fast)
    assert cosine > 0.99  # the same way, only shorter
    assert (np.abs(slow) < SPEC.command_rate * period_s).all()


def test_an_episode_begins_and_goes_the_same_whatever_was_before():
    fresh, used = make("topple"), make("topple")

    def go(twin):
        obs, _ = twin.reset(seed=4)
        found = []
        for _ in range(25):
            obs, *_ = twin.step(push(twin.task, obs, 0.15))
            found.append(twin.states.copy())
        return np.array(found)

    expected = go(fresh)
    assert np.ptp(expected[:, 0, 15]) > 0.03  # it is pushed
    for steps in (0, 1, 5, 20):
        obs, _ = used.reset(seed=4)
        for _ in range(steps):
            obs, *_ = used.step(push(used.task, obs, 0.15))
        np.testing.assert_array_equal(go(used), expected)


def test_a_state_that_is_stored_while_pushing_goes_on_bit_for_bit():
    twin, other = make("boundary", 2), make("boundary", 2)
    policy = lambda obs: push(twin.task, obs, 0.2)  # noqa: E731
    follow(twin, policy, 12)
    other.load_state_dict(twin.state_dict())
    for _ in range(15):
        np.testing.assert_array_equal(twin.observations, other.observations)
        first, second = twin.step(policy(twin.observations)), other.step(policy(other.observations))
        np.testing.assert_array_equal(first[1], second[1])
    assert np.abs(twin.states[:, 21:23]).max() > 0.05  # the blocks move


def test_robots_that_cannot_do_it_are_refused(tmp_path):
    arm = str(write_spec(tmp_path, "arm"))
    with pytest.raises(ConfigError, match="link 'panda_grasptarget' is not in the URDF"):
        make("topple", robot=arm)
    with pytest.raises(
        ConfigError, match=r"robot panda does not reach \[1\.5, -0\.17, 0\.172\] m with its fingers down"
    ):
        make("topple", table_centre_m=(1.5, 0.0))


MISSING = """
import sys
sys.modules["pybullet"] = sys.modules["pybullet_data"] = None
from safe_rl_ros.envs.vector import load_simulated_task, make_vector_env
from safe_rl_ros.types import ConfigError
for task in ("panda_push_topple", "panda_push_boundary", "laikago_walk"):
    try:
        make_vector_env(load_simulated_task(task), 1)
    except ConfigError as error:
        print(error)
"""


def test_without_pybullet_there_is_one_error_that_names_the_extra():
    result = subprocess.run([sys.executable, "-c", MISSING], capture_output=True, text=True, timeout=60, check=True)
    lines = result.stdout.splitlines()
    assert len(lines) == 3
    for line in lines:
        assert line.endswith("'pybullet_data' is not installed: pip install 'safe_rl_ros[pybullet]'"), line
