"""The twin as a node: one period per command in lock-step, a watchdog in real time, seeded resets."""

from __future__ import annotations

import json

import numpy as np
import pytest

pytest.importorskip("rclpy")
pytestmark = pytest.mark.ros

from geometry_msgs.msg import TwistStamped  # noqa: E402
from nav_msgs.msg import Odometry  # noqa: E402
from rclpy.parameter import Parameter  # noqa: E402
from rclpy.qos import QoSCompatibility, qos_check_compatible, qos_profile_sensor_data  # noqa: E402
from ros_helpers import PERIOD_NS, SPEC, TASK, bench  # noqa: E402
from rosgraph_msgs.msg import Clock  # noqa: E402
from std_srvs.srv import Trigger  # noqa: E402

from safe_rl_ros.envs.backend import RESET_GAP_NS  # noqa: E402
from safe_rl_ros.envs.mujoco_backend import MujocoBackend  # noqa: E402
from safe_rl_ros.envs.tasks.hazard_nav import HazardNav  # noqa: E402
from safe_rl_ros.messages.readers import StateReader, read_stamp  # noqa: E402
from safe_rl_ros.ros import qos  # noqa: E402
from safe_rl_ros.ros.conversions import make_command_codec  # noqa: E402
from safe_rl_ros.ros.twin_node import TwinNode  # noqa: E402


class Driver:
    """Commands the twin and keeps what it shows."""

    def __init__(self, setup):
        self.setup, node = setup, setup.harness
        self.codec = make_command_codec(SPEC)
        self.commands = node.create_publisher(TwistStamped, "cmd_vel", qos.command())
        self.reset = node.create_client(Trigger, "twin/reset")
        self.odometry, self.clock = [], []
        node.create_subscription(Odometry, "odom", self._on_odom, qos.sensor_reader("lockstep"))
        node.create_subscription(Clock, "/clock", lambda m: self.clock.append(read_stamp(m.clock)), qos.clock())
        assert setup.run(lambda: self.odometry, 5.0)

    def _on_odom(self, message):
        stamp = read_stamp(message.header.stamp)
        if not self.odometry or self.odometry[-1][0] != stamp:
            self.odometry.append((stamp, StateReader(SPEC).odometry(message)))

    @property
    def stamp(self):
        return self.odometry[-1][0]

    def command(self, values, stamp):
        self.commands.publish(self.codec.write(np.array(values), stamp))

    def step(self, values):
        before = self.stamp
        self.command(values, before)
        assert self.setup.run(lambda: self.stamp != before)

    def follow(self, backend, seed):
        """Reset and step twin and ``backend`` alike; both show the same, bit for bit. Return the reset's answer."""
        answer, expected = self.call_reset(seed), backend.reset(seed)
        assert self.odometry[-1][1].position.tobytes() == expected.position.tobytes()
        for _ in range(3):
            self.step([0.3, 0.7])
            expected = backend.step(np.array([0.3, 0.7])).state
        assert self.odometry[-1][1].position.tobytes() == expected.position.tobytes()
        return answer

    def call_reset(self, seed):
        self.setup.node.set_parameters([Parameter("reset_seed", value=seed)])
        assert self.reset.wait_for_service(timeout_sec=5.0)
        future = self.reset.call_async(Trigger.Request())
        assert self.setup.run(future.done)
        assert future.result().success
        answer = json.loads(future.result().message)
        assert self.setup.run(lambda: self.stamp == answer["stamp_ns"])
        return answer


@pytest.fixture
def lockstep():
    with bench(TwinNode, {"timing": "lockstep"}) as setup:
        yield Driver(setup)


def test_lockstep_steps_once_per_command_of_the_current_stamp(lockstep):
    driver, gate = lockstep, lockstep.setup.node._gate
    first = driver.stamp
    for _ in range(3):
        driver.command([0.2, 0.0], first)
        driver.setup.settle(0.05)
    assert driver.stamp == first + PERIOD_NS
    driver.command([0.2, 0.0], first + 7)  # a stamp that never was
    driver.setup.settle(0.05)
    driver.command([0.2, 0.0], driver.stamp + PERIOD_NS)  # a state that is not yet
    driver.setup.settle(0.05)
    assert driver.stamp == first + PERIOD_NS
    assert (gate.accepted, gate.duplicates, gate.wrong_stamps) == (1, 2, 2)
    assert driver.setup.run(lambda: "/twin" in driver.setup.harness.diagnostics, 3.0)
    shown = driver.setup.harness.diagnostics["/twin"]
    assert (shown["accepted"], shown["duplicate_commands"], shown["wrong_stamp_commands"]) == ("1", "2", "2")


def test_lockstep_time_stands_still_without_commands_and_the_state_is_shown_again(lockstep):
    driver = lockstep
    before, shown = driver.stamp, driver.setup.node._counts["repeats"]
    driver.setup.settle(0.5)
    assert driver.stamp == before
    assert driver.setup.node._counts["repeats"] >= shown + 2
    assert set(driver.clock) <= {before}


def test_non_finite_command_is_a_stop_for_one_period(lockstep):
    driver = lockstep
    for _ in range(5):
        driver.step([0.5, 0.0])
    speed = driver.odometry[-1][1].linear_velocity[0]
    assert speed > 0.3
    for _ in range(3):
        driver.step([np.nan, 0.0])
    assert driver.odometry[-1][1].linear_velocity[0] < 0.1
    assert driver.setup.node._counts["refused_commands"] == 3


def test_reset_is_seeded_and_equal_to_the_twin_in_process(lockstep):
    driver = lockstep
    backend = MujocoBackend(SPEC, HazardNav(TASK, SPEC.footprint_radius_m).layout)
    for seed in (3, 4, 3):
        before = driver.stamp
        assert driver.follow(backend, seed) == {"stamp_ns": before + RESET_GAP_NS, "seed": seed}


def test_realtime_keeps_its_rate_and_stops_when_commands_end():
    with bench(TwinNode, {"timing": "realtime"}) as setup:
        driver = Driver(setup)
        for _ in range(8):
            driver.command([0.4, 0.0], 0)  # stamps do not matter in real time
            setup.settle(0.1)
        assert driver.odometry[-1][1].linear_velocity[0] > 0.3
        first, count = driver.stamp, len(driver.odometry)
        setup.settle(1.5)
        assert driver.stamp - first == (len(driver.odometry) - count) * PERIOD_NS
        assert 12 <= len(driver.odometry) - count <= 17
        assert abs(driver.odometry[-1][1].linear_velocity[0]) < 0.02  # command.timeout_s is 0.5 s
        assert setup.node._counts["timeouts"] == 1


@pytest.mark.parametrize("timing", qos.TIMINGS)
def test_profiles_of_writers_and_readers_fit_each_other(timing):
    pairs = [
        (qos.sensor_writer(timing), qos.sensor_reader(timing)),
        (qos.command_writer(timing), qos.command()),
        (qos.actuator(timing, PERIOD_NS), qos.command()),
        (qos.latched(), qos.latched()),
        (qos.diagnostics(), qos.diagnostics()),
    ]
    assert QoSCompatibility.ERROR not in [qos_check_compatible(*pair)[0] for pair in pairs]


def test_a_sensor_driver_with_sensor_data_is_read_in_real_time_only():
    driver = qos_profile_sensor_data
    assert qos_check_compatible(driver, qos.sensor_reader("realtime"))[0] != QoSCompatibility.ERROR
    assert qos_check_compatible(driver, qos.sensor_reader("lockstep"))[0] == QoSCompatibility.ERROR
