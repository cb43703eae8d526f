"""Natural-gradient steps inside a KL ball: Gaussian KL, Fisher products, conjugate gradient, bounded line search."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


def gaussian_log_prob(action: Tensor, mean: Tensor, log_std: Tensor) -> Tensor:
    """Return log N(action; mean, diag exp(log_std)^2), (B,), of unclipped actions (B, C)."""
    z = (action - mean) * torch.exp(-log_std)
    return -(0.5 * z.square() + log_std).sum(dim=-1) - 0.5 * math.log(2.0 * math.pi) * action.shape[-1]


def gaussian_kl(mean_p: Tensor, log_std_p: Tensor, mean_q: Tensor, log_std_q: Tensor) -> Tensor:
    """Return KL(p || q), (B,), of diagonal Gaussians given by means and log stds (B, C), in closed form.

    Sum over axes of log(sq/sp) + (sp^2 + (mp - mq)^2) / (2 sq^2) - 1/2.
    """
    variance_ratio = torch.exp(2.0 * (log_std_p - log_std_q))
    shift = (mean_p - mean_q).square() * torch.exp(-2.0 * log_std_q)
    return (log_std_q - log_std_p + 0.5 * (variance_ratio + shift - 1.0)).sum(dim=-1)


def flat_parameters(parameters: Sequence[Tensor]) -> Tensor:
    """Return a detached copy of all ``parameters`` as one vector (N,)."""
    return torch.cat([p.detach().reshape(-1) for p in parameters])


def assign_parameters(parameters: Sequence[Tensor], flat: Tensor) -> None:
    """Write the vector ``flat`` (N,) into ``parameters`` in place. Raises ValueError if N does not match."""
    total = sum(p.numel() for p in parameters)
    if flat.shape != (total,):
        raise ValueError(f"flat has shape {tuple(flat.shape)}, expected ({total},)")
    with torch.no_grad():
        for parameter, part in zip(parameters, torch.split(flat, [p.numel() for p in parameters]), strict=True):
            parameter.copy_(part.view_as(parameter))


def flat_gradient(scalar: Tensor, parameters: Sequence[Tensor], *, retain: bool = False, twice: bool = False) -> Tensor:
    """Return d scalar / d parameters, (N,); ``retain`` keeps the graph, ``twice`` makes the result differentiable."""
    gradients = torch.autograd.grad(scalar, parameters, retain_graph=retain or twice, create_graph=twice)
    return torch.cat([g.reshape(-1) for g in gradients])


def fisher_product(mean_kl: Tensor, parameters: Sequence[Tensor], damping: float) -> Callable[[Tensor], Tensor]:
    """Return v -> (F + damping I) v, F the Hessian of ``mean_kl`` at the current parameters.

    Double backpropagation, appendix C.1 of arXiv:1502.05477. ``mean_kl`` must be KL(p || pi) with
    p detached and equal to pi, so that its Hessian is the Fisher matrix.
    """
    gradient = flat_gradient(mean_kl, parameters, twice=True)

    def product(vector: Tensor) -> Tensor:
        parts = torch.autograd.grad(gradient @ vector, parameters, retain_graph=True)
        return torch.cat([p.reshape(-1) for p in parts]) + damping * vector

    return product


def gaussian_fisher_product(
    mean: Tensor, log_std: Tensor, parameters: Sequence[Tensor], damping: float
) -> Callable[[Tensor], Tensor]:
    """Return v -> (F + damping I) v, F the Fisher matrix of diagonal Gaussians (B, C) at the current parameters.

    F = J' M J / B with J the Jacobian of (mean, log std) and M = diag(1 / std^2, 2): what :func:`fisher_product` gets
    by differentiating the KL twice. J v comes from a graph that is built once (the derivative of J'w, which is linear
    in w, along v), J'u from the graph of the outputs: about half the work per product, and no curvature is formed.
    """
    rows = mean.shape[0]
    weights = (torch.exp(-2.0 * log_std.detach()) / rows, torch.full_like(log_std, 2.0 / rows))
    probes = tuple(torch.zeros_like(output, requires_grad=True) for output in (mean, log_std))
    pulled = torch.autograd.grad((mean, log_std), parameters, probes, create_graph=True)
    sizes = [p.numel() for p in parameters]

    def product(vector: Tensor) -> Tensor:
        direction = [v.view_as(p) for v, p in zip(torch.split(vector, sizes), parameters, strict=True)]
        tangents = torch.autograd.grad(pulled, probes, direction, retain_graph=True)
        cotangents = tuple(w * t for w, t in zip(weights, tangents, strict=True))
        parts = torch.autograd.grad((mean, log_std), parameters, cotangents, retain_graph=True)
        return torch.cat([p.reshape(-1) for p in parts]) + damping * vector

    return product


def adapted_max_kl(max_kl: float, divergence: float) -> float:
    """Return delta' = delta - (sqrt(D (delta + D / 4)) - D / 2); Sec. IV, arXiv:2312.00342.

    ``divergence`` D >= 0 is the mean KL(mu || pi_k) of the batch's behaviour policies to the current one, in nats. The
    result solves x + sqrt(D x) = delta: the further the data is from the policy, the shorter the step. It is written
    as 2 delta^2 / (2 delta + D + sqrt(D^2 + 4 D delta)), the same number without the difference of two large ones.

    Raises:
        ValueError: ``max_kl`` is not positive, or ``divergence`` is negative or not finite.
    """
    if not (max_kl > 0.0 and 0.0 <= divergence < math.inf):
        raise ValueError(f"max_kl = {max_kl}, divergence = {divergence}: expected a positive and a finite number >= 0")
    return 2.0 * max_kl**2 / (2.0 * max_kl + divergence + math.sqrt(divergence * (divergence + 4.0 * max_kl)))


def conjugate_gradient(
    product: Callable[[Tensor], Tensor], target: Tensor, *, iterations: int = 10, tolerance: float = 1e-10
) -> Tensor:
    """Return x (N,) with ``product(x)`` close to ``target`` for a symmetric positive definite product.

    Stops after ``iterations`` or when the squared residual is below ``tolerance`` times that of ``target``.
    """
    x = torch.zeros_like(target)
    residual = target.clone()
    direction = target.clone()
    energy = residual @ residual
    limit = tolerance * energy
    for _ in range(iterations):
        if not bool(energy > limit):
            break
        image = product(direction)
        step = energy / (direction @ image)
        x = x + step * direction
        residual = residual - step * image
        previous, energy = energy, residual @ residual
        direction = residual + (energy / previous) * direction
    return x


def natural_gradient_step(
    gradient: Tensor, product: Callable[[Tensor], Tensor], *, max_kl: float, iterations: int = 10
) -> Tensor | None:
    """Return the longest step (N,) that the quadratic model of the KL allows: sqrt(2 delta / (g' F^-1 g)) F^-1 g.

    Eq. 8, arXiv:2010.14497 with beta = 1 (the line search owns beta). None if the gradient is zero or
    anything is not finite: there is then no step to take.
    """
    direction = conjugate_gradient(product, gradient, iterations=iterations)
    curvature = float(gradient @ direction)
    if not math.isfinite(curvature) or curvature <= 1e-16:
        return None
    step = math.sqrt(2.0 * max_kl / curvature) * direction
    return step if bool(torch.isfinite(step).all()) else None


@dataclass(frozen=True)
class LineSearchResult:
    """Outcome of :func:`kl_line_search`: whether a step was taken, its scale beta, tries made, KL and gain."""

    accepted: bool
    scale: float
    tries: int
    kl: float
    improvement: float


def kl_line_search(
    parameters: Sequence[Tensor],
    step: Tensor,
    evaluate: Callable[[], tuple[float, float]],
    *,
    max_kl: float,
    backtrack: float = 0.7,
    max_tries: int = 20,
    min_improvement: float = -math.inf,
) -> LineSearchResult:
    """Try old + backtrack^j step for j = 0 .. ``max_tries`` - 1; keep the first that fits, else restore the old.

    Step 3 of algorithm 1, arXiv:2010.14497. ``evaluate`` returns (mean KL to the old policy,
    improvement of the objective) at the parameters as they are. A try fits if both are finite,
    KL <= ``max_kl`` and improvement >= ``min_improvement``. The old parameters come back bit for
    bit when nothing fits, also after NaN or an exception of ``evaluate``.
    """
    old = flat_parameters(parameters)
    accepted = False
    scale, kl, improvement, tries = 1.0, math.nan, math.nan, 0
    try:
        for tries in range(1, max_tries + 1):
            scale = backtrack ** (tries - 1)
            assign_parameters(parameters, old + scale * step)
            kl, improvement = evaluate()
            finite = math.isfinite(kl) and math.isfinite(improvement)
            if finite and kl <= max_kl and improvement >= min_improvement:
                accepted = True
                break
    finally:
        if not accepted:
            assign_parameters(parameters, old)
    if not accepted:
        return LineSearchResult(False, 0.0, tries, 0.0, 0.0)
    return LineSearchResult(True, scale, tries, kl, improvement)
