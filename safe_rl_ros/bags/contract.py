"""The contract of a robot's bags: which topics are recorded, and how a data set is made of them.

One YAML names the robot spec, the task whose observation a policy sees, the topics and the sources of margin, cost,
reward and ends of episodes. ``safe-rl-ros record`` and ``import-bag`` read it; robot spec and task are the ones that
the filter is deployed with, so that a data set holds what the deployed policy will see.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, TypeAlias

from pydantic import Field, field_validator, model_validator

from safe_rl_ros.config import StrictModel
from safe_rl_ros.types import Reason

TopicName = Annotated[str, Field(min_length=1, max_length=200, pattern=r"^/?[A-Za-z][A-Za-z0-9_/]*$")]
"""Relative to the namespace, or with a leading slash and absolute."""
TypeName = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*/msg/[A-Za-z0-9]+$")]
Positive = Annotated[float, Field(gt=0.0)]

BOOL = "std_msgs/msg/Bool"
DEFAULT_TIMEOUT_S = 1.0


class TopicsConfig(StrictModel):
    """Topics of the robot, unset ones as in the robot spec. A bag must have them all but ``decisions``."""

    odom: TopicName | None = None
    scan: TopicName | None = None
    joint_states: TopicName | None = None
    imu: TopicName | None = None
    goal: TopicName = "goal_pose"
    """Read if the task's observation has a goal in it."""
    command: TopicName | None = None
    """What moved the robot: the topic behind the filter, not the policy's."""
    command_type: TypeName | None = None
    """Message type of the commands, unset: the one of the robot's interface."""
    decisions: TopicName | None = "safety_filter/decisions"
    """The filter's decisions: what was proposed and where it intervened. A bag need not have them."""


class ScalarTopic(StrictModel):
    """A number in the messages of a topic: ``scale * field + offset``; True counts as 1."""

    topic: TopicName
    type: TypeName = BOOL
    field: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*(\.[a-z][a-z0-9_]*)*$")] = "data"
    """Name of the field, for instance ``data`` or ``wrench.force.z``."""
    scale: float = 1.0
    offset: float = 0.0
    optional: bool = False
    """A bag need not have the topic; without it this source says nothing."""


class LevelTopic(ScalarTopic):
    """A number that holds until the next message says otherwise."""

    initial: float | None = None
    """Value before the first message; unset: 0 for a Bool, else unknown, and no episode begins before it is known."""
    timeout_s: Positive | None = None
    """Age from which the value is unknown and an episode breaks off; unset: never for a Bool, else 1 s."""

    @model_validator(mode="before")
    @classmethod
    def _fill(cls, data: object) -> object:
        if not isinstance(data, dict):
            return data
        boolean = data.get("type", cls.model_fields["type"].default) == BOOL
        defaults = {"initial": 0.0} if boolean else {"timeout_s": DEFAULT_TIMEOUT_S}
        return {**defaults, **data}


class ScanMargin(StrictModel):
    """Margin: the nearest range of the scan less the robot's extent, m."""

    source: Literal["scan"]
    subtract_m: Annotated[float, Field(ge=0.0)] | None = None
    """Unset: ``footprint_radius_m`` of the robot spec."""


class HazardMargin(StrictModel):
    """Margin: distance of the footprint to circles at known places, from odometry, m."""

    source: Literal["hazards"]
    hazards: Annotated[tuple[tuple[float, float, Positive], ...], Field(min_length=1)]
    """x, y and radius of each in the odom frame, m."""


class TwinMargin(StrictModel):
    """Margin of the task itself: the twin says which arena it shows."""

    source: Literal["twin"]
    topic: TopicName = "twin/episode"
    """A std_msgs/String with JSON, published by the twin at each reset."""


class TopicMargin(LevelTopic):
    """Margin that somebody publishes, positive where it is safe."""

    source: Literal["topic"]
    type: TypeName = "std_msgs/msg/Float64"

    @field_validator("type")
    @classmethod
    def _no_bool(cls, value: str) -> str:
        if value == BOOL:
            raise ValueError("a Bool is no margin; it may be a cost")
        return value


MarginSource: TypeAlias = Annotated[ScanMargin | HazardMargin | TwinMargin | TopicMargin, Field(discriminator="source")]


class EndTopic(LevelTopic):
    """Ends an episode where its number is above ``above``: a collision, an emergency stop."""

    above: float = 0.5


class RewardConfig(StrictModel):
    """Sources of the reward, summed up; none: 0."""

    task: bool = True
    """The task's own reward, where it has one: progress to the goal, and a bonus at it."""
    topics: tuple[ScalarTopic, ...] = ()
    """Rewards that somebody publishes; those within a step are added."""


class TerminationConfig(StrictModel):
    """What truly ends an episode; everything else (gaps, the end of the bag, time limits) cuts it."""

    violation: bool = True
    """A violated margin or a cost of at least 0.5 ends the episode, as in the task ``hazard_nav``."""
    topics: tuple[EndTopic, ...] = ()
    reasons: tuple[str, ...] = ("STOP_ESTOP",)
    """Reasons of the filter's decisions that end an episode."""

    @field_validator("reasons")
    @classmethod
    def _known(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        unknown = [name for name in value if name not in Reason.__members__]
        if unknown:
            raise ValueError(f"unknown reasons {', '.join(unknown)}, expected some of {', '.join(Reason.__members__)}")
        return value


class ContractConfig(StrictModel):
    """The whole contract; :func:`safe_rl_ros.bags.bag_topics.load_contract` reads it and what it names."""

    robot: str
    """Robot spec: a file beside the contract, a path, or a name in config/robots."""
    task: str
    """Task: likewise, a name in config/tasks. Its observation is the data set's."""
    namespace: Annotated[str, Field(pattern=r"^[A-Za-z0-9_/]*$")] = ""
    clock: Literal["log", "stamp"] = "log"
    """Time that messages are aligned by. ``log``: when they arrived, as a filter in real time sees them. ``stamp``:
    the time in their headers, right for lock-step; messages without a header count from the newest sensor's stamp."""
    topics: TopicsConfig = TopicsConfig()
    margin: tuple[MarginSource, ...] = ()
    """The least of all sources and of all their samples within a step counts. None: the margin is made from the cost,
    1 where it is 0, else -25."""
    cost: tuple[LevelTopic, ...] = ()
    """The greatest of all counts; where the margin is violated it is at least 1."""
    reward: RewardConfig = RewardConfig()
    terminate: TerminationConfig = TerminationConfig()
    violated_margin: Annotated[float, Field(lt=0.0)] = -0.05
    """Margin of a step whose cost says violation although no source of the margin saw it, at most."""
    max_episode_steps: Annotated[int, Field(ge=1)] | None = None
    """Longer episodes are cut into several; unset: the task's limit, or 1000."""
    min_episode_steps: Annotated[int, Field(ge=1)] = 2
    """Shorter pieces are left out and counted."""
    cost_limit: Annotated[float, Field(ge=0.0)] = 10.0
    """Cost of an episode that normalised costs are multiples of."""
    unsorted: Literal["error", "truncate"] = "error"
    """A stamp that goes back refuses the bag, or cuts the episode there and begins anew."""
    reorder_s: Annotated[float, Field(ge=0.0, le=60.0)] = 5.0
    """With ``clock: stamp``: how long after its arrival a message waits for others with earlier stamps, s. While nodes
    discover each other, the middleware may hand a message over as late as its next heartbeat, 3 s."""

    @model_validator(mode="after")
    def _labelled(self) -> ContractConfig:
        if not self.margin and not self.cost:
            raise ValueError("there is no source of safety: expected at least one entry in margin or in cost")
        if sum(source.source == "twin" for source in self.margin) > 1:
            raise ValueError("margin names the source 'twin' twice")
        return self


CONTRACTS = "config/contracts"


def contract_file(name: str | Path) -> Path:
    """Return the name of a contract with its suffix."""
    file = Path(name)
    return file if file.suffix else file.with_suffix(".yaml")
