"""Configuration shared by the on-policy algorithms; values marked (*) are common ones, not checked against a paper."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, Field, field_validator

from safe_rl_ros.config import StrictModel


def _check_widths(value: tuple[int, ...]) -> tuple[int, ...]:
    if not value or any(width < 1 for width in value):
        raise ValueError(f"{list(value)} given, expected at least one positive width")
    return value


Hidden = Annotated[tuple[int, ...], AfterValidator(_check_widths)]
"""Widths of hidden layers."""
Device = Literal["cpu", "cuda", "auto"]
"""Where networks and batches of a learner live; auto is cuda where there is one."""


class OnPolicyConfig(StrictModel):
    """What every algorithm with a natural-gradient policy step needs."""

    hidden: Hidden = Field((64, 64), description="Widths of the tanh layers of actor and value network.")
    init_log_std: float = Field(-0.5, ge=-4.0, le=2.0, description="Initial log std of the policy, actions in [-1, 1].")
    state_dependent_std: bool = Field(False, description="True if the log std is a network output, not a parameter.")
    gamma: float = Field(0.99, ge=0.0, lt=1.0, description="Discount of rewards per step.")
    gae_lambda: float = Field(0.97, ge=0.0, le=1.0, description="Trace decay of generalised advantages per step.")
    max_kl: float = Field(0.01, gt=0.0, description="Trust region delta: mean KL(old || new) of one update, in nats.")
    fisher_damping: float = Field(0.1, gt=0.0, description="Multiple of the identity added to the Fisher matrix (*).")
    cg_iterations: int = Field(10, ge=1, description="Conjugate-gradient iterations per policy step (*).")
    line_search_backtrack: float = Field(0.7, gt=0.0, lt=1.0, description="Factor beta_0 of the line search (*).")
    line_search_tries: int = Field(20, ge=1, description="Tries L of the line search before the old policy stays (*).")
    require_improvement: bool = Field(
        False, description="True if the line search also asks that the surrogate objective does not fall."
    )
    entropy_coef: float = Field(0.0, ge=0.0, description="Weight of the policy's entropy per action axis, in nats.")
    value_learning_rate: float = Field(1e-3, gt=0.0, description="Adam step size of the reward value network.")
    value_epochs: int = Field(10, ge=1, description="Passes over the rollout to fit the reward value network.")
    value_batch_size: int = Field(256, ge=1, description="Rows per minibatch of the reward value network.")
    intervened_rows: Literal["proposed", "executed", "mask"] = Field(
        "proposed",
        description="Action whose likelihood is raised or lowered where the filter replaced the proposal: the proposal"
        " (the filter is part of the environment), the executed one, or none (row left out of the policy step).",
    )
    device: Device = Field("cpu", description="Where networks and batches live: cpu, cuda, or auto.")


class SafetyCriticConfig(OnPolicyConfig):
    """What every algorithm with a learned safety critic, a veto threshold and a multiplier needs."""

    chi: float = Field(0.03, ge=0.0, le=1.0, description="Limit chi on the probability of failure per episode (*).")
    safety_gamma: float = Field(
        0.99, ge=0.0, lt=1.0, description="Discount of failures per step; the critic looks ahead about 1/(1 - it)."
    )
    threshold_mode: Literal["paper", "fixed", "calibrated"] = Field(
        "paper", description="Veto threshold: (1 - safety_gamma)(chi - Vhat), or fixed_threshold."
    )
    fixed_threshold: float = Field(
        0.1, ge=0.0, le=1.0, description="Veto threshold of mode fixed: largest failure probability that may run."
    )
    failure_rate_decay: float = Field(
        0.0, ge=0.0, lt=1.0, description="Weight of the old Vhat in the new; 0 takes the last epoch alone, as printed."
    )
    multiplier_init: float = Field(0.0, ge=0.0, description="Initial Lagrange multiplier, in reward stds per failure.")
    multiplier_rate: float = Field(4e-2, ge=0.0, description="Step size eta of the Lagrange multiplier (*).")
    advantage_action_samples: int = Field(
        10, ge=1, description="Policy actions per state that estimate V_C(s) = E_a Q_C(s, a) in A_C."
    )
    critic_hidden: Hidden = Field((64, 64), description="Widths of the tanh layers of each safety critic.")
    critic_initial_probability: float = Field(
        0.05, gt=0.0, lt=1.0, description="Failure probability that an untrained critic answers."
    )
    critic_learning_rate: float = Field(2e-4, gt=0.0, description="Adam step size of the safety critic (*).")
    critic_updates: int = Field(300, ge=1, description="Gradient steps on the safety critic per epoch.")
    critic_batch_size: int = Field(256, ge=1, description="Rows of the replay buffer per critic step.")
    policy_action_samples: int = Field(1, ge=1, description="Policy actions per row in the critic's expectations.")
    bellman_loss: Literal["squared", "cross_entropy"] = Field(
        "squared",
        description="Error of Q_C against its target: squared as printed, or cross entropy, which has the same optimum"
        " but does not lose its gradient where rare failures have pushed Q_C towards 0.",
    )
    shaped_rows: Literal["proposed", "executed"] = Field(
        "proposed",
        description="Action the critic learns from where the filter clipped or rate-limited a proposal but did not veto"
        " it: the proposal clipped to [-1, 1], as the policy's actions are, or what was sent after the rate limit.",
    )
    target_tau: float = Field(0.005, gt=0.0, le=1.0, description="Share of the critic mixed into its target per step.")

    @field_validator("threshold_mode")
    @classmethod
    def _check_mode(cls, value: str) -> str:
        if value == "calibrated":
            raise ValueError("calibrated thresholds are not yet supported, expected 'paper' or 'fixed'")
        return value
