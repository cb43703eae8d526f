"""An imu's messages, and what becomes of them in a state."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from message_fakes import ARRAYS, header, vector

from safe_rl_ros.envs.robot_spec import load_robot_spec
from safe_rl_ros.messages.filter_inputs import FilterInputs
from safe_rl_ros.messages.imu import read_imu
from safe_rl_ros.messages.state_assembler import (
    NEVER,
    ImuPart,
    JointPart,
    StateAssembler,
    sensor_timeouts,
    sensor_topics,
)

SPEC = load_robot_spec("laikago")
FIELDS = ("orientation", "angular_velocity", "linear_acceleration")


def imu(ns: int, unmeasured: tuple[str, ...] = (), kind: str = "array") -> Any:
    values = {name: ARRAYS[kind]([-1.0 if name in unmeasured else 0.0] + [0.0] * 8) for name in FIELDS}
    return SimpleNamespace(
        header=header(ns, "chassis"),
        orientation=vector(0.1, 0.2, 0.3, w=0.9),
        angular_velocity=vector(1.0, 2.0, 3.0),
        linear_acceleration=vector(4.0, 5.0, 6.0),
        **{f"{name}_covariance": value for name, value in values.items()},
    )


@pytest.mark.parametrize("kind", ARRAYS)
def test_numbers_are_read_in_their_order(kind: str):
    part = read_imu(imu(0, kind=kind))
    assert part.orientation.tolist() == [0.1, 0.2, 0.3, 0.9]
    assert part.angular_velocity.tolist() == [1.0, 2.0, 3.0]
    assert part.linear_acceleration.tolist() == [4.0, 5.0, 6.0]


@pytest.mark.parametrize("kind", ARRAYS)
@pytest.mark.parametrize("name", FIELDS)
def test_what_a_driver_does_not_measure_is_no_number(name: str, kind: str):
    part = read_imu(imu(0, (name,), kind))
    assert {other for other in FIELDS if np.isnan(getattr(part, other)).all()} == {name}
    assert all(np.isfinite(getattr(part, other)).all() for other in FIELDS if other != name)


def test_a_state_waits_for_the_imu_of_a_robot_that_has_one():
    assert sensor_topics(SPEC) == {"joint_states": "joint_states", "imu": "imu"}
    joined = StateAssembler(sensor_timeouts(SPEC))
    joined.add("joint_states", JointPart(np.zeros(12), np.zeros(12)), 100, 0)
    assert joined.synchronised() is None
    assert (joined.common_stamp(), joined.missing(100)) == (NEVER, ("imu",))
    joined.add("imu", ImuPart(np.full(4, 0.5), np.full(3, 1.0), np.full(3, 2.0)), 100, 0)
    state = joined.synchronised()
    assert state is not None
    assert state.imu_orientation.tolist() == [0.5] * 4
    assert state.imu_angular_velocity.tolist() == [1.0] * 3
    assert state.imu_linear_acceleration.tolist() == [2.0] * 3
    late = joined.latest(round(0.1e9) + 1)  # timeout_s is .1 of both
    assert late is not None
    assert late.stale == ("joint_states", "imu")


def test_a_robot_without_an_imu_has_no_number_of_it():
    joined = StateAssembler(sensor_timeouts(load_robot_spec("arm")))
    joined.add("joint_states", JointPart(np.zeros(3), np.zeros(3)), 100, 0)
    state = joined.synchronised()
    assert state is not None
    for value in (state.imu_orientation, state.imu_angular_velocity, state.imu_linear_acceleration):
        assert np.isnan(value).all()


def test_the_filter_hears_it():
    inputs = FilterInputs(SPEC, False, lambda: None, lambda: None, lambda topic, why: None, clock=lambda: 7)
    assert "imu" in inputs.absent()
    inputs.callbacks()["imu"](imu(100))
    assert "imu" not in inputs.absent()
