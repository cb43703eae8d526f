"""Faults of what the base shows: observations dropped, delayed, reordered, NaN, of the wrong shape, and its clock.

Policies stamp their proposals with the system clock, so a base whose clock is off can be told from one that is not.
Stop deadlines count from the first disturbed message.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks.chaos.base import SENSORS, Base, Disturbance
from benchmarks.chaos.bench import Bench
from benchmarks.chaos.case import Case
from benchmarks.chaos.setting import GRACE_PERIODS, TIMEOUT_S

NS_PER_S = 1_000_000_000
NAN = float("nan")


def timeout_deadline_s(bench: Bench) -> float:
    """Return the stop deadline where an age limit has to run out first, s."""
    return TIMEOUT_S + GRACE_PERIODS * bench.period_s


def _disturb(bench: Bench, disturbance: Disturbance) -> None:
    bench.base.disturbance = disturbance


def _some_sensors(bench: Bench) -> tuple[str, ...]:
    """Return one sensor, or all."""
    choice = int(bench.rng.integers(len(SENSORS) + 1))
    return SENSORS if choice == len(SENSORS) else (SENSORS[choice],)


def dropped(bench: Bench) -> Case:
    """No message of one sensor, or of all."""
    gone = _some_sensors(bench)
    kept = tuple(sensor for sensor in SENSORS if sensor not in gone)
    _disturb(bench, lambda base, now_ns: base.show(now_ns, kept))
    return Case("hold", timeout_deadline_s(bench), "+".join(gone))


def delayed(bench: Bench) -> Case:
    """One sensor, or all, come late with their true stamps: by less than the timeout, or by more (must stop)."""
    late = _some_sensors(bench)
    on_time = tuple(sensor for sensor in SENSORS if sensor not in late)
    short = bool(bench.rng.random() < 0.3)
    delay_s = TIMEOUT_S * float(bench.rng.uniform(0.2, 0.6) if short else bench.rng.uniform(1.3, 3.0))

    def disturbance(base: Base, now_ns: int) -> None:
        base.show(now_ns, on_time)
        for sensor in late:
            base.show_later(delay_s, now_ns, sensor)

    _disturb(bench, disturbance)
    if short:
        return Case("none", variant="short", duration_s=TIMEOUT_S + delay_s)
    # Long enough for delayed messages to arrive at their usual rate: only their stamps say that they are old.
    lasts_s = max(timeout_deadline_s(bench), delay_s) + bench.rng.uniform(2.0, 5.0) * bench.period_s
    return Case("hold", timeout_deadline_s(bench), "long", duration_s=lasts_s)


def reordered(bench: Bench) -> Case:
    """Neighbours swapped (nothing must happen), or every message older than the one before (must stop)."""
    if bench.rng.random() < 0.4:
        held: list[int] = []

        def swap(base: Base, now_ns: int) -> None:
            if not held:
                held.append(now_ns)
                return
            base.show(now_ns)
            base.show(held.pop())

        _disturb(bench, swap)
        return Case("none", variant="neighbours swapped", duration_s=2 * TIMEOUT_S)
    shown: list[int] = []

    def backwards(base: Base, now_ns: int) -> None:
        shown.append(now_ns)
        base.show(2 * shown[0] - now_ns)

    _disturb(bench, backwards)
    # The first of them is a good one, a period before the second.
    return Case("hold", timeout_deadline_s(bench) + bench.period_s, "backwards")


def not_a_number(bench: Bench) -> Case:
    """A NaN in odometry or scan; the next tick must stop."""
    rays = len(bench.base.ranges)
    one_ray, all_rays = bench.base.ranges.copy(), np.full(rays, NAN, dtype=np.float32)
    one_ray[bench.rng.integers(rays)] = NAN
    kinds: dict[str, dict[str, Any]] = {
        "position": {"position": np.array([NAN, 0.0, 0.0])},
        "orientation": {"orientation": np.array([0.0, 0.0, 0.0, NAN])},
        "linear velocity": {"linear_velocity": np.array([NAN, 0.0, 0.0])},
        "angular velocity": {"angular_velocity": np.array([0.0, 0.0, NAN])},
        "one ray": {"ranges": one_ray},
        "all rays": {"ranges": all_rays},
    }
    variant = str(bench.rng.choice(sorted(kinds)))
    _disturb(bench, lambda base, now_ns: base.show(now_ns, **kinds[variant]))
    return Case("hold", GRACE_PERIODS * bench.period_s, variant)


def wrong_shape(bench: Bench) -> Case:
    """A scan with another number of rays or other angles, joints missing or too few values."""

    def fewer_rays(scan: Any) -> None:
        scan.ranges = scan.ranges[: int(bench.rng.integers(len(scan.ranges)))]

    def more_rays(scan: Any) -> None:
        scan.ranges = array("f", [*scan.ranges, 1.0])

    def other_angles(scan: Any) -> None:
        scan.angle_increment = scan.angle_increment * 1.5

    def other_joint(joints: Any) -> None:
        joints.name = ["wheel_of_fortune", *joints.name[1:]]

    def fewer_positions(joints: Any) -> None:
        joints.position = joints.position[:-1]

    changes: tuple[tuple[str, Callable[[Any], None]], ...] = (
        ("scan", fewer_rays),
        ("scan", more_rays),
        ("scan", other_angles),
        ("joints", other_joint),
        ("joints", fewer_positions),
    )
    sensor, change = changes[int(bench.rng.integers(len(changes)))]
    others = tuple(other for other in SENSORS if other != sensor)

    def disturbance(base: Base, now_ns: int) -> None:
        base.show(now_ns, others)
        base.show_changed(now_ns, sensor, change)

    _disturb(bench, disturbance)
    return Case("hold", timeout_deadline_s(bench), change.__name__.replace("_", " "))


def frozen(bench: Bench) -> Case:
    """Messages go on, their stamps stand still."""
    first: list[int] = []

    def disturbance(base: Base, now_ns: int) -> None:
        first.append(now_ns)
        base.show(first[0])

    _disturb(bench, disturbance)
    # The first of them is a good one, a period before the second.
    return Case("hold", timeout_deadline_s(bench) + bench.period_s)


def _jump(bench: Bench, jump_s: float, variant: str, everywhere: bool, wanted: Any) -> Case:
    jump_ns = round(jump_s * NS_PER_S)
    _disturb(bench, lambda base, now_ns: base.show(now_ns + jump_ns))

    def end() -> None:
        bench.clock_offset_ns.value = 0

    if everywhere:
        bench.clock_offset_ns.value = jump_ns
    return Case(wanted, timeout_deadline_s(bench), variant, end, duration_s=timeout_deadline_s(bench) + 0.05)


def clock_back(bench: Bench) -> Case:
    """The base's clock jumps back, or everybody's does."""
    small = bool(bench.rng.random() < 0.5)
    jump_s = -float(bench.rng.uniform(0.3, 0.9) if small else bench.rng.uniform(1.5, 60.0))
    size = "under 1 s" if small else "over 1 s"
    if bench.rng.random() < 0.5:
        return _jump(bench, jump_s, f"base, {size}", False, "hold")
    # Everybody agrees on the new time, so commands may flow again after the stop.
    return _jump(bench, jump_s, f"everybody, {size}", True, "first")


def clock_forward(bench: Bench) -> Case:
    """The base's clock jumps forward (must stop), or everybody's does (nothing need happen)."""
    small = bool(bench.rng.random() < 0.2)
    jump_s = float(bench.rng.uniform(0.3, 0.5) if small else bench.rng.uniform(1.5, 60.0))
    size = "under 1 s" if small else "over 1 s"
    if bench.rng.random() < 0.6:
        return _jump(bench, jump_s, f"base, {size}", False, "hold")
    return _jump(bench, jump_s, f"everybody, {size}", True, "none")


INPUT_FAULTS: dict[str, Callable[[Bench], Case]] = {
    "observation_dropped": dropped,
    "observation_delayed": delayed,
    "observation_reordered": reordered,
    "observation_nan": not_a_number,
    "observation_wrong_shape": wrong_shape,
    "observation_frozen_stamps": frozen,
    "clock_jump_back": clock_back,
    "clock_jump_forward": clock_forward,
}
