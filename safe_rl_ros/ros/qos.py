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

from rclpy.qos import DurabilityPolicy, HistoryPolicy, QoSProfile, ReliabilityPolicy

Timing = Literal["lockstep", "realtime"]

TIMINGS: tuple[Timing, ...] = ("lockstep", "realtime")
REPEAT_S = 0.1
"""Lock-step: after this time without an answer, the question is sent again."""
STATE_PERIOD_S = 0.5
"""Period at which latched state is repeated."""


def _profile(reliable: bool, latched: bool, depth: int) -> QoSProfile:
    return QoSProfile(
        history=HistoryPolicy.KEEP_LAST,
        depth=depth,
        reliability=ReliabilityPolicy.RELIABLE if reliable else ReliabilityPolicy.BEST_EFFORT,
        durability=DurabilityPolicy.TRANSIENT_LOCAL if latched else DurabilityPolicy.VOLATILE,
    )


def sensor_writer() -> QoSProfile:
    """Return the profile with which the twin publishes its sensors: reliable, which suits every consumer."""
    return _profile(reliable=True, latched=False, depth=5)


def sensor_reader(timing: Timing) -> QoSProfile:
    """Return the profile with which odom, scan and joint_states are consumed (SensorData in real time)."""
    return _profile(reliable=timing == "lockstep", latched=False, depth=5)


def command() -> QoSProfile:
    """Return the profile of proposals, goals, decisions and actuator commands: reliable, newest only."""
    return _profile(reliable=True, latched=False, depth=1)


def latched() -> QoSProfile:
    """Return the profile of state and of the active bundle: reliable, transient local, depth 1."""
    return _profile(reliable=True, latched=True, depth=1)


def clock() -> QoSProfile:
    """Return the profile of ``/clock`` as rclpy's time source subscribes to it: best effort, depth 1."""
    return _profile(reliable=False, latched=False, depth=1)


def diagnostics() -> QoSProfile:
    """Return the profile of ``diagnostics`` (reliable, so that aggregators get every status)."""
    return _profile(reliable=True, latched=False, depth=10)
