"""What the launch files share: arguments, and the nodes of a session as keywords of launch_ros's Node.

Imports nothing of `launch`, which comes with a ROS 2 installation and not from wheels.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safe_rl_ros.bags.bag_topics import load_contract
from safe_rl_ros.config import build, read_yaml
from safe_rl_ros.envs.robot_spec import load_robot_spec
from safe_rl_ros.resources import find_resource
from safe_rl_ros.ros.filter_parameters import parameters_of
from safe_rl_ros.safety.action_filter import FilterConfig
from safe_rl_ros.training.training_config import RosConfig
from safe_rl_ros.types import ConfigError

SWITCH = ("true", "false")
END_TIMEOUT_S = "20"
"""After Ctrl-C, until a learner has saved or a recorder has finished its bag."""
Parameters = Mapping[str, object]
Keywords = dict[str, Any]


def _argument(default: str, description: str, choices: tuple[str, ...] = ()) -> Keywords:
    return {"default_value": default, "description": description} | ({"choices": list(choices)} if choices else {})


REALTIME = _argument(
    "true",
    "Ask the kernel for real-time scheduling and locked memory for the filter and the actor, but not in lock-step; "
    "where the user may not, they go on without it, and diagnostics say so.",
    SWITCH,
)
"""The argument ``realtime``, of every launch file."""

SESSION_ARGUMENTS: dict[str, Keywords] = {
    "config": _argument("csc_hazard_nav.yaml", "Session YAML: a file, or a name in config/train."),
    "runs": _argument("runs", "Directory that holds the runs."),
    "resume": _argument("false", "Go on from the run's newest checkpoint.", SWITCH),
    "namespace": _argument("", "Namespace of all nodes and topics."),
    "params_file": _argument("", "Parameter file for the nodes; it overrides what is set here."),
    "log_level": _argument("info", "debug, info, warn, error or fatal."),
    "record": _argument(
        "false", "Record the topics of a contract into bags that `safe-rl-ros import-bag` reads.", SWITCH
    ),
    "bags": _argument("bags", "With record:=true: directory of the bags."),
    "autostart": _argument("true", "Let the filter configure and activate itself."),
    "realtime": REALTIME,
}
"""Arguments of every launch file that starts a session: name -> keywords of DeclareLaunchArgument."""


@dataclass(frozen=True)
class SessionFile:
    """A session's YAML as several nodes read it: robot, task and randomisation are file names."""

    content: dict[str, Any]
    filter_parameters: dict[str, object]

    @property
    def robot(self) -> str:
        """Return the robot spec's file or name."""
        return str(self.content["robot"])

    @property
    def common(self) -> dict[str, object]:
        """Return the parameters of every node that has the robot."""
        return {"robot": self.robot, "task": str(self.content["task"])}


def read_session(config: str) -> SessionFile:
    """Read a session YAML: a file, or a name in config/train.

    Raises:
        ConfigError: it is missing, or does not name files.
    """
    path = find_resource(config, "config/train")
    session = read_yaml(path)
    for key in ("robot", "task", "randomisation"):
        given = session.get(key)
        if not isinstance(given, str) and (key != "randomisation" or given is not None):
            raise ConfigError(f"{path}: {key} = {session.get(key)!r}, expected a file name when several nodes read it")
    return SessionFile(session, parameters_of(build(FilterConfig, session.get("filter", {}), str(path))))


def end_with(shutdown: Callable[..., Any]) -> Callable[[object, Any], Any]:
    """Return what ends the launch with the learner, unless Ctrl-C is ending it: launch_ros cannot be shut down twice.

    Args:
        shutdown: the class of launch's action.
    """
    return lambda event, context: None if context.is_shutdown else shutdown(reason="the learner ended")


class NodeKeywords:
    """Describes nodes of this package: each method returns the keywords of one launch_ros Node."""

    def __init__(
        self, namespace: str, log_level: str, use_sim_time: str, params_file: str = "", realtime: str = "false"
    ) -> None:
        """Take what all nodes of a launch have in common, as its arguments say it."""
        self._realtime = realtime == "true"
        self._namespace, self._log_level = namespace, log_level
        self._clock: Parameters = {"use_sim_time": use_sim_time == "true"}
        self._overrides = [params_file] if params_file else []

    def of(self, name: str, *parameters: Parameters, follow_clock: bool = True, **more: Any) -> Keywords:
        """Return the node called ``name``; the parameter file comes last, so that it overrides."""
        return {
            "package": "safe_rl_ros",
            "executable": f"{name}_node",
            "name": name,
            "namespace": self._namespace,
            "parameters": [*parameters, *([self._clock] if follow_clock else []), *self._overrides],
            "arguments": ["--ros-args", "--log-level", self._log_level],
            "output": "screen",
            **more,
        }

    def realtime(self, timing: str) -> Parameters:
        """Return what a node that keeps the control rate asks the kernel for."""
        return dict.fromkeys(("realtime_scheduling", "lock_memory"), self._realtime and timing == "realtime")

    def safety_filter(self, session: SessionFile, timing: str, autostart: str, **chosen: object) -> Keywords:
        """Return the filter as the session configures it, but for what was ``chosen``."""
        fixed = {**session.common, **self.realtime(timing), "timing": timing, "autostart": autostart == "true"}
        return self.of("safety_filter", fixed, {**session.filter_parameters, **chosen})

    def learner(self, parameters: Parameters, resume: str, shutdown: Callable[..., Any]) -> Keywords:
        """Return the learner, whose end is the launch's."""
        learning = {**parameters, "resume": resume == "true"}
        return self.of("learner", learning, sigterm_timeout=END_TIMEOUT_S, on_exit=end_with(shutdown))

    def actor(self, session: SessionFile, runs: str, **chosen: object) -> Keywords:
        """Return the actor, which spools into the session's run."""
        spool = Path(runs) / str(session.content["name"]) / "spool"
        acting = {**session.common, "spool": str(spool), "seed": int(session.content.get("seed", 0)), **chosen}
        ros = build(RosConfig, session.content.get("ros") or {}, "the session's ros")
        acting |= {"roll_back_episodes": ros.roll_back_episodes, "roll_back_level": ros.roll_back_level}
        acting |= self.realtime("realtime")
        return self.of("actor", acting)

    def recorder(self, contract: str, robot: str, bags: str) -> Keywords:
        """Return the recorder of a contract.

        Raises:
            ConfigError: the contract is for another robot.
        """
        agreed = load_contract(contract)
        if agreed.spec.hash != load_robot_spec(robot).hash:
            raise ConfigError(f"{agreed.source} is for robot {agreed.spec.name!r}, the session has {robot}")
        recording = {"contract": agreed.source, "directory": bags}
        return self.of("recorder", recording, sigterm_timeout=END_TIMEOUT_S)
