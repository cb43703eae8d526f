"""From simulation to the robot: a bundle behind the filter, or learning that goes on, on hardware or its stand-in.

    ros2 launch safe_rl_ros robot.launch.py robot:=standin bundle:=$PWD/runs/demo/bundle mode:=shadow
    ros2 launch safe_rl_ros robot.launch.py robot:=hardware bundle:=$PWD/runs/demo/bundle record:=true
    ros2 launch safe_rl_ros robot.launch.py robot:=standin acting:=actor config:=csc_standin.yaml

With ``acting:=policy`` a bundle's own policy proposes and nothing learns; goals come from whatever plans. With
``acting:=actor`` the actor has robot and goals, and the learner begins as the session's ``training.start_from`` says.
The stand-in (``standin_node``) is a simulated robot that the others cannot tell from hardware; they get the same either
way.
"""

from __future__ import annotations

from launch import LaunchContext, LaunchDescription
from launch.actions import DeclareLaunchArgument, OpaqueFunction, Shutdown
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import LifecycleNode, Node

from safe_rl_ros.ros.launching import SESSION_ARGUMENTS, NodeKeywords, SessionFile, read_session
from safe_rl_ros.types import ConfigError

TIMING = "realtime"
ARGUMENTS = [
    *(DeclareLaunchArgument(name, **keywords) for name, keywords in SESSION_ARGUMENTS.items()),
    DeclareLaunchArgument(
        "robot",
        default_value="standin",
        choices=["standin", "hardware"],
        description="Start the stand-in, or use a robot that runs already.",
    ),
    DeclareLaunchArgument(
        "acting",
        default_value="policy",
        choices=["policy", "actor"],
        description="Who acts: a bundle's policy as it is, or an actor whose policy a learner goes on improving.",
    ),
    DeclareLaunchArgument(
        "bundle",
        default_value="",
        description="Bundle directory. With acting:=policy: for policy and filter; with acting:=actor: whose critic"
        " judges what learns without one (filter.critic off in the session).",
    ),
    DeclareLaunchArgument(
        "mode",
        default_value="enforce",
        choices=["enforce", "shadow"],
        description="Send the filter's commands, or pass the policy's unchanged and only record; before the session's.",
    ),
    DeclareLaunchArgument(
        "arena_seed", default_value="0", description="Arena of the task that the robot is in: its hazards and goals."
    ),
    DeclareLaunchArgument(
        "standin_seed",
        default_value="-1",
        description="With robot:=standin: draws what it is; -1 draws one that nobody knows.",
    ),
    DeclareLaunchArgument(
        "reveal_file", default_value="", description="With robot:=standin: file that is told what it is; empty: none."
    ),
    DeclareLaunchArgument(
        "use_sim_time", default_value="false", description="Follow /clock; a robot and its stand-in keep wall time."
    ),
    DeclareLaunchArgument(
        "contract",
        default_value="rover.yaml",
        description="With record:=true: contract YAML, a file or a name in config/contracts.",
    ),
]


def _integer(name: str, text: str) -> int:
    """Return an argument that is a number."""
    try:
        return int(text)
    except ValueError as error:
        raise ConfigError(f"{name} = {text!r}, expected an integer") from error


def _acting(value: dict[str, str], session: SessionFile, describe: NodeKeywords, arena: int) -> list[Node]:
    """Return who proposes: the bundle's policy, or actor and learner."""
    if value["acting"] == "policy":
        if not value["bundle"]:
            raise ConfigError("bundle is empty, expected the directory of a bundle with acting:=policy")
        policy = {**session.common, "bundle": value["bundle"], "timing": TIMING}
        return [Node(**describe.of("policy", policy))]
    if value["bundle"] and session.filter_parameters["critic"] != "off":
        raise ConfigError(
            f"bundle = {value['bundle']!r}, expected none with acting:=actor: the session's training.start_from says "
            "what it begins as, and its own critic judges (filter.critic is not off)"
        )
    learning = {"config": value["config"], "timing": TIMING, "acting": "actor"}
    learning |= {"robot_kind": "hardware", "runs": value["runs"]}
    return [
        Node(**describe.actor(session, value["runs"], robot_kind="hardware", arena_seed=arena)),
        Node(**describe.learner(learning, value["resume"], Shutdown)),
    ]


def _nodes(context: LaunchContext) -> list[Node]:
    """Return the nodes to start for the arguments in ``context``."""
    value = {name: LaunchConfiguration(name).perform(context) for name in (argument.name for argument in ARGUMENTS)}
    session = read_session(value["config"])
    describe = NodeKeywords(
        value["namespace"], value["log_level"], value["use_sim_time"], value["params_file"], value["realtime"]
    )
    chosen: dict[str, object] = {"mode": value["mode"], "bundle": value["bundle"]}
    if value["acting"] == "actor" and value["bundle"]:
        chosen["critic"] = "enforce"  # what learns has no critic, or the bundle would be refused
    arena = _integer("arena_seed", value["arena_seed"])
    nodes = [LifecycleNode(**describe.safety_filter(session, TIMING, value["autostart"], **chosen))]
    if value["record"] == "true":
        nodes.insert(0, Node(**describe.recorder(value["contract"], session.robot, value["bags"])))
    if value["robot"] == "standin":
        standin = {**session.common, "arena_seed": arena, "reveal_file": value["reveal_file"]}
        standin["standin_seed"] = _integer("standin_seed", value["standin_seed"])
        nodes.append(Node(**describe.of("standin", standin, follow_clock=False)))
    return [*nodes, *_acting(value, session, describe, arena)]


def generate_launch_description() -> LaunchDescription:
    """Return the session: arguments, then nodes."""
    return LaunchDescription([*ARGUMENTS, OpaqueFunction(function=_nodes)])
