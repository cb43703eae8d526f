"""What the filter has received: sensors, goal and proposal, and when they make a set to decide on."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from safe_rl_ros.envs.robot_spec import RobotSpec
from safe_rl_ros.messages.errors import MessageError
from safe_rl_ros.messages.lockstep import TickGate
from safe_rl_ros.messages.readers import CandidateReader, GoalReader, StateReader, make_command_reader, read_stamp
from safe_rl_ros.messages.state_assembler import NEVER, Part, Sensor, StateAssembler, sensor_timeouts
from safe_rl_ros.safety.contracts import Proposal
from safe_rl_ros.types import ConfigError, FilterDecision, FloatArray, RobotState

SensorCallback = Callable[..., None]
"""Takes a message and, optionally, when it arrived (``arrival_ns``)."""


@dataclass(frozen=True)
class InputSet:
    """Everything that one decision rests on. ``now_ns`` and ``arrival_ns`` (of the oldest sensor) on one clock."""

    now_ns: int
    state: RobotState | None
    arrival_ns: int
    goal: FloatArray | None
    proposal: Proposal | None


class FilterInputs:
    """Receives messages; a message that does not fit is dropped and reported, and its absence stops the robot.

    Every callback takes the message and, optionally, ``arrival_ns``: when it arrived, on the clock of ``now_ns``. A
    node leaves it out or passes what it also records; a replay passes what was recorded.
    """

    def __init__(
        self,
        spec: RobotSpec,
        lockstep: bool,
        on_input: Callable[[], None],
        on_repeat: Callable[[], None],
        on_drop: Callable[[str, str], None],
        *,
        proposal_type: str | None = None,
        max_candidates: int = 1,
        needs_goal: bool = True,
        clock: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        """Start empty.

        Args:
            spec: the robot.
            lockstep: ages do not count, stamps must match.
            on_input: called after every message that was taken.
            on_repeat: lock-step: called when the proposal that was answered last comes again.
            on_drop: called with topic and reason for every message that was not taken.
            proposal_type: ROS name of the proposals' message type; by default the command interface's own.
            max_candidates: rows of a candidate list that are read at most.
            needs_goal: the observation cannot be made without a goal.
            clock: ns of a clock that never goes back.

        Raises:
            ConfigError: the proposals' type does not fit the robot, or has no stamp although ``lockstep`` needs it.
        """
        self._lockstep, self._clock = lockstep, clock
        self._on_input, self._on_repeat, self._on_drop = on_input, on_repeat, on_drop
        self._reader, self._goals = StateReader(spec), GoalReader(spec)
        self._commands = make_command_reader(spec, proposal_type)
        if lockstep and not self._commands.stamped:
            raise ConfigError(f"lock-step needs proposals with a stamp; {self._commands.message_type} has none")
        self._candidates = CandidateReader(tuple(axis.name for axis in spec.command.axes), max_candidates)
        self.assembler = StateAssembler(sensor_timeouts(spec))
        self.needs_goal = needs_goal
        self._unreadable = np.full(spec.act_dim, np.nan)
        self._gate = TickGate()
        self._goal: FloatArray | None = None
        self._goal_stamp_ns = NEVER
        self._proposal: Proposal | None = None

    def callbacks(self) -> dict[Sensor, SensorCallback]:
        """Return the subscription callback of each sensor that the robot has."""
        read = self._reader.by_sensor
        return {sensor: self._sensor(sensor, read[sensor]) for sensor in self.assembler.sensors}

    def _sensor(self, sensor: Sensor, read: Callable[[Any], Part]) -> SensorCallback:
        def on_message(message: Any, arrival_ns: int | None = None) -> None:
            try:
                part = read(message)
            except MessageError as error:
                self._on_drop(sensor, str(error))
                return
            received_ns = self._clock() if arrival_ns is None else arrival_ns
            if self.assembler.add(sensor, part, read_stamp(message.header.stamp), received_ns):
                self._on_input()

        return on_message

    def on_goal(self, message: Any, arrival_ns: int | None = None) -> None:
        """Take a goal; goals do not age."""
        try:
            self._goal = self._goals.read(message)
        except MessageError as error:
            self._on_drop("goal_pose", str(error))
            return
        self._goal_stamp_ns = read_stamp(message.header.stamp)
        self._on_input()

    def on_proposal(self, message: Any, arrival_ns: int | None = None) -> None:
        """Take a proposal, finite or not: the filter judges it. One that cannot be read becomes NaN, hence a stop."""
        stamp_ns = self._commands.stamp_ns(message)
        if self._lockstep and stamp_ns == self._gate.last_ns:
            self._on_repeat()
            return
        try:
            command = self._commands.read(message)
        except MessageError as error:
            self._on_drop("proposed", str(error))
            command = self._unreadable
        self._propose(command, None, stamp_ns, arrival_ns)

    def on_candidates(self, message: Any, arrival_ns: int | None = None) -> None:
        """Take a list of candidates, of which the first is the proposal. One that cannot be read is a stop, too.

        The list has no stamp and hence no place in lock-step: there it is dropped.
        """
        if self._lockstep:
            self._on_drop("candidates", "lock-step needs proposals with a stamp; a list of candidates has none")
            return
        try:
            rows = self._candidates.read(message)
        except MessageError as error:
            self._on_drop("candidates", str(error))
            self._propose(self._unreadable, None, 0, arrival_ns)
            return
        self._propose(rows[0], rows, 0, arrival_ns)

    def _propose(self, command: FloatArray, rows: FloatArray | None, stamp_ns: int, arrival_ns: int | None) -> None:
        if self._lockstep:
            received_ns = stamp_ns  # simulated time: nothing ages but by steps
        else:
            received_ns = self._clock() if arrival_ns is None else arrival_ns
            if stamp_ns == 0:  # a policy that does not stamp: an answer to the newest state it could have seen
                stamp_ns = self.assembler.oldest_stamp()
        self._proposal = Proposal(command, stamp_ns, received_ns, rows)
        self._on_input()

    def forget_proposal(self) -> None:
        """Forget what was proposed before the filter was armed."""
        self._proposal = None

    def restore(self, decision: FilterDecision) -> None:
        """Take up what a recorded decision says of the inputs before it, so that a replay can start behind it.

        Its proposal is in hand with the age it had, its candidates are not known; lock-step: its stamp has been
        answered.
        """
        if self._lockstep:
            self._gate.last_ns = decision.stamp_ns
        elif decision.proposal_age_s >= 0.0:  # NaN: there was none
            received_ns = decision.tick_ns - round(decision.proposal_age_s * 1e9)
            self._proposal = Proposal(decision.proposed, NEVER, received_ns)

    def take_complete(self) -> InputSet | None:
        """Lock-step: return the set in which sensors, goal and proposal have one stamp; each stamp once."""
        if self._proposal is None:
            return None
        stamp_ns = self.assembler.common_stamp()
        goal_stamp_ns = self._goal_stamp_ns if self.needs_goal else stamp_ns
        if not self._gate.due(stamp_ns, goal_stamp_ns, self._proposal.stamp_ns):
            return None
        return InputSet(stamp_ns, self.assembler.synchronised(), stamp_ns, self._goal, self._proposal)

    def newest(self, now_ns: int | None = None) -> InputSet:
        """Real time: return the newest of everything, as of ``now_ns``, by default now."""
        if now_ns is None:
            now_ns = self._clock()
        assembled = self.assembler.latest(now_ns)
        if assembled is None:
            return InputSet(now_ns, None, now_ns, self._goal, self._proposal)
        return InputSet(now_ns, assembled.state, assembled.arrival_ns, self._goal, self._proposal)

    def absent(self) -> list[str]:
        """Return the names of the inputs that never came."""
        absent: list[str] = list(self.assembler.missing(0))
        absent += ["goal_pose"] if self.needs_goal and self._goal is None else []
        return absent + (["proposed"] if self._proposal is None else [])
