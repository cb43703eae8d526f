"""Sessions of a robot that is moved by its joints: trained, evaluated and calibrated in this process."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

pytest.importorskip("pybullet")

from safe_rl_ros.bundle import load_bundle
from safe_rl_ros.cli.app import BackendName, choose_backend
from safe_rl_ros.envs.observers import make_observer
from safe_rl_ros.envs.robot_spec import load_robot_spec
from safe_rl_ros.training.calibrate import CalibrationRequest, calibrate_run, stopping_steps
from safe_rl_ros.training.collection import collect_dataset
from safe_rl_ros.training.collection_config import CollectionConfig
from safe_rl_ros.training.run import open_session, prepare_directory, train
from safe_rl_ros.training.session import InProcessSession
from safe_rl_ros.training.session_config import SessionConfig, compose_session
from safe_rl_ros.training.stored_run import evaluate_run, load_run
from safe_rl_ros.types import ConfigError

TINY = ["training.total_steps=600", "training.steps_per_epoch=200", "algorithm.critic_updates=2", "name=tiny"]


def compose(algorithm: str = "csc", *changes: str) -> SessionConfig:
    return compose_session("joint_reach", algorithm, [*TINY, *changes])


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Train a tiny run of the arm; return its directory."""
    directory = prepare_directory(compose(), tmp_path_factory.mktemp("runs"), resume=False)
    train(compose(), directory)
    return directory


def test_a_run_trains_resumes_and_is_evaluated_in_this_process(run: Path) -> None:
    spec = load_robot_spec("arm")
    bundle = load_bundle(run / "bundle", spec_hash=spec.hash, obs_names=make_observer(spec, "joint_reach").names)
    assert bundle.critic is not None
    longer = compose("csc", "training.total_steps=800")
    train(longer, prepare_directory(longer, run.parent, resume=True))
    assert json.loads((run / "summary.json").read_text())["training"]["steps"] == 800
    found = evaluate_run(run, open_session, 2, seed=1)
    again = evaluate_run(run, open_session, 2, seed=1)
    assert [e.episode_return for e in found.episodes] == [e.episode_return for e in again.episodes]
    assert load_run(run).task.name == "joint_reach"


def test_the_same_seed_gives_the_same_run(run: Path, tmp_path: Path) -> None:
    other = prepare_directory(compose(), tmp_path, resume=False)
    train(compose(), other)
    rows = [(d / "episodes.csv").read_text().splitlines()[:3] for d in (run, other)]
    assert rows[0] == rows[1]


def test_every_command_of_a_session_is_within_a_rate_step_of_the_one_before(tmp_path: Path) -> None:
    config = compose()
    with InProcessSession(config) as session:
        spec, learner = config.robot_spec, session.env
        for seed in range(2):
            learner.reset(seed=seed)
            last = learner.unwrapped.measured_command
            for _ in range(40):
                *_, terminated, _, info = learner.step(learner.action_space.sample())
                sent = info["decision"].executed
                assert (abs(sent - last) <= spec.command_rate * spec.period_ns * 1e-9 + 1e-9).all()
                last = sent
                if terminated:
                    break


def test_a_threshold_is_calibrated_and_a_held_position_stops_in_one_decision(run: Path, tmp_path: Path) -> None:
    assert stopping_steps(load_robot_spec("arm")) == 1
    request = CalibrationRequest(miss_rate=0.5, confidence=0.5, failing=4, certify=2)
    outcome = calibrate_run(run, request, tmp_path)
    assert outcome.certificate is not None
    assert (outcome.certificate.task, outcome.certificate.lead_steps) == ("joint_reach", 1)
    assert outcome.closed_loop is not None
    assert len(outcome.closed_loop.episodes) == 2


def test_what_cannot_run_over_ros_says_why_and_auto_stays_in_this_process() -> None:
    config = compose()
    assert choose_backend(config, BackendName.auto) is BackendName.mujoco
    with pytest.raises(ConfigError, match=r"robot arm: ros.timing = 'lockstep' needs command\.stamped = true"):
        choose_backend(config, BackendName.ros)
    assert choose_backend(compose("csc", "ros.timing=realtime"), BackendName.auto) is BackendName.ros


def test_data_are_collected_on_the_arm(tmp_path: Path) -> None:
    source = {"policy": "random", "episodes": 2}
    config = CollectionConfig(name="reach", task="joint_reach", sources=[source])
    collect_dataset(config, tmp_path / "data")
    from safe_rl_ros.data.containers import open_dataset

    reader = open_dataset(tmp_path / "data")
    assert (reader.info.task, reader.info.axes) == ("joint_reach", tuple(load_robot_spec("arm").joints))
    assert len(list(reader)) == 2
