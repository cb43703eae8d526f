"""Ticking, stopping and the end of a node process."""

from __future__ import annotations

import os
import signal
import threading
import time

import pytest

pytest.importorskip("rclpy")
pytestmark = pytest.mark.ros

import rclpy  # noqa: E402
from lifecycle_msgs.srv import ChangeState  # noqa: E402
from rclpy.node import Node  # noqa: E402
from rclpy.signals import SignalHandlerOptions  # noqa: E402
from std_msgs.msg import Int32  # noqa: E402

from safe_rl_ros.ros.lifecycle import RobustLifecycleNode  # noqa: E402
from safe_rl_ros.ros.spin import EXECUTORS, DeadlineTicker, StopRequest, make_executor, run, spin  # noqa: E402
from safe_rl_ros.types import ConfigError  # noqa: E402


class Clock:
    """A clock that stands still until it is set."""

    def __init__(self):
        self.now = 1000

    def __call__(self):
        return self.now


@pytest.fixture
def context():
    context = rclpy.Context()
    rclpy.init(context=context, signal_handler_options=SignalHandlerOptions.NO)
    yield context
    rclpy.try_shutdown(context=context)


def test_ticker_keeps_to_the_grid_however_late_ticks_are():
    clock = Clock()
    ticker = DeadlineTicker(100, clock)
    assert ticker.remaining_s() == pytest.approx(100e-9)
    clock.now = 1130  # 30 late
    assert ticker.remaining_s() < 0
    assert ticker.advance() == 0
    assert ticker.deadline_ns == 1200  # not 1230: no drift
    clock.now = 1450  # the ticks of 1200, 1300 and 1400 are due: one is taken, two are missed
    assert ticker.advance() == 2
    assert ticker.deadline_ns == 1500
    assert (ticker.ticks, ticker.missed, ticker.worst_late_ns) == (2, 2, 250)
    clock.now = 1700
    ticker.restart()
    assert (ticker.deadline_ns, ticker.missed) == (1800, 2)


def test_ticker_refuses_a_period_of_zero():
    with pytest.raises(ConfigError, match="period_ns = 0, expected a positive number"):
        DeadlineTicker(0)


def test_unknown_executor_is_named():
    with pytest.raises(ConfigError, match="executor = 'multi', expected one of single, events"):
        make_executor("multi")


@pytest.mark.parametrize("name", EXECUTORS)
def test_ticks_are_on_time_under_a_flood_of_messages(context, name):
    node = Node("flooded", context=context, use_global_arguments=False)
    received = []
    node.create_subscription(Int32, "flood", lambda message: received.append(message.data), 1000)
    publisher = node.create_publisher(Int32, "flood", 1000)
    executor = make_executor(name, context)
    executor.add_node(node)
    stop, ticker = StopRequest(), DeadlineTicker(20_000_000)
    times = []

    def on_tick():
        times.append(time.monotonic())
        for i in range(100):  # 5 kHz
            publisher.publish(Int32(data=i))
        if ticker.ticks == 15:
            stop.request()

    begin = time.monotonic()
    spin(executor, stop, ticker, on_tick)
    assert ticker.ticks == 15
    # Absolute deadlines: the last one lies on the grid of the first, but for what was counted as missed.
    assert times[-1] - begin == pytest.approx(0.02 * (15 + ticker.missed), abs=0.04)
    assert received
    node.destroy_node()


@pytest.mark.parametrize("name", EXECUTORS)
def test_stop_flag_from_another_thread_ends_the_loop(context, name):
    node = Node("idle", context=context, use_global_arguments=False)
    executor = make_executor(name, context)
    executor.add_node(node)
    stop = StopRequest()
    timer = threading.Timer(0.2, stop.request)
    timer.start()
    begin = time.monotonic()
    spin(executor, stop)
    assert 0.15 < time.monotonic() - begin < 1.0
    timer.join()
    node.destroy_node()


class Recorder:
    """Stands in for a node of :func:`run`: a real node that writes down the order of what is done to it."""

    def __init__(self, log, executor_name="single"):
        self.node = Node("recorder")
        self.log, self.executor_name, self.ticker = log, executor_name, DeadlineTicker(10_000_000)

    def __getattr__(self, name):
        return getattr(self.node, name)

    def tick(self):
        self.log.append("tick")
        if len(self.log) == 3:
            os.kill(os.getpid(), signal.SIGINT)

    def send_stop(self):
        self.log.append(f"stop, context {'alive' if rclpy.ok() else 'gone'}")

    def destroy_node(self):
        self.log.append("destroy")
        self.node.destroy_node()


def test_interrupted_node_stops_the_robot_before_the_context_goes(monkeypatch):
    monkeypatch.setattr("safe_rl_ros.ros.spin.make_executor", lambda name: FakeExecutor())
    log = []
    before = signal.getsignal(signal.SIGINT)
    assert run(lambda: Recorder(log), []) == 0
    assert log == ["tick", "tick", "tick", "stop, context alive", "destroy"]
    assert not rclpy.ok()
    assert signal.getsignal(signal.SIGINT) is before


class FakeExecutor:
    """Runs nothing; enough for a node that only ticks."""

    @property
    def context(self):
        return rclpy.get_default_context()

    def add_node(self, node):
        return None

    remove_node = add_node

    def spin_once(self, timeout_sec):
        time.sleep(timeout_sec)

    def shutdown(self):
        return None


def test_configuration_error_is_one_line_and_status_2(caplog):
    def make_node():
        raise ConfigError("parameter x = 3, expected 4")

    assert run(make_node, []) == 2
    assert [r.getMessage() for r in caplog.records if r.levelname == "ERROR"] == ["parameter x = 3, expected 4"]


@pytest.mark.parametrize("name", EXECUTORS)
def test_illegal_lifecycle_transition_is_refused_and_survived(context, name):
    node = RobustLifecycleNode("careful", context=context, use_global_arguments=False)
    client_node = Node("caller", context=context, use_global_arguments=False)
    client = client_node.create_client(ChangeState, "careful/change_state")
    executor = make_executor(name, context)
    for item in (node, client_node):
        executor.add_node(item)

    def change(transition=0, label=""):
        request = ChangeState.Request()
        request.transition.id, request.transition.label = transition, label
        future = client.call_async(request)
        deadline = time.monotonic() + 5
        while not future.done() and time.monotonic() < deadline:
            executor.spin_once(timeout_sec=0.05)
        return future.result().success, node.lifecycle_state

    assert client.wait_for_service(timeout_sec=5)
    assert change(3) == (False, "unconfigured")  # activate before configure
    assert change(99) == (False, "unconfigured")
    assert change(label="nonsense") == (False, "unconfigured")
    assert change(1) == (True, "inactive")
    assert change(3) == (True, "active")
    assert change(1) == (False, "active")
    node.destroy_node()
    client_node.destroy_node()
