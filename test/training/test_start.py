"""Online sessions that begin with logged data and as an offline run: buffer, critics, policy, and what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from offline_helpers import TASK, small_session, write_dataset
from test_trainer import assert_same_run

from safe_rl_ros.algorithms import warm_start
from safe_rl_ros.bundle import load_as_is
from safe_rl_ros.data.containers import open_dataset
from safe_rl_ros.data.episodes import to_batch
from safe_rl_ros.training.metrics import read_csv
from safe_rl_ros.training.run import prepare_directory, train
from safe_rl_ros.training.session_config import SessionConfig, compose_session
from safe_rl_ros.training.trainer import Trainer
from safe_rl_ros.training.vector_session import VectorSession
from safe_rl_ros.types import BundleError, ConfigError

FAST = {
    "csc": [
        "algorithm.hidden=[8]",
        "algorithm.value_epochs=1",
        "algorithm.critic_hidden=[32]",
        "algorithm.critic_updates=5",
        "algorithm.critic_batch_size=32",
    ],
    "offtrc": ["algorithm.hidden=[8]", "algorithm.batch_size=100", "algorithm.segment_length=10"],
    "trpo": ["algorithm.hidden=[8]"],
}
SEED_ROUNDS = 2


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_dataset(tmp_path_factory.mktemp("data") / "toy")


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory, data: Path) -> Path:
    """Return an offline run with a critic that says something."""
    extra = ("training.total_steps=300", "training.steps_per_epoch=100", "algorithm.actor_learning_rate=0.003")
    config = small_session(data, "safety_critic", *extra)
    directory = prepare_directory(config, tmp_path_factory.mktemp("runs"), resume=False)
    train(config, directory)
    return directory


@pytest.fixture(autouse=True)
def fewer_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(warm_start, "STEPS", 300)


def online(name: str, *extra: str) -> SessionConfig:
    small = [
        "training.total_steps=80",
        "training.steps_per_epoch=40",
        "training.num_envs=2",
        "training.buffer_capacity=1000",
        "training.checkpoint_interval=1",
        f"training.seed_rounds={SEED_ROUNDS}",
        f"task.{TASK}",
    ]
    return compose_session("point_robot", name, [*small, *FAST[name], *extra])


def begun(config: SessionConfig, directory: Path) -> Trainer:
    with VectorSession(config) as session:
        return Trainer(config, session, directory)


@pytest.mark.parametrize("name", ["csc", "offtrc"])
def test_a_session_begins_as_an_offline_run_on_its_data(name: str, source: Path, data: Path, tmp_path: Path) -> None:
    trainer = begun(online(name, f"training.start_from={source}"), tmp_path)
    rows = to_batch(open_dataset(data))
    kept = trainer.buffer.arrays()
    np.testing.assert_array_equal(kept["obs"], rows.obs)
    np.testing.assert_array_equal(kept["action_executed"], rows.action_executed)
    assert (kept["behaviour_std"] > 0.0).all() == (name == "offtrc")
    bundle = load_as_is(source / "bundle")
    fresh = begun(online(name), tmp_path)
    wanted = bundle.policy.mean(rows.obs)
    errors = [np.abs(t.algorithm.policy().mean(rows.obs) - wanted).mean() for t in (trainer, fresh)]
    assert errors[0] < 0.5 * errors[1]
    if name == "csc":
        critics = [bundle.critic, trainer.algorithm.critic(), fresh.algorithm.critic()]
        taught, own, new = (c.risk_rows(rows.obs, rows.action_executed) for c in critics)  # type: ignore[union-attr]
        assert np.abs(own - taught).mean() < 0.4 * np.abs(new - taught).mean()
        assert np.corrcoef(own, taught)[0, 1] > 0.8


@pytest.mark.parametrize("name", ["csc", "offtrc"])
def test_it_trains_on_and_resumes_bit_for_bit(name: str, source: Path, tmp_path: Path) -> None:
    config = online(name, f"training.start_from={source}")
    whole = prepare_directory(config, tmp_path / "whole", resume=False)
    assert train(config, whole)["finished"]
    parts = prepare_directory(config, tmp_path / "parts", resume=False)
    train(config, parts, max_epochs=1)
    train(config, prepare_directory(config, tmp_path / "parts", resume=True))
    assert_same_run(whole, parts)
    if name == "offtrc":  # 40 new rows an update: the others are logged ones, which have a weight now
        assert read_csv(whole / "metrics.csv")[0]["algorithm/batch_rows"] == 100


def test_logged_rows_of_unknown_behaviour_are_left_out_otherwise(data: Path, tmp_path: Path) -> None:
    config = online("offtrc", f"training.seed_data={data}")
    train(config, prepare_directory(config, tmp_path, resume=False))
    assert read_csv(tmp_path / config.name / "metrics.csv")[0]["algorithm/batch_rows"] == 40


def test_critics_are_fitted_on_the_data_where_the_bundle_has_none(
    source: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rounds = []
    for name in ("csc", "offtrc"):
        learner = type(begun(online(name), tmp_path).algorithm)
        monkeypatch.setattr(learner, "pretrain", lambda self, buffer: rounds.append(len(buffer)) or {})
    clone = small_session(data, "bc")
    directory = prepare_directory(clone, tmp_path / "clone", resume=False)
    train(clone, directory)
    count = len(to_batch(open_dataset(data)))
    for start, name, wanted in ((source, "csc", 0), (directory, "csc", SEED_ROUNDS), (source, "offtrc", SEED_ROUNDS)):
        rounds.clear()
        begun(online(name, f"training.start_from={start}"), tmp_path)
        assert rounds == [count] * wanted


def test_a_bundle_alone_needs_data_beside_it(source: Path, data: Path, tmp_path: Path) -> None:
    start = f"training.start_from={source / 'bundle'}"
    with pytest.raises(ConfigError, match=r"names no data: expected training\.seed_data beside it"):
        begun(online("csc", start), tmp_path)
    trainer = begun(online("csc", start, f"training.seed_data={data}"), tmp_path)
    assert len(trainer.buffer) == len(to_batch(open_dataset(data)))


def test_what_cannot_be_begun_with_is_refused(source: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="is neither a run nor a bundle"):
        begun(online("csc", f"training.start_from={tmp_path}"), tmp_path)
    other = online("csc", f"training.start_from={source}", "task.hazard_radius_m=0.7")
    with pytest.raises(BundleError, match="is for the robot spec"):
        begun(other, tmp_path)


def test_seed_data_may_be_a_data_set(data: Path, tmp_path: Path) -> None:
    trainer = begun(online("trpo", f"training.seed_data={data}"), tmp_path)
    rows = to_batch(open_dataset(data))
    np.testing.assert_array_equal(trainer.buffer.arrays()["reward"], rows.reward)
