"""What the filter node has received: sensors, goal and proposal, and when they make a set to decide on."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from geometry_msgs.msg import PoseStamped, TwistStamped

from safe_rl_ros.envs.robot_spec import RobotSpec
from safe_rl_ros.ros.conversions import CommandCodec, GoalCodec, MessageError, StateReader, read_stamp
from safe_rl_ros.ros.lockstep import TickGate
from safe_rl_ros.ros.state_assembler import NEVER, Part, Sensor, StateAssembler
from safe_rl_ros.safety.action_filter import Proposal
from safe_rl_ros.types import FloatArray, RobotState

SensorCallback = Callable[[Any], None]


def sensor_timeouts(spec: RobotSpec) -> dict[Sensor, float]:
    """Return the greatest age of each sensor's data, s."""
    sensors = spec.sensors
    return {
        "odom": sensors.odom.timeout_s,
        "scan": sensors.scan.timeout_s,
        "joint_states": sensors.joint_states.timeout_s,
    }


@dataclass(frozen=True)
class InputSet:
    """Everything that one decision rests on. ``now_ns`` and ``arrival_ns`` (of the oldest sensor) on one clock."""

    now_ns: int
    state: RobotState | None
    arrival_ns: int
    goal: FloatArray | None
    proposal: Proposal | None


class FilterInputs:
    """Receives messages; a message that does not fit is dropped and reported, and its absence stops the robot."""

    def __init__(
        self,
        spec: RobotSpec,
        lockstep: bool,
        on_input: Callable[[], None],
        on_repeat: Callable[[], None],
        on_drop: Callable[[str, str], None],
    ) -> None:
        """Start empty.

        Args:
            spec: the robot.
            lockstep: ages do not count, stamps must match.
            on_input: called after every message that was taken.
            on_repeat: lock-step: called when the proposal that was answered last comes again.
            on_drop: called with topic and reason for every message that was not taken.
        """
        self._lockstep = lockstep
        self._on_input, self._on_repeat, self._on_drop = on_input, on_repeat, on_drop
        self._reader, self._goals, self._commands = StateReader(spec), GoalCodec(spec), CommandCodec(spec)
        self.assembler = StateAssembler(sensor_timeouts(spec))
        self._gate = TickGate()
        self._goal: FloatArray | None = None
        self._goal_stamp_ns = NEVER
        self._proposal: Proposal | None = None

    def callbacks(self) -> dict[Sensor, SensorCallback]:
        """Return the subscription callback of each sensor."""
        reader = self._reader
        return {
            "odom": self._sensor("odom", reader.odometry),
            "scan": self._sensor("scan", reader.scan),
            "joint_states": self._sensor("joint_states", reader.joints),
        }

    def _sensor(self, sensor: Sensor, read: Callable[[Any], Part]) -> SensorCallback:
        def on_message(message: Any) -> None:
            try:
                part = read(message)
            except MessageError as error:
                self._on_drop(sensor, str(error))
                return
            if self.assembler.add(sensor, part, read_stamp(message.header.stamp), time.monotonic_ns()):
                self._on_input()

        return on_message

    def on_goal(self, message: PoseStamped) -> None:
        """Take a goal."""
        try:
            self._goal = self._goals.read(message)
        except MessageError as error:
            self._on_drop("goal_pose", str(error))
            return
        self._goal_stamp_ns = read_stamp(message.header.stamp)
        self._on_input()

    def on_proposal(self, message: TwistStamped) -> None:
        """Take a proposal, finite or not: the filter judges it."""
        stamp_ns = read_stamp(message.header.stamp)
        if self._lockstep and stamp_ns == self._gate.last_ns:
            self._on_repeat()
            return
        command = self._commands.read(message.twist)
        if self._lockstep:
            received_ns = stamp_ns  # simulated time: nothing ages but by steps
        else:
            received_ns = time.monotonic_ns()
            if stamp_ns == 0:  # a policy that does not stamp: an answer to the newest state it could have seen
                stamp_ns = self.assembler.oldest_stamp()
        self._proposal = Proposal(command, stamp_ns, received_ns)
        self._on_input()

    def forget_proposal(self) -> None:
        """Forget what was proposed before the filter was armed."""
        self._proposal = None

    def take_complete(self) -> InputSet | None:
        """Lock-step: return the set in which sensors, goal and proposal have one stamp; each stamp once."""
        if self._proposal is None:
            return None
        stamp_ns = self.assembler.common_stamp()
        if not self._gate.due(stamp_ns, self._goal_stamp_ns, self._proposal.stamp_ns):
            return None
        return InputSet(stamp_ns, self.assembler.synchronised(), stamp_ns, self._goal, self._proposal)

    def newest(self) -> InputSet:
        """Real time: return the newest of everything, as of now on the steady clock."""
        now_ns = time.monotonic_ns()
        assembled = self.assembler.latest(now_ns)
        if assembled is None:
            return InputSet(now_ns, None, now_ns, self._goal, self._proposal)
        return InputSet(now_ns, assembled.state, assembled.arrival_ns, self._goal, self._proposal)

    def absent(self) -> list[str]:
        """Return the names of the inputs that never came."""
        absent: list[str] = list(self.assembler.missing(0))
        absent += ["goal_pose"] if self._goal is None else []
        return absent + (["proposed"] if self._proposal is None else [])
