"""Delays and noise of one episode of a twin, counted in physics substeps from its start: no simulator, no clock."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import replace

import numpy as np
from transforms3d.quaternions import qmult

from safe_rl_ros.envs.robot_parts import ScanSpec
from safe_rl_ros.envs.twin_parameters import TwinParameters
from safe_rl_ros.types import FloatArray, RobotState

STREAM = 0x1A7E
"""Keeps these draws apart from everything else that is drawn from an episode's seed."""
COMMANDS, STATES, NOISE = range(3)


def generator(seed: int, purpose: int) -> np.random.Generator:
    """Return the generator of one purpose in the episode with this seed."""
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence(seed, spawn_key=(STREAM, purpose))))


class Delay:
    """A delay of so many substeps, with jitter drawn anew for every item."""

    def __init__(self, delay_s: float, jitter_s: float, substep_s: float, rng: np.random.Generator) -> None:
        """Take delay and jitter in s and the length of a substep."""
        self._delay_s, self._jitter_s, self._substep_s, self._rng = delay_s, jitter_s, substep_s, rng
        self.most = round((delay_s + jitter_s) / substep_s)
        """No item takes longer, substeps."""

    def next(self) -> int:
        """Return the delay of the next item, substeps."""
        jitter_s = self._jitter_s * self._rng.random() if self._jitter_s > 0.0 else 0.0
        return round((self._delay_s + jitter_s) / self._substep_s)


class CommandLine:
    """Commands on their way to the base controller; each arrives after its delay and after the one before it."""

    def __init__(self, delay: Delay) -> None:
        """Start empty."""
        self._delay = delay
        self._waiting: deque[tuple[int, FloatArray]] = deque()
        self._last = 0

    def send(self, now: int, command: FloatArray) -> None:
        """Take a command that is given at substep ``now``."""
        self._last = max(self._last, now + self._delay.next())
        self._waiting.append((self._last, command))

    def arrived(self, now: int) -> FloatArray | None:
        """Return the newest command that has arrived since the last call, None if none has."""
        newest = None
        while self._waiting and self._waiting[0][0] <= now:
            newest = self._waiting.popleft()[1]
        return newest

    def next_arrival(self, end: int) -> int:
        """Return the substep in which the next command arrives, at most ``end``."""
        return min(self._waiting[0][0], end) if self._waiting else end

    def clear(self) -> None:
        """Lose what is on its way."""
        self._waiting.clear()


class StateLine:
    """Which moments are shown at the ends of control periods, known before they come, and what was true in them."""

    def __init__(self, delay: Delay, substeps: int, first: RobotState) -> None:
        """Start an episode whose first state, at substep 0, is shown from before its start on."""
        self._delay, self._substeps = delay, substeps
        self._planned = 0
        self._shown: deque[int] = deque()
        self._wanted: deque[int] = deque()
        self._kept: dict[int, RobotState] = {0: first}
        self._plan(0)

    def _plan(self, periods: int) -> None:
        """Draw what is shown at every end of a period that may show something of the period to come."""
        while self._planned * self._substeps <= periods * self._substeps + self._delay.most + self._substeps:
            self._planned += 1
            earliest = self._shown[-1] if self._shown else 0
            moment = max(earliest, self._planned * self._substeps - self._delay.next(), 0)
            if moment > (self._wanted[-1] if self._wanted else max(self._kept)):
                self._wanted.append(moment)
            self._shown.append(moment)

    def next_moment(self, end: int) -> int:
        """Return the next substep whose state is wanted, at most ``end``."""
        return min(self._wanted[0], end) if self._wanted else end

    def wants(self, now: int) -> bool:
        """Return True if the state of this substep will be shown."""
        return bool(self._wanted) and self._wanted[0] == now

    def keep(self, now: int, state: RobotState) -> None:
        """Take the state of a substep that is wanted."""
        self._wanted.popleft()
        self._kept[now] = state

    def show(self, periods: int) -> RobotState:
        """Return what is seen at the end of this period, the first one being 1; call it once for each."""
        moment = self._shown.popleft()
        state = self._kept[moment]
        for old in [kept for kept in self._kept if kept < moment]:
            del self._kept[old]
        self._plan(periods)
        return state


class Transport:
    """What is between a controller and a twin in one episode: commands on their way, and states shown later."""

    def __init__(self, its: TwinParameters, substeps: int, substep_s: float, seed: int, first: RobotState) -> None:
        """Start an episode.

        Args:
            its: the episode's parameters.
            substeps: physics substeps in a control period.
            substep_s: their length, s.
            seed: the episode's.
            first: its first state.
        """
        commands = Delay(its.actuation_delay_s, its.actuation_jitter_s, substep_s, generator(seed, COMMANDS))
        states = Delay(its.observation_delay_s, its.observation_jitter_s, substep_s, generator(seed, STATES))
        self._commands, self._states = CommandLine(commands), StateLine(states, substeps, first)
        self._substeps, self._periods = substeps, 0

    def carry(
        self,
        command: FloatArray,
        hear: Callable[[FloatArray], None],
        advance: Callable[[int], None],
        measure: Callable[[], RobotState],
    ) -> RobotState:
        """Let a control period pass that begins with a command (C,); return what is shown at its end.

        Args:
            command: not changed by the caller afterwards.
            hear: hands over a command that has arrived.
            advance: lets so many substeps pass.
            measure: returns the state of this moment.
        """
        now = self._periods * self._substeps
        end = now + self._substeps
        self._commands.send(now, command)
        while True:
            if (arrived := self._commands.arrived(now)) is not None:
                hear(arrived)
            if self._states.wants(now):
                self._states.keep(now, measure())
            if now == end:
                break
            until = min(self._commands.next_arrival(end), self._states.next_moment(end))
            advance(until - now)
            now = until
        self._periods += 1
        return self._states.show(self._periods)

    def lose_commands(self) -> None:
        """Lose the commands that are on their way."""
        self._commands.clear()


class SensorNoise:
    """White Gaussian noise on what a state shows; every state takes the same number of draws."""

    def __init__(self, parameters: TwinParameters, scan: ScanSpec, rng: np.random.Generator) -> None:
        """Take the standard deviations."""
        self._parameters, self._scan, self._rng = parameters, scan, rng

    def on(self, state: RobotState) -> RobotState:
        """Return the state as measured; the same object if nothing has noise."""
        its = self._parameters
        if not its.noisy:
            return state
        draws = self._rng.standard_normal(5 + self._scan.rays)
        half_turn = 0.5 * its.heading_std_rad * draws[4]
        turned = qmult([np.cos(half_turn), 0.0, 0.0, np.sin(half_turn)], np.roll(state.orientation, 1))
        forward, yaw_rate = its.linear_velocity_std * draws[0], its.angular_velocity_std * draws[1]
        ranges = state.ranges
        if its.scan_std_m > 0.0:
            noisy = np.clip(ranges + its.scan_std_m * draws[5:], self._scan.range_min, self._scan.range_max)
            ranges = np.where(ranges < self._scan.range_max, noisy, ranges).astype(np.float32)
        return replace(
            state,
            position=state.position + its.position_std_m * np.array([draws[2], draws[3], 0.0]),
            orientation=np.roll(turned, -1),
            linear_velocity=state.linear_velocity + np.array([forward, 0.0, 0.0]),
            angular_velocity=state.angular_velocity + np.array([0.0, 0.0, yaw_rate]),
            ranges=ranges,
        )
