"""What every twin must do, whichever simulator moves it: both simulators with both robots."""

import math
import shutil
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
from transforms3d.quaternions import quat2mat
from twin_helpers import (
    FAR,
    ROBOTS,
    SIMULATORS,
    assert_same,
    drive,
    episode,
    fixed,
    nav_layout,
    seconds,
    spec_of,
    yaw_of,
)

from safe_rl_ros.envs.backend import RESET_GAP_NS
from safe_rl_ros.envs.robot_spec import RobotSpec, load_robot_spec
from safe_rl_ros.envs.tasks.hazard_nav import Layout
from safe_rl_ros.envs.twins import make_backend
from safe_rl_ros.resources import find_resource
from safe_rl_ros.types import BackendError, FloatArray, RobotState

both_simulators = pytest.mark.parametrize("simulator", SIMULATORS)


@pytest.fixture(params=SIMULATORS)
def simulator(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(params=ROBOTS)
def spec(request: pytest.FixtureRequest, simulator: str) -> RobotSpec:
    return spec_of(request.param, simulator)


def test_the_robot_starts_at_rest_where_the_layout_says(spec: RobotSpec):
    state = make_backend(spec, fixed(FAR, start=(1.5, -0.5, 2.0))).reset(0)
    np.testing.assert_allclose(state.position, [1.5, -0.5, 0.0], atol=1e-3)
    np.testing.assert_allclose(state.orientation, [0.0, 0.0, math.sin(1.0), math.cos(1.0)], atol=2e-3)
    np.testing.assert_array_equal(state.linear_velocity, np.zeros(3))
    np.testing.assert_array_equal(state.joint_position, np.zeros(len(spec.joints)))
    np.testing.assert_array_equal(state.joint_velocity, np.zeros(len(spec.joints)))


def test_the_robot_stays_at_rest_without_a_command(spec: RobotSpec):
    backend = make_backend(spec, fixed(FAR))
    start = backend.reset(0)
    state = drive(backend, (0.0, 0.0), seconds(spec, 5.0))
    np.testing.assert_allclose(state.position, start.position, atol=1e-4)
    assert np.abs(state.linear_velocity).max() < 1e-4


def test_types_of_a_state_survive_ros_messages(spec: RobotSpec):
    backend = make_backend(spec, nav_layout(spec))
    for state in (backend.reset(0), backend.step(np.zeros(2)).state):
        assert state.ranges.dtype == np.float32
        shapes = {"position": 3, "orientation": 4, "linear_velocity": 3, "angular_velocity": 3}
        for name, size in (shapes | {"joint_position": len(spec.joints), "joint_velocity": len(spec.joints)}).items():
            value = getattr(state, name)
            assert value.shape == (size,), name
            assert value.dtype == np.float64, name
            assert value.flags.c_contiguous, name
        assert type(state.stamp_ns) is int


def expected_ranges(spec: RobotSpec, state: RobotState, hazards: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return by geometry the ranges (R,) m and how far (R,) m each ray is from touching an edge."""
    base, scan = quat2mat(np.roll(state.orientation, 1)), spec.base_scan
    laser = spec.description.fixed_transform(scan.frame)
    origin = state.position + base @ laser[:3, 3]
    flat = np.column_stack([np.cos(scan.angles), np.sin(scan.angles), np.zeros(scan.rays)])
    rays = (flat @ (base @ laser[:3, :3]).T)[:, :2]
    length = np.linalg.norm(rays, axis=1)  # a little below 1 where the robot tilts
    dx, dy = (rays / length[:, None]).T
    found, clear = np.full(scan.rays, np.inf), np.full(scan.rays, np.inf)
    for x, y, radius in hazards:
        along = (x - origin[0]) * dx + (y - origin[1]) * dy
        across = np.abs((y - origin[1]) * dx - (x - origin[0]) * dy)
        hit = (across < radius) & (along > 0.0)
        there = (along - np.sqrt(np.maximum(radius**2 - across**2, 0.0))) / length
        found = np.where(hit, np.minimum(found, there), found)
        clear = np.minimum(clear, np.abs(across - radius))
    return np.clip(found, scan.range_min, scan.range_max), clear


def test_the_lidar_measures_the_distances_to_the_hazards(spec: RobotSpec):
    backend = make_backend(spec, nav_layout(spec))
    checked = hits = 0
    for seed in range(4):
        states = episode(backend, seed, periods=10)
        for state in (states[0], states[-1]):
            expected, clear = expected_ranges(spec, state, backend.layout.hazards)
            sure = clear > 0.01  # a ray along an edge may go either way
            np.testing.assert_allclose(state.ranges[sure], expected[sure], atol=3e-4)
            checked, hits = checked + sure.sum(), hits + (expected[sure] < spec.base_scan.range_max).sum()
    assert checked > 6 * spec.base_scan.rays
    assert hits > 30


@both_simulators
def test_lidar_ranges_by_hand(simulator: str):
    # The lidar sits 0.06 m ahead of the base. Hazard 0 ahead at 2 m, hazard 1 to the left at 1.5 m.
    backend = make_backend(spec_of("rover", simulator), fixed((2.0, 0.0, 0.3), (0.0, 1.5, 0.3)))
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


@both_simulators
def test_lidar_turns_with_the_robot(simulator: str):
    layout = fixed((0.0, 2.0, 0.3), start=(0.0, 0.0, math.pi / 2))
    ranges = make_backend(spec_of("rover", simulator), layout).reset(0).ranges
    assert ranges[36] == pytest.approx(1.64, abs=1e-3)


@both_simulators
def test_lidar_range_limits(simulator: str):
    spec = spec_of("rover", simulator)
    # Edges of the hazards at 3.05 m ahead (out of range) and 2.9 m behind (in range: 0.06 m are added).
    ranges = make_backend(spec, fixed((3.41, 0.0, 0.3), (-3.2, 0.0, 0.3))).reset(0).ranges
    assert ranges[36] == np.float32(3.0)
    assert ranges[0] == pytest.approx(2.96, abs=2e-3)
    # The edge 0.02 m before the lidar reads range_min.
    ranges = make_backend(spec, fixed((0.38, 0.0, 0.3))).reset(0).ranges
    assert ranges[36] == np.float32(0.05)


@both_simulators
def test_inside_a_hazard_the_lidar_sees_its_far_wall(simulator: str):
    # The lidar is 0.1 m ahead of the centre of a hazard of radius 0.3 m.
    ranges = make_backend(spec_of("rover", simulator), fixed((-0.04, 0.0, 0.3))).reset(0).ranges
    assert ranges[36] == pytest.approx(0.2, abs=1e-3)
    assert ranges[0] == pytest.approx(0.4, abs=1e-3)


def test_the_lidar_does_not_see_the_robot_or_the_goal_marker(spec: RobotSpec):
    backend = make_backend(spec, fixed(FAR))
    backend.reset(0)
    backend.set_goal(np.array([0.5, 0.0]), 0)
    assert (backend.step(np.zeros(2)).state.ranges == spec.base_scan.range_max).all()


def test_the_base_ramps_within_its_rate_and_clips_to_its_limits(spec: RobotSpec):
    backend = make_backend(spec, fixed(FAR))
    backend.reset(0)
    lower, upper, rate = spec.command_lower[0], spec.command_upper[0], spec.command_rate[0]
    period = 1.0 / spec.control_rate_hz
    for target in (upper, lower):
        before = backend.step(np.zeros(2)).state.linear_velocity[0]
        for count in range(1, seconds(spec, 1.0) + 1):
            speed = backend.step(np.array([99.0 * np.sign(target), 0.0])).state.linear_velocity[0]
            reached = np.sign(target) * rate * count * period + before
            assert speed == pytest.approx(np.clip(reached, lower, upper), abs=0.06)  # the servo lags
        assert speed == pytest.approx(target, abs=0.01)
        backend.reset(0)


def test_driving_ahead_for_one_second(spec: RobotSpec):
    backend = make_backend(spec, fixed(FAR))
    backend.reset(0)
    # 4 m/s^2 up to 1 m/s takes 0.25 s and 0.125 m; the other 0.75 s make 0.75 m.
    before = drive(backend, (1.0, 0.0), seconds(spec, 1.0))
    assert before.position[0] == pytest.approx(0.875, abs=0.015)
    state = drive(backend, (1.0, 0.0), seconds(spec, 1.0))
    assert state.position[0] - before.position[0] == pytest.approx(1.0, abs=0.005)
    np.testing.assert_allclose(state.linear_velocity, [1.0, 0.0, 0.0], atol=0.005)
    # All wheels roll with 1 m/s over their radius.
    rolling = [1.0 / spec.base_drive.wheel_radius_m] * len(spec.joints)
    np.testing.assert_allclose(state.joint_velocity, rolling, rtol=0.005)
    np.testing.assert_allclose(state.joint_position - before.joint_position, rolling, rtol=0.005)


def test_velocity_is_given_in_the_base_frame(spec: RobotSpec):
    backend = make_backend(spec, fixed(FAR, start=(0.0, 0.0, math.pi / 2)))
    backend.reset(0)
    state = drive(backend, (0.5, 0.0), seconds(spec, 1.0))
    np.testing.assert_allclose(state.linear_velocity, [0.5, 0.0, 0.0], atol=0.005)
    assert state.position[1] > 0.3
    assert abs(state.position[0]) < 0.01


@both_simulators
def test_turning_on_the_spot(simulator: str):
    backend = make_backend(spec_of("rover", simulator), fixed(FAR))
    backend.reset(0)
    state = drive(backend, (0.0, 1.0), 10)
    np.testing.assert_allclose(state.angular_velocity, [0.0, 0.0, 1.0], atol=0.01)
    # Positive is to the left: the right wheel rolls forward with 0.18 m/s / 0.09 m.
    np.testing.assert_allclose(state.joint_velocity, [-2.0, 2.0], atol=0.02)
    # 15 rad/s^2 up to 1 rad/s takes 1/15 s and 1/30 rad; the rest of the second goes at 1 rad/s.
    assert yaw_of(state) == pytest.approx(1.0 - 1.0 / 30.0, abs=0.02)
    assert np.hypot(*state.position[:2]) < 0.005


@both_simulators
def test_the_skid_steer_turns_nearly_as_its_effective_track_says(simulator: str):
    backend = make_backend(spec_of("jackal", simulator), fixed(FAR))
    backend.reset(0)
    first = drive(backend, (0.0, 1.0), 30)
    turned = (yaw_of(drive(backend, (0.0, 1.0), 60)) - yaw_of(first)) % (2.0 * math.pi)
    assert turned == pytest.approx(2.0, rel=0.12)  # a quarter turn and more, so that friction is met in all directions
    left = np.array([True, False, True, False])
    state = drive(backend, (0.0, 1.0), 1)
    wheel = 0.5586 / 2.0 / 0.098
    np.testing.assert_allclose(state.joint_velocity, np.where(left, -wheel, wheel), rtol=0.04)


def test_stop_brakes_in_the_next_period(spec: RobotSpec):
    backend = make_backend(spec, fixed(FAR))
    backend.reset(0)
    drive(backend, (1.0, 0.0), seconds(spec, 1.0))
    backend.stop()
    assert drive(backend, (0.0, 0.0), seconds(spec, 0.4)).linear_velocity[0] == pytest.approx(0.0, abs=0.01)


def test_joint_order_is_that_of_the_spec(spec: RobotSpec):
    swapped = spec.model_copy(update={"joints": tuple(reversed(spec.joints))})
    states = []
    for order in (spec, swapped):
        backend = make_backend(order, fixed(FAR))
        backend.reset(0)
        states.append(drive(backend, (0.3, 0.7), 7))
    np.testing.assert_array_equal(states[0].joint_position, states[1].joint_position[::-1])
    np.testing.assert_array_equal(states[0].joint_velocity, states[1].joint_velocity[::-1])
    assert states[0].joint_velocity[0] < states[0].joint_velocity[1]


@both_simulators
def test_joints_are_found_by_name_wherever_the_urdf_lists_them(simulator: str, tmp_path: Path):
    urdf = find_resource("rover.urdf", "urdf").read_text()
    # The left wheel becomes the right one and the other way round, in names and in place.
    mirrored = urdf.replace("left_", "tmp_").replace("right_", "left_").replace("tmp_", "right_")
    mirrored = mirrored.replace('xyz="0 0.18 0"', 'xyz="0 x 0"').replace('xyz="0 -0.18 0"', 'xyz="0 0.18 0"')
    mirrored = mirrored.replace('xyz="0 x 0"', 'xyz="0 -0.18 0"')
    assert mirrored.index("right_wheel_joint") < mirrored.index("left_wheel_joint")
    (tmp_path / "rover.urdf").write_text(mirrored)
    shutil.copy(find_resource("rover.yaml", "config/robots"), tmp_path)
    spec = load_robot_spec(tmp_path / "rover.yaml", [f"twin.simulator={simulator}"])
    backend = make_backend(spec, fixed(FAR))
    backend.reset(0)
    state = drive(backend, (0.0, 1.0), 10)
    np.testing.assert_allclose(state.joint_velocity, [-2.0, 2.0], atol=0.02)
    assert state.angular_velocity[2] == pytest.approx(1.0, abs=0.01)


def test_the_same_seed_and_commands_give_the_same_bits_whatever_happened_before(spec: RobotSpec):
    layout = nav_layout(spec)
    fresh = episode(make_backend(spec, layout), 5)
    backend = make_backend(spec, layout)
    for seed, periods in ((11, 33), (12, 0), (13, 7)):
        episode(backend, seed, periods=periods)
        backend.set_goal(np.array([0.3, 0.1]), 0)
        backend.stop()
        for first, second in zip(fresh, episode(backend, 5), strict=True):
            assert_same(first, second)
    with pytest.raises(AssertionError):
        assert_same(fresh[-1], episode(backend, 6)[-1])


def test_two_twins_in_one_process_do_not_meet(spec: RobotSpec):
    layout = nav_layout(spec)
    alone = episode(make_backend(spec, layout), 5, periods=10)
    backends = [make_backend(spec, layout) for _ in range(2)]
    for backend in backends:
        backend.reset(5)
    rng = np.random.default_rng(5)
    for expected in alone[1:]:
        command = rng.uniform(spec.command_lower, spec.command_upper)
        assert_same(backends[0].step(command).state, expected)
        backends[1].step(-command)
    backends[1].close()
    backends[0].reset(5)


def test_a_state_does_not_change_when_the_twin_goes_on(spec: RobotSpec):
    backend = make_backend(spec, nav_layout(spec))
    states = episode(backend, 3, periods=5)
    copies = [replace(s, **{f.name: np.copy(getattr(s, f.name)) for f in fields(s)[1:]}) for s in states]
    episode(backend, 4, periods=5)
    for state, copy in zip(states, copies, strict=True):
        assert_same(state, copy)


def test_stamps_are_exact_and_only_grow(spec: RobotSpec):
    backend = make_backend(spec, nav_layout(spec))
    stamps = [state.stamp_ns for state in episode(backend, 1, periods=3) + episode(backend, 1, periods=2)]
    start, period = RESET_GAP_NS, spec.period_ns
    again = start + 3 * period + RESET_GAP_NS
    first = [start, start + period, start + 2 * period, start + 3 * period]
    assert stamps == [*first, again, again + period, again + 2 * period]
    assert backend.stamp_ns == stamps[-1]


@pytest.mark.parametrize("command", [[math.nan, 0.0], [0.0, math.inf], [0.0], [0.0, 0.0, 0.0], [[0.0, 0.0]]])
def test_a_bad_command_is_refused_and_the_robot_stops(spec: RobotSpec, command: list[float]):
    backend = make_backend(spec, fixed(FAR))
    backend.reset(0)
    moving = drive(backend, (1.0, 0.0), seconds(spec, 0.5))
    with pytest.raises(BackendError, match="refused, expected 2 finite numbers"):
        backend.step(np.array(command))
    assert backend.stamp_ns == moving.stamp_ns
    backend._advance(round(spec.control_rate_hz * spec.twin.substeps))  # a second without a new command
    assert abs(backend._state().linear_velocity[0]) < 0.01


def test_use_before_reset_and_after_close_is_refused(spec: RobotSpec):
    backend = make_backend(spec, nav_layout(spec))
    with pytest.raises(BackendError, match="before its first reset"):
        backend.step(np.zeros(2))
    with pytest.raises(BackendError, match="no layout yet"):
        _ = backend.layout
    backend.reset(0)
    backend.close()
    backend.close()
    backend.stop()
    backend.set_goal(np.zeros(2), 0)
    for call in (lambda: backend.step(np.zeros(2)), lambda: backend.reset(0), backend.render):
        with pytest.raises(BackendError, match="closed"):
            call()


@both_simulators
def test_a_layout_with_other_hazards_is_refused(simulator: str):
    layouts: list[Layout] = [fixed(FAR)(0), fixed((50.0, 50.0, 0.4))(0), fixed(FAR, FAR)(0)]
    backend = make_backend(spec_of("rover", simulator), lambda seed: layouts[seed])
    backend.reset(0)
    for seed in (1, 2):
        with pytest.raises(BackendError, match="hazard radii"):
            backend.reset(seed)


def test_driving_through_a_hazard_is_not_stopped_by_physics(spec: RobotSpec):
    # The failure is judged by the task; in the twin a hazard has no contact.
    backend = make_backend(spec, fixed((0.8, 0.0, 0.3)))
    backend.reset(0)
    assert drive(backend, (1.0, 0.0), seconds(spec, 1.5)).position[0] == pytest.approx(1.375, abs=0.02)
