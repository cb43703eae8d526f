"""The filter node in a real graph at several control rates: jitter, latency, missed ticks, CPU, memory.

Three processes, as on a robot: base (this one), policy, filter, with a 2x256 policy and critic and every proposal
judged. The base publishes odometry and joint states at the control rate and a scan at 40 Hz, as lidars do; the policy
answers each odometry message; the filter ticks on its own timer. Each proposal carries a value of its own, so the
command that carries it out is known, and the latency is from publishing the proposal to the command's arrival in the
base's middleware.

A proposal waits for the filter's next tick, up to a period. That wait depends only on when in the period the base
shows its state, so the base keeps that at a quarter of a period after it gets a command. ``latency_without_wait_ms``
takes the wait in the filter out: what is left is transport, executor and decision.

``period_error_us`` is how far the time between two commands is from the period, as they arrive and as the filter
stamped them. ``missed_ticks`` is the filter's own count of periods without a tick, ``missing_commands`` what the base
sees: periods without a command. A witness (:mod:`benchmarks.stall_witness`) tells which of these fell into a stall of
the whole machine: ``undisturbed`` are those that did not.

The filter runs with its parameters ``realtime_scheduling`` and ``lock_memory``; ``*_plain`` is without.
"""

from __future__ import annotations

import bisect
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from geometry_msgs.msg import PoseStamped, TwistStamped
from nav_msgs.msg import Odometry
from rclpy.context import Context
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.qos import HistoryPolicy, QoSProfile, ReliabilityPolicy
from rclpy.signals import SignalHandlerOptions
from sensor_msgs.msg import JointState, LaserScan
from std_msgs.msg import Float64MultiArray

from benchmarks.chaos.setting import GOAL, Setting, make_setting, make_state, read_twist, write_twist
from benchmarks.common import finish, make_parser, percentiles, progress, target
from benchmarks.ros_step import cpu_s
from benchmarks.stall_witness import StallWitness, missed_periods
from safe_rl_ros.ros import diagnostics, qos
from safe_rl_ros.ros.child import die_with_parent, notify_ready
from safe_rl_ros.ros.conversions import StateWriter
from safe_rl_ros.ros.spin import DeadlineTicker, StopRequest
from safe_rl_ros.ros.supervisor import Supervisor, free_domain_id, ros_arguments, ros_variables
from safe_rl_ros.types import Reason

SEED = 0
RATES_HZ = (50, 100, 200, 500)
SECONDS = 60.0
WARM_UP_S = 5.0
SCAN_HZ = 40.0
TIMEOUT_S = 0.3
HIDDEN = (256, 256)
PHASE = 0.25
"""When in the period the base shows its state, counted from the arrival of a command."""
TARGET_HZ = 200
FIRST_VALUE, VALUE_STEP = 0.1, 1e-7
"""Linear speed of the first proposal and the difference to the next: one value per proposal, far within the limits."""
POLICY = "--policy"
NS_PER_S = 1_000_000_000
Times = npt.NDArray[np.int64]


def policy(times_file: Path) -> None:
    """Answer each odometry message with the next proposal; write the publication times (ns) at the end."""
    die_with_parent()
    rclpy.init(args=[], signal_handler_options=SignalHandlerOptions.NO)
    node = Node("policy", start_parameter_services=False, enable_rosout=False)
    publisher = node.create_publisher(TwistStamped, "safety_filter/proposed", qos.command())
    times: list[int] = []
    message = TwistStamped()

    def answer(odom: Odometry) -> None:
        stamp = odom.header.stamp
        values = (FIRST_VALUE + len(times) * VALUE_STEP, 0.0)
        write_twist(message, ("linear_x", "angular_z"), values, stamp.sec * NS_PER_S + stamp.nanosec)
        times.append(time.time_ns())
        publisher.publish(message)

    node.create_subscription(Odometry, "odom", answer, qos.sensor_reader("realtime"))
    executor = SingleThreadedExecutor()
    executor.add_node(node)
    notify_ready()
    with StopRequest().on_signals() as stop:
        while not stop.requested:
            executor.spin_once(timeout_sec=0.1)
    np.save(times_file, np.array(times, dtype=np.int64), allow_pickle=False)
    rclpy.try_shutdown()


class Base(Node):
    """Shows states on its own timer; keeps the arrival of commands, their stamps, and the age of proposals."""

    def __init__(self, setting: Setting, context: Context) -> None:
        """Create the topics."""
        super().__init__("base", context=context, start_parameter_services=False, enable_rosout=False)
        spec = self._spec = setting.spec
        self.ticker = DeadlineTicker(spec.period_ns)
        self.commands: list[tuple[int, int, int, float]] = []
        """Arrival and stamp, ns, sequence number and linear speed."""
        self.decisions: list[tuple[int, float, int]] = []
        """Stamp, ns, age of the proposal, s, and reason."""
        self.counters: list[dict[str, str]] = []
        self._axes = setting.axes
        self._state = make_state(spec, 0, np.full(spec.sensors.scan.rays, 2.5, dtype=np.float32))
        self._writer = StateWriter(spec)
        sensors = qos.sensor_writer("realtime")
        self._odom = self.create_publisher(Odometry, spec.sensors.odom.topic, sensors)
        self._scan = self.create_publisher(LaserScan, spec.sensors.scan.topic, sensors)
        self._joints = self.create_publisher(JointState, spec.sensors.joint_states.topic, sensors)
        self._goal = self.create_publisher(PoseStamped, "goal_pose", qos.command())
        self._scan_due_ns = 0
        every = QoSProfile(history=HistoryPolicy.KEEP_LAST, depth=1000, reliability=ReliabilityPolicy.RELIABLE)
        self.create_subscription(TwistStamped, spec.command.topic, self._on_command, every)
        self.create_subscription(Float64MultiArray, "safety_filter/decisions", self._on_decision, every)
        self.create_subscription(DiagnosticArray, "diagnostics", self._on_diagnostics, qos.diagnostics())
        self._executor = SingleThreadedExecutor(context=context)
        self._executor.add_node(self)

    def _on_command(self, message: TwistStamped, info: dict[str, Any]) -> None:
        stamp = message.header.stamp
        self.commands.append(
            (
                int(info["received_timestamp"]),
                stamp.sec * NS_PER_S + stamp.nanosec,
                int(info["publication_sequence_number"]),
                read_twist(message, self._axes)[0],
            )
        )

    def _on_decision(self, message: Float64MultiArray) -> None:
        columns = message.layout.dim[0].label.split(",")
        row = dict(zip(columns, message.data, strict=True))
        stamp_ns = int(row["stamp_sec"]) * NS_PER_S + int(row["stamp_nanosec"])
        self.decisions.append((stamp_ns, row["proposal_age_s"], int(row["reason"])))

    def _on_diagnostics(self, message: DiagnosticArray) -> None:
        self.counters += [diagnostics.values_of(s) for s in message.status if s.name.endswith("safety_filter")]

    def _show(self) -> None:
        now_ns = time.time_ns()
        self._writer.write(replace(self._state, stamp_ns=now_ns))
        self._odom.publish(self._writer.odom)
        self._joints.publish(self._writer.joints)
        if now_ns >= self._scan_due_ns:
            self._scan_due_ns = now_ns + round(NS_PER_S / SCAN_HZ)
            self._scan.publish(self._writer.scan)
            goal = PoseStamped()
            goal.header.frame_id = self._spec.frames.odom
            goal.pose.position.x, goal.pose.position.y = GOAL.tolist()
            goal.pose.orientation.w = 1.0
            self._goal.publish(goal)

    def run(self, seconds: float) -> None:
        """Show states and take messages for some time."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            remaining_s = self.ticker.remaining_s()
            if remaining_s <= 0.0:
                self.ticker.advance()
                self._show()
            elif remaining_s <= 0.0004:
                time.sleep(remaining_s)
            else:
                self._executor.spin_once(timeout_sec=remaining_s - 0.0002)

    def align(self) -> None:
        """Move this base's timer so that it shows its state :data:`PHASE` of a period after a command arrives."""
        period_ns = self.ticker.period_ns
        offset_ns = time.time_ns() - time.monotonic_ns()
        arrivals = np.array([command[0] - offset_ns for command in self.commands[-50:]])
        late_ns = (arrivals - self.ticker.deadline_ns) % period_ns
        # The middle of phases that may lie on both sides of zero.
        angle = np.angle(np.exp(2j * np.pi * late_ns / period_ns).mean()) / (2 * np.pi)
        self.ticker.deadline_ns += round(((angle + PHASE) % 1.0) * period_ns)

    def missed(self) -> int:
        """Return what the filter counts as missed now."""
        self.counters.clear()
        for _ in range(30):
            self.run(0.1)
            if self.counters:
                return int(self.counters[-1]["missed_ticks"])
        raise SystemExit("no diagnostics from the filter within 3 s")

    def close(self) -> None:
        """Release executor and node."""
        self._executor.shutdown()
        self.destroy_node()


def resident_kb(pid: int) -> int:
    """Return the resident memory of a process, kB."""
    for line in Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1])
    raise ValueError(f"/proc/{pid}/status has no VmRSS")


def waits_of(stamps: Times, decisions: Sequence[tuple[int, float, int]], period_ns: int) -> npt.NDArray[np.float64]:
    """Return for each command's stamp how old (s) the proposal was that it carries out.

    It is in the decision that follows the command within a period; NaN where that is missing or carried out something
    else than the proposal as it was.
    """
    ages = np.full(len(stamps), np.nan)
    known = [stamp for stamp, _, _ in decisions]
    for row, stamp in enumerate(stamps.tolist()):
        at = bisect.bisect_left(known, stamp)
        if at < len(known) and known[at] - stamp < period_ns and decisions[at][2] == Reason.ACCEPTED:
            ages[row] = decisions[at][1]
    return ages


def latencies(base: Base, published: Times, begin_ns: int) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Return from publication to command, s, and the same without the wait in the filter; of each proposal's first."""
    arrivals, stamps, _, speeds = (np.array(column) for column in zip(*base.commands, strict=True))
    waits = waits_of(stamps, base.decisions, base.ticker.period_ns)
    numbers = np.rint((speeds - FIRST_VALUE) / VALUE_STEP).astype(np.int64)
    usable = np.isfinite(waits) & (arrivals >= begin_ns) & (numbers >= 0) & (numbers < len(published))
    arrivals, waits, numbers = arrivals[usable], waits[usable], numbers[usable]
    numbers, first = np.unique(numbers, return_index=True)
    total = (arrivals[first] - published[numbers]) * 1e-9
    return total, total - waits[first]


def measure(rate_hz: float, seconds: float, executor: str, realtime: bool) -> dict[str, Any]:
    """Run the graph at one control rate."""
    with tempfile.TemporaryDirectory() as folder, Supervisor(int(os.environ["ROS_DOMAIN_ID"])) as processes:
        directory = Path(folder)
        setting = make_setting(directory, SEED, rate_hz, TIMEOUT_S, HIDDEN, threshold=1.0)
        values = {"robot": str(setting.robot_file), "timing": "realtime", "executor": executor, "autostart": True}
        values |= {"realtime_scheduling": realtime, "lock_memory": realtime}
        values |= {"bundle": str(setting.bundle_path), "bundle_sha256": setting.digest}
        node = processes.start("safety_filter", "safe_rl_ros.ros.safety_filter_node", ros_arguments(values))
        times_file = directory / "published.npy"
        helper = processes.start("policy", "benchmarks.filter_node", [POLICY, str(times_file)])
        context = Context()
        rclpy.init(context=context, signal_handler_options=SignalHandlerOptions.NO)
        base = Base(setting, context)
        try:
            base.run(WARM_UP_S)
            if len(base.commands) < 100:
                raise SystemExit(f"{len(base.commands)} commands in {WARM_UP_S} s; the filter says:\n{node.tail()}")
            base.align()
            figures = observe(base, {"filter": node.process.pid, "policy": helper.process.pid}, seconds)
            begin_ns = figures.pop("begin_ns")
            processes.end("policy")
            published = np.load(times_file, allow_pickle=False)
        finally:
            base.close()
            rclpy.try_shutdown(context=context)
    total, work = latencies(base, published, begin_ns)
    figures["latency_ms"] = percentiles(total, (50, 90, 99), scale=1e3)
    figures["latency_without_wait_ms"] = percentiles(work, (50, 90, 99), scale=1e3)
    return {"rate_hz": rate_hz, "period_ms": 1e3 / rate_hz, "executor": executor, "realtime": realtime, **figures}


def observe(base: Base, pids: dict[str, int], seconds: float) -> dict[str, Any]:
    """Run undisturbed for some time; return everything but latencies."""
    missed = base.missed()
    base.commands.clear()
    base.decisions.clear()
    base.ticker.missed = 0
    pids = {**pids, "base": os.getpid()}
    used = {name: cpu_s(pid) for name, pid in pids.items()}
    begin, begin_ns, memory = time.monotonic(), time.time_ns(), []
    with StallWitness() as witness:
        while time.monotonic() - begin < seconds:
            base.run(min(1.0, seconds - (time.monotonic() - begin)))
            memory.append(resident_kb(pids["filter"]))
    wall_s = time.monotonic() - begin
    used = {name: (cpu_s(pid) - used[name]) / wall_s for name, pid in pids.items()}
    arrivals, stamps, sequence, _ = (np.array(column) for column in zip(*base.commands, strict=True))
    shown_missed = base.ticker.missed
    period_ns = base.ticker.period_ns
    periods = round(float(stamps[-1] - stamps[0]) / period_ns)
    undisturbed, disturbed = missed_periods(stamps, period_ns, witness.stalls)
    minutes = np.arange(len(memory)) / 60.0
    return {
        "begin_ns": begin_ns,
        "seconds": round(wall_s, 1),
        "commands": len(arrivals),
        "period_error_us": percentiles(np.abs(np.diff(arrivals) - period_ns), (50, 99), scale=1e-3),
        "period_error_sent_us": percentiles(np.abs(np.diff(stamps) - period_ns), (50, 99), scale=1e-3),
        "missed_ticks": base.missed() - missed,
        "periods_without_command": {"undisturbed": undisturbed, "machine_stalled": disturbed},
        "machine": witness.summary(),
        "missing_commands": max(0, periods + 1 - len(arrivals)),
        "lost_in_transport": int((np.diff(sequence) - 1).sum()),
        "missed_by_base": shown_missed,
        "cpu_cores": {name: round(share, 3) for name, share in used.items()},
        "filter_memory_mb": {"begin": round(memory[0] / 1024, 2), "end": round(memory[-1] / 1024, 2)},
        "filter_memory_growth_kb": memory[-1] - memory[0],
        "filter_memory_slope_kb_per_min": round(float(np.polyfit(minutes, memory, 1)[0]), 1)
        if len(memory) > 1
        else 0.0,
    }


def make_targets(name: str, result: dict[str, Any]) -> list[dict[str, Any]]:
    """Return what is asked of the run at the rate that has targets."""
    periods = result["periods_without_command"]
    return [
        target(f"{name}: seconds of running", result["seconds"], SECONDS, ">="),
        target(f"{name}: missed ticks, undisturbed", periods["undisturbed"], 0, "=="),
        target(f"{name}: missed ticks, stalls of the machine included", sum(periods.values()), 0, "=="),
        target(f"{name}: p99 latency, ms", result["latency_ms"]["p99"], result["period_ms"], "<"),
    ]


def main() -> None:
    """Measure and report."""
    parser = make_parser(__doc__)
    parser.add_argument("--seconds", type=float, help=f"at each rate (default {SECONDS:g}, quick 4)")
    parser.add_argument("--rates", type=int, nargs="+", default=list(RATES_HZ), help="control rates, Hz")
    parser.add_argument("--executor", default="events", choices=("events", "single"), help="of the filter")
    parser.add_argument("--plain", action="store_true", help="no realtime scheduling of the filter at any rate")
    options = parser.parse_args()
    seconds = options.seconds or (4.0 if options.quick else SECONDS)
    os.environ.update(ros_variables(free_domain_id()))
    figures: dict[str, Any] = {}
    targets = []
    for rate_hz in options.rates:
        for realtime in (False,) if options.plain else (True, False) if rate_hz == TARGET_HZ else (True,):
            name = f"{rate_hz}_hz" if realtime else f"{rate_hz}_hz_plain"
            result = figures[name] = measure(rate_hz, seconds, options.executor, realtime)
            progress(
                f"{name}: missed {result['missed_ticks']}, {result['periods_without_command']}, {result['machine']}, "
                f"latency ms {result['latency_ms']}, period error us {result['period_error_us']}, "
                f"cpu {result['cpu_cores']}, memory slope {result['filter_memory_slope_kb_per_min']} kB/min"
            )
            if rate_hz == TARGET_HZ:
                targets += make_targets(name, result)
    finish("filter_node", figures, targets, [SEED], options)


if __name__ == "__main__":
    if POLICY in sys.argv:
        policy(Path(sys.argv[-1]))
    else:
        main()
