"""A robot that is moved by its joints is observed alike in process, over ROS and from a recorded bag, bit for bit."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("rclpy")
pytest.importorskip("pybullet")
pytestmark = [pytest.mark.ros, pytest.mark.patient]

from joint_helpers import TASK, stamped, walk  # noqa: E402
from ros_helpers import bench, start_filter, start_twin  # noqa: E402
from test_joint_twin_node import Stepped  # noqa: E402

from safe_rl_ros.bags.bag_import import import_bags  # noqa: E402
from safe_rl_ros.bags.bag_topics import load_contract  # noqa: E402
from safe_rl_ros.bags.reader import BagReader  # noqa: E402
from safe_rl_ros.data.episodes import Episode  # noqa: E402
from safe_rl_ros.envs.observation import CommandMap  # noqa: E402
from safe_rl_ros.envs.observers import make_observer  # noqa: E402
from safe_rl_ros.envs.robot_spec import RobotSpec, load_robot_spec  # noqa: E402
from safe_rl_ros.envs.twins import make_joint_twin  # noqa: E402
from safe_rl_ros.messages.imu import read_imu  # noqa: E402
from safe_rl_ros.resources import find_resource  # noqa: E402
from safe_rl_ros.ros.recorder_node import RecorderNode  # noqa: E402
from safe_rl_ros.ros.robot_backend import RosBackend  # noqa: E402
from safe_rl_ros.ros.supervisor import Supervisor, ros_arguments  # noqa: E402
from safe_rl_ros.ros.twin_node import TwinNode  # noqa: E402
from safe_rl_ros.types import FloatArray, RobotState  # noqa: E402

ROBOTS = ("panda", "laikago")
STEPS = 30


class Kept(list[Episode]):
    """A sink that keeps everything."""

    add = list.append


def by_stamp(directory: Path, robot: str, spec: Path | None = None) -> Path:
    """Write the robot's own contract, by simulated time, and for another spec if one is given."""
    text = find_resource(f"{robot}.yaml", "config/contracts").read_text()
    assert "clock: log" in text
    text = text.replace("clock: log", "clock: stamp")
    path = directory / "agreed.yaml"
    path.write_text(text if spec is None else text.replace(f"robot: {robot}.yaml", f"robot: {spec}"))
    return path


def in_process(spec: RobotSpec, seed: int, commands: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return what the twin here shows (N + 1, O) under commands, and these as actions (N, C)."""
    twin, observer = make_joint_twin(spec), make_observer(spec, TASK)
    states = [twin.reset(seed), *(twin.step(command).state for command in commands)]
    actions = np.clip(CommandMap(spec).to_action(commands), -1.0, 1.0).astype(np.float32)
    return np.array([observer.observe(state, None) for state in states]), actions


def observed(spec: RobotSpec, states: list[RobotState]) -> FloatArray:
    return np.array([make_observer(spec, TASK).observe(state, None) for state in states])


def imported(directory: Path, agreed: Path) -> Episode:
    (bag,) = directory.iterdir()
    episodes = Kept()
    import_bags([bag], load_contract(agreed), episodes)
    return episodes[-1]


def assert_equal(episode: Episode, obs: FloatArray, actions: FloatArray) -> None:
    """Compare with what was done; the last step of a recording may lack its end."""
    steps = len(episode)
    assert len(actions) - 1 <= steps <= len(actions)
    assert episode.obs.tobytes() == obs[: steps + 1].tobytes()
    assert episode.action.tobytes() == actions[:steps].tobytes()


def assert_imu_equal(directory: Path, spec: RobotSpec, commands: FloatArray, shown: list[RobotState]) -> None:
    """Compare the imu of states shown over ROS, of the twin here, and of the bag's last messages."""
    twin, (bag,) = make_joint_twin(spec), directory.iterdir()
    states = [twin.reset(4), *(twin.step(command).state for command in commands)]
    with BagReader(bag) as reader:
        parts = [read_imu(reader.read(message)) for message in reader.messages(["/imu"])][-len(states) :]
    for here, there, part in zip(states, shown, parts, strict=True):
        for name in ("orientation", "angular_velocity", "linear_acceleration"):
            expected = getattr(here, f"imu_{name}").tobytes()
            assert getattr(there, f"imu_{name}").tobytes() == getattr(part, name).tobytes() == expected, name
    assert np.ptp([state.imu_linear_acceleration for state in states], axis=0).min() > 0.1


@pytest.mark.parametrize("robot", ROBOTS)
def test_by_lists_of_positions(robot: str, tmp_path: Path):
    spec = load_robot_spec(robot)
    start = make_joint_twin(spec).reset(4).joint_position
    commands = walk(spec, start, STEPS)
    expected, actions = in_process(spec, 4, commands)
    agreed = by_stamp(tmp_path, robot)
    values = {"robot": robot, "task": TASK, "timing": "realtime", "reset_seed": 4}
    values |= {"contract": str(agreed), "directory": str(tmp_path / "bags")}
    with bench(TwinNode, values) as setup:
        recorder = RecorderNode()
        setup.executor.add_node(recorder)
        counts, topic = recorder.recorder.counts, f"/{spec.command.topic}"
        stepped = Stepped(setup, robot)
        assert setup.run(lambda: all(topic.get_subscription_count() >= 2 for topic, _ in setup.node._sensors))
        assert setup.run(lambda: stepped.controller.publisher.get_subscription_count() >= 2)
        setup.node._reset(4)  # once everybody listens
        assert setup.run(lambda: counts["/joint_states"] > 0 and bool(stepped.controller.seen))
        shown, heard = [stepped.controller.last], counts["/joint_states"]
        names = [name for name in counts if name in ("/joint_states", "/imu")]
        for index, command in enumerate(commands):
            stepped.command(command)
            assert setup.run(lambda number=index: counts[topic] > number)
            shown.append(stepped.tick())
            assert setup.run(lambda number=heard + index: all(counts[name] > number for name in names))
        for node in (recorder, stepped.controller):
            node.destroy_node()
    assert observed(spec, shown).tobytes() == expected.tobytes()
    assert np.abs(expected[-1] - expected[0]).max() > 0.02
    assert_equal(imported(tmp_path / "bags", agreed), expected, actions)
    if spec.sensors.imu is not None:  # no observation holds it: compared as it is
        assert_imu_equal(tmp_path / "bags", spec, commands, shown)


@pytest.mark.parametrize("robot", ROBOTS)
def test_by_trajectories_in_lockstep_behind_the_filter(robot: str, tmp_path: Path, ros_domain_id: int):
    path = stamped(tmp_path, robot)
    spec, agreed = load_robot_spec(path), by_stamp(tmp_path, robot, path)
    values = {"robot": str(path), "task": TASK}
    with Supervisor(ros_domain_id, tmp_path / "log") as processes:
        recording = {"contract": str(agreed), "directory": str(tmp_path / "bags")}
        processes.start("recorder", "safe_rl_ros.ros.recorder_node", ros_arguments(recording))
        start_twin(processes, **values)
        start_filter(processes, critic="off", **values)
        with RosBackend(spec, domain_id=ros_domain_id) as backend:
            backend.wait_ready(processes.check)
            for command in (first := backend.reset(1).joint_position, first, first):
                backend.step(command)
            time.sleep(3.5)  # longer than the middleware may take until the recorder hears everybody (ros.qos)
            states, executed, proposed = [backend.reset(2)], [], walk(spec, first, STEPS, seed=2)
            for command in proposed:
                result = backend.step(command)
                states.append(result.state)
                executed.append(result.decision.executed)
            time.sleep(0.5)  # what is on its way
        assert processes.end("recorder") == 0
    expected, actions = in_process(spec, 2, np.array(executed))
    assert observed(spec, states).tobytes() == expected.tobytes()
    episode = imported(tmp_path / "bags", agreed)
    assert_equal(episode, expected, actions)
    assert episode.behaviour is not None
    asked = CommandMap(spec).to_action(proposed)[: len(episode)]
    np.testing.assert_allclose(episode.behaviour.proposed, asked, atol=1e-6)
