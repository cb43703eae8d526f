"""Both simulators' twins of one robot: what of a URDF they refuse alike, and how far they agree."""

import math
from pathlib import Path

import numpy as np
import pytest
from twin_helpers import FAR, SIMULATORS, drive, fixed, needs_pybullet, seconds, spec_of, write_rover, yaw_of

from safe_rl_ros.envs.robot_spec import load_robot_spec
from safe_rl_ros.envs.twins import make_backend
from safe_rl_ros.types import ConfigError

both_simulators = pytest.mark.parametrize("simulator", SIMULATORS)
BODY_BOX = '<geometry><box size="0.42 0.31 0.14"/></geometry>'
BODY_MESH = '<geometry><mesh filename="package://meshes/body.obj" scale="0.1 0.1 0.1"/></geometry>'
TETRAHEDRON = "v 0 0 0\nv 1 0 0\nv 0 1 0\nv 0 0 1\nf 1 3 2\nf 1 2 4\nf 1 4 3\nf 2 3 4\n"


@both_simulators
def test_a_urdf_that_cannot_be_simulated_is_one_config_error(simulator: str, tmp_path: Path):
    spec = write_rover(tmp_path, simulator, ('<mass value="0.5"/>', '<mass value="-0.5"/>'))
    with pytest.raises(ConfigError, match=r"URDF .*rover\.urdf"):
        make_backend(spec, fixed(FAR))


@both_simulators
def test_meshes_are_found_beside_the_urdf(simulator: str, tmp_path: Path):
    spec = write_rover(tmp_path, simulator, (BODY_BOX, BODY_MESH))
    with pytest.raises(ConfigError, match=r"rover\.urdf: link 'base_link': the mesh .*body\.obj does not exist"):
        make_backend(spec, fixed(FAR))
    (tmp_path / "meshes").mkdir()
    (tmp_path / "meshes" / "body.obj").write_text(TETRAHEDRON)
    backend = make_backend(spec, fixed(FAR))
    backend.reset(0)
    assert drive(backend, (1.0, 0.0), 10).position[0] == pytest.approx(0.875, abs=0.015)


@both_simulators
def test_the_urdfs_effort_limits_the_wheels(simulator: str, tmp_path: Path):
    # 0.3 N m per wheel push with 6.67 N; 13.4 kg and two times 0.052 kg m^2 at 0.09 m resist: 0.254 m/s^2.
    weak = ('<limit effort="10.0" velocity="25.0"/>', '<limit effort="0.3" velocity="25.0"/>')
    backend = make_backend(write_rover(tmp_path, simulator, weak, weak), fixed(FAR))
    backend.reset(0)
    assert drive(backend, (1.0, 0.0), 10).linear_velocity[0] == pytest.approx(0.254, rel=0.05)


@both_simulators
def test_a_joint_that_the_urdf_lacks_is_one_config_error(simulator: str):
    with pytest.raises(ConfigError, match=r"names 'rear_wheel_joint'.*left_wheel_joint, right_wheel_joint"):
        load_robot_spec("rover", ["drive.left_joints=[rear_wheel_joint]", f"twin.simulator={simulator}"])


@both_simulators
def test_a_robot_without_a_drive_has_no_twin_that_drives(simulator: str):
    with pytest.raises(ConfigError, match="robot arm has a twin of its joints and none that drives: it lacks drive"):
        make_backend(load_robot_spec("arm", [f"twin.simulator={simulator}"]), fixed(FAR))


# Measured over 40 seeds after these 5 s: rover mean 0.013 m and 0.015 rad, at most 0.045 m and 0.038 rad; jackal, whose
# wheels slide when it turns, mean 0.28 m and 0.36 rad, at most 1.43 m and 1.13 rad (docs/twins.md says why). The bounds
# are for means of 8 seeds.
@needs_pybullet
@pytest.mark.parametrize(("robot", "position_m", "heading_rad"), [("rover", 0.04, 0.04), ("jackal", 0.5, 0.6)])
def test_both_simulators_agree_on_where_the_same_commands_lead(robot: str, position_m: float, heading_rad: float):
    twins = [make_backend(spec_of(robot, simulator), fixed(FAR)) for simulator in ("mujoco", "pybullet")]
    spec = twins[0].spec
    offsets, turns = [], []
    for seed in range(8):
        ends = []
        for twin in twins:
            rng = np.random.default_rng(seed)
            twin.reset(0)
            for _ in range(10):
                command = rng.uniform(spec.command_lower, spec.command_upper)
                state = drive(twin, tuple(command), seconds(spec, 0.5))
            ends.append(state)
        offsets.append(np.hypot(*(ends[0].position - ends[1].position)[:2]))
        turns.append(abs(math.remainder(yaw_of(ends[0]) - yaw_of(ends[1]), 2.0 * math.pi)))
    assert np.mean(offsets) < position_m
    assert np.mean(turns) < heading_rad
