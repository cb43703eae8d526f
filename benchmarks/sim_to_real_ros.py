"""The leg of ``sim_to_real`` over ROS: stand-in, filter, actor and learner as processes, in real time.

The processes get what ``robot.launch.py robot:=standin acting:=actor`` gives them. After a failure, at which the actor
pauses, the stand-in is started anew (somebody carries the robot back to the start), and the actor is told to resume.
"""

from __future__ import annotations

import os
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import rclpy
from rclpy.executors import SingleThreadedExecutor
from rclpy.signals import SignalHandlerOptions
from ruamel.yaml import YAML
from std_srvs.srv import Trigger

from benchmarks.common import progress
from safe_rl_ros.config import read_yaml
from safe_rl_ros.data.segments import own_stats
from safe_rl_ros.data.spool import SpoolReader
from safe_rl_ros.envs.observation import Observer
from safe_rl_ros.resources import find_resource
from safe_rl_ros.ros.actor_messages import ACTOR
from safe_rl_ros.ros.launching import Keywords, NodeKeywords, read_session
from safe_rl_ros.ros.supervisor import Supervisor, free_domain_id, ros_arguments, ros_variables
from safe_rl_ros.training.run import versions
from safe_rl_ros.training.session_config import SessionConfig, load_session_config

START_S = 400.0
"""Longest time until the first episode is there: the learner imitates first."""
RESUME_S = 20.0
READY_S = 120.0
"""Longest time until a process is there."""
POLL_S = 0.5


def write_session(name: str, directory: Path, run: Path, steps: int, epoch: int, threshold: float) -> Path:
    """Write a shipped session that goes on with ``run``; return the file."""
    content = dict(read_yaml(find_resource(name, "config/train")))
    content["training"] = {**content["training"], "start_from": str(run.resolve()), "total_steps": steps}
    content["training"]["steps_per_epoch"] = epoch
    content["algorithm"] = {**content["algorithm"], "fixed_threshold": threshold}
    directory.mkdir(parents=True, exist_ok=True)
    file = directory / "session.yaml"
    with file.open("w", encoding="utf-8") as stream:
        YAML(typ="safe", pure=True).dump(content, stream)
    return file


def _arguments(keywords: Keywords) -> list[str]:
    merged: dict[str, object] = {}
    for parameters in keywords["parameters"]:
        merged |= parameters
    return ros_arguments(merged)


def start(processes: Supervisor, file: Path, runs: Path, robot: int) -> None:
    """Start the four processes of a session on the stand-in ``robot``; the learner last."""
    session, describe = read_session(str(file)), NodeKeywords("", "info", "false")
    learning = {"config": str(file), "timing": "realtime", "acting": "actor", "robot_kind": "hardware"}
    learning |= {"runs": str(runs)}
    processes.start("standin", "safe_rl_ros.ros.standin_node", _standin(file, robot), ready_timeout_s=READY_S)
    for name, keywords in (
        ("safety_filter", describe.safety_filter(session, "realtime", "true")),
        ("actor", describe.actor(session, str(runs), robot_kind="hardware", arena_seed=robot)),
        ("learner", describe.learner(learning, "false", object)),
    ):
        processes.start(name, f"safe_rl_ros.ros.{name}_node", _arguments(keywords), ready_timeout_s=READY_S)


def carry_back(processes: Supervisor, file: Path, robot: int) -> None:
    """Start the stand-in anew, which puts the robot back at the start, and let the actor go on.

    Raises:
        TimeoutError: the actor did not answer.
    """
    processes.end("standin")
    processes.start("standin", "safe_rl_ros.ros.standin_node", _standin(file, robot), ready_timeout_s=READY_S)
    context = rclpy.Context()
    rclpy.init(context=context, domain_id=processes.domain_id, signal_handler_options=SignalHandlerOptions.NO)
    executor = SingleThreadedExecutor(context=context)
    node = rclpy.create_node("operator", context=context)
    executor.add_node(node)
    try:
        client = node.create_client(Trigger, f"{ACTOR}/resume")
        if not client.wait_for_service(timeout_sec=RESUME_S):
            raise TimeoutError(f"{client.srv_name} is not there after {RESUME_S:g} s")
        answer = client.call_async(Trigger.Request())
        executor.spin_until_future_complete(answer, RESUME_S)
        if not answer.done() or not answer.result().success:
            raise TimeoutError(f"no resumption within {RESUME_S:g} s: {answer.result()}")
    finally:
        executor.shutdown()
        node.destroy_node()
        rclpy.try_shutdown(context=context)


def _standin(file: Path, robot: int) -> list[str]:
    standin = {**read_session(str(file)).common, "arena_seed": robot, "standin_seed": robot}
    return _arguments(NodeKeywords("", "info", "false").of("standin", standin, follow_clock=False))


def spool_reader(config: SessionConfig, run: Path) -> SpoolReader:
    """Return a reader of the episodes of a session's run."""
    spec = config.robot_spec
    names = Observer(spec, config.robot_task.observation).names
    return SpoolReader(run / "spool", tuple(names), spec.act_dim, spec.hash)


def run_session(file: Path, directory: Path, robot: int, episodes: int) -> dict[str, Any]:
    """Run a session on the stand-in until there are so many episodes, or the learner has ended.

    Raises:
        BackendError: a process died.
        TimeoutError: the episodes did not come in time, or the actor does not resume.
    """
    config = load_session_config(file)
    reader = spool_reader(config, directory / config.name)
    longest_s = START_S + episodes * config.robot_task.max_episode_steps / config.robot_spec.control_rate_hz * 1.5
    begun, found = time.monotonic(), 0
    with Supervisor(free_domain_id(), directory / "log") as processes:
        os.environ.update(ros_variables(processes.domain_id))  # this process is to be heard by them
        start(processes, file, directory, robot)
        learner = processes.nodes["learner"].process
        while found < episodes and learner.poll() is None:
            if time.monotonic() - begun > longest_s:
                raise TimeoutError(f"{found} of {episodes} episodes within {longest_s:.0f} s, logs in {directory}/log")
            time.sleep(POLL_S)
            if reader.waiting(found):
                failed = reader.read(found).notes.ending == "terminated"
                found += 1
                progress(f"  episode {found} over ROS{': failed' if failed else ''}")
                if failed and found < episodes:
                    carry_back(processes, file, robot)
        ended = learner.poll()
    read = [reader.read(number) for number in range(found)]
    return {
        "episodes": [asdict(own_stats(episode)) for episode in read],
        "bundles": len({episode.notes.bundle_sha256 for episode in read}),
        "late_ms_most": max(float(episode.late_s.max()) for episode in read) * 1e3,
        "answered": sum(int(episode.answered.sum()) for episode in read) / sum(len(episode) for episode in read),
        "learner_exit": ended,
        "wall_s": time.monotonic() - begun,
        "versions": versions(),
    }
