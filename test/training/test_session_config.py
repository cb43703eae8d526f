from pathlib import Path

import pytest

from safe_rl_ros.config import load_config
from safe_rl_ros.training.session_config import SessionConfig, load_session_config, write_session_config
from safe_rl_ros.types import ConfigError

NAMES = ["csc_hazard_nav.yaml", "trpo_hazard_nav.yaml", "q_ensembles_hazard_nav.yaml", "demo.yaml"]


@pytest.mark.parametrize("name", NAMES)
def test_shipped_sessions_are_valid_and_read_back_equal(name: str, tmp_path: Path) -> None:
    config = load_session_config(name)
    again = load_config(SessionConfig, write_session_config(config, tmp_path))
    assert again == config
    stored = config.model_copy(update={"robot": str(tmp_path / "robot.yaml")})
    assert stored.robot_spec.hash == config.robot_spec.hash


def test_task_overrides_reach_a_task_that_is_a_file_name() -> None:
    config = load_session_config("csc_hazard_nav.yaml", ["task.hazards=3"])
    assert config.task.hazards == 3
    assert config.task.goal_bonus == 1.0


def test_overrides_reach_a_randomisation_that_is_a_name() -> None:
    named = load_session_config("csc_rover_randomised.yaml").randomisation
    changed = load_session_config(
        "csc_rover_randomised.yaml", ["randomisation.mass_scale=1.5", "randomisation.lag_s={uniform: [0.0, 0.2]}"]
    ).randomisation
    assert (changed.mass_scale, changed.lag_s.ends) == (1.5, (0.0, 0.2))
    assert changed.model_copy(update={"mass_scale": named.mass_scale, "lag_s": named.lag_s}) == named


def test_overrides_reach_data_that_are_a_path(tmp_path: Path) -> None:
    session = tmp_path / "session.yaml"
    task = "{name: point_robot}"
    session.write_text(f"name: bc\nseed: 0\ntask: {task}\nalgorithm: {{name: bc}}\ndata: {tmp_path}/none\n")
    with pytest.raises(ConfigError, match=r"evaluate_every = -1.*greater than or equal to 0"):
        load_session_config(session, ["data.evaluate_every=-1"])
    with pytest.raises(ConfigError, match=f"{tmp_path}/none"):
        load_session_config(session, ["data.evaluate_every=0"])


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("training.total_step=1", r"training\.total_step = 1: unknown key"),
        ("training.steps_per_epoch=1", r"training\.steps_per_epoch = 1"),
        ("algorithm.alhpa=1", r"alhpa"),
        ("algorithm.name=ppo", r"ppo"),
        ("robot=nobody.yaml", r"nobody\.yaml.*does not exist"),
        ("task=nothing.yaml", r"nothing\.yaml.*does not exist"),
        ("name=../evil", r"name = '\.\./evil'"),
        ("filter.proposal_timeout_s=-1", r"filter\.proposal_timeout_s = -1"),
        ("ros.domain_id=233", r"ros\.domain_id = 233"),
    ],
)
def test_each_mistake_is_one_error_that_names_it(override: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_session_config("csc_hazard_nav.yaml", [override])


def test_epochs_cover_the_budget() -> None:
    config = load_session_config("csc_hazard_nav.yaml", ["training.total_steps=4001", "training.steps_per_epoch=2000"])
    assert config.training.epochs == 3
