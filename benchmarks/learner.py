"""Learner time of OffTRC at the paper's sizes, split by part, against a plain implementation and the authors' own code.

One update at batch 5000 (1000 new rows, 4000 replayed), 2x512 networks, 24 observations, 2 actions, one thread:
 - ours: :class:`safe_rl_ros.algorithms.OffTRC` with its defaults;
 - plain: the same update written in this file the way the authors' public PyTorch code is built: critics apart, 100
   epochs on the whole batch, Adam that is not fused, Hessian products by differentiating the KL twice on the whole
   batch, rebuilt for every product. It is a reference for cost; it is not trained;
 - authors: their code itself, from a checkout of rllab-snu/Off-Policy-TRC given by ``--authors``. It is run as it is,
   with its known fault: the cost-std critic's optimiser holds the parameters of the cost critic, so that the std is
   never learned and the cost critic takes two steps per epoch. That does not change how long an update takes.

All see the same kind of synthetic rows and take turns. Seconds are processor time of the one thread, which a busy
machine disturbs less than the clock (given too, as ``wall``); medians over updates.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.distributions import Normal, kl_divergence

from benchmarks.common import finish, make_parser, progress, target
from safe_rl_ros.algorithms import EpochStats, OffTRC, OffTRCConfig, trust_region_base
from safe_rl_ros.data.replay_buffer import ReplayBuffer
from safe_rl_ros.functional.risk import gaussian_cvar_factor
from safe_rl_ros.types import TransitionBatch

OBS_DIM, ACT_DIM, ENVS, NEW_ROWS, OLD_ROWS, BUFFER = 24, 2, 5, 1000, 4000, 50_000
PARTS = ("targets", "critics", "gradients_and_solve", "line_search")
Parts = dict[str, float]
clock = time.process_time


def make_rows(policy: Callable[[Any], tuple[Any, Any]], rng: np.random.Generator, rows: int) -> TransitionBatch:
    """Return ``rows`` rows: a slow random walk, reward and cost that depend on state and action, cut every 200 rows."""
    obs = rng.normal(size=(rows + 1, OBS_DIM))
    for t in range(1, rows + 1):
        obs[t] = 0.95 * obs[t - 1] + 0.3 * obs[t]
    obs = obs.astype(np.float32)
    mean, std = policy(obs[:-1])
    proposed = (mean + std * rng.standard_normal(mean.shape)).astype(np.float32)
    ends = np.arange(rows) % (NEW_ROWS // ENVS) == NEW_ROWS // ENVS - 1
    risk = obs[:-1, 1] + proposed[:, 1] - 3.0
    return TransitionBatch(
        obs=obs[:-1],
        action_proposed=proposed,
        action_executed=proposed.clip(-1.0, 1.0),
        intervened=np.zeros(rows, bool),
        behaviour_mean=mean,
        behaviour_std=std,
        reward=(0.1 * proposed[:, 0] * obs[:-1, 0]).astype(np.float32),
        cost=(1.0 / (1.0 + np.exp(-3.0 * risk))).astype(np.float32),
        margin=(-risk).astype(np.float32),
        terminated=np.zeros(rows, bool),
        truncated=ends,
        next_obs=obs[1:],
    )


class Ours:
    """OffTRC of this package; its parts are timed by wrapping them from outside."""

    def __init__(self, hidden: int, seed: int) -> None:
        """Build learner and buffer."""
        self.learner = OffTRC(OffTRCConfig(hidden=(hidden, hidden)), OBS_DIM, ACT_DIM, seed)
        self.buffer = ReplayBuffer(BUFFER, OBS_DIM, ACT_DIM)

    def policy(self, obs: Any) -> tuple[Any, Any]:
        """Return mean and std of the policy."""
        return self.learner.policy().distribution(obs)

    def add(self, rows: TransitionBatch) -> None:
        """Store rows."""
        self.buffer.add(rows)

    def update(self, rows: TransitionBatch) -> Parts:
        """Do one update; return seconds per part and in all."""
        spent: Parts = defaultdict(float)
        with (
            timed(self.learner, "_draw", spent, "targets"),
            timed(self.learner, "_targets", spent, "targets"),
            timed(self.learner, "_fit_critics", spent, "critics"),
            timed(self.learner, "_policy_step", spent, "policy"),
            timed(trust_region_base, "constrained_line_search", spent, "line_search"),
        ):
            start = clock()
            self.learner.update(rows, self.buffer, EpochStats(0, 0))
            total = clock() - start
        spent["gradients_and_solve"] = spent.pop("policy") - spent["line_search"]
        return {**{part: spent[part] for part in PARTS}, "total": total}


@contextmanager
def timed(owner: Any, name: str, spent: Parts, part: str) -> Iterator[None]:
    """Count the time inside ``owner.name`` as ``part`` while the context lasts."""
    function = getattr(owner, name)

    def wrapped(*args: Any, **kwargs: Any) -> Any:
        start = clock()
        try:
            return function(*args, **kwargs)
        finally:
            spent[part] += clock() - start

    had = name in vars(owner)
    setattr(owner, name, wrapped)
    try:
        yield
    finally:
        if had:
            setattr(owner, name, function)
        else:
            delattr(owner, name)


def mlp(hidden: int, outputs: int) -> nn.Sequential:
    """Return a plain two-layer ReLU network."""
    layers = [nn.Linear(OBS_DIM, hidden), nn.ReLU(), nn.Linear(hidden, hidden), nn.ReLU(), nn.Linear(hidden, outputs)]
    return nn.Sequential(*layers)


class Plain:
    """One OffTRC update as it is usually written; a reference for cost."""

    gamma, lam, max_kl, damping, epochs, iterations, limit = 0.99, 0.97, 0.001, 0.01, 100, 10, 2.5

    def __init__(self, hidden: int, seed: int) -> None:
        """Build networks and buffer; ``seed`` also draws the old segment."""
        torch.manual_seed(seed)
        self.actor = mlp(hidden, 2 * ACT_DIM)
        self.critics = [mlp(hidden, 1) for _ in range(3)]
        self.optimizers = [torch.optim.Adam(c.parameters(), lr=2e-4, fused=False) for c in self.critics]
        self.rng = np.random.default_rng(seed)
        self.rows: list[TransitionBatch] = []

    def dist(self, obs: Tensor) -> Normal:
        """Return the policy's distribution."""
        out = self.actor(obs)
        return Normal(torch.tanh(out[:, :ACT_DIM]), (out[:, ACT_DIM:] - 0.3).clamp(-4.0, 2.0).exp())

    def policy(self, obs: Any) -> tuple[Any, Any]:
        """Return mean and std of the policy."""
        with torch.no_grad():
            dist = self.dist(torch.from_numpy(obs))
        return dist.mean.numpy(), dist.stddev.numpy()

    def add(self, rows: TransitionBatch) -> None:
        """Store rows."""
        self.rows = [*self.rows, rows][-BUFFER // NEW_ROWS :]

    def values(self, obs: Tensor) -> tuple[Any, ...]:
        """Return reward value, cost value and cost std as numpy."""
        with torch.no_grad():
            outs = [critic(obs)[:, 0] for critic in self.critics]
        return outs[0].numpy(), outs[1].numpy(), nn.functional.softplus(outs[2]).numpy()

    def trace(self, delta: Any, decay: Any) -> Any:
        """Return the backward recursion, row by row."""
        out, last = np.zeros_like(delta), 0.0
        for t in reversed(range(len(delta))):
            last = delta[t] + decay[t] * last
            out[t] = last
        return out

    def targets(self, rows: TransitionBatch) -> tuple[dict[str, Any], Tensor]:
        """Return advantages and targets of one segment, and the truncated ratios."""
        obs, next_obs = torch.from_numpy(rows.obs), torch.from_numpy(rows.next_obs)
        with torch.no_grad():
            behaviour = Normal(torch.from_numpy(rows.behaviour_mean), torch.from_numpy(rows.behaviour_std))
            action = torch.from_numpy(rows.action_proposed)
            log_ratio = self.dist(obs).log_prob(action).sum(1) - behaviour.log_prob(action).sum(1)
            rho = log_ratio.exp().clamp(0.0, 1.0)
        (v, c, s), (nv, nc, ns) = self.values(obs), self.values(next_obs)
        g, on = self.gamma, 1.0 - rows.truncated
        decay = g * self.lam * on * np.append(rho.numpy()[1:], 0.0)
        found = {"a_r": self.trace(rows.reward + g * nv - v, decay), "a_c": self.trace(rows.cost + g * nc - c, decay)}
        found["a_s"] = self.trace((rows.cost + g * nc) ** 2 - c**2 + g**2 * ns**2 - s**2, g * decay)
        found |= {"t_r": v + found["a_r"], "t_c": c + found["a_c"]}
        found["t_s"] = np.sqrt(np.clip(s**2 + found["a_s"], 0.0, None))
        return found, rho

    def update(self, rows: TransitionBatch) -> Parts:
        """Do one update; return seconds per part and in all."""
        marks = [clock()]
        chosen = self.rng.permutation(len(self.rows) - 1)[: OLD_ROWS // NEW_ROWS]
        segments = [rows, *(self.rows[i] for i in chosen)]
        found = [self.targets(segment) for segment in segments]
        data = {
            name: torch.tensor(np.concatenate([f[name] for f, _ in found]), dtype=torch.float32) for name in found[0][0]
        }
        obs = torch.from_numpy(np.concatenate([s.obs for s in segments]))
        marks.append(clock())
        for _ in range(self.epochs):
            for i, name in enumerate(("t_r", "t_c", "t_s")):
                out = self.critics[i](obs)[:, 0]
                out = nn.functional.softplus(out) if name == "t_s" else out
                loss = 0.5 * (out - data[name]).square().mean()
                self.optimizers[i].zero_grad()
                loss.backward()  # type: ignore[no-untyped-call]
                self.optimizers[i].step()
        marks.append(clock())
        action = torch.from_numpy(np.concatenate([s.action_proposed for s in segments]))
        weight = torch.cat([rho for _, rho in found])
        self.policy_step(obs, action, weight, data, rows, marks)
        spent = dict(zip(PARTS, np.diff(marks).tolist(), strict=True))
        return {**spent, "total": marks[-1] - marks[0]}

    def policy_step(
        self,
        obs: Tensor,
        action: Tensor,
        weight: Tensor,
        data: dict[str, Any],
        rows: TransitionBatch,
        marks: list[float],
    ) -> None:
        """Take the constrained step; the dual is left out, its cost is nothing beside the two solves."""
        parameters = list(self.actor.parameters())
        old = Normal(*(t.detach() for t in (self.dist(obs).mean, self.dist(obs).stddev)))
        old_log_prob = old.log_prob(action).sum(1)
        cost = float(rows.cost.mean()) / (1.0 - self.gamma)
        variance = float(data["t_s"][: len(rows)].square().mean())

        def surrogates(dist: Normal) -> tuple[Tensor, Tensor]:
            ratio = (dist.log_prob(action).sum(1) - old_log_prob).exp()
            a_r, a_c, a_s = (weight * data[name] for name in ("a_r", "a_c", "a_s"))
            gain = (ratio * (a_r - a_r.mean()) / (a_r.std() + 1e-8)).mean()
            mean = cost + (ratio * (a_c - a_c.mean())).mean() / (1.0 - self.gamma)
            spread = variance + (ratio * (a_s - a_s.mean())).mean() / (1.0 - self.gamma**2)
            return gain, mean + gaussian_cvar_factor(0.125) * spread.clamp(min=1e-8).sqrt()

        dist = self.dist(obs)
        gain, cvar = surrogates(dist)
        kl = kl_divergence(old, dist).sum(1).mean()

        def flat(scalar: Tensor, **kwargs: bool) -> Tensor:
            return torch.cat([g.reshape(-1) for g in torch.autograd.grad(scalar, parameters, **kwargs)])

        def product(v: Tensor) -> Tensor:
            return flat(flat(kl, create_graph=True) @ v, retain_graph=True) + self.damping * v

        def solve(b: Tensor) -> Tensor:
            x, r, p = torch.zeros_like(b), b.clone(), b.clone()
            for _ in range(self.iterations):
                image = product(p)
                alpha = (r @ r) / (p @ image)
                x, new = x + alpha * p, r - alpha * image
                p, r = new + (new @ new) / (r @ r) * p, new
            return x

        g, b = flat(gain, retain_graph=True), flat(-cvar, retain_graph=True)
        natural_g, natural_b = solve(g), solve(b)
        q, s = float(natural_g @ product(natural_g)), float(natural_b @ product(natural_b))
        recover = float(cvar.detach()) > self.limit
        step = natural_b * (2 * self.max_kl / s) ** 0.5 if recover else natural_g * (2 * self.max_kl / q) ** 0.5
        marks.append(clock())
        start = nn.utils.parameters_to_vector(parameters).detach()
        with torch.no_grad():
            for tries in range(15):
                nn.utils.vector_to_parameters(start + 0.8**tries * step, parameters)
                new = self.dist(obs)
                new_gain, new_cvar = surrogates(new)
                fits = bool(new_cvar <= cvar) if recover else bool(new_gain >= gain)
                if fits and bool(kl_divergence(old, new).sum(1).mean() <= self.max_kl):
                    break
        marks.append(clock())


class Authors:
    """The authors' PyTorch agent from a checkout, as it is."""

    def __init__(self, checkout: Path, hidden: int, seed: int, directory: str, **changes: Any) -> None:
        """Import and build it; its files go to ``directory``. ``changes`` are to its settings, by its names."""
        sys.path[:0] = [str(checkout), str(checkout / "torch")]
        torch.manual_seed(seed)
        np.random.seed(seed)  # noqa: NPY002 - their code draws from it
        from agent import Agent  # type: ignore[import-not-found]

        sizes = {"obs_dim": OBS_DIM, "action_dim": ACT_DIM, "hidden_dim": hidden, "n_envs": ENVS, "n_steps": NEW_ROWS}
        region = {"damping_coeff": 0.01, "num_conjugate": 10, "line_decay": 0.8, "max_kl": 0.001}
        rest = {"device": torch.device("cpu"), "name": "offtrc", "save_dir": directory, "discount_factor": 0.99}
        rest |= {"action_bound_min": -np.ones(ACT_DIM), "action_bound_max": np.ones(ACT_DIM), "n_past_steps": 0}
        rest |= {"n_update_steps": NEW_ROWS + OLD_ROWS, "lr": 3e-4, "n_epochs": 100, "max_grad_norm": 1.0}
        rest |= {"gae_coeff": 0.97, "len_replay_buffer": BUFFER, "cost_d": 0.025, "cost_alpha": 0.125}
        nets = {"activation": "ReLU", "log_std_init": -1.0}
        self.agent = Agent(argparse.Namespace(**(sizes | region | rest | nets | changes)))

    def policy(self, obs: Any) -> tuple[Any, Any]:
        """Return mean and std of their policy, on [-1, 1]."""
        with torch.no_grad():
            mean, _, std = self.agent.policy(torch.from_numpy(obs))
        return 2.0 * mean.numpy() - 1.0, 2.0 * std.numpy()

    def add(self, rows: TransitionBatch) -> None:
        """Store rows; theirs hold the behaviour on [0, 1]."""
        mean, std = 0.5 * rows.behaviour_mean + 0.5, 0.5 * rows.behaviour_std
        per_env = NEW_ROWS // ENVS
        for t in range(len(rows)):
            parts = (rows.obs[t], rows.action_proposed[t], mean[t], std[t], float(rows.reward[t]), float(rows.cost[t]))
            ends = (float(rows.truncated[t]), float(rows.terminated[t]))
            self.agent.addTransition(t // per_env % ENVS, *parts, *ends, rows.next_obs[t])

    def update(self, rows: TransitionBatch) -> Parts:
        """Do one update; only the whole is timed."""
        start = clock()
        self.agent.train()
        return {"total": clock() - start}


def measure(learners: dict[str, Any], updates: dict[str, int], seed: int) -> dict[str, dict[str, float]]:
    """Return medians over updates of the seconds of each part, per learner; the learners take turns."""
    generators = {name: np.random.default_rng(seed) for name in learners}
    for name, learner in learners.items():
        for _ in range((NEW_ROWS + OLD_ROWS) // NEW_ROWS + 3):
            learner.add(make_rows(learner.policy, generators[name], NEW_ROWS))
    found: dict[str, list[Parts]] = {name: [] for name in learners}
    for turn in range(max(updates.values())):
        for name, learner in learners.items():
            if turn >= updates[name]:
                continue
            rows = make_rows(learner.policy, generators[name], NEW_ROWS)
            learner.add(rows)
            start = time.perf_counter()
            spent = learner.update(rows)
            spent["wall"] = time.perf_counter() - start
            progress(f"{name} update {turn}: {spent['total']:.2f} s, {spent['wall']:.2f} s by the clock")
            found[name].append(spent)
    return {name: {k: float(np.median([s[k] for s in every])) for k in every[0]} for name, every in found.items()}


def main() -> None:
    """Measure, compare, print."""
    parser = make_parser(__doc__)
    parser.add_argument("--authors", type=Path, help="checkout of rllab-snu/Off-Policy-TRC to run beside")
    parser.add_argument("--updates", type=int, default=7, help="updates of ours; the slow ones do a third, at least 2")
    options = parser.parse_args()
    torch.set_num_threads(1)
    hidden, updates = (32, 2) if options.quick else (512, options.updates)
    with tempfile.TemporaryDirectory() as directory:
        learners: dict[str, Any] = {"ours": Ours(hidden, 0), "plain": Plain(hidden, 0)}
        if options.authors is not None:
            learners["authors"] = Authors(options.authors, hidden, 0, directory)
        counts = {name: updates if name == "ours" else max(2, updates // 3) for name in learners}
        seconds = measure(learners, counts, seed=0)
    figures: dict[str, Any] = {"seconds_per_update": seconds, "updates": counts, "hidden": [hidden, hidden]}
    figures["learner_ms_per_env_step"] = {name: 1e3 * spent["total"] / NEW_ROWS for name, spent in seconds.items()}
    figures["threads"] = torch.get_num_threads()
    figures["authors_note"] = "as published: the cost-std critic's optimiser holds the cost critic's parameters"
    targets = [
        target(
            f"{name} / ours, learner time per env step", seconds[name]["total"] / seconds["ours"]["total"], 5.0, ">="
        )
        for name in learners
        if name != "ours"
    ]
    finish("learner", figures, targets, [0], options)


if __name__ == "__main__":
    main()
