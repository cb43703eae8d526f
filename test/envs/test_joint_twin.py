"""The twin of a robot that is moved by its joints: what every backend must do, and physics by hand."""

import gc
import math
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
from spec_files import ARM_VELOCITY, write_spec
from twin_helpers import FAR, assert_same, episode, fixed

pybullet = pytest.importorskip("pybullet")

from safe_rl_ros.envs.backend import RESET_GAP_NS  # noqa: E402
from safe_rl_ros.envs.joint_twin import JointTwin  # noqa: E402
from safe_rl_ros.envs.observers import make_observer  # noqa: E402
from safe_rl_ros.envs.robot_spec import RobotSpec, load_robot_spec  # noqa: E402
from safe_rl_ros.envs.twins import make_backend, make_joint_twin  # noqa: E402
from safe_rl_ros.types import BackendError, ConfigError, RobotState  # noqa: E402

ROBOTS = ("arm", "arm_trajectory", "arm_velocity", "panda", "laikago")
ARM = load_robot_spec("arm")
NOISY = ("twin.start_noise=0.05",)


@pytest.fixture(scope="module")
def spec_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], RobotSpec]:
    path = write_spec(tmp_path_factory.mktemp("spec") / "velocity", "arm", ARM_VELOCITY)
    return lambda name: load_robot_spec(path if name == "arm_velocity" else name, NOISY)


@pytest.fixture(scope="module", params=ROBOTS)
def twin(request: pytest.FixtureRequest, spec_of: Callable[[str], RobotSpec]) -> JointTwin:
    """One twin for many tests: a reset is as good as a new one, which is one of the tests."""
    return make_joint_twin(spec_of(request.param))


def arm(directory: Path, twin: list[str] = (), **texts: dict[str, str]) -> JointTwin:
    return make_joint_twin(load_robot_spec(write_spec(directory, "arm", **texts), twin))


def drive(twin: JointTwin, command: object, periods: int) -> RobotState:
    for _ in range(periods):
        state = twin.step(np.array(command)).state
    return state


def middle(spec: RobotSpec) -> np.ndarray:
    return (spec.command_lower + spec.command_upper) / 2.0


def test_a_start_is_at_rest_within_the_noise_of_where_the_spec_says(twin: JointTwin):
    spec, starts = twin.spec, []
    for seed in range(4):
        state = twin.reset(seed)
        wanted = [spec.twin.start.get(name, 0.0) for name in spec.joints]
        assert np.abs(state.joint_position - wanted).max() <= 0.05
        np.testing.assert_array_equal(state.joint_velocity, np.zeros(len(spec.joints)))
        starts.append(state.joint_position.tobytes())
    assert len(set(starts)) == 4


def test_types_of_a_state_survive_ros_messages_and_nobody_gets_a_pose(twin: JointTwin):
    twin.reset(0)
    for state in (twin.reset(0), twin.step(twin.held).state):
        joints = len(twin.spec.joints)
        shapes = {"position": 3, "orientation": 4, "linear_velocity": 3, "angular_velocity": 3}
        for name, size in (shapes | {"joint_position": joints, "joint_velocity": joints}).items():
            value = getattr(state, name)
            assert (value.shape, value.dtype, value.flags.c_contiguous) == ((size,), np.float64, True), name
            assert np.isnan(value).all() == (name in shapes), name
        assert (state.ranges.shape, state.ranges.dtype) == ((0,), np.float32)
        assert type(state.stamp_ns) is int


def test_the_observer_of_its_task_observes_it(twin: JointTwin):
    observer = make_observer(twin.spec, "joint_hold")
    obs = observer.observe(twin.reset(0), None)
    assert np.isfinite(obs).all()
    assert (obs >= observer.lower).all()
    assert (obs <= observer.upper).all()


def test_held_is_at_rest(twin: JointTwin):
    twin.reset(1)
    before = drive(twin, twin.held, 5)
    after = drive(twin, twin.held, round(twin.spec.control_rate_hz))
    np.testing.assert_allclose(after.joint_position, before.joint_position, atol=3e-3)
    assert np.abs(after.joint_velocity).max() < 5e-3


def test_the_same_seed_and_commands_give_the_same_bits_whatever_happened_before(twin: JointTwin):
    fresh = episode(make_joint_twin(twin.spec), 5, periods=20)
    for seed, periods in ((11, 17), (12, 0), (5, 1), (13, 7)):
        episode(twin, seed, periods=periods)
        twin.stop()
        for first, second in zip(fresh, episode(twin, 5, periods=20), strict=True):
            assert_same(first, second)
    with pytest.raises(AssertionError):
        assert_same(fresh[-1], episode(twin, 6, periods=20)[-1])


def test_a_state_does_not_change_when_the_twin_goes_on(twin: JointTwin):
    states = episode(twin, 3, periods=5)
    copies = [replace(s, **{f.name: np.copy(getattr(s, f.name)) for f in fields(s)[1:]}) for s in states]
    episode(twin, 4, periods=5)
    for state, copy in zip(states, copies, strict=True):
        assert_same(state, copy)


def test_stamps_are_exact_and_only_grow(twin: JointTwin):
    begin, period = twin.stamp_ns + RESET_GAP_NS, twin.spec.period_ns
    stamps = [state.stamp_ns for state in episode(twin, 1, periods=2) + episode(twin, 1, periods=1)]
    again = begin + 2 * period + RESET_GAP_NS
    assert stamps == [begin, begin + period, begin + 2 * period, again, again + period]
    assert twin.stamp_ns == stamps[-1]


@pytest.mark.parametrize("wrong", ["nan", "inf", "short", "long", "table"])
def test_a_bad_command_is_refused_and_changes_nothing(twin: JointTwin, wrong: str):
    twin.reset(0)
    stamp, good = twin.step(twin.held).state.stamp_ns, twin.held
    bad = {"nan": good * math.nan, "inf": good + math.inf, "short": good[1:], "long": np.append(good, 0.0)}
    with pytest.raises(BackendError, match=f"refused, expected {twin.spec.act_dim} finite numbers"):
        twin.step({**bad, "table": good[None]}[wrong])
    assert twin.stamp_ns == stamp
    state = drive(twin, twin.held, 3)
    assert np.abs(state.joint_velocity).max() < 0.2


def test_commands_beyond_the_limits_are_those_of_the_limits(twin: JointTwin):
    spec = twin.spec
    ends = []
    for wanted in (spec.command_upper, spec.command_upper + 99.0):
        twin.reset(2)
        ends.append(drive(twin, wanted, 8))
    assert_same(*ends)


@pytest.mark.parametrize("robot", ["arm", "panda"])
def test_a_joint_goes_at_its_rate_and_no_faster(robot: str):
    spec = load_robot_spec(robot)
    twin = make_joint_twin(spec)
    for joint, rate in enumerate(spec.command_rate):
        twin.reset(0)
        goal = twin.held
        goal[joint] = spec.command_lower[joint] if goal[joint] > middle(spec)[joint] else spec.command_upper[joint]
        speeds = [abs(twin.step(goal).state.joint_velocity[joint]) for _ in range(8)]
        assert max(speeds) == pytest.approx(rate, rel=0.01)


def test_use_before_reset_and_after_close_is_refused(spec_of: Callable[[str], RobotSpec]):
    twin = make_joint_twin(ARM)
    for early in (lambda: twin.step(np.zeros(3)), lambda: twin.held):
        with pytest.raises(BackendError, match="before its first reset"):
            early()
    twin.stop()
    with pytest.raises(BackendError, match="has no arena"):
        _ = twin.layout
    assert twin.parameters is None
    twin.reset(0)
    server = twin._server.id
    twin.close()
    twin.close()
    twin.stop()
    twin.set_goal(np.zeros(2), 0)
    assert not pybullet.isConnected(server)
    for call in (lambda: twin.step(np.zeros(3)), lambda: twin.reset(0), twin.render, twin.body_pose):
        with pytest.raises(BackendError, match="closed"):
            call()


def test_two_twins_in_one_process_do_not_meet_and_give_their_servers_back():
    alone = episode(make_joint_twin(ARM), 5, periods=10)
    twins = [make_joint_twin(ARM) for _ in range(2)]
    servers = [twin._server.id for twin in twins]
    rng = np.random.default_rng(5)
    for twin in twins:
        twin.reset(5)
    for expected in alone[1:]:
        command = rng.uniform(ARM.command_lower, ARM.command_upper)
        assert_same(twins[0].step(command).state, expected)
        twins[1].step(-command)
    del twins, twin
    gc.collect()
    assert not any(pybullet.isConnected(server) for server in servers)


@pytest.mark.parametrize("speed", [1e200, math.nan])
def test_after_diverged_physics_a_reset_is_as_good_as_new(speed: float):
    fresh, twin = episode(make_joint_twin(ARM), 5, periods=10), make_joint_twin(ARM)
    twin.reset(0)
    twin._server.resetJointState(twin._scene.robot.body, twin._scene.robot.joints[1], math.nan, speed)
    with pytest.raises(BackendError, match="diverged"):
        twin.step(np.zeros(3))
    with pytest.raises(BackendError, match="diverged"):
        twin.step(np.zeros(3))
    for first, second in zip(fresh, episode(twin, 5, periods=10), strict=True):
        assert_same(first, second)


def test_positions_go_at_the_rate_of_their_axis_and_arrive():
    twin = make_joint_twin(ARM)
    twin.reset(0)  # at 0, 0, .5 rad
    goal = [0.6, -0.4, 0.8]
    # 1.5, 1.0 and 1.5 rad/s for ten periods of 20 ms: .3, .2 and all of the .3 rad.
    state = drive(twin, goal, 10)
    np.testing.assert_allclose(state.joint_position, [0.3, -0.2, 0.8], atol=2e-3)
    np.testing.assert_allclose(state.joint_velocity[:2], [1.5, -1.0], atol=0.01)
    np.testing.assert_allclose(twin.held, [0.3, -0.2, 0.8], atol=1e-12)
    state = drive(twin, goal, 20)
    np.testing.assert_allclose(state.joint_position, goal, atol=1e-3)
    np.testing.assert_allclose(drive(twin, [9.0, -9.0, -9.0], 200).joint_position, [2.5, -1.5, 0.0], atol=1e-3)


def test_velocities_ramp_with_their_rate_and_stop_at_once(spec_of: Callable[[str], RobotSpec]):
    spec = spec_of("arm_velocity").model_copy(update={"twin": ARM.twin})
    twin = make_joint_twin(spec)
    twin.reset(0)
    # 4 rad/s^2 for five periods of 20 ms: .4 rad/s. Up to 1 rad/s in a quarter of a second.
    np.testing.assert_allclose(drive(twin, [1.0, 0.0, -0.2], 5).joint_velocity, [0.4, 0.0, -0.2], atol=5e-3)
    state = drive(twin, [1.0, 0.0, 0.0], 20)
    # .125 rad in the ramp of .25 s, .25 rad after it; the elbow .005 each way and .2 rad/s for .05 s.
    np.testing.assert_allclose(state.joint_position, [0.375, 0.0, 0.48], atol=3e-3)
    np.testing.assert_allclose(state.joint_velocity, [1.0, 0.0, 0.0], atol=5e-3)
    np.testing.assert_array_equal(twin.held, np.zeros(3))
    twin.stop()
    np.testing.assert_allclose(drive(twin, [0.0, 0.0, 0.0], 1).joint_velocity, np.zeros(3), atol=5e-3)


@pytest.mark.parametrize("kind", ["positions", "velocities"])
@pytest.mark.parametrize(("effort", "holds"), [(1.9, True), (1.6, False)])
def test_the_urdfs_effort_is_the_most_that_a_motor_can(tmp_path: Path, kind: str, effort: float, holds: bool):
    # The forearm, 1.2 kg with its middle .15 m from the elbow, lies flat: 1.2 * 9.81 * .15 * sin(1.5) = 1.76 N m.
    # The tool has no inertia and must weigh nothing: a kilogram there would be 2.9 N m more.
    urdf = {'effort="20.0"': f'effort="{effort}"'}
    spec = ARM_VELOCITY if kind == "velocities" else {}
    twin = arm(tmp_path, ["twin.start={shoulder_lift_joint: 1.5}"], spec=spec, urdf=urdf)
    twin.reset(0)
    sunk = drive(twin, twin.held, 25).joint_position[2]
    assert abs(sunk) < 2e-3 if holds else sunk > 0.1


def test_a_motor_cannot_push_a_joint_over_the_urdfs_limit(tmp_path: Path, spec_of: Callable[[str], RobotSpec]):
    twin = make_joint_twin(spec_of("arm_velocity"))
    twin.reset(0)
    state = drive(twin, [0.0, 0.0, 1.0], 200)  # 4 s at 1 rad/s, limit 2.6
    assert state.joint_position[2] == pytest.approx(2.6, abs=0.03)


def test_joints_and_commands_are_in_the_order_of_the_spec():
    axes = ARM.command.model_copy(update={"axes": ARM.command.axes[::-1]})
    others = [ARM.model_copy(update={"joints": ARM.joints[::-1]}), ARM.model_copy(update={"command": axes})]
    goal, states = np.array([0.6, -0.4, 0.8]), []
    for spec, command in zip((ARM, *others), (goal, goal, goal[::-1]), strict=True):
        twin = make_joint_twin(spec)
        twin.reset(0)
        states.append(drive(twin, command, 5))
    plain, turned, commanded = states
    np.testing.assert_array_equal(turned.joint_position[::-1], plain.joint_position)
    np.testing.assert_array_equal(turned.joint_velocity[::-1], plain.joint_velocity)
    np.testing.assert_allclose(commanded.joint_position, plain.joint_position, atol=1e-9)
    assert plain.joint_position[0] > 0.1 > -0.05 > plain.joint_position[1]


def test_joints_that_nobody_commands_stay_where_they_start():
    twin = make_joint_twin(load_robot_spec("panda", ["twin.start.panda_finger_joint1=0.03"]))
    twin.reset(0)
    drive(twin, middle(twin.spec), 20)
    robot, server = twin._scene.robot, twin._server
    fingers = [server.getJointState(robot.body, robot.links[f"panda_{side}finger"])[0] for side in ("left", "right")]
    np.testing.assert_allclose(fingers, [0.03, 0.0], atol=2e-3)


def test_a_reset_to_about_where_the_robot_is_forgets_its_contacts():
    spec = load_robot_spec("laikago")
    fresh, twin = episode(make_joint_twin(spec), 5, periods=10), make_joint_twin(spec)
    twin.reset(5)
    drive(twin, twin.held, 2)
    for first, second in zip(fresh, episode(twin, 5, periods=10), strict=True):
        assert_same(first, second)


def test_legs_stand_and_fall():
    twin = make_joint_twin(load_robot_spec("laikago", ["twin.height_m=0.55"]))  # from where it drops, once
    twin.reset(0)
    drive(twin, twin.held, 30)
    position, turn = twin.body_pose()
    assert position[2] == pytest.approx(0.44, abs=0.01)
    assert abs(turn[3]) > 0.9999
    crouched = twin.held
    crouched[1::3], crouched[2::3] = 1.0, -2.1
    drive(twin, crouched, 45)
    assert twin.body_pose()[0][2] < 0.3
    twin.reset(1)
    assert twin.body_pose()[0][2] == pytest.approx(position[2], abs=2e-3)


def test_an_arm_that_stands_higher_does_not_fall(tmp_path: Path):
    twin = arm(tmp_path, ["twin.height_m=1.5"])
    twin.reset(0)
    drive(twin, twin.held, 50)
    assert twin.body_pose()[0][2] == pytest.approx(1.55)  # its only mass below the first joint is .05 m above the root


def test_a_root_link_without_any_inertia_holds_an_arm_but_no_legs(tmp_path: Path):
    base = '<inertia ixx="0.007300" ixy="0" ixz="0" iyy="0.007300" iyz="0" izz="0.009600"/>\n    </inertial>'
    inertial = '<inertial>\n      <origin xyz="0 0 0" rpy="0 0 0"/>\n      <mass value="3.0"/>\n      '
    twin = arm(tmp_path / "fixed", urdf={inertial + base: ""})
    twin.reset(0)
    np.testing.assert_allclose(drive(twin, [0.3, 0.0, 0.5], 20).joint_position, [0.3, 0.0, 0.5], atol=2e-3)
    with pytest.raises(ConfigError, match=r"link 'arm_base_link' cannot be simulated: it moves, .* have no mass"):
        arm(tmp_path / "free", ["twin.base=free"], urdf={inertial + base: ""})


def test_a_picture_shows_the_robot():
    twin = make_joint_twin(ARM)
    twin.reset(0)
    picture = twin.render()
    assert (picture.shape, picture.dtype) == ((480, 640, 3), np.uint8)
    red, green, blue = (picture[..., index].astype(int) for index in range(3))
    assert ((red > 120) & (green > 80) & (blue < 60)).sum() > 500  # its yellow links
    drive(twin, [0.0, 1.5, 1.5], 100)
    assert (twin.render() != picture).any()


@pytest.mark.parametrize(
    ("robot", "overrides", "message"),
    [
        ("rover", ["twin.base=fixed"], "robot rover: twin.base is 'fixed', which is for robots moved by their joints"),
        ("rover", ["twin.start={left_wheel_joint: 1.0}"], "start: only a twin with base, fixed or free, has that"),
        ("arm", ["twin.base=loose"], "twin.base = 'loose'"),
        (
            "arm",
            ["twin.start={elbow: 1.0}"],
            r"robot arm: twin\.start names elbow; .*shoulder_pan_joint, shoulder_lift",
        ),
        ("arm", ["twin.start={elbow_joint: 2.5}"], r"elbow_joint = 2\.5, is outside the command's limits \[0, 2\.4\]"),
        ("panda", ["twin.start={}"], r"panda_joint4 = 0, where it starts unless told, is outside .* \[-3\.07"),
        (
            "panda",
            ["twin.start.panda_finger_joint1=1"],
            r"panda_finger_joint1 = 1, is outside position limits \[0, 0\.04",
        ),
        ("arm", ["twin.start_noise=-1"], "start_noise"),
    ],
)
def test_a_twin_that_cannot_be_is_one_config_error(robot: str, overrides: list[str], message: str):
    with pytest.raises(ConfigError, match=message):
        make_joint_twin(load_robot_spec(robot, overrides))


def test_robots_without_such_a_twin_are_refused(tmp_path: Path):
    plain = ["twin.start={}", "twin.base=null"]
    for spec, message in (
        (load_robot_spec("rover"), "robot rover has no twin of its joints: twin.base is not set"),
        (load_robot_spec("arm", plain), "robot arm has no twin of its joints"),
        (load_robot_spec("arm", ["twin.simulator=mujoco"]), "twin.simulator is 'mujoco'; .* needs 'pybullet'"),
        (
            load_robot_spec("arm", ["frames.odom=o", "sensors.odom={topic: odom, timeout_s: 1}"]),
            "joint_states, an imu and no odom",
        ),
    ):
        with pytest.raises(ConfigError, match=message):
            make_joint_twin(spec)
    with pytest.raises(ConfigError, match="the URDF gives joint elbow_joint the effort limit inf"):
        arm(tmp_path, urdf={'upper="2.6" effort="20.0"': 'upper="2.6"'})
    with pytest.raises(ConfigError, match="robot arm has a twin of its joints and none that drives: it lacks drive"):
        make_backend(ARM, fixed(FAR))


@pytest.mark.parametrize("robot", ["arm", "panda", "laikago"])
def test_what_only_this_twin_has_is_not_in_the_hash(robot: str):
    spec = load_robot_spec(robot)
    twins = [["twin.height_m=0.5", "twin.start_noise=0.1", "twin.link_friction=0.3"], ["twin={}"]]
    assert {load_robot_spec(robot, changes).hash for changes in twins} == {spec.hash}
    assert load_robot_spec(robot, ["control_rate_hz=10"]).hash != spec.hash
