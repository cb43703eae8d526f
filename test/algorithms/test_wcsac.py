"""WCSAC's critics learn a known mean and spread; its multiplier and its penalty go the right way."""

import numpy as np
import pytest
import torch
from off_policy_helpers import buffer_of, make, one_state, train

from safe_rl_ros.functional.worst_case import worst_case_cost
from safe_rl_ros.types import ConfigError

SETTINGS = {"cost_learning_rate": 1e-2, "target_tau": 0.05, "gamma": 0.8}


def cost_return(learner, action=0.3):
    mean, variance = learner._cost_return(learner.cost_critics, torch.tensor([[0.0, action]]))
    return mean.item(), variance.item()


def fit_costs(learner, batch, steps):
    """Take the cost critics' steps alone."""
    for minibatch in learner._minibatches(buffer_of(batch), steps):
        learner._safety_step(minibatch, minibatch.joint)
        torch._foreach_lerp_(learner._slow, learner._fast, learner.config.target_tau)


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def test_critics_learn_mean_and_spread_of_a_lottery(rng):
    # Cost 0 or 4, then the end: mean 2, variance 4. The loss averages roots and the targets 0 - 4 are clipped, so its
    # own optimum is (1/2 sqrt(16 - 4) + 1/2 sqrt(0))^2 = 3, below the variance: that is WCSAC's estimator, not a slip.
    batch = one_state(rng, rows=400, cost=4.0 * (np.arange(400) % 2), terminated=True)
    learner = make("wcsac", **SETTINGS)
    assert cost_return(learner)[1] == pytest.approx(np.log(2.0), abs=0.1)  # softplus(0): far from the answer
    fit_costs(learner, batch, 400)
    mean, variance = cost_return(learner)
    assert mean == pytest.approx(2.0, abs=0.3)
    assert variance == pytest.approx(3.0, abs=0.7)


@pytest.mark.parametrize(("end", "expected"), [("truncated", 2.0), ("terminated", 1.0)])
def test_certain_costs_have_no_spread_and_a_time_limit_bootstraps(rng, end, expected):
    learner = make("wcsac", **SETTINGS | {"gamma": 0.5})
    fit_costs(learner, one_state(rng, cost=1.0, **{end: True}), 300)
    mean, variance = cost_return(learner)
    assert mean == pytest.approx(expected, rel=0.06)
    assert variance < 0.1


def test_the_multiplier_moves_by_the_worst_case_of_the_data(rng):
    learner = make("wcsac", cost_limit=0.1, multiplier_learning_rate=1e-2, **SETTINGS)
    start = learner.multiplier().item()
    train(learner, one_state(rng, cost=1.0, truncated=True), 60)
    assert learner.multiplier().item() > start  # Gamma near 5, limit .1 / (1 - .8) = .5
    learner = make("wcsac", cost_limit=1.0, multiplier_learning_rate=1e-2, **SETTINGS)
    train(learner, one_state(rng, cost=0.0, truncated=True), 30)
    assert learner.multiplier().item() < start  # Gamma near 0, limit 5


def constrain(learner, batch_joint, joint):
    """Return the term of the actor's loss at ``joint`` and its weight."""

    class Rows:
        pass

    Rows.joint = batch_joint
    term, metrics = learner._constrain(Rows, joint)
    return term, metrics["penalty_weight"].item()


@pytest.mark.parametrize("floor", [False, True])
def test_the_actor_pays_kappa_less_damping_for_the_worst_case(floor):
    learner = make("wcsac", cost_limit=2.0, damp_scale=10.0, init_multiplier=1.5, floor_penalty=floor)
    data, joint = torch.tensor([[0.0, 0.5]]), torch.tensor([[0.0, -0.5]], requires_grad=True)
    at_data, at_policy = (
        worst_case_cost(*learner._cost_return(learner.cost_critics, x), learner._factor) for x in (data, joint)
    )
    term, weight = constrain(learner, data, joint)
    expected = 1.5 - 10.0 * (learner.limit - at_data.item())
    assert expected < 0.0  # far below the limit, the published rule pays for cost
    assert weight == pytest.approx(0.0 if floor else expected, rel=1e-5)
    assert term.item() == pytest.approx(weight * at_policy.item(), rel=1e-5)


def test_the_limit_is_the_discounted_episodes():
    learner = make("wcsac", cost_limit=0.025, gamma=0.99, horizon=1000)
    assert learner.limit == pytest.approx(2.5, abs=1e-3)
    with pytest.raises(ConfigError, match="cost_alpha"):
        make("wcsac", cost_alpha=0.0)
