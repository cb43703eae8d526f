"""Decision latency of the pure safety filter, on one core.

Timed from outside, all of ``ActionFilter.decide``: guards, shaping, critic, decision record. ``accept`` passes one
proposal; ``veto_1`` and ``veto_64`` find every candidate too risky, so that all of the veto path runs: the generator,
1 or 64 samples of the actor, one batched critic call, the least risk.

``wall`` holds all decisions. ``undisturbed`` leaves out those during which the system took the core away for another
process (involuntary context switches of this thread); their share is ``preempted``. On a quiet machine both agree.
"""

from __future__ import annotations

import itertools
import resource
import time
from dataclasses import dataclass
from typing import Any

import numpy as np

from benchmarks.common import finish, make_parser, percentiles, progress, target
from safe_rl_ros.inference import GaussianPolicy, SafetyCritic
from safe_rl_ros.safety.action_filter import ActionFilter, CommandLimits, FilterConfig, Observation, Proposal
from safe_rl_ros.types import BoolArray, Float32Array, FloatArray, Reason

SEED = 0
ACT_DIM = 2
PERIOD_NS = 100_000_000
WARM_UP = 200


@dataclass(frozen=True)
class Case:
    """One pair of networks: observation length, hidden layers, members of the critic."""

    name: str
    obs_dim: int
    hidden: list[int]
    members: int


CASES = (
    Case("obs29_2x64_single", 29, [64, 64], 1),
    Case("obs29_2x64_ensemble20", 29, [64, 64], 20),
    Case("obs60_2x256_single", 60, [256, 256], 1),
)
# Candidates, threshold, what every decision must be.
PATHS = {
    "accept": (1, 1.0, Reason.ACCEPTED),
    "veto_1": (1, 0.0, Reason.LEAST_RISK),
    "veto_64": (64, 0.0, Reason.LEAST_RISK),
}


@dataclass(frozen=True)
class Networks:
    """Random networks as the filter's model."""

    policy: GaussianPolicy
    critic: SafetyCritic
    obs_dim: int
    act_dim: int = ACT_DIM
    threshold: float = 0.5
    hash: str = "benchmark"

    def risk(self, obs: Float32Array, actions: Float32Array) -> FloatArray:
        """Return the risks (K,)."""
        return self.critic.risk(obs, actions)

    def sample(self, obs: Float32Array, n: int, rng: np.random.Generator) -> Float32Array:
        """Return samples (n, C)."""
        return self.policy.sample(obs, n, rng)


def make_networks(case: Case) -> Networks:
    """Return networks of the case's size with random weights."""
    rng = np.random.default_rng(SEED)

    def layers(sizes: list[int], lead: tuple[int, ...]) -> dict[str, Any]:
        arrays: dict[str, Any] = {}
        for i, (fan_in, fan_out) in enumerate(itertools.pairwise(sizes)):
            arrays[f"weight_{i}"] = rng.normal(0, fan_in**-0.5, (*lead, fan_in, fan_out))
            arrays[f"bias_{i}"] = np.zeros((*lead, fan_out))
        return arrays

    meta: dict[str, Any] = {"obs_dim": case.obs_dim, "act_dim": ACT_DIM, "hidden": case.hidden}
    actor = layers([case.obs_dim, *case.hidden, ACT_DIM], ()) | {"log_std": np.full(ACT_DIM, -1.0)}
    critic = layers([case.obs_dim + ACT_DIM, *case.hidden, 1], (case.members,))
    ensemble = {"members": case.members, "aggregate": "mean_plus_std", "std_factor": 1.0}
    return Networks(
        GaussianPolicy.from_arrays(actor, {"kind": "gaussian_policy", "state_dependent_std": False, **meta}),
        SafetyCritic.from_arrays(critic, {"kind": "safety_critic", **ensemble, **meta}),
        case.obs_dim,
    )


def preemptions() -> int:
    """Return how often the system took the core away from this thread so far."""
    return resource.getrusage(resource.RUSAGE_THREAD).ru_nivcsw


def summarise(latencies: FloatArray, preempted: BoolArray) -> dict[str, Any]:
    """Return percentiles in us of all latencies (N,), and of those that were not preempted."""
    return {
        "wall": percentiles(latencies, scale=1e6),
        "undisturbed": percentiles(latencies[~preempted], scale=1e6),
        "preempted": round(float(preempted.mean()), 5),
    }


def measure(
    networks: Networks, samples: int, threshold: float, expected: Reason, count: int
) -> tuple[FloatArray, BoolArray]:
    """Return ``count`` latencies in s and which were preempted; every decision must have the expected reason."""
    limits = CommandLimits.from_axes([-1, -1], [1, 1], [40, 40], [0, 0], PERIOD_NS / 1e9)
    config = FilterConfig(max_samples=samples, threshold=threshold)
    action_filter = ActionFilter(limits, config, lambda command: command, lambda action: action)
    action_filter.set_model(networks)
    action_filter.activate()
    rng = np.random.default_rng(SEED)
    commands = rng.uniform(-1, 1, (1000, ACT_DIM))
    observations = rng.standard_normal((1000, networks.obs_dim)).astype(np.float32)
    latencies, preempted = np.empty(count), np.zeros(count, dtype=np.bool_)
    for i in range(-WARM_UP, count):
        now = (i + WARM_UP + 1) * PERIOD_NS
        proposal, observation = Proposal(commands[i % 1000], now, now), Observation(observations[i % 1000], now, now)
        switches, begin = preemptions(), time.perf_counter()
        decision = action_filter.decide(now, proposal, observation)
        elapsed = time.perf_counter() - begin
        if decision.reason is not expected:
            raise RuntimeError(f"decision was {decision.reason.name}, expected {expected.name}: nothing was measured")
        if i >= 0:
            latencies[i], preempted[i] = elapsed, preemptions() > switches
    return latencies, preempted


def main() -> None:
    """Measure all cases."""
    options = make_parser(__doc__).parse_args()
    figures: dict[str, Any] = {"unit": "us"}
    for case in CASES:
        networks = make_networks(case)
        figures[case.name] = {}
        for path, (samples, threshold, expected) in PATHS.items():
            count = (2_000 if options.quick else 30_000) // (4 if path == "veto_64" else 1)
            figures[case.name][path] = summarise(*measure(networks, samples, threshold, expected, count))
            progress(f"{case.name} {path}: {figures[case.name][path]}")
    bounds = {
        ("obs29_2x64_single", "accept"): 100,
        ("obs60_2x256_single", "accept"): 100,
        ("obs60_2x256_single", "veto_64"): 500,
    }
    targets = [
        target(f"{case} {path} {kind} p99 (us)", figures[case][path][kind].get("p99", float("nan")), bound)
        for (case, path), bound in bounds.items()
        for kind in ("wall", "undisturbed")
    ]
    finish("filter_latency", figures, targets, [SEED], options)


if __name__ == "__main__":
    main()
