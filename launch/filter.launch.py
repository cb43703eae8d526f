"""The safety filter in front of a policy that exists already: the filter takes over the robot's command topic.

Tell the policy to publish elsewhere (``policy_topic``, TwistStamped) and give the filter a bundle:

    ros2 launch safe_rl_ros filter.launch.py policy_topic:=cmd_vel_policy bundle:=runs/demo/bundle critic:=shadow

``critic:=shadow`` records what would have been vetoed and passes commands that are within limits; ``enforce`` vetoes.
"""

from __future__ import annotations

from launch import LaunchContext, LaunchDescription
from launch.actions import DeclareLaunchArgument, OpaqueFunction
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import LifecycleNode

ARGUMENTS = [
    DeclareLaunchArgument(
        "bundle", default_value="", description="Bundle directory of a training run; empty: wait for an announced one."
    ),
    DeclareLaunchArgument(
        "critic",
        default_value="enforce",
        choices=["enforce", "shadow", "off"],
        description="What the safety critic's veto does.",
    ),
    DeclareLaunchArgument(
        "policy_topic", default_value="safety_filter/proposed", description="Where the policy publishes its commands."
    ),
    DeclareLaunchArgument("command_topic", default_value="cmd_vel", description="The robot's command topic."),
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
        "timing",
        default_value="realtime",
        choices=["realtime", "lockstep"],
        description="Own clock, or one tick per state of a stepped twin.",
    ),
    DeclareLaunchArgument("namespace", default_value="", description="Namespace of node and topics."),
    DeclareLaunchArgument("use_sim_time", default_value="false", description="Follow /clock."),
    DeclareLaunchArgument(
        "params_file", default_value="", description="Parameter file for the node; it overrides what is set here."
    ),
    DeclareLaunchArgument("log_level", default_value="info", description="debug, info, warn, error or fatal."),
    DeclareLaunchArgument(
        "autostart", default_value="true", description="Configure and activate at once; false for a lifecycle manager."
    ),
]


def _nodes(context: LaunchContext) -> list[LifecycleNode]:
    """Return the filter for the arguments in ``context``."""
    value = {name: LaunchConfiguration(name).perform(context) for name in (argument.name for argument in ARGUMENTS)}
    safety_filter = LifecycleNode(
        package="safe_rl_ros",
        executable="safety_filter_node",
        name="safety_filter",
        namespace=value["namespace"],
        parameters=[
            {
                "robot": value["robot_spec"],
                "task": value["task"],
                "bundle": value["bundle"],
                "critic": value["critic"],
                "timing": value["timing"],
                "autostart": value["autostart"] == "true",
                "use_sim_time": value["use_sim_time"] == "true",
            },
            *([value["params_file"]] if value["params_file"] else []),
        ],
        remappings=[
            ("~/proposed", value["policy_topic"]),
            ("cmd_vel", value["command_topic"]),
            ("goal_pose", value["goal_topic"]),
        ],
        arguments=["--ros-args", "--log-level", value["log_level"]],
        output="screen",
    )
    return [safety_filter]


def generate_launch_description() -> LaunchDescription:
    """Return the filter: arguments, then the node."""
    return LaunchDescription([*ARGUMENTS, OpaqueFunction(function=_nodes)])
