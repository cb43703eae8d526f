from __future__ import annotations

import numpy as np
import pytest
from filter_helpers import limits, to_action, to_command

from safe_rl_ros.config import build
from safe_rl_ros.safety.action_filter import ActionFilter, FilterConfig
from safe_rl_ros.safety.contracts import BEHAVIOUR_FIELDS
from safe_rl_ros.types import ConfigError


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"lower": [-1.0, float("nan")]}, "lower = .*finite"),
        ({"upper": [1.0, float("inf")]}, "upper = .*finite"),
        ({"rate": [1.0]}, r"rate has shape \(1,\), expected \(2,\)"),
        ({"stop": [0.0, 0.0, 0.0]}, r"stop has shape \(3,\)"),
        ({"lower": [[-1.0, -2.0]]}, r"lower has shape \(1, 2\)"),
        ({"lower": [], "upper": [], "rate": [], "stop": []}, r"lower has shape \(0,\)"),
        ({"lower": [1.0, -2.0]}, r"lower\[0\] = 1.0, expected less than upper \(1.0\)"),
        ({"upper": [1.0, -3.0]}, r"lower\[1\] = -2.0, expected less than upper \(-3.0\)"),
        ({"rate": [5.0, 0.0]}, r"rate\[1\] = 0.0, expected positive"),
        ({"stop": [0.0, 2.5]}, r"stop\[1\] = 2.5, expected within \(-2.0 to 2.0\)"),
        ({"period_s": 0.0}, "period_s = 0.0"),
        ({"period_s": float("nan")}, "period_s = nan"),
        ({"period_s": 1e-12}, "period_s"),
        ({"lower": ["a", "b"]}, "sequences of numbers"),
    ],
)
def test_limits_refuse(changes, message):
    with pytest.raises(ConfigError, match=message):
        limits(**changes)


def test_limits_are_private_and_read_only():
    lower = np.array([-1.0, -2.0])
    made = limits(lower=lower)
    lower[0] = -100.0
    assert made.lower.tolist() == [-1.0, -2.0]
    with pytest.raises(ValueError, match="read-only"):
        made.stop[0] = 1.0
    assert (made.axes, made.period_ns) == (2, 100_000_000)


@pytest.mark.parametrize(
    "values",
    [
        {"critic": "maybe"},
        {"max_samples": 0},
        {"threshold": -0.1},
        {"threshold": 1.1},
        {"threshold": float("nan")},
        {"proposal_timeout_s": 0.0},
        {"observation_timeout_s": -1.0},
        {"critic_deadline_ms": 0},
        {"seed": -1},
        {"mode": "off"},
        {"candidates": "any"},
        {"fallback_mode": "zero"},
        {"threshold_off": 1.5},
        {"min_hold_cycles": -1},
        {"risk_abort": float("nan")},
        {"max_consecutive_vetoes": 0},
        {"max_consecutive_overruns": 0},
        {"around_std": 0.0},
        {"treshold": 0.1},
    ],
)
def test_config_refuses(values):
    with pytest.raises(ConfigError, match=next(iter(values))):
        build(FilterConfig, values, "test")


def test_threshold_off_above_the_threshold_is_refused():
    with pytest.raises(ConfigError, match=r"threshold_off 0.5 must not be above threshold 0.25"):
        build(FilterConfig, {"threshold": 0.25, "threshold_off": 0.5}, "test")


def test_every_field_is_described():
    assert all(field.description for field in FilterConfig.model_fields.values())


def test_shipped_configurations_load():
    from safe_rl_ros.config import load_config
    from safe_rl_ros.resources import find_resource

    loaded = {name: load_config(FilterConfig, find_resource(f"{name}.yaml", "config/filters")) for name in FILES}
    assert loaded["lockstep"].critic == "enforce"
    assert loaded["hardware"].critic_deadline_ms < 50
    assert (loaded["shadow"].critic, loaded["shadow"].mode) == ("shadow", "enforce")
    assert (loaded["black_box"].candidates, loaded["black_box"].fallback_mode) == ("around", "brake")
    assert loaded["observe"] == loaded["black_box"].model_copy(update={"mode": "shadow"})
    assert set(FILES) == {path.stem for path in find_resource("lockstep.yaml", "config/filters").parent.glob("*.yaml")}


FILES = ("lockstep", "hardware", "shadow", "black_box", "observe")


@pytest.mark.parametrize("name", BEHAVIOUR_FIELDS)
def test_behaviour_hash_follows_what_comes_after_a_veto(name):
    other = {
        "candidates": "topic",
        "max_samples": 7,
        "around_std": 0.1,
        "fallback_mode": "brake",
        "threshold_off": 0.1,
        "min_hold_cycles": 1,
        "risk_abort": 0.5,
    }
    assert FilterConfig(**{name: other[name]}).behaviour_hash != FilterConfig().behaviour_hash


def test_behaviour_hash_is_blind_to_what_a_certificate_names_itself_or_only_adds_stops():
    other = FilterConfig(
        mode="shadow", critic="off", threshold=0.5, seed=9, proposal_timeout_s=1.0, max_consecutive_vetoes=3
    )
    assert other.behaviour_hash == FilterConfig().behaviour_hash
    assert len(other.behaviour_hash) == 64


@pytest.mark.parametrize(
    ("forth", "back", "message"),
    [
        (to_command, to_action, r"within \[-1, 1\]"),  # swapped
        (lambda c: np.asarray(c) * np.nan, to_command, r"within \[-1, 1\]"),
        (lambda c: np.asarray(c)[..., :1], to_command, "the same shape"),
        (lambda c: np.asarray(c) / 2.0, to_command, "must be inverse"),
        (to_action, lambda a: np.full_like(a, np.nan), "must be inverse"),
        (to_action, lambda a: to_command(a)[:1], "must be inverse"),
        (to_action, lambda a: to_command(np.sort(a, axis=0)[::-1]), "must be inverse"),  # wrong for a batch only
    ],
)
def test_maps_must_be_inverse(forth, back, message):
    with pytest.raises(ConfigError, match=message):
        ActionFilter(limits(), FilterConfig(), forth, back)
