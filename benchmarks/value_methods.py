"""What ``filter_value`` compares: ways to keep an unsafe policy's commands from failing, all with one call signature.

A method gets the robot's state, the observation, the proposed command and what limits and rates allow now, and
returns the command to send. The baselines are told more than the learned filter is: the geometric stop the footprint
and what the scan means, the barrier the hazards, the pose and the dynamics, all exactly.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import qpsolvers

from safe_rl_ros.bundle import Bundle
from safe_rl_ros.envs.observation import CommandMap
from safe_rl_ros.envs.robot_spec import RobotSpec
from safe_rl_ros.envs.rotations import yaw_of
from safe_rl_ros.envs.tasks.hazard_nav import Layout
from safe_rl_ros.safety.action_filter import ActionFilter, Observation, Proposal
from safe_rl_ros.safety.contracts import FilterConfig
from safe_rl_ros.training.session import make_action_filter
from safe_rl_ros.types import Float32Array, FloatArray, RobotState


@dataclass(frozen=True)
class Situation:
    """What a method decides on: ``proposed`` (C,) command, ``low`` and ``high`` (C,) what limits and rates allow now.

    ``previous`` (C,) is the command of the step before, at which the base has arrived.
    """

    state: RobotState
    obs: Float32Array
    proposed: FloatArray
    previous: FloatArray
    low: FloatArray
    high: FloatArray

    @property
    def shaped(self) -> FloatArray:
        """The proposal after limits and rates, (C,)."""
        return np.clip(self.proposed, self.low, self.high)


class Method(Protocol):
    """One way to choose the command."""

    def reset(self, layout: Layout) -> None:
        """Start an episode."""
        ...

    def command(self, now: Situation) -> FloatArray:
        """Return the command (C,) to send."""
        ...


class Guards:
    """Limits and rates alone: the policy as it is."""

    def reset(self, layout: Layout) -> None:
        """Nothing to forget."""

    def command(self, now: Situation) -> FloatArray:
        """Return the shaped proposal."""
        return now.shaped


class LearnedFilter:
    """The package's filter with a bundle; ``candidates`` makes the topic's list, for candidate mode ``topic``."""

    def __init__(
        self,
        spec: RobotSpec,
        bundle: Bundle,
        config: FilterConfig,
        candidates: Callable[[Situation], FloatArray] | None = None,
    ) -> None:
        """Take the parts; every episode gets a new filter."""
        self._spec, self._bundle, self._config, self._candidates = spec, bundle, config, candidates
        self._filter: ActionFilter
        self.reasons: dict[str, int] = {}

    def reset(self, layout: Layout) -> None:
        """Start with a new filter."""
        self._filter = make_action_filter(self._spec, self._config)
        self._filter.set_model(self._bundle)
        self._filter.activate()

    def command(self, now: Situation) -> FloatArray:
        """Return the filter's command."""
        stamp = now.state.stamp_ns
        listed: dict[str, Any] = {} if self._candidates is None else {"candidates": self._candidates(now)}
        decision = self._filter.decide(
            stamp, Proposal(now.proposed, stamp, stamp, **listed), Observation(now.obs, stamp, stamp)
        )
        self.reasons[decision.reason.name] = self.reasons.get(decision.reason.name, 0) + 1
        return decision.executed


class RankedGrid:
    """A policy that ranks a grid of commands by its own likelihood, the proposal first: what a topic would carry."""

    def __init__(self, spec: RobotSpec, bundle: Bundle, per_axis: int = 8) -> None:
        """Lay the grid over the actions."""
        axes = np.meshgrid(*[np.linspace(-1.0, 1.0, per_axis)] * spec.act_dim, indexing="ij")
        self._actions: FloatArray = np.stack([axis.ravel() for axis in axes], axis=1)
        self._commands = CommandMap(spec).to_command(self._actions)
        self._bundle = bundle

    def __call__(self, now: Situation) -> FloatArray:
        """Return the candidates (1 + K, C), most likely first."""
        mean, std = self._bundle.policy.distribution(now.obs)
        order = np.argsort((((self._actions - mean) / std) ** 2).sum(axis=1), kind="stable")
        return np.vstack([now.proposed, self._commands[order]])


@dataclass(frozen=True)
class GeometricStopConfig:
    """Tuning of the geometric stop."""

    horizon_s: float = 0.5
    """A command is refused if the footprint would touch a scan point within this time (s)."""
    margin_m: float = 0.02
    """Distance (m) added to the footprint's radius."""
    step_s: float = 0.05
    """Time (s) between two looks ahead."""


class GeometricStop:
    """Stops if the commanded arc leads the footprint into a scan point, as a collision monitor does."""

    def __init__(self, spec: RobotSpec, config: GeometricStopConfig | None = None) -> None:
        """Prepare the ray geometry."""
        self._config = config or GeometricStopConfig()
        self._spec = spec
        scan = spec.sensors.scan
        mount = spec.description.fixed_transform(scan.frame)
        angles = scan.angles + math.atan2(mount[1, 0], mount[0, 0])
        self._directions = np.column_stack([np.cos(angles), np.sin(angles)])
        self._offset: FloatArray = mount[:2, 3]
        self._reach = spec.base_radius_m + self._config.margin_m
        count = round(self._config.horizon_s / self._config.step_s)
        self._times = self._config.step_s * np.arange(1, count + 1)
        self._axes = (spec.axis_index["linear_x"], spec.axis_index["angular_z"])

    def reset(self, layout: Layout) -> None:
        """Nothing to forget."""

    def command(self, now: Situation) -> FloatArray:
        """Return the shaped proposal, or the way to a stop."""
        shaped = now.shaped
        linear, angular = (float(shaped[i]) for i in self._axes)
        hit = now.state.ranges < self._spec.sensors.scan.range_max
        if linear == 0.0 or not hit.any():
            return shaped
        points = self._offset + now.state.ranges[hit, None] * self._directions[hit]
        angle = angular * self._times
        # Arc of a unicycle in the base frame; sinc keeps the straight line.
        chord = linear * self._times * np.sinc(angle / (2.0 * math.pi))
        path = np.column_stack([chord * np.cos(angle / 2.0), chord * np.sin(angle / 2.0)])
        distance = np.linalg.norm(path[:, None] - points[None], axis=2).min(axis=1)
        here = float(np.linalg.norm(points, axis=1).min())
        # Whoever is too near already may still move away.
        if bool((distance < np.minimum(self._reach, here)).any()):
            return np.clip(self._spec.command_stop, now.low, now.high)
        return shaped


@dataclass(frozen=True)
class BarrierConfig:
    """Tuning of the barrier."""

    decay: float = 0.3
    """k: the largest share of the clearance that one step may use up."""
    margin_m: float = 0.04
    """Distance (m) added to hazards for what the model leaves out."""
    iterations: int = 3
    """Linearisations of one decision."""
    slack_cost: float = 1.0e8
    """Cost of a violated constraint (per m squared): a mm weighs 100 times a change of half the range."""


class BarrierQP:
    """Discrete control barrier function: min |u - u_nom|^2 s.t. h(x+) >= (1 - k) h(x), by quadratic programs.

    h is the clearance to each hazard of the robot's centre, and of the place where it would come to rest if it braked
    now. x+ is a unicycle's whose speeds ramp to the command as the base's do; the constraint is linearised in u.
    """

    def __init__(self, spec: RobotSpec, config: BarrierConfig | None = None) -> None:
        """Take the robot's dynamics from its spec."""
        self._config = config or BarrierConfig()
        self._axes = [spec.axis_index["linear_x"], spec.axis_index["angular_z"]]
        self._rate = spec.command_rate[self._axes]
        self._half = ((spec.command_upper - spec.command_lower) / 2.0)[self._axes]
        self._dt = spec.period_ns * 1e-9
        self._radius = spec.base_radius_m + self._config.margin_m
        self._hazards: FloatArray = np.zeros((0, 3))
        self.failed = 0

    def reset(self, layout: Layout) -> None:
        """Take the hazards of the episode."""
        self._hazards = layout.hazards

    def command(self, now: Situation) -> FloatArray:
        """Return the command nearest to the shaped proposal that keeps the constraint, as far as there is one."""
        nominal, low, high = now.shaped[self._axes], now.low[self._axes], now.high[self._axes]
        x, y = now.state.position[:2]
        pose = np.array([x, y, yaw_of(now.state.orientation)])
        speed = now.previous[self._axes]
        bound = (1.0 - self._config.decay) * self._clearance(pose, float(speed[0]))
        command = nominal
        if (self._after(pose, speed, nominal) < bound).any():
            for _ in range(self._config.iterations):
                command = self._solve(pose, speed, nominal, command, bound, low, high)
        sent = now.shaped.copy()
        sent[self._axes] = command
        return np.clip(sent, now.low, now.high)

    def _clearance(self, pose: FloatArray, linear: float) -> FloatArray:
        """Return h (2 H,): clearance of the centre and of the place of rest after braking."""
        reach = linear * abs(linear) / (2.0 * self._rate[0])
        rest = pose[:2] + reach * np.array([math.cos(pose[2]), math.sin(pose[2])])
        gaps = [np.hypot(*(self._hazards[:, :2] - point).T) for point in (pose[:2], rest)]
        return np.concatenate(gaps) - np.tile(self._hazards[:, 2] + self._radius, 2)

    def _after(self, pose: FloatArray, speed: FloatArray, command: FloatArray) -> FloatArray:
        """Return h (2 H,) after one step with ``command`` (2,) from ``speed`` (2,)."""
        change = command - speed
        # Distance and angle covered while the speeds ramp to the command and stay there.
        way, turn = command * self._dt - change * np.abs(change) / (2.0 * self._rate)
        middle = pose[2] + turn / 2.0
        after = np.array([pose[0] + way * math.cos(middle), pose[1] + way * math.sin(middle), pose[2] + turn])
        return self._clearance(after, float(command[0]))

    def _solve(
        self,
        pose: FloatArray,
        speed: FloatArray,
        nominal: FloatArray,
        around: FloatArray,
        bound: FloatArray,
        low: FloatArray,
        high: FloatArray,
    ) -> FloatArray:
        """Return the QP's command (2,) with h(x+) linearised at ``around``; variables in half ranges, and a slack."""
        step, value = 1e-4, self._after(pose, speed, around)
        slopes = [(self._after(pose, speed, around + step * unit) - value) / step for unit in np.eye(2)]
        gradient = np.stack(slopes, axis=1)
        offset = value - gradient @ around
        matrix = np.hstack([-gradient * self._half, -np.ones((len(bound), 1))])
        solution = qpsolvers.solve_qp(
            np.diag([1.0, 1.0, self._config.slack_cost]),
            np.array([*(-nominal / self._half), 0.0]),
            matrix,
            offset - bound,
            lb=np.array([*(low / self._half), 0.0]),
            ub=np.array([*(high / self._half), 1e6]),
            solver="quadprog",
        )
        if solution is None:
            self.failed += 1  # badly conditioned: brake
            return np.clip(np.zeros(2), low, high)
        return np.asarray(solution[:2] * self._half)
