"""The twin's node over PyBullet: bit for bit the twin in process in lock-step, at its rate in real time."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("rclpy")
pytest.importorskip("pybullet")
pytestmark = pytest.mark.ros

from ros_helpers import GOAL, PERIOD_NS, SPEC, TASK, bench, start_filter, start_twin  # noqa: E402
from test_ros_session import SMALL  # noqa: E402
from test_twin_node import Driver  # noqa: E402

from safe_rl_ros.envs.pybullet_backend import PybulletBackend  # noqa: E402
from safe_rl_ros.envs.tasks.hazard_nav import HazardNav  # noqa: E402
from safe_rl_ros.resources import find_resource  # noqa: E402
from safe_rl_ros.ros.robot_backend import RosBackend  # noqa: E402
from safe_rl_ros.ros.session import RosSession  # noqa: E402
from safe_rl_ros.ros.supervisor import Supervisor  # noqa: E402
from safe_rl_ros.ros.twin_node import TwinNode  # noqa: E402
from safe_rl_ros.training.metrics import read_csv  # noqa: E402
from safe_rl_ros.training.run import prepare_directory, train  # noqa: E402
from safe_rl_ros.training.session_config import load_session_config  # noqa: E402

LAYOUT = HazardNav(TASK, SPEC.base_radius_m).layout
GO = np.array([0.3, 0.4])


def robot_file(directory: Path) -> str:
    """Write the rover's spec with PyBullet as its simulator."""
    text = find_resource("rover.yaml", "config/robots").read_text()
    assert text.count("\ntwin:\n") == 1
    path = directory / "rover.yaml"
    path.write_text(text.replace("\ntwin:\n", "\ntwin:\n  simulator: pybullet\n"))
    return str(path)


@pytest.mark.parametrize("by", ["parameter", "spec"])
def test_a_node_uses_the_simulator_of_its_parameter_or_spec(by: str, tmp_path: Path) -> None:
    choice = {"simulator": "pybullet"} if by == "parameter" else {"robot": robot_file(tmp_path)}
    backend = PybulletBackend(SPEC, LAYOUT)
    with bench(TwinNode, {"timing": "lockstep", **choice}) as setup:
        driver = Driver(setup)
        assert driver.setup.run(lambda: "/twin" in driver.setup.harness.diagnostics, 3.0)
        assert setup.harness.diagnostics["/twin"]["simulator"] == "pybullet"
        for seed in (3, 4, 3):
            driver.follow(backend, seed)


@pytest.mark.patient
def test_lockstep_in_a_process_of_its_own_equals_the_twin_here(tmp_path: Path, ros_domain_id: int) -> None:
    here = PybulletBackend(SPEC, LAYOUT)
    with Supervisor(ros_domain_id, tmp_path) as processes:
        start_twin(processes, namespace="bullet", robot=robot_file(tmp_path))
        start_filter(processes, namespace="bullet", critic="off")
        with RosBackend(SPEC, domain_id=ros_domain_id, namespace="bullet") as backend:
            backend.wait_ready(processes.check)
            for seed in (5, 6):
                state, expected = backend.reset(seed), here.reset(seed)
                start = state.stamp_ns
                backend.set_goal(GOAL, start)
                for count in range(1, 16):
                    result = backend.step(GO)
                    expected = here.step(result.decision.executed).state
                    assert result.state.stamp_ns == start + count * PERIOD_NS
                    for name in ("position", "orientation", "linear_velocity", "joint_velocity", "ranges"):
                        assert getattr(result.state, name).tobytes() == getattr(expected, name).tobytes(), name


def test_real_time_in_a_process_of_its_own(tmp_path: Path, ros_domain_id: int) -> None:
    with Supervisor(ros_domain_id, tmp_path) as processes:
        start_twin(processes, "realtime", "bullet_rt", simulator="pybullet")
        start_filter(processes, "realtime", "bullet_rt", critic="off")
        options = {"timing": "realtime", "domain_id": ros_domain_id, "namespace": "bullet_rt", "step_timeout_s": 1.0}
        with RosBackend(SPEC, **options) as backend:
            backend.wait_ready(processes.check)
            state = backend.reset(3)
            backend.set_goal(GOAL, state.stamp_ns)
            backend.step(GO)
            begin = time.monotonic()
            states = [backend.step(GO).state for _ in range(10)]
            assert 0.9 < time.monotonic() - begin < 2.0
            stamps = [state.stamp_ns for state in states]
            assert stamps == sorted(stamps)
            assert states[-1].linear_velocity[0] > 0.2


@pytest.mark.patient
def test_training_over_ros_equals_training_in_process(tmp_path: Path) -> None:
    config = load_session_config("csc_hazard_nav.yaml", [*SMALL, "training.total_steps=200", "simulator=pybullet"])
    rows = []
    for name, session in (("here", None), ("ros", RosSession)):
        directory = prepare_directory(config, tmp_path / name, resume=False)
        train(config, directory, *([session] if session else []))
        rows.append(read_csv(directory / "metrics.csv"))
    for one, other in zip(*rows, strict=True):
        for name in ("return_mean", "failures", "veto_rate", "margin_min"):
            assert one[name] == other[name] or (one[name] != one[name] and other[name] != other[name])
    mujoco = config.model_copy(update={"simulator": None})
    directory = prepare_directory(mujoco, tmp_path / "mujoco", resume=False)
    train(mujoco, directory)
    assert read_csv(directory / "metrics.csv")[-1]["return_mean"] != rows[0][-1]["return_mean"]
