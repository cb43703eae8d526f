"""Reward, cost, margin and true ends of the steps of a bag, from the sources that its contract names."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from operator import attrgetter
from typing import Any

import numpy as np

from safe_rl_ros.bags.alignment import Signal, extreme_of
from safe_rl_ros.bags.bag_topics import BagContract
from safe_rl_ros.bags.contract import BOOL, HazardMargin, LevelTopic, ScalarTopic, ScanMargin, TopicMargin, TwinMargin
from safe_rl_ros.data.episodes import margin_from_cost
from safe_rl_ros.envs.robot_spec import RobotSpec
from safe_rl_ros.envs.tasks.hazard_nav import HazardNav, Layout, TaskState
from safe_rl_ros.messages.errors import MessageError
from safe_rl_ros.messages.state_assembler import NO_JOINTS, NO_SCAN, OdometryPart, ScanPart, sensor_timeouts
from safe_rl_ros.types import FloatArray, RobotState

VIOLATION = 0.5
"""A cost from which a step counts as violated."""
FAR = np.array([[0.0, 0.0, 0.0]])
"""Stands in for hazards where only the reward is asked for."""


@dataclass(frozen=True)
class StepLabels:
    """What one step was worth; ``margin`` is made consistent with ``cost``. ``corrected``: the sources disagreed."""

    reward: float
    cost: float
    margin: float
    terminated: bool
    corrected: bool


@dataclass(frozen=True)
class Instant:
    """The robot at a tick: its state, and the goal (2,) m that is in force."""

    state: RobotState
    goal: FloatArray | None


class Labels:
    """Takes label messages, odometry and scans as they come, and says at each tick what the step before was worth."""

    def __init__(self, contract: BagContract, present: frozenset[str]) -> None:
        """Set up the sources; ``present`` are the full names of the topics that the bag has."""
        config, self._nav = contract.config, contract.nav
        self._violation, self._violated_margin = config.terminate.violation, config.violated_margin
        self._topics: dict[str, list[Callable[[int, Any], None]]] = {}
        self._odometry: list[Callable[[int, OdometryPart], None]] = []
        self._scans: list[Callable[[int, ScanPart], None]] = []
        self._layout: Layout | None = None
        self._reward = 0.0
        self._ended_by_filter = False

        def has(source: ScalarTopic) -> bool:
            return contract.full_name(source.topic) in present

        self._signed = bool(config.margin)
        self._margins = [
            self._margin_signal(contract, source)
            for source in config.margin
            if not isinstance(source, TopicMargin) or has(source)
        ]
        self._costs = [self._level(contract, source, max) for source in config.cost if has(source)]
        self._ends = [
            (self._level(contract, source, max), source.above) for source in config.terminate.topics if has(source)
        ]
        for source in config.reward.topics:
            if has(source):
                self._subscribe(contract, source, self._add_reward)
        self._task_reward = config.reward.task

    @property
    def nothing_to_say(self) -> bool:
        """True if no source of safety is in this bag: all were optional."""
        return not self._margins and not self._costs

    @property
    def every_odometry(self) -> bool:
        """True if each odometry message must be decoded."""
        return bool(self._odometry)

    @property
    def every_scan(self) -> bool:
        """True if each scan must be decoded."""
        return bool(self._scans)

    def on_odometry(self, time_ns: int, part: OdometryPart) -> None:
        """Take odometry."""
        for listener in self._odometry:
            listener(time_ns, part)

    def on_scan(self, time_ns: int, part: ScanPart) -> None:
        """Take a scan."""
        for listener in self._scans:
            listener(time_ns, part)

    def on_message(self, topic: str, time_ns: int, message: Any) -> None:
        """Take a message of a label topic, by its full name. Raises :class:`MessageError` if its number is not one."""
        for listener in self._topics[topic]:
            listener(time_ns, message)

    def on_twin(self, message: Any) -> None:
        """Take the twin's word for which arena it shows. Raises :class:`MessageError` if it is none."""
        try:
            seed = json.loads(message.data)["seed"]
        except (ValueError, KeyError, TypeError) as error:
            raise MessageError(f"the twin's episode is no JSON with a seed: {message.data[:200]!r}") from error
        if not isinstance(seed, int) or isinstance(seed, bool) or seed < 0 or self._nav is None:
            raise MessageError(f"the twin's seed is {seed!r}, expected a whole number of at least 0")
        self._layout = self._nav.layout(seed)

    def on_filter_end(self) -> None:
        """Take a decision whose reason ends the episode."""
        self._ended_by_filter = True

    def clear(self) -> None:
        """Forget all samples: the time they belong to is over."""
        for signal in (*self._margins, *self._costs, *(end for end, _ in self._ends)):
            signal.clear()
        self._layout = None
        self.begin(0)

    def begin(self, now_ns: int) -> None:
        """Drop what was gathered: a step begins at ``now_ns``."""
        for signal in (*self._margins, *self._costs, *(end for end, _ in self._ends)):
            signal.take(now_ns)
        self._reward, self._ended_by_filter = 0.0, False

    def clear_to_begin(self, now_ns: int) -> bool:
        """Return True if nothing that ends an episode is so now, and everything that must be known is."""
        ends = [(end.known(now_ns), above) for end, above in self._ends]
        if self._ended_by_filter or any(value is None or value > above for value, above in ends):
            return False
        margins, costs = ([signal.known(now_ns) for signal in group] for group in (self._margins, self._costs))
        if any(value is None for value in (*margins, *costs)):
            return False
        violated = any(not value > 0.0 for value in margins if value is not None)
        violated |= any(value >= VIOLATION for value in costs if value is not None)
        return not (violated and self._violation)

    def step(self, now_ns: int, before: Instant, after: Instant) -> StepLabels | None:
        """Return what the step that ends now was worth, None if a source is silent; the next step begins."""
        margin = extreme_of([signal.take(now_ns) for signal in self._margins], min)
        cost = extreme_of([signal.take(now_ns) for signal in self._costs], max)
        ends = [(end.take(now_ns), above) for end, above in self._ends]
        reward, self._reward = self._reward, 0.0
        by_filter, self._ended_by_filter = self._ended_by_filter, False
        if (self._margins and margin is None) or (self._costs and cost is None) or any(v is None for v, _ in ends):
            return None
        reward += self._own_reward(before, after)
        cost, margin, corrected = self._consistent(max(0.0, cost or 0.0), margin)
        terminated = by_filter or any(value is not None and value > above for value, above in ends)
        terminated |= self._violation and cost >= VIOLATION
        return StepLabels(reward, cost, margin, terminated, corrected)

    def _consistent(self, cost: float, margin: float | None) -> tuple[float, float, bool]:
        """Return cost and margin that agree on what is a violation, and whether they had not."""
        if margin is None:
            if self._signed:  # the sources of the margin are optional and not in this bag
                return cost, self._violated_margin if cost >= VIOLATION else -self._violated_margin, False
            return cost, float(margin_from_cost(np.array([cost], dtype=np.float32))[0]), False
        if not margin > 0.0:
            return max(cost, 1.0), margin, False
        if cost >= VIOLATION:
            return cost, self._violated_margin, True
        return cost, margin, False

    def _own_reward(self, before: Instant, after: Instant) -> float:
        """Return the task's reward, by the task's own code."""
        if not self._task_reward or self._nav is None or before.goal is None:
            return 0.0
        layout = Layout(hazards=FAR, goals=before.goal[None], start=np.zeros(3))
        return self._nav.evaluate(before.state, after.state, layout, TaskState()).reward

    def _add_reward(self, time_ns: int, value: float) -> None:
        self._reward += value

    def _level(self, contract: BagContract, source: LevelTopic, pick: Callable[[float, float], float]) -> Signal:
        timeout_ns = None if source.timeout_s is None else round(source.timeout_s * 1e9)
        signal = Signal(pick, held=source.type == BOOL, initial=source.initial, timeout_ns=timeout_ns)
        self._subscribe(contract, source, signal.add)
        return signal

    def _subscribe(self, contract: BagContract, source: ScalarTopic, add: Callable[[int, float], None]) -> None:
        get = attrgetter(source.field)

        def on_message(time_ns: int, message: Any) -> None:
            value = source.scale * float(get(message)) + source.offset
            if not math.isfinite(value):
                raise MessageError(f"{source.topic}: {source.field} is {value}, expected a finite number")
            add(time_ns, value)

        self._topics.setdefault(contract.full_name(source.topic), []).append(on_message)

    def _margin_signal(
        self, contract: BagContract, source: ScanMargin | HazardMargin | TwinMargin | TopicMargin
    ) -> Signal:
        if isinstance(source, TopicMargin):
            return self._level(contract, source, min)
        timeouts = sensor_timeouts(contract.spec)
        if isinstance(source, ScanMargin):
            signal = Signal(min, timeout_ns=round(timeouts["scan"] * 1e9))
            self._scans.append(_scan_listener(contract.spec, source, signal))
            return signal
        signal = Signal(min, timeout_ns=round(timeouts["odom"] * 1e9))
        fixed = None
        if isinstance(source, HazardMargin):
            fixed = Layout(hazards=np.array(source.hazards), goals=np.zeros((1, 2)), start=np.zeros(3))
        self._odometry.append(self._odometry_listener(signal, fixed))
        return signal

    def _odometry_listener(self, signal: Signal, fixed: Layout | None) -> Callable[[int, OdometryPart], None]:
        nav = self._nav
        assert nav is not None, "the contract has been checked"

        def on_odometry(time_ns: int, part: OdometryPart) -> None:
            layout = fixed or self._layout
            margin = math.nan if layout is None else _margin(nav, part, layout)
            if math.isfinite(margin):  # a pose that is not finite leaves the observation unusable, too
                signal.add(time_ns, margin)

        return on_odometry


def _margin(nav: HazardNav, part: OdometryPart, layout: Layout) -> float:
    """Return the task's margin (m) at a pose."""
    state = RobotState(
        stamp_ns=0,
        position=part.position,
        orientation=part.orientation,
        linear_velocity=part.linear_velocity,
        angular_velocity=part.angular_velocity,
        joint_position=NO_JOINTS.position,
        joint_velocity=NO_JOINTS.velocity,
        ranges=NO_SCAN.ranges,
    )
    return nav.margin(state, layout)


def _scan_listener(spec: RobotSpec, source: ScanMargin, signal: Signal) -> Callable[[int, ScanPart], None]:
    extent = spec.base_radius_m if source.subtract_m is None else source.subtract_m

    def on_scan(time_ns: int, part: ScanPart) -> None:
        nearest = float(part.ranges.min())
        if math.isfinite(nearest):  # as is a ray
            signal.add(time_ns, nearest - extent)

    return on_scan
