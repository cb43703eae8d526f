"""The twin as a ROS node in its own process, with the topics of the real robot.

Subscribes the robot's command topic; publishes its sensors (odom, scan and joint_states of a base, joint_states of a
robot that is moved by its joints), ``/clock``, ``tf`` of a base (where tf2_msgs is installed) and ``diagnostics``;
serves ``~/reset`` (std_srvs/Trigger), which starts the episode whose seed is in the parameter ``reset_seed`` and
answers ``{"stamp_ns": ..., "seed": ...}``, with ``"twin_parameters": {...}`` if there is a ``randomisation``. The same
is on ``~/episode`` (std_msgs/String, latched): from it a recording knows where the hazards were, and what the twin was.

- ``timing: lockstep``: exactly one control period per command whose stamp is that of the current state; any other
  command is dropped and counted. Time stands still between commands. Commands need stamps: those of
  a joint_trajectory with ``stamped: true`` have them, those of a joint_group have none.
- ``timing: realtime``: fixed rate by absolute deadlines on the steady clock; the newest command counts until it
  is older than the robot spec's ``command.timeout_s``, then the robot stops by itself, or stays where it was sent.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from typing import Any

from rosgraph_msgs.msg import Clock
from std_msgs.msg import String
from std_srvs.srv import Trigger

from safe_rl_ros.envs.randomisation import as_record
from safe_rl_ros.ros import qos
from safe_rl_ros.ros.conversions import write_stamp
from safe_rl_ros.ros.parameters import NodeParameter
from safe_rl_ros.ros.simulated_base import SIMULATORS, SimulatedBase
from safe_rl_ros.ros.spin import EXECUTORS, run
from safe_rl_ros.types import BackendError, ConfigError, RobotState

NODE_NAME = "twin"
PARAMETERS = (
    NodeParameter("robot", "rover", "Robot spec: a YAML file, or a name in config/robots."),
    NodeParameter("task", "hazard_nav", "Task: a YAML file, or a name in config/tasks; joint_hold of joints."),
    NodeParameter("simulator", "spec", "Simulator; spec: the robot spec's twin.simulator.", choices=SIMULATORS),
    NodeParameter("randomisation", "", "Randomisation: a YAML file, or a name in config/randomisation; empty: none."),
    NodeParameter("timing", "lockstep", "One period per command, or wall clock.", choices=qos.TIMINGS),
    NodeParameter("executor", "single", "rclpy executor of this process.", choices=EXECUTORS),
    NodeParameter("reset_seed", 0, "Seed of the episode that the next ~/reset starts.", 0, 2**63 - 1, read_only=False),
)


class TwinNode(SimulatedBase):
    """A simulated base that is the session's clock, tells what it is, and begins episodes when asked."""

    def __init__(self) -> None:
        """Declare parameters, compile the scene, start the first episode and show its state.

        Raises:
            ConfigError: a parameter or file is wrong.
        """
        super().__init__(NODE_NAME, PARAMETERS)
        self.create_base_entities()
        self._clock_message = Clock()
        self._published_ns = 0
        self._counts |= {"resets": 0, "repeats": 0}
        self._clock_topic = self.create_publisher(Clock, "/clock", qos.clock())
        self._episode_topic = self.create_publisher(String, "~/episode", qos.latched())
        self.create_service(Trigger, "~/reset", self._on_reset)
        if self._timing == "lockstep":
            self.create_timer(qos.REPEAT_S, self._repeat_if_idle, clock=self._steady)
        self._reset(int(self.values["reset_seed"]))

    def _publish(self, state: RobotState) -> None:
        write_stamp(self._clock_message.clock, state.stamp_ns)
        super()._publish(state)

    def _publish_written(self) -> None:
        self._published_ns = time.monotonic_ns()
        super()._publish_written()
        self._clock_topic.publish(self._clock_message)

    def _repeat_if_idle(self) -> None:
        """Lock-step: show the state again, for consumers that had not found the twin yet (see :mod:`.qos`)."""
        if time.monotonic_ns() - self._published_ns >= qos.REPEAT_S * 1e9:
            self._counts["repeats"] += 1
            self._episode_topic.publish(self._episode)
            self._publish_written()

    def _reset(self, seed: int) -> None:
        state = self._backend.reset(seed)
        self._command = None
        self._counts["resets"] += 1
        episode: dict[str, Any] = {"stamp_ns": state.stamp_ns, "seed": seed}
        if (parameters := self._backend.parameters) is not None:
            episode["twin_parameters"] = as_record(parameters)
        self._episode = String(data=json.dumps(episode))
        self._episode_topic.publish(self._episode)
        self._publish(state)

    def _on_reset(self, _request: Any, response: Any) -> Any:
        seed = int(self.get_parameter("reset_seed").value or 0)
        try:
            self._reset(seed)
        except (BackendError, ConfigError) as error:
            response.success, response.message = False, str(error)
            return response
        response.success = True
        response.message = self._episode.data
        return response

    def _diagnostic_values(self) -> dict[str, object]:
        gate = self._gate
        return {
            **super()._diagnostic_values(),
            "simulator": self._spec.twin.simulator,
            "randomised": self._backend.parameters is not None,
            "accepted": gate.accepted,
            "duplicate_commands": gate.duplicates,
            "wrong_stamp_commands": gate.wrong_stamps,
        }


def main(argv: Sequence[str] | None = None) -> int:
    """Run the twin until it is interrupted; return the exit status."""
    return run(TwinNode, argv)


if __name__ == "__main__":
    raise SystemExit(main())
