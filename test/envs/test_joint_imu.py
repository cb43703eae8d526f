"""What the twin's imu measures, by hand: at rest, mounted askew, falling, turning, pushed."""

from pathlib import Path

import numpy as np
import pytest
from spec_files import write_spec

pytest.importorskip("pybullet")

from safe_rl_ros.envs.joint_twin import JointTwin
from safe_rl_ros.envs.robot_spec import load_robot_spec
from safe_rl_ros.envs.twins import make_joint_twin

G = 9.81
LINK = '  <link name="imu_link"/>\n'
MOUNT = """  <joint name="imu_joint" type="fixed">
    <parent link="arm_base_link"/><child link="imu_link"/><origin xyz="{xyz}" rpy="{rpy}"/>
  </joint>
"""
IMU = "sensors.imu={topic: imu, timeout_s: 0.1, frame: imu_link}"


def arm(directory: Path, xyz: str = "0 0 0", rpy: str = "0 0 0", *more: str) -> JointTwin:
    """Return the arm with an imu on its foot."""
    end = "</robot>"
    path = write_spec(directory, "arm", urdf={end: LINK + MOUNT.format(xyz=xyz, rpy=rpy) + end})
    return make_joint_twin(load_robot_spec(path, [IMU, *more]))


def test_without_an_imu_there_is_no_number():
    state = make_joint_twin(load_robot_spec("arm")).reset(0)
    for value in (state.imu_orientation, state.imu_angular_velocity, state.imu_linear_acceleration):
        assert np.isnan(value).all()


def test_at_rest_it_feels_the_floor_push_upwards():
    twin = make_joint_twin(load_robot_spec("laikago"))
    first = twin.reset(0)
    np.testing.assert_allclose(first.imu_linear_acceleration, [0.0, 0.0, G], atol=0.02)
    for _ in range(15):
        state = twin.step(twin.held).state
    np.testing.assert_allclose(state.imu_linear_acceleration, [0.0, 0.0, G], atol=0.1)
    np.testing.assert_allclose(state.imu_orientation, [0.0, 0.0, 0.0, 1.0], atol=2e-3)
    np.testing.assert_allclose(state.imu_angular_velocity, np.zeros(3), atol=0.01)


def test_it_measures_in_its_own_frame(tmp_path: Path):
    # Turned by a quarter about y: its x points down.
    twin = arm(tmp_path, rpy="0 1.5707963267948966 0")
    for state in (twin.reset(0), twin.step(np.array([0.3, 0.0, 0.5])).state):
        np.testing.assert_allclose(state.imu_orientation, [0.0, np.sqrt(0.5), 0.0, np.sqrt(0.5)], atol=1e-9)
        np.testing.assert_allclose(state.imu_linear_acceleration, [-G, 0.0, 0.0], atol=1e-9)
        np.testing.assert_array_equal(state.imu_angular_velocity, np.zeros(3))


def free(directory: Path, xyz: str) -> JointTwin:
    """Return an arm in the air, its joints held, after a reset."""
    twin = arm(directory, xyz, "0 0 0", "twin.base=free", "twin.start={}")
    twin.reset(0)
    twin._server.resetBasePositionAndOrientation(twin._scene.robot.body, [0.0, 0.0, 5.0], [0.0, 0.0, 0.0, 1.0])
    return twin


def test_falling_it_feels_nothing(tmp_path: Path):
    twin = free(tmp_path, "0.1 0.2 0.3")
    for _ in range(5):
        state = twin.step(twin.held).state
        np.testing.assert_allclose(state.imu_linear_acceleration, np.zeros(3), atol=0.05)


def test_turning_it_is_pulled_towards_the_axle(tmp_path: Path):
    # Upright, all of the arm's mass is over the root: it spins freely about z. At .5 m from there 3 rad/s pull with
    # 9 * .5 = 4.5 m/s^2 inwards, and in a period of 20 ms the direction turns by .06 rad, the mean by half of that.
    twin = free(tmp_path, "0.5 0 0")
    server, robot = twin._server, twin._scene.robot.body
    server.resetBaseVelocity(robot, [0.0, 0.0, 0.0], [0.0, 0.0, 3.0])
    twin._imu.measure(twin.spec.period_ns * 1e-9)
    state = twin.step(twin.held).state
    np.testing.assert_allclose(state.imu_angular_velocity, [0.0, 0.0, 3.0], atol=0.02)
    x, y, z = state.imu_linear_acceleration
    assert (x, y) == pytest.approx((-4.5, 4.5 * 0.03), abs=0.15)
    assert abs(z) < 0.05
    np.testing.assert_allclose(state.imu_orientation, [0.0, 0.0, np.sin(0.03), np.cos(0.03)], atol=1e-3)


def test_a_push_is_felt_over_one_period_and_a_reset_forgets_it(tmp_path: Path):
    twin = free(tmp_path, "0 0 0")
    twin.step(twin.held)
    linear, angular = twin._server.getBaseVelocity(twin._scene.robot.body)
    twin._server.resetBaseVelocity(twin._scene.robot.body, [linear[0] + 0.1, *linear[1:]], angular)
    # .1 m/s in a period of 20 ms.
    assert twin.step(twin.held).state.imu_linear_acceleration[0] == pytest.approx(5.0, abs=0.05)
    assert twin.step(twin.held).state.imu_linear_acceleration[0] == pytest.approx(0.0, abs=0.05)
    assert np.linalg.norm(twin.reset(0).imu_linear_acceleration) == pytest.approx(G)
