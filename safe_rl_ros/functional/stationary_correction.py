"""Formulas of COptiDICE: Lee et al., ICLR 2022, arXiv:2204.08957.

Legend: d_D the data's distribution of (s, a), w = d / d_D the correction that is sought, f of the divergence whose
weight is alpha, nu the multiplier of the flow constraint (a function of the state), lam that of the cost, chi and tau
the variables of the upper bound on the cost, p_0 initial states.
"""

from __future__ import annotations

import torch
from torch import Tensor

from safe_rl_ros.functional.divergences import FDivergence, f_prime_inverse, f_value


def correction_advantage(
    reward: Tensor, cost: Tensor, not_terminated: Tensor, nu: Tensor, next_nu: Tensor, multiplier: Tensor, gamma: float
) -> Tensor:
    """Return e = r - lam c + gamma (1 - terminated) nu(s') - nu(s), (B,)."""
    return reward - multiplier * cost + gamma * not_terminated * next_nu - nu


def correction(advantage: Tensor, alpha: float, divergence: FDivergence) -> Tensor:
    """Return w = max(0, (f')^-1(e / alpha)), (B,); proposition 1."""
    return f_prime_inverse(divergence, advantage / alpha)


def flow_loss(
    initial_nu: Tensor, advantage: Tensor, weight: Tensor, alpha: float, gamma: float, divergence: FDivergence
) -> Tensor:
    """Return (1 - gamma) E_{p_0}[nu] + E_D[w e - alpha f(w)], scalar, to be minimised in nu; all (B,)."""
    return (1.0 - gamma) * initial_nu.mean() + (weight * advantage - alpha * f_value(divergence, weight)).mean()


def cost_bound_terms(
    initial_chi: Tensor,
    chi: Tensor,
    next_chi: Tensor,
    weight: Tensor,
    cost: Tensor,
    not_terminated: Tensor,
    gamma: float,
) -> Tensor:
    """Return (1 - gamma) chi(s_0) + w (c + gamma (1 - terminated) chi(s') - chi(s)), (B,): exponents of the bound."""
    return (1.0 - gamma) * initial_chi + weight * (cost + gamma * not_terminated * next_chi - chi)


def adversarial_weights(terms: Tensor, tau: Tensor) -> tuple[Tensor, Tensor]:
    """Return the weights (B,), of sum 1, that make the cost largest, and their KL to uniform ones, scalar.

    They are softmax(terms / tau): all mass on the costliest rows as tau goes to 0, uniform as it grows.
    """
    log_weight = torch.log_softmax(terms / tau, dim=0)
    weight = log_weight.exp()
    uniform = -torch.log(torch.full_like(weight, float(weight.shape[0])))
    return weight, (weight * (log_weight - uniform)).sum()


def bound_temperature_loss(tau: Tensor, kl: Tensor, limit: float) -> Tensor:
    """Return tau (epsilon - KL), scalar: tau grows, and the bound loosens its grip, while the KL is over its limit."""
    return tau * (limit - kl.detach())


def extraction_loss(log_prob: Tensor, weight: Tensor) -> Tensor:
    """Return -mean w log pi(a | s), scalar, of (B,): behaviour cloning of the corrected distribution."""
    return -(weight.detach() * log_prob).mean()
