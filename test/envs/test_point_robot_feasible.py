"""The feasible set on a grid: against the braking distance in closed form, and against driving."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from safe_rl_ros.envs.tasks.point_robot import PointRobotConfig, advance, episode_over, hazard_margin
from safe_rl_ros.envs.tasks.point_robot_feasible import (
    FeasibleSet,
    Grid,
    compute_feasible_set,
    score,
    slice_states,
)
from safe_rl_ros.types import ConfigError

STRAIGHT = PointRobotConfig(hazards=((0.0, 0.0),), hazard_radius_m=0.5, goal=(0.0, 2.9), goal_radius_m=0.05)
COARSE = Grid(x=25, y=25, speed=9, heading=24, hold_steps=4, accelerations=(-1.0, 0.0))


@pytest.mark.parametrize(("hold_steps", "speeds"), [(1, 41), (4, 21)])
def test_without_turning_it_is_the_braking_distance(hold_steps, speeds):
    """Heading for the hazard's centre: feasible iff the gap is at least v^2 / 2a + v dt / 2, summed over steps."""
    grid = Grid(x=121, y=3, speed=speeds, heading=4, turns=(0.0,), hold_steps=hold_steps)
    found = compute_feasible_set(STRAIGHT, grid)
    speed = np.repeat(np.arange(0.1, 1.51, 0.2), 60)
    gap = np.tile(np.linspace(0.02, 2.3, 60), len(speed) // 60)
    braking = speed**2 / 2.0 + speed * 0.05 / 2.0
    for side, heading in ((-1.0, 0.0), (1.0, -np.pi)):
        states = np.stack([side * (0.5 + gap), np.zeros_like(gap), speed, np.full_like(gap, heading)], axis=1)
        shallow = braking - gap < 0.2  # close to the centre V bends
        error = found.value(states) - (braking - gap)
        assert np.abs(error[shallow]).max() < 1e-3
        clear = np.abs(braking - gap) > 1e-3
        np.testing.assert_array_equal(found.contains(states)[clear], (gap > braking)[clear])


def test_driving_away_from_it_is_as_safe_as_standing():
    found = compute_feasible_set(STRAIGHT, Grid(x=61, y=3, speed=5, heading=4, turns=(0.0,)))
    x = np.linspace(0.6, 2.8, 12)
    states = np.stack([x, np.zeros(12), np.full(12, 2.0), np.zeros(12)], axis=1)
    np.testing.assert_allclose(found.value(states), 0.5 - x, atol=0.01)


@pytest.fixture(scope="module")
def feasible():
    return compute_feasible_set(PointRobotConfig(), COARSE)


@pytest.fixture(scope="module")
def states():
    rng = np.random.default_rng(0)
    return rng.uniform([-3.0, -3.0, 0.0, -np.pi], [3.0, 3.0, 2.0, np.pi], (3000, 4))


def worst_of(config, states, drive, steps=50):
    """Return the largest h (N,) on the way until an episode is over, driving with ``drive``: states -> actions."""
    worst = -hazard_margin(config, states[:, 0], states[:, 1])
    alive = ~episode_over(config, states[:, 0], states[:, 1])
    for _ in range(steps):
        states = advance(config, states, drive(states))
        worst = np.where(alive, np.maximum(worst, -hazard_margin(config, states[:, 0], states[:, 1])), worst)
        alive &= ~episode_over(config, states[:, 0], states[:, 1])
    return worst


def constant(acceleration, turn):
    """Return the driving that always does the same."""
    return lambda states: np.broadcast_to([acceleration, turn], (len(states), 2))


def test_from_inside_its_own_actions_keep_out_of_the_hazards(feasible, states):
    inside = states[feasible.value(states) < -0.1]
    assert len(inside) > 2000
    assert worst_of(feasible.config, inside, feasible.safest_action).max() < 0.0


def test_from_outside_no_driving_helps(feasible, states):
    """Braking or not, with any constant turn, and at random."""
    outside = states[feasible.value(states) > 0.1]
    outside = outside[hazard_margin(feasible.config, outside[:, 0], outside[:, 1]) > 0.0]  # not in one yet
    assert len(outside) > 20
    rng = np.random.default_rng(1)
    drives = [constant(a, w) for a in (-1, 0, 1) for w in (-1, -0.5, 0, 0.5, 1)]
    drives += [lambda s: rng.choice([-1.0, 1.0], (len(s), 2))] * 10
    for drive in drives:
        assert (worst_of(feasible.config, outside, drive) > 0.0).all()


def test_values_are_close_to_the_best_of_hard_braking_with_one_turn(feasible, states):
    best = np.min(
        [
            worst_of(feasible.config, states, constant(a, w))
            for a, w in [(-1, -1), (-1, -0.5), (-1, 0), (-1, 0.5), (-1, 1), (0, -1), (0, 1)]
        ],
        axis=0,
    )
    near = np.abs(best) < 0.3
    error = feasible.value(states)[near] - best[near]
    assert np.quantile(np.abs(error), 0.95) < 0.08
    assert score(feasible.contains(states), best <= 0.0).unsafe_iou > 0.96


def test_speed_matters(feasible):
    config = feasible.config
    shares = []
    for speed in (0.0, 1.0, 2.0):
        plane = slice_states(config, speed, np.pi / 4, 61)
        outside = hazard_margin(config, plane[:, 0], plane[:, 1]) >= 0.0
        shares.append(score(outside, feasible.contains(plane)).false_safe)
    assert shares[0] == 0.0  # standing still, all that is outside of the hazards
    assert 0.01 < shares[1] < 0.5 * shares[2]


def test_outside_of_the_arena_and_at_the_goal_an_episode_is_over(feasible):
    ahead = np.array([[3.5, 0.0, 2.0, np.pi], [2.2, 2.2, 2.0, -np.pi]])
    np.testing.assert_allclose(feasible.value(ahead), -hazard_margin(feasible.config, ahead[:, 0], ahead[:, 1]))


def test_headings_close_the_circle(feasible):
    state = np.array([[1.0, 0.5, 1.5, np.pi - 1e-9]])
    np.testing.assert_allclose(feasible.value(state), feasible.value(state * [1, 1, 1, -1]), atol=1e-6)
    np.testing.assert_allclose(feasible.value(state), feasible.value(state + np.array([0, 0, 0, 6 * np.pi])), atol=1e-6)


def test_score_by_hand():
    found, truth = np.array([1, 1, 1, 0, 0], bool), np.array([1, 1, 0, 1, 0], bool)
    assert score(found, truth) == (2 / 4, pytest.approx(1 / 3), pytest.approx(1 / 3), 1 / 3)
    assert score(truth, truth) == (1.0, 0.0, 0.0, 1.0)
    nothing = np.zeros(5, bool)
    assert score(nothing, nothing) == (1.0, 0.0, 0.0, 1.0)


def test_stored_and_loaded_it_is_the_same_and_another_task_is_refused(feasible, states, tmp_path):
    path = tmp_path / "set.npz"
    feasible.save(path)
    again = FeasibleSet.load(path, feasible.config, COARSE)
    np.testing.assert_array_equal(again.value(states), feasible.value(states))
    with pytest.raises(ConfigError, match="another configuration"):
        FeasibleSet.load(path, PointRobotConfig(hazard_radius_m=0.7), COARSE)
    with pytest.raises(ConfigError, match="another configuration"):
        FeasibleSet.load(path, feasible.config)


def test_an_iteration_that_is_cut_short_is_an_error():
    with pytest.raises(ConfigError, match="did not settle within 1 sweeps"):
        compute_feasible_set(PointRobotConfig(), replace(COARSE, x=9, y=9, heading=8, max_sweeps=1))


@pytest.mark.parametrize("wrong", [{"x": 1}, {"hold_steps": 0}, {"turns": ()}, {"accelerations": (-2.0,)}])
def test_wrong_grids_are_refused(wrong):
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        Grid(**wrong)


def test_misshapen_states_are_refused(feasible):
    with pytest.raises(ValueError, match="states have shape"):
        feasible.value(np.zeros((2, 3)))


def test_a_mirrored_arena_has_mirrored_values():
    config = PointRobotConfig(hazards=((0.0, 0.0),), goal=(2.5, 0.0))
    found = compute_feasible_set(config, Grid(x=21, y=21, speed=5, heading=10, tolerance=1e-5))
    states = np.random.default_rng(0).uniform([-3.0, -3.0, 0.0, -3.1], [3.0, 3.0, 2.0, 3.1], (2000, 4))
    np.testing.assert_allclose(found.value(states), found.value(states * [1, -1, 1, -1]), atol=1e-3)
