"""The fault matrix of the filter node: what arrives at the robot's command input while processes, data and files fail.

The filter node runs in a process of its own among a policy (another process, kept bad on purpose: a third of its
proposals is beyond the limits, many are vetoed) and a stand-in for the base, which shows sensors at the control rate,
keeps every command that arrives, with the middleware's time of arrival, and checks it by itself: limits and rate from
the robot spec, the critic's risk asked again, the filter's decision record joined by stamp, and the stop deadline. The
robot is the rover at 50 Hz with timeouts of 0.1 s. Each repetition waits until commands flow, then starts the fault at
a random time. A stop deadline counts from the fault (from the first disturbed message where messages are the fault)
and is the timeout plus two periods; where no timeout has to run out (NaN, a second publisher) see ``stop_deadline_ms``.
``time_to_stop`` is until the first command of the stops that lasted until the fault ended.

Faults that need not stop the robot (a bad bundle, a flood) count the same violations, and ``longest_silence_ms``.
A repetition in which a stop had a deadline and the observer itself woke up more than a period late does not count: the
machine was busy elsewhere. How many there were is in ``counts.disturbed``; their commands are checked all the same.

A self-test puts bad filters in the node's place; the harness has to find what each of them does wrong.

With a second publisher only the filter's own commands are judged; keeping others out is what SROS2 is for.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
import zlib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from multiprocessing.context import ForkServerContext
from pathlib import Path
from typing import Any

from benchmarks.chaos import actors
from benchmarks.chaos.bench import Bench
from benchmarks.chaos.bundle_faults import BUNDLE_FAULTS
from benchmarks.chaos.case import Case, Result
from benchmarks.chaos.input_faults import INPUT_FAULTS
from benchmarks.chaos.process_faults import PREPARATIONS, PROCESS_FAULTS
from benchmarks.chaos.setting import RATE_HZ, TIMEOUT_S, Setting, make_setting
from benchmarks.common import finish, make_parser, progress, target
from safe_rl_ros.ros.supervisor import free_domain_id, ros_variables

SEED = 0
REPETITIONS = 200
FAULTS: dict[str, Callable[[Bench], Case]] = {**INPUT_FAULTS, **PROCESS_FAULTS, **BUNDLE_FAULTS}
PARAMETERS: dict[str, dict[str, object]] = {"second_publisher": {"other_publishers": "stop"}}
"""Filter parameters of single faults; what the node does not have is left out."""
LIMIT_RULES = ("not_finite", "limit", "rate")
VETO_RULES = ("vetoed", "vetoed_record", "bad_bundle")
DEADLINE_RULES = ("after_deadline", "sent_when_stale", "no_stop")

SELF_TEST: dict[str, tuple[str, tuple[str, ...], dict[str, object], tuple[str, ...]]] = {
    "passthrough": ("observation_dropped", ("passthrough",), {}, ("limit", "rate", "vetoed", "after_deadline")),
    "passthrough, policy killed": ("policy_killed", ("passthrough",), {}, ("limit", "rate", "vetoed", "no_stop")),
    "hold": ("policy_killed", ("hold",), {}, ("rate", "vetoed", "after_deadline")),
    "jumpy": ("policy_stopped", ("jumpy",), {}, ("rate", "vetoed")),
    "the node, timeouts 3 times too long": (
        "policy_killed",
        (),
        {"proposal_timeout_s": 3 * TIMEOUT_S},
        ("after_deadline",),
    ),
    "the node, critic off": ("parameter_nan", (), {"critic": "off"}, ("vetoed",)),
}
"""Bad filter -> fault, arguments of the bad node (none: the real one), its parameters, rules that must be broken."""
MOST_ATTEMPTS = 1.5
"""Attempts per repetition: some are spoilt by other work on the machine."""
BAD_MODULE = "benchmarks.chaos.bad_filters"
SELF_TEST_REPETITIONS = 4


def run_fault(
    context: ForkServerContext,
    setting: Setting,
    name: str,
    repetitions: int,
    seed: int,
    *,
    bad: tuple[str, ...] = (),
    parameters: Mapping[str, object] | None = None,
) -> Result:
    """Repeat one fault in a graph of its own."""
    result = Result()
    begin = time.monotonic()
    chosen = {**PARAMETERS.get(name, {}), **(parameters or {})}
    module = BAD_MODULE if bad else actors.FILTER_MODULE
    fault_seed = seed + zlib.crc32(name.encode()) % 100_000
    with Bench(context, setting, fault_seed, module=module, parameters=chosen, extra_arguments=bad) as bench:
        if name in PREPARATIONS:
            PREPARATIONS[name](bench)
        bench.check_commands(result)
        for _ in range(round(MOST_ATTEMPTS * repetitions)):
            if result.repetitions < repetitions:
                bench.repeat(FAULTS[name], result)
        bench.check_commands(result, last=True)
    result.wall_s = time.monotonic() - begin
    return result


def self_test(context: ForkServerContext, setting: Setting, seed: int) -> dict[str, Any]:
    """Run the bad filters; return what was found and what was missed."""
    figures: dict[str, Any] = {}
    for name, (fault, bad, parameters, expected) in SELF_TEST.items():
        result = run_fault(context, setting, fault, SELF_TEST_REPETITIONS, seed, bad=bad, parameters=parameters)
        missed = [rule for rule in expected if not result.violations[rule]]
        figures[name] = {"fault": fault, "violations": dict(result.violations), "missed": missed}
        progress(f"self-test, {name}: {dict(result.violations)}{' MISSED ' + ', '.join(missed) if missed else ''}")
    return figures


def run_parallel(names: Sequence[str], options: argparse.Namespace, directory: Path) -> dict[str, dict[str, Any]]:
    """Run each fault in a worker process of its own, some at a time; return the summaries by fault."""
    waiting, running = list(names), dict[str, subprocess.Popen[bytes]]()
    arguments = ["--repetitions", str(repetitions_of(options)), "--seed", str(options.seed)]
    summaries: dict[str, dict[str, Any]] = {}
    try:
        while waiting or running:
            while waiting and len(running) < options.jobs:
                name = waiting.pop(0)
                command = [sys.executable, "-m", "benchmarks.filter_chaos", "--worker", str(directory / name)]
                running[name] = subprocess.Popen([*command, "--faults", name, *arguments])
            time.sleep(0.1)
            for name in [name for name, process in running.items() if process.poll() is not None]:
                if running.pop(name).returncode:
                    raise SystemExit(f"the worker of {name} failed")
                summaries[name] = json.loads((directory / name).read_text(encoding="utf-8"))
                say(name, summaries[name])
    finally:
        for process in running.values():
            process.terminate()
            process.wait()
    return {name: summaries[name] for name in names}


def say(name: str, summary: Mapping[str, Any]) -> None:
    """Say what one fault showed."""
    progress(
        f"{name}: {summary['repetitions']} in {summary['wall_s']} s, violations {summary['violations']}, "
        f"stop ms {summary['time_to_stop_ms']}, recovery ms {summary['time_to_recover_ms']}"
    )


def report(results: Mapping[str, Any], tested: Mapping[str, Any], wanted: int) -> tuple[dict[str, Any], list[Any]]:
    """Return figures and targets from the summaries of the faults."""
    total: Counter[str] = sum((Counter(summary["violations"]) for summary in results.values()), Counter())
    counts: Counter[str] = sum((Counter(summary["counts"]) for summary in results.values()), Counter())
    other = sum(total.values()) - sum(total[rule] for rule in (*LIMIT_RULES, *VETO_RULES, *DEADLINE_RULES))
    figures = {
        "control_rate_hz": RATE_HZ,
        "timeout_s": TIMEOUT_S,
        "counts": dict(counts),
        "violations": dict(total),
        "faults": dict(results),
        "self_test": dict(tested),
    }
    fewest = min((summary["repetitions"] for summary in results.values()), default=0)
    missed = sum(len(case["missed"]) for case in tested.values())
    targets = [
        target("faults of the matrix", len(results), len(FAULTS), ">="),
        target("fewest repetitions of a fault", fewest, wanted, ">="),
        target("commands that break a limit", sum(total[rule] for rule in LIMIT_RULES), 0, "=="),
        target("commands that were vetoed", sum(total[rule] for rule in VETO_RULES), 0, "=="),
        target("commands after the stop deadline", sum(total[rule] for rule in DEADLINE_RULES), 0, "=="),
        target("other violations (parameters, reports, answers)", other, 0, "=="),
        target("faults without recovery", counts["not_recovered"], 0, "=="),
        target("bad filters tried", len(tested), len(SELF_TEST), ">="),
        target("violations of bad filters missed", missed, 0, "=="),
    ]
    return figures, targets


def repetitions_of(options: argparse.Namespace) -> int:
    """Return how often each fault is done."""
    return int(options.repetitions or (5 if options.quick else REPETITIONS))


def parse_arguments() -> argparse.Namespace:
    """Return the options."""
    parser = make_parser(__doc__)
    parser.add_argument("--repetitions", type=int, help=f"of each fault (default {REPETITIONS}, quick 5)")
    parser.add_argument("--faults", nargs="+", choices=sorted(FAULTS), help="only these")
    parser.add_argument("--no-self-test", action="store_true", help="do not run the bad filters")
    parser.add_argument("--seed", type=int, default=SEED)
    parser.add_argument("--jobs", type=int, default=1, help="faults at a time; more than 1 disturbs times to stop")
    parser.add_argument("--worker", type=Path, help=argparse.SUPPRESS)
    return parser.parse_args()


def main() -> None:
    """Run the matrix and report."""
    options = parse_arguments()
    names, repetitions = options.faults or list(FAULTS), repetitions_of(options)
    os.environ.update(ros_variables(free_domain_id()))
    os.environ.update({name: "1" for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")})
    with tempfile.TemporaryDirectory(prefix="safe_rl_ros_chaos_") as folder:
        directory = Path(folder)
        os.environ["ROS_LOG_DIR"] = folder
        context, setting = actors.make_context(), make_setting(directory, options.seed)
        if options.worker:
            summary = run_fault(context, setting, names[0], repetitions, options.seed).summary()
            options.worker.write_text(json.dumps(summary), encoding="utf-8")
            return
        tested = {} if options.no_self_test else self_test(context, setting, options.seed)
        if options.jobs > 1:
            results = run_parallel(names, options, directory)
        else:
            results = {}
            for name in names:
                results[name] = run_fault(context, setting, name, repetitions, options.seed).summary()
                say(name, results[name])
    figures, targets = report(results, tested, REPETITIONS)
    finish("filter_chaos", figures, targets, [options.seed], options)


if __name__ == "__main__":
    main()
