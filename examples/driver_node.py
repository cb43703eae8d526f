"""What the example policies share: a plain ROS 2 node that drives the twin with any function of state and goal.

It publishes ``cmd_vel`` (TwistStamped, stamped as the state that it answers) and ``goal_pose``, resets the twin after
each episode, and counts goals and collisions. It knows nothing of the safety filter. The twin may run in real time or
in lock-step. Without a policy it gives goals and keeps the score, and somebody else drives. The stand-in for a robot
cannot be reset: all its episodes are in one arena, and each begins where the robot stands, once that is in no hazard.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Sequence
from typing import Any

import rclpy
from geometry_msgs.msg import PoseStamped, TwistStamped
from nav_msgs.msg import Odometry
from rcl_interfaces.msg import Parameter, ParameterType, ParameterValue
from rcl_interfaces.srv import SetParameters
from rclpy.duration import Duration
from rclpy.node import Node
from rclpy.qos import qos_profile_sensor_data
from rclpy.task import Future
from sensor_msgs.msg import JointState, LaserScan
from std_srvs.srv import Trigger

from safe_rl_ros.envs.robot_spec import load_robot_spec
from safe_rl_ros.envs.tasks.hazard_nav import HazardNav, load_hazard_nav
from safe_rl_ros.messages.readers import StateReader, read_stamp
from safe_rl_ros.messages.state_assembler import StateAssembler, sensor_timeouts
from safe_rl_ros.ros.conversions import GoalCodec, make_command_codec
from safe_rl_ros.types import FloatArray, RobotState

Policy = Callable[[RobotState, FloatArray], FloatArray]
"""State and goal (2,) m, odom frame, to a command (2,): m/s, rad/s."""
SERVICE_TIMEOUT_S = 5.0
LISTENERS_TIMEOUT_S = 15.0
SETTLE_S = 1.0
"""Time in which further listeners may appear after the first one."""
SUMS = {"collisions": "collision", "goals": "goals", "steps": "steps"}
KEPT = 100
"""Messages that a listener who was held up can still ask for."""
ACK_TIMEOUT_S = 5.0
"""Longer than the middleware may take until a new listener hears (3 s with Fast DDS)."""

logger = logging.getLogger("driver")


class DriverNode(Node):
    """Drives one episode after the other; ``episodes`` holds the results."""

    def __init__(self, policy: Policy | None, name: str, arena: int | None = None) -> None:
        """Subscribe the sensors, publish commands and goals; without a policy goals alone.

        ``arena`` is the seed of the stand-in's; by default there is a twin that can be reset.
        """
        super().__init__(name)
        self._policy = policy
        self._spec = load_robot_spec("rover")
        self._task = HazardNav(load_hazard_nav(), self._spec.footprint_radius_m, arena)
        self._commands, self._goals = make_command_codec(self._spec), GoalCodec(self._spec)
        self._assembler = StateAssembler(sensor_timeouts(self._spec))
        self._goal_topic = self.create_publisher(PoseStamped, "goal_pose", KEPT)
        self._command_topic = None if policy is None else self.create_publisher(TwistStamped, "cmd_vel", KEPT)
        reader, sensors = StateReader(self._spec), self._spec.sensors
        for sensor, kind, read in (
            ("odom", Odometry, reader.odometry),
            ("scan", LaserScan, reader.scan),
            ("joint_states", JointState, reader.joints),
        ):
            topic = getattr(sensors, sensor).topic
            self.create_subscription(kind, topic, self._on_sensor(sensor, read), qos_profile_sensor_data)
        self._set_seed = self.create_client(SetParameters, "twin/set_parameters")
        self._reset = self.create_client(Trigger, "twin/reset")
        self._messages: list[tuple[Any, Any]] = []
        self._previous: RobotState | None = None
        self._begin_ns = 0
        self.finished: dict[str, Any] | None = {}

    def connect(self) -> None:
        """Wait until all who listen hear what is published, a recorder say; the robot is told to stand still.

        Raises:
            RuntimeError: no state comes, nobody listens, or somebody does not hear.
        """
        topics = [self._goal_topic] if self._command_topic is None else [self._goal_topic, self._command_topic]
        deadline = time.monotonic() + LISTENERS_TIMEOUT_S
        while missing := [topic.topic_name for topic in topics if not topic.get_subscription_count()]:
            if time.monotonic() > deadline:
                raise RuntimeError(f"nobody listens on {', '.join(missing)}: are twin, filter and recorder running?")
            rclpy.spin_once(self, timeout_sec=0.1)
        settled = time.monotonic() + SETTLE_S
        while time.monotonic() < settled or self._assembler.synchronised() is None:
            if time.monotonic() > deadline + SETTLE_S:
                raise RuntimeError("no state of the robot comes: is the twin running?")
            rclpy.spin_once(self, timeout_sec=0.1)
        state = self._assembler.synchronised()
        assert state is not None
        self._publish(state, state.position[:2], self._spec.command_stop)
        for topic in topics:
            if not topic.wait_for_all_acked(Duration(seconds=ACK_TIMEOUT_S)):
                raise RuntimeError(f"a listener on {topic.topic_name} does not hear within {ACK_TIMEOUT_S} s")

    def start(self, seed: int) -> None:
        """Begin the episode of ``seed``. Raises RuntimeError if the twin does not answer, or refuses."""
        if self._task.arena_seed is None:
            value = ParameterValue(type=ParameterType.PARAMETER_INTEGER, integer_value=seed)
            self._call(self._set_seed, SetParameters.Request(parameters=[Parameter(name="reset_seed", value=value)]))
            self.finished = {}  # no commands while the twin resets
            answer = self._call(self._reset, Trigger.Request())
            if not answer.success:
                raise RuntimeError(f"the twin refused to reset: {answer.message}")
            self._begin_ns = int(json.loads(answer.message)["stamp_ns"])
        self._layout, self._progress = self._task.layout(seed), self._task.initial()
        self._assembler.clear()
        self._previous, self._steps, self._return = None, 0, 0.0
        self.finished = None

    def _call(self, client: Any, request: Any) -> Any:
        if not client.wait_for_service(timeout_sec=SERVICE_TIMEOUT_S):
            raise RuntimeError(f"service {client.srv_name} is not there: is the twin running?")
        answer: Future = client.call_async(request)
        rclpy.spin_until_future_complete(self, answer, timeout_sec=SERVICE_TIMEOUT_S)
        if answer.result() is None:
            raise RuntimeError(f"service {client.srv_name} did not answer within {SERVICE_TIMEOUT_S} s")
        return answer.result()

    def _on_sensor(self, sensor: Any, read: Callable[[Any], Any]) -> Callable[[Any], None]:
        def on_message(message: Any) -> None:
            now_ns = self.get_clock().now().nanoseconds
            self._assembler.add(sensor, read(message), read_stamp(message.header.stamp), now_ns)
            state = self._assembler.synchronised()
            if state is not None and self.finished is None:
                self._on_state(state)

        return on_message

    def _on_state(self, state: RobotState) -> None:
        if state.stamp_ns < self._begin_ns:
            return  # of the episode before: it was still in the queue when the twin had reset
        if self._previous is not None and state.stamp_ns == self._previous.stamp_ns:
            self._publish_again()  # lock-step: the twin has not heard the answer
            return
        if self._previous is not None:
            outcome = self._task.evaluate(self._previous, state, self._layout, self._progress)
            self._progress = outcome.task_state
            self._return += outcome.reward
            self._steps += 1
            if outcome.terminated or self._steps >= self._task.config.max_episode_steps:
                self.finished = {
                    "collision": outcome.terminated,
                    "goals": self._progress.goal_index,
                    "return": round(self._return, 2),
                    "steps": self._steps,
                }
                return
        if self._previous is not None or self._may_begin(state):
            self._previous = state
        goal = self._task.goal(self._layout, self._progress)
        self._publish(state, goal, None if self._policy is None else self._policy(state, goal))

    def _may_begin(self, state: RobotState) -> bool:
        """Return whether an episode can begin: not in a hazard, where the stand-in is after a collision."""
        return self._task.arena_seed is None or self._task.margin(state, self._layout) > 0.0

    def _publish(self, state: RobotState, goal: FloatArray, command: FloatArray | None) -> None:
        self._messages = [(self._goal_topic, self._goals.write(goal, state.stamp_ns))]
        if self._command_topic is not None and command is not None:
            self._messages.append((self._command_topic, self._commands.write(command, state.stamp_ns)))
        self._publish_again()

    def _publish_again(self) -> None:
        for topic, message in self._messages:
            topic.publish(message)


def drive_episodes(
    policy: Policy | None,
    name: str,
    episodes: int,
    seed: int,
    ros_arguments: Sequence[str],
    arena: int | None = None,
) -> None:
    """Drive ``episodes`` arenas from ``seed`` on; log each one and, as JSON, their sum.

    Without a policy, give their goals to whoever drives. With an ``arena`` all episodes are there.
    """
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    rclpy.init(args=list(ros_arguments))
    node = DriverNode(policy, name, arena)
    results: list[dict[str, Any]] = []
    try:
        node.connect()
        for index in range(episodes):
            node.start(seed + index)
            while node.finished is None:
                rclpy.spin_once(node, timeout_sec=0.1)
            results.append(node.finished)
            logger.info("episode %d: %s", seed + index, json.dumps(node.finished))
    except KeyboardInterrupt:
        logger.info("interrupted")
    finally:
        node.destroy_node()
        rclpy.try_shutdown()
    sums = {key: sum(int(result[name]) for result in results) for key, name in SUMS.items()}
    logger.info("%s", json.dumps({"episodes": len(results), **sums}))
