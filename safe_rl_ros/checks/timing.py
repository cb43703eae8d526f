"""Rates, gaps, stamps and ages of what was heard."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np

from safe_rl_ros.checks.outcome import Findings, Outcome
from safe_rl_ros.checks.records import ClockRecord, TopicRecord
from safe_rl_ros.envs.robot_spec import RobotSpec
from safe_rl_ros.messages.state_assembler import Sensor
from safe_rl_ros.types import FloatArray

Source = Literal["wall", "sim", "none", "unknown"]
SOURCES: dict[Source, str] = {
    "wall": "system clock",
    "sim": "/clock",
    "none": "no stamp",
    "unknown": "neither system clock nor /clock",
}
RATE_SLACK = 0.9
"""Share of the control rate below which a sensor is too slow."""
FUTURE_S = 0.01
"""Stamps may be ahead of this machine by so much: clocks that are synchronised over a network."""
SAME_CLOCK_NS = 3600 * 10**9
"""A stamp that is further from the system clock does not come from one."""


@dataclass(frozen=True)
class Ages:
    """Where stamps come from, and how old each message was when it arrived, (N,) s on that clock."""

    source: Source
    values_s: FloatArray


def ages_of(record: TopicRecord) -> Ages:
    """Return the clock that a topic's stamps are of, and the ages."""
    stamps = record.stamps
    if not stamps.any():
        return Ages("none", np.zeros(0))
    wall = np.array([sample.wall_ns for sample in record.samples], dtype=np.int64) - stamps
    known = [(s.clock_ns, s.stamp_ns) for s in record.samples if s.clock_ns is not None]
    sim = np.array([clock - stamp for clock, stamp in known], dtype=np.int64)
    if sim.size and abs(np.median(sim)) <= abs(np.median(wall)):
        return Ages("sim", sim.astype(np.float64) * 1e-9)
    if abs(np.median(wall)) <= SAME_CLOCK_NS:
        return Ages("wall", wall.astype(np.float64) * 1e-9)
    return Ages("unknown", np.zeros(0))


def check_rate(found: Findings, record: TopicRecord, sensor: Sensor, spec: RobotSpec, timeout_s: float) -> None:
    """Check the median rate and the worst silence, by arrival."""
    arrivals = np.array([sample.steady_ns for sample in record.samples], dtype=np.int64)
    steps = np.diff(arrivals) * 1e-9
    rate = float(1.0 / max(np.median(steps), 1e-9)) if steps.size else 0.0
    found.judge(
        "rate",
        rate >= RATE_SLACK * spec.control_rate_hz,
        f"{rate:.1f} Hz",
        expected=f"at least the control rate, {spec.control_rate_hz:g} Hz",
        advice="raise the driver's rate, or lower control_rate_hz (another robot spec, hence another bundle): a policy "
        "that was trained on fresh data would act on old ones",
        value=rate,
        otherwise=Outcome.WARN if sensor == "scan" else Outcome.FAIL,
    )
    edges = np.concatenate(([record.start_ns], arrivals, [record.end_ns]))
    gap = float(np.diff(edges).max()) * 1e-9
    found.judge(
        "worst gap",
        gap < timeout_s,
        f"{gap:.3f} s",
        expected=f"< {timeout_s:g} s (timeout_s)",
        advice="the filter stops the robot in every such gap: look for load, wireless links and QoS depth",
        value=gap,
    )


def check_stamps(found: Findings, record: TopicRecord, timeout_s: float, clock: ClockRecord) -> Ages:
    """Check that stamps go forward, are of the clock in use, not in the future and not too old; return the ages."""
    steps = np.diff(record.stamps)
    back, repeated = int((steps < 0).sum()), int((steps == 0).sum())
    frozen = steps.size > 0 and repeated == steps.size
    found.judge(
        "stamps go forward",
        not back and not repeated,
        f"{back} go back, {repeated} repeated" if back or repeated else "all do",
        expected="every stamp newer than the one before",
        advice="time stands still: a twin in lock-step (start it with timing:=realtime), or a frozen driver"
        if frozen
        else "such messages are dropped: two sources, a driver that repeats old data, or a clock that was set back",
        value=float(back + repeated),
    )
    ages = ages_of(record)
    expected = "/clock, which is published" if clock.values_ns else "system clock"
    good = ages.source == ("sim" if clock.values_ns else "wall")
    found.judge(
        "clock", good, SOURCES[ages.source], expected=expected, advice=_clock_advice(ages.source, bool(clock.values_ns))
    )
    if ages.values_s.size:
        _check_ages(found, ages, timeout_s, clock.step_s if ages.source == "sim" else 0.0)
    return ages


def _clock_advice(source: Source, simulated: bool) -> str:
    if source == "none":
        return "let the driver stamp its messages"
    if simulated:
        return "start the driver with use_sim_time:=true, or end what publishes /clock"
    return "stamps are of the time since boot, or simulated without /clock: let the driver use the ROS clock"


def _check_ages(found: Findings, ages: Ages, timeout_s: float, step_s: float) -> None:
    least, p50, p99 = (float(v) for v in np.percentile(ages.values_s, (0, 50, 99)))
    ahead = max(0.0, -least)
    # Simulated time is known to its own step only: a state of now comes before the clock says so.
    slack = FUTURE_S + step_s
    found.judge(
        "not in the future",
        ahead <= slack,
        f"{ahead * 1e3:.1f} ms ahead",
        expected=f"<= {slack * 1e3:.0f} ms",
        advice=f"the source's clock is {ahead:.3g} s ahead of this machine's: synchronise them (chrony, PTP)",
        value=ahead,
        otherwise=Outcome.FAIL if ahead > slack + timeout_s / 2.0 else Outcome.WARN,
    )
    offset = f": the source's clock is some {least:.3g} s behind, synchronise them (chrony, PTP)"
    late = p99 >= timeout_s
    found.judge(
        "age at arrival",
        p99 < timeout_s / 2.0,
        f"p50 {p50 * 1e3:.1f} ms, p99 {p99 * 1e3:.1f} ms" + (f", /clock steps {step_s * 1e3:.0f} ms" if step_s else ""),
        expected=f"< {timeout_s * 0.5e3:.0f} ms, half of timeout_s",
        advice="data are old when they come" + (offset if least >= timeout_s / 2.0 else ": processing or network"),
        value=p99,
        otherwise=Outcome.FAIL if late else Outcome.WARN,
    )


def check_clock(found: Findings, ages: Mapping[Sensor, Ages], clock: ClockRecord) -> None:
    """Check that all sensors share one clock, and say how far it is from this machine's."""
    if not ages:
        found.skip("source of time", "no stamp was heard")
        return
    sources = {sensor: SOURCES[age.source] for sensor, age in ages.items()}
    found.judge(
        "source of time",
        len(set(sources.values())) == 1 and len(clock.publishers) <= 1,
        ", ".join(f"{sensor} {source}" for sensor, source in sources.items())
        + (f"; {len(clock.publishers)} publish /clock" if len(clock.publishers) > 1 else ""),
        expected="one for all sensors",
        advice="mixed clocks: set use_sim_time alike everywhere, and let one node at most publish /clock",
    )
    least = {sensor: float(age.values_s.min()) for sensor, age in ages.items() if age.values_s.size}
    if not least:
        found.skip("offset", "no stamps to compare with")
        return
    worst = max(least.values(), key=abs)
    limit = 0.1 + clock.step_s
    found.judge(
        "offset",
        abs(worst) <= limit,
        ", ".join(f"{sensor} {value * 1e3:+.1f} ms" for sensor, value in least.items()),
        expected=f"within {limit * 1e3:.0f} ms of this machine (least age)",
        advice="synchronise the clocks of robot and this machine (chrony, PTP), or correct the driver's stamps",
        value=worst,
        otherwise=Outcome.WARN,
    )
