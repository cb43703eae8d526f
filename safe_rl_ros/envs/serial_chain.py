"""Where the tip of an arm is and how its joints move it, for N arms at once: numpy only, read from the URDF."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from safe_rl_ros.envs.urdf import Joint, Urdf
from safe_rl_ros.types import ConfigError, FloatArray


class TipMotion(NamedTuple):
    """Position (N, 3) m and rotation (N, 3, 3) of the tip in the root frame; its Jacobian (N, 6, J).

    The Jacobian maps joint speeds to the tip's velocity (first three rows) and angular velocity in the root frame.
    """

    position: FloatArray
    rotation: FloatArray
    jacobian: FloatArray


class SerialChain:
    """The joints between the root of a URDF and one link. Pure: every arm is computed as if it were alone."""

    def __init__(self, urdf: Urdf, joints: Sequence[str], tip: str) -> None:
        """Prepare for the joints (J,), in this order, all of them turning.

        Raises:
            ConfigError: the tip does not exist, or other joints than these move it.
        """
        path = _path(urdf, tip)
        moving = [joint.name for joint in path if joint.kind != "fixed"]
        if moving != list(joints) or any(urdf.joints[name].kind not in ("revolute", "continuous") for name in moving):
            raise ConfigError(
                f"the link is moved by the joints {moving}, expected turning ones in the order {list(joints)}"
            )
        pose, offsets, fixed, axes = np.eye(4), [], [], []
        for joint in path:
            pose = pose @ joint.origin
            if joint.kind != "fixed":
                offsets.append(pose[:3, 3])
                fixed.append(pose[:3, :3])
                axes.append(joint.axis)
                pose = np.eye(4)
        self._tip = pose
        self._offsets, self._axes = np.array(offsets), np.array(axes)
        # Rodrigues' formula: a turn by q about an axis with the cross matrix K is (I + K K) + sin(q) K - cos(q) K K.
        cross = np.stack([_cross(self._axes, np.eye(3)[i]) for i in range(3)], axis=2)
        self._still = np.array(fixed) @ (np.eye(3) + cross @ cross)
        self._sin, self._cos = np.array(fixed) @ cross, -np.array(fixed) @ (cross @ cross)

    def motion(self, positions: FloatArray) -> TipMotion:
        """Return where the tip is and how it moves at joint positions (N, J) rad."""
        count, joints = positions.shape
        sin, cos = np.sin(positions)[:, :, None, None], np.cos(positions)[:, :, None, None]
        turns = self._still + sin * self._sin + cos * self._cos
        rotation, place = np.broadcast_to(np.eye(3), (count, 3, 3)), np.zeros((count, 3))
        rotations, places = np.empty((count, joints, 3, 3)), np.empty((count, joints, 3))
        for index in range(joints):
            place = place + rotation @ self._offsets[index]
            rotation = rotation @ turns[:, index]
            rotations[:, index], places[:, index] = rotation, place
        place = place + rotation @ self._tip[:3, 3]
        axes = (rotations @ self._axes[:, :, None])[:, :, :, 0]
        jacobian = np.concatenate([_cross(axes, place[:, None] - places), axes], axis=2).transpose(0, 2, 1)
        return TipMotion(place, rotation @ self._tip[:3, :3], jacobian)


def moving_joints(urdf: Urdf, link: str) -> list[str]:
    """Return the names of the joints that move a link, from the root on. Raises :class:`ConfigError` if it has none."""
    return [joint.name for joint in _path(urdf, link) if joint.kind != "fixed"]


def _path(urdf: Urdf, link: str) -> list[Joint]:
    if link not in urdf.links:
        raise ConfigError(f"link {link!r} is not in the URDF {urdf.name!r}")
    parents = {joint.child: joint for joint in urdf.joints.values()}
    path: list[Joint] = []
    while link != urdf.root:
        path.append(parents[link])
        link = path[-1].parent
    return path[::-1]


def _cross(first: FloatArray, second: FloatArray) -> FloatArray:
    """Return the cross products (..., 3) of (..., 3); numpy's own is slow for a few vectors."""
    x, y, z = first[..., 0], first[..., 1], first[..., 2]
    u, v, w = second[..., 0], second[..., 1], second[..., 2]
    return np.stack([y * w - z * v, z * u - x * w, x * v - y * u], axis=-1)


def turn_between(current: FloatArray, wanted: FloatArray) -> FloatArray:
    """Return the rotation vectors (N, 3) rad in the root frame that take ``current`` (N, 3, 3) to ``wanted`` (3, 3).

    To first order in the angle, which is what a feedback on a small error needs.
    """
    error: FloatArray = 0.5 * _cross(current.transpose(0, 2, 1), wanted.T).sum(axis=1)
    return error


def joint_speeds(jacobian: FloatArray, twist: FloatArray, damping: float, preferred: FloatArray) -> FloatArray:
    """Return the joint speeds (N, J) rad/s for the tip's twist (N, 6), damped near singular postures.

    dq = J^T (J J^T + damping^2 I)^-1 (twist - J p) + p: among all dq with that twist the one nearest to the
    preferred speeds p (N, J).
    """
    transposed = jacobian.transpose(0, 2, 1)
    squared = jacobian @ transposed + damping**2 * np.eye(6)
    rest = twist - (jacobian @ preferred[:, :, None])[:, :, 0]
    solved = np.linalg.solve(squared, rest[:, :, None])
    speeds: FloatArray = (transposed @ solved)[:, :, 0] + preferred
    return speeds
