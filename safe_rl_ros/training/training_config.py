"""Budget, logged data and transport of a training session."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field, model_validator

from safe_rl_ros.config import GrownModel, StrictModel
from safe_rl_ros.data.trials import MOST_EPISODES


class TrainingConfig(GrownModel):
    """How long to train and what to keep. Steps are environment steps, or gradient steps of a session on ``data``."""

    younger: ClassVar[frozenset[str]] = frozenset({"start_from"})

    total_steps: int = Field(
        200_000, gt=0, description="Environment steps of the whole session; on data: gradient steps."
    )
    steps_per_epoch: int = Field(
        2_000,
        gt=1,
        description="Environment steps between two policy updates, of all environments together; on data: gradient"
        " steps of one epoch.",
    )
    num_envs: int = Field(
        5, ge=1, le=10_000, description="Environments stepped at once; simulated tasks only, a robot is one."
    )
    env_threads: int = Field(
        1, ge=1, le=256, description="Threads that step them; changes no result. Simulated tasks only."
    )
    checkpoint_interval: int = Field(
        5, gt=0, description="Epochs between two checkpoints; the last epoch is always kept."
    )
    buffer_capacity: int = Field(200_000, gt=0, description="Rows of experience kept for learning, oldest dropped.")
    seed_data: str | None = Field(
        None,
        description="Logged data (a data set, or another run's transitions.npz) for buffer and critics, before the"
        " first epoch.",
    )
    seed_rounds: int = Field(10, ge=1, description="Rounds of critic updates on the seed data before the first epoch.")
    start_from: str | None = Field(
        None,
        description="Run or bundle, of an offline algorithm say, whose policy and safety critic the learner begins as"
        " (csc, offtrc, offcpo). A run on data brings its data set as seed_data. The veto threshold stays the"
        " algorithm's own: a risk made from a safety value, as FISOR's, is .5 at the border, no probability.",
    )
    stop_at_goals: float | None = Field(
        None, gt=0, description="End early once this many goals per episode are reached, mean of the last 5 epochs."
    )

    @property
    def epochs(self) -> int:
        """Number of epochs; the last one may overshoot ``total_steps`` by less than an epoch."""
        return -(-self.total_steps // self.steps_per_epoch)


class DataConfig(StrictModel):
    """Logged data that an offline algorithm learns from, and how the policy is tried."""

    path: str = Field(min_length=1, description="The data set, as `safe-rl-ros dataset info` reads it, or an .npz.")
    sha256: str | None = Field(
        None,
        pattern=r"^[0-9a-f]{64}$",
        description="Hash of its content, filled in when the session is made; other data are refused.",
    )
    evaluate_every: int = Field(
        10, ge=0, description="Epochs between two evaluations in the task, the last one always is; 0: never."
    )
    evaluation_episodes: int = Field(20, ge=1, description="Episodes of one evaluation, the same layouts every time.")
    deterministic: bool = Field(True, description="True if the policy's mean is evaluated, False for its samples.")


class RosConfig(GrownModel):
    """How the session's processes talk when the backend is ``ros``."""

    younger: ClassVar[frozenset[str]] = frozenset(
        {"acting", "nice", "torch_threads", "roll_back_episodes", "roll_back_level"}
    )

    timing: Literal["lockstep", "realtime"] = Field(
        "lockstep", description="lockstep: one period per command; realtime: wall clock."
    )
    step_timeout_s: float = Field(
        2.0, gt=0, le=60, description="Longest wait for one step's answer before the robot is stopped."
    )
    startup_timeout_s: float = Field(30.0, gt=0, le=300, description="Longest wait for the other processes to appear.")
    domain_id: int | None = Field(
        None, ge=0, le=232, description="ROS_DOMAIN_ID of the session; unset: the environment's, else a free one."
    )
    acting: Literal["learner", "actor"] = Field(
        "learner",
        description="Who acts: the learner itself, between its updates, or actor_node in a process of its own, always"
        " (with timing realtime).",
    )
    nice: int = Field(
        10, ge=0, le=19, description="With acting actor: by how much the learner's process gives way to the others."
    )
    torch_threads: int = Field(1, ge=1, le=256, description="With acting actor: the learner's compute threads.")
    roll_back_episodes: int = Field(
        0,
        ge=0,
        le=MOST_EPISODES,
        description="With acting actor: episodes after which a newer bundle is compared with the first one; if its"
        " returns are lower (rank-sum test), or at its first failure, the robot goes back and the session ends;"
        " 0: never.",
    )
    roll_back_level: float = Field(0.05, ge=0, le=0.5, description="Level of that test, one-sided.")

    @model_validator(mode="after")
    def _actor_in_real_time(self) -> RosConfig:
        if self.acting == "actor" and self.timing != "realtime":
            raise ValueError(f"acting is 'actor' and timing {self.timing!r}: an actor needs 'realtime'")
        return self
