"""TRC, OffTRC, OffCPO, CPO and CPPO: the constraint decides, the step stays inside, likelihoods are the proposals'."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from line_world import REGION, SMALL, STATS, line_world, train

from safe_rl_ros.algorithms import (
    ALGORITHMS,
    CPPO,
    TRC,
    TRPO,
    CPPOConfig,
    TRCConfig,
    TRPOConfig,
    make_algorithm,
)
from safe_rl_ros.config import build
from safe_rl_ros.data.replay_buffer import ReplayBuffer
from safe_rl_ros.functional.trust_region import gaussian_kl

# The toy: without a constraint the best is to stay at +1.5, which costs nearly 1 per step; the limit is .3 per step.
LIMIT = 0.3
FAST = {"hidden": (32, 32), "gamma": 0.9, "gae_lambda": 0.9, "critic_learning_rate": 3e-3, "critic_batch_size": 200}
FAST |= {"cost_limit": LIMIT, "critic_epochs": 4}


@pytest.fixture(scope="module")
def unconstrained():
    """Return mean cost and reward per step of the last epochs of TRPO."""
    free = TRPO(TRPOConfig(hidden=(32, 32), gamma=0.9, gae_lambda=0.9, max_kl=0.01, value_epochs=4), 2, 1, seed=0)
    costs, rewards = train(free, 40)
    return costs[-15:].mean(), rewards[-15:].mean()


@pytest.mark.parametrize("name", REGION)
def test_the_constraint_is_met_where_trpo_violates_it(name, unconstrained):
    settings = FAST | {"name": name, "max_kl": 0.01, "fisher_damping": 0.01}
    settings |= {"batch_size": 1000, "segment_length": 100} if name.startswith("off") else {}
    algorithm = make_algorithm(build(ALGORITHMS[name][0], settings, "test"), 2, 1, seed=0)
    costs, rewards = train(algorithm, 40)
    assert unconstrained[0] > 2.0 * LIMIT
    # The mean hovers around its limit; the CVaR at its limit leaves the mean below.
    assert costs[-15:].mean() <= (LIMIT if algorithm.critics.spread else 1.25 * LIMIT)
    assert -0.5 < rewards[-15:].mean() < unconstrained[1]  # and it does not flee to the left end, where it is -1.5


def test_cppo_lowers_the_cost_where_ppo_without_a_multiplier_does_not():
    settings = FAST | {"policy_learning_rate": 3e-3, "policy_batch_size": 100}
    constrained, _ = train(CPPO(CPPOConfig(**settings), 2, 1, seed=0), 30)
    free, _ = train(CPPO(CPPOConfig(**settings, multiplier_rate=0.0), 2, 1, seed=0), 30)
    assert free[-10:].mean() > 2.0 * LIMIT
    assert constrained[-10:].mean() <= LIMIT


@pytest.mark.parametrize("name", REGION)
def test_a_violated_constraint_is_recovered_and_a_distant_one_ignored(name):
    base = {"name": name, "gamma": 0.9, "critic_learning_rate": 3e-3, "max_kl": 0.01, **SMALL}
    for limit, cases in ((0.0, {0.0, 1.0}), (50.0, {3.0})):
        algorithm = make_algorithm(build(ALGORITHMS[name][0], base | {"cost_limit": limit}, "test"), 2, 1, seed=0)
        rng, buffer = np.random.default_rng(0), ReplayBuffer(8000, 2, 1)
        for _ in range(6):  # reward and cost want opposite directions
            rollout = line_world(algorithm.policy(), rng)
            buffer.add(rollout)
            before = algorithm.policy().distribution(rollout.obs)[0].mean()
            metrics = algorithm.update(rollout, buffer, STATS)
        after = algorithm.policy().distribution(rollout.obs)[0].mean()
        assert metrics["step_case"] in cases
        assert metrics["line_search_accepted"] == 1.0
        assert (after - before) * (1.0 if limit > 0.0 else -1.0) > 0.01
        assert metrics["cvar_change"] < 0.0 if limit == 0.0 else metrics["policy_improvement"] > 0.0
        assert metrics["cvar_limit"] == pytest.approx(limit / 0.1)


@pytest.mark.parametrize("name", REGION)
def test_kl_is_measured_on_all_rows_and_stays_inside(name):
    settings = {"name": name, "gamma": 0.9, "max_kl": 0.003, "cost_limit": 0.0, "fisher_rows": 0.25, **SMALL}
    algorithm = make_algorithm(build(ALGORITHMS[name][0], settings, "test"), 2, 1, seed=0)
    rollout = line_world(algorithm.policy(), np.random.default_rng(0))
    buffer = ReplayBuffer(1000, 2, 1)
    buffer.add(rollout)
    old = [t.detach().clone() for t in algorithm.actor(torch.from_numpy(rollout.obs))]
    metrics = algorithm.update(rollout, buffer, STATS)
    kl = gaussian_kl(*old, *algorithm.actor(torch.from_numpy(rollout.obs))).mean().item()
    assert 0.0 < kl <= 0.003
    assert kl == pytest.approx(metrics["kl"], rel=1e-3)


@pytest.mark.parametrize("name", [*REGION, "cppo"])
def test_the_likelihood_is_that_of_the_proposed_action_not_clipped(name):
    def learned(**change):
        algorithm = make_algorithm(build(ALGORITHMS[name][0], {"name": name, **SMALL}, "test"), 2, 1, seed=0)
        rollout = line_world(algorithm.policy(), np.random.default_rng(0), rows=200)
        assert np.abs(rollout.action_proposed).max() > 1.0
        rollout = replace(rollout, **{k: f(rollout) for k, f in change.items()})
        buffer = ReplayBuffer(1000, 2, 1)
        buffer.add(rollout)
        algorithm.update(rollout, buffer, STATS)
        return algorithm.policy().arrays()["weight_1"]

    as_it_was = learned()
    replaced = learned(action_executed=lambda r: np.zeros_like(r.action_executed), intervened=lambda r: r.cost > 0.5)
    np.testing.assert_array_equal(replaced, as_it_was)
    clipped = learned(action_proposed=lambda r: r.action_executed)
    assert np.abs(clipped - as_it_was).max() > 0.0


def test_estimates_of_the_cost_may_remember_the_last_ones():
    algorithm = TRC(TRCConfig(**SMALL, cost_memory=0.75, gamma=0.9), 2, 1, seed=0)
    rollout = line_world(algorithm.policy(), np.random.default_rng(0), rows=100)
    found = []
    for cost in (0.1, 0.5, 0.5):
        rows = replace(rollout, cost=np.full(100, cost, np.float32))
        found.append(algorithm.update(rows, ReplayBuffer(10, 2, 1), STATS)["cost_return_mean"])
    # weights .25, .75 * .25, .75^2 * .25, divided by their sum
    second = (0.25 * 5.0 + 0.1875 * 1.0) / 0.4375
    third = (0.25 * 5.0 + 0.1875 * 5.0 + 0.140625 * 1.0) / 0.578125
    assert found == pytest.approx([1.0, second, third], rel=1e-5)
