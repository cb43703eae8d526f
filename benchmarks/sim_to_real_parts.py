"""The parts of ``sim_to_real`` in this process: training, what goes onto a stand-in, and learning on there."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.standin_robots import Place, StandInSession, run_episodes
from safe_rl_ros.bundle import Bundle, export_bundle, load_bundle
from safe_rl_ros.data.trials import Verdict
from safe_rl_ros.envs.observation import Observer
from safe_rl_ros.envs.robot_spec import load_robot_spec
from safe_rl_ros.envs.tasks.hazard_nav import load_hazard_nav
from safe_rl_ros.training.calibrate import CalibrationRequest, calibrate_run
from safe_rl_ros.training.collection import collect_dataset
from safe_rl_ros.training.collection_config import RANDOM, load_collection
from safe_rl_ros.training.run import limit_threads, open_session, prepare_directory, train
from safe_rl_ros.training.session import write_bundle
from safe_rl_ros.training.session_config import SessionConfig, load_session_config
from safe_rl_ros.training.trainer import Progress, Trainer
from safe_rl_ros.types import EpisodeStats

TRAINED: dict[str, list[str]] = {"randomised": [], "plain": ["randomisation=null"]}
"""Kinds of policies: what is changed in csc_rover_randomised.yaml."""
TWINS = {"randomised": "rover", "plain": "none"}
"""What a kind of policy was trained on, and its return is compared with."""
MISS_RATE = 0.05
VETO = "fisor_rover_veto"
"""The shipped session that learns a veto critic from margins; its data: ``config/collect/rover_randomised.yaml``."""
GOES_ON = {"csc": "csc_standin.yaml", "offtrc": "offtrc_standin.yaml"}


def rows(episodes: list[EpisodeStats]) -> list[dict[str, Any]]:
    """Return episodes as they are kept."""
    return [asdict(episode) for episode in episodes]


def read_bundle(directory: Path) -> Bundle:
    """Load a rover's bundle on hazard_nav."""
    spec = load_robot_spec("rover")
    names = Observer(spec, load_hazard_nav().observation).names
    return load_bundle(directory, spec_hash=spec.hash, obs_names=tuple(names))


def train_kind(runs: Path, kind: str, seed: int, steps: int) -> Path:
    """Train on the twin unless that is done; return the run."""
    limit_threads()
    overrides = [*TRAINED[kind], f"seed={seed}", f"name={kind}_{seed}", f"training.total_steps={steps}"]
    config = load_session_config("csc_rover_randomised.yaml", overrides)
    directory = runs / config.name
    summary = directory / "summary.json"
    if not (summary.is_file() and json.loads(summary.read_text(encoding="utf-8"))["finished"]):
        train(config, prepare_directory(config, runs, resume=directory.exists()), open_session)
    return directory


def calibrate_kind(run: Path, failing: int) -> dict[str, Any]:
    """Return the threshold for a miss rate of 5 % in the run's own twin."""
    request = CalibrationRequest(miss_rate=MISS_RATE, failing=failing, certify=None)
    found = calibrate_run(run, request, run / "calibration").calibration
    return {"threshold": found.threshold, "miss_rate_bound": found.miss_rate_bound}


def train_margin_critic(run: Path, folder: Path, share: float = 1.0, changes: Sequence[str] = ()) -> Path:
    """Return a run's policy as a bundle with a critic of margins in place of its own, made in ``folder`` unless there.

    ``share`` of the shipped numbers of episodes and epochs are made; ``changes`` are of the critic's session.
    """
    made = folder / "bundle"
    if made.is_dir():
        return made
    limit_threads()
    collection, sources = load_collection("rover_randomised"), []
    for source in collection.sources:
        policy = source.policy if source.policy == RANDOM else str(run)
        sources.append(source.model_copy(update={"policy": policy, "episodes": math.ceil(share * source.episodes)}))
    collect_dataset(collection.model_copy(update={"sources": tuple(sources)}), folder / "data", replace=True)
    changes = [*changes, f"data.path={folder / 'data'}"]
    shipped = load_session_config(f"{VETO}.yaml", changes)
    steps, epochs = shipped.training.steps_per_epoch, math.ceil(share * shipped.training.epochs)
    rest = min(shipped.algorithm.critic_steps, (epochs - 1) * steps)
    changes += [f"training.total_steps={epochs * steps}", f"algorithm.actor_start={rest}"]
    config = load_session_config(f"{VETO}.yaml", [*changes, f"algorithm.critic_steps={max(rest, 1)}"])
    learned = folder / config.name
    shutil.rmtree(learned, ignore_errors=True)  # half of it, if it was interrupted
    train(config, prepare_directory(config, folder, resume=False), open_session)
    export_bundle(run / "bundle", made, kind="safetensors", critic_dir=learned / "bundle")
    return made


def standin_config(
    name: str, run: Path, steps: int, epoch: int, seed: int, threshold: float, *, filtered: bool
) -> SessionConfig:
    """Return the shipped session that goes on with a run; if not ``filtered`` without veto and without going back."""
    overrides = [f"training.start_from={run}", f"training.total_steps={steps}", f"seed={seed}"]
    overrides += [f"training.steps_per_epoch={epoch}", "training.stop_at_goals=null"]
    overrides.append(f"{'algorithm.fixed_threshold' if name == 'csc' else 'filter.threshold'}={threshold!r}")
    overrides += [] if filtered else ["filter.critic=off", "ros.roll_back_episodes=0"]
    return load_session_config(GOES_ON[name], overrides)


def adapt(config: SessionConfig, place: Place, judge: Bundle | None, directory: Path) -> dict[str, Any]:
    """Go on learning on a stand-in; return the episodes, verdicts, and where the bundle is that shall act then."""
    limit_threads()
    shutil.rmtree(directory, ignore_errors=True)  # half of it would be of no use
    verdicts: list[Verdict] = []
    session = StandInSession(config, place, judge)
    try:
        trainer = Trainer(config, session, directory)
        epochs: list[list[dict[str, Any]]] = []
        good = directory / "bundles" / "final"

        def judged(progress: Progress) -> None:
            epochs.append(rows(session.latest))

        while trainer.epoch < config.training.epochs:
            tried = directory / "bundles" / f"epoch_{trainer.epoch:05d}"
            write_bundle(tried, trainer.algorithm, config, session)
            trainer.run(judged, max_epochs=1)
            verdict = session.verdict(trainer.epoch - 1)
            if verdict is not None:
                verdicts.append(verdict)
                if verdict.worse:
                    good = directory / "bundles" / verdict.back_to
                    break
        else:
            write_bundle(good, trainer.algorithm, config, session)
    finally:
        session.close()
    return {"epochs": epochs, "verdicts": [asdict(verdict) for verdict in verdicts], "bundle": good.name}


def evaluate_place(
    place: Place, bundle: Bundle, judge: Bundle | None, threshold: float, episodes: int
) -> dict[str, Any]:
    """Return episodes of a bundle's policy behind the filter with a bundle's critic, or without it."""
    return {"episodes": rows(run_episodes(place, bundle, judge, threshold, episodes))}
