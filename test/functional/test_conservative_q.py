"""CQL's formulas: by hand, and its importance-sampled integral against brute force in one dimension."""

import math

import numpy as np
import pytest
import torch

from safe_rl_ros.functional.conservative_q import (
    entropy_penalty,
    importance_logsumexp,
    prior_penalty,
    truncated_sample,
    uniform_log_density,
    value_penalty,
)

GRID = torch.linspace(-1.0, 1.0, 20001, dtype=torch.float64)
SHAPES = {
    "flat": lambda a: 0.0 * a,
    "slope": lambda a: 6.0 * a,
    "peak": lambda a: 8.0 * torch.exp(-50.0 * (a - 0.4).square()),
    "bounds": lambda a: 5.0 * a.square(),
}


def brute_force(value):
    """log of the integral of exp value over [-1, 1], by the trapezoid rule."""
    return math.log(float(torch.trapezoid(value(GRID).exp(), GRID)))


def samples(mean, log_std, count, seed=0):
    uniform = torch.rand(count, 1, 1, generator=torch.Generator().manual_seed(seed))
    return truncated_sample(torch.tensor([[mean]]), torch.tensor([[log_std]]), uniform)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(("mean", "log_std"), [(0.4, -0.5), (1.0, -0.3), (-0.8, 2.0)])
def test_importance_sampling_finds_the_integral(shape, mean, log_std):
    value, count = SHAPES[shape], 40000
    policy, density = samples(mean, log_std, count)
    other, other_density = samples(-mean, log_std, count, seed=1)
    flat = 2.0 * torch.rand(count, 1, 1, generator=torch.Generator().manual_seed(2)) - 1.0
    action = torch.cat((flat, policy, other))
    log_density = torch.cat((torch.full((count, 1), uniform_log_density(1)), density, other_density))
    estimate = importance_logsumexp(value(action)[None, :, :, 0], log_density)
    assert estimate.shape == (1, 1)
    assert estimate.item() == pytest.approx(brute_force(value), abs=0.03)
    # Each distribution alone would do too: the weights are right, not just the uniform ones.
    alone = importance_logsumexp(value(policy)[None, :, :, 0], density)
    assert alone.item() == pytest.approx(brute_force(value), abs=0.12)


@pytest.mark.parametrize(("mean", "log_std"), [(0.0, -1.0), (0.7, 0.0), (1.0, -4.0), (-1.0, -4.0), (0.2, 2.0)])
def test_truncated_samples_follow_their_density(mean, log_std):
    action, log_density = samples(mean, log_std, 20000)
    assert action.abs().max() <= 1.0
    assert log_density.isfinite().all()
    normal = torch.distributions.Normal(torch.tensor(mean).double(), torch.tensor(log_std).double().exp())
    mass = normal.cdf(torch.tensor(1.0)) - normal.cdf(torch.tensor(-1.0))
    expected = normal.log_prob(action[..., 0].double()) - mass.log()
    torch.testing.assert_close(log_density.double(), expected, atol=2e-3, rtol=1e-3)
    drawn = np.sort(action.flatten().numpy())
    cdf = (normal.cdf(torch.from_numpy(drawn).double()) - normal.cdf(torch.tensor(-1.0).double())) / mass
    assert np.abs(cdf.numpy() - np.linspace(0.0, 1.0, len(drawn))).max() < 0.015


def test_the_ends_of_the_uniform_numbers_give_finite_samples():
    uniform = torch.tensor([0.0, 1.0 - 2.0**-24]).view(2, 1, 1).expand(2, 3, 1)
    action, log_density = truncated_sample(torch.tensor([[-1.0], [0.0], [1.0]]), torch.full((3, 1), -4.0), uniform)
    assert action.isfinite().all()
    assert log_density.isfinite().all()
    assert log_density.min() > -15.0  # not so rare that its weight explodes


def test_logsumexp_by_hand():
    value = torch.tensor([[[1.0], [2.0]], [[0.0], [0.0]]])  # two critics, two actions, one row
    log_density = torch.log(torch.tensor([[0.5], [0.25]]))
    expected = [math.log(0.5 * (math.e / 0.5 + math.e**2 / 0.25)), math.log(0.5 * (2.0 + 4.0))]
    assert importance_logsumexp(value, log_density).flatten().tolist() == pytest.approx(expected)
    penalty = entropy_penalty(value, log_density, torch.tensor([[3.0], [-1.0]]))
    assert penalty.tolist() == pytest.approx([expected[0] - 3.0, expected[1] + 1.0])


def test_prior_penalty_by_hand_and_its_gradient_is_the_weighted_average():
    value = torch.tensor([[[1.0, 0.0], [3.0, 0.0]]], requires_grad=True)
    data = torch.tensor([[2.0, 4.0]], requires_grad=True)
    penalty = prior_penalty(value, data)
    first = math.log(0.5 * (math.e + math.e**3))
    assert penalty.tolist() == pytest.approx([0.5 * (first - 2.0) + 0.5 * (0.0 - 4.0)])
    down, up = torch.autograd.grad(penalty.sum(), (value, data))
    share = math.e**3 / (math.e + math.e**3)
    assert down.flatten().tolist() == pytest.approx([0.5 * (1 - share), 0.25, 0.5 * share, 0.25])
    assert up.tolist() == [[-0.5, -0.5]]


@pytest.mark.parametrize("penalty", ["entropy", "prior"])
def test_a_temperature_is_another_unit_of_reward_and_near_0_the_maximum(penalty):
    noise = torch.Generator().manual_seed(0)
    value, density, data = (torch.randn(*shape, generator=noise) for shape in ((2, 7, 5), (7, 5), (2, 5)))

    def found(unit, temperature):
        arguments = (value / unit, density, data / unit) if penalty == "entropy" else (value / unit, data / unit)
        return (entropy_penalty if penalty == "entropy" else prior_penalty)(*arguments, temperature)

    torch.testing.assert_close(found(1.0, 0.3), 0.3 * found(0.3, 1.0))
    assert not torch.allclose(found(1.0, 0.3), found(1.0, 1.0))
    torch.testing.assert_close(found(1.0, 1e-4), (value.amax(dim=1) - data).mean(dim=1), atol=2e-3, rtol=0.0)


def test_value_penalty_pushes_sampled_values_down_alone():
    value = torch.tensor([[[1.0, 2.0], [3.0, 6.0]], [[0.0, 0.0], [0.0, 4.0]]], requires_grad=True)
    penalty = value_penalty(value)
    assert penalty.tolist() == [3.0, 1.0]
    assert torch.autograd.grad(penalty.sum(), value)[0].unique().tolist() == [0.25]


def test_penalties_are_large_where_unseen_actions_look_good():
    seen = torch.zeros(1, 1)
    densities = torch.zeros(2, 1)
    for penalty in (lambda v: entropy_penalty(v, densities, seen), lambda v: prior_penalty(v, seen), value_penalty):
        assert penalty(torch.full((1, 2, 1), 5.0)).item() > penalty(torch.full((1, 2, 1), -5.0)).item() + 9.0
