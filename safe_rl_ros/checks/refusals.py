"""When ``--move`` must not move the robot."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from safe_rl_ros.checks.controllers import JOINTS
from safe_rl_ros.checks.motion import MOVING_SHARE, measured_axis, plan_axis, tiny, travel_m
from safe_rl_ros.checks.outcome import Outcome, Report
from safe_rl_ros.checks.records import Observed, Sample, ScanContent
from safe_rl_ros.checks.scan import nearest
from safe_rl_ros.envs.robot_spec import RobotSpec
from safe_rl_ros.messages.state_assembler import Sensor

ROOM_M = 0.1
"""Free space that must be left around the footprint after the motion."""


def refusals(report: Report, observed: Observed, spec: RobotSpec, *, order_checked: bool = False) -> list[str]:
    """Return why the robot must not be moved now; empty if it may.

    Args:
        report: the passive checks.
        observed: what was recorded.
        spec: the robot.
        order_checked: somebody compared ``command.axes`` with the order of the controller's joints.
    """
    failed = report.count(Outcome.FAIL)
    reasons = [f"{failed} checks failed"] if failed else []
    reasons += ["the emergency stop is pressed"] if observed.estop_pressed else []
    record = observed.filter
    others = [p.node for p in observed.command.publishers if record is None or p.node != record.node]
    reasons += [f"others command the robot: {', '.join(others)}"] if others else []
    if record is not None:
        reasons += [] if record.active else ["a filter runs and is not active: activate it, in shadow mode, or end it"]
        reasons += [f"the filter has latched a stop: {record.state['stop']}"] if record.state.get("stop") else []
        reasons += [f"others propose commands: {', '.join(record.proposers)}"] if record.proposers else []
    source: Sensor = "odom" if spec.command.interface == "twist" else "joint_states"
    if source not in observed.sensors or not observed.sensors[source].samples:
        return [*reasons, f"without {source} nobody sees what moves"]
    reasons += [] if order_checked else _order_unknown(observed, spec)
    return reasons + _not_at_rest(observed, spec, source) + _no_room(observed, spec)


def _order_unknown(observed: Observed, spec: RobotSpec) -> list[str]:
    """Say where a joint might get the position of another, which is a jump.

    Position commands without names hold all joints but one where they are. In another order than the controller's they
    do not, unless all joints stand at the same number but for the tiny motion. A velocity of another joint is no jump.
    """
    silent = [controller.node for controller in observed.controllers if JOINTS not in controller.parameters]
    told = bool(observed.controllers) and not silent
    if told or spec.command.interface != "joint_group" or not spec.command.positions or spec.act_dim < 2:
        return []
    places = _places(observed.sensors["joint_states"].samples, spec)
    allowed = min(tiny(spec, index) for index in range(spec.act_dim))
    if np.ptp(places) <= allowed:  # NaN is not
        return []
    shown = ", ".join(f"{axis.name} {place:.3g}" for axis, place in zip(spec.command.axes, places, strict=True))
    who = f"{', '.join(silent)} does not tell" if silent else "no controller tells"
    return [
        f"{who} the order of its joints, and in another than that of command.axes the first command is a jump"
        f" ({shown}): compare the two by hand and give --order-checked, or bring all joints to one number within"
        f" {allowed:.2g}"
    ]


def _places(samples: Sequence[Sample], spec: RobotSpec) -> list[float]:
    """Return the newest position of every axis, NaN where it is not known."""
    values = [measured_axis(spec, index, samples[-1]) for index in range(spec.act_dim)]
    return [float("nan") if value is None else value for value in values]


def _not_at_rest(observed: Observed, spec: RobotSpec, source: Sensor) -> list[str]:
    """Velocity axes that move already, against what would be commanded."""
    if spec.command.positions:
        return []
    samples = observed.sensors[source].samples
    moving = []
    for index, axis in enumerate(spec.command.axes):
        values = [v for v in (measured_axis(spec, index, sample) for sample in samples[-5:]) if v is not None]
        if values and abs(float(np.median(values))) > MOVING_SHARE * abs(plan_axis(spec, index, None).commanded):
            moving.append(axis.name)
    return [f"the robot moves already: {', '.join(moving)}"] if moving else []


def _no_room(observed: Observed, spec: RobotSpec) -> list[str]:
    scan, record = spec.sensors.scan, observed.sensors.get("scan")
    if scan is None or record is None or not record.samples or spec.command.interface != "twist":
        return []
    content = record.samples[-1].content
    hit = nearest(content, spec, scan) if isinstance(content, ScanContent) else None
    need = (spec.footprint_radius_m or 0.0) + travel_m(spec) + ROOM_M
    if hit is None or hit[0] >= need:
        return []
    return [f"something is {hit[0]:.2f} m from the base's origin, the motion needs {need:.2f} m around it"]
