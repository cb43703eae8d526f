"""The twin's base controller: ramps and wheel speeds, by hand."""

import numpy as np
import pytest

from safe_rl_ros.envs.diff_drive import DiffDrive, approach
from safe_rl_ros.envs.robot_spec import load_robot_spec

SPEC = load_robot_spec("rover")
RADIUS, HALF_TRACK = 0.09, 0.18


def test_approach():
    assert approach(0.0, 1.0, 0.4) == pytest.approx(0.4)
    assert approach(0.0, -1.0, 0.4) == pytest.approx(-0.4)
    assert approach(0.9, 1.0, 0.4) == 1.0


def test_a_step_command_is_ramped_with_the_rate_limits():
    drive = DiffDrive(SPEC, dt_s=0.01)
    drive.set_command(np.array([1.0, 0.0]))
    # 4 m/s^2 over 0.01 s is 0.04 m/s, so full speed is reached after 25 calls.
    assert drive.advance() == pytest.approx((0.04 / RADIUS, 0.04 / RADIUS))
    for _ in range(23):
        drive.advance()
    assert not drive.settled
    assert drive.advance() == pytest.approx((1.0 / RADIUS, 1.0 / RADIUS))
    assert drive.settled


def test_turning_left_drives_the_right_wheel_forward():
    drive = DiffDrive(SPEC, dt_s=0.1)
    drive.set_command(np.array([0.0, 1.0]))
    # 15 rad/s^2 over 0.1 s allows 1.5 rad/s at once; a wheel moves with 1 rad/s * 0.18 m = 0.18 m/s = 2 rad/s.
    assert drive.advance() == pytest.approx((-2.0, 2.0))


def test_commands_are_clipped_to_the_limits():
    drive = DiffDrive(SPEC, dt_s=10.0)
    drive.set_command(np.array([5.0, 9.0]))
    turn = 2.0 * HALF_TRACK
    assert drive.advance() == pytest.approx(((1.0 - turn) / RADIUS, (1.0 + turn) / RADIUS))
    drive.set_command(np.array([-5.0, 0.0]))
    assert drive.advance() == pytest.approx((-0.5 / RADIUS, -0.5 / RADIUS))


def test_stop_brakes_with_the_rate_limit_and_reset_at_once():
    drive = DiffDrive(SPEC, dt_s=0.1)
    drive.set_command(np.array([1.0, 0.0]))
    for _ in range(3):
        drive.advance()
    drive.stop()
    assert drive.advance() == pytest.approx((0.6 / RADIUS, 0.6 / RADIUS))
    drive.reset()
    assert drive.advance() == (0.0, 0.0)


def test_axes_are_found_by_name():
    axes = tuple(reversed(SPEC.command.axes))
    swapped = SPEC.model_copy(update={"command": SPEC.command.model_copy(update={"axes": axes})})
    drive, other = DiffDrive(SPEC, dt_s=0.1), DiffDrive(swapped, dt_s=0.1)
    drive.set_command(np.array([0.3, 1.0]))
    other.set_command(np.array([1.0, 0.3]))
    assert drive.advance() == other.advance()
