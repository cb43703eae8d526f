"""A session names the simulator of its robot's twin; what has no robot or needs MuJoCo refuses another."""

from __future__ import annotations

from pathlib import Path

import pytest

from safe_rl_ros.config import dump_yaml
from safe_rl_ros.envs.vector import load_simulated_task, make_vector_env
from safe_rl_ros.resources import find_resource
from safe_rl_ros.training.session_config import compose_session, load_session_config, write_session_config
from safe_rl_ros.types import ConfigError

SESSION = "csc_hazard_nav.yaml"


def test_a_session_names_its_simulator_and_keeps_the_robots_hash(tmp_path: Path) -> None:
    plain, bullet = load_session_config(SESSION), load_session_config(SESSION, ["simulator=pybullet"])
    assert plain.robot_spec.twin.simulator == "mujoco"
    assert bullet.robot_spec.twin.simulator == "pybullet"
    assert plain.robot_spec.hash == bullet.robot_spec.hash
    assert "simulator" not in dump_yaml(plain)
    assert load_session_config(write_session_config(bullet, tmp_path)) == bullet


def test_a_session_follows_the_robot_spec_unless_it_says_otherwise(tmp_path: Path) -> None:
    text = find_resource("rover.yaml", "config/robots").read_text()
    robot = tmp_path / "bullet.yaml"
    robot.write_text(text.replace("\ntwin:\n", "\ntwin:\n  simulator: pybullet\n"))
    assert load_session_config(SESSION, [f"robot={robot}"]).robot_spec.twin.simulator == "pybullet"
    assert load_session_config(SESSION, [f"robot={robot}", "simulator=mujoco"]).robot_spec.twin.simulator == "mujoco"


def test_other_simulators_and_tasks_without_a_robot_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"simulator = 'gazebo': .*'mujoco' or 'pybullet'"):
        load_session_config(SESSION, ["simulator=gazebo"])
    with pytest.raises(ConfigError, match="simulator is 'pybullet', but task 'point_goal' has no robot"):
        compose_session("point_goal", "trc", ["simulator=pybullet"])


def test_vector_environments_refuse_a_robot_of_another_simulator(tmp_path: Path) -> None:
    text = find_resource("jackal.yaml", "config/robots").read_text()
    robot = tmp_path / "bullet.yaml"
    robot.write_text(text.replace("\ntwin:\n", "\ntwin:\n  simulator: pybullet\n"))
    task = load_simulated_task("jackal_nav", [f"robot={robot}"])
    with pytest.raises(ConfigError, match=r"robot jackal: twin\.simulator is 'pybullet'; .*mujoco\.rollout.* 'mujoco'"):
        make_vector_env(task, 2)
