"""Faults of processes: policy killed or stopped, flood, filter restarted or stopped, a second publisher, parameters."""

from __future__ import annotations

import math
import os
import signal
import time
from collections.abc import Callable

from rcl_interfaces.msg import Parameter, ParameterType, ParameterValue
from rcl_interfaces.srv import SetParameters

from benchmarks.chaos import actors
from benchmarks.chaos.bench import PARAMETERS, Bench
from benchmarks.chaos.case import Actor, Case
from benchmarks.chaos.input_faults import timeout_deadline_s
from benchmarks.chaos.setting import GRACE_PERIODS, TIMEOUT_S

REPORT_S = 3.0
OTHERS_DEADLINE_S = 0.5
"""The filter looks for other publishers at 2 Hz or more."""
TERMINATION_S = 0.2
ANSWER_S = 2.0
DISCOVERY_S = 3.5
"""Until everybody has found a new process: what one misses at first, the middleware repeats after 3 s."""


def policy_killed(bench: Bench) -> Case:
    """SIGKILL for the policy; another one takes over at the end."""
    bench.policy.kill()
    return Case("hold", timeout_deadline_s(bench), end=bench.replace_policy)


def policy_stopped(bench: Bench) -> Case:
    """SIGSTOP for the policy, later SIGCONT."""
    bench.policy.signal(signal.SIGSTOP)
    lasts_s = timeout_deadline_s(bench) + float(bench.rng.uniform(0.02, 0.3))
    return Case("hold", timeout_deadline_s(bench), end=lambda: bench.policy.signal(signal.SIGCONT), duration_s=lasts_s)


def flood(bench: Bench) -> Case:
    """Proposals at 10 kHz from a second policy, a tenth of them not finite."""
    helper = bench.helpers["flood"]
    before, begin = bench.flood_count.value, time.monotonic()
    helper.active.set()
    case = Case("none", variant="10 kHz asked", duration_s=float(bench.rng.uniform(0.2, 0.4)))

    def end() -> None:
        helper.active.clear()
        case.figures["flood_hz"] = (bench.flood_count.value - before) / (time.monotonic() - begin)

    case.end = end
    return case


def filter_restarted(bench: Bench) -> Case:
    """SIGTERM (the filter sends a stop and ends) or SIGKILL (silence), then a new process."""
    graceful = bool(bench.rng.random() < 0.5)
    assert bench.filter.pid is not None
    os.kill(bench.filter.pid, signal.SIGTERM if graceful else signal.SIGKILL)

    def end() -> None:
        bench.filter.kill()
        bench.filter.join()
        bench.filter = bench.start_filter()

    if not graceful:
        return Case("hold", GRACE_PERIODS * bench.period_s, "SIGKILL", end, silent=True)
    case = Case("hold", TERMINATION_S, "SIGTERM", end, duration_s=3.0)
    ended_s: list[float] = []

    def ended() -> bool:
        if not bench.filter.is_alive():
            ended_s.append(time.monotonic())
        return bool(ended_s) and time.monotonic() - ended_s[0] > 2 * bench.period_s

    case.until = ended
    return case


def filter_stopped(bench: Bench) -> Case:
    """SIGSTOP for filter and policy, SIGCONT for the filter only: what it knew is old by then."""
    assert bench.filter.pid is not None
    pid, pause_s = bench.filter.pid, float(bench.rng.uniform(1.2, 6.0)) * TIMEOUT_S
    bench.policy.signal(signal.SIGSTOP)
    os.kill(pid, signal.SIGSTOP)
    bench.base.run(timeout_s=pause_s)
    resumed_ns = time.time_ns()
    os.kill(pid, signal.SIGCONT)
    case = Case("hold", pause_s + GRACE_PERIODS * bench.period_s)
    case.duration_s = GRACE_PERIODS * bench.period_s + float(bench.rng.uniform(0.04, 0.1))

    def end() -> None:
        stop = bench.setting.limits.stop
        sent = [command for command in bench.base.commands if command.sent_ns >= resumed_ns]
        case.findings["sent_when_stale"] += sum(command.values != stop for command in sent)
        bench.policy.signal(signal.SIGCONT)

    case.end = end
    return case


def second_publisher(bench: Bench) -> Case:
    """Another node publishes on the actuator topic: the filter reports it and latches a stop until it is cleared."""
    period_s, helper = bench.period_s, bench.helpers["intruder"]
    begin = time.monotonic()
    helper.active.set()
    deadline_s = OTHERS_DEADLINE_S + GRACE_PERIODS * period_s
    case = Case("hold", deadline_s, duration_s=deadline_s + 3 * period_s)

    def reported() -> bool:
        if bench.others_reported() and "reported_ms" not in case.figures:
            case.figures["reported_ms"] = (time.monotonic() - begin) * 1e3
        return False

    def end() -> None:
        case.findings["not_reported"] += "reported_ms" not in case.figures
        case.findings["cleared_too_early"] += bench.clear_stop()
        helper.active.clear()
        bench.base.run(lambda: not bench.others_reported(), REPORT_S)
        case.findings["not_cleared"] += not bench.clear_stop()

    case.until, case.end = reported, end
    return case


def parameter_nan(bench: Bench) -> Case:
    """A parameter of the running filter is set to NaN or infinity; it must be refused."""
    numbers = [item for item in PARAMETERS if isinstance(item.default, float)]
    name = numbers[int(bench.rng.integers(len(numbers)))].name
    value = (math.nan, math.inf, -math.inf)[int(bench.rng.integers(3))]
    client = bench.parameter_client
    kind = ParameterValue(type=ParameterType.PARAMETER_DOUBLE, double_value=value)
    request = SetParameters.Request(parameters=[Parameter(name=name, value=kind)])
    future = client.call_async(request)
    case = Case("none", variant=name, duration_s=ANSWER_S, until=future.done)

    def end() -> None:
        if not future.done():
            case.findings["no_answer"] += 1
        elif any(result.successful for result in future.result().results):
            case.findings["accepted_parameter"] += 1
        bench.base.run(timeout_s=3 * bench.period_s)  # commands under whatever is in force now

    case.end = end
    return case


def prepare_flood(bench: Bench) -> None:
    """Start the process of the flood."""
    _prepare(bench, "flood", bench.start_actor(actors.flood, bench.flood_count, bench.seed))


def prepare_second_publisher(bench: Bench) -> None:
    """Start the process of the second publisher."""
    topic = bench.setting.spec.command.topic
    _prepare(bench, "intruder", bench.start_actor(actors.intruder, topic, bench.period_s))


def _prepare(bench: Bench, name: str, actor: Actor) -> None:
    bench.helpers[name] = actor
    bench.base.run(actor.ready.is_set, 10.0)
    bench.base.run(timeout_s=DISCOVERY_S)


PREPARATIONS: dict[str, Callable[[Bench], None]] = {
    "proposal_flood": prepare_flood,
    "second_publisher": prepare_second_publisher,
}
"""What a fault needs once, before its first repetition."""
PROCESS_FAULTS: dict[str, Callable[[Bench], Case]] = {
    "policy_killed": policy_killed,
    "policy_stopped": policy_stopped,
    "proposal_flood": flood,
    "filter_restarted": filter_restarted,
    "filter_stopped": filter_stopped,
    "second_publisher": second_publisher,
    "parameter_nan": parameter_nan,
}
