"""Changes of the configuration while the filter is armed."""

from __future__ import annotations

import pytest
from filter_helpers import StubModel, build, constant, step

from safe_rl_ros.safety.action_filter import FilterConfig
from safe_rl_ros.safety.tightening import check_tightening
from safe_rl_ros.types import ConfigError, Reason

BASE = {
    "threshold": 0.5,
    "threshold_off": 0.25,
    "min_hold_cycles": 3,
    "risk_abort": 0.75,
    "max_consecutive_vetoes": 10,
    "max_consecutive_overruns": 5,
    "proposal_timeout_s": 0.25,
    "observation_timeout_s": 0.25,
    "critic_deadline_ms": 20.0,
}
STRICTER = {
    "threshold": 0.25,
    "threshold_off": 0.125,
    "min_hold_cycles": 4,
    "risk_abort": 0.5,
    "max_consecutive_vetoes": 9,
    "max_consecutive_overruns": 4,
    "proposal_timeout_s": 0.125,
    "observation_timeout_s": 0.125,
    "critic_deadline_ms": 10.0,
}
LOOSER = {
    "threshold": 0.501,
    "threshold_off": 0.251,
    "min_hold_cycles": 2,
    "risk_abort": 0.751,
    "max_consecutive_vetoes": 11,
    "max_consecutive_overruns": 6,
    "proposal_timeout_s": 0.251,
    "observation_timeout_s": 0.251,
    "critic_deadline_ms": 20.1,
}
FIXED = {
    "mode": "shadow",
    "critic": "off",
    "candidates": "around",
    "max_samples": 99,
    "around_std": 0.2,
    "fallback_mode": "brake",
    "seed": 1,
}


def check(model=None, base=BASE, **changes):
    check_tightening(FilterConfig(**base), FilterConfig(**(base | changes)), model)


def test_every_field_is_accounted_for():
    assert set(STRICTER) | set(FIXED) == set(FilterConfig.model_fields)


@pytest.mark.parametrize("name", STRICTER)
def test_stricter_is_allowed(name):
    action_filter = build(**BASE)
    action_filter.reconfigure(FilterConfig(**(BASE | {name: STRICTER[name]})))
    assert getattr(action_filter.config, name) == STRICTER[name]


@pytest.mark.parametrize("name", LOOSER)
def test_looser_is_refused_while_armed_and_allowed_before(name):
    action_filter = build(**BASE)
    config = FilterConfig(**(BASE | {name: LOOSER[name]}))
    with pytest.raises(ConfigError, match=f"{name} = {LOOSER[name]}.*expected at (most|least) {BASE[name]}"):
        action_filter.reconfigure(config)
    assert action_filter.config == FilterConfig(**BASE)
    action_filter.deactivate()
    action_filter.reconfigure(config)
    assert action_filter.config == config


@pytest.mark.parametrize("name", FIXED)
def test_what_is_neither_stricter_nor_looser_is_refused_while_armed(name):
    with pytest.raises(ConfigError, match=f"{name} = .* while the filter is armed"):
        check(**{name: FIXED[name]})


@pytest.mark.parametrize("name", ["threshold_off", "risk_abort", "max_consecutive_vetoes", "max_consecutive_overruns"])
def test_optional_checks_may_be_set_and_not_unset(name):
    without = BASE | {name: None}
    check(base=without, **{name: BASE[name]})
    with pytest.raises(ConfigError, match=f"{name} = None"):
        check(**{name: None})


def test_threshold_that_was_the_model_s_may_not_rise_above_it():
    unset = BASE | {"threshold": None}
    model = StubModel(threshold=0.3)
    check(model, base=unset, threshold=0.3)
    with pytest.raises(ConfigError, match=r"threshold = 0.4.*at most 0.3"):
        check(model, base=unset, threshold=0.4)
    with pytest.raises(ConfigError, match="threshold"):
        check(StubModel(threshold=float("nan")), base=unset, threshold=0.3)
    with pytest.raises(ConfigError, match="threshold"):
        check(None, base=unset, threshold=0.3)
    with pytest.raises(ConfigError, match="threshold = None"):
        check(model, threshold=None)


def test_new_configuration_is_in_force_with_the_next_decision():
    action_filter = build(StubModel(constant(0.2)), max_consecutive_vetoes=3)
    assert step(action_filter, [0.25, 0.0], 0).reason is Reason.ACCEPTED
    action_filter.reconfigure(FilterConfig(threshold=0.1, max_consecutive_vetoes=1))
    decision = step(action_filter, [0.25, 0.0], 1)
    assert (decision.reason, decision.threshold) == (Reason.STOP_VETOES, 0.1)
    action_filter.reconfigure(FilterConfig(threshold=0.1, max_consecutive_vetoes=1, proposal_timeout_s=0.1))
    assert action_filter.config.proposal_timeout_s == 0.1


def test_around_is_in_force_after_a_change_while_unarmed():
    action_filter = build(StubModel(constant(0.9)), max_samples=4)
    action_filter.deactivate()
    action_filter.reconfigure(FilterConfig(candidates="around", max_samples=7))
    action_filter.activate()
    assert step(action_filter, [0.25, 0.0]).samples == 7
