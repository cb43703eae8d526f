"""The other processes of a fault: policy, flood, second publisher, learner, and the filter under test.

They are forked from a server process that has imported everything and started nothing, because a fault needs a fresh
process several times per second and importing takes most of a second. Nothing of ROS 2 exists in that server, so
forking it is safe; each child initialises ROS 2 itself.
"""

from __future__ import annotations

import ctypes
import importlib
import multiprocessing
import os
import random
import signal
import sys
import time
from collections.abc import Callable, Sequence
from multiprocessing.context import ForkServerContext
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import rclpy
from geometry_msgs.msg import TwistStamped
from rclpy.node import Node
from rclpy.signals import SignalHandlerOptions

from benchmarks.chaos.setting import Setting, write_twist
from safe_rl_ros.ros import qos
from safe_rl_ros.ros.spin import DeadlineTicker

AXES = ("linear_x", "angular_z")
PROPOSALS = "safety_filter/proposed"
FILTER_MODULE = "safe_rl_ros.ros.safety_filter_node"
FOREIGN_FRAME = "foreign"
"""Frame id by which the base tells the second publisher's commands from the filter's."""
NAN_SHARE = 0.1
FLOOD_HZ = 10_000
JUMP_SHARE = 0.15
PARENT_DEATH_SIGNAL = 1


def make_context() -> ForkServerContext:
    """Return the context whose server has imported what children need. Set the environment before."""
    context = multiprocessing.get_context("forkserver")
    modules = ["__main__", "benchmarks.chaos.actors", "benchmarks.chaos.bad_filters", FILTER_MODULE]
    context.set_forkserver_preload(modules)
    return context


def start(context: ForkServerContext, domain_id: int, target: Callable[..., None], *arguments: Any) -> BaseProcess:
    """Start a process of a ROS domain that ends with this one."""
    process = context.Process(target=_child, args=(domain_id, target, arguments), daemon=True)
    process.start()
    return process


def _child(domain_id: int, target: Callable[..., None], arguments: Sequence[Any]) -> None:
    ctypes.CDLL(None).prctl(PARENT_DEATH_SIGNAL, signal.SIGKILL, 0, 0, 0)
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    os.environ["ROS_DOMAIN_ID"] = str(domain_id)
    target(*arguments)


def _make_node(name: str) -> Node:
    rclpy.init(args=[], signal_handler_options=SignalHandlerOptions.NO)
    return Node(name, start_parameter_services=False, enable_rosout=False)


def _fill(message: TwistStamped, linear: float, angular: float, stamp_ns: int) -> TwistStamped:
    filled: TwistStamped = write_twist(message, AXES, (linear, angular), stamp_ns)
    return filled


class Wanderer:
    """Commands as a bad policy makes them: mostly a walk, some jumps, a third beyond the limits; never a stop."""

    def __init__(self, seed: int) -> None:
        """Start somewhere."""
        self._random = random.Random(seed)
        self._linear, self._angular = 0.2, 0.1

    def next(self) -> tuple[float, float]:
        """Return the next command (m/s, rad/s)."""
        draw = self._random
        if draw.random() < JUMP_SHARE:
            self._linear, self._angular = draw.uniform(-1.0, 2.0), draw.uniform(-4.0, 4.0)
        else:
            self._linear = min(2.0, max(-1.0, self._linear + draw.gauss(0.0, 0.1)))
            self._angular = min(4.0, max(-4.0, self._angular + draw.gauss(0.0, 0.4)))
        return self._linear or 0.1, self._angular or 0.1


def policy(ready: Any, active: Any, clock_offset_ns: Any, period_s: float, seed: int) -> None:
    """Propose once per period while ``active``; stamps are the system clock's plus an offset."""
    publisher = _make_node(f"policy_{seed % 100_000}").create_publisher(TwistStamped, PROPOSALS, qos.command())
    message, wanderer = TwistStamped(), Wanderer(seed)
    ready.set()
    while True:
        active.wait()
        ticker = DeadlineTicker(round(period_s * 1e9))
        while active.is_set():
            publisher.publish(_fill(message, *wanderer.next(), time.time_ns() + clock_offset_ns.value))
            time.sleep(max(0.0, ticker.remaining_s()))
            ticker.advance()


def flood(ready: Any, active: Any, sent: Any, seed: int) -> None:
    """Propose at 10 kHz, or as fast as this machine can, while ``active``; a tenth is not finite."""
    publisher = _make_node("flood").create_publisher(TwistStamped, PROPOSALS, qos.command())
    message, wanderer, draw = TwistStamped(), Wanderer(seed), random.Random(seed)
    ready.set()
    while True:
        active.wait()
        begin, count = time.perf_counter(), 0
        while active.is_set():
            linear, angular = wanderer.next()
            if draw.random() < NAN_SHARE:
                linear = draw.choice((float("nan"), float("inf"), 1e308))
            publisher.publish(_fill(message, linear, angular, time.time_ns()))
            count += 1
            sent.value += 1
            ahead_s = count / FLOOD_HZ - (time.perf_counter() - begin)
            if ahead_s > 0.0:
                time.sleep(ahead_s)


def intruder(ready: Any, active: Any, topic: str, period_s: float) -> None:
    """Be a second publisher of the actuator topic while ``active``: the publisher exists only then."""
    node = _make_node("intruder")
    message = TwistStamped()
    message.header.frame_id = FOREIGN_FRAME
    ready.set()
    while True:
        active.wait()
        publisher = node.create_publisher(TwistStamped, topic, qos.command())
        while active.is_set():
            publisher.publish(_fill(message, 0.3, 0.2, time.time_ns()))
            time.sleep(period_s)
        node.destroy_publisher(publisher)


def learner(ready: Any, setting: Setting, directory: Path, note: str, replace: bool) -> None:
    """Write a bundle, as a learner does; whoever started this kills it on the way."""
    ready.set()
    setting.write(directory, note=note, replace=replace)
    time.sleep(60.0)


def run_filter(module: str, arguments: Sequence[str], log: Path) -> None:
    """Be the filter: run the ``main`` of a node module with its output in a file."""
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    sys.argv = [module, *arguments]
    raise SystemExit(importlib.import_module(module).main())
