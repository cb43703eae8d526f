"""A training session: the robot's twin (or the real robot), the safety filter in front of it, and the learner.

    ros2 launch safe_rl_ros train.launch.py config:=csc_hazard_nav.yaml
    ros2 launch safe_rl_ros train.launch.py robot:=hardware use_sim_time:=false namespace:=rover1
    ros2 launch safe_rl_ros train.launch.py record:=true contract:=rover_twin.yaml bags:=bags

Everything ends when the learner ends. The filter activates itself; give ``autostart:=false`` where a lifecycle manager
(nav2's, say) shall do that.
"""

from __future__ import annotations

from launch import LaunchContext, LaunchDescription
from launch.actions import DeclareLaunchArgument, OpaqueFunction, Shutdown
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import LifecycleNode, Node

from safe_rl_ros.bags.bag_topics import load_contract
from safe_rl_ros.config import build, read_yaml
from safe_rl_ros.envs.robot_spec import load_robot_spec
from safe_rl_ros.resources import find_resource
from safe_rl_ros.ros.filter_parameters import parameters_of
from safe_rl_ros.safety.action_filter import FilterConfig
from safe_rl_ros.types import ConfigError

ARGUMENTS = [
    DeclareLaunchArgument(
        "config", default_value="csc_hazard_nav.yaml", description="Session YAML: a file, or a name in config/train."
    ),
    DeclareLaunchArgument(
        "robot",
        default_value="twin",
        choices=["twin", "hardware"],
        description="Start the MuJoCo twin, or use a robot that runs already.",
    ),
    DeclareLaunchArgument("runs", default_value="runs", description="Directory that holds the runs."),
    DeclareLaunchArgument(
        "resume",
        default_value="false",
        choices=["true", "false"],
        description="Go on from the run's newest checkpoint.",
    ),
    DeclareLaunchArgument("namespace", default_value="", description="Namespace of all nodes and topics."),
    DeclareLaunchArgument(
        "use_sim_time", default_value="true", description="Follow /clock; false with robot:=hardware."
    ),
    DeclareLaunchArgument(
        "params_file", default_value="", description="Parameter file for the nodes; it overrides what is set here."
    ),
    DeclareLaunchArgument("log_level", default_value="info", description="debug, info, warn, error or fatal."),
    DeclareLaunchArgument(
        "record",
        default_value="false",
        choices=["true", "false"],
        description="Record the topics of a contract into bags that `safe-rl-ros import-bag` reads.",
    ),
    DeclareLaunchArgument(
        "contract",
        default_value="rover_twin.yaml",
        description="With record:=true: contract YAML, a file or a name in config/contracts.",
    ),
    DeclareLaunchArgument("bags", default_value="bags", description="With record:=true: directory of the bags."),
    DeclareLaunchArgument(
        "autostart", default_value="true", description="Let the filter configure and activate itself."
    ),
]


def _session(config: str) -> tuple[str, str, str, dict[str, object]]:
    """Return the names of robot, task and simulator and the filter's parameters of a session's YAML, for all nodes."""
    path = find_resource(config, "config/train")
    session = read_yaml(path)
    for key in ("robot", "task"):
        if not isinstance(session.get(key), str):
            raise ConfigError(f"{path}: {key} = {session.get(key)!r}, expected a file name when several nodes read it")
    filter_parameters = parameters_of(build(FilterConfig, session.get("filter", {}), str(path)))
    return session["robot"], session["task"], session.get("simulator") or "spec", filter_parameters


def _recorded(contract: str, robot: str) -> str:
    """Return the file of a contract, after a check that it is for the session's robot."""
    agreed = load_contract(contract)
    if agreed.spec.hash != load_robot_spec(robot).hash:
        raise ConfigError(f"{agreed.source} is for robot {agreed.spec.name!r}, the session has {robot}")
    return agreed.source


def _recorder(namespace: str, parameters: list[dict[str, object] | str], arguments: list[str]) -> Node:
    """Return the node that records bags."""
    return Node(
        package="safe_rl_ros",
        executable="recorder_node",
        name="recorder",
        namespace=namespace,
        parameters=parameters,
        arguments=arguments,
        output="screen",
        sigterm_timeout="20",  # seconds after Ctrl-C to finish the bag
    )


def _end_with_learner(event: object, context: LaunchContext) -> Shutdown | None:
    """Return what ends the launch, unless Ctrl-C is ending it already: launch_ros cannot be shut down twice."""
    return None if context.is_shutdown else Shutdown(reason="the learner ended")


def _nodes(context: LaunchContext) -> list[Node]:
    """Return the nodes to start for the arguments in ``context``."""
    value = {name: LaunchConfiguration(name).perform(context) for name in (argument.name for argument in ARGUMENTS)}
    robot, task, simulator, filter_parameters = _session(value["config"])
    timing = "lockstep" if value["robot"] == "twin" else "realtime"
    clock = {"use_sim_time": value["use_sim_time"] == "true"}
    overrides = [value["params_file"]] if value["params_file"] else []
    logging = ["--ros-args", "--log-level", value["log_level"]]
    twin = Node(
        package="safe_rl_ros",
        executable="twin_node",
        name="twin",
        namespace=value["namespace"],
        parameters=[{"robot": robot, "task": task, "simulator": simulator, "timing": timing}, *overrides],
        arguments=logging,
        output="screen",
    )
    safety_filter = LifecycleNode(
        package="safe_rl_ros",
        executable="safety_filter_node",
        name="safety_filter",
        namespace=value["namespace"],
        parameters=[
            {"robot": robot, "task": task, "timing": timing, "autostart": value["autostart"] == "true"},
            filter_parameters,
            clock,
            *overrides,
        ],
        arguments=logging,
        output="screen",
    )
    learner = Node(
        package="safe_rl_ros",
        executable="learner_node",
        name="learner",
        namespace=value["namespace"],
        parameters=[
            {
                "config": value["config"],
                "timing": timing,
                "robot_kind": value["robot"],
                "runs": value["runs"],
                "resume": value["resume"] == "true",
            },
            clock,
            *overrides,
        ],
        arguments=logging,
        output="screen",
        sigterm_timeout="20",  # seconds after Ctrl-C to end the step or update in progress and save
        on_exit=_end_with_learner,
    )
    nodes = [*([twin] if value["robot"] == "twin" else []), safety_filter, learner]
    if value["record"] == "true":
        recording = {"contract": _recorded(value["contract"], robot), "directory": value["bags"]}
        nodes.insert(0, _recorder(value["namespace"], [recording, clock, *overrides], logging))
    return nodes


def generate_launch_description() -> LaunchDescription:
    """Return the session: arguments, then nodes."""
    return LaunchDescription([*ARGUMENTS, OpaqueFunction(function=_nodes)])
