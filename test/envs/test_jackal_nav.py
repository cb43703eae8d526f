"""Action, margin, cost, reward, observation and arenas of jackal_nav, by hand."""

import math

import numpy as np
import pytest

from safe_rl_ros.envs.robot_spec import load_robot_spec
from safe_rl_ros.envs.tasks import jackal_nav as task
from safe_rl_ros.envs.tasks.jackal_nav import Arena, JackalNavConfig
from safe_rl_ros.types import ConfigError

CONFIG = JackalNavConfig()
SCAN = load_robot_spec("jackal").base_scan
NO, YES = np.array([False]), np.array([True])


def margin(sector=3.0, ray=3.0, contact=NO, nearest=3.0, **settings):
    config = JackalNavConfig(**settings)
    found = task.margin_of(config, np.array([[3.0, ray]]), np.array([[3.0, sector]]), contact, np.array([nearest]))
    return float(found[0])


def test_the_lidar_looks_over_271_degrees_in_steps_of_2():
    degrees = np.degrees(SCAN.angles)
    assert (degrees[0], degrees[-1], len(degrees)) == (pytest.approx(-135), pytest.approx(135), 136)
    np.testing.assert_allclose(np.diff(degrees), 2.0)


def test_sectors_are_means_of_11_rays_5_apart():
    rays = task.sector_rays(SCAN)
    assert rays.shape == (26, 11)
    np.testing.assert_array_equal(rays[0], np.arange(11))
    np.testing.assert_array_equal(rays[1], np.arange(5, 16))
    np.testing.assert_array_equal(rays[25], np.arange(125, 136))
    names = task.observation_names(SCAN)
    assert len(names) == 32
    assert names[:6] == ("goal_cos", "goal_sin", "goal_distance", "linear_x", "angular_z", "acceleration_x")
    assert (names[6], names[18], names[19], names[31]) == (
        "closeness_-125",
        "closeness_-5",
        "closeness_+5",
        "closeness_+125",
    )


@pytest.mark.parametrize("rays", [10, 135, 137])
def test_a_lidar_that_makes_no_sectors_is_refused(rays):
    with pytest.raises(ConfigError, match="sectors"):
        task.sector_rays(SCAN.model_copy(update={"rays": rays}))


def test_actions_change_a_command_that_is_kept():
    """v + a / 30 within [0, 1]; w = .8 w + .2 a."""
    command = np.array([[0.5, 0.5], [0.99, -1.0], [0.01, 1.0]])
    actions = np.array([[0.6, -1.0], [1.0, -1.0], [-1.0, 0.0]])
    found = task.next_command(CONFIG, command, actions, 1 / 30)
    np.testing.assert_allclose(found, [[0.52, 0.2], [1.0, -1.0], [0.0, 0.8]])


def test_margin_is_the_least_sector_less_half_a_metre():
    assert margin(sector=0.7) == pytest.approx(0.2)
    assert margin(sector=0.4) == pytest.approx(-0.1)
    assert margin(sector=0.7, ray=0.45) == pytest.approx(0.2)
    assert margin(sector=0.7, ray=0.45, clearance="rays") == pytest.approx(-0.05)
    assert margin(sector=0.7, nearest=0.3) == pytest.approx(0.2)  # behind the robot: not seen, not touched


def test_a_contact_is_a_violation_even_where_the_lidar_does_not_look():
    assert margin(sector=2.0, contact=YES, nearest=0.3) == pytest.approx(-0.2)
    assert margin(sector=0.1, contact=YES, nearest=0.3) == pytest.approx(-0.4)
    assert margin(sector=2.0, contact=YES, nearest=0.8) == 0.0  # a footprint larger than the safe distance


def test_cost_is_a_sigmoid_and_a_contact_adds_the_rest_of_the_episode():
    found = task.cost_of(CONFIG, np.array([0.0, 0.1, -0.2]), np.array([False] * 3), np.array([7, 7, 7]))
    np.testing.assert_allclose(found, [0.5, 1 / (1 + math.e), 1 / (1 + math.exp(-2.0))])
    hit = task.cost_of(CONFIG, np.full(3, -0.2), np.array([True] * 3), np.array([0, 1, 3]))
    np.testing.assert_allclose(hit - 1 / (1 + math.exp(-2.0)), [0.0, 0.99, 0.99 + 0.99**2 + 0.99**3])


def test_reward_is_progress_and_a_bonus_within_25_cm():
    before, after = np.array([1.0, 1.0, 0.3]), np.array([0.97, 1.02, 0.25])
    reward, reached = task.progress_reward(CONFIG, before, after)
    np.testing.assert_allclose(reward, [0.03, -0.02, 1.05])
    np.testing.assert_array_equal(reached, [False, False, True])


def test_observation_by_hand():
    goal = np.array([[3.0, 4.0], [0.0, -0.5]])
    motion = np.array([[0.5, -0.3, 4.0], [0.0, 0.0, 0.0]])
    sectors = np.full((2, 26), 3.0)
    sectors[0, 7] = 0.5
    obs = task.observe(CONFIG, goal, motion, sectors)
    assert (obs.shape, obs.dtype) == ((2, 32), np.float32)
    np.testing.assert_allclose(obs[0, :6], [0.6, 0.8, 3.0, 0.5, -0.3, 0.5], rtol=1e-6)
    np.testing.assert_allclose(obs[1, :3], [0.0, -1.0, 0.5], rtol=1e-6)
    assert obs[0, 13] == pytest.approx(math.exp(-1.5))
    assert obs[0, 12] == pytest.approx(math.exp(-9.0))


def test_the_grid_leaves_the_centre_clear():
    points = Arena(CONFIG).points
    # 10 x 10 points, half a metre apart; those of |x|, |y| in {.25, .75} are 4 x 4.
    assert len(points) == 100 - 16
    assert np.abs(points).max() == pytest.approx(2.25)
    assert np.abs(points).max(axis=1).min() == pytest.approx(1.25)


@pytest.mark.parametrize("turned", [False, True])
def test_arenas_keep_their_distances(turned):
    config = JackalNavConfig(turn_boxes=turned)
    arena = Arena(config)
    for seed in range(50):
        rng = np.random.default_rng(seed)
        boxes = arena.draw_boxes(rng)
        assert boxes.shape == (8, 3)
        assert len(np.unique(boxes[:, :2], axis=0)) == 8
        assert (len(np.unique(boxes[:, 2])) == 8) is turned
        goal = None
        for _ in range(5):
            before, goal = goal, arena.draw_goal(rng, boxes, goal)
            gaps = [math.dist(goal, box[:2]) - 0.25 * math.sqrt(2) for box in boxes]
            assert min(gaps) > 0.7
            assert before is None or math.dist(before, goal) >= 2.0 - 1e-9


def test_goals_may_stand_outside_a_circle_around_each_box():
    """.35 m of half diagonal and .2 m of clearance: the four neighbours at .5 m are taken, diagonal ones are free."""
    arena = Arena(JackalNavConfig(goal_clearance_m=0.2))
    box = np.array([[1.75, 1.75, 0.0]])
    free = {(round(x, 2), round(y, 2)) for x, y in arena.free_points(box)}
    taken = {(round(x, 2), round(y, 2)) for x, y in arena.points} - free
    assert taken == {(1.75, 1.75), (1.25, 1.75), (2.25, 1.75), (1.75, 1.25), (1.75, 2.25)}


def test_the_same_generator_gives_the_same_arena():
    first, second = (Arena(CONFIG).draw_boxes(np.random.default_rng(3)) for _ in range(2))
    np.testing.assert_array_equal(first, second)
    assert not np.array_equal(first, Arena(CONFIG).draw_boxes(np.random.default_rng(4)))


def test_configurations_without_room_are_refused():
    with pytest.raises(ConfigError, match="reduce boxes"):
        Arena(JackalNavConfig(boxes=80)).draw_boxes(np.random.default_rng(0))
    with pytest.raises(ConfigError, match="84 points"):
        Arena(JackalNavConfig(boxes=84))
    with pytest.raises(ValueError, match="arena_half_width_m"):
        JackalNavConfig(arena_half_width_m=2.5)
    with pytest.raises(ValueError, match="clear_half_width_m"):
        JackalNavConfig(clear_half_width_m=0.0)
