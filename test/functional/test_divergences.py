"""KL from samples against the exact one; f-divergences and the inverses of their derivatives by hand."""

import math

import pytest
import torch

from safe_rl_ros.functional.divergences import f_prime_inverse, f_value, sampled_kl
from safe_rl_ros.functional.trust_region import gaussian_kl, gaussian_log_prob


def test_kl_from_samples_by_hand():
    # two samples per row: ((-1 - -3) + (-2 - -2)) / 2 = 1, ((0 - 1) + (-4 - -1)) / 2 = -2
    log_p, log_q = torch.tensor([[-1.0, 0.0], [-2.0, -4.0]]), torch.tensor([[-3.0, 1.0], [-2.0, -1.0]])
    assert sampled_kl(log_p, log_q).tolist() == [1.0, -2.0]


def test_kl_from_samples_tends_to_the_exact_one():
    p = torch.tensor([[0.2, -0.3]]), torch.tensor([[-1.0, 0.1]])
    q = torch.tensor([[0.0, 0.4]]), torch.tensor([[-0.5, -0.2]])
    noise = torch.randn(200_000, 1, 2, generator=torch.Generator().manual_seed(0))
    sample = p[0] + p[1].exp() * noise
    found = sampled_kl(gaussian_log_prob(sample, *p), gaussian_log_prob(sample, *q))
    # by hand: .5 + .5 (e^-1 + .04 e^1 - 1) + (-.3) + .5 (e^.6 + .49 e^.4 - 1)
    exact = 0.5 + 0.5 * (math.exp(-1.0) + 0.04 * math.exp(1.0) - 1.0)
    exact += -0.3 + 0.5 * (math.exp(0.6) + 0.49 * math.exp(0.4) - 1.0)
    assert gaussian_kl(*p, *q).item() == pytest.approx(exact, rel=1e-5)
    assert found.item() == pytest.approx(exact, abs=0.01)


def test_f_by_hand():
    w = torch.tensor([0.0, 0.5, 1.0, 3.0])
    entropy = 0.5 * math.log(0.5) + 0.5
    assert f_value("chi_square", w).tolist() == pytest.approx([0.5, 0.125, 0.0, 2.0])
    assert f_value("kl", w).tolist() == pytest.approx([1.0, entropy, 0.0, 3.0 * math.log(3.0) - 2.0])
    assert f_value("soft_chi_square", w).tolist() == pytest.approx([1.0, entropy, 0.0, 2.0])


def test_inverse_of_the_derivative_by_hand():
    e = torch.tensor([-2.0, -0.5, 0.0, 1.5])
    assert f_prime_inverse("chi_square", e).tolist() == pytest.approx([0.0, 0.5, 1.0, 2.5])
    assert f_prime_inverse("kl", e).tolist() == pytest.approx([math.exp(-2), math.exp(-0.5), 1.0, math.exp(1.5)])
    assert f_prime_inverse("soft_chi_square", e).tolist() == pytest.approx([math.exp(-2), math.exp(-0.5), 1.0, 2.5])


@pytest.mark.parametrize("divergence", ["chi_square", "kl", "soft_chi_square"])
def test_the_inverse_is_the_best_weight(divergence):
    # w* maximises w e - f(w) over w >= 0: compare with a fine grid
    grid = torch.linspace(0.0, 8.0, 80_001, dtype=torch.float64)
    for e in (-1.7, -0.4, 0.0, 0.9, 1.8):
        best = grid[(grid * e - f_value(divergence, grid)).argmax()]
        found = f_prime_inverse(divergence, torch.tensor(e, dtype=torch.float64))
        assert found.item() == pytest.approx(best.item(), abs=2e-4)


def test_large_advantages_stay_finite():
    e = torch.tensor([-1e6, 1e6])
    for divergence in ("chi_square", "kl", "soft_chi_square"):
        e_grad = e.clone().requires_grad_()
        value = f_prime_inverse(divergence, e_grad)
        (gradient,) = torch.autograd.grad(value.sum(), e_grad)
        assert bool(torch.isfinite(value).all())
        assert bool(torch.isfinite(gradient).all())
