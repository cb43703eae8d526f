"""A decision survives its row of floats bit for bit; a row of another version is refused."""

from __future__ import annotations

import math
from array import array
from dataclasses import MISSING, fields

import message_fakes as fake
import numpy as np
import pytest

from safe_rl_ros.messages.decision_record import MODES, SCALARS, DecisionRecord, axes_of, hash_to_number, number_to_hash
from safe_rl_ros.messages.errors import MessageError
from safe_rl_ros.types import FilterDecision, FilterState, Reason

AXES = ("linear_x", "angular_z")


def decision(**changes):
    values = {
        "stamp_ns": 1_234_567_890_123_456_789,
        "proposed": np.array([0.1 + 0.2, math.nan]),
        "executed": np.array([1 / 3, -0.0]),
        "reason": Reason.LEAST_RISK,
        "risk_proposed": 0.7,
        "risk_executed": math.nan,
        "threshold": 1 / 7,
        "samples": 100,
        "observation_age_s": 0.01,
        "proposal_age_s": 1e-9,
        "latency_s": 8.3e-5,
        "bundle_hash": "fedcba987654" + "0" * 52,
        "mode": "shadow",
        "state": FilterState.HOLDING,
        "verdict": Reason.STOP_UNSAFE,
        "veto_streak": 17,
        "tick_ns": 9_876_543_210_987_654_321,
        "hold_left": 4,
        "overrun_streak": 3,
    }
    return FilterDecision(**(values | changes))


def differences(got, sent):
    """Return the fields that are not the same bit for bit; of the hash, 12 digits are kept."""
    wrong = []
    for item in fields(FilterDecision):
        a, b = getattr(got, item.name), getattr(sent, item.name)
        if item.name == "bundle_hash":
            equal = a == b[:12]
        elif isinstance(b, np.ndarray):
            equal = a.tobytes() == b.tobytes()
        else:
            both_nan = isinstance(a, float) and isinstance(b, float) and math.isnan(a) and math.isnan(b)
            equal = type(a) is type(b) and (a == b or both_nan)
        wrong += [] if equal else [item.name]
    return wrong


def test_a_difference_in_any_field_is_seen():
    changed = {"stamp_ns": 1, "proposed": np.zeros(2), "reason": Reason.HOLD, "risk_executed": 0.5, "mode": "enforce"}
    for name, value in changed.items():
        assert differences(decision(**{name: value}, bundle_hash="1" * 12), decision(bundle_hash="1" * 64)) == [name]


def test_every_field_with_a_default_is_tried_with_another_value():
    plain = decision()
    for item in fields(FilterDecision):
        if item.default is not MISSING:
            assert getattr(plain, item.name) != item.default, item.name


@pytest.mark.parametrize("make", [tuple, list, np.array, lambda row: array("d", row)])
def test_round_trip_is_exact_in_every_field(make):
    record = DecisionRecord(AXES)
    record.row(decision(bundle_hash="1" * 64))  # what was there before must not shine through
    assert differences(record.decision(make(record.row(decision()))), decision()) == []


@pytest.mark.parametrize("reason", list(Reason))
def test_every_reason_survives_as_reason_and_as_verdict(reason):
    record = DecisionRecord(AXES)
    sent = decision(reason=reason, verdict=reason)
    assert differences(record.decision(record.row(sent)), sent) == []


@pytest.mark.parametrize("state", list(FilterState))
@pytest.mark.parametrize("mode", MODES)
def test_every_state_and_mode_survives(state, mode):
    record = DecisionRecord(AXES)
    sent = decision(state=state, mode=mode)
    assert differences(record.decision(record.row(sent)), sent) == []


def test_mode_numbers_stay_what_bags_hold():
    assert (MODES, [state.value for state in FilterState]) == (("enforce", "shadow"), [0, 1, 2, 3, 4])
    with pytest.raises(ValueError, match="not in tuple"):
        DecisionRecord(AXES).row(decision(mode="loud"))


def test_columns_are_labelled_and_the_axes_can_be_read_from_the_label():
    record = DecisionRecord(AXES)
    row = dict(zip(record.columns, record.row(decision()), strict=True))
    assert (row["reason"], row["verdict"], row["mode"], row["state"], row["veto_streak"]) == (3.0, 23.0, 1.0, 2.0, 17.0)
    assert (row["stamp_sec"], row["stamp_nanosec"]) == (1_234_567_890.0, 123_456_789.0)
    assert (row["tick_sec"], row["tick_nanosec"]) == (9_876_543_210.0, 987_654_321.0)
    assert row["executed.linear_x"] == 1 / 3
    assert axes_of(record.label) == AXES
    assert axes_of(DecisionRecord(("a",)).label) == ("a",)
    for wrong in ("", "stamp_sec,reason", record.label + ",more", record.label.replace("verdict", "veto")):
        with pytest.raises(MessageError, match="not the layout of decisions"):
            axes_of(wrong)


def test_message_of_another_layout_is_refused():
    record = DecisionRecord(AXES)
    row = array("d", record.row(decision()))
    assert differences(record.read(fake.multi_array(row, (record.label, len(row)))), decision()) == []
    for message in (
        fake.multi_array(row),
        fake.multi_array(row, ("x", len(row))),
        fake.multi_array(row, (record.label, len(row)), ("y", 1)),
    ):
        with pytest.raises(MessageError, match="another layout"):
            record.read(message)
    with pytest.raises(MessageError, match=f"{len(row) - 1} columns, expected {len(row)}"):
        record.read(fake.multi_array(row[:-1], (record.label, len(row))))


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("reason", 9999.0),
        ("reason", math.nan),
        ("verdict", 9.0),
        ("state", 5.0),
        ("mode", 2.0),
        ("mode", -1.0),
        ("mode", 0.5),
        ("samples", -1.0),
        ("tick_sec", math.inf),
        ("veto_streak", 0.5),
        ("bundle_hash_48bit", -2.0),
        ("bundle_hash_48bit", math.nan),
    ],
)
def test_values_that_no_filter_writes_are_refused(column, value):
    record = DecisionRecord(AXES)
    row = list(record.row(decision()))
    row[SCALARS.index(column)] = value
    with pytest.raises(MessageError, match=r"decision has the unknown reason .*or a count that is none"):
        record.decision(row)


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("000000000001" + "f" * 52, 1.0),
        ("f" * 64, float(2**48 - 1)),
        ("0" * 64, 0.0),
        ("", -1.0),
        ("epoch-3", -1.0),
        ("epoch-3-epoch-3", -1.0),
    ],
)
def test_bundle_hash_as_number(text, number):
    assert hash_to_number(text) == number
    assert number_to_hash(number) == (text[:12] if number >= 0 else "")
