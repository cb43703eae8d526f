"""Rays, distances and contacts in the plane: by hand, and against slow loops over edges and points."""

import math

import numpy as np
import pytest

from safe_rl_ros.envs.tasks.box_world import Boxes, Poses, cast_rays, nearest_distance, touches

HALF_WIDTH = 4.0


def poses(*rows):
    x, y, yaw = np.array(rows, dtype=float).T
    return Poses(x, y, np.cos(yaw), np.sin(yaw))


def boxes(*rows, half=(0.25, 0.25), copies=1):
    array = np.array(rows, dtype=float).reshape(-1, 3)
    x, y, yaw = (np.tile(column, (copies, 1)) for column in array.T)
    return Boxes(x, y, np.cos(yaw), np.sin(yaw), half)


def cast(origin, angles, world, range_max=20.0):
    return cast_rays(origin, np.array(angles), world, HALF_WIDTH, range_max)


def corners(x, y, yaw, half):
    """Return the corners (4, 2) of a rectangle, in order around it."""
    local = np.array([[1, 1], [-1, 1], [-1, -1], [1, -1]]) * half
    cos, sin = math.cos(yaw), math.sin(yaw)
    return local @ np.array([[cos, sin], [-sin, cos]]) + [x, y]


def edges(points):
    return list(zip(points, np.roll(points, -1, axis=0), strict=True))


def ray_to_edge(start, direction, first, second):
    """Return the parameter at which a ray meets an edge, infinity where it does not."""
    matrix = np.column_stack([direction, first - second])
    if abs(np.linalg.det(matrix)) < 1e-12:
        return math.inf
    along, part = np.linalg.solve(matrix, first - start)
    return along if along >= 0 and -1e-12 <= part <= 1 + 1e-12 else math.inf


def edges_cross(a, b, c, d):
    def side(p, q, r):
        return (q[0] - p[0]) * (r[1] - p[1]) - (q[1] - p[1]) * (r[0] - p[0])

    return side(a, b, c) * side(a, b, d) < 0 and side(c, d, a) * side(c, d, b) < 0


def inside(point, x, y, yaw, half):
    dx, dy = point[0] - x, point[1] - y
    forward, left = dx * math.cos(yaw) + dy * math.sin(yaw), dy * math.cos(yaw) - dx * math.sin(yaw)
    return abs(forward) <= half[0] and abs(left) <= half[1]


def test_rays_by_hand():
    """From the origin: 1.75 to a box at x = 2, 4 to the walls, 4 sqrt(2) into a corner."""
    found = cast(poses((0, 0, 0)), [0.0, math.pi / 2, math.pi, -math.pi / 4], boxes((2, 0, 0)))
    np.testing.assert_allclose(found, [[1.75, 4.0, 4.0, 4.0 * math.sqrt(2)]])


def test_rays_are_in_the_robots_axes():
    """Turned left by 90 degrees at (0, 1), the box at (0, 3) lies ahead, the wall x = -4 to the left."""
    found = cast(poses((0, 1, math.pi / 2)), [0.0, math.pi / 2, -math.pi / 2], boxes((0, 3, 0)))
    np.testing.assert_allclose(found, [[1.75, 4.0, 4.0]])


def test_a_turned_box_is_met_at_its_corner():
    found = cast(poses((0, 0, 0)), [0.0], boxes((2, 0, math.pi / 4)))
    np.testing.assert_allclose(found, [[2.0 - 0.25 * math.sqrt(2)]])


def test_the_nearest_box_counts_and_those_behind_do_not():
    world = boxes((3, 0, 0), (1, 0, 0), (-1, 0, 0))
    np.testing.assert_allclose(cast(poses((0, 0, 0)), [0.0, math.pi / 2], world), [[0.75, 4.0]])


def test_range_and_inside():
    world = boxes((2, 0, 0))
    np.testing.assert_allclose(cast(poses((0, 0, 0)), [0.0, 1.0], world, range_max=1.5), [[1.5, 1.5]])
    np.testing.assert_array_equal(cast(poses((2, 0, 0)), [0.0, 1.0], world), [[0.0, 0.0]])
    np.testing.assert_allclose(cast(poses((2, 0, 0)), [0.0], boxes()), [[2.0]])


def test_a_ray_along_a_face_is_finite():
    """The direction's y is exactly 0 and the ray starts on the line of the face: 0 / 0 in a careless slab test."""
    found = cast(poses((0, 0.25, 0), (0, 0.2500001, 0)), [0.0], boxes((2, 0, 0), copies=2))
    assert np.isfinite(found).all()
    assert found[1, 0] == pytest.approx(4.0)


def test_rays_against_edges_one_by_one():
    rng = np.random.default_rng(0)
    half = (0.4, 0.2)
    placed = np.column_stack([rng.uniform(-3, 3, (5, 2)), rng.uniform(-math.pi, math.pi, 5)])
    starts = [
        (x, y, yaw) for x, y, yaw in rng.uniform(-3, 3, (40, 3)) if not any(inside((x, y), *p, half) for p in placed)
    ]
    angles = np.linspace(-2.3, 2.3, 23)
    found = cast(poses(*starts), angles, boxes(*placed, half=half, copies=len(starts)))
    walls = edges(corners(0, 0, 0, (HALF_WIDTH, HALF_WIDTH)))
    lines = walls + [edge for p in placed for edge in edges(corners(*p, half))]
    for row, (x, y, yaw) in zip(found, starts, strict=True):
        for value, angle in zip(row, angles, strict=True):
            direction = np.array([math.cos(yaw + angle), math.sin(yaw + angle)])
            expected = min(ray_to_edge(np.array([x, y]), direction, *line) for line in lines)
            assert value == pytest.approx(expected, abs=1e-9)


def test_nearest_distance_by_hand():
    world = boxes((2, 0, 0), (0, 3, math.pi / 4), copies=4)
    where = poses((0, 0, 0), (2.5, 0.5, 1), (-3.5, 0, 2), (2.1, 0.1, 0))
    # Ahead to the face; diagonally to a corner; to the wall; inside the box.
    np.testing.assert_allclose(nearest_distance(where, world, HALF_WIDTH), [1.75, 0.25 * math.sqrt(2), 0.5, 0.0])


def test_nearest_distance_against_many_rays():
    rng = np.random.default_rng(1)
    placed = np.column_stack([rng.uniform(-3, 3, (6, 2)), rng.uniform(-math.pi, math.pi, 6)])
    where = poses(*rng.uniform(-3, 3, (30, 3)))
    world = boxes(*placed, copies=30)
    around = cast_rays(where, np.linspace(-math.pi, math.pi, 4000), world, HALF_WIDTH, 20.0).min(axis=1)
    found = nearest_distance(where, world, HALF_WIDTH)
    assert (found <= around + 1e-9).all()
    np.testing.assert_allclose(found, around, atol=2e-3)


@pytest.mark.parametrize(
    ("pose", "contact"),
    [
        ((0.0, 0.0, 0.0), False),
        ((1.4999, 0.0, 0.0), False),  # front at 1.7499, the face at 1.75
        ((1.5001, 0.0, 0.0), True),
        ((1.5001, 0.0, math.pi / 2), False),  # turned: .2 to that side
        ((1.5501, 0.0, math.pi / 2), True),
        ((1.5001, 0.4499, 0.0), True),  # a corner of the robot, .2 wide, over the box's edge at .25
        ((1.5001, 0.4501, 0.0), False),
        ((2.0, 0.0, 0.3), True),
        ((-3.7499, 0.0, 0.0), False),  # the wall
        ((-3.7501, 0.0, 0.0), True),
        ((-3.7501, 0.0, math.pi / 2), False),
        ((0.0, 3.8001, 0.0), True),
    ],
)
def test_contact_by_hand(pose, contact):
    """A robot of .5 x .4 m, a box of .5 m at (2, 0)."""
    assert touches(poses(pose), (0.25, 0.2), boxes((2, 0, 0)), HALF_WIDTH).tolist() == [contact]


def test_a_corner_between_the_axes_of_a_turned_box_does_not_touch():
    """The bounding boxes overlap, and only the box's own axis separates: its corner region is empty."""
    world = boxes((0, 0, math.pi / 4), half=(0.5, 0.5))
    beside = poses((0.62, 0.62, 0.0))  # the robot's corner at (.37, .42), the box's side at x + y = .7071
    assert not touches(beside, (0.25, 0.2), world, HALF_WIDTH).any()
    assert touches(poses((0.57, 0.57, 0.0)), (0.25, 0.2), world, HALF_WIDTH).all()


def test_contact_against_edges_and_corners_one_by_one():
    rng = np.random.default_rng(2)
    robot, half = (0.25, 0.2), (0.4, 0.15)
    where = np.column_stack([rng.uniform(-0.7, 0.7, (600, 2)), rng.uniform(-math.pi, math.pi, 600)])
    placed = (0.1, -0.1, 0.7)
    found = touches(poses(*where), robot, boxes(placed, half=half, copies=600), HALF_WIDTH)
    theirs = corners(*placed, half)
    for contact, pose in zip(found, where, strict=True):
        mine = corners(*pose, robot)
        expected = any(edges_cross(*a, *b) for a in edges(mine) for b in edges(theirs))
        expected |= any(inside(p, *pose, robot) for p in theirs) or any(inside(p, *placed, half) for p in mine)
        assert contact == expected
    assert 100 < found.sum() < 500
