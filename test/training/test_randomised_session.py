"""Sessions on a randomised twin: the key, what a run logs, resuming, evaluating otherwise."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from safe_rl_ros.config import dump_yaml, load_config
from safe_rl_ros.envs.parameter_log import FILE, read_parameter_log
from safe_rl_ros.envs.randomisation import load_randomisation
from safe_rl_ros.envs.robot_env import RobotEnv, make_robot_env
from safe_rl_ros.training.risk_traces import Twin
from safe_rl_ros.training.rollout import episode_seed
from safe_rl_ros.training.run import open_session, prepare_directory, train
from safe_rl_ros.training.session import InProcessSession
from safe_rl_ros.training.session_config import (
    SessionConfig,
    compose_session,
    load_session_config,
    write_session_config,
)
from safe_rl_ros.training.stored_run import evaluate_run, load_run, with_randomisation
from safe_rl_ros.types import ConfigError

SESSION = "csc_hazard_nav.yaml"
TINY = [
    "training.total_steps=240",
    "training.steps_per_epoch=120",
    "task.max_episode_steps=40",
    "algorithm.critic_updates=2",
    "name=tiny",
]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Train a tiny run on the randomised twin; return its directory."""
    config = load_session_config(SESSION, [*TINY, "randomisation=rover"])
    directory = prepare_directory(config, tmp_path_factory.mktemp("runs"), resume=False)
    train(config, directory)
    return directory


def test_the_key_takes_a_name_a_file_or_ranges(tmp_path: Path) -> None:
    named = load_session_config(SESSION, ["randomisation=rover"])
    assert named.randomisation == load_randomisation("rover")
    file = tmp_path / "mine.yaml"
    file.write_text("lag_s: {uniform: [0.0, 0.1]}\n")
    from_file = load_session_config(SESSION, [f"randomisation={file}"])
    inline = load_session_config(SESSION, ["randomisation.lag_s.uniform=[0.0, 0.1]"])
    assert from_file.randomisation == inline.randomisation
    assert named.robot_spec.hash == load_session_config(SESSION).robot_spec.hash


def test_the_runs_configuration_holds_the_ranges_themselves(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("lag_s: {uniform: [0.0, 0.1]}\n")
    config = load_session_config(SESSION, [f"randomisation={file}"])
    written = write_session_config(config, tmp_path / "run")
    file.unlink()
    assert load_session_config(written) == config


def test_older_sessions_load_and_are_written_as_ever(tmp_path: Path) -> None:
    plain = load_session_config(SESSION)
    assert plain.randomisation is None
    assert "randomisation" not in dump_yaml(plain)
    path = write_session_config(plain, tmp_path)
    assert load_config(SessionConfig, path).randomisation is None


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["randomisation=nowhere"], r"'nowhere\.yaml' does not exist"),
        (["randomisation.lag=0.1"], "randomisation.lag = 0.1: unknown key"),
        (["randomisation.lag_s=2.0"], "lag_s"),
    ],
)
def test_a_wrong_randomisation_is_one_error(overrides: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_session_config(SESSION, overrides)


def test_a_task_without_a_robot_refuses_it() -> None:
    with pytest.raises(ConfigError, match="randomisation is given, but task 'point_goal' has no robot"):
        compose_session("point_goal", "trc", ["randomisation=rover"])


def replay(env: RobotEnv, seed: int) -> list[bytes]:
    seen = [env.reset(seed=seed)[0].tobytes()]
    seen += [env.step(np.array([0.5, 0.3], dtype=np.float32))[0].tobytes() for _ in range(10)]
    return seen


def test_a_run_logs_its_episodes_and_they_can_be_run_again(run: Path) -> None:
    logged = read_parameter_log(run / FILE)
    seeds = {episode_seed(0, epoch, 0) for epoch in (0, 1)}
    assert seeds <= {episode.seed for episode in logged}
    assert len({episode.parameters.mass_scale for episode in logged}) == len(logged) >= 4
    for seed, parameters in logged[:2]:
        again = replay(make_robot_env(randomisation=parameters), seed)
        assert again == replay(make_robot_env(randomisation="rover"), seed)
        assert again != replay(make_robot_env(), seed)


def test_a_run_resumed_adds_its_episodes_and_repeats_none(run: Path) -> None:
    before = read_parameter_log(run / FILE)
    longer = ["training.total_steps=360", *TINY[1:], "randomisation=rover"]
    config = load_session_config(SESSION, longer)
    train(config, prepare_directory(config, run.parent, resume=True))
    after = read_parameter_log(run / FILE)
    assert after[: len(before)] == before
    assert len(after) == len({episode.seed for episode in after}) > len(before)
    with pytest.raises(ConfigError, match="made with another randomisation"):
        prepare_directory(load_session_config(SESSION, longer[:-1]), run.parent, resume=True)


def test_evaluation_is_randomised_as_training_was_unless_told(run: Path) -> None:
    def returns(randomisation: str | None) -> list[float]:
        episodes = evaluate_run(run, open_session, 2, 0, randomisation=randomisation).episodes
        return [episode.episode_return for episode in episodes]

    own, named, none = returns(None), returns("rover"), returns("none")
    assert own == named
    assert own != none
    config = load_run(run)
    assert with_randomisation(config, "none").randomisation is None
    assert with_randomisation(config, None) is config
    with pytest.raises(ConfigError, match=r"'nowhere\.yaml' does not exist"):
        with_randomisation(config, "nowhere")


def test_calibration_sees_the_same_twins(run: Path) -> None:
    config = load_run(run)
    twin, session = Twin(config), InProcessSession(config)
    infos = [env.reset(seed=5)[1]["twin_parameters"] for env in (twin._env, session.env)]
    session.close()
    assert infos[0] == infos[1] == load_randomisation("rover").draw(5).model_dump()


def test_a_run_without_randomisation_logs_none(tmp_path: Path) -> None:
    with InProcessSession(load_session_config(SESSION), tmp_path) as session:
        session.env.reset(seed=1)
    assert not (tmp_path / FILE).exists()
    assert json.dumps(load_session_config(SESSION).model_dump(mode="json")).count("randomisation") == 0
