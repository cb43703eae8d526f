"""Shared value types and the shape table of the package.

Shape letters used in docstrings everywhere:

====  =========================================================
B     batch rows
K     candidate commands of one decision
E     members of a critic ensemble
O     observation length (``obs_dim``)
C     command axes of the robot (``act_dim``), in robot-spec order
J     joints of the robot, in robot-spec order
R     rays of the planar lidar
====  =========================================================

An *action* is normalised to [-1, 1] per axis; a *command* is the same thing in the units of the
robot spec (m/s, rad/s, rad). Learning sees actions, the filter and the robot see commands.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]
Float32Array = npt.NDArray[np.float32]
BoolArray = npt.NDArray[np.bool_]


class SafeRlRosError(Exception):
    """Base of every error that this package raises on purpose."""


class ConfigError(SafeRlRosError, ValueError):
    """A configuration file or value is wrong; the message names file, key, value and bound."""


class BackendError(SafeRlRosError, RuntimeError):
    """The robot or its twin did not answer as it must; the robot has been told to stop."""


class StopPersistsError(SafeRlRosError, RuntimeError):
    """A latched stop was not cleared because its cause is still there; the message names it."""


class BundleError(SafeRlRosError, RuntimeError):
    """A bundle is missing, corrupt or does not belong to this robot."""


def _unknown(length: int) -> FloatArray:
    values = np.full(length, np.nan)
    values.setflags(write=False)
    return values


NO_VECTOR, NO_TURN = _unknown(3), _unknown(4)
"""What a state holds of a sensor that the robot lacks: nobody may take it for a measurement."""


@dataclass(frozen=True)
class RobotState:
    """What the robot's sensors said at one instant.

    ``position`` (3,) m and ``orientation`` (4,) quaternion x, y, z, w in the odom frame;
    ``linear_velocity`` (3,) m/s and ``angular_velocity`` (3,) rad/s in the base frame;
    ``joint_position`` (J,) rad or m, ``joint_velocity`` (J,) per second; ``ranges`` (R,) float32 m,
    ``range_max`` where nothing was hit. ``stamp_ns`` is the time of the measurement.

    Of an imu, NaN where there is none: ``imu_orientation`` (4,) x, y, z, w of its frame in one whose z is up;
    ``imu_angular_velocity`` (3,) rad/s and ``imu_linear_acceleration`` (3,) m/s^2 in its frame, the latter 9.81 upwards
    at rest.
    """

    stamp_ns: int
    position: FloatArray
    orientation: FloatArray
    linear_velocity: FloatArray
    angular_velocity: FloatArray
    joint_position: FloatArray
    joint_velocity: FloatArray
    ranges: Float32Array
    imu_orientation: FloatArray = field(default_factory=lambda: NO_TURN)
    imu_angular_velocity: FloatArray = field(default_factory=lambda: NO_VECTOR)
    imu_linear_acceleration: FloatArray = field(default_factory=lambda: NO_VECTOR)


class Reason(enum.IntEnum):
    """Why the filter sent what it sent. Values are part of the decision record: never renumber."""

    ACCEPTED = 0
    """The proposal passed unchanged."""
    SHAPED = 1
    """The proposal was clipped to a limit or a rate, and passed the critic after that."""
    RESAMPLED = 2
    """The critic vetoed the proposal; a candidate of the actor passed."""
    LEAST_RISK = 3
    """Every candidate was vetoed; the one with the least risk was sent (CSC, step 7)."""
    SHADOW_VETO = 4
    """The critic would have vetoed; shadow mode let the proposal through."""
    NEAREST_SAFE = 5
    """The critic vetoed the proposal; the safe candidate nearest to it was sent."""
    BACKUP = 6
    """Every candidate was vetoed; the bundle's own policy took over (fallback ``backup_policy``)."""
    HOLD = 7
    """Every candidate was vetoed; the last command was repeated (fallback ``hold``)."""
    STOP_INACTIVE = 10
    """The filter is not armed."""
    STOP_ESTOP = 11
    """The emergency stop is latched."""
    STOP_NO_PROPOSAL = 12
    """No proposal has arrived yet."""
    STOP_STALE_PROPOSAL = 13
    """The latest proposal is older than its timeout: the policy fell silent."""
    STOP_BAD_PROPOSAL = 14
    """The proposal is not finite or has the wrong shape."""
    STOP_NO_OBSERVATION = 15
    """No observation has arrived yet."""
    STOP_STALE_OBSERVATION = 16
    """The latest observation is older than its timeout."""
    STOP_BAD_OBSERVATION = 17
    """The observation is not finite or has the wrong shape."""
    STOP_NO_BUNDLE = 18
    """The critic's veto is required and no valid bundle is loaded."""
    STOP_BAD_RISK = 19
    """The critic answered a non-finite risk for every candidate."""
    STOP_DEADLINE = 20
    """The critic overran its deadline."""
    STOP_TIME_JUMP = 21
    """Time went backwards; everything received before is distrusted."""
    STOP_ERROR = 22
    """The decision raised; see the log."""
    STOP_UNSAFE = 23
    """Every candidate was vetoed (fallback ``brake``)."""
    STOP_RISK_ABORT = 24
    """Even the best candidate's risk is above ``risk_abort``."""
    STOP_VETOES = 25
    """Latched: too many vetoes in a row."""
    STOP_OVERRUNS = 26
    """Latched: the critic overran its deadline too often in a row."""
    STOP_HEARTBEAT = 27
    """Latched: the operator's heartbeat is lost."""
    STOP_FALLBACK = 28
    """Latched: every candidate was vetoed (fallback ``estop``)."""

    @property
    def is_stop(self) -> bool:
        """True if the robot's stop command was sent."""
        return self.value >= Reason.STOP_INACTIVE.value

    @property
    def is_veto(self) -> bool:
        """True if the proposal was replaced because of the critic or a guard (not by mere shaping)."""
        return self in SUBSTITUTES or self.is_stop


SUBSTITUTES = frozenset({Reason.RESAMPLED, Reason.LEAST_RISK, Reason.NEAREST_SAFE, Reason.BACKUP, Reason.HOLD})
"""Reasons under which another command than the proposal was sent that is no stop."""


class FilterState(enum.IntEnum):
    """Where the filter's state machine is. Values are part of the decision record: never renumber."""

    INACTIVE = 0
    """Not armed."""
    NOMINAL = 1
    """Armed; proposals pass up to ``threshold``."""
    HOLDING = 2
    """Armed, after a veto: proposals pass only at ``threshold_off`` and after ``min_hold_cycles``."""
    STOPPED = 3
    """Armed, stopping the robot for a cause that may pass by itself."""
    LATCHED = 4
    """Stopping the robot until an operator clears it."""


class StopCause(enum.Enum):
    """Why a stop is latched; the value is the reason of the decisions while it is."""

    OPERATOR = Reason.STOP_ESTOP
    """The operator's emergency stop: a service call or the ``estop`` topic."""
    HEARTBEAT = Reason.STOP_HEARTBEAT
    """The operator's heartbeat is lost."""
    VETOES = Reason.STOP_VETOES
    """``max_consecutive_vetoes``."""
    OVERRUNS = Reason.STOP_OVERRUNS
    """``max_consecutive_overruns``."""
    FALLBACK = Reason.STOP_FALLBACK
    """``fallback_mode: estop``."""


@dataclass(frozen=True)
class FilterDecision:
    """One decision of the safety filter, with everything needed to explain it later.

    ``proposed`` (C,) as received (may hold NaN), ``executed`` (C,) as sent; both are commands.
    Risks are the critic's failure probabilities in [0, 1], NaN where none was computed.
    ``risk_proposed`` belongs to the proposal after shaping. Ages and latency in seconds. ``verdict`` is what the
    filter found; it differs from ``reason``, which says why ``executed`` was sent, only in mode ``shadow``.
    ``stamp_ns`` is the time of the decision for others (ROS time in a node), ``tick_ns`` on the filter's own clock.
    ``veto_streak`` counts vetoes by the critic in a row, this decision included, ``overrun_streak`` its missed
    deadlines; ``hold_left`` is the number of decisions to come in which no proposal passes.
    """

    stamp_ns: int
    proposed: FloatArray
    executed: FloatArray
    reason: Reason
    risk_proposed: float
    risk_executed: float
    threshold: float
    samples: int
    observation_age_s: float
    proposal_age_s: float
    latency_s: float
    bundle_hash: str
    mode: str = "enforce"
    state: FilterState = FilterState.NOMINAL
    verdict: Reason = Reason.ACCEPTED
    veto_streak: int = 0
    tick_ns: int = 0
    hold_left: int = 0
    overrun_streak: int = 0

    @property
    def intervened(self) -> bool:
        """True if the proposal was replaced (veto or stop)."""
        return self.reason.is_veto


@dataclass(frozen=True, slots=True)
class Selection:
    """Which of K candidate actions a model chose for the filter; see ``StagedModel`` in the filter's contracts.

    ``index`` counts in the actions as given, -1 if none has a usable risk. ``risk`` is that action's own, judged by
    every member of an ensemble, NaN if there is none. ``acceptable`` is ``risk <= threshold``. ``evaluated`` is how
    many actions every member judged.
    """

    index: int
    risk: float
    acceptable: bool
    evaluated: int


@dataclass(frozen=True)
class StepResult:
    """What a backend returns for one control period: the new state and, if a filter sits behind it, its decision."""

    state: RobotState
    decision: FilterDecision | None = None


@dataclass(frozen=True)
class TransitionBatch:
    """Rows of experience, all arrays float32 unless said otherwise.

    ``obs``, ``next_obs`` (B, O); ``action_proposed`` (B, C) the policy's own sample, not clipped;
    ``action_executed`` (B, C) what moved the robot, in [-1, 1]; ``intervened`` (B,) bool;
    ``behaviour_mean``, ``behaviour_std`` (B, C) of the Gaussian that made the proposal;
    ``reward``, ``cost``, ``margin`` (B,); ``terminated``, ``truncated`` (B,) bool.
    ``cost`` is what training constrains, >= 0: binary or a sigmoid of the margin, at least .5 exactly where the margin
    is violated; ``margin`` is signed, positive is safe.
    """

    obs: Float32Array
    action_proposed: Float32Array
    action_executed: Float32Array
    intervened: BoolArray
    behaviour_mean: Float32Array
    behaviour_std: Float32Array
    reward: Float32Array
    cost: Float32Array
    margin: Float32Array
    terminated: BoolArray
    truncated: BoolArray
    next_obs: Float32Array

    def __len__(self) -> int:
        """Return the number of rows."""
        return int(self.reward.shape[0])


@dataclass(frozen=True)
class EpisodeStats:
    """Summary of one finished episode.

    ``failure``: a violation ended it. ``cost`` is the sum of the training cost, ``violations`` the number of steps
    with a margin that is not positive.
    """

    episode_return: float
    length: int
    failure: bool
    goals: int
    vetoes: int
    cost: float = 0.0
    violations: int = 0
    extra: dict[str, Any] = field(default_factory=dict)
