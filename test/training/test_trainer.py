import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from training_helpers import metric_rows, tiny_config

from safe_rl_ros.data.dataset import load_transitions
from safe_rl_ros.data.spool import SpoolError
from safe_rl_ros.inference import SafetyCritic
from safe_rl_ros.training.checkpoint import CheckpointError, latest_checkpoint, load_checkpoint
from safe_rl_ros.training.metrics import read_csv
from safe_rl_ros.training.rollout import StopRequestedError
from safe_rl_ros.training.run import StopFlag, prepare_directory, train
from safe_rl_ros.training.session import InProcessSession
from safe_rl_ros.training.trainer import Trainer
from safe_rl_ros.types import BackendError, BundleError, ConfigError


def final_state(directory: Path) -> dict[str, torch.Tensor]:
    path = latest_checkpoint(directory / "checkpoints")
    assert path is not None
    return load_checkpoint(path).algorithm


def assert_same_run(first: Path, second: Path) -> None:
    a, b = final_state(first), final_state(second)
    assert a.keys() == b.keys()
    for name in a:
        assert torch.equal(a[name], b[name]), name
    assert metric_rows(first / "metrics.csv") == metric_rows(second / "metrics.csv")
    assert (first / "episodes.csv").read_text() == (second / "episodes.csv").read_text()
    bundles = [json.loads((run / "bundle" / "manifest.json").read_text()) for run in (first, second)]
    assert bundles[0]["files"] == bundles[1]["files"]


@pytest.mark.parametrize("algorithm", ["csc", "trpo", "q_ensembles"])
def test_resume_equals_an_uninterrupted_run(algorithm: str, tmp_path: Path) -> None:
    config = tiny_config(algorithm)
    whole = prepare_directory(config, tmp_path / "whole", resume=False)
    summary = train(config, whole)
    assert summary["finished"]
    assert summary["training"]["steps"] == 600

    parts = prepare_directory(config, tmp_path / "parts", resume=False)
    train(config, parts, max_epochs=1)
    prepare_directory(config, tmp_path / "parts", resume=True)
    train(config, parts, max_epochs=2)
    train(config, parts)
    assert_same_run(whole, parts)


@pytest.mark.parametrize("error", [BackendError, BundleError, SpoolError])
def test_a_robot_that_is_gone_or_went_back_leaves_the_epochs_before_to_go_on_from(
    error: type[Exception], tmp_path: Path
) -> None:
    config = tiny_config("csc", "training.checkpoint_interval=100")
    whole = prepare_directory(config, tmp_path / "whole", resume=False)
    train(config, whole)
    parts = prepare_directory(config, tmp_path / "parts", resume=False)
    flag, calls = StopFlag(), []

    def fail_once() -> None:
        calls.append(1)
        if len(calls) == 230:  # epoch 1, step 80
            raise error("gone")

    flag.check = fail_once  # type: ignore[method-assign]
    with pytest.raises(error, match="gone"):
        train(config, parts, flag=flag)
    assert [path.name for path in (parts / "checkpoints").iterdir()] == ["epoch_00001"]
    train(config, parts)
    assert_same_run(whole, parts)


def test_resume_after_a_stop_in_the_middle_of_an_epoch(tmp_path: Path) -> None:
    config = tiny_config()
    whole = prepare_directory(config, tmp_path / "whole", resume=False)
    train(config, whole)

    parts = prepare_directory(config, tmp_path / "parts", resume=False)
    flag, calls = StopFlag(), []
    check = flag.check

    def check_and_stop() -> None:
        calls.append(1)
        if len(calls) == 230:  # epoch 1, step 80
            flag.request()
        check()

    flag.check = check_and_stop  # type: ignore[method-assign]
    summary = train(config, parts, flag=flag)
    assert not summary["finished"]
    assert summary["epochs"] == 1
    train(config, parts)
    assert_same_run(whole, parts)


def test_sigkill_in_the_middle_of_a_run_loses_at_most_one_epoch(tmp_path: Path) -> None:
    config = tiny_config("csc", "training.total_steps=3000")
    whole = prepare_directory(config, tmp_path / "whole", resume=False)
    train(config, whole)

    code = (
        "from training_helpers import tiny_config\n"
        "from pathlib import Path\n"
        "from safe_rl_ros.training.run import prepare_directory, train\n"
        "config = tiny_config('csc', 'training.total_steps=3000')\n"
        f"train(config, prepare_directory(config, Path({str(tmp_path / 'parts')!r}), resume=False))\n"
    )
    path = os.pathsep.join([str(Path(__file__).parent), *[p for p in sys.path if p]])
    process = subprocess.Popen([sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": path})
    checkpoints = tmp_path / "parts" / config.name / "checkpoints"
    deadline = time.monotonic() + 60
    while latest_checkpoint(checkpoints) is None and time.monotonic() < deadline and process.poll() is None:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait(timeout=10)
    found = latest_checkpoint(checkpoints)
    assert found is not None
    assert load_checkpoint(found).epoch < 20, "the process was meant to die before its end"
    train(config, prepare_directory(config, tmp_path / "parts", resume=True))
    assert_same_run(whole, checkpoints.parent)


def test_an_existing_run_is_neither_overwritten_nor_mixed(tmp_path: Path) -> None:
    config = tiny_config()
    directory = prepare_directory(config, tmp_path, resume=False)
    train(config, directory, max_epochs=1)
    with pytest.raises(ConfigError, match="--resume"):
        prepare_directory(config, tmp_path, resume=False)
    with pytest.raises(ConfigError, match="another algorithm"):
        prepare_directory(tiny_config("csc", "algorithm.alpha=0.3"), tmp_path, resume=True)
    with pytest.raises(ConfigError, match="another seed"):
        prepare_directory(tiny_config("csc", "seed=9"), tmp_path, resume=True)
    prepare_directory(tiny_config("csc", "training.total_steps=900"), tmp_path, resume=True)
    with pytest.raises(ConfigError, match="nothing to resume"):
        prepare_directory(config, tmp_path / "elsewhere", resume=True)


def test_a_corrupt_checkpoint_is_refused_not_skipped(tmp_path: Path) -> None:
    config = tiny_config()
    directory = prepare_directory(config, tmp_path, resume=False)
    train(config, directory, max_epochs=1)
    path = latest_checkpoint(directory / "checkpoints")
    assert path is not None
    weights = path / "algorithm.safetensors"
    weights.write_bytes(weights.read_bytes()[:-8])
    with pytest.raises(CheckpointError, match=r"algorithm\.safetensors"):
        train(config, directory)


def test_results_of_a_run(tmp_path: Path) -> None:
    config = tiny_config()
    directory = prepare_directory(config, tmp_path, resume=False)
    train(config, directory)
    tables = ("metrics.csv", "episodes.csv")
    for name in ("config.yaml", "robot.yaml", "task.yaml", *tables, "summary.json", "bundle/manifest.json"):
        assert (directory / name).is_file(), name
    for name in ("return", "failures", "veto_rate"):
        assert (directory / "plots" / f"{name}.png").stat().st_size > 5000
    summary = json.loads((directory / "summary.json").read_text())
    low, high = summary["training"]["failures_ci95"]
    assert low <= summary["training"]["failures_per_episode"] <= high


def test_a_critic_to_enforce_that_the_algorithm_does_not_learn_is_refused(tmp_path: Path) -> None:
    config = tiny_config("trpo", "filter.critic=enforce")
    with pytest.raises(ConfigError, match="'trpo' learns no safety critic"):
        train(config, prepare_directory(config, tmp_path, resume=False))


def test_episodes_are_listed_once_and_agree_with_the_metrics(tmp_path: Path) -> None:
    config = tiny_config("trpo")
    directory = prepare_directory(config, tmp_path, resume=False)
    train(config, directory)
    episodes, rows = read_csv(directory / "episodes.csv"), read_csv(directory / "metrics.csv")
    assert len(episodes) > 4
    for row in rows:
        own = [e for e in episodes if e["epoch"] == row["epoch"]]
        assert np.mean([e["return"] for e in own]) == pytest.approx(row["return_mean"])
        assert sum(e["failure"] for e in own) == row["failures"]
        assert all(row["steps"] - 150 < e["step"] <= row["steps"] for e in own)
    # On this task a violation ends its episode and costs 1.
    assert [e["cost"] for e in episodes] == [e["failure"] for e in episodes] == [e["violations"] for e in episodes]
    assert rows[-1]["violations_total"] == rows[-1]["failures_total"] == sum(e["failure"] for e in episodes) > 0


def test_signals_become_a_flag_and_handlers_are_restored() -> None:
    before = signal.getsignal(signal.SIGINT)
    with StopFlag().on_signals() as flag:
        flag.check()
        os.kill(os.getpid(), signal.SIGINT)
        with pytest.raises(StopRequestedError):
            flag.check()
    assert signal.getsignal(signal.SIGINT) is before


def test_logged_data_seeds_the_critic(tmp_path: Path) -> None:
    first = prepare_directory(tiny_config(), tmp_path / "first", resume=False)
    train(tiny_config(), first)
    logged = first / "transitions.npz"
    extra = [f"training.seed_data={logged}", "training.seed_rounds=40", "algorithm.critic_learning_rate=1e-2"]
    seeded = tiny_config("csc", *extra)
    with InProcessSession(seeded) as session:
        trainer = Trainer(seeded, session, tmp_path / "seeded")
        untrained = Trainer(tiny_config(), session, tmp_path / "bare")
        data = load_transitions(logged, 29, 2)
        assert len(trainer.buffer) == len(data) == 600

        def separation(critic: SafetyCritic | None) -> float:
            assert critic is not None
            risk = [critic.risk(o, a[None])[0] for o, a in zip(data.obs, data.action_executed, strict=True)]
            failed = data.cost > 0
            assert failed.any()
            return float(np.mean(np.asarray(risk)[failed]) - np.mean(np.asarray(risk)[~failed]))

        # The critic knows logged failures before it has driven a metre.
        assert separation(trainer.algorithm.critic()) > separation(untrained.algorithm.critic()) + 0.01
    with pytest.raises(ConfigError, match=r"nowhere\.npz does not exist"), InProcessSession(seeded) as session:
        Trainer(tiny_config("csc", "training.seed_data=nowhere.npz"), session, tmp_path / "none")
