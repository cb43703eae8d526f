"""Staged screening chooses what the full evaluation chooses, with less work where that is possible."""

from __future__ import annotations

import math

import numpy as np
import pytest
from bundle_helpers import make_critic

from safe_rl_ros.bundle.onnx_networks import OnnxCritic
from safe_rl_ros.bundle.screening import FEW, SMALL, Ensemble, lower_bound, select_staged
from safe_rl_ros.inference import choose

NAN = float("nan")


def same(one, other):
    risks = one.risk == other.risk or (math.isnan(one.risk) and math.isnan(other.risk))
    return risks and (one.index, one.acceptable) == (other.index, other.acceptable)


def random_case(rng, numbers):
    """Return K risks on a coarse grid, so with many ties, a third of them no risks; a threshold; an order or None."""
    count = int(rng.integers(0, 80))
    risks = rng.integers(0, 21, count) / 20
    odd = rng.random(count) < rng.choice([0.0, 0.3, 1.0], p=[0.5, 0.4, 0.1])
    risks[odd] = rng.choice([NAN, math.inf, -0.1], odd.sum())
    threshold = float(rng.choice([-0.1, 0.0, 0.05, 0.3, 0.5, 1.0, NAN, math.inf, -math.inf]))
    order = rng.permutation(count)[: int(rng.integers(0, count + 1))] if numbers % 2 else None
    return risks, threshold, order


class Recorder:
    """An ensemble that has its answers ready, and keeps what it was asked."""

    def __init__(self, risks, first, bounds):
        self.risks, self.first, self.bounds = risks, first, bounds
        self.judged, self.screened = [], []
        self.asked = None

    def judge(self, rows):
        self.judged.append(rows.tolist())
        self.asked = rows
        return self.risks[rows], self.first[rows]

    def screen(self, rows):
        self.screened.append(rows.tolist())
        self.asked = rows
        return self.first[rows]

    def bound(self, first):
        assert first.tolist() == pytest.approx(self.first[self.asked].tolist(), nan_ok=True)
        return self.bounds[self.asked]

    def select(self, threshold, order=None):
        places = np.arange(len(self.risks)) if order is None else order
        return select_staged(Ensemble(self.judge, self.screen, self.bound), threshold, places)


def test_staged_equals_full_on_any_risks_and_any_valid_bounds():
    rng = np.random.default_rng(0)
    saved = 0
    for number in range(3000):
        risks, threshold, order = random_case(rng, number)
        scale = rng.choice([0.0, 0.5, 1.0, rng.random()])
        bounds = np.where(np.isfinite(risks), risks, rng.random()) * scale
        bounds[np.isnan(risks) & (rng.random(len(risks)) < 0.5)] = NAN
        ensemble = Recorder(risks, rng.choice([risks, bounds, rng.random(len(risks))]), bounds)
        staged, full = ensemble.select(threshold, order), choose(risks, threshold, order)
        assert same(staged, full), (risks, threshold, order, staged, full)
        judged = [row for rows in ensemble.judged for row in rows]
        assert staged.evaluated == len(judged) == len(set(judged)), "nobody is judged twice"
        assert order is None or set(judged) <= set(order.tolist())
        saved += len(risks) - len(judged)
    assert saved > 0


@pytest.mark.parametrize("aggregate", ["mean", "mean_plus_std", "max"])
@pytest.mark.parametrize("std_factor", [0.0, 0.5, 1.9, 3.0])
def test_lower_bound_is_below_every_ensemble_and_is_reached(aggregate, std_factor):
    rng = np.random.default_rng(1)
    for members in (2, 5):
        meta = {"members": members, "aggregate": aggregate, "std_factor": std_factor}
        critic = make_critic(**meta)
        first = rng.random(2000)
        # Others that say anything, say nothing, or say the same.
        others = rng.random((members - 1, 2000)) * rng.choice([0.0, 0.1, 1.0], 2000)
        others[:, :100] = first[:100]
        others[:, 100:200] = 0.0
        probability = np.vstack([first, others])
        with np.errstate(divide="ignore"):
            risk = critic._aggregate(np.log(probability / (1 - probability)))
        bound = lower_bound(first, members, aggregate, std_factor)
        assert (bound <= risk + 1e-9).all()
        assert (risk - bound)[:200].min() == pytest.approx(0.0, abs=1e-9)


@pytest.mark.parametrize("aggregate", ["mean", "mean_plus_std", "max"])
@pytest.mark.parametrize("members", [1, 2, 5])
def test_critic_selects_as_the_full_evaluation_does_bit_for_bit(aggregate, members):
    """Real networks, with equal candidates, bad ones, and thresholds that are exactly one candidate's risk."""
    base = make_critic(members=members, aggregate=aggregate, std_factor=0.7, hidden=(64, 64))
    critic = OnnxCritic(base.arrays(), base.meta())
    rng = np.random.default_rng(2)
    work = np.zeros(2)
    for number in range(700):
        count = int(rng.integers(1, 65))
        obs = rng.normal(size=3).astype(np.float32)
        actions = rng.uniform(-1, 1, (count, 2)).astype(np.float32)
        actions[rng.integers(count, size=4)] = actions[0]
        if number % 5 == 0:
            actions[rng.integers(count, size=3)] = NAN
        risks = critic.risk(obs, actions)
        threshold = float(rng.choice([-0.1, 0.2, 0.5, NAN]))
        if number % 2 and np.isfinite(risks).any():
            threshold = float(rng.choice(risks[np.isfinite(risks)]))
        order = None if number % 3 else rng.permutation(count)[: int(rng.integers(1, count + 1))]
        staged = critic.select(obs, actions, threshold, order)
        assert same(staged, choose(risks, threshold, order))
        work += staged.evaluated, count if order is None else len(order)
    assert work[0] < work[1] or members == 1


def counts(ensemble):
    return [len(rows) for rows in ensemble.judged], [len(rows) for rows in ensemble.screened]


def test_first_few_are_enough_when_one_of_them_passes():
    risks = np.full(64, 0.9)
    risks[[3, 40]] = 0.1
    ensemble = Recorder(risks, risks, risks)
    assert (ensemble.select(0.2).index, counts(ensemble)) == (3, ([FEW], []))


def test_one_member_leads_to_the_one_that_passes():
    risks = np.full(64, 0.9)
    risks[[40, 50]] = 0.1
    ensemble = Recorder(risks, risks, risks - 0.1)
    choice = ensemble.select(0.2)
    assert (choice.index, choice.evaluated) == (40, FEW + 2), "the others are out by their bounds"
    assert counts(ensemble) == ([FEW, 2], [64 - FEW])


def test_misleading_member_costs_calls_but_not_the_choice():
    risks = np.linspace(0.5, 0.9, 64)
    risks[40] = 0.1
    bounds = np.where(np.arange(64) < FEW, risks, 0.0)
    for first, calls in ((np.full(64, 0.1), [FEW, FEW, 64 - 2 * FEW]), (np.full(64, 0.9), [FEW, 64 - FEW])):
        ensemble = Recorder(risks, first, bounds)
        assert (ensemble.select(0.2).index, counts(ensemble)[0]) == (40, calls)


def test_good_bounds_spare_the_others_when_all_are_vetoed():
    risks = np.linspace(0.9, 0.3, 64)
    ensemble = Recorder(risks, risks, risks - 0.001)
    choice = ensemble.select(0.2)
    assert (choice.index, choice.risk, choice.acceptable) == (63, 0.3, False)
    assert counts(ensemble) == ([FEW, FEW], [64 - FEW])


def test_bounds_that_spare_nothing_are_not_asked_for():
    risks = np.linspace(0.9, 0.3, 64)
    ensemble = Recorder(risks, risks, risks / 5)
    assert (ensemble.select(0.2).index, counts(ensemble)) == (63, ([FEW, 64 - FEW], []))


def test_few_candidates_are_judged_at_once():
    base = make_critic(members=3)
    critic = OnnxCritic(base.arrays(), base.meta())
    actions = np.random.default_rng(0).uniform(-1, 1, (SMALL + 1, 2)).astype(np.float32)
    obs = np.zeros(3, dtype=np.float32)
    assert critic.select(obs, actions[:-1], 1.0).evaluated == SMALL
    assert critic.select(obs, actions, 1.0).evaluated == FEW
    assert critic.select(obs, actions, 1.0, np.arange(5)).index == 0
