"""Recovery policies behind a robot's filter: they act where a proposal is vetoed, in training and in evaluation."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from test_trainer import assert_same_run

from safe_rl_ros.algorithms import ALGORITHMS, has_recovery, make_algorithm
from safe_rl_ros.bundle import load_bundle
from safe_rl_ros.training.run import prepare_directory, train
from safe_rl_ros.training.session import InProcessSession
from safe_rl_ros.training.session_config import SessionConfig, compose_session
from safe_rl_ros.training.stored_run import evaluate_run
from safe_rl_ros.types import BundleError, ConfigError

FAST = (
    "algorithm.hidden=[8, 8]",
    "algorithm.batch_size=16",
    "algorithm.learning_starts=40",
    "algorithm.gradient_steps_per_row=0.16",
    "task.max_episode_steps=40",
    "training.steps_per_epoch=100",
    "training.total_steps=300",
    "training.checkpoint_interval=1",
)
ALL_VETOED, NONE_VETOED = "algorithm.fixed_threshold=0.0", "algorithm.fixed_threshold=1.0"


@pytest.fixture(params=["recovery_rl", "reachability"])
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def tiny(name: str, *extra: str) -> SessionConfig:
    return compose_session("hazard_nav", name, [*FAST, *extra])


def learner(config: SessionConfig, session: InProcessSession) -> Any:
    return make_algorithm(config.algorithm, session.obs_dim, session.act_dim, seed=0)


def make_constant(actor: Any, mean: tuple[float, float]) -> None:
    """Let an actor's mean be the same everywhere."""
    with torch.no_grad():
        actor.net.weights[-1][:, :2] = 0.0
        actor.net.biases[-1][:2] = torch.atanh(torch.tensor(mean))


def test_who_has_a_recovery_policy() -> None:
    for algorithm, (config, _) in ALGORITHMS.items():
        made = make_algorithm(config(), 3, 2, seed=0)
        assert has_recovery(config()) is (made.recovery() is not None) is (algorithm in ("recovery_rl", "reachability"))


def test_the_recovery_policy_s_mean_runs_where_a_proposal_is_vetoed(name: str) -> None:
    config = tiny(name, ALL_VETOED)
    with InProcessSession(config) as session:
        algorithm = learner(config, session)
        actor = algorithm.recovery_actor if name == "recovery_rl" else algorithm.safety_actor
        make_constant(actor, (-1.0 / 3.0, 0.5))  # the rover's speed goes from -.5 to 1 m/s: it stands and turns
        session.deploy(algorithm, 0)
        batch = session.collect(algorithm, 100, seed=0, epoch=0).batch
    assert batch.intervened.all()
    late = np.concatenate([np.arange(first + 10, first + 40) for first in (0, 40)])  # after the ramp of each episode
    np.testing.assert_allclose(batch.action_executed[late], np.tile([-1.0 / 3.0, 0.5], (60, 1)), atol=1e-4)
    assert np.abs(batch.action_proposed - batch.action_executed).max() > 0.5


def test_without_a_veto_the_policy_acts(name: str) -> None:
    config = tiny(name, NONE_VETOED)
    with InProcessSession(config) as session:
        algorithm = learner(config, session)
        session.deploy(algorithm, 0)
        assert not session.collect(algorithm, 50, seed=0, epoch=0).batch.intervened.any()


def test_a_killed_run_resumes_bit_for_bit_while_the_recovery_policy_acts(name: str, tmp_path: Path) -> None:
    config = tiny(name, ALL_VETOED)
    whole = prepare_directory(config, tmp_path / "whole", resume=False)
    summary = train(config, whole)
    assert summary["training"]["veto_rate"] == 1.0
    parts = prepare_directory(config, tmp_path / "parts", resume=False)
    train(config, parts, max_epochs=2)
    train(config, parts)
    assert_same_run(whole, parts)


def test_a_stored_run_is_evaluated_with_its_recovery_policy(name: str, tmp_path: Path) -> None:
    config = tiny(name, ALL_VETOED)
    run = prepare_directory(config, tmp_path, resume=False)
    train(config, run, max_epochs=1)
    with InProcessSession(config) as session:
        deployed = session.deploy_bundle(run / "bundle")
        keys = {"spec_hash": session.spec_hash, "obs_names": session.obs_names}
        acting: Any = session.filter.model
        assert deployed.hash == load_bundle(run / "bundle", **keys).hash != acting.hash
        assert acting.hash == load_bundle(run / "recovery", **keys).hash
    episodes = evaluate_run(run, InProcessSession, 2, seed=0).episodes
    assert all(episode.vetoes == episode.length for episode in episodes)
    shutil.rmtree(run / "recovery")
    with pytest.raises(BundleError, match="recovery"):
        evaluate_run(run, InProcessSession, 1, seed=0)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["filter.fallback_mode=min_risk"], "filter.fallback_mode is 'min_risk'.*expected 'backup_policy'"),
        (["filter.candidates=actor"], "filter.candidates is 'actor'.*expected 'topic'"),
        (["filter.candidates=around", "filter.critic=shadow"], "filter.candidates is 'around'"),
    ],
)
def test_a_filter_that_would_not_let_it_act_is_refused(name: str, settings: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=f"(?s){message}") as found:
        tiny(name, *settings)
    assert f"algorithm {name!r} answers a veto with its recovery policy" in str(found.value)
    assert tiny(name, *settings, "filter.critic=off").filter.critic == "off"
