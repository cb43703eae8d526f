"""Networks of the learners, in torch: Gaussian actor, value and safety-critic ensemble; tanh or ReLU layers.

Weights are stored (in, out), so that exporting to :mod:`safe_rl_ros.inference` is a copy. Every
initial weight comes from a generator that the caller passes: no global random state is touched.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from safe_rl_ros.inference import LOG_STD_MAX, LOG_STD_MIN, Activation, Aggregate, GaussianPolicy, SafetyCritic

_ACTIVATIONS = {"tanh": torch.tanh, "relu": torch.relu}


def _activation_meta(activation: Activation) -> dict[str, str]:
    """Return the key ``activation`` of a description; tanh is not written: older descriptions have none."""
    return {} if activation == "tanh" else {"activation": activation}


class BatchedMLP(nn.Module):
    """Tanh or ReLU network, or E of them evaluated at once with batched products; the output is linear."""

    def __init__(
        self,
        sizes: Sequence[int],
        generator: torch.Generator,
        members: int | None = None,
        final_gain: float = 0.01,
        activation: Activation = "tanh",
    ) -> None:
        """Build layers of widths ``sizes``, orthogonal with gain sqrt(2) (last: ``final_gain``), biases 0."""
        super().__init__()
        self.members = members
        self.activation = activation
        self._activate = _ACTIVATIONS[activation]
        self.weights = nn.ParameterList()
        self.biases = nn.ParameterList()
        for i, (fan_in, fan_out) in enumerate(pairwise(sizes)):
            gain = final_gain if i == len(sizes) - 2 else math.sqrt(2.0)
            drawn = []
            for _ in range(members or 1):
                weight = torch.empty(fan_in, fan_out)
                nn.init.orthogonal_(weight, gain, generator=generator)
                drawn.append(weight)
            stacked = drawn[0] if members is None else torch.stack(drawn)
            self.weights.append(nn.Parameter(stacked))
            shape = (fan_out,) if members is None else (members, 1, fan_out)
            self.biases.append(nn.Parameter(torch.zeros(shape)))

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, in) to (B, out), or (E, B, in) to (E, B, out) for an ensemble."""
        product = torch.addmm if self.members is None else torch.baddbmm
        last = len(self.weights) - 1
        for i, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            x = product(bias, x, weight)
            if i < last:
                x = self._activate(x)
        return x

    def arrays(self) -> dict[str, npt.NDArray[np.float32]]:
        """Return copies of all layers as ``weight_i`` and ``bias_i`` (the bias without its batch axis)."""
        result = {}
        for i, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            result[f"weight_{i}"] = weight.detach().cpu().numpy().copy()
            flat = bias.detach() if self.members is None else bias.detach()[:, 0, :]
            result[f"bias_{i}"] = flat.cpu().numpy().copy()
        return result

    def take(self, arrays: Mapping[str, npt.ArrayLike]) -> None:
        """Take the layers that :meth:`arrays` of a network of the same widths returned; other entries are left."""
        with torch.no_grad():
            for i, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
                weight.copy_(torch.as_tensor(np.asarray(arrays[f"weight_{i}"])))
                bias.copy_(torch.as_tensor(np.asarray(arrays[f"bias_{i}"])).reshape(bias.shape))


class GaussianActor(nn.Module):
    """Diagonal Gaussian policy: tanh mean in [-1, 1], log std clamped to [-4, 2]; actions are not squashed.

    By default the log std is one parameter per axis; with ``state_dependent_std`` it is a second
    head of the network (its initial bias is then ``init_log_std``).
    """

    def __init__(
        self,
        obs_dim: int,
        act_dim: int,
        hidden: Sequence[int],
        generator: torch.Generator,
        *,
        init_log_std: float = -0.5,
        state_dependent_std: bool = False,
        activation: Activation = "tanh",
    ) -> None:
        """Build the actor; ``generator`` draws its initial weights."""
        super().__init__()
        self.obs_dim, self.act_dim, self.hidden = obs_dim, act_dim, tuple(hidden)
        self.state_dependent_std = state_dependent_std
        outputs = 2 * act_dim if state_dependent_std else act_dim
        self.net = BatchedMLP([obs_dim, *hidden, outputs], generator, activation=activation)
        if state_dependent_std:
            with torch.no_grad():
                self.net.biases[-1][act_dim:] = init_log_std
        else:
            self.log_std = nn.Parameter(torch.full((act_dim,), float(init_log_std)))

    def forward(self, obs: Tensor) -> tuple[Tensor, Tensor]:
        """Return mean and log std, each (B, C), for ``obs`` (B, O)."""
        out = self.net(obs)
        if self.state_dependent_std:
            mean, log_std = out[:, : self.act_dim], out[:, self.act_dim :]
        else:
            mean, log_std = out, self.log_std.expand_as(out)
        return torch.tanh(mean), log_std.clamp(LOG_STD_MIN, LOG_STD_MAX)

    def take(self, arrays: Mapping[str, npt.ArrayLike]) -> None:
        """Take the arrays of a policy of the same form, as :meth:`export` gives them."""
        self.net.take(arrays)
        if not self.state_dependent_std:
            with torch.no_grad():
                self.log_std.copy_(torch.as_tensor(np.asarray(arrays["log_std"])))

    def export(self) -> GaussianPolicy:
        """Return a numpy snapshot."""
        arrays = self.net.arrays()
        if not self.state_dependent_std:
            arrays["log_std"] = self.log_std.detach().cpu().numpy().copy()
        meta = {
            "kind": "gaussian_policy",
            "obs_dim": self.obs_dim,
            "act_dim": self.act_dim,
            "hidden": list(self.hidden),
            "state_dependent_std": self.state_dependent_std,
            **_activation_meta(self.net.activation),
        }
        return GaussianPolicy(arrays, meta)


class ValueNet(nn.Module):
    """State value (B,) of observations (B, O)."""

    def __init__(
        self, obs_dim: int, hidden: Sequence[int], generator: torch.Generator, activation: Activation = "tanh"
    ) -> None:
        """Build the network; ``generator`` draws its initial weights."""
        super().__init__()
        self.net = BatchedMLP([obs_dim, *hidden, 1], generator, final_gain=1.0, activation=activation)

    def forward(self, obs: Tensor) -> Tensor:
        """Return values (B,)."""
        return torch.as_tensor(self.net(obs)[:, 0])


class SafetyCriticEnsemble(nn.Module):
    """E networks Q_C(s, a) in (0, 1) (sigmoid): probability of failure; see Eq. 2 of arXiv:2010.14497."""

    def __init__(
        self,
        obs_dim: int,
        act_dim: int,
        hidden: Sequence[int],
        generator: torch.Generator,
        *,
        members: int = 1,
        initial_probability: float = 0.05,
        final_gain: float = 0.1,
        activation: Activation = "tanh",
    ) -> None:
        """Build the ensemble so that its first outputs are near ``initial_probability``."""
        super().__init__()
        if members < 1:
            raise ValueError(f"members is {members}, expected at least 1")
        if not 0.0 < initial_probability < 1.0:
            raise ValueError(f"initial_probability is {initial_probability}, expected a number in (0, 1)")
        self.obs_dim, self.act_dim, self.hidden, self.members = obs_dim, act_dim, tuple(hidden), members
        self.net = BatchedMLP([obs_dim + act_dim, *hidden, 1], generator, members, final_gain, activation)
        with torch.no_grad():
            self.net.biases[-1].fill_(math.log(initial_probability / (1.0 - initial_probability)))

    def logits(self, obs: Tensor, action: Tensor) -> Tensor:
        """Return logits (E, B) for ``obs`` and ``action`` of shape (B, .) (shared) or (E, B, .) (one per member)."""
        x = torch.cat((obs, action), dim=-1)
        return self.joint_logits(x)

    def forward(self, obs: Tensor, action: Tensor) -> Tensor:
        """Return probabilities (E, B); shapes as in :meth:`logits`."""
        return torch.sigmoid(self.logits(obs, action))

    def joint(self, x: Tensor) -> Tensor:
        """Return probabilities (E, B) for observation and action already joined, (B, O + C) or (E, B, O + C)."""
        return torch.sigmoid(self.joint_logits(x))

    def joint_logits(self, x: Tensor) -> Tensor:
        """Return logits (E, B); shapes as in :meth:`joint`."""
        if x.dim() == 2:
            x = x.unsqueeze(0).expand(self.members, -1, -1)
        return torch.as_tensor(self.net(x)[..., 0])

    def risk(self, obs: Tensor, action: Tensor, aggregate: Aggregate = "mean", std_factor: float = 0.0) -> Tensor:
        """Return the aggregated risk (B,) in [0, 1]; the same formula as :class:`SafetyCritic`."""
        probability = self.joint(torch.cat((obs, action), dim=-1))
        if aggregate == "max":
            return torch.amax(probability, dim=0)
        mean = probability.mean(dim=0)
        if aggregate == "mean":
            return mean
        return (mean + std_factor * probability.std(dim=0, correction=0)).clamp(max=1.0)

    def export(self, aggregate: Aggregate = "mean", std_factor: float = 0.0) -> SafetyCritic:
        """Return a numpy snapshot that aggregates the members as told."""
        meta = {
            "kind": "safety_critic",
            "obs_dim": self.obs_dim,
            "act_dim": self.act_dim,
            "hidden": list(self.hidden),
            "members": self.members,
            "aggregate": aggregate,
            "std_factor": std_factor,
            **_activation_meta(self.net.activation),
        }
        return SafetyCritic(self.net.arrays(), meta)
