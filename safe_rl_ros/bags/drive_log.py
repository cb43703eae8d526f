"""Drives out of bags: what the base was told and how it moved, cut where odometry or time breaks off."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from safe_rl_ros.bags.bag_stream import BagStream, Timed
from safe_rl_ros.bags.bag_topics import BagContract, Role
from safe_rl_ros.bags.import_report import ImportReport
from safe_rl_ros.bags.message_types import BagError, deserialise
from safe_rl_ros.bags.reader import BagReader
from safe_rl_ros.envs.robot_spec import RobotSpec
from safe_rl_ros.messages.errors import MessageError
from safe_rl_ros.messages.readers import StateReader
from safe_rl_ros.messages.state_assembler import SENSOR_TYPES
from safe_rl_ros.types import FloatArray

ROLES: tuple[Role, ...] = ("command", "odom")
MOVING = 0.1
"""Part of an axis' greatest command from which it counts as moving."""
AT_REST = 0.03
"""Part of an axis' greatest command below which it counts as at rest."""
SHORTEST_S = 1.0
"""Shorter drives are left out."""
LEAST_S = 10.0
"""Less of all drives together is not enough to fit and to hold something out."""
PROGRESS_EVERY = 2000
Progress = Callable[[int], None]


@dataclass(frozen=True)
class Drive:
    """An unbroken drive; all times in s from its first odometry message.

    ``command_s`` (M,) and ``command`` (M, C) in robot-spec order: each holds until the next, a stop where the base's
    own timeout stopped it. ``motion_s`` (N,) and ``motion`` (N, 2): measured speed ahead, m/s, and turn rate, rad/s.
    """

    command_s: FloatArray
    command: FloatArray
    motion_s: FloatArray
    motion: FloatArray
    from_rest: bool

    @property
    def length_s(self) -> float:
        """Return the time from the first to the last odometry message."""
        return float(self.motion_s[-1])


@dataclass
class _Piece:
    command_ns: list[int] = field(default_factory=list)
    command: list[FloatArray] = field(default_factory=list)
    motion_ns: list[int] = field(default_factory=list)
    motion: list[tuple[float, float]] = field(default_factory=list)


class DriveReader:
    """Takes the messages of one bag to its drives."""

    def __init__(self, contract: BagContract, report: ImportReport) -> None:
        """``report`` counts what cannot be used."""
        spec = contract.spec
        spec.require_twin()
        assert spec.sensors.odom is not None, "a robot with a twin has odometry"
        self._contract, self._report, self._spec = contract, report, spec
        self._commands, self._states = contract.command_reader(), StateReader(spec)
        self._gap_ns = round(spec.sensors.odom.timeout_s * 1e9)
        self._pieces = [_Piece()]

    def read(self, bag: BagReader, on_count: Progress) -> list[Drive]:
        """Return the drives of a bag. Raises :class:`BagError` if a topic is missing, or the bag damaged."""
        topics = self._contract.check_bag(bag, ROLES)
        stream = BagStream(bag, self._contract, topics, self._report, lambda topic, message: 0)
        self._pieces = [_Piece()]
        for item in stream:
            self._take(item)
            if stream.count % PROGRESS_EVERY == 0:
                on_count(stream.count)
        on_count(stream.count)
        drives = [self._drive(piece) for piece in self._pieces if len(piece.motion) > 1]
        return [drive for drive in drives if drive.length_s >= SHORTEST_S]

    def _take(self, item: Timed) -> None:
        piece = self._pieces[-1]
        if item.restart:
            self._pieces.append(piece := _Piece())
        try:
            if item.topic.role == "command":
                command = self._commands.read(deserialise(item.data, item.topic.type))
                if not np.isfinite(command).all():
                    raise MessageError("a command is not finite")
                piece.command_ns.append(item.time_ns)
                piece.command.append(command)
                return
            part = self._states.odometry(deserialise(item.data, SENSOR_TYPES["odom"]))
            motion = float(part.linear_velocity[0]), float(part.angular_velocity[2])
            if not np.isfinite(motion).all():
                raise MessageError("a velocity is not finite")
        except (BagError, MessageError) as error:
            self._report.topic(item.topic.name).unfit += 1
            self._report.problem(f"{item.topic.name}: {error}")
            return
        if piece.motion_ns and (item.jump or item.time_ns - piece.motion_ns[-1] > self._gap_ns):
            self._pieces.append(piece := _Piece())
        piece.motion_ns.append(item.time_ns)
        piece.motion.append(motion)

    def _drive(self, piece: _Piece) -> Drive:
        begin_ns, spec = piece.motion_ns[0], self._spec
        times: list[float] = []
        commands: list[FloatArray] = []
        timeout_s, last_s = spec.command.timeout_s, (piece.motion_ns[-1] - begin_ns) * 1e-9
        for index, (time_ns, command) in enumerate(zip(piece.command_ns, piece.command, strict=True)):
            time_s = (time_ns - begin_ns) * 1e-9
            times.append(time_s)
            commands.append(command)
            following = piece.command_ns[index + 1 :][:1]
            until_s = (following[0] - begin_ns) * 1e-9 if following else last_s
            if until_s > time_s + timeout_s:
                times.append(time_s + timeout_s)
                commands.append(spec.command_stop)
        motion = np.array(piece.motion)
        return Drive(
            np.array(times),
            np.array(commands).reshape(len(times), spec.act_dim),
            np.asarray((np.array(piece.motion_ns, dtype=np.int64) - begin_ns) * 1e-9, dtype=np.float64),
            motion,
            bool((np.abs(motion[0]) <= AT_REST * greatest(self._contract.spec)).all()),
        )


def greatest(spec: RobotSpec) -> FloatArray:
    """Return the greatest speed ahead and turn rate that a robot may be commanded, (2,)."""
    order = [spec.axis_index["linear_x"], spec.axis_index["angular_z"]]
    return np.maximum(np.abs(spec.command_lower), np.abs(spec.command_upper))[order]


def read_drives(
    paths: Sequence[Path | str], contract: BagContract, on_progress: Progress | None = None
) -> tuple[list[Drive], ImportReport]:
    """Return the drives of all bags, and what could not be used.

    Raises:
        BagError: a bag cannot be read or lacks commands or odometry, or nothing in them can be fitted: no motion was
            commanded, none came of it, or it is too short; the message says which.
        ConfigError: the contract's robot has no twin.
    """
    report, drives, done = ImportReport(contract.spec.period_ns * 1e-9), [], 0
    for path in paths:
        with BagReader(path) as bag:
            before = done

            def on_count(count: int, before: int = before) -> None:
                if on_progress is not None:
                    on_progress(before + count)

            drives += DriveReader(contract, report).read(bag, on_count)
            done = before + sum(bag.counts[name] for name in contract.check_bag(bag, ROLES))
    _check(drives, contract, ", ".join(str(path) for path in paths))
    return drives, report


def count_drive_messages(paths: Sequence[Path | str], contract: BagContract) -> int:
    """Return how many messages :func:`read_drives` will read. Raises :class:`BagError` for what can be seen of that."""
    total = 0
    for path in paths:
        with BagReader(path) as bag:
            total += sum(bag.counts[name] for name in contract.check_bag(bag, ROLES))
    return total


def _check(drives: list[Drive], contract: BagContract, where: str) -> None:
    """Refuse what nothing can be learned from."""
    spec, most = contract.spec, greatest(contract.spec)
    length_s = sum(drive.length_s for drive in drives)
    if length_s < LEAST_S:
        raise BagError(f"{where}: {length_s:.1f} s of unbroken odometry, expected at least {LEAST_S:g} s of driving")
    order = [spec.axis_index["linear_x"], spec.axis_index["angular_z"]]
    asked = np.array([np.abs(drive.command[:, order]).max(axis=0) for drive in drives if len(drive.command)])
    if not len(asked) or not (asked >= MOVING * most).any():
        raise BagError(
            f"{where}: no motion was commanded on {contract.topics_of('command')}: expected commands of at least"
            f" {MOVING:.0%} of {most[0]:g} m/s or {most[1]:g} rad/s; is this the topic that the base hears?"
        )
    moved = np.array([np.abs(drive.motion).max(axis=0) for drive in drives]).max(axis=0)
    if not (moved >= MOVING * most / 2.0).any():
        raise BagError(
            f"{where}: the robot was commanded to move and {contract.topics_of('odom')} shows no motion: at most"
            f" {moved[0]:.3g} m/s and {moved[1]:.3g} rad/s"
        )
