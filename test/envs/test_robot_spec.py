"""Robot specs: values, hash and one clear error for every mistake."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from safe_rl_ros.envs.robot_spec import RobotSpec, load_robot_spec
from safe_rl_ros.resources import find_resource
from safe_rl_ros.types import ConfigError

YAML = find_resource("rover.yaml", "config/robots")
URDF = find_resource("rover.urdf", "urdf")


def copy_spec(directory: Path, *replacements: tuple[str, str]) -> Path:
    """Write the rover's spec beside its URDF with some text replaced."""
    directory.mkdir(exist_ok=True)
    shutil.copy(URDF, directory / "rover.urdf")
    text = YAML.read_text()
    for old, new in replacements:
        assert old in text
        text = text.replace(old, new)
    path = directory / "rover.yaml"
    path.write_text(text)
    return path


def test_rover_values():
    spec = load_robot_spec("rover")
    assert [axis.name for axis in spec.command.axes] == ["linear_x", "angular_z"]
    np.testing.assert_array_equal(spec.command_lower, [-0.5, -2.0])
    np.testing.assert_array_equal(spec.command_upper, [1.0, 2.0])
    np.testing.assert_array_equal(spec.command_rate, [4.0, 15.0])
    np.testing.assert_array_equal(spec.command_stop, [0.0, 0.0])
    assert spec.period_ns == 100_000_000
    assert spec.act_dim == 2
    assert spec.axis_index == {"linear_x": 0, "angular_z": 1}


def test_limits_cannot_be_written_by_accident():
    with pytest.raises(ValueError, match="read-only"):
        load_robot_spec("rover").command_lower[0] = -9.0


def test_rays_cover_the_circle_from_behind_counter_clockwise():
    scan = load_robot_spec("rover").sensors.scan
    assert scan.full_circle
    assert np.degrees(scan.angle_increment) == pytest.approx(5.0)
    assert scan.angles.shape == (72,)
    np.testing.assert_allclose(np.degrees(scan.angles[[0, 18, 36, 54, 71]]), [-180, -90, 0, 90, 175], atol=1e-9)


def test_a_name_a_file_name_and_a_path_give_the_same_spec():
    assert load_robot_spec("rover") == load_robot_spec("rover.yaml") == load_robot_spec(YAML)


def test_hash_depends_on_content_and_not_on_place(tmp_path: Path):
    original = load_robot_spec("rover")
    assert len(original.hash) == 64
    moved = load_robot_spec(copy_spec(tmp_path / "a", ("# Robot spec of the rover", "# Another comment")))
    assert moved.urdf_path != original.urdf_path
    assert moved.hash == original.hash
    faster = load_robot_spec(copy_spec(tmp_path / "b", ("upper: 1.0", "upper: 1.1")))
    assert faster.hash != original.hash
    path = copy_spec(tmp_path / "c")
    urdf = path.parent / "rover.urdf"
    urdf.write_text(urdf.read_text().replace("0.06 0 0.16", "0.07 0 0.16"))
    assert load_robot_spec(path).hash != original.hash


# Before a spec could name its simulator: bundles of that time must still be accepted.
HASHES = {
    "rover": "631be095127b5c3c91584fcd267f9486010361244922f6dcd905d4b526e0db06",
    "jackal": "7bc70451a4e0334e4d258daa7e7d07dc44ba471f4bc67b1616b99a00e46275fc",
    "arm": "b23a92dccf60c5806a57f1eae56edc7beefff947edd0781ade47fb4dd7b9650e",
    "arm_trajectory": "192657449300bc759146889fe192e6ca451ff8b612a89803b76e7faacf11aa3e",
    "panda": "7387c6e8c2c5be2d022fbe31ad0760d4c02266c29e1e3913f393cc1ff10eb7d4",
    "laikago": "c1e54c93d931dc8eeca176e1bf56d275c0390f4b5fca9bff3a3e78148a589c71",
}
IN_MUJOCO = ("rover", "jackal")


@pytest.mark.parametrize("name", HASHES)
def test_the_choice_of_a_simulator_is_no_part_of_the_hash(name: str):
    spec = load_robot_spec(name)
    own, others = ("mujoco", "pybullet") if name in IN_MUJOCO else ("pybullet", "mujoco")
    assert spec.twin.simulator == own
    assert spec.hash == HASHES[name]
    other = load_robot_spec(name, [f"twin.simulator={others}"])
    assert other.twin.simulator == others
    assert other.hash == HASHES[name]
    assert spec.with_simulator(others) == other
    assert other.with_simulator(own) == spec
    assert load_robot_spec(name, ["twin.substeps=7"]).hash != HASHES[name]


def test_an_imu_is_a_part_of_the_hash_and_no_imu_is_none():
    without = load_robot_spec("laikago", ["sensors.imu=null"])
    assert without.hash == "7a1213cea1d4441b9c13da5bcfb5a87986334caa7c719257e45a91e661504937"  # before it had one
    assert "imu" not in without.model_dump()["sensors"]
    with pytest.raises(ConfigError, match="link 'FR_lower_leg' hangs on the continuous joint"):
        load_robot_spec("laikago", ["sensors.imu.frame=toeFR"])
    with pytest.raises(ConfigError, match="robot rover has no twin: that of a base has no imu"):
        load_robot_spec("rover", ["sensors.imu={topic: imu, timeout_s: 1, frame: base_link}"]).require_twin()


def test_a_spec_with_the_default_simulator_is_written_as_ever():
    assert "simulator" not in load_robot_spec("rover").model_dump()["twin"]
    assert load_robot_spec("rover", ["twin.simulator=pybullet"]).model_dump()["twin"]["simulator"] == "pybullet"


def test_what_needs_one_simulator_says_so():
    load_robot_spec("rover").require_simulator("mujoco", "this")
    with pytest.raises(ConfigError, match=r"robot rover: twin\.simulator is 'pybullet'; this needs 'mujoco'"):
        load_robot_spec("rover", ["twin.simulator=pybullet"]).require_simulator("mujoco", "this")


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("colour=red", r"colour = 'red': unknown key"),
        ("command.topik=cmd_vel", r"command\.topik = 'cmd_vel': unknown key"),
        ("joints=[left_wheel_joint, wheel_2]", "names 'wheel_2'.* left_wheel_joint, right_wheel_joint"),
        ("joints=[left_wheel_joint, base_joint]", "names 'base_joint'"),
        ("joints=[left_wheel_joint]", "drive uses right_wheel_joint, which joints does not list"),
        ("joints=[left_wheel_joint, left_wheel_joint]", "joints names a joint twice"),
        ("drive.right_joints=[left_wheel_joint]", "names a joint twice"),
        ("drive.right_joints=[rigth_wheel_joint]", "names 'rigth_wheel_joint'"),
        ("drive.left_joints=[]", "at least 1 item"),
        ("urdf=missing.urdf", r"'missing\.urdf' does not exist"),
        ("frames.base=base_link", "'base_link', expected the URDF's root 'base_footprint'"),
        ("sensors.scan.frame=laser", "'laser' is not in the URDF"),
        ("sensors.scan.range_min=3.5", r"range_min 3\.5 must be below range_max 3\.0"),
        ("sensors.scan.angle_max=-4.0", r"angle_max -4\.0 must be above angle_min"),
        ("sensors.scan.angle_max=4.0", "at most one turn"),
        ("sensors.scan.rays=1", "greater than or equal to 2"),
        ("sensors.odom.timeout_s=0", "greater than 0"),
        ("command.topic=/cmd_vel", "should match pattern"),
        ("command.interface=joint_position", "should be 'twist', 'joint_group' or 'joint_trajectory'"),
        ("control_rate_hz=.nan", "finite number"),
        ("control_rate_hz=0", "greater than 0"),
        ("footprint_radius_m=-0.1", "greater than 0"),
        ("twin.simulator=gazebo", "should be 'mujoco' or 'pybullet'"),
    ],
)
def test_each_mistake_is_one_clear_error(override: str, message: str):
    with pytest.raises(ConfigError, match=message):
        load_robot_spec("rover", [override])


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("lower: -0.5, upper: 1.0", "lower: 1.0, upper: -0.5", r"axis linear_x: lower 1\.0 must be below upper -0\.5"),
        ("upper: 2.0, rate: 15.0, stop: 0.0", "upper: 2.0, rate: 15.0, stop: 2.5", r"angular_z: stop 2\.5 is outside"),
        ("rate: 4.0", "rate: 0.0", r"rate = 0\.0: .*greater than 0"),
        ("name: angular_z", "name: angular_y", "needs exactly"),
        ("name: angular_z", "name: linear_x", "needs exactly"),
        ("rays: 72", "rays: 72\n    rays: 36", "not valid YAML"),
        ("name: rover", "nome: rover", "name = .*required"),
        ("unit: rad/s", "unit: deg/s", r"axis angular_z: unit is 'deg/s', expected 'rad/s'"),
    ],
)
def test_each_mistake_in_the_file_is_one_clear_error(tmp_path: Path, old: str, new: str, message: str):
    with pytest.raises(ConfigError, match=message):
        load_robot_spec(copy_spec(tmp_path, (old, new)))


def test_a_missing_spec_lists_where_it_was_looked_for():
    with pytest.raises(ConfigError, match=r"'warthog\.yaml' does not exist; looked in: .*config/robots"):
        load_robot_spec("warthog")


def test_axes_may_come_in_any_order(tmp_path: Path):
    linear, angular = (line for line in YAML.read_text().splitlines() if line.strip().startswith("- {name:"))
    spec = load_robot_spec(copy_spec(tmp_path, (f"{linear}\n{angular}", f"{angular}\n{linear}")))
    assert spec.axis_index == {"angular_z": 0, "linear_x": 1}
    np.testing.assert_array_equal(spec.command_upper, [2.0, 1.0])


def test_the_spec_is_frozen():
    spec = load_robot_spec("rover")
    with pytest.raises(ValueError, match="frozen"):
        spec.name = "other"
    assert isinstance(spec, RobotSpec)
