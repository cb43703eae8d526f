"""The robot spec in the filter's terms."""

from __future__ import annotations

import numpy as np
import pytest
from spec_files import ARM_VELOCITY, write_spec

from safe_rl_ros.envs.robot_spec import load_robot_spec
from safe_rl_ros.messages.limits import command_limits
from safe_rl_ros.types import ConfigError, RobotState

DECELERATE = {
    "stop: 0.0}": "stop: 0.0, deceleration: 2.0}",
    "  timeout_s: 0.5 ": "  stop_profile: decelerate\n  timeout_s: 0.5 ",
}


def state(position, velocity):
    nan = np.full(3, np.nan)
    rays = np.zeros(0, np.float32)
    return RobotState(0, nan, np.full(4, np.nan), nan, nan, np.array(position), np.array(velocity), rays)


def test_a_twist_base_stops_at_its_stop_command():
    spec = load_robot_spec("rover")
    limits = command_limits(spec)
    for name in ("lower", "upper", "rate", "stop"):
        np.testing.assert_array_equal(getattr(limits, name), getattr(spec, f"command_{name}"))
    assert (limits.period_s, limits.stop_profile, limits.deceleration) == (0.1, "zero", None)
    assert (limits.positions, limits.command_timeout_s) == (False, 0.5)


def test_deceleration_goes_axis_by_axis(tmp_path):
    limits = command_limits(load_robot_spec(write_spec(tmp_path, "rover", DECELERATE)))
    assert limits.stop_profile == "decelerate"
    assert limits.deceleration.tolist() == [2.0, 2.0]


@pytest.mark.parametrize("robot", ["arm", "arm_trajectory"])
def test_positions_hold(robot):
    spec = load_robot_spec(robot)
    limits = command_limits(spec)
    assert (limits.positions, limits.stop_profile, limits.command_timeout_s) == (True, "hold", 0.1)
    np.testing.assert_array_equal(limits.rate, [1.5, 1.0, 1.5])
    np.testing.assert_array_equal(limits.upper, [2.5, 1.5, 2.4])
    assert limits.period_s == 0.02


def test_a_timeout_below_the_period_is_refused():
    with pytest.raises(ConfigError, match="command_timeout_s"):
        command_limits(load_robot_spec("rover", ["command.timeout_s=0.05"]))


def test_measured_command_is_found_by_name(tmp_path):
    spec = load_robot_spec("arm", ["joints=[elbow_joint, shoulder_pan_joint, shoulder_lift_joint]"])
    measured = spec.measured_command(state([3.0, 1.0, np.nan], [30.0, 10.0, 20.0]))
    np.testing.assert_array_equal(measured, [1.0, np.nan, 3.0])
    velocity = load_robot_spec(write_spec(tmp_path, "arm", ARM_VELOCITY))
    assert velocity.measured_command(state([1.0, 2.0, 3.0], [0.1, 0.2, 0.3])).tolist() == [0.1, 0.2, 0.3]
    with pytest.raises(ValueError, match="a twist has no measured position"):
        load_robot_spec("rover").measured_command(state([0.0, 0.0], [0.0, 0.0]))
