"""Plane geometry of robots among boxes inside four walls, over all robots, rays and boxes at once.

Shapes: N robots, R rays, M boxes. A box is x, y, yaw and two half extents; the walls are the lines |x| = |y| =
``half_width``. Lengths in m, angles in rad.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from safe_rl_ros.types import BoolArray, FloatArray

_LEAST_SLOPE = 1e-12
"""Stands in for a direction's component of zero: the crossing is then far beyond any range, and never 0 / 0."""


@dataclass(frozen=True)
class Poses:
    """Poses in the plane, each (N,): position, cosine and sine of the yaw."""

    x: FloatArray
    y: FloatArray
    cos: FloatArray
    sin: FloatArray


@dataclass(frozen=True)
class Boxes:
    """The boxes of every robot's arena, each (N, M): centre, cosine and sine of the yaw; one size for all.

    ``half`` is half the length along the box's own x and y axis.
    """

    x: FloatArray
    y: FloatArray
    cos: FloatArray
    sin: FloatArray
    half: tuple[float, float]

    def local(self, x: FloatArray, y: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Return where points x, y (N,) are in the axes of every box, (N, M) each."""
        dx, dy = x[:, None] - self.x, y[:, None] - self.y
        return dx * self.cos + dy * self.sin, dy * self.cos - dx * self.sin


def _nonzero(slope: FloatArray) -> FloatArray:
    return np.where(np.abs(slope) < _LEAST_SLOPE, np.copysign(_LEAST_SLOPE, slope), slope)


def cast_rays(origin: Poses, angles: FloatArray, boxes: Boxes, half_width: float, range_max: float) -> FloatArray:
    """Return the distance (N, R) along every ray to the first box or wall, at most ``range_max``; 0 inside a box.

    Slab test: in the axes of a box the ray is between the lines x = -h and x = h from one parameter to another, and
    the same for y; it meets the box where both hold at once (Kay and Kajiya, 1986).

    Args:
        origin: where the lidars are and how they look.
        angles: (R,) of the rays, counter-clockwise from the lidar's x axis.
        boxes: the boxes of each lidar's arena.
        half_width: of the arena; the origin must be inside.
        range_max: what a ray that hits nothing gives.
    """
    cos, sin = np.cos(angles), np.sin(angles)
    ray_x = origin.cos[:, None] * cos - origin.sin[:, None] * sin  # (N, R), in the arena's axes
    ray_y = origin.sin[:, None] * cos + origin.cos[:, None] * sin
    slope_x, slope_y = _nonzero(ray_x), _nonzero(ray_y)
    walls = np.minimum(
        (np.copysign(half_width, slope_x) - origin.x[:, None]) / slope_x,
        (np.copysign(half_width, slope_y) - origin.y[:, None]) / slope_y,
    )
    nearest = np.clip(walls, 0.0, range_max)
    if boxes.x.shape[1]:
        nearest = np.minimum(nearest, _to_boxes(origin, ray_x, ray_y, boxes).min(axis=1))
    return nearest


def _to_boxes(origin: Poses, ray_x: FloatArray, ray_y: FloatArray, boxes: Boxes) -> FloatArray:
    """Return the distance (N, M, R) along rays (N, R) to each box, infinity where it is missed."""
    cos, sin = boxes.cos[:, :, None], boxes.sin[:, :, None]
    ray_x, ray_y = ray_x[:, None, :], ray_y[:, None, :]
    enter = np.full((), -np.inf)
    leave = np.full((), np.inf)
    locals_ = boxes.local(origin.x, origin.y)
    slopes = (ray_x * cos + ray_y * sin, ray_y * cos - ray_x * sin)
    for start, slope, half in zip(locals_, slopes, boxes.half, strict=True):  # the two axes of the plane
        inverse = 1.0 / _nonzero(slope)
        middle, extent = -start[:, :, None] * inverse, half * np.abs(inverse)
        enter, leave = np.maximum(enter, middle - extent), np.minimum(leave, middle + extent)
    return np.where((leave >= enter) & (leave >= 0.0), np.maximum(enter, 0.0), np.inf)


def nearest_distance(poses: Poses, boxes: Boxes, half_width: float) -> FloatArray:
    """Return the distance (N,) from the positions to the nearest point of any box or wall; 0 inside a box."""
    nearest = half_width - np.maximum(np.abs(poses.x), np.abs(poses.y))
    if boxes.x.shape[1]:
        x, y = boxes.local(poses.x, poses.y)
        gap_x = np.maximum(np.abs(x) - boxes.half[0], 0.0)
        gap_y = np.maximum(np.abs(y) - boxes.half[1], 0.0)
        nearest = np.minimum(nearest, np.sqrt(gap_x * gap_x + gap_y * gap_y).min(axis=1))
    return np.maximum(nearest, 0.0)


def touches(poses: Poses, half: tuple[float, float], boxes: Boxes, half_width: float) -> BoolArray:
    """Return (N,) whether a rectangle at each pose, ``half`` its half length and width, meets a box or a wall.

    Two rectangles are apart exactly if one of their four axes separates them (separating axis theorem).
    """
    reach_x = half[0] * np.abs(poses.cos) + half[1] * np.abs(poses.sin)  # of the rectangle, along the arena's axes
    reach_y = half[0] * np.abs(poses.sin) + half[1] * np.abs(poses.cos)
    outside = (np.abs(poses.x) + reach_x >= half_width) | (np.abs(poses.y) + reach_y >= half_width)
    if not boxes.x.shape[1]:
        return outside
    x, y = boxes.local(poses.x, poses.y)
    # Cosine and sine of the angle between rectangle and box, (N, M).
    cos = np.abs(poses.cos[:, None] * boxes.cos + poses.sin[:, None] * boxes.sin)
    sin = np.abs(poses.sin[:, None] * boxes.cos - poses.cos[:, None] * boxes.sin)
    apart = np.abs(x) > boxes.half[0] + half[0] * cos + half[1] * sin
    apart |= np.abs(y) > boxes.half[1] + half[0] * sin + half[1] * cos
    dx, dy = boxes.x - poses.x[:, None], boxes.y - poses.y[:, None]
    forward = dx * poses.cos[:, None] + dy * poses.sin[:, None]
    left = dy * poses.cos[:, None] - dx * poses.sin[:, None]
    apart |= np.abs(forward) > half[0] + boxes.half[0] * cos + boxes.half[1] * sin
    apart |= np.abs(left) > half[1] + boxes.half[0] * sin + boxes.half[1] * cos
    met: BoolArray = outside | ~apart.all(axis=1)
    return met
