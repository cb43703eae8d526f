"""The command that checks a running robot before anybody arms a policy on it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape

from safe_rl_ros.cli.app import app, console
from safe_rl_ros.types import BackendError, ConfigError, SafeRlRosError

if TYPE_CHECKING:
    from safe_rl_ros.checks.outcome import Check, Report
    from safe_rl_ros.checks.records import Observed
    from safe_rl_ros.envs.observation import StateObserver
    from safe_rl_ros.envs.robot_spec import RobotSpec

STYLES = {"pass": "green", "warn": "yellow", "fail": "bold red", "skip": "dim"}
FAILED, NOT_RUN = 1, 2
PRESS = "emergency stop"
AGAIN_S = 1.0


@app.command("check-robot")
def check_robot(
    robot: Annotated[str, typer.Argument(help="Robot spec YAML: a file, or a name in config/robots.")],
    task: Annotated[
        str | None, typer.Option(help="Task: a file, or a name in config/tasks; checks its goal and observation, too.")
    ] = None,
    bundle: Annotated[Path | None, typer.Option(help="Bundle that is to be armed.")] = None,
    namespace: Annotated[str, typer.Option(help="ROS namespace of the robot's topics.")] = "",
    filter_name: Annotated[str, typer.Option("--filter", help="Node name of the safety filter.")] = "safety_filter",
    proposed: Annotated[
        str, typer.Option(help="Topic of the policy's commands where the filter was remapped (policy_topic).")
    ] = "",
    seconds: Annotated[float, typer.Option(min=1.0, max=600.0, help="Listen for this time, in s.")] = 5.0,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write the report here, too.")] = None,
    move: Annotated[
        bool, typer.Option("--move", help="Move each axis a little: latency, sign, scale, command timeout. Asks first.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask before moving.")] = False,
    order_checked: Annotated[
        bool,
        typer.Option(
            "--order-checked",
            help="command.axes were compared with the controller's order by hand; for one that does not tell its.",
        ),
    ] = False,
    press: Annotated[
        bool, typer.Option("--press-estop", help="Press the filter's emergency stop and see it stop; it stays latched.")
    ] = False,
) -> None:
    """Check topics, types, QoS, rates, stamps, joints, scan, odometry, e-stop and filter of a running robot or twin.

    Listens only, unless --move or --press-estop is given. Exit status: 0 ready to arm, 1 checks failed, 2 could not
    run. Needs ROS 2.
    """
    try:
        places: dict[str, Any] = {"namespace": namespace, "filter_name": filter_name, "proposed_topic": proposed}
        request = _read(robot, task, bundle, places)
        report = _run(request, seconds, _Wish(move, yes, order_checked, press))
    except SafeRlRosError as error:
        console.print(f"[red]error:[/red] {escape(str(error))}", soft_wrap=True)
        raise typer.Exit(NOT_RUN) from error
    if json_file is not None:
        content = {"robot": robot, "namespace": namespace, "seconds": seconds, "order_checked": order_checked}
        content |= report.to_json()
        json_file.write_text(json.dumps(content, indent=2, allow_nan=False) + "\n", encoding="utf-8")
    console.print(report.last_line, style="green" if report.ready else "bold red")
    if not report.ready:
        raise typer.Exit(FAILED)


@dataclass(frozen=True)
class _Request:
    """What is to be checked, with the files read."""

    spec: RobotSpec
    observer: StateObserver | None
    bundle: Path | None
    places: dict[str, Any]
    """Names in the graph, for the probe."""


@dataclass(frozen=True)
class _Wish:
    """What is to be done beside listening, and what somebody vouches for."""

    move: bool
    sure: bool
    order_checked: bool
    press: bool


def _read(robot: str, task: str | None, bundle: Path | None, places: dict[str, Any]) -> _Request:
    from safe_rl_ros.envs.observers import make_observer
    from safe_rl_ros.envs.robot_spec import load_robot_spec

    spec = load_robot_spec(robot)
    return _Request(spec, None if task is None else make_observer(spec, task), bundle, places)


def _run(request: _Request, seconds: float, wish: _Wish) -> Report:
    """Listen, judge, show; then move and press, if asked to."""
    from safe_rl_ros.checks.robot import check_robot as judge

    try:
        from safe_rl_ros.ros.robot_probe import RobotProbe
    except ImportError as error:
        raise ConfigError(str(error)) from error
    spec, observer = request.spec, request.observer
    with RobotProbe(spec, needs_goal=observer is not None and observer.needs_goal, **request.places) as probe:
        console.print(f"{spec.name} {spec.hash[:12]}: listening for {seconds:g} s")
        observed = probe.listen(seconds)
        report = judge(spec, observed, observer=observer, bundle=request.bundle)
        _show(report.checks)
        moved: list[Check] = []
        if wish.move:
            moved = _move(probe, observed, report, wish)
            report = _added(report, moved)
        if wish.press:
            report = _added(report, _press(spec, probe, _why_at_rest(probe, report, moved, wish)))
    return report


def _added(report: Report, checks: Sequence[Check]) -> Report:
    _show(checks)
    return report.plus(checks)


def _move(probe: Any, observed: Observed, report: Report, wish: _Wish) -> list[Check]:
    """Move every axis, if nothing speaks against it and somebody agrees; return the checks."""
    from safe_rl_ros.checks.outcome import Findings
    from safe_rl_ros.checks.refusals import refusals
    from safe_rl_ros.ros.robot_motion import MOTION, Mover, move_axes

    found, spec = Findings(MOTION), probe.spec
    why = refusals(report, observed, spec, order_checked=wish.order_checked)
    if not why and not wish.sure:
        if not _agreed(spec, probe.proposed_topic if observed.filter else spec.command.topic):
            found.skip("not moved", "nobody agreed", "answer y, or give --yes")
            return found.checks
        observed = probe.listen(AGAIN_S)  # somebody may have taken a while to answer
        why = refusals(report, observed, spec, order_checked=wish.order_checked)
    if why:
        found.skip("not moved", "; ".join(why), "put that right and try again")
        return found.checks
    return move_axes(Mover(probe, through_filter=observed.filter is not None))


def _agreed(spec: RobotSpec, topic: str) -> bool:
    """Say what will be commanded, and ask."""
    from safe_rl_ros.checks.motion import describe

    console.print(f"[bold yellow]The robot will move[/bold yellow], by commands on {topic}: {describe(spec)}.")
    try:
        return typer.confirm("Is it free to move, and a hand at its emergency stop?")
    except typer.Abort:  # nobody is there to answer
        return False


def _why_at_rest(probe: Any, report: Report, moved: Sequence[Check], wish: _Wish) -> str:
    """Return why the emergency stop is pressed while the robot stands still; empty if it may move again."""
    from safe_rl_ros.checks.outcome import Outcome
    from safe_rl_ros.checks.refusals import refusals

    if not moved:
        return "--move was not given"
    if any(check.outcome in (Outcome.FAIL, Outcome.SKIP) for check in moved):
        return "not every axis was moved, and as it should"
    observed = probe.listen(AGAIN_S)  # it has gone some way since it was last allowed to move
    if observed.filter is None:
        return "there is no filter"
    return "; ".join(refusals(report, observed, probe.spec, order_checked=wish.order_checked))


def _press(spec: RobotSpec, probe: Any, why_at_rest: str) -> list[Check]:
    """Press the emergency stop, of a robot that moves unless there is a reason to have it stand still."""
    from safe_rl_ros.checks.outcome import Findings
    from safe_rl_ros.checks.press_motion import check_pressed_motion
    from safe_rl_ros.checks.safety import check_press
    from safe_rl_ros.ros.robot_motion import Mover
    from safe_rl_ros.ros.robot_press import press_estop

    found = Findings(PRESS)
    try:
        if not why_at_rest:
            with Mover(probe, through_filter=True).ready() as mover:
                record, motion = mover.press()
            check_pressed_motion(found, motion, spec)
        else:
            record = press_estop(probe)
            found.skip("comes to rest", f"it stands still: {why_at_rest}", "--move and an active filter: it moves then")
    except (BackendError, ValueError) as error:
        found.judge("latches", False, str(error), expected="a latched stop", advice="start the filter, shadow will do")
        return found.checks
    running = probe.filter_record()
    node = probe.node.resolve_topic_name(probe.filter_name) if running is None else running.node
    return check_press(found, record, spec, node)


def _show(checks: Sequence[Check]) -> None:
    """Print one table; what failed says what to do about it."""
    from rich.table import Table
    from rich.text import Text

    table = Table(show_edge=False, pad_edge=False)
    table.add_column("")
    table.add_column("check", no_wrap=True)
    table.add_column("found (expected)", ratio=1)
    for group, members in groupby(checks, key=lambda check: check.group):
        table.add_section()
        table.add_row("", Text(group, style="bold cyan"), "")
        for check in members:
            value = check.outcome.value
            text = Text(check.measured)
            if check.expected:
                text.append(f"  ({check.expected})", style="dim")
            if check.advice:
                text.append(f"\n-> {check.advice}", style="italic")
            table.add_row(Text(value.upper(), style=STYLES[value]), check.name, text)
    console.print(table)
