"""Topics and who is connected to them: sensors, the command topic, goals."""

from __future__ import annotations

from collections.abc import Collection

from safe_rl_ros.checks.outcome import Findings, Outcome
from safe_rl_ros.checks.records import Endpoint, TopicRecord
from safe_rl_ros.envs.robot_spec import RobotSpec
from safe_rl_ros.messages.readers import JOINT_TRAJECTORY, POSE_STAMPED, TWIST, TWIST_STAMPED, command_message_type

TIMEOUT = "robot's own timeout"


def names(endpoints: Collection[Endpoint]) -> str:
    """Return the nodes of endpoints, for people."""
    return ", ".join(sorted(endpoint.node for endpoint in endpoints)) or "nobody"


def check_connection(found: Findings, record: TopicRecord, wanted: str) -> bool:
    """Check that one publisher of the right type can be heard and is; return whether anything came."""
    publishers = record.publishers
    others = f"; of this type there are {', '.join(record.alternatives)}" if record.alternatives else ""
    if not publishers:
        found.judge(
            "publisher",
            False,
            f"nobody publishes {record.name}",
            expected="one publisher",
            advice=f"start the driver, remap it or correct the topic in the robot spec{others}; see `ros2 topic list`, "
            "ROS_DOMAIN_ID and --namespace",
        )
        return False
    found.judge(
        "publisher",
        len(publishers) == 1,
        f"{len(publishers)}: {names(publishers)}",
        expected="one publisher",
        advice="two sources mix here: end one, or give it a topic of its own",
        value=float(len(publishers)),
    )
    types = sorted({endpoint.type for endpoint in publishers})
    found.judge(
        "type",
        types == [wanted],
        ", ".join(types),
        expected=wanted,
        advice=f"{record.name} cannot be read: bridge it to {wanted}, or name another topic in the robot spec{others}",
    )
    unheard = [endpoint for endpoint in publishers if endpoint.qos_problem]
    problems = "; ".join(f"{endpoint.node}: {endpoint.qos_problem}" for endpoint in unheard)
    found.judge(
        "QoS",
        not unheard,
        problems or "compatible",
        expected="heard by a sensor-data reader",
        advice="change the publisher's QoS: reliability, durability, deadline and liveliness must offer what is asked",
    )
    return found.judge(
        "messages",
        bool(record.samples),
        f"{len(record.samples)} in {(record.end_ns - record.start_ns) * 1e-9:.1f} s",
        expected="some",
        advice=f"{record.name} is silent: is the driver running, its hardware connected? `ros2 topic hz {record.name}`",
        value=float(len(record.samples)),
    )


def check_frame(found: Findings, name: str, given: Collection[str], wanted: str) -> None:
    """Check a frame id; a leading slash is an old habit, and no other frame."""
    frames = sorted(set(given))
    shown = ", ".join(repr(frame) for frame in frames)
    bare = {frame.lstrip("/") for frame in frames}
    found.judge(
        name,
        frames == [wanted],
        shown,
        expected=repr(wanted),
        advice="drop the leading slash in the driver"
        if bare == {wanted}
        else "set the driver's frame, or name the frame that it means in robot spec and URDF: data of another frame "
        "are shifted or turned",
        otherwise=Outcome.WARN if bare == {wanted} else Outcome.FAIL,
    )


def check_command(found: Findings, record: TopicRecord, spec: RobotSpec, filter_node: str | None) -> None:
    """Check the command topic: nobody but the filter publishes, and the base listens with the right type."""
    others = [endpoint for endpoint in record.publishers if endpoint.node != filter_node]
    found.judge(
        "other publishers",
        not others,
        names(others),
        expected="nobody but the safety filter",
        advice="end it or remap it to the filter's ~/proposed: beside another publisher the filter protects nothing",
        value=float(len(others)),
    )
    wanted = command_message_type(spec)
    right = [endpoint for endpoint in record.subscribers if endpoint.type == wanted]
    wrong = [endpoint for endpoint in record.subscribers if endpoint.type != wanted]
    shown = "; ".join(f"{endpoint.node} takes {endpoint.type}" for endpoint in (*right, *wrong)) or "nobody"
    found.judge(
        "subscriber",
        bool(right) and not wrong,
        shown,
        expected=wanted,
        advice=_type_advice(record, wanted, {endpoint.type for endpoint in wrong}),
    )
    deaf = [endpoint for endpoint in right if endpoint.qos_problem]
    if right:
        found.judge(
            "subscriber's QoS",
            not deaf,
            "; ".join(f"{endpoint.node}: {endpoint.qos_problem}" for endpoint in deaf) or "compatible",
            expected="hears the filter's commands",
            advice="the robot would not hear the filter: relax what its subscription asks for",
        )
    if spec.command.positions:
        found.skip(TIMEOUT, "commands are positions: it stays where it was sent last", "--move sees whether it does")
        return
    found.skip(
        TIMEOUT,
        "cannot be seen without moving",
        f"--move tries it; or drive slowly by hand, kill the driving node and see the robot stop within "
        f"{spec.command.timeout_s:g} s",
    )


def _type_advice(record: TopicRecord, wanted: str, wrong: set[str]) -> str:
    if not wrong:
        return f"nobody would carry commands out: start the robot's controller, or correct the topic {record.name}"
    if wrong == {TWIST} and wanted == TWIST_STAMPED:
        return "the base takes Twist: set command.stamped: false in the robot spec, or the base to stamped commands"
    if wrong == {TWIST_STAMPED} and wanted == TWIST:
        return "the base takes TwistStamped: set command.stamped: true in the robot spec"
    if wrong == {JOINT_TRAJECTORY}:
        return "the controller takes trajectories: set command.interface: joint_trajectory in the robot spec"
    return "types differ: no command arrives; correct command.interface, or the controller"


def check_goal(found: Findings, record: TopicRecord, frame: str | None) -> None:
    """Check that somebody gives the goals that the task needs."""
    good = found.judge(
        "publisher",
        bool(record.publishers),
        names(record.publishers),
        expected="a planner or learner",
        advice="the task needs a goal: without one the filter stops the robot",
        otherwise=Outcome.WARN,
    )
    types = sorted({endpoint.type for endpoint in record.publishers})
    if good:
        found.judge("type", types == [POSE_STAMPED], ", ".join(types), expected=POSE_STAMPED, advice="bridge it")
    if record.samples and frame is not None:
        check_frame(found, "frame", [sample.frame for sample in record.samples], frame)
