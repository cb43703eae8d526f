"""A filter that runs as the node runs it, in simulated time and without ROS, and records itself.

It is written apart from the replay on purpose: both use the package's inputs and filter, nothing else is shared.
"""

from __future__ import annotations

import heapq
from pathlib import Path
from typing import Any

import numpy as np

from safe_rl_ros.bags.events import EVENTS_TOPIC, EVENTS_TYPE, EventJournal
from safe_rl_ros.bags.flight_recorder import FlightRecorder
from safe_rl_ros.bags.message_types import float64_multi_array, serialise, type_store
from safe_rl_ros.envs.observation import CommandMap
from safe_rl_ros.envs.observers import make_observer
from safe_rl_ros.envs.robot_spec import RobotSpec, load_robot_spec
from safe_rl_ros.messages.decision_record import DecisionRecord
from safe_rl_ros.messages.filter_inputs import FilterInputs
from safe_rl_ros.messages.limits import command_limits
from safe_rl_ros.safety.action_filter import ActionFilter, Observation
from safe_rl_ros.safety.contracts import FilterConfig
from safe_rl_ros.types import FilterDecision

SECOND = 1_000_000_000
MS = 1_000_000
BOOT_NS = 5_000 * SECOND  # the steady clock at the beginning
EPOCH_NS = 1_700_000_000 * SECOND  # header stamps
LOG_OFFSET_NS = EPOCH_NS - BOOT_NS + 123_456_789
RANGE_MAX = 3.0

TYPES = {
    "odom": "nav_msgs/msg/Odometry",
    "scan": "sensor_msgs/msg/LaserScan",
    "joint_states": "sensor_msgs/msg/JointState",
    "goal_pose": "geometry_msgs/msg/PoseStamped",
    "safety_filter/proposed": "geometry_msgs/msg/TwistStamped",
    "cmd_vel": "geometry_msgs/msg/Twist",
}


class NearnessModel:
    """Risk grows with speed and with the nearest obstacle; about half of the proposals below are vetoed at 0.5."""

    hash = "0123456789ab" + "cd" * 26
    obs_dim, act_dim = 29, 2
    threshold = 0.5

    def risk(self, obs: Any, actions: Any) -> Any:
        nearest = float(obs[5:].max())
        return np.clip(nearest * (0.6 + 0.6 * actions[:, 0].astype(np.float64)), 0.0, 1.0)

    def sample(self, obs: Any, n: int, rng: np.random.Generator) -> Any:
        return rng.uniform(-1, 1, (n, 2)).astype(np.float32)


class RoverMessages:
    """Messages of the rover as dataclasses of the bag library."""

    def __init__(self, spec: RobotSpec) -> None:
        self.spec, self.types = spec, type_store().types

    def _header(self, stamp_ns: int, frame: str) -> Any:
        seconds, nanoseconds = divmod(stamp_ns, SECOND)
        stamp = self.types["builtin_interfaces/msg/Time"](sec=seconds, nanosec=nanoseconds)
        return self.types["std_msgs/msg/Header"](stamp=stamp, frame_id=frame)

    def _vector(self, x: float = 0.0, y: float = 0.0, z: float = 0.0) -> Any:
        return self.types["geometry_msgs/msg/Vector3"](x=float(x), y=float(y), z=float(z))

    def _pose(self, x: float, y: float) -> Any:
        point = self.types["geometry_msgs/msg/Point"](x=float(x), y=float(y), z=0.0)
        turn = self.types["geometry_msgs/msg/Quaternion"](x=0.0, y=0.0, z=0.0, w=1.0)
        return self.types["geometry_msgs/msg/Pose"](position=point, orientation=turn)

    def twist(self, command: Any) -> Any:
        return self.types["geometry_msgs/msg/Twist"](self._vector(x=command[0]), self._vector(z=command[1]))

    def odom(self, stamp_ns: int, x: float, speed: float) -> Any:
        covariance = np.zeros(36)
        return self.types["nav_msgs/msg/Odometry"](
            header=self._header(stamp_ns, "odom"),
            child_frame_id="base_footprint",
            pose=self.types["geometry_msgs/msg/PoseWithCovariance"](self._pose(x, 0.0), covariance),
            twist=self.types["geometry_msgs/msg/TwistWithCovariance"](self.twist((speed, 0.1)), covariance),
        )

    def scan(self, stamp_ns: int, ranges: Any) -> Any:
        scan = self.spec.base_scan
        return self.types["sensor_msgs/msg/LaserScan"](
            header=self._header(stamp_ns, scan.frame),
            angle_min=scan.angle_min,
            angle_max=scan.angle_max,
            angle_increment=scan.angle_increment,
            time_increment=0.0,
            scan_time=0.1,
            range_min=scan.range_min,
            range_max=scan.range_max,
            ranges=np.asarray(ranges, dtype=np.float32),
            intensities=np.zeros(0, dtype=np.float32),
        )

    def joint_states(self, stamp_ns: int, position: float) -> Any:
        return self.types["sensor_msgs/msg/JointState"](
            header=self._header(stamp_ns, ""),
            name=list(self.spec.joints),
            position=np.full(2, position),
            velocity=np.zeros(2),
            effort=np.zeros(0),
        )

    def goal(self, stamp_ns: int, x: float, y: float) -> Any:
        return self.types["geometry_msgs/msg/PoseStamped"](self._header(stamp_ns, "odom"), self._pose(x, y))

    def proposal(self, stamp_ns: int, command: Any) -> Any:
        return self.types["geometry_msgs/msg/TwistStamped"](
            self._header(stamp_ns, "base_footprint"), self.twist(command)
        )


class LiveSession:
    """One rover with a filter under a faulty stream of messages, recorded into ``directory``.

    Sensors come every 50 ms and proposals every 100 ms, each with its own delay; some are dropped, reordered, repeated
    or hold NaN, the policy falls silent for a while, ticks come late. :meth:`at` adds calls at a time.
    """

    def __init__(
        self,
        directory: Path,
        seed: int,
        config: FilterConfig,
        *,
        proposal_topic: str = "safety_filter/proposed",
        faults: float = 0.05,
        **recorder: Any,
    ) -> None:
        self.spec = load_robot_spec("rover")
        self.observer = make_observer(self.spec, "hazard_nav")
        self.rng = np.random.default_rng(seed)
        self.messages, self.faults = RoverMessages(self.spec), faults
        self.proposal_topic = proposal_topic
        self.now_ns = BOOT_NS
        axes = tuple(axis.name for axis in self.spec.command.axes)
        self.record = DecisionRecord(axes)
        topics = {f"/{name}": TYPES[name] for name in ("odom", "scan", "joint_states", "goal_pose", proposal_topic)}
        decisions = "/safety_filter/decisions"
        settings = {"record_all": True, "log_offset_ns": LOG_OFFSET_NS, "max_window_s": 3000.0, **recorder}
        self.recorder = FlightRecorder(
            directory,
            {**topics, decisions: "std_msgs/msg/Float64MultiArray", f"/{EVENTS_TOPIC}": EVENTS_TYPE},
            **settings,
        )
        self.journal = EventJournal(
            self.recorder, f"/{EVENTS_TOPIC}", "realtime", self.spec.hash, clock=lambda: self.now_ns
        )
        maps = CommandMap(self.spec)
        self.late_call: int | None = None
        """Which call of the critic in each decision is late, 1 or 2."""
        self.ties = False
        """Things may happen at the same instant."""
        self.filter = ActionFilter(
            command_limits(self.spec), config, maps.to_action, maps.to_command, clock=self._critic_clock
        )
        self._critic_now_s, self._clock_calls = 0.0, 0
        self.inputs = FilterInputs(
            self.spec,
            lockstep=False,
            on_input=lambda: None,
            on_repeat=lambda: None,
            on_drop=lambda topic, reason: None,
            proposal_type=TYPES[proposal_topic],
            max_candidates=config.max_samples,
            clock=lambda: self.now_ns,
        )
        callbacks = self.inputs.callbacks()
        self._callbacks = {
            "odom": callbacks["odom"],
            "scan": callbacks["scan"],
            "joint_states": callbacks["joint_states"],
            "goal_pose": self.inputs.on_goal,
            proposal_topic: self.inputs.on_proposal,
        }
        self.decisions: list[FilterDecision] = []
        self._queue: list[tuple[int, int, Any]] = []
        self._calls = 0

    def _critic_clock(self) -> float:
        self._clock_calls += 1
        if self.late_call is not None and self._clock_calls == 2 + self.late_call:
            self._critic_now_s += 0.021
        return self._critic_now_s

    def at(self, time_s: float, call: Any) -> None:
        """Run something at a time after the beginning."""
        self._push(BOOT_NS + round(time_s * SECOND), call)

    def _push(self, time_ns: int, call: Any) -> None:
        self._calls += 1
        heapq.heappush(self._queue, (time_ns, self._calls, call))

    def event(self, kind: Any, call: Any = None, **details: Any) -> None:
        """Change the filter from outside, as the node does, and record that."""
        if call is not None:
            call()
        self.journal.note(kind, self.filter, **details)

    def begin(self, model: Any) -> None:
        """Configure, load, arm."""
        self.event("configured")
        self.now_ns += 1
        self.event("bundle", lambda: self.filter.set_model(model))
        self.now_ns += 1
        self.arm()

    def arm(self) -> None:
        self.filter.activate()
        self.inputs.forget_proposal()
        self.event("activated")

    def disarm(self) -> None:
        """Stop with a decision that has no inputs, as the node does, then disarm."""
        self._decide(self.filter.decide(self.now_ns, None, None))
        self.now_ns += 1000
        self.event("deactivated", self.filter.deactivate)

    def receive(self, name: str, message: Any) -> None:
        """Take a message as the node's subscription does."""
        arrival_ns = self.now_ns
        self.recorder.note(f"/{name}", lambda: serialise(message, TYPES[name]), arrival_ns)
        self._callbacks[name](message, arrival_ns)

    def tick(self) -> None:
        if not self.filter.active:
            return
        self._clock_calls = 0
        inputs = self.inputs.newest()
        observation = None
        if inputs.state is not None and inputs.goal is not None:
            values = self.observer.observe(inputs.state, inputs.goal)
            observation = Observation(values, inputs.state.stamp_ns, inputs.arrival_ns)
        self._decide(self.filter.decide(inputs.now_ns, inputs.proposal, observation))

    def _decide(self, decision: FilterDecision) -> None:
        self.decisions.append(decision)
        row, label = list(self.record.row(decision)), self.record.label
        self.recorder.note("/safety_filter/decisions", lambda: float64_multi_array(label, row), decision.tick_ns)
        if decision.verdict.is_veto:
            self.recorder.trigger(decision.tick_ns, decision.verdict.name)

    def run(self, seconds: float) -> list[FilterDecision]:
        """Let the time pass; return all decisions."""
        self._schedule_sensors(seconds)
        self._schedule_proposals(seconds)
        for index in range(int(seconds * 10)):
            late_ms = self.rng.choice([0.0, 0.3, 5.0, 40.0, 170.0], p=[0.5, 0.36, 0.1, 0.03, 0.01])
            self.at(0.1 * index + 0.05 + late_ms * 1e-3, self.tick)
        end_ns = BOOT_NS + round(seconds * SECOND)
        while self._queue and self._queue[0][0] <= end_ns:
            time_ns, _, call = heapq.heappop(self._queue)
            self.now_ns = max(self.now_ns + (not self.ties), time_ns)  # one thread does one thing at a time
            call()
        self.recorder.close()
        assert self.recorder.failures == self.recorder.dropped == 0, self.recorder.last_problem
        return self.decisions

    def _schedule_sensors(self, seconds: float) -> None:
        rng, messages = self.rng, self.messages
        self.at(0.02, lambda: self.receive("goal_pose", messages.goal(EPOCH_NS, 2.0, 1.0)))
        for index in range(int(seconds * 20)):
            stamp_ns, begin_s = EPOCH_NS + index * 50 * MS, 0.05 * index
            near = RANGE_MAX * (0.55 + 0.45 * np.sin(0.3 * begin_s))
            ranges = rng.uniform(max(0.1, near - 0.3), RANGE_MAX, 72)
            if rng.random() < self.faults / 5:
                ranges[3] = np.nan
            for name, message in (
                ("odom", messages.odom(stamp_ns, 0.01 * index, rng.uniform(0, 1))),
                ("scan", messages.scan(stamp_ns, ranges)),
                ("joint_states", messages.joint_states(stamp_ns, 0.1 * index)),
            ):
                self._deliver(begin_s, name, message)

    def _schedule_proposals(self, seconds: float) -> None:
        rng = self.rng
        silent_s = rng.uniform(0.3, 0.7) * seconds
        for index in range(int(seconds * 10)):
            begin_s = 0.1 * index + 0.01
            if self.faults and silent_s <= begin_s <= silent_s + 0.8:
                continue
            command = rng.uniform([-0.3, -1.5], [1.1, 1.5])
            if rng.random() < self.faults / 5:
                command[1] = np.nan
            message = self.messages.proposal(EPOCH_NS + 100 * index * MS, command)
            if self.proposal_topic == "cmd_vel":
                message = message.twist
            self._deliver(begin_s, self.proposal_topic, message)

    def _deliver(self, begin_s: float, name: str, message: Any) -> None:
        """Deliver a message with a delay; perhaps never, so late that it is overtaken, or twice."""
        rng = self.rng
        fate = rng.random()
        if fate < self.faults:
            return
        delay_s = rng.uniform(0.001, 0.02) if fate > 2 * self.faults else rng.uniform(0.05, 0.3)
        for copy in range(2 if fate > 1 - self.faults else 1):
            self.at(begin_s + delay_s + 0.03 * copy, lambda: self.receive(name, message))
