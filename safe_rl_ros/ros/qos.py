"""Quality-of-service profiles, one name per use.

Lock-step needs every message, so its data is reliable throughout; on hardware the newest sample matters, so
sensors are consumed with SensorData.

Reliable is not enough while nodes discover each other: a writer may know a reader that does not yet know the
writer, and what is sent in that moment comes with the next heartbeat of the middleware (3 s with Fast DDS), late
joiners' samples included. Therefore whoever waits for an answer asks again (:data:`REPEAT_S`), every question may
be repeated without harm, and state topics are repeated every :data:`STATE_PERIOD_S`.
"""

from __future__ import annotations

from typing import Literal

from rclpy.duration import Duration
from rclpy.qos import DurabilityPolicy, HistoryPolicy, LivelinessPolicy, QoSProfile, ReliabilityPolicy

Timing = Literal["lockstep", "realtime"]

TIMINGS: tuple[Timing, ...] = ("lockstep", "realtime")
REPEAT_S = 0.1
"""Lock-step: after this time without an answer, the question is sent again."""
LOCKSTEP_DEPTH = 1000
"""Messages that a writer keeps in lock-step until every reader has them: one that was held up, a recorder above
all, asks for what it missed. In real time only the newest counts."""
STATE_PERIOD_S = 0.5
"""Period at which latched state is repeated."""
DEADLINE_PERIODS = 3
LEASE_PERIODS = 5
MIN_LEASE_S = 0.1


def _profile(reliable: bool, latched: bool, depth: int) -> QoSProfile:
    return QoSProfile(
        history=HistoryPolicy.KEEP_LAST,
        depth=depth,
        reliability=ReliabilityPolicy.RELIABLE if reliable else ReliabilityPolicy.BEST_EFFORT,
        durability=DurabilityPolicy.TRANSIENT_LOCAL if latched else DurabilityPolicy.VOLATILE,
    )


def sensor_writer(timing: Timing) -> QoSProfile:
    """Return the profile with which the twin publishes its sensors: reliable, which suits every consumer."""
    return _profile(reliable=True, latched=False, depth=LOCKSTEP_DEPTH if timing == "lockstep" else 5)


def sensor_reader(timing: Timing) -> QoSProfile:
    """Return the profile with which odom, scan and joint_states are consumed (SensorData in real time)."""
    return _profile(reliable=timing == "lockstep", latched=False, depth=5)


def command() -> QoSProfile:
    """Return the profile with which proposals, goals, decisions and commands are read: reliable, newest only."""
    return _profile(reliable=True, latched=False, depth=1)


def command_writer(timing: Timing) -> QoSProfile:
    """Return the profile with which proposals, goals and decisions are published: reliable."""
    return _profile(reliable=True, latched=False, depth=LOCKSTEP_DEPTH if timing == "lockstep" else 1)


def actuator(timing: Timing, period_ns: int) -> QoSProfile:
    """Return the profile of the filter's commands: as :func:`command_writer`, with a watchdog for the base to use.

    In real time it offers a deadline of a few control periods, and liveliness that only publishing keeps up. A
    subscriber that asks for them (no more strictly than offered) is told when commands end; one that does not is not
    affected. A second watchdog only: some middlewares (rmw_zenoh) never raise these events.
    """
    profile = command_writer(timing)
    if timing == "realtime":
        profile.deadline = Duration(nanoseconds=DEADLINE_PERIODS * period_ns)
        profile.liveliness = LivelinessPolicy.MANUAL_BY_TOPIC
        lease_ns = max(LEASE_PERIODS * period_ns, round(MIN_LEASE_S * 1e9))
        profile.liveliness_lease_duration = Duration(nanoseconds=lease_ns)
    return profile


def operator() -> QoSProfile:
    """Return the most undemanding profile: whoever publishes an emergency stop or a heartbeat must be heard."""
    return _profile(reliable=False, latched=False, depth=1)


def latched() -> QoSProfile:
    """Return the profile of state and of the active bundle: reliable, transient local, depth 1."""
    return _profile(reliable=True, latched=True, depth=1)


def clock() -> QoSProfile:
    """Return the profile of ``/clock`` as rclpy's time source subscribes to it: best effort, depth 1."""
    return _profile(reliable=False, latched=False, depth=1)


def diagnostics() -> QoSProfile:
    """Return the profile of ``diagnostics`` (reliable, so that aggregators get every status)."""
    return _profile(reliable=True, latched=False, depth=10)
