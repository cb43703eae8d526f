"""Latency of the pure safety filter on one core: ONNX Runtime on one thread against torch eager, full against staged.

``critic`` times one call of the critic for 1, 16, 64 and 256 candidates. ``onnx`` is what an exported bundle runs,
``numpy`` the other form; ``torch_batched`` is this package's own torch ensemble (batched products), ``torch_modules``
one ``nn.Sequential`` for each member, both eager, in inference mode, from numpy and back. All get the same weights and
inputs.

``decision`` times ``ActionFilter.decide`` from outside: guards, shaping, critic, decision record. ``accept`` passes one
proposal; ``veto_K`` vetoes it and judges K samples of the actor. In ``_some`` the actor's mean would pass, so that most
decisions find a sample that does (``resampled`` is their share); in ``_none`` none does, and the least risk is looked
for. ``onnx`` may choose in stages, ``onnx_full`` never does.

``staged`` compares the choice among 64 candidates of an ensemble by all members (``full``) with screening in stages,
for each aggregate: how long, how many candidates all members judged, and in how many cases both chose the same.

``wall`` holds all calls. ``undisturbed`` leaves out those during which the system took the core away for another
process (involuntary context switches of this thread); their share is ``preempted``. On a quiet machine both agree.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import resource
import time
import warnings
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch

from benchmarks.common import finish, make_parser, percentiles, progress, target
from benchmarks.filter_networks import ACT_DIM, SEED, Case, Full, TorchCritic, make_networks, models_of
from safe_rl_ros.bundle.onnx_networks import OnnxCritic
from safe_rl_ros.inference import choose
from safe_rl_ros.safety.action_filter import ActionFilter, CommandLimits, FilterConfig, Observation, Proposal
from safe_rl_ros.types import Float32Array, FloatArray, Reason, Selection

PERIOD_NS = 100_000_000
WARM_UP = 100
INPUTS = 500
CANDIDATES = (1, 16, 64, 256)
ROUNDS = 10
"""The rivals take turns this often, so that what else the machine does hits all of them."""
SUBSTITUTES = (Reason.RESAMPLED, Reason.LEAST_RISK)


CASES = (
    Case("obs60_2x256_single", 60, [256, 256], 1, ("onnx", "numpy", "torch"), (16, 64, 256)),
    Case("obs60_2x256_ensemble5", 60, [256, 256], 5, ("onnx", "onnx_full", "numpy", "torch"), (16, 64, 256)),
    Case("obs29_2x64_single", 29, [64, 64], 1, ("numpy",), (64,)),
    Case("obs29_2x64_ensemble20", 29, [64, 64], 20, ("numpy",), (64,)),
)


class Watch:
    """Times calls, and notes which were preempted."""

    def __init__(self) -> None:
        """Start empty."""
        self.latencies: list[float] = []
        self.preempted: list[bool] = []

    def time(self, call: Callable[[], Any]) -> Any:
        """Call and return what it returns."""
        switches, begin = preemptions(), time.perf_counter()
        answer = call()
        elapsed = time.perf_counter() - begin
        self.latencies.append(elapsed)
        self.preempted.append(preemptions() > switches)
        return answer

    def summary(self) -> dict[str, Any]:
        """Return percentiles in us of all latencies, and of those that were not preempted."""
        latencies, preempted = np.array(self.latencies), np.array(self.preempted, dtype=np.bool_)
        return {
            "wall": percentiles(latencies, scale=1e6),
            "undisturbed": percentiles(latencies[~preempted], scale=1e6),
            "preempted": round(float(preempted.mean()), 5),
        }


def preemptions() -> int:
    """Return how often the system took the core away from this thread so far."""
    return resource.getrusage(resource.RUSAGE_THREAD).ru_nivcsw


def take_turns(rivals: Mapping[str, Callable[[int], Any]], count: int) -> dict[str, dict[str, Any]]:
    """Time ``count`` calls of each rival, in turns; a rival gets the number of the call."""
    watches = {name: Watch() for name in rivals}
    for part in range(ROUNDS):
        for name, call in rivals.items():
            numbers = range(part * count // ROUNDS, (part + 1) * count // ROUNDS)
            for number in range(WARM_UP if part == 0 else 5):
                call(number)
            for number in numbers:
                watches[name].time(lambda call=call, number=number: call(number))  # type: ignore[misc]
    return {name: watch.summary() for name, watch in watches.items()}


def time_critic(case: Case, count: int) -> dict[str, Any]:
    """Return the latencies of one critic call, by number of candidates and runtime."""
    _, critic = make_networks(case)
    rivals = {
        "onnx": OnnxCritic(critic.arrays(), critic.meta()),
        "numpy": critic,
        "torch_batched": TorchCritic(critic, batched=True),
        "torch_modules": TorchCritic(critic, batched=False),
    }
    rng = np.random.default_rng(SEED)
    obs = rng.standard_normal((INPUTS, case.obs_dim)).astype(np.float32)
    figures: dict[str, Any] = {}
    for candidates in CANDIDATES:
        actions = rng.uniform(-1, 1, (INPUTS, candidates, ACT_DIM)).astype(np.float32)
        answers = {name: rival.risk(obs[0], actions[0]) for name, rival in rivals.items()}
        spread = max(float(np.abs(answer - answers["numpy"]).max()) for answer in answers.values())
        if spread > 1e-5:
            raise RuntimeError(f"the rivals' answers differ by {spread}: they are not the same networks")

        def call(rival: Any, actions: Float32Array = actions) -> Callable[[int], Any]:
            return lambda number: rival.risk(obs[number % INPUTS], actions[number % INPUTS])

        calls = {name: call(rival) for name, rival in rivals.items()}
        figures[str(candidates)] = take_turns(calls, count // (1 + candidates // 8))
        progress(f"{case.name} critic, {candidates} candidates: {medians(figures[str(candidates)])}")
    return figures


class Decisions:
    """A filter that is asked one decision after the other; each must have an expected reason."""

    def __init__(self, model: Full, config: FilterConfig, commands: FloatArray, obs: Float32Array) -> None:
        """Build and arm the filter; ``commands`` (N, C) and ``obs`` (N, O) are proposed in turn."""
        limits = CommandLimits.from_axes([-1, -1], [1, 1], [40, 40], [0, 0], PERIOD_NS / 1e9)
        self.filter = ActionFilter(limits, config, lambda command: command, lambda action: action)
        self.filter.set_model(model)
        self.filter.activate()
        self.commands, self.obs, self.ticks = commands, obs, 0
        self.reasons: dict[str, int] = {}

    def decide(self, number: int) -> None:
        """Take one decision."""
        self.ticks += 1
        now, i = self.ticks * PERIOD_NS, number % len(self.obs)
        decision = self.filter.decide(now, Proposal(self.commands[i], now, now), Observation(self.obs[i], now, now))
        self.reasons[decision.reason.name] = self.reasons.get(decision.reason.name, 0) + 1

    def check(self, expected: tuple[Reason, ...]) -> None:
        """Raise unless every decision had one of these reasons."""
        if not set(self.reasons) <= {reason.name for reason in expected}:
            raise RuntimeError(
                f"decisions were {self.reasons}, expected {[r.name for r in expected]}: nothing measured"
            )


def time_decisions(case: Case, count: int) -> dict[str, Any]:
    """Return the latencies of whole decisions, by path and runtime."""
    models = models_of(case)
    rng = np.random.default_rng(SEED)
    commands = rng.uniform(-1, 1, (INPUTS, ACT_DIM))
    obs = rng.standard_normal((INPUTS, case.obs_dim)).astype(np.float32)
    judge = models["numpy"]
    risks = np.array([judge.risk(o, c[None].astype(np.float32))[0] for o, c in zip(obs, commands, strict=True)])
    middle = float(np.median(risks))
    means = np.array([judge.risk(o, judge.mean(o)[None])[0] for o in obs])
    risky = (risks > middle + 1e-4) & (means < middle)
    paths: dict[str, tuple[int, float, tuple[Reason, ...], Any]] = {"accept": (1, 1.0, (Reason.ACCEPTED,), slice(None))}
    for vetoed in case.vetoes:
        paths[f"veto_{vetoed}_some"] = (vetoed, middle, SUBSTITUTES, risky)
        paths[f"veto_{vetoed}_none"] = (vetoed, 0.0, (Reason.LEAST_RISK,), slice(None))
    figures: dict[str, Any] = {}
    for path, (samples, threshold, expected, which) in paths.items():
        config = FilterConfig(max_samples=samples, threshold=threshold)
        filters = {name: Decisions(model, config, commands[which], obs[which]) for name, model in models.items()}
        calls = {name: each.decide for name, each in filters.items()}
        figures[path] = take_turns(calls, count // (1 + samples // 8))
        for each in filters.values():
            each.check(expected)
        reasons = filters[case.runtimes[0]].reasons
        figures[path]["resampled"] = round(reasons.get("RESAMPLED", 0) / sum(reasons.values()), 3)
        progress(f"{case.name} {path}: {medians(figures[path])}")
    return figures


def time_staged(case: Case, count: int, candidates: int = 64) -> dict[str, Any]:
    """Return full against staged choices: latencies, judged candidates, and whether they are the same."""
    rng = np.random.default_rng(SEED)
    obs = rng.standard_normal((INPUTS, case.obs_dim)).astype(np.float32)
    actions = np.clip(rng.normal(0, 0.7, (INPUTS, candidates, ACT_DIM)), -1, 1).astype(np.float32)
    figures: dict[str, Any] = {}
    for aggregate in ("mean", "mean_plus_std", "max"):
        _, critic = make_networks(case, aggregate)
        judge = OnnxCritic(critic.arrays(), critic.meta())
        risks = np.array([judge.risk(o, a) for o, a in zip(obs, actions, strict=True)])
        thresholds = {f"{share:.0%}_pass": np.quantile(risks, share, axis=1) for share in (0.5, 0.1)}
        for scenario, threshold in {**thresholds, "none_passes": np.full(INPUTS, -1.0)}.items():

            def full(i: int, judge: OnnxCritic = judge, threshold: FloatArray = threshold) -> Selection:
                i %= INPUTS
                return choose(judge.risk(obs[i], actions[i]), float(threshold[i]))

            def staged(i: int, judge: OnnxCritic = judge, threshold: FloatArray = threshold) -> Selection:
                i %= INPUTS
                return judge.select(obs[i], actions[i], float(threshold[i]))

            pairs = [(full(i), staged(i)) for i in range(INPUTS)]
            equal = sum((a.index, a.risk, a.acceptable) == (b.index, b.risk, b.acceptable) for a, b in pairs)
            name = f"{aggregate}_{scenario}"
            figures[name] = take_turns({"full": full, "staged": staged}, count)
            figures[name]["judged_by_all"] = percentiles([b.evaluated for _, b in pairs], (50, 90))
            figures[name]["equal_choices"] = f"{equal} of {INPUTS}"
            figures[name]["all_equal"] = equal == INPUTS
            progress(f"{case.name} {name}: {medians(figures[name])}, equal {equal} of {INPUTS}")
    return figures


def medians(figures: Mapping[str, Any]) -> dict[str, float]:
    """Return the medians in us by name."""
    return {name: each["wall"]["p50"] for name, each in figures.items() if isinstance(each, dict) and "wall" in each}


def make_targets(figures: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return what was asked for, and whether it is met."""
    nan = {"p50": float("nan"), "p99": float("nan")}
    targets = []
    for case, accept_bound in (("obs60_2x256_single", 100), ("obs60_2x256_ensemble5", 250)):
        paths = figures["decision"][case]
        bounds = {("accept", "onnx"): accept_bound}
        if case.endswith("single"):
            bounds |= {("veto_64_some", "onnx"): 500, ("veto_64_none", "onnx"): 500}
        for (path, runtime), bound in bounds.items():
            for kind in ("wall", "undisturbed"):
                value = {**nan, **paths[path][runtime][kind]}["p99"]
                targets.append(target(f"{case} {path} {runtime} {kind} p99 (us)", value, bound))
        alone = medians(figures["critic"][case]["1"])
        for rival in ("torch_batched", "torch_modules"):
            ratio = round(alone[rival] / alone["onnx"], 2)
            targets.append(target(f"{case} critic, 1 candidate: median of {rival} / onnx", ratio, 3, ">="))
        accept = medians(paths["accept"])
        ratio = round(accept["torch"] / accept["onnx"], 2)
        targets.append(target(f"{case} whole accepting decision: median of torch / onnx", ratio, 3, ">="))
    ensemble = figures["decision"]["obs60_2x256_ensemble5"]
    for path in ("veto_64_some", "veto_64_none"):
        for runtime in ("onnx", "onnx_full"):
            value = medians(ensemble[path])[runtime]
            targets.append(target(f"obs60_2x256_ensemble5 {path} {runtime} wall p50 (us)", value, 1000, "<"))
    for name, each in figures["staged"].items():
        targets.append(target(f"staged {name}: choices equal to full", float(each["all_equal"]), 1, "=="))
    return targets


def main() -> None:
    """Measure all cases."""
    options = make_parser(__doc__).parse_args()
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore", "The given NumPy array is not writable")  # it is only read
    count = 500 if options.quick else 20_000
    figures: dict[str, Any] = {"unit": "us", "critic": {}, "decision": {}}
    for case in CASES:
        if "onnx" in case.runtimes:
            figures["critic"][case.name] = time_critic(case, count)
        figures["decision"][case.name] = time_decisions(case, count)
    figures["staged"] = time_staged(CASES[1], count // 10)
    finish("filter_latency", figures, make_targets(figures), [SEED], options)


if __name__ == "__main__":
    main()
