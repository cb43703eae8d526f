"""Steps on a fixed grid of control periods -> episodes: where they begin, what a step holds, and why they end."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal, Protocol

import numpy as np

from safe_rl_ros.bags.alignment import CommandTimeline
from safe_rl_ros.bags.import_report import ImportReport
from safe_rl_ros.bags.labels import Instant, Labels, StepLabels
from safe_rl_ros.data.episodes import Behaviour, Episode
from safe_rl_ros.envs.observation import CommandMap
from safe_rl_ros.envs.robot_spec import RobotSpec
from safe_rl_ros.types import FilterDecision, Float32Array, FloatArray

Cut = Literal[
    "gap",
    "no_goal",
    "no_command",
    "no_label",
    "bad_observation",
    "reset",
    "unsorted",
    "damaged",
    "bag_end",
    "time_limit",
]
"""Why an episode breaks off although nothing ended it."""
NOTHING_DUE = 1 << 63


@dataclass(frozen=True)
class Look:
    """What is seen at a tick: the instant and its observation (O,), or why there is none.

    ``fresh``: a sensor has delivered since the look before.
    """

    instant: Instant | None
    obs: Float32Array | None
    problem: Cut | None
    fresh: bool


class Looker(Protocol):
    """Gives the observation at a tick."""

    def look(self, now_ns: int) -> Look:
        """Return what a robot's policy would see at ``now_ns``, all messages up to then having been taken."""
        ...


@dataclass
class _Steps:
    """The episode that is being built."""

    begin_ns: int
    obs: list[Float32Array]
    instant: Instant
    command: list[FloatArray] = field(default_factory=list)
    labels: list[StepLabels] = field(default_factory=list)
    decision: list[FilterDecision | None] = field(default_factory=list)
    fresh: list[bool] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.labels)

    def drop_stale_end(self) -> int:
        """Drop the last steps in which no sensor said anything; return how many."""
        keep = len(self)
        while keep and not self.fresh[keep - 1]:
            keep -= 1
        dropped = len(self) - keep
        del self.command[keep:], self.labels[keep:], self.decision[keep:], self.fresh[keep:], self.obs[keep + 1 :]
        return dropped


class EpisodeBuilder:
    """Runs the ticks. The first command after everything is known begins an episode and sets its grid.

    Call :meth:`advance` with the time of each message before the message is taken, so that a tick sees all messages
    up to its own time and none after it.
    """

    def __init__(
        self,
        spec: RobotSpec,
        labels: Labels,
        looker: Looker,
        report: ImportReport,
        emit: Callable[[Episode], None],
        *,
        source: str,
        max_steps: int,
        min_steps: int,
    ) -> None:
        """Start between episodes; ``emit`` takes the finished ones, ``source`` is noted in them."""
        self._period_ns = spec.period_ns
        self._maps = CommandMap(spec)
        self._labels, self._looker, self._report, self._emit = labels, looker, report, emit
        self._source, self._max_steps, self._min_steps = source, max_steps, min_steps
        self.commands = CommandTimeline(round(spec.command.timeout_s * 1e9))
        self._decisions: deque[tuple[int, FilterDecision]] = deque()
        self._steps: _Steps | None = None
        self._tick_ns: int | None = None
        """The next tick, None between episodes."""
        self._asked_ns: int | None = None
        self.due_ns = NOTHING_DUE
        """No call of :meth:`advance` with a time up to this one would do anything."""

    def advance(self, time_ns: int) -> None:
        """Run every tick before ``time_ns``."""
        if self._asked_ns is not None and self._asked_ns < time_ns:
            asked_ns, self._asked_ns = self._asked_ns, None
            if self._steps is None:
                self._try_begin(asked_ns)
        while self._tick_ns is not None and self._tick_ns < time_ns:
            self._tick(self._tick_ns)
        self._plan()

    def command(self, time_ns: int, command: FloatArray | None) -> None:
        """Take a command (C,), None for one that cannot be read."""
        if self._steps is None:
            self.commands.clear()  # no step needs the ones before
            self._asked_ns = time_ns
            self._plan()
        self.commands.add(time_ns, command)

    def decision(self, time_ns: int, decision: FilterDecision) -> None:
        """Take a decision of the filter."""
        self._decisions.append((time_ns, decision))
        if self._steps is None:
            while len(self._decisions) > 8:
                self._decisions.popleft()

    def cut(self, cause: Cut, time_ns: int) -> None:
        """Break the episode off: what has been taken so far is all that belongs to it."""
        self._asked_ns = None
        if self._steps is not None:
            self._finish(self._steps, cause, time_ns)
        self._plan()

    def restart(self) -> None:
        """Forget commands and decisions: time begins anew."""
        self.commands.clear()
        self._decisions.clear()
        self._asked_ns = self._tick_ns = None
        self._plan()

    def _plan(self) -> None:
        self.due_ns = min(due for due in (self._asked_ns, self._tick_ns, NOTHING_DUE) if due is not None)

    def _try_begin(self, now_ns: int) -> None:
        look = self._looker.look(now_ns)
        instant, obs = look.instant, look.obs
        if instant is None or obs is None:
            self._report.not_begun[look.problem or "gap"] += 1
        elif not self.commands.commanded(now_ns):
            self._report.not_begun["no_command"] += 1
        elif not self._labels.clear_to_begin(now_ns):
            self._report.not_begun["ended_or_unknown"] += 1
            self._labels.begin(now_ns)
        else:
            self._begin(now_ns, obs, instant)

    def _begin(self, now_ns: int, obs: Float32Array, instant: Instant) -> None:
        self._labels.begin(now_ns)
        self._steps = _Steps(now_ns, [obs], instant)
        self._tick_ns = now_ns + self._period_ns
        self._report.began(now_ns)

    def _tick(self, now_ns: int) -> None:
        """Close the step that ends now."""
        steps = self._steps
        assert steps is not None, "there are no ticks between episodes"
        begin_ns = now_ns - self._period_ns
        look = self._looker.look(now_ns)
        command = self.commands.in_force(begin_ns, now_ns)
        labels = self._labels.step(now_ns, steps.instant, look.instant or steps.instant)
        if command is None or labels is None or (look.problem is not None and not labels.terminated):
            missing: Cut = "no_command" if command is None else "no_label"
            self._finish(steps, look.problem or missing, begin_ns)
            return
        steps.command.append(command[1])
        steps.labels.append(labels)
        steps.decision.append(self._decided(command[0]))
        steps.fresh.append(look.fresh)
        # After a true end nobody looks at the next observation: the last one that is known stands in for it.
        steps.obs.append(steps.obs[-1] if look.obs is None else look.obs)
        steps.instant = look.instant or steps.instant
        self._tick_ns = now_ns + self._period_ns
        if labels.terminated:
            self._finish(steps, None, now_ns)
        elif len(steps) >= self._max_steps and look.instant is not None and look.obs is not None:
            self._finish(steps, "time_limit", now_ns)
            self._begin(now_ns, look.obs, look.instant)

    def _decided(self, command_ns: int) -> FilterDecision | None:
        """Return the decision that belongs to the command of this time: the nearest within half a period."""
        decisions, half_ns = self._decisions, self._period_ns // 2
        while decisions and decisions[0][0] < command_ns - half_ns:
            decisions.popleft()
        near = [(abs(time_ns - command_ns), decision) for time_ns, decision in decisions]
        best = min(near, key=lambda item: item[0], default=None)
        return None if best is None or best[0] > half_ns else best[1]

    def _finish(self, steps: _Steps, cut: Cut | None, time_ns: int) -> None:
        """Hand the episode over; ``cut`` is None where it truly ended."""
        self._steps = self._tick_ns = None
        if cut not in (None, "time_limit"):
            self._report.stale_steps += steps.drop_stale_end()
        self._report.ended(cut or "terminated", steps.begin_ns + len(steps) * self._period_ns, len(steps))
        if len(steps) < self._min_steps:
            self._report.left_out(len(steps))
            return
        episode = self._episode(steps, cut)
        self._report.add(episode, sum(labels.corrected for labels in steps.labels))
        self._emit(episode)

    def _episode(self, steps: _Steps, cut: Cut | None) -> Episode:
        commands = np.array(steps.command)
        unclipped = self._maps.to_action(commands)
        action = np.clip(unclipped, -1.0, 1.0).astype(np.float32)
        self._report.clipped_actions += int((np.abs(unclipped) > 1.0 + 1e-9).any(axis=1).sum())
        labels = steps.labels
        times = steps.begin_ns + self._period_ns * np.arange(len(steps) + 1, dtype=np.int64)
        return Episode(
            obs=np.array(steps.obs, dtype=np.float32),
            action=action,
            reward=np.array([each.reward for each in labels], dtype=np.float32),
            cost=np.array([each.cost for each in labels], dtype=np.float32),
            margin=np.array([each.margin for each in labels], dtype=np.float32),
            intervened=np.array([each is not None and each.intervened for each in steps.decision], dtype=np.bool_),
            terminated=cut is None,
            truncated=cut is not None,
            behaviour=self._behaviour(steps),
            time_s=times.astype(np.float64) * 1e-9,
            notes={"source": self._source, "end": cut or "terminated"},
        )

    def _behaviour(self, steps: _Steps) -> Behaviour | None:
        """Return what was proposed to the filter, None unless that is known of every step."""
        rows = [decision.proposed for decision in steps.decision if decision is not None]
        if len(rows) < len(steps) or not np.isfinite(rows).all():
            return None
        proposed = self._maps.to_action(np.array(rows)).astype(np.float32)
        return Behaviour(proposed, proposed, np.zeros_like(proposed))
