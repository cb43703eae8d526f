"""The safety filter as a lifecycle node in its own process, between the policy and the robot's command topic.

It only translates: messages -> :class:`~safe_rl_ros.safety.action_filter.ActionFilter` -> message. Subscribes
``~/proposed``, ``~/candidates``, ``goal_pose``, the robot's sensors, ``bundle`` (std_msgs/String, JSON
``{"path", "sha256"}``), ``estop`` and ``heartbeat``; publishes the robot's command topic, ``~/decisions``, ``~/state``
and ``diagnostics``; serves ``~/estop``, ``~/clear_estop`` and ``~/rollback``. docs/safety_filter.md is the manual.

- ``timing: lockstep``: one tick per state, when sensors, goal and proposal of one stamp are there.
- ``timing: realtime``: a tick per control period by absolute deadlines on the steady clock, always with a command:
  silence upstream becomes a stop.

configure loads the bundle and warms up, activate arms, deactivate stops the robot first, SIGINT and SIGTERM stop it
before the context goes. While the node is not active it publishes no command. Where the filter process itself
may die, the base needs its own command timeout. This is not a certified safety function.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from typing import Any

from rclpy.clock import Clock, ClockType
from rclpy.lifecycle import LifecycleState, TransitionCallbackReturn

from safe_rl_ros.bundle import Bundle
from safe_rl_ros.envs.observation import CommandMap
from safe_rl_ros.envs.observers import make_observer
from safe_rl_ros.envs.robot_spec import load_robot_spec
from safe_rl_ros.messages.limits import command_limits
from safe_rl_ros.messages.lockstep import check_stamped
from safe_rl_ros.messages.state_assembler import sensor_timeouts
from safe_rl_ros.ros import filter_topics, qos, realtime
from safe_rl_ros.ros.bundle_loader import Announcement, load_and_warm_up, parse_announcement
from safe_rl_ros.ros.filter_calibration import CalibrationGate
from safe_rl_ros.ros.filter_loop import FilterLoop, LoopParts
from safe_rl_ros.ros.filter_operator import OperatorStop, StopEvent
from safe_rl_ros.ros.filter_parameters import FILTER_PARAMETERS, NODE_PARAMETERS, OPERATION_PARAMETERS, filter_config
from safe_rl_ros.ros.filter_recorder import NodeRecorder
from safe_rl_ros.ros.filter_report import FilterReport
from safe_rl_ros.ros.filter_status import FilterStatus, Situation
from safe_rl_ros.ros.filter_swap import BundleSwap
from safe_rl_ros.ros.filter_tuning import Tuning
from safe_rl_ros.ros.filter_watch import Listeners, OtherPublishers, QosWatch
from safe_rl_ros.ros.lifecycle import RobustLifecycleNode
from safe_rl_ros.ros.parameters import declare
from safe_rl_ros.ros.spin import run
from safe_rl_ros.safety.action_filter import ActionFilter, FilterConfig
from safe_rl_ros.types import BundleError, SafeRlRosError

NODE_NAME = "safety_filter"
HOUSEKEEPING_S = 0.02
AUTOSTART_RETRY_S = 0.5
MAX_CANDIDATES = 10_000
"""Rows of a candidate list that are read at most; the filter judges `max_samples` of them."""
SWITCH_INTERVAL_S = 0.0005
"""A bundle is verified in a thread of this process: it must not hold the interpreter for the default 5 ms."""

SUCCESS, FAILURE = TransitionCallbackReturn.SUCCESS, TransitionCallbackReturn.FAILURE


class SafetyFilterNode(RobustLifecycleNode):
    """Thin node around the filter; see the module's docstring."""

    def __init__(self) -> None:
        """Declare parameters, read robot and task, create all topics; with ``autostart`` also arm.

        Raises:
            ConfigError: a parameter or file is wrong.
        """
        self._resources = ExitStack()  # first: a node that could not be built is destroyed, too
        super().__init__(NODE_NAME)
        self._tuning = Tuning(self)
        fixed = declare(self, NODE_PARAMETERS)
        self._operation = declare(self, (*FILTER_PARAMETERS, *OPERATION_PARAMETERS))
        self.executor_name: str = fixed["executor"]
        self._timing: qos.Timing = fixed["timing"]
        self._lockstep = self._timing == "lockstep"
        self._spec = load_robot_spec(fixed["robot"])
        check_stamped(self._timing, self._spec.command.stamped)
        self._observer = make_observer(self._spec, fixed["task"])
        maps = CommandMap(self._spec)
        defaults = FilterConfig.model_validate({})
        self._filter = ActionFilter(command_limits(self._spec), defaults, maps.to_action, maps.to_command)
        self._status = FilterStatus()
        self._operator = OperatorStop(self._filter, self._on_operator_event)
        self._calibration = CalibrationGate(self._filter, self._spec.control_rate_hz)
        self._swap = BundleSwap(
            self._filter,
            maps.to_action,
            self._load,
            refuse_because=self._calibration.refuse,
            on_change=lambda: self._recorder.event("bundle", self._filter),
        )
        self._create_entities(fixed)
        self._tuning.attach(self._filter, self._config_of, lambda: self._recorder.event("reconfigured", self._filter))
        self._configured, self._autostart, self._retry_s = False, bool(fixed["autostart"]), 0.0
        self._report.publish_state()
        if self._autostart and self.trigger_configure() == SUCCESS and self._lockstep and self._loop.knows_start:
            self.trigger_activate()

    def _create_entities(self, fixed: Mapping[str, Any]) -> None:
        spec, watch = self._spec, QosWatch(self)
        # Steady: with use_sim_time the node's clock stands still until the twin steps, and a bundle would never load.
        steady = Clock(clock_type=ClockType.STEADY_TIME)
        proposal_type = None if fixed["proposal_type"] == "command" else fixed["proposal_type"]
        recorded = filter_topics.input_types(spec, proposal_type, self._observer.needs_goal)
        axes = tuple(axis.name for axis in spec.command.axes)
        self._recorder = NodeRecorder(self, fixed, self._timing, spec.hash, axes, recorded)
        self._resources.callback(self._recorder.close)
        self._resources.callback(self._swap.close)  # goes first: it may still have something to record
        self._recorder.event("configured", self._filter)
        beside = (self._operator, self._swap, self._recorder, self._status, self._observer)
        parts = LoopParts(self._filter, *beside, follow_resets=bool(fixed["follow_resets"]))
        show = self._show_state
        self._loop = FilterLoop(self, spec, self._timing, parts, watch, show, proposal_type, MAX_CANDIDATES)
        self._others = OtherPublishers(self, self._loop.command_topic)
        self._listeners = Listeners(self._loop.command_topic)
        self._report = FilterReport(
            self,
            spec.name,
            self._loop,
            parts,
            self._situation,
            {"timing": self._timing, "spec_sha256": spec.hash, **_realtime(fixed)},
            steady,
            watch,
        )
        filter_topics.subscribe_inputs(
            self, spec, self._timing, self._loop.inputs, self._recorder, watch, proposal_type
        )
        filter_topics.subscribe_bundles(self, watch, self._on_announcement)
        filter_topics.serve_operator(self, self._operator, self._swap, show)
        self.create_timer(HOUSEKEEPING_S, self._housekeeping, clock=steady)
        self.create_timer(qos.STATE_PERIOD_S, self._look_around, clock=steady)

    # What the process that runs the node needs.

    @property
    def ticker(self) -> Any:
        """The deadlines of real time, None in lock-step."""
        return self._loop.ticker

    def tick(self) -> None:
        """Do one period's work."""
        self._loop.tick()

    def send_stop(self) -> None:
        """Bring the robot to rest, if armed."""
        self._loop.stop()

    def destroy_node(self) -> None:
        """Release the loader's and the recorder's thread, then the node."""
        self._resources.close()
        super().destroy_node()

    # Lifecycle.

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Set up the filter, load and verify the bundle, warm up; FAILURE with the reason in ``~/state``."""
        values = self._operation = self._tuning.values()
        self._calibration.required = values["require_calibrated"]
        try:
            self._filter.reconfigure(self._config_of(values))
            self._recorder.event("reconfigured", self._filter)
            if values["bundle"]:
                self._swap.install(self._load(Announcement(values["bundle"], values["bundle_sha256"] or None)))
        except SafeRlRosError as error:
            return self._fail("configure", str(error))
        self._configured = self._tuning.locked = True
        self._status.problem = ""
        self._swap.shadow_run_ticks = values["shadow_run_ticks"] if self._timing == "realtime" else 0
        self._operator.require_heartbeat(values["heartbeat_timeout_s"] if values["require_heartbeat"] else None)
        self._swap.reload()
        self._report.publish_state(self._situation("inactive"))
        return super().on_configure(state)

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Arm; from now on every tick publishes a command. FAILURE with the reason in ``~/state``."""
        try:
            self._calibration.check_arming(self._swap.in_force)
            start = self._loop.measured_positions()
            self._filter.activate(start)
        except SafeRlRosError as error:
            return self._fail("activate", str(error))
        self._recorder.event("activated", self._filter, start=start)
        self._status.problem, self._autostart = "", False
        self._loop.arm()
        self._report.publish_state(self._situation("active"))
        return super().on_activate(state)

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Bring the robot to rest, then fall silent."""
        self._disarm("inactive")
        return super().on_deactivate(state)

    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Forget the bundles. What is latched stays latched."""
        self._release()
        self._report.publish_state(self._situation("unconfigured"))
        return super().on_cleanup(state)

    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Bring the robot to rest if armed."""
        self._disarm("finalized")
        return super().on_shutdown(state)

    def on_error(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Stop and go back to unconfigured."""
        self._disarm("unconfigured")
        self._release()
        return SUCCESS

    def _disarm(self, state: str) -> None:
        self._loop.stop()
        self._swap.end_trial()
        self._report.publish_state(self._situation(state))

    def _release(self) -> None:
        self._configured = self._tuning.locked = False
        self._swap.remove()

    def _fail(self, transition: str, problem: str) -> TransitionCallbackReturn:
        if problem != self._status.problem:  # autostart tries again; once is enough to say it
            self.get_logger().error(f"{transition} failed: {problem}")
        self._status.problem = problem
        self._report.publish_state(self._situation("unconfigured" if transition == "configure" else "inactive"))
        return FAILURE

    # Configuration and bundles.

    def _config_of(self, values: Mapping[str, Any]) -> FilterConfig:
        period_s = self._spec.period_ns * 1e-9 if self._timing == "realtime" else None
        return filter_config(values, min(sensor_timeouts(self._spec).values()), period_s)

    def _load(self, announcement: Announcement) -> Bundle:
        """Load a bundle; runs in the loader's thread or in configure."""
        bundle = load_and_warm_up(announcement, self._filter.config, self._spec.hash, self._observer.names)
        self._calibration.problems(bundle)  # takes its time here, not between two ticks
        return bundle

    def _on_announcement(self, text: str) -> None:
        try:
            announcement = parse_announcement(text)
        except BundleError as error:
            self._swap.refuse("", str(error))
            self._show_state()
            return
        if not self._configured:
            self._swap.remember(announcement)
        elif self._swap.announce(announcement):
            self._show_state()  # the announcer waits for this acknowledgement

    # Beside the loop, always between two ticks.

    def _housekeeping(self) -> None:
        if self._configured and self._swap.poll(self._loop.armed):
            report = self._swap.report
            if report.refused_reason:
                self.get_logger().error(f"bundle refused, the old one stays: {report.refused_reason}")
            self._show_state()
        self._operator.check_heartbeat(self._loop.armed)
        self._report.publish_state_if_changed()
        if self._autostart and self.lifecycle_state == "inactive":
            self._try_to_arm()

    def _try_to_arm(self) -> None:
        """Arm once the base hears commands: then the first that it hears is the first that was sent."""
        heard = self._loop.knows_start if self._lockstep else self._listeners.hear()
        if heard and time.monotonic() >= self._retry_s:
            self._retry_s = time.monotonic() + AUTOSTART_RETRY_S
            self.trigger_activate()

    def _look_around(self) -> None:
        others = self._others.look()
        hold = bool(others) and self._loop.armed and self._operation["other_publishers"] == "stop"
        self._operator.hold("other publisher", hold, f"another publisher on the command topic: {', '.join(others)}")
        self._show_state()

    def _on_operator_event(self, event: StopEvent, cause: str, detail: str) -> None:
        self._recorder.event(event, self._filter, cause=cause or None, detail=detail)

    def _situation(self, lifecycle: str | None = None) -> Situation:
        return Situation(
            lifecycle=self.lifecycle_state if lifecycle is None else lifecycle,
            stop=self._operator.text,
            holding=self._operator.holding,
            others=self._others.names,
            calibration=self._calibration.text(self._swap.in_force),
            waiting_for=(*self._listeners.missing, *self._loop.inputs.absent()),
        )

    def _show_state(self) -> None:
        self._report.publish_state()


def _realtime(fixed: Mapping[str, Any]) -> dict[str, str]:
    """Ask the kernel for what the parameters want, and return the outcomes."""
    cores = realtime.parse_cores(fixed["cpu_affinity"])
    priority = fixed["realtime_priority"] if fixed["realtime_scheduling"] else None
    return realtime.apply(priority, cores, fixed["lock_memory"])


def main(argv: Sequence[str] | None = None) -> int:
    """Run the filter until it is interrupted; return the exit status."""
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    return run(SafetyFilterNode, argv)


if __name__ == "__main__":
    raise SystemExit(main())
