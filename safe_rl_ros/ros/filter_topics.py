"""The filter node's subscriptions and services: what is connected to what, and with which QoS."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from rclpy.event_handler import SubscriptionEventCallbacks
from rclpy.node import Node
from std_msgs.msg import Bool, Empty, String
from std_srvs.srv import Trigger

from safe_rl_ros.envs.robot_spec import RobotSpec
from safe_rl_ros.messages.filter_inputs import FilterInputs
from safe_rl_ros.messages.readers import FLOAT64_ARRAY, POSE_STAMPED, command_message_type
from safe_rl_ros.messages.state_assembler import SENSOR_TYPES, sensor_topics
from safe_rl_ros.ros import bundle_loader, qos
from safe_rl_ros.ros.conversions import MESSAGE_CLASSES
from safe_rl_ros.ros.filter_operator import TOPIC, OperatorStop
from safe_rl_ros.ros.filter_recorder import NodeRecorder
from safe_rl_ros.ros.filter_swap import BundleSwap
from safe_rl_ros.ros.filter_watch import QosWatch
from safe_rl_ros.types import BundleError

PROPOSED, CANDIDATES, GOAL = "~/proposed", "~/candidates", "goal_pose"
ESTOP, HEARTBEAT = "estop", "heartbeat"


def input_types(spec: RobotSpec, proposal_type: str | None, needs_goal: bool) -> dict[str, str]:
    """Return topic -> ROS message type of everything that decisions rest on."""
    topics = {topic: SENSOR_TYPES[sensor] for sensor, topic in sensor_topics(spec).items()}
    if needs_goal:
        topics[GOAL] = POSE_STAMPED
    return topics | {PROPOSED: proposal_type or command_message_type(spec), CANDIDATES: FLOAT64_ARRAY}


def subscribe_inputs(
    node: Node,
    spec: RobotSpec,
    timing: qos.Timing,
    inputs: FilterInputs,
    recorder: NodeRecorder,
    watch: QosWatch,
    proposal_type: str | None,
) -> None:
    """Connect sensors, goal, proposals and candidate lists."""
    types = input_types(spec, proposal_type, inputs.needs_goal)
    sensors = {topic: sensor for sensor, topic in sensor_topics(spec).items()}
    on_sensor = inputs.callbacks()
    others: dict[str, Callable[..., None]] = {
        GOAL: inputs.on_goal,
        PROPOSED: inputs.on_proposal,
        CANDIDATES: inputs.on_candidates,
    }
    for topic, kind in types.items():
        callback = on_sensor[sensors[topic]] if topic in sensors else others[topic]
        profile = qos.sensor_reader(timing) if topic in sensors else qos.command()
        node.create_subscription(
            MESSAGE_CLASSES[kind],
            topic,
            recorder.tap(topic, callback),
            profile,
            event_callbacks=watch.subscription(topic),
        )


def subscribe_bundles(node: Node, watch: QosWatch, on_announcement: Callable[[str], None]) -> None:
    """Connect announcements of bundles."""
    node.create_subscription(
        String,
        bundle_loader.TOPIC,
        lambda message: on_announcement(message.data),
        qos.latched(),
        event_callbacks=watch.subscription(bundle_loader.TOPIC),
    )


def serve_operator(node: Node, operator: OperatorStop, swap: BundleSwap, on_change: Callable[[], None]) -> None:
    """Connect the operator's topics and services.

    The emergency stop is subscribed twice, as latched state and without any demand: whoever publishes it must be
    heard, and one that was pressed before the filter started must be known. Each reader keeps its own last value,
    and one that says stop is enough.
    """

    def on_estop(reader: str) -> Callable[[Bool], None]:
        return lambda message: operator.hold(f"{TOPIC} ({reader})", bool(message.data), TOPIC)

    for reader, profile in (("latched", qos.latched()), ("any", qos.operator())):
        # The reader that suits a publisher reads it; that the other one does not is no news.
        quiet = SubscriptionEventCallbacks(use_default_callbacks=False)
        node.create_subscription(Bool, ESTOP, on_estop(reader), profile, event_callbacks=quiet)
    node.create_subscription(Empty, HEARTBEAT, lambda message: operator.beat(), qos.operator())

    def serve(name: str, act: Callable[[], tuple[bool, str]]) -> None:
        def on_request(request: Any, response: Any) -> Any:
            response.success, response.message = act()
            node.get_logger().warning(f"~/{name}: {'done' if response.success else 'refused'}, {response.message}")
            on_change()
            return response

        node.create_service(Trigger, f"~/{name}", on_request)

    def press() -> tuple[bool, str]:
        operator.press()
        return True, "stop latched"

    def roll_back() -> tuple[bool, str]:
        try:
            return True, f"bundle {swap.roll_back()} in force"
        except BundleError as error:
            return False, str(error)

    serve("estop", press)
    serve("clear_estop", operator.clear)
    serve("rollback", roll_back)
