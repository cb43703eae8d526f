"""A bundle's policy as a function of state and goal that answers with commands or says why not. No ROS, no torch."""

from __future__ import annotations

import time

import numpy as np

from safe_rl_ros.bundle import Bundle
from safe_rl_ros.envs.observation import CommandMap, StateObserver
from safe_rl_ros.policies import propose
from safe_rl_ros.types import BundleError, Float32Array, FloatArray, RobotState

WARM_UP_RUNS = 3


class WithheldError(Exception):
    """There is nothing to propose; the message says why."""


class Proposer:
    """Observes as the filter does and asks the policy; the same seed and inputs give the same proposals."""

    def __init__(
        self, bundle: Bundle, observer: StateObserver, maps: CommandMap, *, sample: bool, list_size: int, seed: int
    ) -> None:
        """Take the parts.

        Args:
            bundle: verified, for this observer's observations.
            observer: makes observations.
            maps: actions to commands.
            sample: draw from the policy; else its action without chance.
            list_size: rows K of an answer; 0 or 1: the proposal alone.
            seed: of what is drawn.
        """
        self._policy, self._observer, self._maps = bundle.policy, observer, maps
        self._sample, self._more = sample, max(list_size, 1) - 1
        self._random = np.random.default_rng(seed)

    def propose(self, state: RobotState, goal: FloatArray | None) -> FloatArray:
        """Return commands (K, C) within the robot's limits, the proposal in row 0, then further samples of the policy.

        Raises:
            WithheldError: state or goal is not finite or misshapen, or the policy raised or did not answer finite
                numbers.
        """
        if self._observer.needs_goal and goal is None:
            raise WithheldError("there is no goal")
        try:
            obs = self._observer.observe(state, goal)
        except ValueError as error:
            raise WithheldError(f"no observation: {error}") from error
        unknown = [name for name, value in zip(self._observer.names, obs, strict=True) if not np.isfinite(value)]
        if unknown:
            raise WithheldError(f"the observation is not finite: {', '.join(unknown)}")
        try:
            actions = self._actions(obs)
        except Exception as error:  # whatever a policy raises, nothing is proposed
            raise WithheldError(f"the policy failed: {type(error).__name__}: {error}") from error
        if not np.isfinite(actions).all():
            raise WithheldError("the policy's answer is not finite")
        return self._maps.to_command(np.clip(actions, -1.0, 1.0))

    def _actions(self, obs: Float32Array) -> Float32Array:
        """Return actions (K, C) at ``obs`` (O,), neither clipped nor checked."""
        if self._sample and self._more:
            return np.asarray(self._policy.sample(obs, 1 + self._more, self._random))
        first = propose(self._policy, obs, self._random if self._sample else None).action[None]
        if not self._more:
            return first
        return np.concatenate([first, self._policy.sample(obs, self._more, self._random)])

    def warm_up(self, limit_s: float | None) -> float:
        """Run the policy in the size that proposals need and return the best time (s) of several.

        Raises:
            BundleError: it fails, or takes longer than ``limit_s``.
        """
        zero = np.zeros(self._observer.obs_dim, dtype=np.float32)
        before, best_s = self._random.bit_generator.state, float("inf")
        for _ in range(WARM_UP_RUNS):
            begin = time.perf_counter()
            try:
                self._actions(zero)
            except Exception as error:
                raise BundleError(f"the policy failed: {type(error).__name__}: {error}") from error
            best_s = min(best_s, time.perf_counter() - begin)
        self._random.bit_generator.state = before
        if limit_s is not None and best_s > limit_s:
            raise BundleError(
                f"the policy takes {best_s * 1e3:.3g} ms for a proposal, expected at most the control period of "
                f"{limit_s * 1e3:g} ms"
            )
        return best_s
