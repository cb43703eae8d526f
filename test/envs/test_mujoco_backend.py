"""The twin: geometry of the lidar, odometry, joint order, determinism, stamps and refusals."""

import math
import shutil
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest

from safe_rl_ros.envs.backend import RESET_GAP_NS
from safe_rl_ros.envs.mujoco_backend import MujocoBackend
from safe_rl_ros.envs.robot_spec import RobotSpec, load_robot_spec
from safe_rl_ros.envs.tasks.hazard_nav import HazardNav, HazardNavConfig, Layout
from safe_rl_ros.resources import find_resource
from safe_rl_ros.types import BackendError, ConfigError, RobotState

SPEC = load_robot_spec("rover")
NAV = HazardNav(HazardNavConfig(), SPEC.footprint_radius_m)
FAR = (50.0, 50.0, 0.3)


def fixed(*hazards: tuple[float, float, float], start=(0.0, 0.0, 0.0)) -> Callable[[int], Layout]:
    layout = Layout(hazards=np.array(hazards), goals=np.array([[1.0, 1.0]]), start=np.array(start))
    return lambda seed: layout


def drive(backend: MujocoBackend, command: tuple[float, float], periods: int) -> RobotState:
    for _ in range(periods):
        state = backend.step(np.array(command)).state
    return state


def assert_same(first: RobotState, second: RobotState, stamps: bool = False) -> None:
    for field in fields(RobotState):
        if field.name != "stamp_ns" or stamps:
            a, b = np.asarray(getattr(first, field.name)), np.asarray(getattr(second, field.name))
            assert a.dtype == b.dtype
            assert a.tobytes() == b.tobytes(), field.name


def test_the_robot_starts_at_rest_where_the_layout_says():
    state = MujocoBackend(SPEC, fixed(FAR, start=(1.5, -0.5, 2.0))).reset(0)
    np.testing.assert_allclose(state.position, [1.5, -0.5, 0.0], atol=1e-3)
    np.testing.assert_allclose(state.orientation, [0.0, 0.0, math.sin(1.0), math.cos(1.0)], atol=1e-3)
    np.testing.assert_array_equal(state.linear_velocity, np.zeros(3))
    np.testing.assert_array_equal(state.joint_velocity, np.zeros(2))


def test_the_robot_stays_at_rest_without_a_command():
    backend = MujocoBackend(SPEC, fixed(FAR))
    start = backend.reset(0)
    state = drive(backend, (0.0, 0.0), 50)
    np.testing.assert_allclose(state.position, start.position, atol=1e-4)
    assert np.abs(state.linear_velocity).max() < 1e-4


def test_types_of_a_state_survive_ros_messages():
    state = MujocoBackend(SPEC, NAV.layout).reset(0)
    assert state.ranges.dtype == np.float32
    for name in ("position", "orientation", "linear_velocity", "angular_velocity", "joint_position", "joint_velocity"):
        value = getattr(state, name)
        assert value.dtype == np.float64, name
        assert value.flags.c_contiguous, name
    assert type(state.stamp_ns) is int


def test_lidar_ranges_by_hand():
    # The lidar sits 0.06 m ahead of the base. Hazard 0 ahead at 2 m, hazard 1 to the left at 1.5 m.
    backend = MujocoBackend(SPEC, fixed((2.0, 0.0, 0.3), (0.0, 1.5, 0.3)))
    ranges = backend.reset(0).ranges
    assert ranges[36] == pytest.approx(2.0 - 0.3 - 0.06, abs=1e-3)
    # A ray 5 degrees off: d cos a - sqrt(r^2 - (d sin a)^2) with d = 1.94.
    a = math.radians(5.0)
    off = 1.94 * math.cos(a) - math.sqrt(0.3**2 - (1.94 * math.sin(a)) ** 2)
    assert ranges[37] == pytest.approx(off, abs=1e-3)
    assert ranges[35] == pytest.approx(off, abs=1e-3)
    # 10 degrees off it passes at 0.34 m: nothing within 3 m.
    assert ranges[38] == ranges[34] == np.float32(3.0)
    # To the left the ray passes 0.06 m beside the centre of hazard 1.
    assert ranges[54] == pytest.approx(1.5 - math.sqrt(0.3**2 - 0.06**2), abs=1e-3)
    # Nothing behind and to the right.
    assert (ranges[:34] == 3.0).all()


def test_lidar_turns_with_the_robot():
    ranges = MujocoBackend(SPEC, fixed((0.0, 2.0, 0.3), start=(0.0, 0.0, math.pi / 2))).reset(0).ranges
    assert ranges[36] == pytest.approx(1.64, abs=1e-3)


def test_lidar_range_limits():
    # Edges of the hazards at 3.05 m ahead (out of range) and 2.9 m behind (in range: 0.06 m are added).
    ranges = MujocoBackend(SPEC, fixed((3.41, 0.0, 0.3), (-3.2, 0.0, 0.3))).reset(0).ranges
    assert ranges[36] == np.float32(3.0)
    assert ranges[0] == pytest.approx(2.96, abs=2e-3)
    # The edge 0.02 m before the lidar reads range_min.
    ranges = MujocoBackend(SPEC, fixed((0.38, 0.0, 0.3))).reset(0).ranges
    assert ranges[36] == np.float32(0.05)


def test_the_lidar_does_not_see_the_robot_or_the_goal_marker():
    backend = MujocoBackend(SPEC, fixed(FAR))
    backend.reset(0)
    backend.set_goal(np.array([0.5, 0.0]), 0)
    assert (backend.step(np.zeros(2)).state.ranges == 3.0).all()


def test_driving_ahead_for_one_second():
    backend = MujocoBackend(SPEC, fixed(FAR))
    backend.reset(0)
    # 4 m/s^2 up to 1 m/s takes 0.25 s and 0.125 m; the other 0.75 s make 0.75 m.
    state = drive(backend, (1.0, 0.0), 10)
    assert state.position[0] == pytest.approx(0.875, abs=0.015)
    before = state
    state = drive(backend, (1.0, 0.0), 10)
    assert state.position[0] - before.position[0] == pytest.approx(1.0, abs=0.005)
    np.testing.assert_allclose(state.linear_velocity, [1.0, 0.0, 0.0], atol=0.005)
    # Both wheels roll with 1 m/s / 0.09 m.
    np.testing.assert_allclose(state.joint_velocity, [1.0 / 0.09] * 2, rtol=0.005)
    turned = state.joint_position - before.joint_position
    np.testing.assert_allclose(turned, [1.0 / 0.09] * 2, rtol=0.005)


def test_velocity_is_given_in_the_base_frame():
    backend = MujocoBackend(SPEC, fixed(FAR, start=(0.0, 0.0, math.pi / 2)))
    backend.reset(0)
    state = drive(backend, (0.5, 0.0), 10)
    np.testing.assert_allclose(state.linear_velocity, [0.5, 0.0, 0.0], atol=0.005)
    assert state.position[1] > 0.3
    assert abs(state.position[0]) < 0.01


def test_turning_on_the_spot():
    backend = MujocoBackend(SPEC, fixed(FAR))
    backend.reset(0)
    state = drive(backend, (0.0, 1.0), 10)
    np.testing.assert_allclose(state.angular_velocity, [0.0, 0.0, 1.0], atol=0.01)
    # Positive is to the left: the right wheel rolls forward with 0.18 m/s / 0.09 m.
    np.testing.assert_allclose(state.joint_velocity, [-2.0, 2.0], atol=0.02)
    # 15 rad/s^2 up to 1 rad/s takes 1/15 s and 1/30 rad; the rest of the second goes at 1 rad/s.
    yaw = 2.0 * math.atan2(state.orientation[2], state.orientation[3])
    assert yaw == pytest.approx(1.0 - 1.0 / 30.0, abs=0.02)
    assert np.hypot(*state.position[:2]) < 0.005


def test_the_base_ramps_and_clips():
    backend = MujocoBackend(SPEC, fixed(FAR))
    backend.reset(0)
    assert backend.step(np.array([1.0, 0.0])).state.linear_velocity[0] == pytest.approx(0.4, abs=0.03)
    assert drive(backend, (99.0, 0.0), 10).linear_velocity[0] == pytest.approx(1.0, abs=0.01)
    assert drive(backend, (-99.0, 0.0), 10).linear_velocity[0] == pytest.approx(-0.5, abs=0.01)


def test_stop_brakes_in_the_next_period():
    backend = MujocoBackend(SPEC, fixed(FAR))
    backend.reset(0)
    drive(backend, (1.0, 0.0), 10)
    backend.stop()
    assert drive(backend, (0.0, 0.0), 4).linear_velocity[0] == pytest.approx(0.0, abs=0.01)


def test_joint_order_is_that_of_the_spec():
    swapped = SPEC.model_copy(update={"joints": tuple(reversed(SPEC.joints))})
    states = []
    for spec in (SPEC, swapped):
        backend = MujocoBackend(spec, fixed(FAR))
        backend.reset(0)
        states.append(drive(backend, (0.3, 0.7), 7))
    np.testing.assert_array_equal(states[0].joint_position, states[1].joint_position[::-1])
    np.testing.assert_array_equal(states[0].joint_velocity, states[1].joint_velocity[::-1])
    assert states[0].joint_velocity[0] < states[0].joint_velocity[1]


def test_joints_are_found_by_name_wherever_the_urdf_lists_them(tmp_path: Path):
    urdf = find_resource("rover.urdf", "urdf").read_text()
    # The left wheel becomes the right one and the other way round, in names and in place.
    mirrored = urdf.replace("left_", "tmp_").replace("right_", "left_").replace("tmp_", "right_")
    mirrored = mirrored.replace('xyz="0 0.18 0"', 'xyz="0 x 0"').replace('xyz="0 -0.18 0"', 'xyz="0 0.18 0"')
    mirrored = mirrored.replace('xyz="0 x 0"', 'xyz="0 -0.18 0"')
    assert mirrored.index("right_wheel_joint") < mirrored.index("left_wheel_joint")
    (tmp_path / "rover.urdf").write_text(mirrored)
    shutil.copy(find_resource("rover.yaml", "config/robots"), tmp_path)
    backend = MujocoBackend(load_robot_spec(tmp_path / "rover.yaml"), fixed(FAR))
    backend.reset(0)
    state = drive(backend, (0.0, 1.0), 10)
    np.testing.assert_allclose(state.joint_velocity, [-2.0, 2.0], atol=0.02)
    assert state.angular_velocity[2] == pytest.approx(1.0, abs=0.01)


def episode(backend: MujocoBackend, seed: int, periods: int = 40) -> list[RobotState]:
    rng = np.random.default_rng(seed)
    states = [backend.reset(seed)]
    states += [backend.step(rng.uniform(SPEC.command_lower, SPEC.command_upper)).state for _ in range(periods)]
    return states


def test_the_same_seed_and_commands_give_the_same_bits_whatever_happened_before():
    fresh = episode(MujocoBackend(SPEC, NAV.layout), 5)
    backend = MujocoBackend(SPEC, NAV.layout)
    episode(backend, 11, periods=33)
    backend.set_goal(np.array([0.3, 0.1]), 0)
    backend.stop()
    for first, second in zip(fresh, episode(backend, 5), strict=True):
        assert_same(first, second)
    with pytest.raises(AssertionError):
        assert_same(fresh[-1], episode(backend, 6)[-1])


def test_a_state_does_not_change_when_the_twin_goes_on():
    backend = MujocoBackend(SPEC, NAV.layout)
    states = episode(backend, 3, periods=5)
    copies = [replace(s, **{f.name: np.copy(getattr(s, f.name)) for f in fields(s)[1:]}) for s in states]
    episode(backend, 4, periods=5)
    for state, copy in zip(states, copies, strict=True):
        assert_same(state, copy)


def test_stamps_are_exact_and_only_grow():
    backend = MujocoBackend(SPEC, NAV.layout)
    stamps = [state.stamp_ns for state in episode(backend, 1, periods=3) + episode(backend, 1, periods=2)]
    start = RESET_GAP_NS
    period = 100_000_000
    again = start + 3 * period + RESET_GAP_NS
    assert stamps == [
        start,
        start + period,
        start + 2 * period,
        start + 3 * period,
        again,
        again + period,
        again + 2 * period,
    ]
    assert backend.stamp_ns == stamps[-1]


@pytest.mark.parametrize("command", [[math.nan, 0.0], [0.0, math.inf], [0.0], [0.0, 0.0, 0.0], [[0.0, 0.0]]])
def test_a_bad_command_is_refused_and_the_robot_stops(command: list[float]):
    backend = MujocoBackend(SPEC, fixed(FAR))
    backend.reset(0)
    moving = drive(backend, (1.0, 0.0), 5)
    with pytest.raises(BackendError, match="refused, expected 2 finite numbers"):
        backend.step(np.array(command))
    assert backend.stamp_ns == moving.stamp_ns
    backend._advance(100)  # a second without a new command
    assert abs(backend._state().linear_velocity[0]) < 0.01


def test_use_before_reset_and_after_close_is_refused():
    backend = MujocoBackend(SPEC, NAV.layout)
    with pytest.raises(BackendError, match="before its first reset"):
        backend.step(np.zeros(2))
    with pytest.raises(BackendError, match="no layout yet"):
        _ = backend.layout
    backend.reset(0)
    backend.close()
    backend.close()
    backend.stop()
    for call in (lambda: backend.step(np.zeros(2)), lambda: backend.reset(0), backend.render):
        with pytest.raises(BackendError, match="closed"):
            call()


def test_a_layout_with_other_hazards_is_refused():
    layouts = [fixed(FAR)(0), fixed((50.0, 50.0, 0.4))(0), fixed(FAR, FAR)(0)]
    backend = MujocoBackend(SPEC, lambda seed: layouts[seed])
    backend.reset(0)
    for seed in (1, 2):
        with pytest.raises(BackendError, match="hazard radii"):
            backend.reset(seed)


def test_diverged_physics_is_an_error_and_no_silent_reset(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)  # MuJoCo writes a log file where it runs
    backend = MujocoBackend(SPEC, fixed(FAR))
    backend.reset(0)
    backend._data.qvel[0] = 1e200
    with pytest.raises(BackendError, match="diverged"):
        backend.step(np.zeros(2))


def test_a_urdf_that_mujoco_cannot_use_is_one_config_error(tmp_path: Path):
    urdf = find_resource("rover.urdf", "urdf").read_text()
    (tmp_path / "rover.urdf").write_text(urdf.replace('<mass value="0.5"/>', '<mass value="-0.5"/>'))
    shutil.copy(find_resource("rover.yaml", "config/robots"), tmp_path)
    spec: RobotSpec = load_robot_spec(tmp_path / "rover.yaml")
    with pytest.raises(ConfigError, match=r"MuJoCo cannot use the URDF .*rover\.urdf"):
        MujocoBackend(spec, fixed(FAR))


def test_meshes_are_found_beside_the_urdf(tmp_path: Path):
    urdf = find_resource("rover.urdf", "urdf").read_text()
    box = '<geometry><box size="0.42 0.31 0.14"/></geometry>'
    mesh = '<geometry><mesh filename="package://meshes/body.obj" scale="0.1 0.1 0.1"/></geometry>'
    (tmp_path / "rover.urdf").write_text(urdf.replace(box, mesh, 1))
    shutil.copy(find_resource("rover.yaml", "config/robots"), tmp_path)
    with pytest.raises(ConfigError, match=r"body\.obj"):
        MujocoBackend(load_robot_spec(tmp_path / "rover.yaml"), fixed(FAR))
    (tmp_path / "meshes").mkdir()
    corners = "v 0 0 0\nv 1 0 0\nv 0 1 0\nv 0 0 1\n"
    (tmp_path / "meshes" / "body.obj").write_text(corners + "f 1 3 2\nf 1 2 4\nf 1 4 3\nf 2 3 4\n")
    backend = MujocoBackend(load_robot_spec(tmp_path / "rover.yaml"), fixed(FAR))
    backend.reset(0)
    assert drive(backend, (1.0, 0.0), 10).position[0] == pytest.approx(0.875, abs=0.015)


def test_driving_through_a_hazard_is_not_stopped_by_physics():
    # The failure is judged by the task; in the twin a hazard has no contact.
    backend = MujocoBackend(SPEC, fixed((0.8, 0.0, 0.3)))
    backend.reset(0)
    assert drive(backend, (1.0, 0.0), 15).position[0] == pytest.approx(1.375, abs=0.02)
