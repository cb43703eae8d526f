"""Denoiser of FISOR's diffusion policy in torch (Zheng et al., arXiv:2401.10700; IDQL's network, arXiv:2304.10573).

A residual network over [a_t, s, time]: the time step through learned Fourier features and two layers, then blocks of
(dropout, LayerNorm, wide layer, Mish, narrow layer) that add to their input. Weights are (in, out), named as the
arrays of :mod:`safe_rl_ros.policies.diffusion`, so that exporting is a copy.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from safe_rl_ros.algorithms.off_policy import ActionValues
from safe_rl_ros.config import StrictModel
from safe_rl_ros.functional.diffusion import denoised, vp_schedule
from safe_rl_ros.inference import Normaliser
from safe_rl_ros.policies.diffusion import KIND, NORM_EPSILON, WIDE, DiffusionPolicy, array_shapes
from safe_rl_ros.types import Float32Array

_NOT_LEARNED = ("beta", "selector_")
_FREQUENCY_STD = 0.2


class DenoiserSizes(StrictModel):
    """Sizes of the denoiser."""

    width: int
    blocks: int
    expansion: int
    time_features: int
    time_width: int
    steps: int


class DiffusionActor(nn.Module):
    """eps_theta(a_t, s, t): the noise in an action, and the sampler that removes it step by step."""

    def __init__(
        self, obs_dim: int, act_dim: int, sizes: DenoiserSizes, dropout: float, generator: torch.Generator
    ) -> None:
        """Build the network; ``generator`` draws its initial weights. ``dropout`` is a share of the units."""
        super().__init__()
        self.obs_dim, self.act_dim, self.sizes, self.dropout = obs_dim, act_dim, sizes, dropout
        self.schedule = vp_schedule(sizes.steps)
        self.parts = nn.ParameterDict()
        for name, shape in array_shapes(self._meta(1, 0, (1,), 1)).items():
            if name.startswith(_NOT_LEARNED):
                continue
            self.parts[name] = nn.Parameter(_initial(name, shape, generator))

    def forward(self, action: Tensor, obs: Tensor, time: Tensor, keep: Sequence[Tensor] | None = None) -> Tensor:
        """Return the noise (B, C) predicted in a_t (B, C) at ``obs`` (B, O) and time steps (B,), whole numbers.

        ``keep``: one mask (B, W) per block of the units that dropout keeps, see :meth:`draw_masks`; None drops none.
        """
        angle = time.to(action.dtype).unsqueeze(1) * (2.0 * math.pi * self.parts["frequency"])
        encoded = functional.mish(self._layer("time_0", torch.cat((angle.cos(), angle.sin()), dim=1)))
        encoded = self._layer("time_1", encoded)
        hidden = self._layer("enter", torch.cat((action, obs, encoded), dim=1))
        for i in range(self.sizes.blocks):
            inner = hidden if keep is None else hidden * keep[i] / (1.0 - self.dropout)
            scale, shift = self.parts[f"block_{i}_scale"], self.parts[f"block_{i}_shift"]
            inner = functional.layer_norm(inner, (self.sizes.width,), scale, shift, NORM_EPSILON)
            inner = functional.mish(self._layer(f"block_{i}_up", inner))
            hidden = hidden + self._layer(f"block_{i}_down", inner)
        return self._layer("leave", functional.mish(hidden))

    def draw_masks(self, rows: int, generator: torch.Generator) -> list[Tensor] | None:
        """Return the masks of dropout for B rows, drawn on the CPU with ``generator``; None without dropout."""
        if self.dropout == 0.0:
            return None
        device = self.parts["frequency"].device
        shape = (self.sizes.blocks, rows, self.sizes.width)
        return list((torch.rand(shape, generator=generator) >= self.dropout).to(device))

    def sample(self, obs: Tensor, noise: Tensor) -> Tensor:
        """Return one action (B, C) in [-1, 1] for each of ``obs`` (B, O), from standard normal noise (T, B, C).

        ``noise[0]`` is what is denoised; ``noise[k]`` is added after the k-th of the T steps, none after the last.
        """
        action, steps = noise[0], self.sizes.steps
        with torch.no_grad():
            for step in reversed(range(steps)):
                time = torch.full((len(obs),), step, device=obs.device)
                fresh = noise[steps - step] if step > 0 else noise[0]
                action = denoised(action, self(action, obs, time), fresh, self.schedule, step)
        return action

    def export(
        self, selector: ActionValues, candidates: int, normaliser: Normaliser | None, *, wide: int = 0
    ) -> DiffusionPolicy:
        """Return a numpy snapshot that draws ``candidates`` actions and takes the one with the least max_e Q_h.

        ``wide``: samples of the whole action space that it looks at where none of those has Q_h <= 0.
        """
        arrays: dict[str, Float32Array] = {
            name: value.detach().cpu().numpy().copy() for name, value in self.parts.items()
        }
        arrays["beta"] = self.schedule.beta.numpy().copy()
        arrays |= {f"selector_{name}": array for name, array in selector.net.arrays().items()}
        hidden = [weight.shape[-1] for weight in selector.net.weights][:-1]
        return DiffusionPolicy(arrays, self._meta(candidates, wide, hidden, selector.net.members or 1), normaliser)

    def _layer(self, name: str, x: Tensor) -> Tensor:
        return torch.addmm(self.parts[f"{name}_bias"], x, self.parts[f"{name}_weight"])

    def _meta(self, candidates: int, wide: int, hidden: Sequence[int], members: int) -> dict[str, Any]:
        return {
            "kind": KIND,
            "obs_dim": self.obs_dim,
            "act_dim": self.act_dim,
            **self.sizes.model_dump(),
            "candidates": candidates,
            "selector_hidden": list(hidden),
            "selector_members": members,
            **({WIDE: wide} if wide else {}),
        }


def _initial(name: str, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    """Return the initial values of a parameter: Glorot's for weights, normal for frequencies, else 0, or 1 to scale."""
    if name == "frequency":
        return _FREQUENCY_STD * torch.randn(shape, generator=generator)
    if name.endswith("_weight"):
        return nn.init.xavier_uniform_(torch.empty(shape), generator=generator)
    return torch.ones(shape) if name.endswith("_scale") else torch.zeros(shape)
