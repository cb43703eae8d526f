"""Training an arm over ROS 2: twin, filter and learner as processes; by stamped trajectories, and in real time."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("rclpy")
pytest.importorskip("pybullet")
pytestmark = pytest.mark.ros

from joint_helpers import stamped  # noqa: E402
from ros_helpers import assert_equal_runs, start_filter, start_twin  # noqa: E402
from spec_files import ARM_SLOW, write_spec  # noqa: E402

from safe_rl_ros.data.spool import SpoolReader  # noqa: E402
from safe_rl_ros.envs.observers import make_observer  # noqa: E402
from safe_rl_ros.envs.robot_spec import load_robot_spec  # noqa: E402
from safe_rl_ros.ros.actor_session import SupervisedActorSession  # noqa: E402
from safe_rl_ros.ros.robot_backend import RosBackend  # noqa: E402
from safe_rl_ros.ros.session import RosSession  # noqa: E402
from safe_rl_ros.ros.supervisor import Supervisor  # noqa: E402
from safe_rl_ros.training.metrics import read_csv  # noqa: E402
from safe_rl_ros.training.run import prepare_directory, train  # noqa: E402
from safe_rl_ros.training.session_config import SessionConfig, compose_session  # noqa: E402

SMALL = [
    "training.total_steps=240",
    "training.steps_per_epoch=120",
    "algorithm.critic_updates=2",
    "algorithm.threshold_mode=fixed",
    "algorithm.fixed_threshold=0.05",  # an untrained critic's answer: about half of the proposals are vetoed
]
SHORT = "task.max_episode_steps=40"


def compose(*changes: str) -> SessionConfig:
    return compose_session("joint_reach", "csc", [*SMALL, SHORT, *changes])


@pytest.mark.patient
@pytest.mark.parametrize("varied", [[], ["randomisation=arm"]])
def test_in_lock_step_it_equals_training_in_process(tmp_path: Path, varied: list[str]):
    # Every episode starts elsewhere, and the filter of positions has to go on from there: 6 resets.
    config = compose(f"robot={stamped(tmp_path, 'arm')}", "name=arm", "task.start_noise=0.3", *varied)
    here = prepare_directory(config, tmp_path / "here", resume=False)
    ros = prepare_directory(config, tmp_path / "ros", resume=False)
    train(config, here)
    summary = train(config, ros, RosSession)
    assert summary["finished"]
    assert_equal_runs(here, ros)


def test_in_real_time_the_filter_goes_on_from_where_a_reset_put_the_arm(tmp_path: Path, ros_domain_id: int):
    spec = load_robot_spec("arm")
    values = {"robot": "arm", "task": "joint_reach"}
    slack = {"observation_timeout_s": 1.0, "proposal_timeout_s": 1.0}
    away = np.array([0.6, 0.3, 0.9])
    with Supervisor(ros_domain_id, tmp_path) as processes:
        start_twin(processes, "realtime", **values)
        start_filter(processes, "realtime", critic="off", follow_resets=True, **values, **slack)
        with RosBackend(spec, timing="realtime", domain_id=ros_domain_id) as backend:
            backend.wait_ready(processes.check)
            start = backend.reset(1).joint_position
            for _ in range(60):
                moved = backend.step(away).state.joint_position
            assert np.abs(moved - start).min() > 0.2
            again = backend.reset(2).joint_position
            assert np.abs(again - start).max() < 0.25  # the task's noise, and a period or two of hold
            executed = [backend.step(again).decision.executed for _ in range(20)]
            late = backend.step(again).state.joint_position
        processes.check()
    # Without a new start the filter would lead the arm on from where it was sent before.
    assert np.abs(executed[0] - moved).max() > 0.1
    np.testing.assert_allclose(late, again, atol=0.02)
    most = 1.5 * spec.command_rate * spec.period_ns * 1e-9
    assert (np.abs(np.diff(executed, axis=0)) <= most + 1e-9).all()


@pytest.mark.patient
def test_training_in_real_time_takes_lists_of_positions(tmp_path: Path):
    small = [f"robot={write_spec(tmp_path / 'spec', 'arm', ARM_SLOW)}", "training.total_steps=60", "name=slow"]
    small += ["training.steps_per_epoch=60", "ros.timing=realtime", "ros.step_timeout_s=2.0"]
    config = compose(*small, "filter.observation_timeout_s=1.0", "filter.proposal_timeout_s=1.0")
    directory = prepare_directory(config, tmp_path, resume=False)
    assert train(config, directory, RosSession)["finished"]
    (row,) = read_csv(directory / "metrics.csv")
    assert row["steps"] == 60
    assert np.isfinite(row["margin_min"])


def test_an_actor_acts_on_the_arm_while_the_learner_learns(tmp_path: Path):
    robot = write_spec(tmp_path / "spec", "arm", ARM_SLOW)
    small = [f"robot={robot}", "training.total_steps=80", "training.steps_per_epoch=40", "name=acting"]
    ros = ["ros.timing=realtime", "ros.acting=actor", "ros.step_timeout_s=2.0", "ros.nice=0"]
    patient = ["filter.observation_timeout_s=1.0", "filter.proposal_timeout_s=1.0"]
    config = compose(*small, *ros, *patient, "task.start_noise=0.3")
    directory = prepare_directory(config, tmp_path, resume=False)
    assert train(config, directory, SupervisedActorSession)["finished"]
    observer = make_observer(load_robot_spec(robot), "joint_reach")
    reader = SpoolReader(directory / "spool", observer.names, 3, load_robot_spec(robot).hash)
    episodes = [reader.read(number) for number in range(reader.next_number())]
    assert sum(len(episode) for episode in episodes) >= 80
    assert {episode.notes.ending for episode in episodes} <= {"time_limit", "terminated", "shutdown"}
    # Every episode begins where a reset put the arm, at rest, and the filter goes on from there.
    assert np.ptp([episode.batch.obs[0, :3] for episode in episodes], axis=0).min() > 0.01
    for episode in episodes:
        assert np.abs(episode.batch.obs[0, 3:]).max() < 0.1
        assert episode.answered.mean() > 0.5
