"""Bags for the importer's tests: an episode of the live environment as messages, and small streams made by hand."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from live_session import RoverMessages

from safe_rl_ros.bags.bag_topics import BagContract
from safe_rl_ros.bags.contract import ContractConfig
from safe_rl_ros.bags.message_types import serialise, string, type_store
from safe_rl_ros.bags.writer import BagWriter
from safe_rl_ros.config import build
from safe_rl_ros.data.episodes import Episode
from safe_rl_ros.envs.robot_env import make_robot_env
from safe_rl_ros.envs.robot_spec import load_robot_spec
from safe_rl_ros.resources import find_resource

S, MS = 1_000_000_000, 1_000_000
SPEC = load_robot_spec("rover")
PERIOD_NS = SPEC.period_ns
EPOCH_NS = 1_700_000_000 * S
BOOL, FLOAT64 = "std_msgs/msg/Bool", "std_msgs/msg/Float64"
TYPES = {
    "/odom": "nav_msgs/msg/Odometry",
    "/scan": "sensor_msgs/msg/LaserScan",
    "/joint_states": "sensor_msgs/msg/JointState",
    "/goal_pose": "geometry_msgs/msg/PoseStamped",
    "/cmd_vel": "geometry_msgs/msg/TwistStamped",
    "/twin/episode": "std_msgs/msg/String",
    "/collision": BOOL,
    "/estop": BOOL,
    "/clearance": FLOAT64,
    "/points": FLOAT64,
}
MESSAGES = RoverMessages(SPEC)


class Episodes(list[Episode]):
    """A sink that keeps everything."""

    add = list.append


def contract(**changes: Any) -> BagContract:
    """Return a contract of the rover, given as what differs from a minimal one."""
    values = {"robot": "rover", "task": "hazard_nav", "margin": [{"source": "topic", "topic": "clearance"}]}
    config = build(ContractConfig, values | changes, "test")
    return BagContract(config, SPEC, find_resource("hazard_nav.yaml", "config/tasks"), "contract")


def number(value: float | bool) -> bytes:
    """Return a Bool or Float64 in CDR form."""
    kind = BOOL if isinstance(value, bool) else FLOAT64
    return serialise(type_store().types[kind](data=value), kind)


@dataclass
class Stream:
    """Messages in the order of their log times, to be written as a bag."""

    rows: list[tuple[str, int, bytes]] = field(default_factory=list)
    types: dict[str, str] = field(default_factory=lambda: dict(TYPES))

    def add(self, topic: str, time_ns: int, message: Any) -> None:
        """Add a message, or one in CDR form."""
        data = message if isinstance(message, bytes) else serialise(message, self.types[topic])
        self.rows.append((topic, time_ns, data))

    def state(self, time_ns: int, stamp_ns: int | None = None, *, x: float = 0.0, near: float = 2.0) -> None:
        """Add odom, scan and joint_states: at ``x``, with one ray of length ``near``."""
        stamp_ns = time_ns if stamp_ns is None else stamp_ns
        ranges = np.full(72, 3.0)
        ranges[5] = near
        self.add("/odom", time_ns, MESSAGES.odom(stamp_ns, x, 0.5))
        self.add("/scan", time_ns, MESSAGES.scan(stamp_ns, ranges))
        self.add("/joint_states", time_ns, MESSAGES.joint_states(stamp_ns, x))

    def command(self, time_ns: int, *command: float, stamp_ns: int | None = None) -> None:
        """Add a command of linear and angular speed."""
        self.add("/cmd_vel", time_ns, MESSAGES.proposal(time_ns if stamp_ns is None else stamp_ns, command))

    def drive(self, begin_ns: int, steps: int, *, speed: float = 0.2, clearance: float | None = 1.0) -> int:
        """Add ``steps`` periods of driving from ``begin_ns`` on, commands 1 ms after states; return their end."""
        for index in range(steps + 1):
            at_ns = begin_ns + index * PERIOD_NS
            self.state(at_ns, x=speed * index * 0.1)
            if clearance is not None:
                self.add("/clearance", at_ns, number(clearance))
            if index < steps:
                self.add("/goal_pose", at_ns, MESSAGES.goal(at_ns, 2.0, 1.0))
                self.command(at_ns + MS, speed, 0.0)
        return begin_ns + steps * PERIOD_NS

    def write(self, path: Path) -> Path:
        """Write the bag, with the topics that have a message."""
        used = {topic for topic, _, _ in self.rows}
        with BagWriter(path, {topic: kind for topic, kind in self.types.items() if topic in used}) as bag:
            for topic, time_ns, data in sorted(self.rows, key=lambda row: row[1]):
                bag.write(topic, time_ns, data)
        return path


@dataclass
class Live:
    """What the live environment said in one episode."""

    obs: list[Any]
    action: list[Any] = field(default_factory=list)
    reward: list[float] = field(default_factory=list)
    cost: list[float] = field(default_factory=list)
    margin: list[float] = field(default_factory=list)
    terminated: bool = False

    def assert_equal(self, episode: Episode) -> None:
        """Compare bit for bit."""
        assert len(episode) == len(self.action)
        np.testing.assert_array_equal(episode.obs, np.array(self.obs))
        assert episode.obs.tobytes() == np.array(self.obs, dtype=np.float32).tobytes()
        for name in ("action", "reward", "cost", "margin"):
            expected = np.array(getattr(self, name), dtype=np.float32)
            assert getattr(episode, name).tobytes() == expected.tobytes(), name
        assert (episode.terminated, episode.truncated) == (self.terminated, not self.terminated)


def record_twin(stream: Stream, seeds: tuple[int, ...], max_steps: int, *, log_ns: int = EPOCH_NS) -> list[Live]:
    """Run the environment in process and add all that twin and learner would publish in lock-step.

    Log times are those of a fast computer: 2 ms for a step, and a second of learning before each episode.
    """
    env = make_robot_env(SPEC, "hazard_nav", max_episode_steps=max_steps)
    lives = []
    for seed in seeds:
        rng = np.random.default_rng(seed)
        log_ns += S
        obs, _ = env.reset(seed=seed)
        data = string(json.dumps({"seed": seed, "stamp_ns": env.stamp_ns}))
        stream.add("/twin/episode", log_ns + 3, data)  # overtaken by the first state
        _add_state(stream, log_ns, env.state)
        live, over = Live([obs]), False
        while not over:
            stamp_ns, goal, log_ns = env.stamp_ns, env.goal, log_ns + 2 * MS
            action = rng.uniform(-1, 1, 2).astype(np.float32) * 0.6 + np.float32([0.4, 0.0])
            stream.add("/goal_pose", log_ns - MS, MESSAGES.goal(stamp_ns, *goal))
            command = env.command_map.to_command(np.clip(action.astype(np.float64), -1.0, 1.0))
            stream.command(log_ns - MS // 2, *command, stamp_ns=stamp_ns)
            final: dict[str, Any] = {}
            obs, reward, terminated, truncated, info = _step(env, action, final)
            _add_state(stream, log_ns, final["state"])
            live.obs.append(obs)
            live.action.append(info["action_executed"])
            live.reward.append(reward)
            live.cost.append(info["cost"])
            live.margin.append(info["margin"])
            live.terminated, over = terminated, terminated or truncated
        lives.append(live)
    env.close()
    return lives


def _step(env: Any, action: Any, final: dict[str, Any]) -> Any:
    """Step and keep the state, which the environment forgets at the end of an episode."""
    backend, step = env.backend, env.backend.step

    def keep(command: Any) -> Any:
        result = step(command)
        final["state"] = result.state
        return result

    backend.step = keep
    try:
        return env.step(action)
    finally:
        backend.step = step


def _add_state(stream: Stream, log_ns: int, state: Any) -> None:
    """Add a robot state as the twin's node publishes it."""
    types, header = type_store().types, MESSAGES._header
    x, y, z = state.position.tolist()
    qx, qy, qz, qw = state.orientation.tolist()
    pose = types["geometry_msgs/msg/Pose"](
        position=types["geometry_msgs/msg/Point"](x=x, y=y, z=z),
        orientation=types["geometry_msgs/msg/Quaternion"](x=qx, y=qy, z=qz, w=qw),
    )
    linear, angular = (MESSAGES._vector(*vector.tolist()) for vector in (state.linear_velocity, state.angular_velocity))
    covariance = np.zeros(36)
    odom = types["nav_msgs/msg/Odometry"](
        header=header(state.stamp_ns, "odom"),
        child_frame_id="base_footprint",
        pose=types["geometry_msgs/msg/PoseWithCovariance"](pose, covariance),
        twist=types["geometry_msgs/msg/TwistWithCovariance"](
            types["geometry_msgs/msg/Twist"](linear, angular), covariance
        ),
    )
    names = list(reversed(SPEC.joints))  # joints are found by name
    joints = types["sensor_msgs/msg/JointState"](
        header=header(state.stamp_ns, ""),
        name=names,
        position=state.joint_position[::-1].copy(),
        velocity=state.joint_velocity[::-1].copy(),
        effort=np.zeros(0),
    )
    stream.add("/odom", log_ns, odom)
    stream.add("/scan", log_ns + 1, MESSAGES.scan(state.stamp_ns, state.ranges))
    stream.add("/joint_states", log_ns + 2, joints)
