"""Checks of an imu: numbers, the quaternion's length, gravity."""

import numpy as np
import pytest

from safe_rl_ros.checks.imu import check_imu
from safe_rl_ros.checks.outcome import Check, Findings, Outcome
from safe_rl_ros.messages.state_assembler import ImuPart


def checked(turn=(0.0, 0.0, 0.0, 1.0), spin=(0.0, 0.0, 0.0), pull=(0.0, 0.0, 9.81), count: int = 5) -> dict[str, Check]:
    found = Findings("/imu")
    check_imu(found, [ImuPart(np.array(turn), np.array(spin), np.array(pull))] * count)
    return {check.name: check for check in found.checks}


def test_a_good_one_passes_everything():
    checks = checked()
    assert set(checks) == {
        "finite orientation",
        "finite angular velocity",
        "finite linear acceleration",
        "quaternion",
        "gravity",
    }
    assert {check.outcome for check in checks.values()} == {Outcome.PASS}


def test_one_bad_message_among_good_ones_is_told():
    good = ImuPart(np.array([0.0, 0.0, 0.0, 1.0]), np.zeros(3), np.array([0.0, 0.0, 9.81]))
    bad = ImuPart(np.array([0.0, 0.0, 0.0, 0.5]), np.full(3, np.nan), np.array([0.0, 0.0, 9.81]))
    found = Findings("/imu")
    check_imu(found, [good, bad, good, good])
    failed = {check.name: check for check in found.checks if check.outcome is Outcome.FAIL}
    assert set(failed) == {"finite angular velocity", "quaternion"}
    assert failed["finite angular velocity"].measured == "1 of 4 messages are not"


@pytest.mark.parametrize(
    ("changes", "name", "outcome", "words"),
    [
        ({"turn": [np.nan] * 4}, "finite orientation", Outcome.FAIL, "covariance of -1"),
        ({"spin": [0.0, np.inf, 0.0]}, "finite angular velocity", Outcome.FAIL, "covariance of -1"),
        ({"turn": [0.5, 0.0, 0.0, 0.5]}, "quaternion", Outcome.FAIL, "x, y, z, w"),
        ({"pull": [0.0, 0.0, 1.0]}, "gravity", Outcome.WARN, "in g: publish m/s"),
        ({"pull": [0.1, 0.0, 0.05]}, "gravity", Outcome.WARN, "taken away"),
        ({"pull": [0.0, 30.0, 0.0]}, "gravity", Outcome.WARN, "scale and unit"),
    ],
)
def test_a_wrong_one_is_told_apart(changes, name: str, outcome: Outcome, words: str):
    checks = checked(**changes)
    assert checks[name].outcome is outcome
    assert words in checks[name].advice
    others = {check.outcome for other, check in checks.items() if other != name}
    assert others == {Outcome.PASS}
