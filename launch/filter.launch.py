"""The safety filter in front of a policy that exists already: the filter takes over the robot's command topic.

Tell the policy to publish elsewhere (``policy_topic``) and give the filter a bundle:

    ros2 launch safe_rl_ros filter.launch.py policy_topic:=cmd_vel_policy bundle:=runs/demo/bundle mode:=shadow
    ros2 launch safe_rl_ros filter.launch.py policy_topic:=cmd_vel_policy bundle:=runs/demo/bundle candidates:=around
    ros2 launch safe_rl_ros filter.launch.py policy:=own bundle:=robot/bundle contract:=rover.yaml candidates:=around

With ``policy`` a bundle's own policy proposes, in a node beside the filter.
``mode:=shadow`` passes commands unchanged and records what would have been vetoed; ``enforce`` vetoes.
docs/safety_filter.md is the manual.
"""

from __future__ import annotations

from launch import LaunchContext, LaunchDescription
from launch.actions import DeclareLaunchArgument, OpaqueFunction
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import LifecycleNode, Node

from safe_rl_ros.bags.bag_topics import load_contract
from safe_rl_ros.envs.robot_spec import load_robot_spec
from safe_rl_ros.ros.launching import REALTIME, NodeKeywords

SWITCH = ["true", "false"]
LISTED = 16
"""Commands that the policy node lists with candidates:=topic."""
ARGUMENTS = [
    DeclareLaunchArgument(
        "bundle", default_value="", description="Bundle directory of a training run; empty: wait for an announced one."
    ),
    DeclareLaunchArgument(
        "policy",
        default_value="",
        description="Bundle whose policy proposes, in a node beside the filter: a directory, or own for the filter's "
        "bundle; empty: a policy of yours does.",
    ),
    DeclareLaunchArgument(
        "mode",
        default_value="enforce",
        choices=["enforce", "shadow"],
        description="Send the filter's commands, or pass the policy's unchanged and only record.",
    ),
    DeclareLaunchArgument(
        "critic",
        default_value="enforce",
        choices=["enforce", "shadow", "off"],
        description="What the safety critic's veto does; the other guards hold all the same.",
    ),
    DeclareLaunchArgument(
        "candidates",
        default_value="actor",
        choices=["actor", "topic", "around"],
        description="Where substitutes come from; around suits any policy, actor the bundle's own.",
    ),
    DeclareLaunchArgument(
        "fallback_mode",
        default_value="min_risk",
        choices=["min_risk", "nearest_safe", "hold", "brake", "backup_policy", "estop"],
        description="What is sent if no candidate is safe.",
    ),
    DeclareLaunchArgument(
        "require_calibrated",
        default_value="false",
        choices=SWITCH,
        description="Refuse to arm without a threshold certificate for exactly this set-up.",
    ),
    DeclareLaunchArgument(
        "require_heartbeat",
        default_value="false",
        choices=SWITCH,
        description="Latch a stop when the operator's heartbeat falls silent.",
    ),
    DeclareLaunchArgument(
        "other_publishers",
        default_value="error",
        choices=["error", "stop"],
        description="When somebody else publishes on the command topic, say so or latch a stop as well.",
    ),
    DeclareLaunchArgument(
        "record", default_value="", description="Directory for a flight recorder's bags around each veto; empty: none."
    ),
    DeclareLaunchArgument(
        "policy_topic", default_value="safety_filter/proposed", description="Where the policy publishes its commands."
    ),
    DeclareLaunchArgument(
        "candidates_topic",
        default_value="safety_filter/candidates",
        description="Where the policy publishes lists of commands, with candidates:=topic.",
    ),
    DeclareLaunchArgument(
        "proposal_type",
        default_value="command",
        choices=[
            "command",
            "geometry_msgs/msg/TwistStamped",
            "geometry_msgs/msg/Twist",
            "std_msgs/msg/Float64MultiArray",
            "trajectory_msgs/msg/JointTrajectory",
        ],
        description="Message type of the policy's commands; command means the type that the robot takes.",
    ),
    DeclareLaunchArgument(
        "command_topic", default_value="", description="The robot's command topic; empty: as the robot spec says."
    ),
    DeclareLaunchArgument(
        "goal_topic", default_value="goal_pose", description="Goal of the task (geometry_msgs/PoseStamped, odom frame)."
    ),
    DeclareLaunchArgument(
        "robot_spec", default_value="rover.yaml", description="Robot spec: a file, or a name in config/robots."
    ),
    DeclareLaunchArgument(
        "task",
        default_value="hazard_nav.yaml",
        description="Task, for its observation: a file, or a name in config/tasks.",
    ),
    DeclareLaunchArgument(
        "contract",
        default_value="",
        description="Contract of bags (a file, or a name in config/contracts) whose robot, task and topics take the "
        "place of robot_spec, task, goal_topic and the robot's own; empty: none.",
    ),
    DeclareLaunchArgument(
        "timing",
        default_value="realtime",
        choices=["realtime", "lockstep"],
        description="Own clock, or one tick per state of a stepped twin.",
    ),
    DeclareLaunchArgument("realtime", **REALTIME),
    DeclareLaunchArgument("namespace", default_value="", description="Namespace of node and topics."),
    DeclareLaunchArgument("use_sim_time", default_value="false", description="Follow /clock."),
    DeclareLaunchArgument(
        "params_file", default_value="", description="Parameter file for the filter; it overrides what is set here."
    ),
    DeclareLaunchArgument("log_level", default_value="info", description="debug, info, warn, error or fatal."),
    DeclareLaunchArgument(
        "autostart", default_value="true", description="Configure and activate at once; false for a lifecycle manager."
    ),
]


def _robot(value: dict[str, str]) -> tuple[str, str, dict[str, str]]:
    """Return robot spec, task, and the remappings of the robot's topics: as the arguments or the contract say."""
    if not value["contract"]:
        return value["robot_spec"], value["task"], {"goal_pose": value["goal_topic"]}
    agreed = load_contract(value["contract"])
    return str(agreed.robot_file), str(agreed.task_file), agreed.remappings()


def _policy(value: dict[str, str], robot: str, task: str, topics: dict[str, str]) -> list[Node]:
    """Return the node of a bundle's own policy, if one is wanted; ``topics`` are the remappings of sensors and goal."""
    if not value["policy"]:
        return []
    parameters = {
        "robot": robot,
        "task": task,
        "bundle": value["bundle"] if value["policy"] == "own" else value["policy"],
        "timing": value["timing"],
        "list_size": LISTED if value["candidates"] == "topic" else 0,
    }
    remappings = [
        ("safety_filter/proposed", value["policy_topic"]),
        ("safety_filter/candidates", value["candidates_topic"]),
        *topics.items(),
    ]
    describe = NodeKeywords(value["namespace"], value["log_level"], value["use_sim_time"])
    return [Node(**describe.of("policy", parameters, remappings=remappings))]


def _nodes(context: LaunchContext) -> list[Node]:
    """Return the filter, and the policy if one is wanted, for the arguments in ``context``."""
    value = {name: LaunchConfiguration(name).perform(context) for name in (argument.name for argument in ARGUMENTS)}
    robot, task, topics = _robot(value)
    policy = _policy(value, robot, task, dict(topics))
    own_topic = load_robot_spec(robot).command.topic
    topics[own_topic] = value["command_topic"] or topics.get(own_topic, own_topic)
    parameters = {
        "robot": robot,
        "task": task,
        "bundle": value["bundle"],
        "mode": value["mode"],
        "critic": value["critic"],
        "candidates": value["candidates"],
        "fallback_mode": value["fallback_mode"],
        "proposal_type": value["proposal_type"],
        "require_calibrated": value["require_calibrated"] == "true",
        "require_heartbeat": value["require_heartbeat"] == "true",
        "other_publishers": value["other_publishers"],
        "recorder_directory": value["record"],
        "timing": value["timing"],
        "autostart": value["autostart"] == "true",
    }
    remappings = [
        ("~/proposed", value["policy_topic"]),
        ("~/candidates", value["candidates_topic"]),
        *topics.items(),
    ]
    describe = NodeKeywords(
        value["namespace"], value["log_level"], value["use_sim_time"], value["params_file"], value["realtime"]
    )
    parameters |= describe.realtime(value["timing"])
    return [LifecycleNode(**describe.of("safety_filter", parameters, remappings=remappings)), *policy]


def generate_launch_description() -> LaunchDescription:
    """Return the filter: arguments, then the nodes."""
    return LaunchDescription([*ARGUMENTS, OpaqueFunction(function=_nodes)])
