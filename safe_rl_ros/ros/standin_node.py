"""A stand-in for the robot: simulated, and met by the rest of the system exactly as hardware would be.

For trying what goes onto a robot on something that training has not seen. The topics of the real base, in real time,
with wall-clock stamps. Body, wheels, latency and noise are drawn once, by ``standin_seed``, for the life of the
process; nobody is told what they are: no topic, no service and no parameter has them. There is no reset, no ``/clock``
and no episode: whoever acts begins where the robot stands. The hazards are those of one arena (``arena_seed``), seen by
the lidar.

For judging afterwards, ``reveal_file`` receives everything as JSON.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from safe_rl_ros.envs.randomisation import as_record
from safe_rl_ros.ros.parameters import NodeParameter
from safe_rl_ros.ros.simulated_base import SIMULATORS, SimulatedBase
from safe_rl_ros.ros.spin import EXECUTORS, run
from safe_rl_ros.types import ConfigError, RobotState

NODE_NAME = "standin"
SECRET = -1
"""Value of ``standin_seed``: a seed that nobody knows."""
SECRET_BITS = 62
PARAMETERS = (
    NodeParameter("robot", "rover", "Robot spec: a YAML file, or a name in config/robots."),
    NodeParameter("task", "hazard_nav", "Task whose arena the robot is in: a YAML file, or a name in config/tasks."),
    NodeParameter("simulator", "pybullet", "Simulator; spec: the robot spec's twin.simulator.", choices=SIMULATORS),
    NodeParameter(
        "randomisation", "standin_rover", "What the robot may be: a YAML file, or a name in config/randomisation."
    ),
    NodeParameter(
        "standin_seed",
        SECRET,
        "Draws what the robot is, for the life of the process; -1: a new one, which only reveal_file is told.",
        minimum=SECRET,
        maximum=2**63 - 1,
    ),
    NodeParameter("arena_seed", 0, "Arena of the task that the robot is in.", minimum=0, maximum=2**31 - 1),
    NodeParameter("reveal_file", "", "File that is told what the robot is, for judging afterwards; empty: none."),
    NodeParameter("executor", "single", "rclpy executor of this process.", choices=EXECUTORS),
)


class StandInNode(SimulatedBase):
    """A simulated base that keeps wall time and its secrets."""

    def __init__(self) -> None:
        """Declare parameters, draw the robot, and put it where its arena says.

        Raises:
            ConfigError: a parameter or file is wrong, or use_sim_time is set.
        """
        super().__init__(NODE_NAME, PARAMETERS)
        if self.get_parameter("use_sim_time").value:
            raise ConfigError("use_sim_time = true, expected false: the stand-in keeps wall time, as a robot does")
        if not self.values["randomisation"]:
            raise ConfigError("randomisation is empty, expected a file that says what the robot may be")
        given = int(self.values["standin_seed"])
        seed = secrets.randbits(SECRET_BITS) if given == SECRET else given
        first = self._backend.reset(seed)
        self._reveal(seed)
        self.create_base_entities()
        self._publish(first)

    def _reveal(self, seed: int) -> None:
        """Write what the robot is, and where the hazards are, if anybody may know."""
        if not self.values["reveal_file"]:
            return
        parameters = self._backend.parameters
        assert parameters is not None, "there is always a randomisation"
        content = {
            "standin_seed": seed,
            "twin_parameters": as_record(parameters),
            "arena_seed": self.values["arena_seed"],
            "hazards": self._backend.layout.hazards.tolist(),
        }
        try:
            Path(self.values["reveal_file"]).write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
        except OSError as error:
            raise ConfigError(f"reveal_file = {self.values['reveal_file']!r} cannot be written: {error}") from error

    def _publish(self, state: RobotState) -> None:
        """Show a state stamped when it is sent, as a driver does; simulated time stays inside."""
        super()._publish(replace(state, stamp_ns=self.get_clock().now().nanoseconds))


def main(argv: Sequence[str] | None = None) -> int:
    """Run the stand-in until it is interrupted; return the exit status."""
    return run(StandInNode, argv)


if __name__ == "__main__":
    raise SystemExit(main())
