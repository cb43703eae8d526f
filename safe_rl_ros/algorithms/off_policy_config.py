"""Configuration shared by the off-policy algorithms; values marked (*) are common ones, not checked against a paper."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from safe_rl_ros.algorithms.config import Device, Hidden
from safe_rl_ros.config import StrictModel
from safe_rl_ros.inference import Activation


class OffPolicyConfig(StrictModel):
    """What soft actor-critic and everything built on it needs."""

    hidden: Hidden = Field((256, 256), description="Widths of the hidden layers of actors and critics.")
    activation: Activation = Field("relu", description="Hidden layers of actors and critics: tanh or relu.")
    init_log_std: float = Field(-0.5, ge=-4.0, le=2.0, description="Initial log std of the policy, actions in [-1, 1].")
    gamma: float = Field(0.99, ge=0.0, lt=1.0, description="Discount of rewards (and graded costs) per step.")
    target_tau: float = Field(0.005, gt=0.0, le=1.0, description="Share of a critic mixed into its target per step.")
    batch_size: int = Field(256, ge=1, description="Rows of the replay buffer per gradient step.")
    gradient_steps_per_row: float = Field(
        1.0, gt=0.0, description="Gradient steps per new row; what an epoch does not use up is owed to the next one."
    )
    learning_starts: int = Field(
        1000, ge=1, description="Rows in the buffer before the first gradient step; until then the initial policy acts."
    )
    actor_learning_rate: float = Field(3e-4, gt=0.0, description="Adam step size of the actors.")
    critic_learning_rate: float = Field(3e-4, gt=0.0, description="Adam step size of the reward critics.")
    temperature_learning_rate: float = Field(3e-4, gt=0.0, description="Adam step size of the log temperature.")
    init_temperature: float = Field(
        0.01, gt=0.0, description="Initial weight of the policy's entropy, in reward per nat (*)."
    )
    entropy_std: float = Field(
        1.0, gt=0.0, description="Std of the greatest entropy, action range [-1, 1]; more spread counts as less (*)."
    )
    target_entropy: float | None = Field(
        None, description="Entropy of the unclipped policy that the temperature aims at, in nats; none: -1 per axis."
    )
    shaped_rows: Literal["proposed", "executed"] = Field(
        "proposed",
        description="Action the critics learn from where the filter clipped or rate-limited a proposal but did not veto"
        " it: the proposal clipped to [-1, 1], as the policy's actions are, or what was sent after the rate limit.",
    )
    fast_matmul: bool = Field(
        False,
        description="True if matrix products may run in bfloat16 (float32 sums) where the processor has units for it:"
        " about a third faster, three digits per product (*).",
    )
    device: Device = Field("cpu", description="Where networks and batches live: cpu, cuda, or auto.")


class SafetyValueConfig(OffPolicyConfig):
    """What every off-policy algorithm with a safety critic and a veto needs."""

    safety_learning_rate: float = Field(3e-4, gt=0.0, description="Adam step size of the safety critic.")
    safety_members: int = Field(1, ge=1, description="Networks of the safety critic; the most pessimistic one counts.")
    pretrain_steps: int = Field(
        1000, ge=1, description="Gradient steps on the safety part per round on logged data, before the first rollout."
    )
    threshold_mode: Literal["fixed"] = Field("fixed", description="Veto threshold: fixed_threshold.")


class SafetyTermConfig(SafetyValueConfig):
    """What is needed on top where the actor's loss has a safety term too."""

    multiplier_learning_rate: float = Field(3e-4, ge=0.0, description="Adam step size of the multiplier (*).")
    init_multiplier: float = Field(1.0, gt=0.0, description="Initial multiplier of the safety term in the actor loss.")


class RiskConfig(SafetyValueConfig):
    """What every off-policy algorithm with a critic of the probability of violation needs."""

    safety_gamma: float = Field(
        0.99, ge=0.0, lt=1.0, description="Discount of violations per step; the critic looks ahead about 1/(1 - it)."
    )
    initial_probability: float = Field(
        0.05, gt=0.0, lt=1.0, description="Violation probability that an untrained critic answers."
    )
    bellman_loss: Literal["squared", "cross_entropy"] = Field(
        "squared",
        description="Error of the safety critic against its target: squared as printed, or cross entropy, which has the"
        " same optimum and keeps its gradient where the critic is near 0 or 1.",
    )
    fixed_threshold: float = Field(
        0.1, ge=0.0, le=1.0, description="Veto threshold eps: largest probability of violation that may run."
    )
