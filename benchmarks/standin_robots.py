"""Stand-ins for a robot in this process, for statistics: the PyBullet twin in lock-step, faster than real time.

What ``standin_node`` is over ROS: parameters drawn from ``standin_rover`` by a seed, one arena, episodes that begin
where the robot stands. What differs: time is simulated, so that latency counts in physics substeps and nobody is ever
late, and a robot that has driven into a hazard is put back at the arena's start (an operator does that on hardware).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from safe_rl_ros.bundle import Bundle
from safe_rl_ros.data.trials import Trials, Verdict
from safe_rl_ros.envs.randomisation import ParameterDraw, load_randomisation
from safe_rl_ros.envs.robot_env import RobotEnv
from safe_rl_ros.envs.robot_spec import load_robot_spec
from safe_rl_ros.envs.tasks.hazard_nav import HazardNav, HazardNavConfig, load_hazard_nav
from safe_rl_ros.envs.twin_backend import TwinBackend
from safe_rl_ros.envs.twins import make_backend
from safe_rl_ros.safety.contracts import FilterConfig
from safe_rl_ros.safety.wrapper import SafetyFilterWrapper
from safe_rl_ros.training.evaluation import evaluate
from safe_rl_ros.training.rollout import Rollout
from safe_rl_ros.training.session import InProcessSession, RobotSession, make_action_filter
from safe_rl_ros.training.session_config import SessionConfig
from safe_rl_ros.types import EpisodeStats, FloatArray, RobotState, StepResult

STANDIN = "standin_rover"
FRESH_EVERY = 5
"""Episodes on a twin until its parameters are drawn anew."""
REST_STEPS = 5
"""Control periods between two episodes, in which the robot is told to stop."""


class Standing:
    """A simulated base whose episodes begin where it stands. Fits ``Backend``."""

    def __init__(self, twin: TwinBackend, task: HazardNav, fresh_every: int | None = None) -> None:
        """Wrap a base, which every ``fresh_every`` episodes is put back at the start, with new parameters."""
        self._twin, self._task, self._fresh_every = twin, task, fresh_every
        self._state: RobotState | None = None
        self._since_fresh = 0

    def reset(self, seed: int) -> RobotState:
        """Begin where the robot stands; at the start the first time, after a failure, and when a fresh one is due."""
        self._since_fresh += 1
        if self._state is not None and self._since_fresh != self._fresh_every:
            for _ in range(REST_STEPS):
                self._state = self._twin.step(self._twin.spec.command_stop).state
            if self._task.margin(self._state, self._twin.layout) > 0.0:
                return self._state
        self._since_fresh = 0
        self._state = self._twin.reset(seed)
        return self._state

    def step(self, command: FloatArray) -> StepResult:
        """Carry out a command (C,) for one control period."""
        result = self._twin.step(command)
        self._state = result.state
        return result

    def set_goal(self, goal: FloatArray, stamp_ns: int) -> None:
        """Move the goal's marker."""
        self._twin.set_goal(goal, stamp_ns)

    def stop(self) -> None:
        """Tell the base to stop."""
        self._twin.stop()

    def close(self) -> None:
        """Release the simulator."""
        self._twin.close()


@dataclass(frozen=True)
class Place:
    """A robot, or the twin that a policy was trained on, in one arena.

    ``seed`` draws arena and, on a stand-in, what the robot is. ``twin``: the randomisation of MuJoCo's twin in place of
    a stand-in, ``none`` for the neutral one. ``loop_delay_s``: what a command takes over actor, filter and base in real
    time, beyond the stand-in's own delays; the twin has none.
    """

    seed: int
    twin: str | None = None
    loop_delay_s: float = 0.0

    def make_env(self, task: HazardNavConfig) -> RobotEnv:
        """Return the environment, without a filter."""
        spec = load_robot_spec("rover")
        nav = HazardNav(task, spec.base_radius_m, self.seed)
        if self.twin is None:
            drawn = load_randomisation(STANDIN).draw(self.seed)
            delay_s = drawn.actuation_delay_s + self.loop_delay_s
            parameters = drawn.model_copy(update={"actuation_delay_s": delay_s})
            base = make_backend(spec.with_simulator("pybullet"), nav.layout, lambda _: parameters)
            return RobotEnv(Standing(base, nav), spec, nav)
        draw: ParameterDraw | None = None if self.twin == "none" else load_randomisation(self.twin).draw
        return RobotEnv(Standing(make_backend(spec, nav.layout, draw), nav, FRESH_EVERY), spec, nav)


def run_episodes(
    place: Place, bundle: Bundle, judge: Bundle | None, threshold: float, episodes: int, seed: int = 0
) -> list[EpisodeStats]:
    """Return episodes of a bundle's policy, drawn from it as an actor does, behind a filter with ``judge`` or none."""
    config = FilterConfig(critic="off" if judge is None else "enforce", threshold=threshold)
    env = filtered_env(place, config, load_hazard_nav(), judge)
    try:
        return evaluate(env, bundle.policy, episodes, seed=seed).episodes
    finally:
        env.close()


def filtered_env(
    place: Place, config: FilterConfig, task: HazardNavConfig, judge: Bundle | None
) -> SafetyFilterWrapper:
    """Return a place's environment behind an armed filter."""
    action_filter = make_action_filter(load_robot_spec("rover"), config)
    if judge is not None:
        action_filter.set_model(judge)
    action_filter.activate()
    return SafetyFilterWrapper(place.make_env(task), action_filter)


class StandInSession(InProcessSession):
    """Learning that goes on at a place. An epoch's episodes are judged as the actor judges them."""

    def __init__(self, config: SessionConfig, place: Place, judge: Bundle | None = None) -> None:
        """Build the environment; ``judge`` is whose critic enforces where the algorithm has none of its own."""
        self._config = config
        chosen = config.filter if judge is None else config.filter.model_copy(update={"critic": "enforce"})
        env = filtered_env(place, chosen, config.robot_task, judge)
        self.filter = env.action_filter
        RobotSession.__init__(self, env, config.robot_spec)
        self.latest: list[EpisodeStats] = []
        self._trials = Trials(config.ros.roll_back_episodes, config.ros.roll_back_level)

    def collect(self, *arguments: Any, **keywords: Any) -> Rollout:
        """As the session's, and keep the episodes."""
        rollout = super().collect(*arguments, **keywords)
        self.latest = rollout.episodes
        return rollout

    def verdict(self, epoch: int) -> Verdict | None:
        """Return the verdict on the policy of an epoch that has ended, ``epoch_00003`` by name, if any.

        Of several the first by which it gives way: a policy that was good at first does not learn on from a failure.
        """
        if not self._config.ros.roll_back_episodes:
            return None
        verdicts = [self._trials.add(f"epoch_{epoch:05d}", episode) for episode in self.latest]
        return worst_of([verdict for verdict in verdicts if verdict is not None])


def worst_of(verdicts: Sequence[Verdict]) -> Verdict | None:
    """Return the first verdict that goes back to another bundle, else the first."""
    return next((verdict for verdict in verdicts if verdict.back_to), next(iter(verdicts), None))
