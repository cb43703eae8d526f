"""Scaled bodies in MuJoCo: everything that follows from the mass follows, and the compiled values come back."""

from __future__ import annotations

import mujoco
import numpy as np
import pytest
from twin_helpers import spec_of

from safe_rl_ros.envs.twin_scene import BodyConstants, build_scene


def arrays(model) -> dict[str, np.ndarray]:
    values = {name: getattr(model, name) for name in dir(model) if not name.startswith("_")}
    return {name: value.copy() for name, value in values.items() if isinstance(value, np.ndarray)}


@pytest.mark.parametrize("robot", ["rover", "jackal"])
def test_what_the_compiler_derives_follows_the_mass_and_comes_back(robot: str):
    scene = build_scene(spec_of(robot, "mujoco"), np.full(7, 0.3))
    model, data = scene.model, mujoco.MjData(scene.model)
    before, body = arrays(model), BodyConstants(scene)
    body.scale(0.5, 2.0, data)
    body.scale(3.0, 0.5, data)
    others = before["body_mass"].sum() - before["body_mass"][scene.base]
    total = others + 3.0 * before["body_mass"][scene.base]
    # The free joint's inertia at rest is the whole robot's mass; hazards and marker have none of it.
    carried = model.body_subtreemass[scene.base]
    assert carried == pytest.approx(total - (before["body_subtreemass"][0] - before["body_subtreemass"][scene.base]))
    np.testing.assert_allclose(model.dof_M0[:3], carried)
    np.testing.assert_allclose(model.body_inertia[scene.base], 3.0 * before["body_inertia"][scene.base])
    assert (model.body_invweight0[scene.base] < before["body_invweight0"][scene.base]).all()
    wheels = before["geom_condim"] == 3
    np.testing.assert_allclose(model.geom_friction[wheels, 0], 0.5 * before["geom_friction"][wheels, 0])
    np.testing.assert_array_equal(model.geom_friction[~wheels], before["geom_friction"][~wheels])
    body.scale(1.0, 1.0, data)
    for name, value in arrays(model).items():
        np.testing.assert_array_equal(value, before[name], err_msg=name)
