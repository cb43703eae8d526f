"""The guards before the critic: order in time, type, shape, finiteness and age of the two inputs."""

from __future__ import annotations

import operator

import numpy as np

from safe_rl_ros.safety import guards
from safe_rl_ros.safety.contracts import CommandLimits, FilterConfig, Observation, Proposal, SafetyModel
from safe_rl_ros.safety.draft import NAN, Draft, StopError, Tick
from safe_rl_ros.safety.history import InputTrack
from safe_rl_ros.types import Float32Array, FloatArray, Reason


class InputGuard:
    """Follows clock and stamps, tick by tick, and says what is wrong with the inputs in hand."""

    def __init__(self, limits: CommandLimits) -> None:
        """Start with nothing seen."""
        self._shape = limits.stop.shape
        self.last_now_ns: int | None = None
        self._newer_than_ns: int | None = None
        self._proposals = InputTrack()
        self._observations = InputTrack()
        self.no_proposal: FloatArray = np.full(limits.axes, NAN)
        self.no_proposal.flags.writeable = False

    def forget(self) -> None:
        """Forget both inputs, not the clock."""
        self._proposals.forget()
        self._observations.forget()

    def restore(self, now_ns: int) -> None:
        """Take over that the last decision was at ``now_ns``; stamps that were seen stay known."""
        self.last_now_ns, self._newer_than_ns = now_ns, None

    def refuse_until(self, now_ns: int) -> None:
        """Refuse every proposal that was received by ``now_ns``."""
        self._newer_than_ns = now_ns

    def note_clock(self, now_ns: int) -> bool:
        """Take note of the time; return False if it went back."""
        forward = not guards.went_backwards(now_ns, self.last_now_ns)
        self.last_now_ns = now_ns
        if not forward and self._newer_than_ns is not None:
            self._newer_than_ns = now_ns
        return forward

    def note_inputs(
        self, now_ns: int, clock_forward: bool, proposal: Proposal | None, observation: Observation | None, draft: Draft
    ) -> Tick:
        """Take note of the inputs in hand, armed or not, and write them and their ages into the draft."""
        if not clock_forward:
            for track, message in ((self._proposals, proposal), (self._observations, observation)):
                track.distrust(None if message is None else operator.index(message.stamp_ns))
        proposal_ok = observation_ok = clock_forward
        if proposal is not None:
            proposal_ok = _arrived(self._proposals, proposal, now_ns) and proposal_ok
        if observation is not None:
            observation_ok = _arrived(self._observations, observation, now_ns) and observation_ok
        if proposal is not None:
            draft.proposed = self._copy(proposal)
            draft.proposal_age_s = self._proposals.age_s(now_ns)
        if observation is not None:
            draft.observation_age_s = self._observations.age_s(now_ns)
        return Tick(now_ns, proposal, observation, proposal_ok, observation_ok)

    def flaw(self, proposal: Proposal | None, draft: Draft, config: FilterConfig) -> Reason | None:
        """Return why the proposal in the draft cannot be carried out, order of time aside; None if it can."""
        if proposal is None or (self._newer_than_ns is not None and not proposal.received_ns > self._newer_than_ns):
            return Reason.STOP_NO_PROPOSAL
        if not guards.is_finite(draft.proposed):
            return Reason.STOP_BAD_PROPOSAL
        if not guards.is_fresh(draft.proposal_age_s, config.proposal_timeout_s):
            return Reason.STOP_STALE_PROPOSAL
        return None

    def observation(
        self,
        proposal: Proposal,
        observation: Observation | None,
        draft: Draft,
        config: FilterConfig,
        model: SafetyModel | None,
    ) -> Float32Array:
        """Return a read-only float32 copy (O,) of a good observation that belongs to the proposal.

        Raises:
            StopError: there is none, it is bad or stale, or the header stamps are far apart.
        """
        if observation is None:
            raise StopError(Reason.STOP_NO_OBSERVATION)
        obs = _checked(observation, model)
        if not guards.is_fresh(draft.observation_age_s, config.observation_timeout_s):
            raise StopError(Reason.STOP_STALE_OBSERVATION)
        lag = guards.check_stamps(
            proposal.stamp_ns, observation.stamp_ns, config.proposal_timeout_s, config.observation_timeout_s
        )
        if not lag.proposal_ok:
            raise StopError(Reason.STOP_STALE_PROPOSAL)
        if not lag.observation_ok:
            raise StopError(Reason.STOP_STALE_OBSERVATION)
        return obs

    def _copy(self, proposal: Proposal) -> FloatArray:
        """Return a read-only float64 copy (C,) of the proposal, NaN if it has another type or shape."""
        values = guards.as_numbers(proposal.values)
        if values is None or not guards.has_shape(values, self._shape):
            return self.no_proposal
        copy = np.array(values, dtype=np.float64)
        copy.flags.writeable = False
        return copy


def _arrived(track: InputTrack, message: Proposal | Observation, now_ns: int) -> bool:
    """Take note of a message; return False if it is not to be trusted in the order of time."""
    received_ns = operator.index(message.received_ns)
    return track.observe(operator.index(message.stamp_ns), received_ns) and received_ns <= now_ns


def _checked(observation: Observation, model: SafetyModel | None) -> Float32Array:
    values = guards.as_numbers(observation.values)
    if values is None or values.ndim != 1:
        raise StopError(Reason.STOP_BAD_OBSERVATION)
    if model is not None and not guards.has_shape(values, (model.obs_dim,)):
        raise StopError(Reason.STOP_BAD_OBSERVATION)
    if values.dtype == np.float32:
        obs: Float32Array = values.copy()
    else:
        with np.errstate(over="ignore"):  # what float32 cannot hold becomes inf, which is refused below
            obs = values.astype(np.float32)
    if not guards.is_finite(obs):
        raise StopError(Reason.STOP_BAD_OBSERVATION)
    obs.flags.writeable = False
    return obs
