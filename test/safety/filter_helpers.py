"""A robot with two axes and a model whose risk is whatever a test wants."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from safe_rl_ros.safety.action_filter import ActionFilter, CommandLimits, FilterConfig, Observation, Proposal

PERIOD_NS = 100_000_000
# Powers of two, so that going to actions and back is exact and expected numbers can be written down.
LOWER, UPPER = np.array([-1.0, -2.0]), np.array([1.0, 2.0])
RATE = np.array([5.0, 40.0])  # per period: 0.5 and 4: the first axis is slow, the second unlimited in practice
STOP = np.zeros(2)
OBS = np.array([0.5, -0.25, 1.0], dtype=np.float32)


def to_action(command: Any) -> Any:
    return np.asarray(command) / UPPER


def to_command(action: Any) -> Any:
    return np.asarray(action, dtype=np.float64) * UPPER


def limits(**changes: Any) -> CommandLimits:
    values = {"lower": LOWER, "upper": UPPER, "rate": RATE, "stop": STOP, "period_s": 0.1}
    return CommandLimits.from_axes(**(values | changes))


class StubModel:
    """Risk is a function of actions (K, C); samples are given rows, or drawn from the generator."""

    hash = "stub"
    obs_dim = 3
    act_dim = 2

    def __init__(
        self,
        risk: Callable[[Any], Any] = lambda actions: np.zeros(len(actions)),
        samples: Any = None,
        threshold: Any = 0.25,
    ) -> None:
        self._risk, self._samples, self.threshold = risk, samples, threshold
        self.risk_calls: list[Any] = []

    def risk(self, obs: Any, actions: Any) -> Any:
        self.risk_calls.append(actions.copy())
        return self._risk(actions)

    def sample(self, obs: Any, n: int, rng: np.random.Generator) -> Any:
        if self._samples is None:
            return rng.uniform(-1, 1, (n, 2)).astype(np.float32)
        return self._samples() if callable(self._samples) else np.asarray(self._samples, dtype=np.float32)


def first_axis(actions: Any) -> Any:
    """Risk = |first action|: going fast is dangerous."""
    return np.abs(actions[:, 0].astype(np.float64))


def build(
    model: Any = "default", *, clock: Any = None, robot: CommandLimits | None = None, start: Any = None, **config: Any
) -> ActionFilter:
    """Return an armed filter with a model that calls everything safe, unless told otherwise."""
    more = {} if clock is None else {"clock": clock}
    action_filter = ActionFilter(robot or limits(), FilterConfig(**config), to_action, to_command, **more)
    action_filter.set_model(StubModel() if model == "default" else model)
    action_filter.activate(start)
    return action_filter


def constant(value: float) -> Callable[[Any], Any]:
    """Risk is the same everywhere."""
    return lambda actions: np.full(len(actions), value)


def by_call(*answers: Any) -> Callable[[Any], Any]:
    """Risk function that gives one prepared answer per call."""
    left = iter(answers)
    return lambda actions: np.asarray(next(left), dtype=np.float64)


def clock_of(*readings: float) -> Callable[[], float]:
    """Return a clock with these readings in s, the last repeated."""
    left = list(readings)
    return lambda: left.pop(0) if len(left) > 1 else left[0]


class Switch:
    """A risk function and a clock that a test turns from good to bad and back."""

    def __init__(self) -> None:
        self.risk, self.late = 0.0, False
        self._now = 0.0

    def __call__(self, actions: Any) -> Any:
        if self.late:
            self._now += 10.0
        return np.full(len(actions), self.risk)

    def clock(self) -> float:
        return self._now


def proposal(values: Any, tick: int = 0, *, received: int | None = None, candidates: Any = None) -> Proposal:
    """Return a proposal of the tick: stamps count in periods from 1 s."""
    stamp = at(tick)
    return Proposal(np.asarray(values, dtype=np.float64), stamp, stamp if received is None else received, candidates)


def observation(values: Any = OBS, tick: int = 0, *, received: int | None = None) -> Observation:
    stamp = at(tick)
    return Observation(values, stamp, stamp if received is None else received)


def at(tick: float) -> int:
    return 1_000_000_000 + round(tick * PERIOD_NS)


def step(action_filter: ActionFilter, values: Any, tick: int = 0, obs: Any = OBS, candidates: Any = None) -> Any:
    """Decide at ``tick`` on a proposal and observation of the same tick."""
    return action_filter.decide(at(tick), proposal(values, tick, candidates=candidates), observation(obs, tick))
