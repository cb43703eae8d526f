"""Train one OmniSafe algorithm on one of our tasks; started by ``peers`` in OmniSafe's own virtual environment.

The one argument is a JSON object: ``algorithm``, ``task`` (a registered id), ``seed``, ``steps``, ``epoch_steps`` (None
leaves OmniSafe's), ``num_envs``, ``cost_limit``, ``folder`` (its logs) and ``result`` (the file for the figures).
Neither OmniSafe nor our package is changed: our environment is given to OmniSafe's registry.
"""

from __future__ import annotations

import json
import sys
import time
from importlib import metadata
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))

import peer_shim

SACLAG_EPOCH_STEPS, SACLAG_WARMUP_EPOCHS = 2000, 100
"""OmniSafe's defaults: the multiplier of the constraint stands still for the first 200,000 steps."""


class EpisodeLog:
    """Return, cost and violations of every finished episode, over N copies."""

    def __init__(self, num_envs: int) -> None:
        """Begin with nothing."""
        self.steps = 0
        self.violations = 0
        self.episodes: list[dict[str, float]] = []
        self._sums = [[0.0, 0.0, 0, 0] for _ in range(num_envs)]

    def add(self, reward: Any, cost: Any, violation: Any, ended: Any) -> None:
        """Count one step of every copy; all arguments are sequences of N."""
        self.steps += len(self._sums)
        for sums, r, c, v, end in zip(self._sums, reward, cost, violation, ended, strict=True):
            sums[0] += float(r)
            sums[1] += float(c)
            sums[2] += int(v)
            sums[3] += 1
            self.violations += int(v)
            if end:
                keys = ("return", "cost", "violations", "length")
                self.episodes.append({"step": self.steps, **dict(zip(keys, sums, strict=True))})
                sums[:] = [0.0, 0.0, 0, 0]


def register_tasks(job: dict[str, Any]) -> list[EpisodeLog]:
    """Add our task to OmniSafe's registry; return where the logs of the environments that it makes will be.

    OmniSafe's off-policy algorithms make a second environment for evaluation, after the one they train on.
    """
    import numpy as np
    import torch
    from omnisafe.envs.core import CMDP, env_register

    import safe_rl_ros  # noqa: F401  # registers the ids
    from safe_rl_ros.envs import safety_gymnasium_api as api

    logs: list[EpisodeLog] = []

    class SafeRlRosEnv(CMDP):  # type: ignore[misc]  # OmniSafe is not installed where types are checked
        _support_envs = [job["task"]]  # noqa: RUF012  # OmniSafe's interface
        need_time_limit_wrapper = False

        def __init__(self, env_id: str, num_envs: int = 1, device: Any = "cpu", **kwargs: Any) -> None:
            super().__init__(env_id)
            self.many = num_envs > 1
            self.need_auto_reset_wrapper = not self.many
            self._env: Any = api.make_vec(env_id, num_envs) if self.many else api.make(env_id)
            self._num_envs = num_envs
            self._device = device
            self._observation_space = self._env.single_observation_space if self.many else self._env.observation_space
            self._action_space = self._env.single_action_space if self.many else self._env.action_space
            self._metadata = self._env.metadata
            self._log = EpisodeLog(num_envs)
            logs.append(self._log)

        def _tensor(self, value: Any) -> Any:
            return torch.as_tensor(value, dtype=torch.float32, device=self._device)

        def step(self, action: Any) -> Any:
            obs, reward, cost, terminated, truncated, info = self._env.step(action.detach().cpu().numpy())
            if self.many:
                self._log.add(reward, cost, info["violation"], np.logical_or(terminated, truncated))
                if "final_observation" in info:
                    rows = [np.zeros(obs.shape[-1]) if row is None else row for row in info["final_observation"]]
                    info["final_observation"] = self._tensor(np.stack(rows))
            else:
                self._log.add([reward], [cost], [info["violation"]], [terminated or truncated])
            return *(self._tensor(value) for value in (obs, reward, cost, terminated, truncated)), info

        def reset(self, seed: int | None = None, options: Any = None) -> Any:
            obs, info = self._env.reset(seed=seed, options=options)
            return self._tensor(obs), info

        def set_seed(self, seed: int) -> None:
            self.reset(seed=seed)

        def render(self) -> Any:
            return self._env.render()

        def close(self) -> None:
            self._env.close()

        @property
        def max_episode_steps(self) -> int:
            return 1000

    env_register(SafeRlRosEnv)
    return logs


def settings(job: dict[str, Any]) -> dict[str, Any]:
    """Return OmniSafe's configuration: its defaults but for steps, seed, limit, warm-up, one thread and no files."""
    algorithm, limit = job["algorithm"], job["cost_limit"]
    algo: dict[str, Any] = {} if job["epoch_steps"] is None else {"steps_per_epoch": job["epoch_steps"]}
    config: dict[str, Any] = {
        "seed": job["seed"],
        "train_cfgs": {
            "device": "cpu",
            "total_steps": job["steps"],
            "vector_env_nums": job["num_envs"],
            "torch_threads": 1,
        },
        "algo_cfgs": algo,
        "logger_cfgs": {
            "use_wandb": False,
            "use_tensorboard": False,
            "save_model_freq": 10**9,
            "log_dir": job["folder"],
        },
    }
    if algorithm == "SACLag":
        epochs = job["steps"] // SACLAG_EPOCH_STEPS
        algo["warmup_epochs"] = min(SACLAG_WARMUP_EPOCHS, epochs // 10)
    if algorithm.endswith("Lag"):
        config["lagrange_cfgs"] = {"cost_limit": limit}
    else:
        algo["cost_limit"] = limit
    return config


def main() -> None:
    """Train and write the figures."""
    job = json.loads(sys.argv[1])
    peer_shim.install()
    import omnisafe
    import torch

    torch.set_num_threads(1)
    logs = register_tasks(job)
    agent = omnisafe.Agent(job["algorithm"], job["task"], custom_cfgs=settings(job))
    start = time.perf_counter()
    agent.learn()
    wall = time.perf_counter() - start
    log = logs[0]  # the one that it trains on
    figures = {
        "steps": log.steps,
        "wall_s": wall,
        "violations": log.violations,
        "episodes": log.episodes,
        "versions": {name: metadata.version(name) for name in ("omnisafe", "torch", "gymnasium", "mujoco", "numpy")},
    }
    Path(job["result"]).write_text(json.dumps(figures), encoding="utf-8")


if __name__ == "__main__":
    main()
