"""SAC's formulas against numbers worked out by hand and against torch's own distributions."""

import math

import pytest
import torch

from safe_rl_ros.functional.soft_actor_critic import (
    critic_error,
    inward_clamp,
    multiplier_loss,
    reparameterised_sample,
    soft_bellman_target,
    soft_policy_loss,
    temperature_loss,
)


def test_sample_and_density_are_those_of_the_gaussian():
    generator = torch.Generator().manual_seed(0)
    mean, log_std, noise = (torch.randn(5, 3, generator=generator, dtype=torch.float64) for _ in range(3))
    sample, log_prob = reparameterised_sample(mean, log_std, noise)
    normal = torch.distributions.Normal(mean, log_std.exp())
    torch.testing.assert_close(sample, mean + log_std.exp() * noise)
    torch.testing.assert_close(log_prob, normal.log_prob(sample).sum(dim=1))


def test_spread_beyond_the_counted_one_is_sampled_but_counts_as_less():
    log_std = torch.tensor([[math.log(3.0), math.log(0.5)]], requires_grad=True)
    noise = torch.ones(1, 2)
    sample, log_prob = reparameterised_sample(torch.zeros(1, 2), log_std, noise, 0.0)
    assert sample.tolist() == [pytest.approx([3.0, 0.5])]
    # std 3 counts as 1/3: -(1/2 - log 3) - (1/2 + log .5) - log 2 pi
    assert log_prob.item() == pytest.approx(-1.0 + math.log(3.0) - math.log(0.5) - math.log(2.0 * math.pi))
    assert torch.autograd.grad(log_prob.sum(), log_std)[0].tolist() == [[1.0, -1.0]]


def test_clamp_lets_a_descent_step_lead_back_and_never_further_out():
    x = torch.tensor([-6.0, -6.0, 0.0, 0.0, 5.0, 5.0], requires_grad=True)
    clamped = inward_clamp(x, -4.0, 2.0)
    assert clamped.tolist() == [-4.0, -4.0, 0.0, 0.0, 2.0, 2.0]
    slope = torch.tensor([1.0, -1.0, 1.0, -1.0, 1.0, -1.0])  # descent moves x by minus this
    gradient = torch.autograd.grad((clamped * slope).sum(), x)[0]
    assert gradient.tolist() == [0.0, -1.0, 1.0, -1.0, 1.0, 0.0]


def test_soft_bellman_target():
    target = soft_bellman_target(
        reward=torch.tensor([1.0, 1.0]),
        terminated=torch.tensor([0.0, 1.0]),
        next_value=torch.tensor([[5.0, 5.0], [4.0, 9.0]]),
        next_log_prob=torch.tensor([-2.0, -2.0]),
        temperature=torch.tensor(0.5),
        gamma=0.9,
    )
    # the smaller critic, plus entropy: 1 + .9 (4 + .5 * 2) = 5.5; an ended row is its reward
    assert target.tolist() == pytest.approx([5.5, 1.0])


def test_critic_error_sums_over_critics_and_averages_over_rows():
    value = torch.tensor([[1.0, 2.0], [3.0, 3.0]], requires_grad=True)
    error = critic_error(value, torch.tensor([0.0, 4.0]))
    # 1/2 (1 + 4) / 2 + 1/2 (9 + 1) / 2
    assert error.item() == pytest.approx(3.75)
    assert torch.autograd.grad(error, value)[0].tolist() == [[0.5, -1.0], [1.5, -0.5]]


def test_policy_loss_takes_the_smaller_critic_and_charges_density():
    value = torch.tensor([[5.0, 1.0], [4.0, 2.0]])
    loss = soft_policy_loss(value, torch.tensor([2.0, -4.0]), torch.tensor(0.5))
    # rows: .5 * 2 - 4 = -3 and .5 * -4 - 1 = -3
    assert loss.item() == pytest.approx(-3.0)


@pytest.mark.parametrize(("log_prob", "grows"), [(3.0, True), (0.5, False)])
def test_temperature_grows_exactly_while_the_entropy_is_below_its_target(log_prob, grows):
    temperature = torch.tensor(0.2, requires_grad=True)
    loss = temperature_loss(temperature, torch.full((4,), log_prob), target_entropy=-1.0)
    assert loss.item() == pytest.approx(-0.2 * (log_prob - 1.0))
    (gradient,) = torch.autograd.grad(loss, temperature)
    assert (gradient.item() < 0.0) == grows


@pytest.mark.parametrize(("cost", "limit", "grows"), [(0.5, 0.1, True), (4.0, 2.5, True), (0.05, 0.1, False)])
def test_the_multiplier_grows_exactly_while_the_mean_cost_exceeds_its_limit(cost, limit, grows):
    multiplier = torch.tensor(2.0, requires_grad=True)
    costs = torch.full((3,), cost, requires_grad=True)
    loss = multiplier_loss(multiplier, costs, limit)
    assert loss.item() == pytest.approx(2.0 * (limit - cost))
    gradient, unused = torch.autograd.grad(loss, (multiplier, costs), allow_unused=True)
    assert (gradient.item() < 0.0) == grows
    assert unused is None
