from __future__ import annotations

import math

import numpy as np
import pytest
from filter_helpers import StubModel, build, first_axis, step

from safe_rl_ros.safety.calibration import (
    CalibrationError,
    RiskTrace,
    Window,
    as_vetoed,
    calibrate,
    conformal_order,
    conformal_threshold,
    failure_bound,
    required_failing,
)
from safe_rl_ros.types import Reason

NAN, INF = math.nan, math.inf


def just_below(value):
    return float(np.nextafter(value, -INF))


def failing(*risks):
    return RiskTrace(np.array(risks), failed=True)


def safe(*risks):
    return RiskTrace(np.array(risks), failed=False)


@pytest.mark.parametrize(
    ("lead", "length", "expected"),
    [
        (0, None, 0.9),
        (1, None, 0.8),
        (0, 1, 0.3),  # only the decision that led to the failure
        (1, 1, 0.2),
        (0, 3, 0.5),
        (2, 2, 0.5),
        (4, None, 0.8),
        (5, 9, 0.8),
        (6, None, -INF),  # the episode is shorter than the lead
        (7, 2, -INF),
    ],
)
def test_window_ends_lead_steps_before_the_failure(lead, length, expected):
    risks = np.array([0.8, 0.1, 0.4, 0.5, 0.2, 0.3])
    if expected == 0.9:
        risks[-1] = 0.9
    assert Window(lead, length).score(risks) == expected


def test_what_the_filter_vetoes_at_any_threshold_scores_infinite():
    assert as_vetoed(np.array([0.5, NAN, INF, -INF, -0.1, 0.0])).tolist() == [0.5, INF, INF, INF, INF, 0.0]
    for bad in (NAN, INF, -INF, -0.1):
        assert Window().score(np.array([0.2, bad])) == INF
        model = StubModel(lambda actions, bad=bad: np.full(len(actions), bad), threshold=1.0)
        assert step(build(model), [0.0, 0.0]).reason.is_veto


@pytest.mark.parametrize(("lead", "length"), [(-1, None), (0, 0), (0, -3)])
def test_window_refuses_numbers_out_of_range(lead, length):
    with pytest.raises(CalibrationError, match="steps is"):
        Window(lead, length)


@pytest.mark.parametrize(
    ("rate", "n", "order"),
    [(0.05, 19, 1), (0.05, 38, 1), (0.05, 39, 2), (0.05, 200, 10), (0.29, 99, 29), (0.07, 99, 7), (0.1, 29, 3)],
)
def test_order_is_exact_in_decimals(rate, n, order):
    assert conformal_order(rate, n) == order


@pytest.mark.parametrize(("rate", "n"), [(0.05, 19), (0.01, 99), (0.1, 9), (0.5, 1), (0.03, 33), (0.9, 1)])
def test_required_failing_is_the_least_that_works(rate, n):
    assert required_failing(rate) == n
    assert conformal_order(rate, n) >= 1
    if n > 1:
        with pytest.raises(CalibrationError, match=rf"needs at least {n} failing episodes .* there are {n - 1}"):
            conformal_order(rate, n - 1)


@pytest.mark.parametrize("rate", [0.0, 1.0, -0.1, 1.5, NAN])
def test_rates_outside_0_and_1_are_refused(rate):
    with pytest.raises(CalibrationError, match="miss rate is"):
        required_failing(rate)
    with pytest.raises(CalibrationError, match="confidence is"):
        failure_bound(0, 10, rate)


def test_threshold_is_just_below_the_kth_smallest_score():
    scores = np.array([0.7, 0.2, 0.5, 0.3, 0.9, 0.8, 0.6, 0.4, 0.95])  # n = 9
    assert conformal_threshold(scores, 0.1) == just_below(0.2)
    assert conformal_threshold(scores, 0.35) == just_below(0.4)  # k = 3
    assert conformal_threshold(scores, 0.9) == just_below(0.95)


def test_filter_vetoes_the_kth_score_and_passes_at_the_threshold():
    scores = np.array([0.25, 0.5, 0.75])
    threshold = conformal_threshold(scores, 0.5)  # k = 2: below .5
    model = StubModel(first_axis, threshold=threshold)
    assert step(build(model), [0.5, 0.0]).reason.is_veto
    passes = StubModel(lambda actions: np.full(len(actions), threshold), threshold=threshold)
    assert step(build(passes), [0.5, 0.0]).reason is Reason.ACCEPTED


def test_empty_windows_and_zero_risks_count_as_missed():
    with pytest.raises(CalibrationError, match="2 of 9 failing episodes have no risk above 0"):
        conformal_threshold(np.array([-INF, 0.0, *[0.5] * 7]), 0.1)
    assert conformal_threshold(np.array([-INF, *[0.5] * 8]), 0.2) == just_below(0.5)


def test_scores_above_every_risk_give_a_threshold_of_one():
    assert conformal_threshold(np.full(9, INF), 0.1) == 1.0


@pytest.mark.parametrize("levels", [0, 6])
def test_miss_rate_holds_with_and_without_ties(levels):
    """Over many calibrations, a new failing episode is missed with at most the rate asked for."""
    rng = np.random.default_rng(levels)
    rate, n, rounds = 0.1, 29, 4000  # k = 3, so that the rate is exactly 3 / 30 without ties
    scores = rng.beta(2, 3, (rounds, n + 1))
    if levels:
        scores = np.ceil(scores * levels) / levels
    missed = np.array([row[-1] <= conformal_threshold(row[:-1], rate) for row in scores])
    if levels:
        assert missed.mean() <= rate
    else:
        assert missed.mean() == pytest.approx(rate, abs=0.015)  # three standard errors


def test_miss_rate_bound_holds_for_most_calibrations():
    rng = np.random.default_rng(1)
    true_rates, bound = [], 0.0
    for _ in range(600):
        traces = [failing(value) for value in rng.uniform(size=39)]
        result = calibrate(traces, 0.1, Window())
        true_rates.append(result.threshold)  # P(uniform <= threshold)
        bound = result.miss_rate_bound
    assert bound == pytest.approx(0.1870, abs=2e-4)  # 95 % of Beta(4, 36)
    assert np.mean(np.array(true_rates) <= bound) == pytest.approx(0.95, abs=0.03)
    assert np.mean(true_rates) == pytest.approx(0.1, abs=0.01)


def test_calibrate_reports_false_vetoes_of_safe_episodes_only():
    traces = [failing(0.1, 0.9, 0.5), failing(0.6), safe(0.2, 0.3), safe(0.7, 0.1, NAN), safe(0.55)]
    result = calibrate(traces, 0.34, Window())  # n = 2: k = 1, threshold below .6
    assert result.threshold == just_below(0.6)
    assert (result.order, result.failing, result.safe) == (1, 2, 3)
    assert result.scores.tolist() == [0.6, 0.9]
    assert result.step_veto_rate == pytest.approx(2 / 6)  # .7 and NaN
    assert result.episode_veto_rate == pytest.approx(1 / 3)


def test_curves_are_what_counting_gives():
    rng = np.random.default_rng(2)
    traces = [RiskTrace(rng.beta(1, 6, rng.integers(1, 30)).round(2), bool(i % 3 == 0)) for i in range(120)]
    window = Window(2, 5)
    result = calibrate(traces, 0.3, window)
    curves = result.curves
    assert result.threshold in curves.thresholds
    assert (curves.thresholds[0], curves.thresholds[-1]) == (0.0, 1.0)
    assert (np.diff(curves.thresholds) > 0).all()
    for i in range(0, len(curves.thresholds), 7):
        threshold = curves.thresholds[i]
        late = [t.risks[max(0, len(t.risks) - 7) : max(0, len(t.risks) - 2)] for t in traces if t.failed]
        missed = [not (risks > threshold).any() for risks in late]
        vetoes = [t.risks > threshold for t in traces if not t.failed]
        assert curves.miss_rate[i] == pytest.approx(np.mean(missed))
        assert curves.step_vetoes[i] == pytest.approx(np.concatenate(vetoes).mean())
        assert curves.episode_vetoes[i] == pytest.approx(np.mean([v.any() for v in vetoes]))


def test_without_safe_episodes_false_vetoes_are_unknown():
    result = calibrate([failing(0.5), failing(0.7)], 0.5, Window())
    assert math.isnan(result.step_veto_rate)
    assert math.isnan(result.episode_veto_rate)
    assert np.isnan(result.curves.step_vetoes).all()
    assert result.curves.miss_rate[-1] == 1.0


def test_calibrate_without_failing_episodes_says_how_many_are_needed():
    with pytest.raises(CalibrationError, match=r"at least 19 failing episodes .* there are 0"):
        calibrate([safe(0.1)], 0.05, Window())


@pytest.mark.parametrize(
    ("failures", "episodes", "confidence", "bound"),
    [
        (0, 299, 0.95, 0.0100),  # the two that the manual names
        (0, 99, 0.95, 0.0298),
        (0, 1, 0.95, 0.95),
        (1, 20, 0.95, 0.2161),
        (5, 50, 0.90, 0.1776),
        (7, 7, 0.95, 1.0),
    ],
)
def test_failure_bound_is_clopper_and_pearsons(failures, episodes, confidence, bound):
    found = failure_bound(failures, episodes, confidence)
    assert found == pytest.approx(bound, abs=1e-4)
    if failures < episodes:  # by definition: so few failures are this improbable at the bound
        tail = sum(math.comb(episodes, i) * found**i * (1 - found) ** (episodes - i) for i in range(failures + 1))
        assert tail == pytest.approx(1 - confidence)


@pytest.mark.parametrize(("failures", "episodes"), [(0, 0), (3, 2), (-1, 5)])
def test_failure_bound_refuses_impossible_counts(failures, episodes):
    with pytest.raises(CalibrationError, match="expected 0 to episodes"):
        failure_bound(failures, episodes)
