"""The safety filter inside a Gymnasium environment: the same decisions as the filter node in lock-step."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol, cast

import gymnasium

from safe_rl_ros.safety.action_filter import ActionFilter
from safe_rl_ros.safety.contracts import (
    ArrayMap,
    CommandLimits,
    FilterConfig,
    Observation,
    Proposal,
    SafetyModel,
)
from safe_rl_ros.types import ConfigError, FilterDecision, Float32Array, FloatArray, Reason, RobotState

FilterHook = Callable[[RobotState, Float32Array, FloatArray], FilterDecision]
"""What an environment calls between command and robot: (state, obs (O,), command (C,)) to a decision."""


class FilteredEnv(Protocol):
    """An environment that passes every command through a hook, if one is set."""

    command_filter: FilterHook | None

    @property
    def measured_command(self) -> FloatArray | None:
        """Return where commanded positions go on from (C,) after a reset; None if commands are no positions."""
        ...


class SafetyFilterWrapper(gymnasium.Wrapper[Any, Any, Any, Any]):
    """Puts an :class:`ActionFilter` between the commands of a robot environment and its robot.

    The filter's time is the state's stamp, as it is in lock-step over ROS, so decisions are the same there. ``info``
    gains ``vetoes`` (proposals replaced so far in this episode, stops included) and ``shadow_vetoes`` (proposals
    that only shadow mode let through). Closing the environment leaves the filter in place.
    """

    def __init__(self, env: gymnasium.Env[Any, Any], action_filter: ActionFilter) -> None:
        """Install the filter.

        Raises:
            ConfigError: the environment has no ``command_filter`` hook, or one is installed already.
        """
        super().__init__(env)
        inner = env.unwrapped
        if not hasattr(inner, "command_filter"):
            raise ConfigError(f"{type(inner).__name__} has no command_filter, expected a robot environment")
        target = cast(FilteredEnv, inner)
        if target.command_filter is not None:
            raise ConfigError(f"{type(inner).__name__} has a command_filter already, expected None")
        target.command_filter = self._filter_command
        self.action_filter = action_filter
        self._vetoes = 0
        self._shadow_vetoes = 0

    def set_model(self, model: SafetyModel | None) -> None:
        """Swap actor, critic and threshold between two steps. Raises BundleError for another number of axes."""
        self.action_filter.set_model(model)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Start an episode; the veto counts start at 0. A filter of positions is armed anew, where the joints are."""
        self._vetoes = self._shadow_vetoes = 0
        result = self.env.reset(seed=seed, options=options)
        if self.action_filter.limits.positions:
            self.action_filter.activate(cast(FilteredEnv, self.env.unwrapped).measured_command)
        return result

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """Step; the robot gets the filter's command."""
        obs, reward, terminated, truncated, info = self.env.step(action)
        return (
            obs,
            reward,
            terminated,
            truncated,
            {
                **info,
                "vetoes": self._vetoes,
                "shadow_vetoes": self._shadow_vetoes,
            },
        )

    def _filter_command(self, state: RobotState, obs: Float32Array, command: FloatArray) -> FilterDecision:
        stamp = state.stamp_ns
        decision = self.action_filter.decide(stamp, Proposal(command, stamp, stamp), Observation(obs, stamp, stamp))
        self._vetoes += decision.intervened
        self._shadow_vetoes += decision.reason is Reason.SHADOW_VETO
        return decision


def make_filter(
    limits: CommandLimits,
    config: FilterConfig,
    to_action: ArrayMap,
    to_command: ArrayMap,
    model: SafetyModel | None = None,
    start: FloatArray | None = None,
) -> ActionFilter:
    """Return an armed filter, with a model if one is given.

    Raises:
        ConfigError: the maps are not each other's inverse, or ``start`` is not as ``ActionFilter.activate`` needs it.
        BundleError: the model does not fit the limits.
    """
    action_filter = ActionFilter(limits, config, to_action, to_command)
    action_filter.set_model(model)
    action_filter.activate(start)
    return action_filter
