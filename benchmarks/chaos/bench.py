"""One fault's graph: the filter under test, policies and helpers as processes, the base in this one; and its checks."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Mapping
from multiprocessing.context import ForkServerContext
from multiprocessing.process import BaseProcess
from typing import Any

import numpy as np
import rclpy
from rcl_interfaces.srv import SetParameters
from rclpy.context import Context
from rclpy.signals import SignalHandlerOptions
from std_srvs.srv import Trigger

from benchmarks.chaos import actors
from benchmarks.chaos.base import Base
from benchmarks.chaos.case import Actor, Case, Result
from benchmarks.chaos.checks import judge
from benchmarks.chaos.ledger import Ledger
from benchmarks.chaos.setting import GRACE_PERIODS, TIMEOUT_S, RiskOracle, Setting, random_ranges
from safe_rl_ros.ros import filter_parameters
from safe_rl_ros.ros.supervisor import free_domain_id, ros_arguments

PARAMETERS = (
    *filter_parameters.NODE_PARAMETERS,
    *filter_parameters.FILTER_PARAMETERS,
    *filter_parameters.OPERATION_PARAMETERS,
)
RECOVERED_COMMANDS = 3
RECOVERY_S = 10.0
START_S = 20.0
SPARES = 8
"""Policies that wait to take over: the filter takes a while, sometimes 3 s, to find a new one."""
FILTER_DEFAULTS: dict[str, object] = {
    "task": "hazard_nav",
    "timing": "realtime",
    "executor": "events",
    "autostart": True,
    "critic": "enforce",
    "fallback_mode": "brake",
    "max_samples": 32,
    "shadow_run_ticks": 3,
    "proposal_timeout_s": TIMEOUT_S,
    "observation_timeout_s": TIMEOUT_S,
}
"""``brake``: with the paper's fallback a command above the threshold may be sent on purpose."""


class Bench:
    """The processes of one fault's graph and the checks on its commands. A context manager: leaving ends them."""

    def __init__(
        self,
        context: ForkServerContext,
        setting: Setting,
        seed: int,
        *,
        module: str = actors.FILTER_MODULE,
        parameters: Mapping[str, object] | None = None,
        extra_arguments: tuple[str, ...] = (),
    ) -> None:
        """Start everything and wait until commands flow.

        Raises:
            SystemExit: they do not, with the end of the filter's log.
        """
        self.setting, self.processes, self.seed = setting, context, seed
        self.domain_id = free_domain_id()
        self.rng = np.random.default_rng(seed)
        self.clock_offset_ns = context.Value("q", 0)
        self.log = setting.directory / f"filter_{self.domain_id}_{seed}.log"
        self._module, self._extra = module, extra_arguments
        self._parameters = dict(parameters or {})
        self._ros = Context()
        rclpy.init(context=self._ros, domain_id=self.domain_id, signal_handler_options=SignalHandlerOptions.NO)
        self.base = Base(setting, self._ros)
        self.oracle = RiskOracle(setting, TIMEOUT_S + GRACE_PERIODS * setting.period_s)
        self.ledger = Ledger(setting, self.oracle)
        self._since_ns = 0
        self._actors: list[Actor] = []
        self._policies = 0
        self.helpers: dict[str, Actor] = {}
        self.bundles = 0
        """Bundles that were written to be announced."""
        self.flood_count = context.Value("q", 0)
        self.clear_client = self.base.create_client(Trigger, "safety_filter/clear_estop")
        self.parameter_client = self.base.create_client(SetParameters, "safety_filter/set_parameters")
        self.show_new_scan()
        self.filter = self.start_filter()
        self.policy = self.start_policy()
        self.spares = [self.start_policy() for _ in range(SPARES)]
        self.policy.active.set()
        if not self.base.run(self.moving, START_S):
            tail = self.log.read_text(errors="replace")[-3000:] if self.log.exists() else ""
            self.close()
            raise SystemExit(f"no command within {START_S} s: {self.base.filter_state}; the filter's log ends:\n{tail}")
        self.base.worst_late_ns = 0

    # Processes.

    @property
    def period_s(self) -> float:
        """Control period, s."""
        return self.setting.period_s

    def knows(self, parameter: str) -> bool:
        """Return True if the filter node has this parameter."""
        return any(item.name == parameter for item in PARAMETERS)

    def start_filter(self) -> BaseProcess:
        """Start a filter process; one that was started before has ended."""
        self.base.publisher += 1
        values = {
            **FILTER_DEFAULTS,
            "robot": str(self.setting.robot_file),
            "bundle": str(self.setting.bundle_path),
            "bundle_sha256": self.setting.digest,
            **self._parameters,
        }
        arguments = ros_arguments({name: value for name, value in values.items() if self.knows(name)})
        arguments = [*self._extra, *arguments]
        return actors.start(self.processes, self.domain_id, actors.run_filter, self._module, arguments, self.log)

    def start_policy(self) -> Actor:
        """Start a policy that waits to become active."""
        self._policies += 1
        seed = self.seed * 1000 + self._policies
        return self.start_actor(actors.policy, self.clock_offset_ns, self.period_s, seed)

    def start_actor(self, target: Callable[..., None], *arguments: Any) -> Actor:
        """Start a helper process that works while its ``active`` is set."""
        ready, active = self.processes.Event(), self.processes.Event()
        process = actors.start(self.processes, self.domain_id, target, ready, active, *arguments)
        actor = Actor(process, ready, active)
        self._actors.append(actor)
        return actor

    def replace_policy(self) -> None:
        """Let the oldest spare policy take over and start another one."""
        dead, self.policy = self.policy, self.spares.pop(0)
        self.policy.active.set()
        dead.kill()
        self._actors.remove(dead)
        self.spares.append(self.start_policy())
        self.base.run(self.spares[-1].ready.is_set)  # its start must not disturb the next repetition

    # Flow.

    def moving(self) -> bool:
        """Return True if the latest commands are no stops and recent."""
        latest = self.base.commands[-RECOVERED_COMMANDS:]
        stop = self.setting.limits.stop
        recent = time.time_ns() - 2 * self.setting.spec.period_ns - 5_000_000
        return (
            len(latest) == RECOVERED_COMMANDS
            and latest[0].arrival_ns > self._since_ns
            and latest[-1].arrival_ns > recent
            and all(command.values != stop for command in latest)
        )

    def show_new_scan(self) -> None:
        """Show another scan from now on."""
        rays = self.setting.spec.sensors.scan.rays
        ranges = random_ranges(self.rng, rays)
        while not self.oracle.suits(ranges):
            ranges = random_ranges(self.rng, rays)
        self.base.ranges = ranges
        self.oracle.show(time.time_ns(), self.base.ranges)

    def recover(self, result: Result) -> None:
        """Wait until commands flow again; a filter that does not recover is counted and started anew."""
        begin = time.monotonic()
        self._since_ns = time.time_ns()
        if self.base.run(self.moving, RECOVERY_S):
            result.recovery_ms.append((time.monotonic() - begin) * 1e3)
            return
        result.counts["not_recovered"] += 1
        result.note(f"not recovered: {self.base.filter_state} {self.base.filter_diagnostics}")
        self.filter.kill()
        self.filter.join()
        self.filter = self.start_filter()
        self.base.run(self.moving, START_S)

    def repeat(self, fault: Callable[[Bench], Case], result: Result) -> None:
        """Do one fault at a random time and judge what followed.

        Where a stop has a deadline and this process itself woke up more than a period late, the machine was too busy
        to tell; the repetition does not count (but as ``disturbed``), its commands are checked all the same.
        """
        self.show_new_scan()
        self.base.shift_phase(self.rng.uniform(0.0, 1.0))
        self.base.run(timeout_s=self.rng.uniform(0.5, 3.5) * self.period_s)
        begin_ns = time.time_ns()
        self._note_lateness(result)
        case = fault(self)
        spare_s = self.rng.uniform(1.0, 4.0) * self.period_s
        duration_s = case.deadline_s + spare_s if case.duration_s is None else case.duration_s
        self.base.run(case.until or (lambda: False), duration_s)
        end_ns = time.time_ns()
        fault_ns = self.base.disturbed_ns or begin_ns
        case.end()
        self.base.undisturb()
        self.base.run(timeout_s=0.5 * self.period_s)
        if case.wanted != "none" and self._note_lateness(result) > self.setting.spec.period_ns:
            result.counts["disturbed"] += 1
        else:
            self._judge(case, (fault_ns, fault_ns + round(case.deadline_s * 1e9), end_ns), result)
        self.recover(result)
        self.check_commands(result)

    def _note_lateness(self, result: Result) -> int:
        """Return by how much (ns) this process has been late since the last call."""
        late_ns, self.base.worst_late_ns = self.base.worst_late_ns, 0
        result.worst_observer_late_ms = max(result.worst_observer_late_ms, late_ns * 1e-6)
        return late_ns

    def _judge(self, case: Case, window: tuple[int, int, int], result: Result) -> None:
        outcome = judge(self.base.commands, self.setting.limits.stop, case.wanted, window, silent=case.silent)
        result.repetitions += 1
        result.variants[case.variant or "all"] += 1
        if case.wanted != "none":
            result.deadlines_ms[case.variant or "all"] = round(case.deadline_s * 1e3, 1)
        where = f"repetition {result.repetitions} {case.variant} (seed {self.seed})"
        stop_ms = None if outcome.stop_ns is None else round(outcome.stop_ns * 1e-6, 1)
        for _ in range(outcome.after_deadline):
            result.violate("after_deadline", f"{where}: stop after {stop_ms} ms, deadline {case.deadline_s * 1e3:.0f}")
        if outcome.no_stop:
            result.violate("no_stop", f"{where}: stop after {stop_ms} ms, deadline {case.deadline_s * 1e3:.0f} ms")
        if case.wanted != "none" and stop_ms is not None:
            result.stop_ms.append(stop_ms)
        for name, count in case.findings.items():
            for _ in range(count):
                result.violate(name, where)
        for name, value in case.figures.items():
            result.figures.setdefault(name, []).append(value)
        if not case.silent:
            result.gap_ms.append(outcome.worst_gap_ns * 1e-6)

    def check_commands(self, result: Result, last: bool = False) -> None:
        """Check every command that came since the last call; ``last``: none will be explained any more."""
        self.ledger.check(self.base, result, f"repetition {result.repetitions} (seed {self.seed})", last)

    # End.

    def close(self) -> None:
        """End every process and this domain's context."""
        for actor in self._actors:
            actor.kill()
        assert self.filter.pid is not None
        if self.filter.is_alive():
            os.kill(self.filter.pid, signal.SIGCONT)
            self.filter.terminate()
            self.filter.join(5.0)
            self.filter.kill()
            self.filter.join()
        self.base.close()
        rclpy.try_shutdown(context=self._ros)

    def __enter__(self) -> Bench:
        """Return the bench."""
        return self

    def __exit__(self, *_: object) -> None:
        """End every process."""
        self.close()

    def others_reported(self) -> bool:
        """Return True if the filter says that somebody else publishes commands."""
        return bool(self.base.filter_state.get("other_command_publishers"))

    def clear_stop(self) -> bool:
        """Ask the filter to clear a latched stop; return True if it did."""
        future = self.clear_client.call_async(Trigger.Request())
        return self.base.run(future.done, RECOVERY_S) and bool(future.result().success)

    def bad_bundle_in_force(self, digest: str) -> bool:
        """Return True if the filter says that this bundle is in force."""
        return self.base.filter_state.get("bundle_sha256") == digest
