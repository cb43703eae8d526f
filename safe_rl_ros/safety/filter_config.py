"""Configuration of the safety filter."""

from __future__ import annotations

import hashlib
import json
from typing import Literal

from pydantic import Field, model_validator

from safe_rl_ros.config import StrictModel

CriticMode = Literal["enforce", "shadow", "off"]
FilterMode = Literal["enforce", "shadow"]
CandidateMode = Literal["actor", "topic", "around"]
FallbackMode = Literal["min_risk", "nearest_safe", "hold", "brake", "backup_policy", "estop"]


class FilterConfig(StrictModel):
    """Behaviour of the safety filter. In mode ``enforce`` the guards (limits, rates, ages, finiteness) always hold.

    ==============  =========  ===============================================================================
    ``mode``        ``critic``  what is sent
    ==============  =========  ===============================================================================
    ``enforce``     enforce    the filter's command: guards and the critic's veto decide
    ``enforce``     shadow     the guarded proposal; the critic's veto is only recorded
    ``enforce``     off        the guarded proposal; there is no critic
    ``shadow``      any        the proposal unchanged, if it is finite, fresh and no operator stopped the robot;
                               what the filter would have done is recorded as the ``verdict``
    ==============  =========  ===============================================================================

    ``null`` is the only way to switch an optional check off; no number means "off".
    """

    mode: FilterMode = Field(
        default="enforce",
        description="enforce: the filter's command is sent; shadow: proposals pass unchanged and the verdict is "
        "only recorded.",
    )
    critic: CriticMode = Field(
        default="enforce",
        description="enforce: the critic's veto decides; shadow: it is recorded, the guarded proposal is sent; "
        "off: no critic.",
    )
    candidates: CandidateMode = Field(
        default="actor",
        description="Where substitutes come from after a veto. actor: samples of the bundle's policy, the first safe "
        "one (CSC); topic: the policy's own list, the first safe one; around: Gaussian, scaled down, hold and brake "
        "around the proposal, the nearest safe one.",
    )
    max_samples: int = Field(
        default=100,
        ge=1,
        le=10_000,
        description="Candidates judged after a veto (count); CSC uses 100. In mode topic, the most that are read.",
    )
    around_std: float = Field(
        default=0.3,
        gt=0,
        le=2,
        description="Standard deviation of the Gaussian candidates around the proposal (actions, so in half ranges).",
    )
    fallback_mode: FallbackMode = Field(
        default="min_risk",
        description="What is sent if no candidate is safe. min_risk: the one of least risk (CSC); nearest_safe: the "
        "nearest safe one around the proposal, else brake; hold: the last command again; brake: the stop profile; "
        "backup_policy: the mean of the bundle's policy; estop: a latched stop.",
    )
    threshold: float | None = Field(
        default=None,
        ge=0,
        le=1,
        description="Largest failure probability that passes (threshold_on); unset: the bundle's own threshold.",
    )
    threshold_off: float | None = Field(
        default=None,
        ge=0,
        le=1,
        description="After a veto or a stop, what is sent next has at most this failure probability (at most the "
        "threshold counts), until a proposal passes; unset: the threshold itself.",
    )
    min_hold_cycles: int = Field(
        default=0,
        ge=0,
        le=10_000,
        description="Decisions after a veto in which threshold_off holds and no proposal passes (count).",
    )
    risk_abort: float | None = Field(
        default=None,
        ge=0,
        le=1,
        description="If even the command to be sent has a greater failure probability than this, brake; unset: never.",
    )
    max_consecutive_vetoes: int | None = Field(
        default=None, ge=1, le=1_000_000, description="Vetoes by the critic in a row that latch a stop; unset: never."
    )
    max_consecutive_overruns: int | None = Field(
        default=5, ge=1, le=1_000_000, description="Missed critic deadlines in a row that latch a stop; unset: never."
    )
    proposal_timeout_s: float = Field(
        default=0.3, gt=0, le=10, description="Oldest proposal that is still carried out, since its arrival (s)."
    )
    observation_timeout_s: float = Field(
        default=0.3, gt=0, le=10, description="Oldest observation that a decision may rest on, since its arrival (s)."
    )
    critic_deadline_ms: float = Field(
        default=1000.0,
        gt=0,
        le=10_000,
        description="Longest time for the critic in one decision (ms of wall clock); an overrun is a stop. The "
        "default suits lock-step, where a decision must not depend on the machine's load; on a robot set a "
        "fraction of the control period.",
    )
    seed: int = Field(default=0, ge=0, lt=2**63, description="Seed of the candidates drawn after a veto.")

    @model_validator(mode="after")
    def _ordered(self) -> FilterConfig:
        if self.threshold is not None and self.threshold_off is not None and self.threshold_off > self.threshold:
            raise ValueError(f"threshold_off {self.threshold_off} must not be above threshold {self.threshold}")
        return self

    @property
    def behaviour_hash(self) -> str:
        """SHA-256 (hex) of the fields that decide what follows a veto; a certificate holds for one of these.

        Not in it: ``mode``, ``critic``, ``threshold`` and ``seed``, and the timeouts, which can only add stops.
        """
        content = self.model_dump(mode="json", include=set(BEHAVIOUR_FIELDS))
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


BEHAVIOUR_FIELDS = (
    "candidates",
    "max_samples",
    "around_std",
    "fallback_mode",
    "threshold_off",
    "min_hold_cycles",
    "risk_abort",
)
