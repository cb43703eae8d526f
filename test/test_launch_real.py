"""The launch files with the real `launch`, which comes with a ROS 2 installation and not from wheels."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from launch_stand_ins import ROOT
from rosbags.highlevel import AnyReader

needs_launch = pytest.mark.skipif(
    importlib.util.find_spec("launch_ros") is None,
    reason="launch_ros is not installed: it comes with a ROS 2 installation, not from wheels",
)
pytestmark = [pytest.mark.ros, needs_launch]


def tiny_session(directory: Path) -> Path:
    """Write the configuration of a session of 60 steps."""
    session = directory / "tiny.yaml"
    session.write_text(
        "name: tiny\nseed: 1\nrobot: rover.yaml\ntask: hazard_nav.yaml\nalgorithm: {name: csc}\n"
        "training: {total_steps: 60, steps_per_epoch: 60}\n"
    )
    return session


LAUNCH_SCRIPT = """
import sys
from launch import LaunchDescription, LaunchService
from launch.actions import IncludeLaunchDescription
from launch.launch_description_sources import PythonLaunchDescriptionSource
pairs = [item.split(":=") for item in sys.argv[2:]]
service = LaunchService()
service.include_launch_description(
    LaunchDescription([IncludeLaunchDescription(PythonLaunchDescriptionSource(sys.argv[1]), launch_arguments=pairs)])
)
sys.exit(service.run())
"""


def run_launch(prefix: Path, log: Path, name: str, *arguments: str) -> subprocess.Popen[bytes]:
    """Start a launch file of the prefix with the real `launch`, its output going to ``log``."""
    prefixes = [str(prefix), os.environ["AMENT_PREFIX_PATH"]]
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    variables = {**os.environ, "AMENT_PREFIX_PATH": os.pathsep.join(prefixes), "PATH": path}
    command = [sys.executable, "-c", LAUNCH_SCRIPT, str(prefix / "share" / "safe_rl_ros" / "launch" / name), *arguments]
    with log.open("w") as output:
        return subprocess.Popen(
            command, env=variables, stdout=output, stderr=subprocess.STDOUT, cwd=log.parent, start_new_session=True
        )


def test_train_launch_records_a_session_and_the_filters_drives_by_its_policy(
    installed_prefix: Path, tmp_path: Path
) -> None:
    """For real: four processes in a namespace on simulated time, a bag; the learner's end ends the launch."""
    session = tiny_session(tmp_path)
    log = tmp_path / "launch.log"
    recorded = ["record:=true", "contract:=rover_twin.yaml", f"bags:={tmp_path / 'bags'}"]
    process = run_launch(installed_prefix, log, "train.launch.py", f"config:={session}", "namespace:=rover1", *recorded)
    try:
        assert process.wait(timeout=90) == 0, log.read_text()
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(timeout=30)
    assert log.read_text().count("process has finished cleanly") == 4
    assert '"finished": true' in (tmp_path / "runs" / "tiny" / "summary.json").read_text()
    bags = list((tmp_path / "bags").rglob("metadata.yaml"))
    assert len(bags) == 1
    with AnyReader([bags[0].parent]) as reader:
        counts = {connection.topic: connection.msgcount for connection in reader.connections}
    assert counts["/cmd_vel"] >= 60
    assert counts["/odom"] >= 60
    drives_by_its_own_policy(installed_prefix, tmp_path, tmp_path / "runs" / "tiny" / "bundle")


def drives_by_its_own_policy(prefix: Path, tmp_path: Path, bundle: Path) -> None:
    """For real: the launch file's policy node proposes, and the filter passes something on to a twin in real time."""
    import rclpy
    from geometry_msgs.msg import PoseStamped, TwistStamped
    from rclpy.signals import SignalHandlerOptions

    from safe_rl_ros.ros.supervisor import Supervisor, ros_arguments

    log = tmp_path / "own.log"
    parameters = {"robot": "rover", "task": "hazard_nav", "timing": "realtime"}
    with Supervisor(int(os.environ["ROS_DOMAIN_ID"]), tmp_path / "nodes") as nodes:
        nodes.start("twin", "safe_rl_ros.ros.twin_node", ros_arguments(parameters, namespace="rover2"))
        arguments = [f"bundle:={bundle}", "policy:=own", "critic:=off", "contract:=rover_twin.yaml"]
        process = run_launch(prefix, log, "filter.launch.py", "namespace:=rover2", *arguments)
        rclpy.init(signal_handler_options=SignalHandlerOptions.NO)
        try:
            node = rclpy.create_node("own_policy_test")
            goals = node.create_publisher(PoseStamped, "/rover2/goal_pose", 1)
            commands: list[float] = []
            node.create_subscription(
                TwistStamped,
                "/rover2/cmd_vel",
                lambda m: commands.append(abs(m.twist.linear.x) + abs(m.twist.angular.z)),
                10,
            )
            goal = PoseStamped()
            goal.header.frame_id, goal.pose.position.x, goal.pose.orientation.w = "odom", 1.0, 1.0
            deadline = time.monotonic() + 40.0
            while sum(speed > 0.0 for speed in commands) < 10 and time.monotonic() < deadline:
                goal.header.stamp = node.get_clock().now().to_msg()
                goals.publish(goal)
                rclpy.spin_once(node, timeout_sec=0.1)
            assert sum(speed > 0.0 for speed in commands) >= 10, log.read_text()
        finally:
            rclpy.try_shutdown()
            process.send_signal(signal.SIGINT)
            status = process.wait(timeout=30)
    assert status == 0, log.read_text()
    assert log.read_text().count("process has finished cleanly") == 2


def test_filter_launch_runs_and_ends_on_sigint(installed_prefix: Path, tmp_path: Path) -> None:
    """For real: the node comes up under its name with the arguments' parameters, and Ctrl-C ends everything."""
    import rclpy
    from rcl_interfaces.srv import GetParameters
    from rclpy.signals import SignalHandlerOptions

    log = tmp_path / "launch.log"
    process = run_launch(installed_prefix, log, "filter.launch.py", "namespace:=rover1", "critic:=off")
    rclpy.init(signal_handler_options=SignalHandlerOptions.NO)
    try:
        node = rclpy.create_node("launch_test")
        client = node.create_client(GetParameters, "/rover1/safety_filter/get_parameters")
        assert client.wait_for_service(timeout_sec=30.0), log.read_text()
        future = client.call_async(GetParameters.Request(names=["critic", "robot", "autostart"]))
        deadline = time.monotonic() + 10.0
        while not future.done() and time.monotonic() < deadline:
            rclpy.spin_once(node, timeout_sec=0.1)
        critic, robot, autostart = future.result().values
        assert (critic.string_value, robot.string_value, autostart.bool_value) == ("off", "rover.yaml", True)
    finally:
        rclpy.try_shutdown()
        process.send_signal(signal.SIGINT)
        status = process.wait(timeout=30)
    assert status == 0, log.read_text()
    assert "process has finished cleanly" in log.read_text()


def test_robot_launch_puts_a_bundle_onto_the_stand_in(installed_prefix: Path, tmp_path: Path) -> None:
    """For real: stand-in, filter in shadow mode, the bundle's policy and a recorder; goals and score from another."""
    session = tiny_session(tmp_path)
    train = [sys.executable, "-m", "safe_rl_ros.cli", "train", str(session), "--runs", str(tmp_path / "runs")]
    subprocess.run(train, check=True, capture_output=True, timeout=100)
    log = tmp_path / "launch.log"
    given = {"robot": "standin", "mode": "shadow", "namespace": "rover3", "record": "true"}
    given |= {"bundle": str(tmp_path / "runs" / "tiny" / "bundle"), "bags": str(tmp_path / "bags")}
    given |= {"reveal_file": str(tmp_path / "known.json"), "config": str(session)}
    process = run_launch(installed_prefix, log, "robot.launch.py", *(f"{name}:={text}" for name, text in given.items()))
    try:
        goals = [sys.executable, str(ROOT / "examples" / "give_goals.py"), "--episodes", "1", "--arena", "0"]
        command = [*goals, "--ros-args", "-r", "__ns:=/rover3"]
        # Tests run without the script's directory on the path.
        variables = {name: text for name, text in os.environ.items() if name != "PYTHONSAFEPATH"}
        score = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False, env=variables)
        assert score.returncode == 0, score.stderr + log.read_text()
    finally:
        process.send_signal(signal.SIGINT)
        status = process.wait(timeout=30)
    assert status == 0, log.read_text()
    assert log.read_text().count("process has finished cleanly") == 4
    assert json.loads((tmp_path / "known.json").read_text())["twin_parameters"]
    (bag,) = (tmp_path / "bags").rglob("metadata.yaml")
    with AnyReader([bag.parent]) as reader:
        counts = {connection.topic: connection.msgcount for connection in reader.connections}
    assert counts["/cmd_vel"] > 10
    assert counts["/odom"] > 10
