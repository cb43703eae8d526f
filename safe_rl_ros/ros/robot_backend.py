"""The Backend over ROS topics: the learner's side of the path policy -> filter -> robot -> state.

Publishes ``goal_pose`` and ``safety_filter/proposed`` with the stamp of the state that they answer, and waits for
the filter's decision and the next state. Every wait has a deadline and ends in a stop and one
:class:`~safe_rl_ros.types.BackendError` that names what was missing.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from rcl_interfaces.msg import Parameter, ParameterType, ParameterValue
from rcl_interfaces.srv import SetParameters
from std_srvs.srv import Trigger

from safe_rl_ros.config import build
from safe_rl_ros.envs.robot_spec import RobotSpec
from safe_rl_ros.envs.twin_parameters import TwinParameters
from safe_rl_ros.ros import qos
from safe_rl_ros.ros.bundle_loader import Announcement
from safe_rl_ros.ros.learner_link import NODE_NAME, LearnerLink
from safe_rl_ros.ros.spin import DeadlineTicker
from safe_rl_ros.types import BackendError, BundleError, FilterDecision, FloatArray, Reason, RobotState, StepResult

MAX_SEED = 2**63 - 1
START_POLL_S = 0.5
RECENT_PERIODS = 5
"""Real time: a decision that is older says nothing of where an arm is being sent."""


class RosBackend:
    """A robot or twin behind the safety filter, reached over topics. See :class:`~safe_rl_ros.envs.backend.Backend`.

    Not thread-safe: everything happens in the calling thread.
    """

    first_part = 1.0
    """Real time: periods from the filter's first decision to the end of an episode's first step."""

    def __init__(
        self,
        spec: RobotSpec,
        *,
        timing: qos.Timing = "lockstep",
        domain_id: int | None = None,
        namespace: str = "",
        executor: str = "events",
        step_timeout_s: float = 2.0,
        startup_timeout_s: float = 30.0,
        filter_name: str = "safety_filter",
        twin_name: str | None = "twin",
        node_name: str = NODE_NAME,
    ) -> None:
        """Create the node; waits for nobody (see :meth:`wait_ready`).

        Args:
            spec: the robot.
            timing: as the twin's and the filter's.
            domain_id: ROS domain, by default that of the environment.
            namespace: ROS namespace of all three nodes.
            executor: ``events`` or ``single``.
            step_timeout_s: longest wait for the answer to one step.
            startup_timeout_s: longest wait for other nodes, for a reset and for the first answer.
            filter_name: node name of the filter.
            twin_name: node name of the twin, or None for a robot, which has no reset service.
            node_name: name of this side's node.
        """
        self.spec = spec
        self.timing: qos.Timing = timing
        self.step_timeout_s = step_timeout_s
        self.startup_timeout_s = startup_timeout_s
        self._link = LearnerLink(spec, timing, domain_id, namespace, executor, filter_name, twin_name, node_name)
        self._has_twin = twin_name is not None
        self._state: RobotState | None = None
        self._goal: FloatArray | None = None
        self._closed = False
        self._answer_timeout_s = startup_timeout_s
        """Until the first answer: nodes that see each other may still not hear each other (see :mod:`.qos`)."""
        self._ticker = DeadlineTicker(spec.period_ns)
        self.parameters: TwinParameters | None = None
        """Of the twin in the current episode; None of a robot, or a twin that is not randomised."""

    def wait_ready(self, check: Callable[[], None] | None = None) -> None:
        """Wait until robot and filter are there and the filter is active.

        Args:
            check: raises :class:`BackendError` if a process of the session has died (a supervisor's check); called now
                and then here and in every later wait, so that the cause is reported and not its symptom.

        Raises:
            BackendError: the filter cannot be configured, or ``startup_timeout_s`` is over; the message lists all that
                is missing.
        """
        self._check_open()
        if check is not None:
            self._link.health_check = self._stopping(check)
        deadline = time.monotonic() + self.startup_timeout_s
        while missing := self._link.missing():
            if self._link.filter_problem:
                raise self._failure(f"the filter cannot be configured: {self._link.filter_problem}")
            if time.monotonic() >= deadline:
                raise self._failure(f"not ready within {self.startup_timeout_s:g} s: " + "; ".join(missing))
            self._link.wait(lambda: not self._link.missing(), START_POLL_S)

    def reset(self, seed: int) -> RobotState:
        """Start the episode of ``seed`` on the twin, or take a robot as it stands. See :class:`Backend`.

        Raises:
            BackendError: nodes are missing, or the twin did not answer in time, or refused.
        """
        self._check_open()
        if not 0 <= seed <= MAX_SEED:
            raise BackendError(f"reset seed = {seed}, expected 0 to {MAX_SEED}")
        self.wait_ready()
        self._state, self._link.decision, self._link.last_problem = None, None, ""
        stamp_ns = self._reset_twin(seed) if self._has_twin else 0
        if self.timing == "lockstep":
            state = self._await_state(stamp_ns, self.startup_timeout_s)
        else:
            self._link.wait(lambda: self._link.assembler.oldest_stamp() >= stamp_ns, self.startup_timeout_s)
            state = self._fresh_state(self.startup_timeout_s)
        self._ticker.restart()
        self._state = state
        return state

    def _reset_twin(self, seed: int) -> int:
        """Ask the twin for the episode and return the stamp of its first state."""
        value = ParameterValue(type=ParameterType.PARAMETER_INTEGER, integer_value=int(seed))
        request = SetParameters.Request(parameters=[Parameter(name="reset_seed", value=value)])
        result = self._call(self._link.seed_client, request).results[0]
        if not result.successful:
            raise self._failure(f"the twin refused reset_seed = {seed}: {result.reason}")
        answer = self._call(self._link.reset_client, Trigger.Request())
        if not answer.success:
            raise self._failure(f"the twin refused to reset: {answer.message}")
        episode = json.loads(answer.message)
        drawn = episode.get("twin_parameters")
        self.parameters = None if drawn is None else build(TwinParameters, drawn, "the twin's answer to reset")
        return int(episode["stamp_ns"])

    def _call(self, client: Any, request: Any) -> Any:
        future = client.call_async(request)
        if not self._link.wait(future.done, self.startup_timeout_s):
            client.remove_pending_request(future)
            raise self._failure(f"no answer from {client.srv_name} within {self.startup_timeout_s:g} s")
        return future.result()

    def set_goal(self, goal: FloatArray, stamp_ns: int) -> None:
        """Remember the goal (2,) m; it is published with every proposal, stamped as the proposal."""
        self._goal = goal

    def step(self, command: FloatArray) -> StepResult:
        """Propose a command (C,) and return the next state and the filter's decision. See :class:`Backend`.

        Raises:
            BackendError: not reset, no goal although a base needs one, or the answer is missing or stale; the robot
                has been told to stop.
        """
        self._check_open()
        state, goal, link = self._state, self._goal, self._link
        if state is None or (goal is None and link.has_goal):
            raise BackendError("step before reset and set_goal, or after a stop: reset first")

        def propose() -> None:
            link.propose(command, goal, state.stamp_ns)

        if self.timing == "lockstep":
            self._state = self._lockstep_answer(state.stamp_ns, propose)
        else:
            self._state = self._realtime_answer(command, propose)
        self._answer_timeout_s = self.step_timeout_s
        return StepResult(self._state, self._named(link.decision))

    def _lockstep_answer(self, stamp_ns: int, propose: Callable[[], None]) -> RobotState:
        """Return the one state that follows ``stamp_ns``."""
        next_ns = stamp_ns + self.spec.period_ns
        link = self._link

        def decided() -> bool:
            return link.decision is not None and link.decision.stamp_ns == stamp_ns

        def answered() -> bool:
            return link.assembler.common_stamp() == next_ns and decided()

        if not link.wait(answered, self._answer_timeout_s, propose) and not decided():
            raise self._failure(link.describe_missing_decision(self._answer_timeout_s))
        return self._await_state(next_ns, 0.0)

    def _realtime_answer(self, command: FloatArray, propose: Callable[[], None]) -> RobotState:
        """Propose, let the rest of the period pass, and return the newest state."""
        link = self._link

        def ours() -> bool:
            decision = link.decision
            if decision is None or decision.reason is Reason.STOP_NO_OBSERVATION:
                return False
            return np.array_equal(decision.proposed, command, equal_nan=True)

        if link.decision is None:  # an episode's first step: pass over the stops sent before goal and proposal came
            if not link.wait(ours, self._answer_timeout_s, propose):
                raise self._failure(link.describe_missing_decision(self._answer_timeout_s))
            self._ticker.restart(self.first_part)
        else:
            propose()
        link.wait(lambda: self._ticker.remaining_s() <= 0.0, max(0.0, self._ticker.remaining_s()))
        self._ticker.advance()
        state = self._fresh_state(0.0)
        age_s = (time.monotonic_ns() - link.decision_arrival_ns) * 1e-9
        if link.decision is None or age_s > self.step_timeout_s:
            raise self._failure(link.describe_missing_decision(self._answer_timeout_s))
        return state

    def _fresh_state(self, timeout_s: float) -> RobotState:
        """Real time: return the newest state if no part of it is stale."""
        link = self._link

        def fresh() -> bool:
            assembled = link.assembler.latest(time.monotonic_ns())
            return assembled is not None and not assembled.stale

        link.wait(fresh, timeout_s)
        assembled = link.assembler.latest(time.monotonic_ns())
        absent = link.assembler.missing(0) if assembled is None else assembled.stale
        if assembled is None or absent:
            raise self._failure(link.describe_missing_sensors(absent, timeout_s or link.assembler.timeout_s(absent)))
        return assembled.state

    def _await_state(self, stamp_ns: int, timeout_s: float) -> RobotState:
        """Lock-step: return the state of exactly this stamp."""
        assembler = self._link.assembler
        self._link.wait(lambda: assembler.common_stamp() == stamp_ns, timeout_s)
        state = assembler.synchronised()
        if state is not None and state.stamp_ns == stamp_ns:
            return state
        missing = assembler.missing(stamp_ns)
        if missing:
            waited_s = timeout_s or self._answer_timeout_s
            raise self._failure(self._link.describe_missing_sensors(missing, waited_s))
        at = ", ".join(f"{sensor} {assembler.stamp_of(sensor)}" for sensor in self._link.sensor_topics)
        raise self._failure(f"expected the state of stamp {stamp_ns} ns, the twin is at {at}: somebody else steps it")

    def _named(self, decision: FilterDecision | None) -> FilterDecision | None:
        """Return the decision with the whole bundle hash where its twelve digits are those of the bundle in force."""
        whole = self._link.filter_state.get("bundle_sha256", "")
        if decision is None or not decision.bundle_hash or not whole.startswith(decision.bundle_hash):
            return decision
        return replace(decision, bundle_hash=whole)

    def announce_bundle(self, path: str | Path, sha256: str, timeout_s: float = 10.0) -> None:
        """Tell the filter to load a bundle and return once it is in force.

        Raises:
            BundleError: the filter refused it (with its reason); the old bundle stays in force.
            BackendError: the filter did not answer in time.
        """
        self._check_open()
        link = self._link
        announcement = Announcement(str(Path(path).resolve()), sha256)
        link.filter_state = {**link.filter_state, "refused_sha256": "", "refused_reason": ""}

        def answered() -> bool:
            return sha256 in (link.filter_state.get("bundle_sha256"), link.filter_state.get("refused_sha256"))

        if not link.wait(answered, timeout_s, lambda: link.announce(announcement)):
            topic, count = link.bundle_topic.topic_name, link.bundle_topic.get_subscription_count()
            raise self._failure(
                f"the filter did not answer to bundle {sha256[:12]} within {timeout_s:g} s "
                f"(topic {topic}, {count} subscribers)"
            )
        if link.filter_state.get("bundle_sha256") != sha256:
            raise BundleError(f"the filter refused the bundle: {link.filter_state.get('refused_reason')}")

    def stop(self) -> None:
        """Propose to stop, or to stay, and require a reset before the next step. Never raises.

        The actuator topic belongs to the filter alone; it stops the robot by itself when proposals end.
        """
        state, self._state = self._state, None
        link, rest = self._link, self._rest()
        aimed = self._goal is not None or not link.has_goal
        if state is not None and rest is not None and aimed and not self._closed and link.alive:
            link.propose(rest, self._goal, state.stamp_ns)

    def _rest(self) -> FloatArray | None:
        """Return the command (C,) that stops the robot: of positions what the filter sent just now, if it did.

        None where there is none, and in lock-step, where time stands still and the twin stays.
        """
        if not self.spec.command.positions:
            return self.spec.command_stop
        decision, age_ns = self._link.decision, time.monotonic_ns() - self._link.decision_arrival_ns
        recent = self.timing == "realtime" and age_ns <= RECENT_PERIODS * self.spec.period_ns
        return decision.executed if decision is not None and recent else None

    def close(self) -> None:
        """Stop and release node and context. Idempotent."""
        if self._closed:
            return
        self.stop()
        self._closed = True
        self._link.close()

    def _stopping(self, check: Callable[[], None]) -> Callable[[], None]:
        """Return a check that also stops the robot if it fails."""

        def checked() -> None:
            try:
                check()
            except BackendError:
                self.stop()
                raise

        return checked

    def _failure(self, what: str) -> BackendError:
        """Stop the robot and return the error."""
        self.stop()
        problem = self._link.last_problem
        return BackendError(f"{what}; the last message refused here: {problem}" if problem else what)

    def _check_open(self) -> None:
        if self._closed:
            raise BackendError("the ROS backend is closed")

    def __enter__(self) -> RosBackend:
        """Return the backend."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close."""
        self.close()
