"""The observation of joint robots, and which observation a task asks for."""

from __future__ import annotations

import numpy as np
import pytest
from spec_files import write_spec

from safe_rl_ros.envs.joint_observation import JointObserver
from safe_rl_ros.envs.observation import Observer
from safe_rl_ros.envs.observers import make_observer
from safe_rl_ros.envs.robot_spec import load_robot_spec
from safe_rl_ros.envs.tasks.hazard_nav import load_hazard_nav
from safe_rl_ros.types import ConfigError, RobotState

ARM = load_robot_spec("arm")
CONTINUOUS = {'name="shoulder_lift_joint" type="revolute"': 'name="shoulder_lift_joint" type="continuous"'}


def state(position, velocity=(0.0, 0.0, 0.0)):
    nan = np.full(3, np.nan)
    rays = np.zeros(0, np.float32)
    return RobotState(0, nan, np.full(4, np.nan), nan, nan, np.array(position), np.array(velocity), rays)


def test_names_and_bounds():
    observer = JointObserver(ARM)
    assert observer.names == (*(f"q.{name}" for name in ARM.joints), *(f"dq.{name}" for name in ARM.joints))
    assert (observer.obs_dim, observer.needs_goal) == (6, False)
    assert observer.upper.tolist() == [2.0] * 6
    assert observer.lower.tolist() == [-2.0] * 6


def test_values_are_scaled_by_the_limits_of_the_urdf():
    # URDF: pan +-2.8, lift +-1.8, elbow -0.1 .. 2.6 rad; velocity limits 2.0, 1.5, 2.0 rad/s.
    obs = JointObserver(ARM).observe(state([2.8, -0.9, 1.25], [-1.0, 1.5, 0.5]))
    assert obs.dtype == np.float32
    np.testing.assert_allclose(obs, [1.0, -0.5, 0.0, -0.5, 1.0, 0.25], atol=1e-7)
    np.testing.assert_allclose(JointObserver(ARM).observe(state([0.0, 0.0, -0.1]))[2], -1.0, atol=1e-7)


def test_what_is_far_outside_is_clipped_and_what_is_not_finite_is_nan():
    obs = JointObserver(ARM).observe(state([99.0, -99.0, np.nan], [np.inf, -np.inf, -99.0]))
    np.testing.assert_array_equal(obs, np.array([2.0, -2.0, np.nan, np.nan, np.nan, -2.0], dtype=np.float32))


def test_a_continuous_joint_is_cosine_and_sine_in_its_place(tmp_path):
    observer = JointObserver(load_robot_spec(write_spec(tmp_path, "arm", urdf=CONTINUOUS)))
    pan, lift, elbow = ARM.joints
    assert observer.names[:4] == (f"q.{pan}", f"q_cos.{lift}", f"q_sin.{lift}", f"q.{elbow}")
    assert observer.upper.tolist() == [2.0, 1.0, 1.0, 2.0, 2.0, 2.0, 2.0]
    turned = observer.observe(state([1.4, np.pi / 2 + 8 * np.pi, 2.6], [0.5, 0.75, 1.0]))
    np.testing.assert_allclose(turned, [0.5, 0.0, 1.0, 1.0, 0.25, 0.5, 0.5], atol=1e-6)
    assert np.isnan(observer.observe(state([0.0, np.inf, 0.0]))[1:3]).all()


def test_joints_come_in_spec_order_and_may_be_more_than_are_commanded(tmp_path):
    changes = {f"joints: [{', '.join(ARM.joints)}]": "joints: [elbow_joint, shoulder_pan_joint]"}
    axis = "    - {name: shoulder_lift_joint, unit: rad, lower: -1.5, upper: 1.5, rate: 1.0}\n"
    other = "    - {name: elbow_joint, unit: rad, lower: 0.0, upper: 2.4, rate: 1.5}\n"  # still read, not commanded
    observer = JointObserver(load_robot_spec(write_spec(tmp_path, "arm", changes | {axis: "", other: ""})))
    assert observer.names == ("q.elbow_joint", "q.shoulder_pan_joint", "dq.elbow_joint", "dq.shoulder_pan_joint")
    np.testing.assert_allclose(observer.observe(state([2.6, -2.8], [1.0, 2.0])), [1.0, -1.0, 0.5, 1.0], atol=1e-7)


def test_a_state_of_another_robot_is_refused():
    with pytest.raises(ValueError, match=r"shapes \(2,\) and \(3,\), expected \(3,\)"):
        JointObserver(ARM).observe(state([0.0, 0.0]))


def test_a_robot_without_joint_states_or_limits_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"robot rover: the observation 'joints' needs sensors\.joint_states"):
        JointObserver(load_robot_spec("rover", ["sensors.joint_states=null"]))
    axis = "    - {name: elbow_joint, unit: rad, lower: 0.0, upper: 2.4, rate: 1.5}\n"
    limit = '<limit lower="-0.1" upper="2.6" effort="20.0" velocity="2.0"/>'
    for number, (new, what) in enumerate(
        [('<limit lower="-0.1" upper="2.6" effort="20.0"/>', "velocity limit"), ('<limit velocity="1.0"/>', "range")]
    ):
        spec = load_robot_spec(write_spec(tmp_path / str(number), "arm", {axis: ""}, {limit: new}))
        with pytest.raises(ConfigError, match=f"gives joint elbow_joint no {what}"):
            JointObserver(spec)


def test_the_task_chooses_the_observer(tmp_path):
    rover = load_robot_spec("rover")
    navigation = make_observer(rover, "hazard_nav")
    assert isinstance(navigation, Observer)
    assert navigation.needs_goal
    assert navigation.names == Observer(rover, load_hazard_nav("hazard_nav").observation).names
    assert make_observer(rover, "hazard_nav", ["observation.sectors=12"]).obs_dim == 17
    joints = make_observer(ARM, "joint_hold.yaml")
    assert isinstance(joints, JointObserver)
    mine = tmp_path / "mine.yaml"
    mine.write_text("observation: joints\n")
    assert make_observer(ARM, mine).names == joints.names


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("observation: camera\n", "observation = 'camera': .*should be 'joints'"),
        ("observation: joints\nhazards: 3\n", "hazards = 3: unknown key"),
        ("observation: {sectors: 0}\n", r"observation\.sectors = 0"),
        ("observation: [joints]\n", r"observation = \['joints'\]"),
    ],
)
def test_each_mistake_in_a_task_is_one_clear_error(tmp_path, text, message):
    path = tmp_path / "task.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=message):
        make_observer(load_robot_spec("rover"), path)


@pytest.mark.parametrize("task", ["point_goal", "half_cheetah.yaml"])
def test_a_simulated_task_has_no_robot_to_observe(task):
    with pytest.raises(ConfigError, match=r"task '(point_goal|half_cheetah)' is not a robot's"):
        make_observer(load_robot_spec("rover"), task)


def test_a_missing_task_is_named():
    with pytest.raises(ConfigError, match=r"'nothing\.yaml' does not exist"):
        make_observer(ARM, "nothing")


def test_an_arm_has_no_bearing_to_a_goal():
    with pytest.raises(ConfigError, match=r"robot arm: goals, lidar and speeds are observed only on a base"):
        make_observer(ARM, "hazard_nav")
