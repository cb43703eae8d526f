"""Yaw and tilt against rotations made from their angles."""

from __future__ import annotations

import numpy as np
import pytest
from transforms3d.euler import euler2mat, euler2quat

from safe_rl_ros.envs.rotations import tilt_of, yaw_of


@pytest.mark.parametrize(("roll", "pitch"), [(0.0, 0.0), (0.2, -0.3), (-1.2, 0.9)])
@pytest.mark.parametrize("yaw", [-3.0, -1.0, 0.0, 0.5, 3.1])
def test_yaw_whatever_the_tilt(yaw: float, roll: float, pitch: float):
    w, x, y, z = euler2quat(roll, pitch, yaw, axes="sxyz")  # transforms3d's order
    assert yaw_of(np.array([x, y, z, w])) == pytest.approx(yaw)
    assert yaw_of((x, y, z, w)) == yaw_of(np.array([x, y, z, w]))


def test_what_is_not_known_faces_nowhere():
    assert np.isnan(yaw_of([0.0, 0.0, np.nan, 1.0]))


def test_tilt_is_the_angle_to_the_vertical_whichever_way_it_leans():
    angles = np.array([0.0, 1e-9, 0.3, np.pi / 2.0, 3.0, np.pi])
    for heading in (0.0, 0.7, -2.0):
        up = np.array([euler2mat(heading, angle, 0.0, axes="rzyx")[:, 2] for angle in angles])
        np.testing.assert_allclose(tilt_of(up), angles, rtol=1e-7, atol=1e-15)
