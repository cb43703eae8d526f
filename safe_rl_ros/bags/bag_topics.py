"""A contract together with the robot and task that it names, and the topics that this makes."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any, Literal, NamedTuple

from rosbags.interfaces import Nodetype

from safe_rl_ros.bags.contract import CONTRACTS, ContractConfig, ScalarTopic, ScanMargin, TwinMargin, contract_file
from safe_rl_ros.bags.message_types import FLOAT64_ARRAY, STRING, BagError, require_type, type_store
from safe_rl_ros.bags.reader import BagReader
from safe_rl_ros.config import load_config, read_yaml
from safe_rl_ros.data.episodes import DatasetInfo
from safe_rl_ros.envs.observation import StateObserver
from safe_rl_ros.envs.observers import make_observer
from safe_rl_ros.envs.robot_spec import RobotSpec, load_robot_spec
from safe_rl_ros.envs.tasks.hazard_nav import HazardNav, load_hazard_nav
from safe_rl_ros.messages.readers import POSE_STAMPED, READABLE_TYPES, CommandReader, make_command_reader
from safe_rl_ros.messages.state_assembler import SENSOR_TYPES, SENSORS, sensor_topics
from safe_rl_ros.resources import find_resource
from safe_rl_ros.types import ConfigError

Role = Literal["odom", "scan", "joint_states", "imu", "goal", "command", "decisions", "twin", "label"]
DEFAULT_STEPS = 1000
GOAL = "goal_pose"
"""Topic of the goals as the package's nodes name it."""


class BagTopic(NamedTuple):
    """One topic of a bag: its full name, message type, what it is for, and whether a bag may lack it.

    ``given`` is its name in the contract.
    """

    name: str
    type: str
    role: Role
    optional: bool
    given: str


class BagContract:
    """What the importer and the recorder work by."""

    def __init__(self, config: ContractConfig, spec: RobotSpec, task: Path, source: str) -> None:
        """Put the parts together.

        Args:
            config: the contract.
            spec: its robot.
            task: file of its task.
            source: names the contract in messages.

        Raises:
            ConfigError: the parts do not fit each other; the message begins with ``source``.
        """
        self.config, self.spec, self.source = config, spec, source
        self.task_name, self.task_file = task.stem, task
        self.observer: StateObserver = make_observer(spec, task)
        self.nav: HazardNav | None = None
        """The task with reward and margin, None for one that is an observation only."""
        if not isinstance(read_yaml(task).get("observation"), str):
            self.nav = HazardNav(load_hazard_nav(task), spec.base_radius_m)
        limit = DEFAULT_STEPS if self.nav is None else self.nav.config.max_episode_steps
        self.max_episode_steps = config.max_episode_steps or limit
        try:
            self.topics = {topic.name: topic for topic in self._all_topics()}
            self._check_sources()
        except (ConfigError, BagError) as error:
            raise ConfigError(f"{source}: {error}") from error

    def full_name(self, topic: str) -> str:
        """Return a topic's name in the bag."""
        if topic.startswith("/"):
            return topic
        namespace = self.config.namespace.strip("/")
        return f"/{namespace}/{topic}" if namespace else f"/{topic}"

    @property
    def robot_file(self) -> Path:
        """Return the file of the robot spec. Raises :class:`ConfigError` if there is none."""
        return find_resource(contract_file(_beside(Path(self.source), self.config.robot)), "config/robots")

    def topics_of(self, role: Role) -> str:
        """Return the full names of the topics with a role, for messages."""
        return ", ".join(name for name, topic in self.topics.items() if topic.role == role)

    def remappings(self) -> dict[str, str]:
        """Return the topics of sensors, goal and command as the package's nodes name them -> their names here."""
        own: dict[Role, str] = {"goal": GOAL, "command": self.spec.command.topic}
        own.update((sensor, topic) for sensor, topic in sensor_topics(self.spec).items())
        spaced = bool(self.config.namespace.strip("/"))
        here = {topic.role: topic.name if spaced else topic.given for topic in self.topics.values()}
        return {name: here[role] for role, name in own.items() if role in here and here[role] != name}

    def command_reader(self) -> CommandReader:
        """Return a new reader of the commands."""
        return make_command_reader(self.spec, self.config.topics.command_type)

    def dataset_info(self, name: str, provenance: str) -> DatasetInfo:
        """Return what a data set made by this contract says about itself."""
        return DatasetInfo(
            name=name,
            task=self.task_name,
            robot_spec_hash=self.spec.hash,
            obs_names=self.observer.names,
            axes=tuple(axis.name for axis in self.spec.command.axes),
            max_episode_steps=self.max_episode_steps,
            cost_limit=self.config.cost_limit,
            control_period_s=self.spec.period_ns * 1e-9,
            margin_kind="signed" if self.config.margin else "from_cost",
            provenance=provenance,
        )

    def check_bag(self, bag: BagReader, roles: Collection[Role] | None = None) -> dict[str, BagTopic]:
        """Return the topics to read from a bag, all of the contract or those with one of some roles.

        Raises:
            BagError: the bag holds no message, lacks a topic, has one of another type or without a single message.
        """
        if not sum(bag.counts.values()):
            raise BagError(f"{bag.path} holds no messages")
        found = {}
        for topic in self.topics.values():
            if roles is not None and topic.role not in roles:
                continue
            if topic.name not in bag.topics:
                if topic.optional:
                    continue
                known, what = ", ".join(sorted(bag.topics)) or "none", f"the {topic.role} of {self.source}"
                raise BagError(f"{bag.path} has no topic {topic.name}, {what}; it has {known}")
            if bag.topics[topic.name] != topic.type:
                kind = bag.topics[topic.name]
                raise BagError(f"{bag.path}: {topic.name} has type {kind}, {self.source} expects {topic.type}")
            if not bag.counts[topic.name] and topic.role not in ("decisions", "label"):
                raise BagError(f"{bag.path} holds no message on {topic.name}, the {topic.role} of {self.source}")
            found[topic.name] = topic
        return found

    def label_topics(self) -> Iterator[ScalarTopic]:
        """Yield every source of a label that is a topic of its own."""
        config = self.config
        yield from (source for source in config.margin if isinstance(source, ScalarTopic))
        yield from (*config.cost, *config.reward.topics, *config.terminate.topics)

    def _all_topics(self) -> Iterator[BagTopic]:
        names, spec = self.config.topics, self.spec

        def make(given: str, kind: str, role: Role, optional: bool = False) -> BagTopic:
            return BagTopic(self.full_name(given), kind, role, optional, given)

        for sensor, topic in sensor_topics(spec).items():
            yield make(getattr(names, sensor) or topic, SENSOR_TYPES[sensor], sensor)
        if self.observer.needs_goal:
            yield make(names.goal, POSE_STAMPED, "goal")
        yield make(names.command or spec.command.topic, self.command_reader().message_type, "command")
        if names.decisions is not None:
            yield make(names.decisions, FLOAT64_ARRAY, "decisions", True)
        for source in self.config.margin:
            if isinstance(source, TwinMargin):
                yield make(source.topic, STRING, "twin")
        labels = list(self.label_topics())
        for label in labels:
            same = [other for other in labels if other.topic == label.topic]
            if same[0].type != label.type:
                raise ConfigError(f"topic {label.topic} is given the types {same[0].type} and {label.type}")
            yield make(label.topic, label.type, "label", all(other.optional for other in same))

    def _check_sources(self) -> None:
        """Refuse sources that the robot or the task cannot feed, and types without the field that is asked for."""
        spec, config = self.spec, self.config
        roles = [topic.name for topic in self._all_topics() if topic.role != "label"]
        twice = {name for name in roles if roles.count(name) > 1}
        twice |= {self.full_name(label.topic) for label in self.label_topics()} & set(roles)
        if twice:
            raise ConfigError(f"topic {', '.join(sorted(twice))} has two uses")
        given = {sensor for sensor in SENSORS if getattr(config.topics, sensor) is not None}
        if given - set(sensor_topics(spec)):
            raise ConfigError(f"robot {spec.name} has no sensor {', '.join(sorted(given - set(sensor_topics(spec))))}")
        for source in config.margin:
            if isinstance(source, ScanMargin) and spec.base_scan and source.subtract_m is None:
                _ = spec.base_radius_m  # both raise where the robot lacks them
            if source.source in ("twin", "hazards") and self.nav is None:
                raise ConfigError(f"margin from {source.source}: task {self.task_name} has no hazards")
        for label in self.label_topics():
            _check_field(label)


def _check_field(label: ScalarTopic) -> None:
    """Check that the field is a number of the message type."""
    require_type(label.type)
    node: Any = (Nodetype.NAME, label.type)
    for name in label.field.split("."):
        fields = dict(type_store().fielddefs[node[1]][1]) if node[0] is Nodetype.NAME else {}
        if name not in fields:
            known = ", ".join(fields) or "no fields"
            raise ConfigError(f"topic {label.topic}: {label.type} has no field {label.field}; {node[1]} has {known}")
        node = fields[name]
    if node[0] is not Nodetype.BASE or node[1][0] in ("string", "wstring"):
        raise ConfigError(f"topic {label.topic}: {label.field} of {label.type} is not one number")


def load_contract(name: str | Path) -> BagContract:
    """Read a contract and the robot spec and task that it names.

    Args:
        name: a YAML file, or the name of one in ``config/contracts`` with or without ``.yaml``.

    Raises:
        ConfigError: a file is missing or wrong, or they do not fit each other.
    """
    path = find_resource(contract_file(name), CONTRACTS)
    config = load_config(ContractConfig, path)
    robot, task = (_beside(path, value) for value in (config.robot, config.task))
    spec = load_robot_spec(robot)
    if config.topics.command_type not in (None, *READABLE_TYPES[spec.command.interface]):
        known = ", ".join(READABLE_TYPES[spec.command.interface])
        raise ConfigError(f"{path}: topics.command_type = {config.topics.command_type!r}, expected one of {known}")
    return BagContract(config, spec, find_resource(contract_file(task), "config/tasks"), str(path))


def _beside(contract: Path, name: str) -> Path:
    """Return the path of a file named with a slash, seen from the contract, if it is there; else the name as given."""
    beside = contract.parent / contract_file(name)
    return beside if "/" in name and beside.is_file() else Path(name)
