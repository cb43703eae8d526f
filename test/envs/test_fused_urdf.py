"""Fusing links on fixed joints: masses and inertias by hand and as MuJoCo fuses them."""

from pathlib import Path
from xml.etree import ElementTree

import mujoco
import numpy as np
import pytest
from twin_helpers import ROBOTS, spec_of, write_rover

from safe_rl_ros.envs.fused_urdf import fuse
from safe_rl_ros.envs.twin_scene import build_scene
from safe_rl_ros.envs.urdf import parse_urdf
from safe_rl_ros.types import ConfigError

CASTER = '<inertia ixx="0.000049" ixy="0" ixz="0" iyy="0.000049" iyz="0" izz="0.000049"/>'
WHEEL_MASS = '<mass value="0.5"/>\n      <inertia ixx="0.001079"'


def test_the_rovers_base_by_hand():
    urdf = fuse(spec_of("rover", "pybullet"))
    base = urdf.bodies["base_footprint"]
    # Chassis 12 kg at 0.09 m, casters 0.1 kg each at 0.0355 m, lidar 0.2 kg at (0.06, 0, 0.245) m.
    assert base.mass == pytest.approx(12.4)
    np.testing.assert_allclose(base.centre, [0.2 * 0.06 / 12.4, 0.0, (12 * 0.09 + 0.2 * 0.0355 + 0.2 * 0.245) / 12.4])
    assert sorted(urdf.bodies) == ["base_footprint", "left_wheel_link", "right_wheel_link"]
    # The rotor's 0.05 kg m^2 turn with the wheel, about its axle alone.
    wheel = urdf.bodies["left_wheel_link"]
    np.testing.assert_allclose(wheel.inertia, [0.001079, 0.052025, 0.001079])
    assert wheel.about_axle == pytest.approx(0.052025)
    assert base.about_axle == 0.0


@pytest.mark.parametrize("robot", ROBOTS)
def test_bodies_are_those_that_mujoco_fuses(robot: str):
    spec = spec_of(robot, "pybullet").model_copy(
        update={"twin": spec_of(robot, "pybullet").twin.model_copy(update={"wheel_rotor_kgm2": 0.0})}
    )
    model = build_scene(spec, np.empty(0)).model
    for name, body in fuse(spec).bodies.items():
        known = model.body(name)
        rotation = np.empty(9)
        mujoco.mju_quat2Mat(rotation, known.iquat)
        axes = rotation.reshape(3, 3)
        assert body.mass == pytest.approx(known.mass[0])
        np.testing.assert_allclose(body.centre, known.ipos, atol=1e-9)
        ours = body.axes @ np.diag(body.inertia) @ body.axes.T
        np.testing.assert_allclose(ours, axes @ np.diag(known.inertia) @ axes.T, atol=1e-6)
        assert np.linalg.det(body.axes) == pytest.approx(1.0)


def test_the_fused_text_is_a_urdf_with_the_movable_joints_where_they_were():
    spec = spec_of("jackal", "pybullet")
    before, after = spec.description, parse_urdf(fuse(spec).xml)
    assert tuple(after.joints) == before.movable
    assert after.root == before.root
    wheel = after.joints["rear_left_wheel_joint"]
    np.testing.assert_allclose(wheel.origin[:3, 3], [-0.131, 0.188, 0.098])
    assert wheel.effort_limit == 20.0
    shapes = ElementTree.fromstring(fuse(spec).xml).find("link[@name='base_footprint']")
    assert (len(shapes.findall("visual")), len(shapes.findall("collision"))) == (4, 2)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            (WHEEL_MASS, WHEEL_MASS.replace("0.5", "0")),
            "link 'left_wheel_link' cannot be simulated: it moves, but .* have no mass",
        ),
        ((CASTER, CASTER.replace('ixx="0.000049"', 'ixx="-1"')), "inertia of 'front_caster_link' is negative"),
        (
            (CASTER, CASTER.replace('ixx="0.000049" ', "")),
            "link 'base_footprint' cannot be simulated: could not convert",
        ),
        ((CASTER, ""), "lacks 'ixx'"),
        (('<origin xyz="0 0 0.05" rpy="0 0 0"/>', '<origin xyz="0 0 up" rpy="0 0 0"/>'), "cannot be simulated: .*up"),
    ],
)
def test_what_cannot_be_simulated_is_one_error_with_file_and_link(
    tmp_path: Path, change: tuple[str, str], message: str
):
    with pytest.raises(ConfigError, match=rf"rover\.urdf.*{message}"):
        fuse(write_rover(tmp_path, "pybullet", change))
