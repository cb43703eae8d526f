"""Networks that ``filter_latency`` times: the same random weights for ONNX Runtime, numpy and torch eager."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from safe_rl_ros.bundle.onnx_networks import OnnxCritic, OnnxPolicy
from safe_rl_ros.inference import GaussianPolicy, SafetyCritic, activation_of
from safe_rl_ros.networks import SafetyCriticEnsemble
from safe_rl_ros.types import Float32Array, FloatArray, Selection

SEED = 0
ACT_DIM = 2


@dataclass(frozen=True)
class Case:
    """One pair of networks, who runs them, and the filter's paths that are timed."""

    name: str
    obs_dim: int
    hidden: list[int]
    members: int
    runtimes: tuple[str, ...]
    vetoes: tuple[int, ...]


class TorchCritic:
    """A critic's networks in eager torch, asked and answering in numpy."""

    def __init__(self, critic: SafetyCritic, *, batched: bool) -> None:
        """Copy the weights; ``batched``: this package's ensemble, else a module for each member."""
        meta, arrays = critic.meta(), {k: torch.from_numpy(v) for k, v in critic.arrays().items()}
        self.aggregate, self.std_factor, self.batched = critic.aggregate, critic.std_factor, batched
        sizes = [critic.obs_dim + critic.act_dim, *meta["hidden"], 1]
        generator = torch.Generator().manual_seed(SEED)
        self.ensemble = SafetyCriticEnsemble(
            critic.obs_dim,
            critic.act_dim,
            meta["hidden"],
            generator,
            members=critic.members,
            activation=activation_of(meta),
        )
        hidden = {"tanh": torch.nn.Tanh, "relu": torch.nn.ReLU}[activation_of(meta)]
        self.modules = []
        with torch.no_grad():
            for i in range(len(sizes) - 1):
                self.ensemble.net.weights[i].copy_(arrays[f"weight_{i}"])
                self.ensemble.net.biases[i].copy_(arrays[f"bias_{i}"][:, None, :])
            for e in range(critic.members):
                steps: list[torch.nn.Module] = []
                for i, (fan_in, fan_out) in enumerate(itertools.pairwise(sizes)):
                    linear = torch.nn.Linear(fan_in, fan_out)
                    linear.weight.copy_(arrays[f"weight_{i}"][e].T)
                    linear.bias.copy_(arrays[f"bias_{i}"][e])
                    steps += [linear, hidden() if i < len(sizes) - 2 else torch.nn.Sigmoid()]
                self.modules.append(torch.nn.Sequential(*steps))

    def risk(self, obs: Float32Array, actions: Float32Array) -> FloatArray:
        """Return the risks (K,)."""
        with torch.inference_mode():
            states = torch.from_numpy(obs).expand(len(actions), -1)
            candidates = torch.from_numpy(actions)
            if self.batched:
                risk = self.ensemble.risk(states, candidates, self.aggregate, self.std_factor)
            else:
                joint = torch.cat((states, candidates), dim=1)
                risk = self._combine([module(joint) for module in self.modules])
            return np.asarray(risk.numpy(), dtype=np.float64)

    def _combine(self, probabilities: list[torch.Tensor]) -> torch.Tensor:
        if len(probabilities) == 1:
            return probabilities[0][:, 0]
        together = torch.cat(probabilities, dim=1)
        spread, mean = torch.std_mean(together, dim=1, correction=0)
        return (mean + self.std_factor * spread).clamp(max=1.0)


@dataclass(frozen=True)
class Full:
    """Networks as the filter's model, which judges every candidate by all members."""

    policy: GaussianPolicy
    critic: Any
    obs_dim: int
    act_dim: int = ACT_DIM
    threshold: float = 0.5
    hash: str = "benchmark"

    def risk(self, obs: Float32Array, actions: Float32Array) -> FloatArray:
        """Return the risks (K,)."""
        risks: FloatArray = self.critic.risk(obs, actions)
        return risks

    def mean(self, obs: Float32Array) -> Float32Array:
        """Return the mean action (C,)."""
        return self.policy.distribution(obs)[0]

    def sample(self, obs: Float32Array, n: int, rng: np.random.Generator) -> Float32Array:
        """Return samples (n, C)."""
        return self.policy.sample(obs, n, rng)


class Staged(Full):
    """The same, which may choose with less work, as a bundle does."""

    def select(
        self, obs: Float32Array, actions: Float32Array, threshold: float, order: npt.NDArray[np.intp] | None = None
    ) -> Selection:
        """Return the choice."""
        choice: Selection = self.critic.select(obs, actions, threshold, order)
        return choice


def make_networks(case: Case, aggregate: str = "mean_plus_std") -> tuple[GaussianPolicy, SafetyCritic]:
    """Return random networks. Members share most of their weights, as they do after learning from the same data."""
    rng = np.random.default_rng(SEED)

    def layers(sizes: list[int], members: int | None) -> dict[str, Any]:
        arrays: dict[str, Any] = {}
        for i, (fan_in, fan_out) in enumerate(itertools.pairwise(sizes)):
            weight = rng.normal(0, fan_in**-0.5, (fan_in, fan_out))
            if members is not None:
                weight = weight + 0.3 * rng.normal(0, fan_in**-0.5, (members, fan_in, fan_out))
            arrays[f"weight_{i}"] = weight
            arrays[f"bias_{i}"] = np.zeros(weight.shape[:-2] + weight.shape[-1:])
        return arrays

    meta: dict[str, Any] = {"obs_dim": case.obs_dim, "act_dim": ACT_DIM, "hidden": case.hidden}
    actor = layers([case.obs_dim, *case.hidden, ACT_DIM], None) | {"log_std": np.full(ACT_DIM, -1.0)}
    critic = layers([case.obs_dim + ACT_DIM, *case.hidden, 1], case.members)
    critic["weight_0"][:, case.obs_dim :] *= 4.0  # the risk depends on the action, not only on the state
    critic["weight_2"] *= 6.0  # and reaches from near 0 to near 1
    ensemble = {"members": case.members, "aggregate": aggregate, "std_factor": 1.0}
    return (
        GaussianPolicy.from_arrays(actor, {"kind": "gaussian_policy", "state_dependent_std": False, **meta}),
        SafetyCritic.from_arrays(critic, {"kind": "safety_critic", **ensemble, **meta}),
    )


def models_of(case: Case) -> dict[str, Full]:
    """Return the filter's model for each runtime of a case."""
    policy, critic = make_networks(case)
    found: dict[str, Full] = {}
    if "onnx" in case.runtimes:
        runnable = OnnxPolicy(policy.arrays(), policy.meta())
        judge = OnnxCritic(critic.arrays(), critic.meta())
        found["onnx"], found["onnx_full"] = (kind(runnable, judge, case.obs_dim) for kind in (Staged, Full))
    found["numpy"] = Full(policy, critic, case.obs_dim)
    found["torch"] = Full(policy, TorchCritic(critic, batched=True), case.obs_dim)
    return {name: found[name] for name in case.runtimes}
