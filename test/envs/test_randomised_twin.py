"""Twins with other parameters than the neutral ones, in both simulators: what each parameter does, and no memory."""

from __future__ import annotations

import math

import numpy as np
import pytest
from twin_helpers import (
    FAR,
    SIMULATORS,
    assert_same,
    drive,
    episode,
    fixed,
    nav_layout,
    seconds,
    spec_of,
)

from safe_rl_ros.envs.backend import RESET_GAP_NS
from safe_rl_ros.envs.randomisation import load_randomisation
from safe_rl_ros.envs.robot_env import make_robot_env
from safe_rl_ros.envs.robot_spec import RobotSpec
from safe_rl_ros.envs.twin_backend import TwinBackend
from safe_rl_ros.envs.twin_parameters import NEUTRAL, TwinParameters
from safe_rl_ros.envs.twins import make_backend
from safe_rl_ros.types import BackendError, ConfigError, RobotState

EVERYTHING = TwinParameters(
    mass_scale=1.7,
    friction_scale=0.6,
    gain_linear=0.9,
    gain_angular=1.1,
    actuation_delay_s=0.13,
    actuation_jitter_s=0.08,
    observation_delay_s=0.06,
    observation_jitter_s=0.17,
    lag_s=0.1,
    linear_velocity_std=0.01,
    angular_velocity_std=0.02,
    position_std_m=0.01,
    heading_std_rad=0.01,
    scan_std_m=0.02,
)
BY_SEED = {0: NEUTRAL, 1: EVERYTHING, 2: TwinParameters(mass_scale=0.7)}
LIGHT = TwinParameters(gain_linear=0.5, gain_angular=1.5)


@pytest.fixture(params=SIMULATORS)
def spec(request: pytest.FixtureRequest) -> RobotSpec:
    return spec_of("rover", request.param)


def twin(spec: RobotSpec, parameters: TwinParameters) -> TwinBackend:
    backend = make_backend(spec, fixed(FAR), lambda seed: parameters)
    backend.reset(0)
    return backend


def speeds(backend: TwinBackend, command: tuple[float, float], periods: int) -> list[float]:
    return [float(drive(backend, command, 1).linear_velocity[0]) for _ in range(periods)]


def assert_same_episodes(first: list[RobotState], second: list[RobotState]) -> None:
    assert len(first) == len(second)
    for one, other in zip(first, second, strict=True):
        assert_same(one, other)


def test_neutral_parameters_are_the_twin_as_it_is(spec: RobotSpec):
    plain, given = make_backend(spec, nav_layout(spec)), make_backend(spec, nav_layout(spec), lambda seed: NEUTRAL)
    assert_same_episodes(episode(plain, 3), episode(given, 3))
    assert plain.parameters is None
    assert given.parameters == NEUTRAL


@pytest.mark.parametrize("robot", ["rover", "jackal"])
def test_an_episode_does_not_depend_on_those_before_it(robot: str, spec: RobotSpec):
    spec = spec_of(robot, spec.twin.simulator)

    def fresh() -> TwinBackend:
        return make_backend(spec, nav_layout(spec), BY_SEED.__getitem__)

    alone = {seed: episode(fresh(), seed) for seed in BY_SEED}
    used = fresh()
    for seed in (1, 0, 2, 1, 0):
        assert_same_episodes(episode(used, seed), alone[seed])
    used.reset(1)
    drive(used, (1.0, 1.0), 3)  # left in the midst of a delay
    assert_same_episodes(episode(used, 1), alone[1])


def test_respond_leaves_nothing_behind_and_needs_a_reset(spec: RobotSpec):
    backend = make_backend(spec, nav_layout(spec), BY_SEED.__getitem__)
    before = episode(backend, 0)
    backend.respond(np.full((50, 2), 0.5), EVERYTHING)
    with pytest.raises(BackendError, match="before its first reset"):
        backend.step(np.zeros(2))
    assert_same_episodes(episode(backend, 0), before)


def test_respond_is_the_motion_of_the_steps(spec: RobotSpec):
    body = TwinParameters(mass_scale=1.3, friction_scale=0.8, gain_linear=0.9, lag_s=0.05)
    backend = twin(spec, body)
    rng = np.random.default_rng(0)
    told = rng.uniform(spec.command_lower, spec.command_upper, (8, 2))
    states = [backend.step(command).state for command in told]
    motion = backend.respond(np.repeat(told, spec.twin.substeps, axis=0), body)
    ends = motion[spec.twin.substeps - 1 :: spec.twin.substeps]
    seen = [(state.linear_velocity[0], state.angular_velocity[2]) for state in states]
    np.testing.assert_allclose(ends, seen, atol=1e-12)


@pytest.mark.parametrize("split", [(0.2, 0.0), (0.0, 0.2), (0.1, 0.1), (0.03, 0.17)])
def test_delays_shift_the_motion_by_their_sum_and_keep_the_stamps(spec: RobotSpec, split: tuple[float, float]):
    prompt = twin(spec, NEUTRAL)
    late = twin(spec, TwinParameters(actuation_delay_s=split[0], observation_delay_s=split[1]))
    rng = np.random.default_rng(1)
    told = rng.uniform(spec.command_lower, spec.command_upper, (12, 2))
    first = [prompt.step(command).state for command in told]
    stamp = late.stamp_ns
    second = [late.step(command).state for command in told]
    assert stamp == RESET_GAP_NS
    assert [state.stamp_ns for state in second] == [stamp + spec.period_ns * (k + 1) for k in range(12)]
    for earlier, later in zip(first[:-2], second[2:], strict=True):
        np.testing.assert_allclose(later.position, earlier.position, atol=1e-6)
        np.testing.assert_allclose(later.linear_velocity, earlier.linear_velocity, atol=1e-5)
        np.testing.assert_allclose(later.joint_velocity, earlier.joint_velocity, atol=1e-4)
    np.testing.assert_allclose(second[0].position, [0.0, 0.0, 0.0], atol=1e-3)


def test_a_delay_counts_in_substeps(spec: RobotSpec):
    # 4 m/s^2 for 0.1 s less the delay of 0.04 s.
    prompt, late = twin(spec, NEUTRAL), twin(spec, TwinParameters(actuation_delay_s=0.04))
    assert speeds(prompt, (1.0, 0.0), 1) == pytest.approx([0.4], abs=0.06)
    assert speeds(late, (1.0, 0.0), 1) == pytest.approx([0.24], abs=0.06)


def test_gains_scale_what_the_wheels_are_told(spec: RobotSpec):
    state = drive(twin(spec, LIGHT), (0.8, 0.0), 20)
    assert state.linear_velocity[0] == pytest.approx(0.4, abs=0.01)
    state = drive(twin(spec, LIGHT), (0.0, 1.0), 20)
    assert state.angular_velocity[2] == pytest.approx(1.5, abs=0.02)


def test_a_lag_is_of_first_order(spec: RobotSpec):
    lag_s = 0.3
    got = np.array(speeds(twin(spec, TwinParameters(lag_s=lag_s)), (1.0, 0.0), 15))
    # A ramp of 4 m/s^2 for T = .25 s through a lag of time constant tau, at t > T:
    # 1 - 4 tau (exp(T / tau) - 1) exp(-t / tau).
    t = 0.1 * np.arange(1, 16)
    expected = 1.0 - 4.0 * lag_s * (math.exp(0.25 / lag_s) - 1.0) * np.exp(-t / lag_s)
    np.testing.assert_allclose(got[2:], expected[2:], atol=0.03)


def test_a_heavier_base_takes_longer_where_the_torque_is_limited(spec: RobotSpec):
    weak = {"wheel_servo_nms": 0.2, "substeps": spec.twin.substeps}
    soft = spec.model_copy(update={"twin": spec.twin.model_copy(update=weak)})
    light, heavy = (speeds(twin(soft, TwinParameters(mass_scale=scale)), (1.0, 0.0), 5)[-1] for scale in (1.0, 2.0))
    # Servo against inertia: a first-order lag of (m r^2 / 2 + J) / k: 12 kg more are 0.0486 of then 0.155 kg m^2.
    # J is a rotor's 0.05 and a wheel's 0.002, m = 13.4 kg; the ramp of .25 s in front of it as above, at .5 s.
    for speed, mass in ((light, 13.4), (heavy, 25.4)):
        tau = (mass * 0.09**2 / 2.0 + 0.052) / 0.2
        expected = 1.0 - 4.0 * tau * (math.exp(0.25 / tau) - 1.0) * math.exp(-0.5 / tau)
        assert speed == pytest.approx(expected, rel=0.06)


def test_a_slippery_floor_limits_the_acceleration(spec: RobotSpec):
    # The base pushes with less than friction times weight: 0.1 * 1.2 * 9.81 = 1.18 m/s^2, of which wheels bear a part.
    backend = twin(spec, TwinParameters(friction_scale=0.1))
    after = drive(backend, (1.0, 0.0), 5)
    assert after.linear_velocity[0] < 1.18 * 0.5 + 0.02
    assert after.joint_velocity[0] * 0.09 > 1.3 * after.linear_velocity[0], "the wheels must slip"


def test_a_stop_is_heard_at_once_and_loses_what_is_on_its_way(spec: RobotSpec):
    backend = twin(spec, TwinParameters(actuation_delay_s=0.3))
    drive(backend, (1.0, 0.0), 8)
    with pytest.raises(BackendError, match="refused"):
        backend.step(np.array([np.nan, 0.0]))
    assert drive(backend, (0.0, 0.0), 4).linear_velocity[0] == pytest.approx(0.0, abs=0.02)


def test_a_command_is_taken_as_it_was_when_it_was_given(spec: RobotSpec):
    backend = twin(spec, TwinParameters(actuation_delay_s=0.2))
    command = np.array([1.0, 0.0])
    backend.step(command)
    command[:] = 0.0
    backend.step(np.array([1.0, 0.0]))
    assert drive(backend, (1.0, 0.0), 1).linear_velocity[0] > 0.3


def test_the_environment_says_what_the_twin_is(spec: RobotSpec):
    env = make_robot_env(spec, randomisation="rover")
    heard: list[tuple[int, TwinParameters]] = []
    env.on_episode = lambda seed, parameters: heard.append((seed, parameters))
    infos = [env.reset(seed=seed)[1] for seed in (8, 9, 8)]
    drawn = load_randomisation("rover").draw
    assert [info["twin_parameters"] for info in infos] == [drawn(seed).model_dump() for seed in (8, 9, 8)]
    assert heard == [(seed, drawn(seed)) for seed in (8, 9, 8)]
    assert "twin_parameters" not in make_robot_env(spec).reset(seed=8)[1]
    with pytest.raises(ConfigError, match=r"randomisation is given, but (Mujoco|Pybullet)Backend"):
        make_robot_env(spec, backend=env.backend, randomisation="rover")


def test_pictures_work_with_another_body():
    backend = twin(spec_of("rover", "mujoco"), TwinParameters(mass_scale=2.0))
    assert drive(backend, (0.5, 0.0), seconds(backend.spec, 0.5)).position[0] > 0.1


@pytest.mark.parametrize(("command", "periods"), [((1.0, 1.0), 1), ((1.0, 1.0), 3), ((0.3, -1.0), 5), ((0.0, 0.0), 10)])
def test_a_reset_on_the_spot_forgets_the_contacts(spec: RobotSpec, command: tuple[float, float], periods: int):
    backend = make_backend(spec, nav_layout(spec))
    first = episode(backend, 1)
    backend.reset(1)
    drive(backend, command, periods)
    assert_same_episodes(episode(backend, 1), first)


def test_a_body_that_could_not_be_changed_is_changed_at_the_next_reset(spec: RobotSpec, monkeypatch):
    expected = episode(make_backend(spec, nav_layout(spec), BY_SEED.__getitem__), 0)
    backend = make_backend(spec, nav_layout(spec), BY_SEED.__getitem__)
    backend.reset(0)
    with monkeypatch.context() as patch:
        patch.setattr(backend, "_settle", lambda: (_ for _ in ()).throw(BackendError("the physics diverged")))
        with pytest.raises(BackendError, match="diverged"):
            backend.reset(1)
        with pytest.raises(BackendError, match="before its first reset"):
            backend.step(np.zeros(2))
    assert_same_episodes(episode(backend, 0), expected)
