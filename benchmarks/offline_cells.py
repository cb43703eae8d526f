"""One cell of ``offline``: an algorithm learns from a data set with a seed, is tried, and its values are checked.

The figures of a finished cell are kept with the request that led to them; the same request is not run again.
"""

from __future__ import annotations

import json
import math
import time
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from safe_rl_ros.algorithms.offline import OFFLINE_ALGORITHMS, OfflineConfig, OfflineLearner
from safe_rl_ros.config import StrictModel, build
from safe_rl_ros.data.containers import open_dataset
from safe_rl_ros.data.episodes import DatasetInfo
from safe_rl_ros.envs.vector import make_vector_env
from safe_rl_ros.policies import Policy, propose
from safe_rl_ros.training.algorithm_settings import load_settings
from safe_rl_ros.training.evaluation import EVALUATION_EPOCH
from safe_rl_ros.training.logged_data import LoggedData, load_logged
from safe_rl_ros.training.rollout import episode_seed
from safe_rl_ros.training.run import limit_threads
from safe_rl_ros.types import Float32Array, FloatArray

NO_POLICY = "safety_critic"
"""Learns a critic and clones the behaviour: nothing to rank."""
VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    **{name: (name, {}) for name in OFFLINE_ALGORITHMS if name != NO_POLICY},
    "sac_n5": ("sac_offline", {"critics": 5}),
    "sac_n20": ("sac_offline", {"critics": 20}),
    "cql_rho": ("cql", {"variant": "rho"}),
    "cql_eq1": ("cql", {"variant": "eq1"}),
}
"""What is compared: name -> algorithm and what is changed."""
WARM_START_SHARE = 0.2
CRITICS_SHARE = 0.5
"""Of the steps, where an algorithm's settings have the critics learn first and rest then (FISOR's do)."""
TARGET_CHANGES = 400.0
"""Share of a critic mixed into its slow copy per step, times steps. A value is learned but for exp(-(1 - gamma) this),
2 % at gamma .99; with the common share of .005, 10,000 steps would leave 60 % of it, which would look conservative.
"""
VALUE_SAMPLES = 10
CHUNK_STEPS = 250
DISCOUNTED_REST = 1e-3
"""Discounted returns are summed until the discount has fallen to this, whatever the task's time limit."""


@dataclass(frozen=True)
class Cell:
    """What to run: the data set, what learns from it, the budget and the sizes."""

    dataset: str
    path: str
    sha256: str
    task: StrictModel
    variant: str
    seed: int
    steps: int
    hidden: int
    batch_size: int
    episodes: int

    @property
    def name(self) -> str:
        """Return a name that is unique within one benchmark."""
        return f"{self.dataset}_{self.variant}_seed{self.seed}"


class Rollouts(NamedTuple):
    """N episodes of a policy: first observations (N, O), sums of reward, cost, and discounted reward (N,), steps."""

    obs: Float32Array
    returns: FloatArray
    costs: FloatArray
    discounted: FloatArray
    lengths: FloatArray


def settings(cell: Cell, info: DatasetInfo) -> dict[str, Any]:
    """Return the algorithm's settings: those shipped for the task, with the sizes and scales that are common to all.

    Rewards of all are scaled as FISOR and IQL do by themselves, so that returns span the time limit.
    """
    algorithm, changes = VARIANTS[cell.variant]
    shipped = load_settings(algorithm).for_task(info.task)["algorithm"]
    common: dict[str, Any] = {
        "batch_size": cell.batch_size,
        "actor_batch_size": cell.batch_size,
        "actor_width": cell.hidden,
        "cost_limit": info.cost_limit,
        "warm_start_steps": round(WARM_START_SHARE * cell.steps),
        "target_tau": min(1.0, TARGET_CHANGES / cell.steps),
    }
    if info.return_bounds is not None and info.return_bounds[0] < info.return_bounds[1]:
        common["reward_scale"] = info.max_episode_steps / (info.return_bounds[1] - info.return_bounds[0])
    fields = OFFLINE_ALGORITHMS[algorithm][0].model_fields
    common |= {name: [cell.hidden, cell.hidden] for name in fields if name.endswith("hidden")}
    if shipped.get("critic_steps") is not None:
        common |= dict.fromkeys(("critic_steps", "actor_start"), round(CRITICS_SHARE * cell.steps))
    return {**shipped, **{name: value for name, value in common.items() if name in fields}, **changes}


def request_of(cell: Cell, config: OfflineConfig) -> dict[str, Any]:
    """Return what the figures of a cell depend on."""
    own = ("dataset", "sha256", "variant", "seed", "steps", "episodes")
    return {name: getattr(cell, name) for name in own} | {"config": config.model_dump(mode="json")}


def configure(cell: Cell) -> OfflineConfig:
    """Return the algorithm's configuration."""
    algorithm = OFFLINE_ALGORITHMS[VARIANTS[cell.variant][0]][0]
    return build(algorithm, settings(cell, open_dataset(cell.path).info), cell.name)


def stored(cell: Cell, folder: Path) -> dict[str, Any] | None:
    """Return the figures of a cell that was run with the same request, None if it was not."""
    file = folder / f"{cell.name}.json"
    if not file.is_file():
        return None
    kept = json.loads(file.read_text(encoding="utf-8"))
    same = kept["request"] == json.loads(json.dumps(request_of(cell, configure(cell))))
    return dict(kept["figures"]) if same else None


def run_cell(job: tuple[Cell, Path]) -> tuple[Cell, dict[str, Any]]:
    """Return a cell and its figures, which are computed and kept unless they were."""
    cell, folder = job
    known = stored(cell, folder)
    if known is not None:
        return cell, known
    limit_threads()
    config = configure(cell)
    figures = _figures(cell, config)
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"{cell.name}.json"
    partial = file.with_suffix(".part")
    partial.write_text(json.dumps({"request": request_of(cell, config), "figures": figures}), encoding="utf-8")
    partial.replace(file)
    return cell, figures


def _figures(cell: Cell, config: OfflineConfig) -> dict[str, Any]:
    env = make_vector_env(cell.task, cell.episodes)
    try:
        logged = _logged(cell.path, tuple(env.obs_names), env.spec_hash, int(env.single_action_space.shape[0]))
        info = logged.info
        assert info is not None  # a data set of episodes
        learner = OFFLINE_ALGORITHMS[VARIANTS[cell.variant][0]][1](config, info.obs_dim, info.act_dim, cell.seed)
        learner.attach(logged.batch, info.max_episode_steps)
        start = time.process_time()
        done = _fit(learner, cell.steps)
        spent = time.process_time() - start
        seed = episode_seed(cell.seed, EVALUATION_EPOCH, 0)
        tried = run_policy(env, learner.policy(), seed, deterministic=True)
    finally:
        env.close()
    value, cost = float(tried.returns.mean()), float(tried.costs.mean())
    return {
        "return": value,
        "cost": cost,
        **logged.normalised(value, cost),
        "length": float(tried.lengths.mean()),
        "steps": done,
        "diverged": done < cell.steps,
        "ms_per_step": 1e3 * spent / max(done, 1),
        **value_gap(cell, learner, seed, float(getattr(config, "gamma", 0.0))),
    }


@lru_cache(maxsize=1)
def _logged(path: str, obs_names: tuple[str, ...], spec_hash: str, act_dim: int) -> LoggedData:
    return load_logged(path, obs_names, act_dim, spec_hash)


def _fit(learner: OfflineLearner, steps: int) -> int:
    """Take the gradient steps; return how many were taken before learning diverged, all of them if it did not."""
    done = 0
    while done < steps:
        count = min(CHUNK_STEPS, steps - done)
        try:
            learner.fit(count)
        except FloatingPointError:  # the learner is as it was before these steps
            break
        done += count
    return done


def run_policy(
    env: Any, policy: Policy, seed: int, *, deterministic: bool, gamma: float = 1.0, horizon: int | None = None
) -> Rollouts:
    """Run one episode in every copy of ``env``, of at most ``horizon`` steps; ``gamma`` is of ``discounted``."""
    rng = np.random.default_rng(seed)
    obs, _ = env.reset(seed=seed)
    first, open_ = obs, np.ones(len(obs), np.bool_)
    sums = np.zeros((4, len(obs)))  # reward, cost, discounted reward, steps
    factor, steps = 1.0, 0
    while open_.any() and (horizon is None or steps < horizon):
        action = np.clip(propose(policy, obs, None if deterministic else rng).action, -1.0, 1.0)
        obs, reward, terminated, truncated, info = env.step(action)
        sums += open_ * np.stack([reward, info["cost"], factor * reward, np.ones(len(obs))])
        open_ &= ~(terminated | truncated)
        factor, steps = factor * gamma, steps + 1
    return Rollouts(first, *sums)


def value_gap(cell: Cell, learner: OfflineLearner, seed: int, gamma: float) -> dict[str, float]:
    """Return ``learned`` and ``true`` return, discounted by ``gamma``, of the policy's samples, and their ``gap``.

    Both from the same starts. Empty where the algorithm learns no values of its policy. No time limit ends an episode:
    the critics, which bootstrap there, do not know of one.
    """
    rng = np.random.default_rng(seed)
    try:
        learner.expected_return(np.zeros((1, learner.obs_dim), np.float32), rng)
    except TypeError:
        return {}
    horizon = math.ceil(math.log(DISCOUNTED_REST) / math.log(gamma))
    longer = cell.task.model_copy(update={"max_episode_steps": max(horizon, 1)})
    env = make_vector_env(longer, cell.episodes)
    try:
        tried = run_policy(env, learner.policy(), seed, deterministic=False, gamma=gamma, horizon=horizon)
    finally:
        env.close()
    learned = float(learner.expected_return(tried.obs, rng, VALUE_SAMPLES).mean())
    true = float(tried.discounted.mean())
    return {"learned": learned, "true": true, "gap": learned - true}
