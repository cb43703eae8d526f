"""A training session: the robot's twin (or the real robot), the safety filter in front of it, and the learner.

    ros2 launch safe_rl_ros train.launch.py config:=csc_hazard_nav.yaml
    ros2 launch safe_rl_ros train.launch.py robot:=hardware use_sim_time:=false namespace:=rover1
    ros2 launch safe_rl_ros train.launch.py record:=true contract:=rover_twin.yaml bags:=bags
    ros2 launch safe_rl_ros train.launch.py robot:=hardware use_sim_time:=false acting:=actor

With ``acting:=actor`` a process of its own has the robot, in real time, whatever the learner does. Everything ends when
the learner ends. The filter activates itself; give ``autostart:=false`` where a lifecycle manager (nav2's) does that.
"""

from __future__ import annotations

from launch import LaunchContext, LaunchDescription
from launch.actions import DeclareLaunchArgument, OpaqueFunction, Shutdown
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import LifecycleNode, Node

from safe_rl_ros.ros.launching import SESSION_ARGUMENTS, NodeKeywords, read_session

ARGUMENTS = [
    *(DeclareLaunchArgument(name, **keywords) for name, keywords in SESSION_ARGUMENTS.items()),
    DeclareLaunchArgument(
        "robot",
        default_value="twin",
        choices=["twin", "hardware"],
        description="Start the MuJoCo twin, or use a robot that runs already.",
    ),
    DeclareLaunchArgument(
        "acting",
        default_value="learner",
        choices=["learner", "actor"],
        description="Who acts: the learner between its updates, or an actor in a process of its own, in real time.",
    ),
    DeclareLaunchArgument(
        "use_sim_time", default_value="true", description="Follow /clock; false with robot:=hardware."
    ),
    DeclareLaunchArgument(
        "contract",
        default_value="rover_twin.yaml",
        description="With record:=true: contract YAML, a file or a name in config/contracts.",
    ),
]


def _nodes(context: LaunchContext) -> list[Node]:
    """Return the nodes to start for the arguments in ``context``."""
    value = {name: LaunchConfiguration(name).perform(context) for name in (argument.name for argument in ARGUMENTS)}
    session = read_session(value["config"])
    asked = (session.content.get("ros") or {}).get("timing", "lockstep")
    lockstep = value["robot"] == "twin" and value["acting"] == "learner" and asked == "lockstep"
    timing = "lockstep" if lockstep else "realtime"
    describe = NodeKeywords(
        value["namespace"], value["log_level"], value["use_sim_time"], value["params_file"], value["realtime"]
    )
    learning = {"config": value["config"], "timing": timing, "acting": value["acting"]}
    learning |= {"robot_kind": value["robot"], "runs": value["runs"]}
    of_twin = {"follow_resets": value["robot"] == "twin"}
    nodes = [LifecycleNode(**describe.safety_filter(session, timing, value["autostart"], **of_twin))]
    if value["record"] == "true":
        nodes.insert(0, Node(**describe.recorder(value["contract"], session.robot, value["bags"])))
    if value["robot"] == "twin":
        twin = {**session.common, "timing": timing, "simulator": session.content.get("simulator") or "spec"}
        twin["randomisation"] = session.content.get("randomisation") or ""
        nodes.append(Node(**describe.of("twin", twin, follow_clock=False)))
    if value["acting"] == "actor":
        nodes.append(Node(**describe.actor(session, value["runs"], robot_kind=value["robot"])))
    return [*nodes, Node(**describe.learner(learning, value["resume"], Shutdown))]


def generate_launch_description() -> LaunchDescription:
    """Return the session: arguments, then nodes."""
    return LaunchDescription([*ARGUMENTS, OpaqueFunction(function=_nodes)])
