"""KL, Fisher products, conjugate gradient, the natural-gradient step and the line search, by hand."""

import math

import pytest
import torch

from safe_rl_ros.functional.trust_region import (
    adapted_max_kl,
    assign_parameters,
    conjugate_gradient,
    fisher_product,
    flat_gradient,
    flat_parameters,
    gaussian_fisher_product,
    gaussian_kl,
    gaussian_log_prob,
    kl_line_search,
    natural_gradient_step,
)


def test_gaussian_log_prob_by_hand():
    action, mean = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 0.0]])
    log_std = torch.tensor([[0.0, math.log(2.0)]])
    expected = -0.5 - math.log(2.0) - math.log(2.0 * math.pi)
    assert gaussian_log_prob(action, mean, log_std).item() == pytest.approx(expected, rel=1e-6)


def test_gaussian_kl_by_hand():
    # N(0, 1) to N(1, 2^2): log 2 + (1 + 1) / 8 - 1/2; and an axis that does not differ adds nothing
    zero, one, log2 = torch.zeros(1, 2), torch.tensor([[1.0, 0.0]]), torch.tensor([[math.log(2.0), 0.0]])
    forward = gaussian_kl(zero, zero, one, log2).item()
    assert forward == pytest.approx(math.log(2.0) + 0.25 - 0.5, rel=1e-6)
    # and back: -log 2 + (4 + 1) / 2 - 1/2
    assert gaussian_kl(one, log2, zero, zero).item() == pytest.approx(-math.log(2.0) + 2.5 - 0.5, rel=1e-6)


def test_gaussian_kl_is_the_mean_log_ratio():
    generator = torch.Generator().manual_seed(0)
    mean_p, mean_q = torch.tensor([[0.3, -0.2]]), torch.tensor([[0.0, 0.1]])
    log_p, log_q = torch.tensor([[-0.5, 0.1]]), torch.tensor([[-0.3, 0.0]])
    draws = mean_p + log_p.exp() * torch.randn(200_000, 2, generator=generator)
    estimate = (gaussian_log_prob(draws, mean_p, log_p) - gaussian_log_prob(draws, mean_q, log_q)).mean().item()
    assert gaussian_kl(mean_p, log_p, mean_q, log_q).item() == pytest.approx(estimate, abs=5e-3)


def test_flat_parameters_round_trip():
    parameters = [torch.arange(4.0).view(2, 2), torch.tensor([7.0])]
    flat = flat_parameters(parameters)
    assert flat.tolist() == [0.0, 1.0, 2.0, 3.0, 7.0]
    assign_parameters(parameters, flat + 1.0)
    assert parameters[0].tolist() == [[1.0, 2.0], [3.0, 4.0]]
    assert parameters[1].tolist() == [8.0]
    with pytest.raises(ValueError, match="flat has shape"):
        assign_parameters(parameters, torch.zeros(4))


def test_conjugate_gradient_solves_exactly_in_n_iterations():
    matrix = torch.tensor([[4.0, 1.0], [1.0, 3.0]], dtype=torch.float64)
    x = conjugate_gradient(lambda v: matrix @ v, torch.tensor([1.0, 2.0], dtype=torch.float64), iterations=2)
    torch.testing.assert_close(x, torch.tensor([1.0 / 11.0, 7.0 / 11.0], dtype=torch.float64))


def test_fisher_product_of_a_gaussian():
    # Fisher matrix of (mean, log std) is diag(1 / std^2, 2); damping .1 is added to both.
    mean = torch.tensor([0.4], requires_grad=True)
    log_std = torch.tensor([math.log(0.5)], requires_grad=True)
    kl = gaussian_kl(mean.detach()[None], log_std.detach()[None], mean[None], log_std[None]).mean()
    product = fisher_product(kl, [mean, log_std], damping=0.1)
    torch.testing.assert_close(product(torch.tensor([1.0, 0.0])), torch.tensor([4.1, 0.0]))
    torch.testing.assert_close(product(torch.tensor([0.0, 1.0])), torch.tensor([0.0, 2.1]))


@pytest.mark.parametrize("activation", [torch.tanh, torch.relu])
@pytest.mark.parametrize("shared_std", [False, True])
def test_both_fisher_products_agree(activation, shared_std):
    generator = torch.Generator().manual_seed(0)

    def draw(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    parameters = [draw(3, 8), draw(8, 4)] + ([draw(2)] if shared_std else [])
    for parameter in parameters:
        parameter.requires_grad_()
    out = activation(draw(20, 3) @ parameters[0]) @ parameters[1]
    mean = torch.tanh(out[:, :2])
    log_std = parameters[2].expand(20, 2) if shared_std else out[:, 2:].clamp(-4.0, 2.0)
    if shared_std:
        mean = torch.tanh(out[:, :2] + out[:, 2:])
    kl = gaussian_kl(mean.detach(), log_std.detach(), mean, log_std).mean()
    expected = fisher_product(kl, parameters, 0.01)
    actual = gaussian_fisher_product(mean, log_std, parameters, 0.01)
    for _ in range(3):
        vector = draw(sum(p.numel() for p in parameters))
        torch.testing.assert_close(actual(vector), expected(vector))


@pytest.mark.parametrize("divergence", [0.0, 1e-9, 1e-4, 1e-3, 0.5, 100.0])
def test_adapted_trust_region_leaves_room_for_the_way_already_gone(divergence):
    delta = 1e-3
    x = adapted_max_kl(delta, divergence)
    assert x > 0.0
    assert x + math.sqrt(divergence * x) == pytest.approx(delta, rel=1e-9)
    printed = delta - (math.sqrt(divergence * (delta + divergence / 4.0)) - divergence / 2.0)
    assert x == pytest.approx(printed, abs=1e-12)


def test_adapted_trust_region_at_its_landmarks():
    assert adapted_max_kl(0.02, 0.0) == 0.02
    assert adapted_max_kl(0.02, 0.02) == pytest.approx(0.02 * (3.0 - math.sqrt(5.0)) / 2.0)  # .382 delta
    assert adapted_max_kl(1e-3, 1e6) > 0.0  # the printed form loses this to rounding
    for bad in ((0.0, 0.1), (0.1, -1e-3), (0.1, math.nan), (0.1, math.inf)):
        with pytest.raises(ValueError, match="max_kl ="):
            adapted_max_kl(*bad)


def test_natural_gradient_step_on_a_quadratic():
    # F = diag(2, 8), g = (2, 4): F^-1 g = (1, .5), g' F^-1 g = 4, step = sqrt(2 * .02 / 4) (1, .5) = (.1, .05)
    fisher = torch.tensor([2.0, 8.0], dtype=torch.float64)
    gradient = torch.tensor([2.0, 4.0], dtype=torch.float64)
    step = natural_gradient_step(gradient, lambda v: fisher * v, max_kl=0.02)
    torch.testing.assert_close(step, torch.tensor([0.1, 0.05], dtype=torch.float64))
    assert 0.5 * (step * fisher * step).sum().item() == pytest.approx(0.02)  # it ends on the trust region's edge


@pytest.mark.parametrize("gradient", [[0.0, 0.0], [math.nan, 1.0], [math.inf, 1.0]])
def test_no_step_without_a_usable_gradient(gradient):
    assert natural_gradient_step(torch.tensor(gradient), lambda v: v, max_kl=0.01) is None


def test_flat_gradient():
    a, b = torch.tensor([2.0], requires_grad=True), torch.tensor([3.0], requires_grad=True)
    assert flat_gradient(a * a * b, [a, b]).tolist() == [12.0, 4.0]


def test_line_search_takes_the_first_scale_inside_the_ball():
    theta = torch.zeros(2)
    step = torch.tensor([1.0, 0.0])
    # KL of scale s is s^2 / 2: .5, .245, .12005; the third is the first at most .2
    result = kl_line_search(
        [theta], step, lambda: (0.5 * theta.square().sum().item(), theta[0].item()), max_kl=0.2, backtrack=0.7
    )
    assert (result.accepted, result.tries) == (True, 3)
    assert result.scale == pytest.approx(0.49)
    assert result.kl == pytest.approx(0.12005)
    assert theta.tolist() == pytest.approx([0.49, 0.0])


@pytest.mark.parametrize(
    "answer", [(math.nan, 1.0), (0.001, math.nan), (math.inf, 1.0), (1.0, 1.0), (0.001, -1.0)], ids=str
)
def test_line_search_restores_and_is_bounded(answer):
    theta = torch.tensor([0.1, 0.2])
    calls = []

    def evaluate():
        calls.append(theta.clone())
        return answer

    result = kl_line_search([theta], torch.ones(2), evaluate, max_kl=0.01, max_tries=7, min_improvement=0.0)
    assert not result.accepted
    assert len(calls) == 7
    assert theta.equal(torch.tensor([0.1, 0.2]))


def test_line_search_restores_after_a_nan_step_and_after_an_exception():
    theta = torch.tensor([0.1])
    kl_line_search([theta], torch.tensor([math.nan]), lambda: (theta.item(), 0.0), max_kl=0.01, max_tries=3)
    assert theta.equal(torch.tensor([0.1]))

    def broken():
        raise RuntimeError("evaluation failed")

    with pytest.raises(RuntimeError, match="evaluation failed"):
        kl_line_search([theta], torch.tensor([1.0]), broken, max_kl=0.01)
    assert theta.equal(torch.tensor([0.1]))
