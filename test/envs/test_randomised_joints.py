"""Twins of arms and legs with other parameters than the neutral ones: what each does, and no memory."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
from spec_files import ARM_VELOCITY, write_spec
from twin_helpers import FAR, assert_same, drive, episode, fixed

pytest.importorskip("pybullet")

from safe_rl_ros.envs.joint_noise import JointNoise
from safe_rl_ros.envs.joint_servos import JointDrive, make_servo
from safe_rl_ros.envs.joint_twin import JointTwin
from safe_rl_ros.envs.parameter_log import read_parameter_log
from safe_rl_ros.envs.randomisation import load_randomisation
from safe_rl_ros.envs.robot_env import make_robot_env
from safe_rl_ros.envs.robot_spec import RobotSpec, load_robot_spec
from safe_rl_ros.envs.twin_parameters import NEUTRAL, TwinParameters
from safe_rl_ros.envs.twins import make_backend, make_joint_twin
from safe_rl_ros.training.run import open_session, prepare_directory, train
from safe_rl_ros.training.session_config import load_session_config
from safe_rl_ros.types import ConfigError, RobotState

ROBOTS = ("arm", "arm_velocity", "panda", "laikago")
EVERYTHING = TwinParameters(
    mass_scale=1.2,
    friction_scale=0.6,
    gain_joints=0.9,
    effort_scale=0.8,
    actuation_delay_s=0.03,
    actuation_jitter_s=0.02,
    observation_delay_s=0.02,
    observation_jitter_s=0.03,
    lag_s=0.02,
    joint_position_std=0.01,
    joint_velocity_std=0.02,
    imu_orientation_std_rad=0.01,
    imu_angular_velocity_std=0.02,
    imu_linear_acceleration_std=0.1,
)
BY_SEED = {0: NEUTRAL, 1: EVERYTHING, 2: TwinParameters(mass_scale=1.1, friction_scale=0.9)}


@pytest.fixture(scope="module")
def spec_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], RobotSpec]:
    path = write_spec(tmp_path_factory.mktemp("spec") / "velocity", "arm", ARM_VELOCITY)
    return lambda name: load_robot_spec(path if name == "arm_velocity" else name)


def twin(spec: RobotSpec, **values: float) -> JointTwin:
    made = make_joint_twin(spec, lambda seed: TwinParameters(**values))
    made.reset(0)
    return made


def assert_same_episodes(first: list[RobotState], second: list[RobotState]) -> None:
    for one, other in zip(first, second, strict=True):
        assert_same(one, other)


@pytest.mark.parametrize("robot", ROBOTS)
def test_neutral_parameters_are_the_twin_as_it_is(robot: str, spec_of: Callable[[str], RobotSpec]):
    plain, given = make_joint_twin(spec_of(robot)), make_joint_twin(spec_of(robot), lambda seed: NEUTRAL)
    assert_same_episodes(episode(plain, 3, 10), episode(given, 3, 10))
    assert plain.parameters is None
    assert given.parameters == NEUTRAL


@pytest.mark.parametrize("robot", ROBOTS)
def test_an_episode_does_not_depend_on_those_before_it(robot: str, spec_of: Callable[[str], RobotSpec]):
    spec = spec_of(robot)

    def fresh() -> JointTwin:
        return make_joint_twin(spec, BY_SEED.__getitem__)

    alone = {seed: episode(fresh(), seed, 8) for seed in BY_SEED}
    with pytest.raises(AssertionError):
        assert_same(alone[0][-1], alone[1][-1])
    used = fresh()
    for seed in (1, 0, 2, 1, 0):
        assert_same_episodes(episode(used, seed, 8), alone[seed])
        assert used.parameters == BY_SEED[seed]
    used.reset(1)
    used.step(spec.command_upper)
    used.stop()  # left in the midst of a delay
    assert_same_episodes(episode(used, 1, 8), alone[1])


@pytest.mark.parametrize("robot", ["arm", "arm_velocity", "laikago"])
def test_an_observation_delay_shows_what_was_before_bit_for_bit(robot: str, spec_of: Callable[[str], RobotSpec]):
    spec = spec_of(robot)
    prompt = episode(make_joint_twin(spec), 4, 12)
    late = twin(spec, observation_delay_s=2 * spec.period_ns * 1e-9)
    shown = episode(late, 4, 12)
    assert_same_episodes(shown[:3], [prompt[0]] * 3)
    assert_same_episodes(shown[2:], prompt[:-2])
    stamps = np.diff([state.stamp_ns for state in shown])
    assert set(stamps.tolist()) == {spec.period_ns}


def test_an_actuation_delay_shifts_the_motion_also_within_a_period(spec_of: Callable[[str], RobotSpec]):
    spec = spec_of("arm")  # ten substeps of 2 ms
    prompt = twin(spec)
    motion = [drive(prompt, (1.0, 0.5, 1.0), 1).joint_position for _ in range(10)]
    for delay_s in (0.02, 0.05, 0.055):
        late, before = twin(spec, actuation_delay_s=delay_s), 0.02 * np.arange(1, 11)
        moved = [drive(late, (1.0, 0.5, 1.0), 1).joint_position for _ in range(10)]
        for joint, start in enumerate((0.0, 0.0, 0.5)):
            expected = np.interp(before - delay_s, [0.0, *before], [start, *(state[joint] for state in motion)])
            # 5 ms are 7.5 mrad; within its first period a joint does not move evenly.
            np.testing.assert_allclose([state[joint] for state in moved], expected, atol=4e-3)


def test_speeds_on_their_way_are_lost_by_a_stop_and_positions_are_not(spec_of: Callable[[str], RobotSpec]):
    for robot, moved in (("arm_velocity", False), ("arm", True)):
        made = twin(spec_of(robot), actuation_delay_s=0.04)
        before = made.step(np.array([0.02, 0.0, 0.0])).state.joint_position[0]
        made.stop()
        after = drive(made, made.held, 10).joint_position[0]
        assert bool(after - before > 0.015) is moved, robot
        assert abs(after - before) < (0.021 if moved else 1e-4), robot


@pytest.mark.parametrize(("robot", "unit"), [("arm_velocity", 1.0), ("arm", 0.0)])
def test_gain_is_speed_made_per_speed_told(robot: str, unit: float, spec_of: Callable[[str], RobotSpec]):
    told = [0.2, 0.0, 0.0]
    plain, slow = (drive(twin(spec_of(robot), gain_joints=gain), told, 40) for gain in (1.0, 0.5))
    if unit:  # velocities: half as fast
        assert slow.joint_velocity[0] == pytest.approx(0.1, abs=1e-3)
        assert plain.joint_velocity[0] == pytest.approx(0.2, abs=1e-3)
    else:  # positions: it arrives all the same
        np.testing.assert_allclose(slow.joint_position, [0.2, 0.0, 0.0], atol=5e-3)
    late, prompt = (drive(twin(spec_of(robot), gain_joints=gain), told, 3).joint_position[0] for gain in (0.5, 1.0))
    assert late < 0.9 * prompt


@pytest.mark.parametrize(
    ("values", "holds"),
    [({}, True), ({"mass_scale": 1.05}, True), ({"mass_scale": 1.15}, False), ({"effort_scale": 0.9}, False)],
)
def test_mass_and_effort_decide_what_a_motor_holds(tmp_path: Path, values: dict[str, float], holds: bool):
    # As in test_joint_twin: the forearm lies flat and pulls with 1.76 N m; the motor has 1.9.
    path = write_spec(tmp_path, "arm", urdf={'effort="20.0"': 'effort="1.9"'})
    made = twin(load_robot_spec(path, ["twin.start={shoulder_lift_joint: 1.5}"]), **values)
    sunk = drive(made, made.held, 25).joint_position[2]
    assert abs(sunk) < 3e-3 if holds else sunk > 0.05


@pytest.mark.parametrize("robot", ["arm", "laikago"])
def test_masses_inertias_and_friction_are_multiples_of_the_robots_own(robot: str, spec_of: Callable[[str], RobotSpec]):
    made = make_joint_twin(spec_of(robot), BY_SEED.__getitem__)
    server, body, links = made._server, made._scene.robot.body, (-1, *made._scene.robot.links.values())
    own = {link: server.getDynamicsInfo(body, link)[:3] for link in links}
    made.reset(1)
    heavy = 0
    for link, (mass, friction, inertia) in own.items():
        now = server.getDynamicsInfo(body, link)
        scale = 1.0 if robot == "arm" and link == -1 else 1.2  # what the world holds weighs nothing
        assert now[0] == pytest.approx(scale * mass)
        np.testing.assert_allclose(now[2], scale * np.array(inertia), rtol=1e-9)
        assert now[1] == pytest.approx(0.6 * friction)
        heavy += mass > 0.0
    assert heavy >= 3
    made.reset(0)
    for link, found in own.items():
        np.testing.assert_allclose(np.hstack(server.getDynamicsInfo(body, link)[:3]), np.hstack(found), rtol=1e-9)


def test_legs_with_a_load_stand_as_they_settled():
    made = twin(load_robot_spec("laikago"), mass_scale=1.2)
    height = made.body_pose()[0][2]
    drive(made, made.held, 30)
    assert made.body_pose()[0][2] == pytest.approx(height, abs=2e-3)
    assert np.linalg.norm(made.step(made.held).state.imu_linear_acceleration) == pytest.approx(9.81, abs=0.05)


def test_an_imu_at_rest_feels_gravity_whenever_it_is_asked():
    made = twin(load_robot_spec("laikago"), observation_delay_s=0.05, observation_jitter_s=0.04)
    drive(made, made.held, 20)
    felt = [np.linalg.norm(made.step(made.held).state.imu_linear_acceleration) for _ in range(10)]
    np.testing.assert_allclose(felt, 9.81, atol=0.05)


def test_no_joint_is_told_to_go_faster_than_its_rate_however_commands_arrive(spec_of: Callable[[str], RobotSpec]):
    spec = spec_of("arm")
    made = twin(spec, actuation_jitter_s=0.05)
    way, rng = made._drive, np.random.default_rng(0)
    targets = [way._target()]
    for _ in range(100):
        way.set_command(rng.uniform(spec.command_lower, spec.command_upper))
        for _ in range(rng.integers(0, 15)):  # a period is ten substeps
            way.advance(made._server, made._scene.robot, 1)
            targets.append(way._target())
    fastest = np.abs(np.diff(targets, axis=0)).max(axis=0) / 0.002
    np.testing.assert_allclose(fastest, spec.command_rate)
    made.reset(0)
    for _ in range(50):
        made.step(rng.uniform(spec.command_lower, spec.command_upper))
    state = drive(made, made.held, 15)  # what was cut short is gone to in the end
    np.testing.assert_allclose(state.joint_position, made.held, atol=2e-3)


def test_a_lag_is_first_order(spec_of: Callable[[str], RobotSpec]):
    spec = spec_of("arm_velocity")
    made = twin(spec, lag_s=0.1)
    speeds = [drive(made, (1.0, 0.0, 0.0), 1).joint_velocity[0] for _ in range(40)]
    # The ramp, 4 rad/s^2 in substeps of 2 ms, followed by backward Euler.
    ramp, followed, expected = 0.0, 0.0, []
    for step in range(400):
        ramp = min(1.0, ramp + 0.008)
        followed += 0.002 / 0.102 * (ramp - followed)
        expected += [followed] * (step % 10 == 9)
    np.testing.assert_allclose(speeds, expected, atol=0.01)
    late = twin(spec_of("arm"), lag_s=0.1)
    positions = [drive(late, (0.03, 0.0, 0.5), 1).joint_position[0] for _ in range(60)]  # told at once: one period
    told, followed, expected = 0.0, 0.0, []
    for step in range(600):
        told = min(0.03, told + 0.003)
        followed += 0.002 / 0.102 * (told - followed)
        expected += [followed] * (step % 10 == 9)
    np.testing.assert_allclose(positions, expected, atol=1e-3)


def test_what_is_not_followed_by_another_command_is_gone_to(spec_of: Callable[[str], RobotSpec]):
    spec = spec_of("arm")
    made = make_joint_twin(spec)
    made.reset(0)
    way = JointDrive(spec, make_servo(spec))
    way.halt(np.zeros(3))
    way.set_command(np.array([0.05, 0.0, 0.0]))  # 1.5 rad/s: .03 rad in a period
    way.advance(made._server, made._scene.robot, 5)
    np.testing.assert_allclose(way._target(), [0.015, 0.0, 0.0])
    way.advance(made._server, made._scene.robot, 10)
    np.testing.assert_allclose(way._target(), [0.04, 0.0, 0.0])
    way.advance(made._server, made._scene.robot, 20)
    np.testing.assert_array_equal(way._target(), [0.05, 0.0, 0.0])


def test_noise_has_the_deviations_that_it_is_said_to_have():
    state = replace(
        twin(load_robot_spec("laikago")).reset(0),
        joint_position=np.zeros(12),
        joint_velocity=np.zeros(12),
        imu_orientation=np.array([0.0, 0.0, np.sin(0.4), np.cos(0.4)]),
        imu_angular_velocity=np.zeros(3),
        imu_linear_acceleration=np.zeros(3),
    )
    noise = JointNoise(EVERYTHING, np.random.default_rng(0))
    seen = [noise.on(state) for _ in range(4000)]
    wanted = {"joint_position": 0.01, "joint_velocity": 0.02, "imu_angular_velocity": 0.02}
    for name, std in (wanted | {"imu_linear_acceleration": 0.1}).items():
        values = np.array([getattr(one, name) for one in seen])
        np.testing.assert_allclose(values.std(axis=0), std, rtol=0.06, err_msg=name)
        np.testing.assert_allclose(values.mean(axis=0), 0.0, atol=0.06 * std, err_msg=name)
    turned = np.array([one.imu_orientation for one in seen])
    np.testing.assert_allclose(np.linalg.norm(turned, axis=1), 1.0)
    # Half the sine of the angle to the true orientation, about each of the imu's own axes.
    x, y, z, w = turned.T
    sine, cosine = np.sin(0.4), np.cos(0.4)
    about = 2.0 * np.array([cosine * x + sine * y, cosine * y - sine * x, cosine * z - sine * w])
    np.testing.assert_allclose(about.std(axis=1), 0.01, rtol=0.06)
    assert JointNoise(NEUTRAL, np.random.default_rng(0)).on(state) is state


def test_what_is_no_part_of_such_a_robot_is_refused_by_name():
    arm, rover = load_robot_spec("arm"), load_robot_spec("rover")
    with pytest.raises(ConfigError, match=r"gain_linear = 0\.9, expected 1: robot arm is moved by its joints"):
        make_joint_twin(arm, lambda seed: TwinParameters(gain_linear=0.9))
    with pytest.raises(ConfigError, match=r"joint_position_std = 0\.01, expected 0: robot rover is a base"):
        make_backend(rover, fixed(FAR), lambda seed: TwinParameters(joint_position_std=0.01))
    with pytest.raises(ConfigError, match="robot arm is moved by its joints and has none of gain_linear, gain_angular"):
        make_robot_env("arm", "joint_reach", randomisation="rover")
    with pytest.raises(ConfigError, match=r"gain_joints = .*robot rover is a base and has none of gain_joints"):
        make_robot_env("rover", "hazard_nav", randomisation="laikago")


@pytest.mark.parametrize("robot", ["arm", "panda", "laikago"])
def test_the_shipped_files_are_for_their_robots(robot: str):
    draw = load_randomisation(robot).draw
    made = make_joint_twin(load_robot_spec(robot), draw)
    states = episode(made, 1, 10) + episode(made, 2, 10)
    assert made.parameters == draw(2)
    for state in states:
        for field in fields(RobotState)[1:]:
            if "joint" in field.name or (robot == "laikago" and "imu" in field.name):
                assert np.isfinite(getattr(state, field.name)).all(), field.name


def test_a_session_logs_parameters_from_which_an_episode_is_run_again(tmp_path: Path):
    overrides = ["robot=arm", "task=joint_reach", "randomisation=arm", "name=varied", "filter.critic=off"]
    overrides += ["training.total_steps=100", "training.steps_per_epoch=100", "algorithm.name=trpo"]
    session = tmp_path / "session.yaml"
    session.write_text("name: varied\nseed: 0\nrobot: arm.yaml\ntask: joint_reach.yaml\nalgorithm: {name: trpo}\n")
    config = load_session_config(session, overrides[2:-1])
    directory = prepare_directory(config, tmp_path, resume=False)
    train(config, directory, open_session)
    seed, parameters = read_parameter_log(directory / "randomisation.jsonl")[0]
    assert parameters == load_randomisation("arm").draw(seed)
    line = json.loads((directory / "randomisation.jsonl").read_text().splitlines()[0])
    assert line["twin_parameters"]["effort_scale"] == parameters.effort_scale != 1.0
    again, drawn = (make_robot_env("arm", "joint_reach", randomisation=given) for given in (parameters, "arm"))
    first, second = again.reset(seed=seed), drawn.reset(seed=seed)
    np.testing.assert_array_equal(first[0], second[0])
    assert first[1]["twin_parameters"] == second[1]["twin_parameters"]
