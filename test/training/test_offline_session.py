"""Sessions on logged data: what belongs together, which data, what is left on disk, and the commands."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from offline_helpers import TASK, small_session, small_settings, write_dataset
from test_trainer import assert_same_run
from typer.testing import CliRunner

from safe_rl_ros.bundle import Bundle, load_as_is
from safe_rl_ros.cli.app import app
from safe_rl_ros.config import dump_yaml, load_config
from safe_rl_ros.data.containers import open_dataset
from safe_rl_ros.data.dataset import save_transitions
from safe_rl_ros.data.episodes import to_batch
from safe_rl_ros.training.checkpoint import latest_checkpoint
from safe_rl_ros.training.metrics import read_csv
from safe_rl_ros.training.run import open_session, prepare_directory, train
from safe_rl_ros.training.run_records import load_record
from safe_rl_ros.training.session_config import SessionConfig, compose_session, load_session_config
from safe_rl_ros.training.trainer import Trainer
from safe_rl_ros.types import ConfigError

RUN = "bc_point_robot_seed0"


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_dataset(tmp_path_factory.mktemp("data") / "toy")


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory, data: Path) -> Path:
    path = tmp_path_factory.mktemp("plain") / "transitions.npz"
    save_transitions(path, to_batch(open_dataset(data)))
    return path


def command(*words: str, runs: Path) -> list[str]:
    return ["train", *words, "--runs", str(runs)]


def test_the_run_s_configuration_names_the_data_and_reads_back(data: Path, tmp_path: Path) -> None:
    config = small_session(data)
    assert config.data is not None
    assert Path(config.data.path) == data
    assert config.data.sha256 is not None
    directory = prepare_directory(config, tmp_path, resume=False)
    assert load_config(SessionConfig, directory / "config.yaml") == config


def test_a_path_alone_is_a_data_set(data: Path, tmp_path: Path) -> None:
    config = small_session(data)
    text = dump_yaml(config.model_copy(update={"data": None})) + f"\ndata: {data}\n"
    (tmp_path / "session.yaml").write_text(text)
    assert load_session_config(tmp_path / "session.yaml").data.sha256 == config.data.sha256  # type: ignore[union-attr]


def test_a_session_without_data_is_written_as_it_always_was(tmp_path: Path) -> None:
    text = dump_yaml(compose_session("point_goal", "trpo"))
    assert "data" not in [line.partition(":")[0] for line in text.splitlines()]
    assert "start_from" not in text


@pytest.mark.parametrize(
    ("algorithm", "changes", "message"),
    [
        ("bc", [], "data is missing: algorithm 'bc' learns from logged data"),
        ("csc", ["data.path=PATH"], "data is given, but algorithm 'csc' learns by acting"),
        ("bc", ["data.path=PATH", "training.seed_data=x.npz"], "training.seed_data is 'x.npz'"),
        ("bc", ["data.path=PATH", "training.stop_at_goals=3"], "training.stop_at_goals is 3.0"),
        ("bc", ["data.path=PATH", "training.start_from=x"], "training.start_from is 'x'"),
        ("bc", ["data.path=nowhere/toy"], "data set .*nowhere/toy does not exist"),
        ("bc", ["data.path=PATH", "data.evaluation_episodes=0"], "evaluation_episodes"),
        ("sac", ["training.start_from=runs/x"], "algorithm 'sac' cannot begin as another one"),
    ],
)
def test_what_does_not_belong_together_is_refused(algorithm: str, changes: list[str], message: str, data: Path) -> None:
    with pytest.raises(ConfigError, match=message):
        compose_session("point_robot", algorithm, [text.replace("PATH", str(data)) for text in changes])


def test_steps_need_not_be_shared_by_environments(data: Path) -> None:
    config = small_session(data, "bc", "training.num_envs=7")
    assert config.training.steps_per_epoch % config.training.num_envs


def test_changed_data_are_refused(data: Path, tmp_path: Path) -> None:
    copy = tmp_path / "toy"
    shutil.copytree(data, copy)
    config = small_session(copy)
    directory = prepare_directory(config, tmp_path / "runs", resume=False)
    train(config, directory, max_epochs=1)
    shutil.rmtree(copy)
    write_dataset(copy, seed=1)
    with pytest.raises(ConfigError, match=r"data set .*toy has changed: its sha256 is [0-9a-f]{64}, the run was made"):
        train(config, directory)
    named = ["--task", "point_robot", "--algorithm", "bc", "--data", str(copy), *small_settings("bc"), "--resume"]
    result = CliRunner().invoke(app, command(*named, runs=tmp_path / "runs"))
    assert isinstance(result.exception, ConfigError)
    assert "data.sha256" in str(result.exception)


def test_data_that_moved_are_the_same_data(data: Path, tmp_path: Path) -> None:
    config = small_session(data)
    whole = prepare_directory(config, tmp_path / "whole", resume=False)
    train(config, whole)
    copy = tmp_path / "elsewhere"
    shutil.copytree(data, copy)
    train(config, prepare_directory(config, tmp_path / "parts", resume=False), max_epochs=1)
    run = tmp_path / "parts" / config.name
    result = CliRunner().invoke(app, ["train", str(run), "--resume", "--data", str(copy)])
    assert result.exit_code == 0, result.output
    assert_same_run(whole, run)
    assert load_config(SessionConfig, run / "config.yaml").data.path == str(copy)  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"obs_names": tuple(f"o{i}" for i in range(11))}, "first other name: 'o0', not"),
        ({"robot_spec_hash": "f" * 64}, r"is of task 'point_robot', its spec is f+, the one in use"),
    ],
)
def test_data_of_another_task_are_refused(changes: dict[str, object], message: str, tmp_path: Path) -> None:
    config = small_session(write_dataset(tmp_path / "toy", episodes=2, **changes))
    with pytest.raises(ConfigError, match=message):
        train(config, prepare_directory(config, tmp_path / "runs", resume=False))


def test_data_of_another_robot_s_size_are_refused(data: Path, tmp_path: Path) -> None:
    config = compose_session("point_goal", "bc", [f"data.path={data}"])
    with pytest.raises(ConfigError, match="its observation has 11 elements, the task's 24"):
        train(config, prepare_directory(config, tmp_path, resume=False))


def test_data_that_name_no_spec_are_taken(tmp_path: Path) -> None:
    config = small_session(write_dataset(tmp_path / "toy", episodes=2, robot_spec_hash=""))
    assert train(config, prepare_directory(config, tmp_path / "runs", resume=False))["finished"]


def test_what_a_run_leaves(data: Path, tmp_path: Path) -> None:
    config = small_session(data)
    directory = prepare_directory(config, tmp_path, resume=False)
    summary = train(config, directory)
    assert not (directory / "transitions.npz").exists()
    assert json.loads((directory / "summary.json").read_text()) == summary  # NaN is not equal to itself
    assert summary["data"]["sha256"] == config.data.sha256  # type: ignore[union-attr]
    assert summary["training"]["episodes"] == 6
    rows = read_csv(directory / "metrics.csv")
    info = open_dataset(data).info
    low, high = info.return_bounds  # type: ignore[misc]
    assert rows[-1]["return_normalised"] == pytest.approx((rows[-1]["return_mean"] - low) / (high - low))
    assert rows[-1]["cost_normalised"] == pytest.approx(rows[-1]["cost_mean"] / 10.0)
    episodes = read_csv(directory / "episodes.csv")
    assert [row["step"] for row in episodes] == [24] * 3 + [36] * 3
    assert np.mean([row["return"] for row in episodes[3:]]) == pytest.approx(rows[-1]["return_mean"])
    assert [row["episodes_total"] for row in rows] == [0, 3, 6]
    assert load_bundle_of(directory).manifest.algorithm == "bc"


def load_bundle_of(directory: Path) -> Bundle:
    return load_as_is(directory / "bundle")


def test_a_limit_on_the_cost_is_one_per_episode(data: Path, tmp_path: Path) -> None:
    config = small_session(data, "bc_safe", "algorithm.cost_limit=7.5")
    directory = prepare_directory(config, tmp_path, resume=False)
    train(config, directory)
    assert load_record(directory).cost_limit == 7.5


def test_plain_transitions_train_too(plain: Path, data: Path, tmp_path: Path) -> None:
    """The same rows give the same policy, whatever they are stored in; nothing says what to normalise by."""
    found = []
    for name, path in (("plain", plain), ("whole", data)):
        config = small_session(path, "bc", f"name={name}")
        train(config, prepare_directory(config, tmp_path, resume=False))
        found.append(load_bundle_of(tmp_path / name).component_hashes())
    assert found[0] == found[1]
    assert "return_normalised" in read_csv(tmp_path / "whole" / "metrics.csv")[-1]
    assert "return_normalised" not in read_csv(tmp_path / "plain" / "metrics.csv")[-1]


def test_without_evaluations_the_task_is_never_made(data: Path, tmp_path: Path, monkeypatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("the task was made")

    config = small_session(data, "bc", "data.evaluate_every=0")
    directory = prepare_directory(config, tmp_path, resume=False)
    with monkeypatch.context() as patch:
        patch.setattr("safe_rl_ros.training.vector_session.make_vector_env", refuse)
        assert train(config, directory)["finished"]
    rows = read_csv(directory / "metrics.csv")
    assert [row["episodes"] for row in rows] == [0, 0, 0]
    tried = small_session(data, "bc", "name=tried")
    train(tried, prepare_directory(tried, tmp_path, resume=False))
    assert load_bundle_of(directory).component_hashes() == load_bundle_of(tmp_path / "tried").component_hashes()
    result = CliRunner().invoke(app, ["evaluate", str(directory), "--episodes", "2"])  # afterwards it may act
    assert result.exit_code == 0, result.output


def test_without_evaluations_data_must_say_what_they_are(plain: Path, tmp_path: Path) -> None:
    config = small_session(plain, "bc", "data.evaluate_every=0")
    with pytest.raises(ConfigError, match="says nothing about itself"):
        open_session(config, tmp_path)
    unknown = write_dataset(tmp_path / "toy", episodes=2, robot_spec_hash="")
    with pytest.raises(ConfigError, match="names no robot spec"):
        open_session(small_session(unknown, "bc", "data.evaluate_every=0"), tmp_path)


def test_an_enforced_critic_that_nobody_learns_is_refused(data: Path, tmp_path: Path) -> None:
    config = small_session(data, "bc", "filter.critic=enforce")
    with pytest.raises(ConfigError, match="algorithm 'bc' learns no safety critic"):
        train(config, prepare_directory(config, tmp_path, resume=False))


def test_an_epoch_that_fails_leaves_the_learner_as_it_was(data: Path, tmp_path: Path, monkeypatch) -> None:
    config = small_session(data)
    with open_session(config, tmp_path) as session:  # type: ignore[attr-defined]
        trainer = Trainer(config, session, tmp_path)
        before = trainer.algorithm.state_dict()
        monkeypatch.setattr(session, "evaluate", lambda *_, **__: 1 / 0)
        trainer.run(max_epochs=1)
        after_one = trainer.algorithm.state_dict()
        with pytest.raises(ZeroDivisionError):
            trainer.run(max_epochs=1)
        kept = trainer.algorithm.state_dict()
    assert all(after_one[key].equal(kept[key]) for key in kept)
    assert not all(before[key].equal(kept[key]) for key in kept)


def test_the_command_trains_and_the_report_reads_it(data: Path, tmp_path: Path) -> None:
    words = ["--task", "point_robot", "--algorithm", "bc", "--data", str(data), *small_settings("bc")]
    result = CliRunner().invoke(app, command(*words, runs=tmp_path))
    assert result.exit_code == 0, result.output
    assert latest_checkpoint(tmp_path / RUN / "checkpoints") is not None
    report = CliRunner().invoke(app, ["report", str(tmp_path)])
    assert report.exit_code == 0, report.output
    ros = CliRunner().invoke(app, command(*words, "--backend", "ros", "--overwrite", runs=tmp_path))
    assert "learning from data needs no robot" in str(ros.exception)
    nothing = CliRunner().invoke(app, command("--task", "point_robot", runs=tmp_path))
    assert "on --data: " in str(nothing.exception)
    assert "fisor" in str(nothing.exception)


def test_a_sweep_trains_on_data(data: Path, tmp_path: Path) -> None:
    text = f"""name: offline
tasks: [point_robot]
algorithms: [bc, td3_bc]
seeds: [0]
workers: 1
total_steps: 24
overrides:
  data: {{path: {data}, evaluate_every: 1, evaluation_episodes: 2}}
  training: {{steps_per_epoch: 12, num_envs: 2}}
  task: {{{TASK.replace("=", ": ")}}}
  algorithm: {{hidden: [8], batch_size: 16}}
"""
    (tmp_path / "sweep.yaml").write_text(text)
    result = CliRunner().invoke(app, ["sweep", str(tmp_path / "sweep.yaml"), "--runs", str(tmp_path)])
    assert result.exit_code == 0, result.output
    rows = (tmp_path / "offline" / "summary.csv").read_text().splitlines()
    assert len(rows) == 3
    assert all(",True," in row or ",finished," in row for row in rows[1:])
    again = CliRunner().invoke(app, ["sweep", str(tmp_path / "sweep.yaml"), "--runs", str(tmp_path), "--dry-run"])
    assert again.output.count("kept") == 2, again.output
