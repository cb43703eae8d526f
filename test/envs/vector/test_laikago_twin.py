"""The quadruped of the task laikago_walk in PyBullet: it stands, it trots, it falls, and its limits hold."""

from __future__ import annotations

import shutil

import numpy as np
import pytest

pytest.importorskip("pybullet")

from safe_rl_ros.envs.robot_spec import load_robot_spec
from safe_rl_ros.envs.tasks.laikago_trot import trot
from safe_rl_ros.envs.tasks.laikago_walk import LaikagoWalkConfig
from safe_rl_ros.envs.vector import make_vector_env
from safe_rl_ros.resources import find_resource
from safe_rl_ros.types import ConfigError

SPEC = load_robot_spec("laikago")
FORWARD, HEIGHT = 24, 26


WILD = {"action_scale_rad": (0.2, 0.4, 0.6), "target_memory": 0.0}


def make(num_envs=1, seed=0, **changes):
    twin = make_vector_env(LaikagoWalkConfig(**changes), num_envs, autoreset=False)
    twin.reset(seed=seed)
    return twin


def test_the_action_0_stands_for_a_whole_episode():
    twin = make()
    for step in range(500):
        _, _, terminated, truncated, info = twin.step(np.zeros((1, 12)))
        assert not terminated.any()
        assert (info["margin"] > 0.5).all()
        assert truncated.all() == (step == 499)
    assert (np.abs(twin.states[:, FORWARD : FORWARD + 2]) < 0.01).all()  # m
    np.testing.assert_allclose(twin.states[:, HEIGHT], 0.44, atol=5e-3)
    assert (info["cost"] == 0.0).all()


def test_the_scripted_trot_walks_and_the_reward_is_its_speed():
    twin, total = make(2, seed=5), np.zeros(2)
    for step in range(150):
        _, reward, terminated, _, info = twin.step(np.tile(trot(twin.task, step / 30.0), (2, 1)))
        assert not terminated.any()
        assert (info["margin"] > 0.3).all()
        total += reward / 30.0
    np.testing.assert_allclose(total, twin.states[:, FORWARD], atol=1e-9)  # m/s, summed over time
    assert (total > 2.5).all()  # in 5 s


def test_a_robot_whose_legs_give_way_falls():
    twin = make(2, **WILD)
    action = np.tile([0.0, 1.0, -1.0] * 2 + [0.0, -1.0, 1.0] * 2, (2, 1))
    for _ in range(60):
        _, _, terminated, _, info = twin.step(action)
        if terminated.any():
            break
    assert terminated.any()
    np.testing.assert_array_equal(info["failure"], terminated)
    np.testing.assert_array_equal(info["cost"], terminated.astype(float))
    assert (info["margin"][terminated] <= 0.0).all()


def test_commands_keep_to_the_robot_spec_and_joints_hardly_exceed_its_speed():
    twin = make(2, **WILD)
    rng, last, fastest = np.random.default_rng(0), twin.commands, 0.0
    for _ in range(100):
        *_, terminated, _, _ = twin.step(rng.choice([-1.0, 1.0], (2, 12)))
        command = twin.commands
        assert (np.abs(command - last) <= SPEC.command_rate / SPEC.control_rate_hz * (1 + 1e-9)).all()
        assert ((command >= SPEC.command_lower) & (command <= SPEC.command_upper)).all()
        fastest = max(fastest, float((np.abs(twin.joint_speeds) / SPEC.command_rate).max()))
        if terminated.any():
            twin.reset(options={"reset_mask": terminated})
        last = twin.commands
    assert 0.9 < fastest < 1.2  # the drives ask for no more; a foot that hits the floor may push a joint


def test_the_limits_cut_what_an_action_asks_for():
    twin = make(action_scale_rad=(3.0, 3.0, 3.0), target_memory=0.0)
    before = twin.commands
    twin.step(np.ones((1, 12)))
    np.testing.assert_allclose(twin.commands[0, 1::3] - before[0, 1::3], 12.794 / 30.0)
    np.testing.assert_allclose(twin.commands[0, 2::3] - before[0, 2::3], 12.794 / 30.0)
    for _ in range(3):
        if twin.step(np.ones((1, 12)))[2].any():
            break
    assert (twin.commands <= SPEC.command_upper).all()
    np.testing.assert_allclose(twin.commands[0, ::3], 1.0472)  # of the hips


def test_an_episode_begins_and_goes_the_same_whatever_was_before():
    fresh, used = make(), make()

    def go(twin):
        twin.reset(seed=4)
        found = []
        for step in range(25):
            twin.step(trot(twin.task, step / 30.0)[None])
            found.append(twin.states.copy())
        return np.array(found)

    expected = go(fresh)
    for steps in (0, 1, 5, 20):
        used.reset(seed=4)
        for _ in range(steps):
            used.step(np.full((1, 12), 0.1))
        np.testing.assert_array_equal(go(used), expected)


def test_a_state_that_is_stored_while_walking_goes_on_bit_for_bit():
    twin, other = make(2), make(2)
    actions = [np.tile(trot(twin.task, step / 30.0), (2, 1)) for step in range(60)]
    for action in actions[:30]:
        twin.step(action)
    other.load_state_dict(twin.state_dict())
    for action in actions[30:]:
        first, second = twin.step(action), other.step(action)
        np.testing.assert_array_equal(first[0], second[0])
        np.testing.assert_array_equal(first[1], second[1])


def test_starts_differ_within_the_noise():
    twin, away = make(), []
    for _ in range(20):
        away.append(np.abs(twin.states[0, :12] - np.tile(twin.task.stand_rad, 4)))
        assert twin.states[0, HEIGHT] == 0.44
        twin.reset()
    assert 0.028 < np.max(away) <= 0.03 + 1e-12


def test_robots_that_cannot_do_it_are_refused(tmp_path):
    with pytest.raises(ConfigError, match="stand_rad is outside the limits of robot laikago: FR_lower_leg_2_upper_leg"):
        make(stand_rad=(0.0, 0.1, 0.5))
    with pytest.raises(ConfigError, match="robot panda has 7 command axes, laikago_walk needs 12"):
        make(robot="panda.yaml")
    with pytest.raises(ConfigError, match=r"FR_hip_motor_2_chassis_joint: torque 200 N m, the URDF allows 100"):
        make(torque_limit_nm=(200.0, 40.0, 40.0))
    shutil.copy(find_resource("laikago.yaml", "config/robots"), tmp_path / "dog.yaml")
    text = (tmp_path / "dog.yaml").read_text().replace("laikago_toes_zup.urdf", "laikago.urdf")
    (tmp_path / "dog.yaml").write_text(text)
    with pytest.raises(ConfigError, match="the URDF lacks the feet toeFR, toeFL, toeRR, toeRL"):
        make(robot=str(tmp_path / "dog.yaml"))


def test_the_camera_follows_the_robot():
    twin = make()
    dark = [int((twin.picture().sum(axis=2) < 200).sum())]
    twin._servers[0].resetBasePositionAndOrientation(twin.scene.body, [9.0, 3.0, 0.44], [0.0, 0.0, 0.0, 1.0])
    dark.append(int((twin.picture().sum(axis=2) < 200).sum()))
    assert min(dark) > 5000  # pixels of the robot; the floor is light
    assert dark[0] == pytest.approx(dark[1], rel=0.05)
