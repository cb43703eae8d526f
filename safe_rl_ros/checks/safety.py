"""What keeps the robot safe: emergency stop, filter and bundle."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from safe_rl_ros.bundle import load_bundle, read_manifest
from safe_rl_ros.checks.connections import names
from safe_rl_ros.checks.outcome import Check, Findings, Outcome
from safe_rl_ros.checks.records import FilterRecord, TopicRecord
from safe_rl_ros.envs.observation import StateObserver
from safe_rl_ros.envs.robot_spec import RobotSpec
from safe_rl_ros.types import BundleError, FloatArray, Reason

BOOL = "std_msgs/msg/Bool"
STOP_PERIODS, STOP_SLACK_S = 2, 0.05
"""A stop is expected within so many control periods and a moment."""


def check_estop(found: Findings, record: TopicRecord, pressed: bool | None) -> None:
    """Check that an operator can stop the filter, and whether one does now."""
    found.judge(
        "publisher",
        bool(record.publishers),
        names(record.publishers),
        expected="an operator's stop button",
        advice="only the filter's service ~/estop and the robot's own button would stop it: connect one",
        otherwise=Outcome.WARN,
    )
    types = sorted({endpoint.type for endpoint in record.publishers})
    if types:
        found.judge("type", types == [BOOL], ", ".join(types), expected=BOOL, advice="the filter would not hear it")
    if record.publishers or pressed is not None:
        said = {None: "nothing was said yet", False: "released", True: "pressed"}[pressed]
        found.judge(
            "state",
            not pressed,
            said,
            expected="released",
            advice="nothing will move; release it, then call the filter's ~/clear_estop",
            otherwise=Outcome.WARN,
        )


def check_filter(found: Findings, record: FilterRecord | None, spec: RobotSpec, bundle_hash: str | None) -> None:
    """Check a running safety filter."""
    if record is None:
        found.skip("node", "no safety filter is running", "start filter.launch.py with mode:=shadow and check again")
        return
    state = record.state
    if not state:
        found.judge("state", False, f"{record.node} says nothing", expected="~/state", advice="start it anew")
        return
    lifecycle, problem = state.get("state", ""), state.get("problem", "")
    found.judge(
        "lifecycle",
        lifecycle in ("active", "inactive") and not problem,
        lifecycle + (f": {problem}" if problem else ""),
        expected="active, or inactive and ready",
        advice="see its log; `ros2 lifecycle set` configures it",
        otherwise=Outcome.FAIL if problem else Outcome.WARN,
    )
    timing = state.get("timing", "")
    found.judge("timing", timing == "realtime", timing, expected="realtime", advice="lock-step is for the twin alone")
    mode = f"{state.get('mode')}, critic {state.get('critic')}"
    found.judge("mode", True, mode + (": commands pass unchanged" if state.get("mode") == "shadow" else ""))
    found.judge(
        "stop",
        not state.get("stop"),
        state.get("stop") or "nothing is latched",
        expected="nothing latched",
        advice=f"release what holds it, then {clear_call(record.node)}",
        otherwise=Outcome.WARN,
    )
    _check_spec(found, state, spec)
    _check_bundle_in_force(found, state, bundle_hash)
    _check_inputs(found, record)
    _check_ticks(found, record, spec)


def clear_call(node: str) -> str:
    """Return the command that releases a latched stop."""
    return f"`ros2 service call {node}/clear_estop std_srvs/srv/Trigger`"


def _check_spec(found: Findings, state: Mapping[str, str], spec: RobotSpec) -> None:
    theirs = state.get("spec_sha256")
    if not theirs:
        found.skip("robot spec", "this filter does not say which one it uses")
        return
    found.judge(
        "robot spec",
        theirs == spec.hash,
        theirs[:12],
        expected=spec.hash[:12],
        advice="the filter runs with another robot spec, whose bundle it takes: start it with this one",
    )


def _check_bundle_in_force(found: Findings, state: Mapping[str, str], bundle_hash: str | None) -> None:
    in_force, refused = state.get("bundle_sha256", ""), state.get("refused_reason", "")
    off = state.get("critic") == "off"
    good = bool(in_force or off) and not refused and (bundle_hash is None or in_force == bundle_hash)
    wanted = f"{bundle_hash[:12]} (--bundle)" if bundle_hash else "one of this robot spec"
    found.judge(
        "bundle in force",
        good,
        (in_force[:12] or ("none, critic off" if off else "none")) + (f"; refused: {refused}" if refused else ""),
        expected=wanted,
        advice="without its bundle the filter stops the robot: give bundle:=, which must be of this very robot spec",
        otherwise=Outcome.FAIL if refused or (bundle_hash and in_force) else Outcome.WARN,
    )
    calibration = state.get("calibration", "")
    found.judge(
        "threshold",
        calibration.startswith("calibrated"),
        f"{state.get('threshold') or 'none'}, {calibration}",
        expected="calibrated",
        advice="no guarantee holds: `safe-rl-ros calibrate`, then export and start with require_calibrated:=true",
        otherwise=Outcome.WARN,
    )


def _check_inputs(found: Findings, record: FilterRecord) -> None:
    waiting = [name for name in record.state.get("waiting_for", "").split(", ") if name and name != "proposed"]
    newest = record.diagnostics[-1] if record.diagnostics else {}
    dropped = {key.partition(".")[2]: value for key, value in newest.items() if key.startswith("dropped.")}
    deaf = sorted(key.partition(".")[2] for key in newest if key.startswith("incompatible_qos."))
    texts = [f"never heard {', '.join(waiting)}"] if waiting else []
    texts += [f"dropped {', '.join(f'{n} of {t}' for t, n in sorted(dropped.items()))}"] if dropped else []
    texts += [f"incompatible QoS on {', '.join(deaf)}"] if deaf else []
    found.judge(
        "inputs",
        not texts,
        "; ".join(texts) or "all heard",
        expected="all heard, none dropped",
        advice=newest.get("last_problem") or "the lines of these topics above say why",
        otherwise=Outcome.FAIL if dropped or deaf else Outcome.WARN,
    )


def _check_ticks(found: Findings, record: FilterRecord, spec: RobotSpec) -> None:
    if not record.active or len(record.diagnostics) < 2:
        found.skip("late ticks", "not active" if not record.active else "too few diagnostics: listen longer")
        return
    first, last = record.diagnostics[0], record.diagnostics[-1]
    missed = int(last.get("missed_ticks", 0)) - int(first.get("missed_ticks", 0))
    worst_ms = float(last.get("worst_late_ms", 0.0))
    found.judge(
        "late ticks",
        missed == 0,
        f"{missed} missed while listening; since its start {last.get('missed_ticks')}, worst {worst_ms:.1f} ms late",
        expected=f"none missed (period {spec.period_ns * 1e-6:g} ms)",
        advice="this computer is too busy: cpu_affinity, realtime_scheduling, fewer processes",
        value=float(missed),
        otherwise=Outcome.WARN,
    )


def check_bundle(found: Findings, path: Path, spec: RobotSpec, observer: StateObserver | None) -> str | None:
    """Check a bundle on disk against the robot spec and, with an observer, the task's observation and its own hashes.

    Returns:
        The bundle's hash if it fits, else None.
    """
    try:
        if observer is None:
            manifest, digest = read_manifest(path)
        else:
            bundle = load_bundle(path, spec_hash=spec.hash, obs_names=observer.names)
            manifest, digest = bundle.manifest, bundle.hash
    except BundleError as error:
        _refuse_bundle(found, str(error))
        return None
    if manifest.robot_spec_hash != spec.hash:
        _refuse_bundle(found, f"it is for the robot spec {manifest.robot_spec_hash[:12]}, not {spec.hash[:12]}")
        return None
    found.judge("fits and is whole", True, f"{digest[:12]}, {manifest.algorithm}")
    if observer is None:
        found.skip("observation, weights", "no task was given", "give --task for the observation and all hashes")
    certificate = manifest.certificate
    found.judge(
        "certificate",
        certificate is not None,
        certificate.summary if certificate else "none",
        expected="a calibrated threshold",
        advice="`safe-rl-ros calibrate` first",
        otherwise=Outcome.WARN,
    )
    return digest


def _refuse_bundle(found: Findings, why: str) -> None:
    advice = "export it again from a run with this robot spec and task: any change of the spec is another robot"
    found.judge("fits and is whole", False, why, expected="this robot spec and task", advice=advice)


@dataclass(frozen=True)
class PressRecord:
    """What followed when the emergency stop was pressed. Times are steady ns."""

    how: str
    """The service or topic, as it was pressed."""
    answered: bool
    pressed_ns: int
    active: bool
    """Whether the filter was sending commands."""
    latched: str
    """What the filter says is latched afterwards."""
    decisions: tuple[tuple[int, Reason], ...]
    commands: tuple[tuple[int, bool], ...]
    """Commands on the robot's topic: when, and whether each was a stop."""


def is_stop(spec: RobotSpec, command: FloatArray, before: FloatArray | None) -> bool:
    """Return whether a command (C,) brings the robot to rest, as its stop profile does it after ``before``."""
    if spec.command.positions:
        return before is not None and bool(np.allclose(command, before, atol=1e-6))
    away = np.abs(command - spec.command_stop)
    if bool((away <= 1e-6).all()):
        return True
    if spec.command.stop_profile != "decelerate" or before is None:
        return False
    earlier = np.abs(before - spec.command_stop)
    return bool((away <= earlier).all() and (away < earlier).any())


def check_press(found: Findings, record: PressRecord, spec: RobotSpec, node: str) -> list[Check]:
    """Check that pressing the emergency stop latched it and stopped the robot in time; return the checks."""
    found.judge(
        "latches",
        record.answered and bool(record.latched),
        f"{record.how}: {record.latched or 'nothing is latched'}",
        expected="a latched stop",
        advice="the filter did not take it: do not arm",
    )
    if not record.active:
        found.skip("stop command", "the filter is not active, it sends nothing", "activate it (shadow will do)")
    else:
        limit = STOP_PERIODS * spec.period_ns * 1e-9 + STOP_SLACK_S
        late = [(at, reason) for at, reason in record.decisions if at >= record.pressed_ns]
        stopped = [at for at, reason in late if reason is Reason.STOP_ESTOP]
        delay = (stopped[0] - record.pressed_ns) * 1e-9 if stopped else float("inf")
        after = [stop for at, stop in record.commands if stopped and at >= stopped[0]]
        found.judge(
            "stop command",
            delay <= limit and bool(after) and all(after),
            f"decided after {delay * 1e3:.0f} ms, {sum(after)} of {len(after)} commands since are stops"
            if stopped
            else "none was decided",
            expected=f"within {limit * 1e3:.0f} ms, then nothing else",
            advice="the stop does not come through: do not arm",
            value=delay,
        )
    if record.latched:
        found.judge("how to clear it", True, f"still latched: {clear_call(node)}")
    return found.checks
