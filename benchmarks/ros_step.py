"""Environment steps per second over ROS 2 in lock-step against in-process, and one-way latency.

Three processes as in a session: learner side (this one), safety filter with a 2x64 critic, twin. Every step is
checked: the learner sees each stamp once, the twin and the filter count what they did. ``lost`` is the number of
steps that the learner took and the twin did not, ``doubled`` the number that the twin took beyond that.
``asked_again`` counts questions that were repeated because an answer took longer than 0.1 s; they move nothing.

Rates are given over the whole run, resets included, and as percentiles over windows of 500 steps, which show what
other load on the machine did. One-way latency: a TwistStamped at 200 Hz between two processes, with the profile of
commands (newest only): ``count`` falls short of ``sent`` by what was overtaken by the next message before it was read.
"""

from __future__ import annotations

import itertools
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from geometry_msgs.msg import TwistStamped
from rclpy.context import Context
from rclpy.node import Node
from rclpy.signals import SignalHandlerOptions

from benchmarks.common import finish, make_parser, percentiles, progress, target
from safe_rl_ros.bundle import load_bundle, save_bundle
from safe_rl_ros.config import build
from safe_rl_ros.envs.observation import CommandMap
from safe_rl_ros.envs.robot_env import RobotEnv, make_robot_env
from safe_rl_ros.envs.robot_spec import RobotSpec, load_robot_spec
from safe_rl_ros.inference import GaussianPolicy, SafetyCritic
from safe_rl_ros.messages.readers import read_stamp
from safe_rl_ros.ros import qos
from safe_rl_ros.ros.child import die_with_parent, notify_ready
from safe_rl_ros.ros.conversions import write_stamp
from safe_rl_ros.ros.diagnostics import values_of
from safe_rl_ros.ros.robot_backend import RosBackend
from safe_rl_ros.ros.spin import DeadlineTicker, StopRequest, make_executor
from safe_rl_ros.ros.supervisor import Supervisor, free_domain_id, ros_arguments, ros_variables
from safe_rl_ros.safety.action_filter import ActionFilter, CommandLimits, FilterConfig
from safe_rl_ros.safety.wrapper import SafetyFilterWrapper

SEED = 0
HIDDEN = (64, 64)
WINDOW = 500
LATENCY_HZ = 200
LATENCY_TOPIC = "latency"
SENDER = "--sender"


def layers(rng: np.random.Generator, sizes: list[int], lead: tuple[int, ...] = ()) -> dict[str, Any]:
    """Return random weights of a network."""
    arrays: dict[str, Any] = {}
    for i, (fan_in, fan_out) in enumerate(itertools.pairwise(sizes)):
        arrays[f"weight_{i}"] = rng.normal(size=(*lead, fan_in, fan_out)) / np.sqrt(fan_in)
        arrays[f"bias_{i}"] = np.zeros((*lead, fan_out))
    return arrays


def write_bundle(directory: Path, spec: RobotSpec, obs_names: tuple[str, ...]) -> str:
    """Write random 2x64 networks whose critic is asked every step and always lets pass; return the hash."""
    rng = np.random.default_rng(SEED)
    sizes = {"obs_dim": len(obs_names), "act_dim": spec.act_dim, "hidden": list(HIDDEN)}
    policy = GaussianPolicy.from_arrays(
        layers(rng, [len(obs_names), *HIDDEN, spec.act_dim]) | {"log_std": np.zeros(spec.act_dim)},
        {"kind": "gaussian_policy", "state_dependent_std": False, **sizes},
    )
    critic = SafetyCritic.from_arrays(
        layers(rng, [len(obs_names) + spec.act_dim, *HIDDEN, 1], (1,)),
        {"kind": "safety_critic", "members": 1, "aggregate": "mean", "std_factor": 0.0, **sizes},
    )
    return save_bundle(
        directory,
        policy,
        critic,
        threshold=1.0,
        threshold_mode="fixed",
        spec_hash=spec.hash,
        obs_names=obs_names,
        algorithm="benchmark",
    )


def run_steps(env: Any, steps: int) -> dict[str, Any]:
    """Step with random actions; return rates and step times. Resets count in the rates, not in the step times."""
    rng = np.random.default_rng(SEED)
    actions = rng.uniform(-1.0, 1.0, (steps, 2)).astype(np.float32)
    times_s = np.empty(steps)
    marks = [time.perf_counter()]
    env.reset(seed=SEED)
    begin = time.perf_counter()
    episodes = 1
    for i in range(steps):
        before = time.perf_counter()
        _, _, terminated, truncated, _ = env.step(actions[i])
        times_s[i] = time.perf_counter() - before
        if terminated or truncated:
            env.reset()
            episodes += 1
        if (i + 1) % WINDOW == 0:
            marks.append(time.perf_counter())
            if (i + 1) % (20 * WINDOW) == 0:
                progress(f"{i + 1} steps, {(i + 1) / (marks[-1] - begin):.0f} per s")
    wall_s = time.perf_counter() - begin
    windows = WINDOW / np.diff(marks)
    return {
        "steps": steps,
        "episodes": episodes,
        "steps_per_s": round(steps / wall_s, 1),
        "steps_per_s_by_window": percentiles(windows, (1, 10, 50, 90)),
        "step_ms": percentiles(times_s, (50, 90, 99, 99.9), scale=1e3),
    }


def in_process(spec: RobotSpec, bundle: Path, steps: int) -> dict[str, Any]:
    """Measure twin, filter and learner side in this process."""
    maps = CommandMap(spec)
    limits = CommandLimits(
        spec.command_lower, spec.command_upper, spec.command_rate, spec.command_stop, spec.period_ns * 1e-9
    )
    action_filter = ActionFilter(limits, build(FilterConfig, {}, "defaults"), maps.to_action, maps.to_command)
    env = make_robot_env(spec)
    action_filter.set_model(load_bundle(bundle, spec_hash=spec.hash, obs_names=env.observer.names))
    action_filter.activate()
    with SafetyFilterWrapper(env, action_filter) as filtered:
        return run_steps(filtered, steps)


def cpu_s(pid: int) -> float:
    """Return the processor time that a process has used, s."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def counters(env: RobotEnv, backend: RosBackend, latest: dict[str, dict[str, str]]) -> dict[str, dict[str, str]]:
    """Return what twin and filter have counted, from diagnostics that are newer than now."""
    latest.clear()
    if not backend._link.wait(lambda: {"/twin", "/safety_filter"} <= set(latest), 5.0):
        raise SystemExit("no diagnostics from twin and filter within 5 s")
    return {name: dict(values) for name, values in latest.items()}


def over_ros(spec: RobotSpec, bundle: Path, digest: str, steps: int, executor: str) -> dict[str, Any]:
    """Measure the three processes."""
    with Supervisor(int(os.environ["ROS_DOMAIN_ID"])) as processes:
        common = {"timing": "lockstep", "executor": executor}
        processes.start("twin", "safe_rl_ros.ros.twin_node", ros_arguments(common))
        arguments = ros_arguments({**common, "autostart": True, "bundle": str(bundle), "bundle_sha256": digest})
        processes.start("safety_filter", "safe_rl_ros.ros.safety_filter_node", arguments)
        with RosBackend(spec, executor=executor, step_timeout_s=10.0) as backend:
            latest: dict[str, dict[str, str]] = {}

            def keep(message: DiagnosticArray) -> None:
                latest.update({item.name: values_of(item) for item in message.status})

            backend._link.node.create_subscription(DiagnosticArray, "diagnostics", keep, qos.diagnostics())
            backend.wait_ready(processes.check)
            env = make_robot_env(spec, backend=backend)
            env.reset(seed=SEED)
            env.step(np.zeros(2, dtype=np.float32))  # everybody has found everybody
            before = counters(env, backend, latest)
            pids = {"learner": os.getpid(), **{name: node.process.pid for name, node in processes.nodes.items()}}
            used = {name: cpu_s(pid) for name, pid in pids.items()}
            figures = run_steps(env, steps)
            used = {name: cpu_s(pid) - used[name] for name, pid in pids.items()}
            after = counters(env, backend, latest)

    def grown(name: str, key: str) -> int:
        return int(after[name].get(key, 0)) - int(before[name].get(key, 0))

    stepped = grown("/twin", "steps")
    return {
        **figures,
        "executor": executor,
        "cpu_us_per_step": {name: round(seconds / steps * 1e6) for name, seconds in used.items()},
        "twin_steps": stepped,
        "filter_decisions": grown("/safety_filter", "decisions"),
        "lost": max(0, steps - stepped),
        "doubled": max(0, stepped - steps),
        "wrong_stamp_commands": grown("/twin", "wrong_stamp_commands"),
        "asked_again": grown("/twin", "duplicate_commands"),
    }


def send(rate_hz: int, count: int) -> None:
    """Be the other process of the latency measurement: publish the steady clock's time, which both share."""
    die_with_parent()
    rclpy.init(signal_handler_options=SignalHandlerOptions.NO)
    node = Node("sender")
    publisher = node.create_publisher(TwistStamped, LATENCY_TOPIC, qos.command())
    notify_ready()
    while publisher.get_subscription_count() == 0:
        time.sleep(0.01)
    time.sleep(3.5)  # the other direction of discovery
    message, ticker = TwistStamped(), DeadlineTicker(1_000_000_000 // rate_hz)
    with StopRequest().on_signals() as stop:
        for _ in range(count):
            time.sleep(max(0.0, ticker.remaining_s()))
            ticker.advance()
            write_stamp(message.header.stamp, time.monotonic_ns())
            publisher.publish(message)
        while not stop.requested:
            time.sleep(0.05)
    rclpy.try_shutdown()


def one_way_latency(executor: str, count: int) -> dict[str, Any]:
    """Return percentiles of the time from publish in one process to callback in another, us."""
    delays: list[int] = []

    def receive(message: TwistStamped) -> None:
        delays.append(time.monotonic_ns() - read_stamp(message.header.stamp))

    with Supervisor(int(os.environ["ROS_DOMAIN_ID"])) as processes:
        processes.start("sender", "benchmarks.ros_step", [SENDER, str(count)])
        context = Context()
        rclpy.init(context=context, signal_handler_options=SignalHandlerOptions.NO)
        node = Node("receiver", context=context)
        node.create_subscription(TwistStamped, LATENCY_TOPIC, receive, qos.command())
        spinner = make_executor(executor, context)
        spinner.add_node(node)
        deadline = time.monotonic() + 20.0 + count / LATENCY_HZ
        while len(delays) < count and time.monotonic() < deadline:
            spinner.spin_once(timeout_sec=0.1)
        spinner.shutdown()
        node.destroy_node()
        rclpy.try_shutdown(context=context)
    return {"rate_hz": LATENCY_HZ, "sent": count, **percentiles(delays, (50, 90, 99), scale=1e-3)}


def main() -> None:
    """Measure and report."""
    parser = make_parser(__doc__)
    parser.add_argument("--steps", type=int, help="lock-step steps over ROS (default 100000, quick 2000)")
    parser.add_argument("--executor", default="events", choices=("events", "single"), help="rclpy executor")
    options = parser.parse_args()
    steps = options.steps or (2_000 if options.quick else 100_000)
    messages = 400 if options.quick else 4_000
    os.environ.update(ros_variables(free_domain_id()))
    spec = load_robot_spec("rover")
    with tempfile.TemporaryDirectory() as directory:
        bundle = Path(directory) / "bundle"
        digest = write_bundle(bundle, spec, make_robot_env(spec).observer.names)
        figures: dict[str, Any] = {"in_process": in_process(spec, bundle, 2_000 if options.quick else 20_000)}
        progress(f"in process: {figures['in_process']['steps_per_s']} steps/s")
        figures["ros_lockstep"] = over_ros(spec, bundle, digest, steps, options.executor)
    progress(f"over ROS: {figures['ros_lockstep']['steps_per_s']} steps/s")
    for executor in ("events", "single"):
        figures[f"one_way_latency_us_{executor}"] = one_way_latency(executor, messages)
    ros = figures["ros_lockstep"]
    figures["ratio_in_process_to_ros"] = round(figures["in_process"]["steps_per_s"] / ros["steps_per_s"], 2)
    targets = [
        target("lock-step steps per s", ros["steps_per_s"], 300.0, ">="),
        target(f"lost steps of {steps}", ros["lost"], 0, "=="),
        target(f"doubled steps of {steps}", ros["doubled"], 0, "=="),
    ]
    finish("ros_step", figures, targets, [SEED], options)


if __name__ == "__main__":
    if SENDER in sys.argv:
        send(LATENCY_HZ, int(sys.argv[-1]))
    else:
        main()
