"""The data sets of ``offline``: short online runs make the policies, and ``config/collect/offline_*.yaml`` mixes them.

Everything is kept below one folder and made once: ``tasks/`` and ``policies/`` (runs of the trainer, which go on where
they were interrupted) and ``data/``. A source whose label is ``medium`` or ``safe`` acts by the run of that name,
whatever path the YAML has. Constrained policies are not always safe after short runs: of the source ``safe``, episodes
whose cost is beyond the limit are left out. ``data/NAME_all`` has them, too.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from safe_rl_ros.config import dump_yaml
from safe_rl_ros.data.containers import open_dataset, open_sink
from safe_rl_ros.training.collection import collect_dataset
from safe_rl_ros.training.collection_config import CollectionConfig, load_collection
from safe_rl_ros.training.run import limit_threads, prepare_directory, train
from safe_rl_ros.training.session_config import SessionConfig, compose_session
from safe_rl_ros.types import ConfigError

DATASETS = ("point_robot", "point_goal", "half_cheetah")
SEED = 0
"""Of the runs that make the policies and of the collections."""
SAFE = "safe"


@dataclass(frozen=True)
class Recipe:
    """One online run: algorithm, environment steps, changes to its settings."""

    algorithm: str
    steps: int
    changes: tuple[str, ...] = ()


SMALL = ("algorithm.hidden=[64, 64]", "training.num_envs=16")
LIMITED = (*SMALL, "algorithm.cost_limit=0.005")
FEW_GRADIENT_STEPS = (
    "algorithm.hidden=[128, 128]",
    "algorithm.gradient_steps_per_row=0.3",
    "algorithm.learning_starts=5000",
    "training.num_envs=10",
    "training.steps_per_epoch=1000",
)
RECIPES: dict[str, dict[str, Recipe]] = {
    "point_robot": {"medium": Recipe("trpo", 60_000, SMALL), "safe": Recipe("cpo", 120_000, LIMITED)},
    "point_goal": {"medium": Recipe("trpo", 160_000, SMALL), "safe": Recipe("cpo", 240_000, LIMITED)},
    "half_cheetah": {
        "medium": Recipe("sac", 80_000, FEW_GRADIENT_STEPS),
        "safe": Recipe("cpo", 800_000, LIMITED),
    },
}
"""What makes the policies; medium knows no cost, safe has a limit of .005 per step."""
QUICK_STEPS, QUICK_EPISODE_STEPS, QUICK_EPISODES = 4000, 60, 4


@dataclass(frozen=True)
class Plan:
    """Where everything is, and whether it is the small version."""

    folder: Path
    quick: bool = False

    def collection(self, name: str) -> CollectionConfig:
        """Return the collection of a data set, its policies those of :data:`RECIPES` in this folder."""
        config = load_collection(f"offline_{name}", [f"seed={SEED}"])
        sources = [
            source.model_copy(update={"policy": str(self.policy(name, source.name))})
            if source.name in RECIPES[name]
            else source
            for source in config.sources
        ]
        if self.quick:
            sources = [source.model_copy(update={"episodes": QUICK_EPISODES}) for source in sources]
            task = config.task.model_copy(update={"max_episode_steps": QUICK_EPISODE_STEPS})
            config = config.model_copy(update={"task": task})
        return config.model_copy(update={"sources": tuple(sources)})

    def policy(self, name: str, label: str) -> Path:
        """Return the directory of the run that makes a policy; another budget is another directory."""
        return self.folder / "policies" / f"{name}_{label}_{self._steps(name, label)}"

    def dataset(self, name: str) -> Path:
        """Return where a data set is."""
        return self.folder / "data" / name

    def session(self, name: str, label: str) -> SessionConfig:
        """Return the online run that makes a policy, on the task of the collection."""
        file = self.folder / "tasks" / f"{name}.yaml"
        file.parent.mkdir(parents=True, exist_ok=True)
        task = dump_yaml(self.collection(name).task)
        if not file.is_file() or file.read_text(encoding="utf-8") != task:
            partial = file.with_name(f"{name}_{label}.part")
            partial.write_text(task, encoding="utf-8")
            partial.replace(file)
        recipe, run = RECIPES[name][label], self.policy(name, label)
        common = [f"name={run.name}", f"seed={SEED}", f"training.total_steps={self._steps(name, label)}"]
        return compose_session(str(file), recipe.algorithm, [*recipe.changes, *common])

    def _steps(self, name: str, label: str) -> int:
        return QUICK_STEPS if self.quick else RECIPES[name][label].steps


def make_policy(job: tuple[Plan, str, str]) -> str:
    """Train the policy of a data set and label unless it is there; return its name and how it did, for people."""
    plan, name, label = job
    run = plan.policy(name, label)
    summary = run / "summary.json"
    if not summary.is_file() or not json.loads(summary.read_text(encoding="utf-8"))["finished"]:
        limit_threads()
        directory = prepare_directory(plan.session(name, label), run.parent, resume=run.exists())
        train(plan.session(name, label), directory)
    last = json.loads(summary.read_text(encoding="utf-8"))["training"]["last_tenth"]
    return f"{run.name}: return {last['return_mean']}, cost {last['cost_mean']}"


def make_dataset(job: tuple[Plan, str]) -> str:
    """Collect a data set unless it is there, made by the same configuration; return its name and size, for people."""
    plan, name = job
    config, place = plan.collection(name), plan.dataset(name)
    told, wanted = place.with_suffix(".yaml"), dump_yaml(config)
    if place.exists() and told.is_file() and told.read_text(encoding="utf-8") == wanted:
        return f"data set {name}: there"
    limit_threads()
    place.parent.mkdir(parents=True, exist_ok=True)
    told.unlink(missing_ok=True)
    everything = place.with_name(f"{name}_all")
    collect_dataset(config, everything, replace=everything.exists())
    left_out = keep_safe(everything, place)
    told.write_text(wanted, encoding="utf-8")
    return f"data set {name}: {config.episodes - left_out} episodes, {left_out} of {SAFE} were not and are left out"


def keep_safe(source: Path, place: Path) -> int:
    """Copy a data set without those episodes of the source ``safe`` that cost too much; return how many they were.

    Raises:
        ConfigError: no episode of that source is left.
    """
    reader = open_dataset(source)
    info = reader.info.model_copy(update={"name": place.name, "return_bounds": None})
    kept = left_out = 0
    with open_sink(place, info, replace=place.exists()) as sink:
        for episode in reader:
            if episode.notes["source"] == SAFE and episode.episode_cost > info.cost_limit:
                left_out += 1
                continue
            kept += episode.notes["source"] == SAFE
            sink.add(episode)
        if not kept:
            raise ConfigError(f"{place}: none of {left_out} episodes of {SAFE} costs at most {info.cost_limit}")
    return left_out
