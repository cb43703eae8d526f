"""Every algorithm through the whole session: train on a simulated task, kill, resume bit for bit, export, evaluate."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from test_trainer import assert_same_run
from typer.testing import CliRunner
from vector_fakes import tiny_simulated

from safe_rl_ros.algorithms import ALGORITHMS, make_algorithm
from safe_rl_ros.bundle import load_bundle
from safe_rl_ros.cli.app import app
from safe_rl_ros.training.metrics import read_csv
from safe_rl_ros.training.run import prepare_directory, train
from safe_rl_ros.training.session import InProcessSession
from safe_rl_ros.training.session_config import SessionConfig, compose_session
from safe_rl_ros.training.stored_run import evaluate_run, load_run
from safe_rl_ros.training.trainer import Trainer
from safe_rl_ros.training.vector_session import VectorSession
from safe_rl_ros.types import BundleError, ConfigError

NATURAL = ("algorithm.hidden=[8]", "algorithm.value_epochs=2")
SAFETY = ("algorithm.critic_hidden=[8]", "algorithm.critic_updates=5", "algorithm.critic_batch_size=32")
CVAR = ("algorithm.hidden=[8, 8]", "algorithm.critic_epochs=2", "algorithm.critic_batch_size=32")
REPLAY = ("algorithm.hidden=[8, 8]", "algorithm.batch_size=60", "algorithm.segment_length=10")
SOFT = (
    "algorithm.hidden=[8, 8]",
    "algorithm.batch_size=16",
    "algorithm.learning_starts=40",
    "algorithm.gradient_steps_per_row=0.16",  # what an epoch owes is no whole number: the rest goes on to the next
)
FAST = {
    "trpo": NATURAL,
    "csc": (*NATURAL, *SAFETY),
    "q_ensembles": (*NATURAL, *SAFETY, "algorithm.members=2"),
    **dict.fromkeys(("trc", "cpo", "cppo"), CVAR),
    **dict.fromkeys(("offtrc", "offcpo"), REPLAY),
    **dict.fromkeys(("sac", "wcsac", "sqrl", "recovery_rl", "reachability"), SOFT),
}
VETOED = {"csc", "q_ensembles", "sqrl", "recovery_rl", "reachability"}
"""Algorithms with a critic, and a threshold in the middle of what an untrained one says, so that it acts."""


def tiny(name: str, *extra: str, task: str = "point_goal") -> SessionConfig:
    fixed = ["algorithm.threshold_mode=fixed"] if name in ("csc", "q_ensembles") else []
    veto = [*fixed, "algorithm.fixed_threshold=0.05", "filter.critic=enforce"] if name in VETOED else []
    return tiny_simulated(name, *FAST[name], *veto, "task.max_episode_steps=33", *extra, task=task)


@pytest.fixture(params=ALGORITHMS)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Runs by algorithm, each trained once when it is first asked for."""
    root = tmp_path_factory.mktemp("runs")

    class Trained(dict[str, Path]):
        def __missing__(self, name: str) -> Path:
            config = tiny(name)
            directory = prepare_directory(config, root / name, resume=False)
            assert train(config, directory)["finished"]
            self[name] = directory
            return directory

    return Trained()


def test_settings_are_complete() -> None:
    assert FAST.keys() == ALGORITHMS.keys()
    assert {name for name in FAST if make_algorithm(tiny(name).algorithm, 2, 2, 0).critic() is not None} == VETOED


def test_a_killed_run_resumes_bit_for_bit(name: str, runs: dict[str, Path], tmp_path: Path) -> None:
    config = tiny(name)
    parts = prepare_directory(config, tmp_path, resume=False)
    for epochs in (1, 2):
        with VectorSession(config) as session:
            Trainer(config, session, parts).run(max_epochs=epochs)
    prepare_directory(config, tmp_path, resume=True)
    train(tiny(name, "training.env_threads=2"), parts)
    assert_same_run(runs[name], parts)


def test_metrics_are_whole_and_a_veto_acts(name: str, runs: dict[str, Path]) -> None:
    rows = read_csv(runs[name] / "metrics.csv")
    assert [row["steps"] for row in rows] == [40, 80, 120, 160]
    learned = [key for key in rows[-1] if key.startswith("algorithm/")]
    assert learned
    assert all(np.isfinite(rows[-1][key]) for key in (*learned, "cost_rate", "wall_s", "threshold"))
    assert (sum(row["veto_rate"] for row in rows) > 0) is (name in VETOED)


@pytest.mark.parametrize("form", ["onnx", "safetensors"])
def test_a_run_is_exported_and_fits_its_task(name: str, form: str, runs: dict[str, Path], tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["export", str(runs[name]), "-o", str(tmp_path / "robot"), "--form", form])
    assert result.exit_code == 0, result.output
    config = load_run(runs[name])
    with VectorSession(config) as session:
        keys = {"spec_hash": session.spec_hash, "obs_names": session.obs_names}
        bundle = load_bundle(tmp_path / "robot", **keys)
        obs, _ = session.env.reset(seed=1)
    source = load_bundle(runs[name] / "bundle", **keys)
    assert bundle.component_hashes() == source.component_hashes()
    np.testing.assert_allclose(bundle.policy.distribution(obs), source.policy.distribution(obs), atol=1e-5)
    assert (bundle.critic is None) is (name not in VETOED)
    with pytest.raises(BundleError, match="is for the robot spec"):
        load_bundle(tmp_path / "robot", spec_hash="0" * 64, obs_names=keys["obs_names"])


def test_a_stored_run_is_evaluated(name: str, runs: dict[str, Path]) -> None:
    one, two = (evaluate_run(runs[name], VectorSession, 3, seed=1, veto=True) for _ in range(2))
    assert one.summary()["episodes"] == 3
    assert [e.episode_return for e in one.episodes] == [e.episode_return for e in two.episodes]
    bare = evaluate_run(runs[name], VectorSession, 3, seed=1, veto=False)
    assert sum(e.vetoes for e in bare.episodes) == 0
    assert (sum(e.vetoes for e in one.episodes) > 0) is (name in VETOED)


def test_commands_for_robots_refuse_a_simulated_run_in_one_line(runs: dict[str, Path], tmp_path: Path) -> None:
    run = str(runs["csc"])
    calibrated = CliRunner().invoke(app, ["calibrate", run])
    assert isinstance(calibrated.exception, ConfigError)
    assert "task 'point_goal' is simulated and has no robot: a threshold is calibrated" in str(calibrated.exception)
    (tmp_path / "bag").mkdir()
    replayed = CliRunner().invoke(app, ["replay", str(tmp_path / "bag"), "--bundle", run, "--task", "point_goal"])
    assert isinstance(replayed.exception, ConfigError)
    assert "task 'point_goal' is not a robot's" in str(replayed.exception)
    assert not list(Path(run).glob("calibration*"))


def test_a_device_that_is_not_there_is_one_error_before_anything_runs(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    config = tiny("trc", "algorithm.device=cuda")
    directory = prepare_directory(config, tmp_path, resume=False)
    with pytest.raises(ConfigError, match="device is cuda, but torch finds none here: expected cpu or auto"):
        train(config, directory)


@pytest.mark.slow
def test_every_algorithm_resumes_bit_for_bit_in_the_twin_of_a_robot(name: str, tmp_path: Path) -> None:
    settings = [*FAST[name], "filter.critic=off", "task.max_episode_steps=60", "training.total_steps=600"]
    settings += ["training.steps_per_epoch=200", "training.checkpoint_interval=1"]
    config = compose_session("hazard_nav", name, settings)
    whole = prepare_directory(config, tmp_path / "whole", resume=False)
    train(config, whole, InProcessSession)
    parts = prepare_directory(config, tmp_path / "parts", resume=False)
    train(config, parts, InProcessSession, max_epochs=2)
    train(config, parts, InProcessSession)
    assert_same_run(whole, parts)
