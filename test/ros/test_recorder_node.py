"""Recording over ROS by the contract that the importer uses: the data set is what the live environment said."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

pytest.importorskip("rclpy")
pytestmark = pytest.mark.ros

from ros_helpers import (  # noqa: E402
    PERIOD_NS,
    SPEC,
    TASK,
    bench,
    make_state,
    separate_harness,
    start_filter,
    start_twin,
    write_bundle,
)
from std_msgs.msg import String  # noqa: E402

from safe_rl_ros.bags.bag_import import import_bags  # noqa: E402
from safe_rl_ros.bags.bag_topics import load_contract  # noqa: E402
from safe_rl_ros.bags.reader import BagReader  # noqa: E402
from safe_rl_ros.envs.robot_env import make_robot_env  # noqa: E402
from safe_rl_ros.messages.readers import read_stamp  # noqa: E402
from safe_rl_ros.ros import qos  # noqa: E402
from safe_rl_ros.ros.recorder_node import RecorderNode  # noqa: E402
from safe_rl_ros.ros.robot_backend import RosBackend  # noqa: E402
from safe_rl_ros.ros.supervisor import Supervisor, child_environment, ros_arguments  # noqa: E402
from safe_rl_ros.types import Reason  # noqa: E402

S = 1_000_000_000
SEEDS, STEPS = (11, 12, 13), 40


class Kept(list):
    """A sink that keeps everything."""

    add = list.append


def rollout(env):
    """Return the arrays of each episode by name, and the reasons of the filter's decisions."""
    episodes, reasons = [], set()
    for index, seed in enumerate(SEEDS):
        rng = np.random.default_rng(100 + index)
        obs, _ = env.reset(seed=seed)
        rows = {"obs": [obs], "action": [], "reward": [], "cost": [], "margin": [], "intervened": [], "proposed": []}
        over = False
        while not over:
            obs, reward, terminated, truncated, info = env.step(rng.uniform(-1, 1, 2).astype(np.float32))
            reasons.add(info["decision"].reason)
            rows["obs"].append(obs)
            rows["action"].append(info["action_executed"])
            rows["reward"].append(reward)
            for name in ("cost", "margin", "intervened"):
                rows[name].append(info[name])
            rows["proposed"].append(env.command_map.to_action(info["decision"].proposed))
            over = terminated or truncated
        episodes.append((rows, terminated))
    return episodes, reasons


def warm_up(env):
    """Publish on every topic and wait longer than the middleware may take until the recorder hears it (ros.qos)."""
    env.reset(seed=1)
    for _ in range(3):
        env.step(np.zeros(2, dtype=np.float32))
    time.sleep(3.5)


@pytest.mark.patient
def test_recorded_session_becomes_what_the_live_environment_said(tmp_path, ros_domain_id):
    digest = write_bundle(tmp_path / "bundle", threshold=0.5)
    with Supervisor(ros_domain_id, tmp_path / "log") as processes:
        # The session's own limit: closing it sends one more command, a stop, which belongs to no episode.
        agreed = tmp_path / "agreed.yaml"
        agreed.write_text(
            f"robot: rover\ntask: hazard_nav\nclock: stamp\nmargin: [{{source: twin}}]\nmax_episode_steps: {STEPS}\n"
        )
        values = {"contract": str(agreed), "directory": str(tmp_path / "bags")}
        processes.start("recorder", "safe_rl_ros.ros.recorder_node", ros_arguments(values))
        start_twin(processes)
        start_filter(processes)
        with RosBackend(SPEC, domain_id=ros_domain_id) as backend:
            backend.wait_ready(processes.check)
            backend.announce_bundle(tmp_path / "bundle", digest)
            env = make_robot_env(SPEC, TASK, backend=backend, max_episode_steps=STEPS)
            warm_up(env)
            lives, reasons = rollout(env)
            time.sleep(0.5)  # what is on its way
        assert processes.end("recorder") == 0
    assert reasons >= {Reason.ACCEPTED, Reason.RESAMPLED}
    (bag,) = (tmp_path / "bags").iterdir()
    episodes = Kept()
    report = import_bags([bag], load_contract(agreed), episodes).summary()
    del episodes[: len(episodes) - len(lives)]
    assert [len(episode) for episode in episodes] == [len(rows["action"]) for rows, _ in lives], report
    for episode, (rows, terminated) in zip(episodes, lives, strict=True):
        for name in ("obs", "action", "reward", "cost", "margin"):
            expected = np.array(rows[name], dtype=np.float32)
            assert getattr(episode, name).tobytes() == expected.tobytes(), name
        assert episode.intervened.tolist() == rows["intervened"]
        np.testing.assert_array_equal(episode.behaviour.proposed, np.array(rows["proposed"], dtype=np.float32))
        assert episode.terminated == terminated
    assert sum(topic["damaged"] + topic["unfit"] for topic in report["topics"].values()) == 0


@pytest.mark.patient
def test_a_recorder_that_is_held_up_misses_nothing_of_a_session_in_lockstep(tmp_path, ros_domain_id):
    """Its process stands still for half a second and 30 steps, while the session goes on at full speed."""
    with Supervisor(ros_domain_id, tmp_path / "log") as processes:
        values = {"contract": "rover_twin", "directory": str(tmp_path / "bags")}
        recorder = processes.start("recorder", "safe_rl_ros.ros.recorder_node", ros_arguments(values)).process
        start_twin(processes)
        start_filter(processes, critic="off")
        with RosBackend(SPEC, domain_id=ros_domain_id) as backend:
            backend.wait_ready(processes.check)
            env = make_robot_env(SPEC, TASK, backend=backend, max_episode_steps=10_000)
            warm_up(env)
            steps, begin = 0, time.monotonic()
            recorder.send_signal(signal.SIGSTOP)
            while time.monotonic() - begin < 0.5 or steps <= 30:
                env.step(np.zeros(2, dtype=np.float32))
                steps += 1
            recorder.send_signal(signal.SIGCONT)
            for _ in range(80):  # what was missed is asked for with the middleware's next heartbeat, in 3 s
                env.step(np.zeros(2, dtype=np.float32))
                time.sleep(0.05)
        assert processes.end("recorder") == 0
    (path,) = (tmp_path / "bags").iterdir()
    with BagReader(path) as bag:
        stamps = {
            topic: [read_stamp(bag.read(message).header.stamp) for message in bag.messages([topic])]
            for topic in ("/odom", "/scan", "/joint_states", "/cmd_vel")
        }
    for topic, found in stamps.items():
        gaps = np.diff(sorted(set(found))[-(steps + 80) :])
        assert set(gaps.tolist()) == {PERIOD_NS}, topic


def test_recorder_takes_topics_as_they_appear_and_as_reliably_as_they_are_offered(tmp_path):
    (tmp_path / "mine.yaml").write_text(
        "robot: rover\ntask: hazard_nav\nmargin: [{source: scan}]\ntopics: {command: safety_filter/proposed}\n"
    )
    parameters = {"contract": str(tmp_path / "mine.yaml"), "directory": str(tmp_path / "bags"), "split_s": 1.0}
    with bench(RecorderNode, parameters) as setup:
        harness, recorder = setup.harness, setup.node.recorder
        expected = {"/odom", "/scan", "/joint_states", "/goal_pose", "/safety_filter/proposed"}
        assert setup.run(lambda: expected <= {s.topic_name for s in setup.node.subscriptions})
        setup.settle(0.3)
        for index in range(30):
            stamp = S + index * PERIOD_NS
            harness.publish_all(stamp, (0.1, 0.0))
            setup.settle(0.05)
        assert {name: recorder.counts[name] for name in expected} == dict.fromkeys(expected, 30)
        assert recorder.counts["/safety_filter/decisions"] == 0
    bags = sorted((tmp_path / "bags").iterdir())
    assert len(bags) == len(recorder.bags) >= 2, "a new bag begins after a second"
    counts = []
    for path in bags:
        with BagReader(path) as bag:
            counts.append(bag.counts["/scan"])
            (first, *_) = bag.messages(["/scan"])
            assert bag.read(first).ranges.tolist() == make_state(0).ranges.tolist()
    assert sum(counts) == 30


def test_record_command_ends_by_itself_and_tells_what_was_silent(tmp_path, ros_domain_id):
    command = [sys.executable, "-m", "safe_rl_ros.cli", "record", "-c", "rover", "-o", "bags", "--duration", "1.0"]
    settings = {"cwd": tmp_path, "capture_output": True, "text": True, "timeout": 60, "check": False}
    result = subprocess.run(command, env=child_environment(ros_domain_id), **settings)
    told = result.stdout + result.stderr
    assert result.returncode == 0, told
    assert "no message on /odom" in told
    assert list((tmp_path / "bags").iterdir()) == []
    wrong = subprocess.run([*command[:4], "-c", "none"], **settings)
    assert wrong.returncode == 1
    assert "none.yaml' does not exist" in wrong.stdout


def test_twin_tells_its_episode_to_who_comes_late(ros_domain_id, tmp_path):
    with Supervisor(ros_domain_id, tmp_path / "log") as processes:
        start_twin(processes, reset_seed=5)
        with separate_harness() as (harness, run):
            heard = []
            harness.create_subscription(String, "twin/episode", heard.append, qos.latched())
            assert run(lambda: bool(heard))
    told = json.loads(heard[0].data)
    assert told["seed"] == 5
    assert told["stamp_ns"] > 0


def test_what_waits_when_the_recorder_is_interrupted_is_still_written(tmp_path):
    parameters = {"contract": "rover_twin", "directory": str(tmp_path / "bags")}
    with bench(RecorderNode, parameters) as setup:
        harness, recorder = setup.harness, setup.node.recorder
        assert setup.run(lambda: harness.scan.get_subscription_count() > 0)
        setup.settle(0.3)
        for index in range(20):
            harness.publish_state(make_state(S + index * PERIOD_NS), only=("scan",))
        time.sleep(0.2)
        assert recorder.counts["/scan"] == 0  # nobody has looked yet
        begin = time.monotonic()
        setup.node.send_stop()
        assert recorder.counts["/scan"] == 20
        assert time.monotonic() - begin < 1.0
