from pathlib import Path
from typing import Any

import pytest

from safe_rl_ros.algorithms import ALGORITHMS
from safe_rl_ros.config import load_config
from safe_rl_ros.envs.vector import SIMULATED_TASKS
from safe_rl_ros.training import algorithm_settings, session_config
from safe_rl_ros.training.algorithm_settings import merge
from safe_rl_ros.training.comparison import group_runs
from safe_rl_ros.training.metrics import write_csv
from safe_rl_ros.training.run import open_session
from safe_rl_ros.training.run_records import load_record
from safe_rl_ros.training.session_config import (
    TASK_NAMES,
    SessionConfig,
    compose_session,
    load_session_config,
    write_session_config,
)
from safe_rl_ros.types import ConfigError


def test_the_tasks_of_a_session_are_the_robot_s_and_all_simulated_ones() -> None:
    assert set(TASK_NAMES) == {"hazard_nav", "joint_reach", *SIMULATED_TASKS}
    assert len(TASK_NAMES) == len(set(TASK_NAMES))


@pytest.mark.parametrize("algorithm", sorted(ALGORITHMS))
def test_every_algorithm_composes_with_every_task_and_reads_back_equal(algorithm: str, tmp_path: Path) -> None:
    for task in TASK_NAMES:
        if task == "safety_gymnasium":
            continue  # needs an id
        config = compose_session(task, algorithm, ["seed=3"])
        assert (config.task.name, config.algorithm.name, config.seed) == (task, algorithm, 3)
        assert config.name == f"{algorithm}_{task}_seed3"
        assert (config.robot is None) is config.simulated
        directory = tmp_path / config.name
        assert load_config(SessionConfig, write_session_config(config, directory)) == config
        assert (directory / "robot.yaml").exists() is not config.simulated


@pytest.mark.parametrize("algorithm", ["csc", "q_ensembles", "trpo"])
def test_on_the_robot_s_task_names_give_the_shipped_session(algorithm: str) -> None:
    shipped = load_session_config(f"{algorithm}_hazard_nav.yaml")
    composed = compose_session("hazard_nav", algorithm)
    assert composed.algorithm == shipped.algorithm
    assert composed.filter == shipped.filter
    assert composed.task == shipped.task
    assert composed.robot == shipped.robot
    for key in ("total_steps", "steps_per_epoch", "buffer_capacity"):
        assert getattr(composed.training, key) == getattr(shipped.training, key)


@pytest.mark.parametrize("algorithm", ["cpo", "cppo", "offcpo", "offtrc", "trc", "wcsac"])
def test_the_cost_limits_fit_tasks_of_many_violations_and_the_one_that_ends_with_the_first(
    algorithm: str, tmp_path: Path
) -> None:
    # Where a failure ends the episode: one failure in ten episodes costs .1 each.
    for task, per_episode in (("point_goal", 25.0), ("hazard_nav", 0.1), ("joint_reach", 0.1)):
        config: Any = compose_session(task, algorithm)
        length = config.task.max_episode_steps
        assert config.algorithm.cost_limit * length == pytest.approx(per_episode)
        if algorithm == "wcsac":
            assert config.algorithm.horizon == length
        directory = tmp_path / task
        write_session_config(config, directory)
        write_csv(directory / "metrics.csv", [{"epoch": 0, "steps": 1000}])
        (groups,) = group_runs([load_record(directory)]).values()
        assert groups[0].limit == pytest.approx(per_episode)


def test_an_epoch_has_200_rows_of_each_environment_as_offtrc_says() -> None:
    training = compose_session("point_goal", "offtrc").training
    assert training.steps_per_epoch // training.num_envs == 200


def test_no_other_algorithm_has_a_cost_limit() -> None:
    limited = {name for name, (config, _) in ALGORITHMS.items() if "cost_limit" in config.model_fields}
    assert limited == {"cpo", "cppo", "offcpo", "offtrc", "trc", "wcsac"}


def test_later_settings_win_and_the_rest_stays(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "trpo.yaml").write_text(
        "algorithm: {gamma: .9, max_kl: .02, gae_lambda: .5}\nfilter: {critic: off}\ntraining: {total_steps: 4000}\n"
        "tasks: {point_goal: {algorithm: {max_kl: .03, gae_lambda: .6}, training: {num_envs: 8}}}\n".replace(
            "critic: off", 'critic: "off"'
        )
    )
    monkeypatch.setattr(algorithm_settings, "find_resource", lambda name, kind: tmp_path / name)
    config: Any = compose_session("point_goal", "trpo", ["algorithm.gae_lambda=.7", "name=mine"])
    assert (config.algorithm.gamma, config.algorithm.max_kl, config.algorithm.gae_lambda) == (0.9, 0.03, 0.7)
    assert (config.training.total_steps, config.training.num_envs, config.name) == (4000, 8, "mine")
    other: Any = compose_session("car_goal", "trpo")
    assert (other.algorithm.max_kl, other.training.num_envs) == (0.02, 5)
    (tmp_path / "trpo.yaml").write_text("tasks: {lunar_lander: {}}\n")
    with pytest.raises(ConfigError, match="lunar_lander"):
        compose_session("point_goal", "trpo")
    (tmp_path / "trpo.yaml").write_text("algorithm: {name: csc}\n")
    with pytest.raises(ConfigError, match=r"algorithm\.name = 'csc', expected 'trpo'"):
        compose_session("point_goal", "trpo")
    (tmp_path / "trpo.yaml").write_text("trainign: {}\n")
    with pytest.raises(ConfigError, match="trainign"):
        compose_session("point_goal", "trpo")


def test_a_task_may_be_a_file_of_one_s_own(tmp_path: Path) -> None:
    file = tmp_path / "short.yaml"
    file.write_text("name: point_goal\nmax_episode_steps: 20\n")
    config = compose_session(str(file), "trpo")
    assert config.name == "trpo_short_seed0"
    assert config.task.max_episode_steps == 20
    file.write_text("name: moon_goal\n")
    with pytest.raises(ConfigError, match=r"moon_goal.*hazard_nav.*point_goal"):
        compose_session(str(file), "trpo")


@pytest.mark.parametrize(
    ("task", "algorithm", "overrides", "message"),
    [
        ("pointgoal", "trpo", [], r"task 'pointgoal' is unknown, expected one of: hazard_nav, joint_reach, point_goal"),
        ("joint_hold", "trpo", [], r"task 'joint_hold' is unknown"),
        ("nowhere.yaml", "trpo", [], r"nowhere\.yaml.*does not exist"),
        ("point_goal", "ppo", [], r"algorithm 'ppo' is unknown, expected one of: .*csc.*trpo"),
        ("point_goal", "trpo", ["algorithm.alhpa=1"], "alhpa"),
        ("point_goal", "trpo", ["task.hazard=1"], "hazard"),
        ("point_goal", "trpo", ["robot=rover.yaml"], r"robot is 'rover\.yaml'.*simulated"),
        ("hazard_nav", "trpo", ["robot=null"], "robot is missing"),
        ("point_goal", "trpo", ["training.num_envs=7"], r"multiple of training\.num_envs \(7\)"),
        ("point_goal", "trpo", ["training.num_envs=0"], r"num_envs = 0"),
    ],
)
def test_each_mistake_is_one_error_that_names_it(task: str, algorithm: str, overrides: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        compose_session(task, algorithm, overrides)


def test_a_task_without_a_name_is_the_one_that_had_none() -> None:
    config = load_session_config("csc_hazard_nav.yaml")
    data = config.model_dump(mode="json")
    del data["task"]["name"]
    assert SessionConfig.model_validate(data) == config


def test_merge_keeps_what_is_not_changed() -> None:
    base = {"a": {"x": 1, "y": 2}, "b": [1]}
    assert merge(base, {"a": {"y": 3}, "b": [2], "c": 4}) == {"a": {"x": 1, "y": 3}, "b": [2], "c": 4}
    assert base == {"a": {"x": 1, "y": 2}, "b": [1]}


def test_a_simulated_session_has_no_robot_and_says_so(tmp_path: Path) -> None:
    config = compose_session("point_goal", "trpo")
    with pytest.raises(ConfigError, match="has no robot"):
        _ = config.robot_spec
    with pytest.raises(ConfigError, match="has no robot"):
        _ = config.robot_task
    with pytest.raises(ConfigError, match="is a robot's"):
        _ = load_session_config("csc_hazard_nav.yaml").simulated_task
    session = open_session(config, tmp_path)
    assert session.obs_dim == len(session.obs_names) == 24
    session.close()
    assert session_config.resolve(config) is config
