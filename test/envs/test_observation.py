"""Observation values and the action map, by hand."""

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from safe_rl_ros.envs.observation import CommandMap, ObservationConfig, Observer
from safe_rl_ros.envs.robot_spec import load_robot_spec
from safe_rl_ros.types import ConfigError, RobotState

SPEC = load_robot_spec("rover")
CONFIG = ObservationConfig(sectors=24, goal_distance_scale_m=4.0, closeness_scale_m=0.7)


def make_state(x=0.0, y=0.0, yaw=0.0, v=0.0, w=0.0, hits=None) -> RobotState:
    ranges = np.full(72, 3.0, dtype=np.float32)
    for ray, distance in (hits or {}).items():
        ranges[ray] = distance
    return RobotState(
        stamp_ns=0,
        position=np.array([x, y, 0.0]),
        orientation=np.array([0.0, 0.0, math.sin(yaw / 2), math.cos(yaw / 2)]),
        linear_velocity=np.array([v, 0.0, 0.0]),
        angular_velocity=np.array([0.0, 0.0, w]),
        joint_position=np.zeros(2),
        joint_velocity=np.zeros(2),
        ranges=ranges,
    )


def test_shape_type_and_names():
    observer = Observer(SPEC, CONFIG)
    obs = observer.observe(make_state(), np.zeros(2))
    assert observer.obs_dim == 29
    assert obs.shape == (29,)
    assert obs.dtype == np.float32
    assert observer.names[:5] == ("goal_cos", "goal_sin", "goal_distance", "linear_x", "angular_z")
    assert observer.names[5] == "closeness_-180.0"
    assert observer.names[5 + 12] == "closeness_+0.0"
    assert observer.names[5 + 18] == "closeness_+90.0"


def test_goal_bearing_and_distance_in_the_base_frame():
    observer = Observer(SPEC, CONFIG)
    # At (1, 1), looking along +y; the goal at (0, 1) is 1 m to the left.
    obs = observer.observe(make_state(1.0, 1.0, math.pi / 2), np.array([0.0, 1.0]))
    np.testing.assert_allclose(obs[:3], [0.0, 1.0, 0.25], atol=1e-6)
    # 3 m ahead and 4 m to the right: 5 m away, which is clipped to 1.
    obs = observer.observe(make_state(), np.array([3.0, -4.0]))
    np.testing.assert_allclose(obs[:3], [0.6, -0.8, 1.0], atol=1e-6)
    # On the goal: the bearing is finite.
    assert np.isfinite(observer.observe(make_state(), np.zeros(2))).all()


def test_speeds_are_scaled_by_the_largest_command_and_clipped():
    observer = Observer(SPEC, CONFIG)
    obs = observer.observe(make_state(v=-0.25, w=1.5), np.zeros(2))
    np.testing.assert_allclose(obs[3:5], [-0.25, 0.75])
    obs = observer.observe(make_state(v=50.0, w=-50.0), np.zeros(2))
    np.testing.assert_allclose(obs[3:5], [2.0, -2.0])


def test_sectors_hold_the_nearest_of_three_rays_around_their_centre():
    observer = Observer(SPEC, CONFIG)
    # Ray 36 looks ahead, 35 and 37 five degrees to the right and left: all three in sector 12.
    obs = observer.observe(make_state(hits={35: 1.4, 36: 0.7, 37: 2.1}), np.zeros(2))
    expected = np.full(24, math.exp(-3.0 / 0.7))
    expected[12] = math.exp(-1.0)
    np.testing.assert_allclose(obs[5:], expected, rtol=1e-6)
    # The sector behind joins the last ray and the first two.
    for ray in (71, 0, 1):
        obs = observer.observe(make_state(hits={ray: 0.7}), np.zeros(2))
        assert obs[5] == pytest.approx(math.exp(-1.0), rel=1e-6)
    obs = observer.observe(make_state(hits={2: 0.7}), np.zeros(2))
    assert obs[6] == pytest.approx(math.exp(-1.0), rel=1e-6)


def test_left_and_right_are_mirrored():
    observer = Observer(SPEC, CONFIG)
    left = observer.observe(make_state(hits={40: 0.5}), np.zeros(2))[5:]
    right = observer.observe(make_state(hits={32: 0.5}), np.zeros(2))[5:]
    np.testing.assert_array_equal(left[13:], right[11:0:-1])


def test_nan_is_passed_on_and_not_hidden_by_clipping():
    observer = Observer(SPEC, CONFIG)
    assert math.isnan(observer.observe(make_state(v=math.nan), np.zeros(2))[3])
    assert math.isnan(observer.observe(make_state(x=math.nan), np.zeros(2))[2])
    assert math.isnan(observer.observe(make_state(hits={36: math.nan}), np.zeros(2))[5 + 12])


def test_a_scan_of_another_size_is_refused():
    state = replace(make_state(), ranges=np.zeros(71, dtype=np.float32))
    with pytest.raises(ValueError, match=r"shape \(71,\), expected \(72,\)"):
        Observer(SPEC, CONFIG).observe(state, np.zeros(2))


def test_sectors_must_divide_the_rays():
    with pytest.raises(ConfigError, match=r"observation\.sectors 7 must divide the 72 rays"):
        Observer(SPEC, ObservationConfig(sectors=7))


def test_bounds_hold_for_extreme_states():
    observer = Observer(SPEC, CONFIG)
    for state in (make_state(), make_state(99.0, -99.0, 3.0, 99.0, -99.0, dict.fromkeys(range(72), 0.05))):
        obs = observer.observe(state, np.array([1.0, -2.0]))
        assert (obs >= observer.lower).all()
        assert (obs <= observer.upper).all()


def test_action_map_by_hand():
    commands = CommandMap(SPEC)
    # The forward axis spans -0.5 to 1.0 m/s: its middle is 0.25, and standing still is -1/3.
    np.testing.assert_allclose(commands.to_command(np.zeros(2)), [0.25, 0.0])
    np.testing.assert_allclose(commands.to_command(np.array([-1.0, 1.0])), [-0.5, 2.0])
    np.testing.assert_allclose(commands.to_command(np.array([1.0, -1.0])), [1.0, -2.0])
    np.testing.assert_allclose(commands.to_action(np.zeros(2)), [-1.0 / 3.0, 0.0])
    assert commands.to_command(np.zeros((5, 2), dtype=np.float32)).shape == (5, 2)
    assert commands.to_command(np.zeros(2, dtype=np.float32)).dtype == np.float64


@given(st.lists(st.floats(-1.0, 1.0), min_size=2, max_size=2))
def test_action_map_has_an_inverse_and_keeps_the_limits(action: list[float]):
    commands = CommandMap(SPEC)
    command = commands.to_command(np.array(action))
    np.testing.assert_allclose(commands.to_action(command), action, atol=1e-12)
    assert (command >= SPEC.command_lower).all()
    assert (command <= SPEC.command_upper).all()


@pytest.mark.parametrize("bad", [math.inf, -math.inf, math.nan])
@pytest.mark.parametrize(
    ("field", "index", "values"),
    [
        ("position", 0, [0, 1, 2]),
        ("position", 1, [0, 1, 2]),
        ("orientation", 2, [0, 1, 2]),
        ("orientation", 3, [0, 1, 2]),
        ("linear_velocity", 0, [3]),
        ("angular_velocity", 2, [4]),
    ],
)
def test_no_infinity_of_a_sensor_passes_for_a_value(field: str, index: int, values: list[int], bad: float):
    state = make_state(yaw=0.3)
    array = getattr(state, field).copy()
    array[index] = bad
    obs = Observer(SPEC, CONFIG).observe(replace(state, **{field: array}), np.array([1.0, 0.5]))
    assert np.flatnonzero(np.isnan(obs)).tolist() == values


@pytest.mark.parametrize("goal", [[math.inf, 0.0], [0.0, -math.inf], [math.nan, 0.0]])
def test_no_infinity_of_a_goal_passes_for_a_bearing(goal: list[float]):
    obs = Observer(SPEC, CONFIG).observe(make_state(), np.array(goal))
    assert np.flatnonzero(np.isnan(obs)).tolist() == [0, 1, 2]


def test_without_goal_or_odometry_there_is_no_observation():
    with pytest.raises(ValueError, match=r"there is no goal, expected \(2,\)"):
        Observer(SPEC, CONFIG).observe(make_state(), None)
    with pytest.raises(ConfigError, match="robot rover: goals, lidar and speeds are observed only on a base"):
        Observer(load_robot_spec("rover", ["sensors.odom=null"]), CONFIG)
    with pytest.raises(ConfigError, match=r"robot rover: sensors\.scan is missing"):
        Observer(load_robot_spec("rover", ["sensors.scan=null"]), CONFIG)
