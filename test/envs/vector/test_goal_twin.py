"""point_goal and car_goal: what is seen, what is paid, goals that move on, and robots that drive as they should."""

from __future__ import annotations

import math

import numpy as np
import pytest

from safe_rl_ros.envs.vector import SIMULATED_TASKS, make_vector_env
from safe_rl_ros.types import BackendError

ROBOTS = ["point_goal", "car_goal"]


def make(task, num_envs, **settings):
    return make_vector_env(SIMULATED_TASKS[task].config(**settings), num_envs)


def yaws(twin):
    if twin.physics.model.nq == 3:
        return twin.physics.qpos[:, 2]
    return np.array([yaw_of(qpos[3:7]) for qpos in twin.physics.qpos])


def yaw_of(quaternion):
    w, x, y, z = quaternion
    return math.atan2(2 * (w * z + x * y), 1 - 2 * (y * y + z * z))


def steer(obs, task):
    """Return actions that turn to the goal and then drive at it."""
    bearing = np.arctan2(obs[:, 1], obs[:, 0])
    drive = np.clip(1.2 - 1.5 * np.abs(bearing), 0.0, 0.7)
    if task == "point_goal":
        return np.column_stack([drive, 1.5 * bearing])
    turn = 0.8 * np.clip(bearing, -0.5, 0.5)
    return np.column_stack([drive - turn, drive + turn])


def looped_distances(twin):
    """Return what the goal and the nearest hazard are away, robot by robot."""
    goal, hazard = [], []
    for position, target, hazards in zip(twin.positions, twin.goals, twin.hazards, strict=True):
        goal.append(math.dist(position, target))
        hazard.append(min(math.dist(position, centre) for centre in hazards))
    return np.array(goal), np.array(hazard)


@pytest.mark.parametrize(("task", "steps", "time_step_s"), [("point_goal", 10, 0.002), ("car_goal", 5, 0.004)])
def test_both_robots_are_controlled_every_20_ms(task, steps, time_step_s):
    twin = make(task, 1)
    assert twin.physics.model.opt.timestep == time_step_s
    assert twin.physics.period_s == pytest.approx(steps * time_step_s) == pytest.approx(0.02)
    assert twin.control_rate_hz == 50.0


@pytest.mark.parametrize("task", ROBOTS)
def test_every_step_pays_what_the_positions_say(task):
    twin = make(task, 6)
    obs, _ = twin.reset(seed=3)
    goals_reached = violations = 0
    before, _ = looped_distances(twin)
    old_goals = twin.goals
    all_goals = list(map(tuple, old_goals))
    for _ in range(500):
        obs, reward, terminated, _, info = twin.step(steer(obs, task))
        reached = info["goal_reached"]
        to_old_goal = np.hypot(*(old_goals - twin.positions).T)
        after, hazard = looped_distances(twin)
        np.testing.assert_array_equal(reached, to_old_goal <= 0.3)
        np.testing.assert_array_equal((twin.goals != old_goals).any(axis=1), reached)
        np.testing.assert_allclose(reward, before - to_old_goal + reached, atol=1e-12)
        np.testing.assert_allclose(info["margin"], hazard - 0.2, atol=1e-12)
        np.testing.assert_allclose(info["cost"], 1 / (1 + np.exp(10 * (hazard - 0.2))), atol=1e-12)
        np.testing.assert_array_equal(info["violation"], hazard <= 0.2)
        assert not terminated.any()
        assert not info["failure"].any()
        before, old_goals = after, twin.goals
        all_goals += map(tuple, old_goals[reached])
        goals_reached += reached.sum()
        violations += info["violation"].sum()
    assert goals_reached >= 6
    assert len(set(all_goals)) == len(all_goals) == 6 + goals_reached
    assert violations > 0


@pytest.mark.parametrize("task", ROBOTS)
def test_observations_are_those_of_the_robots_frame(task):
    twin = make(task, 5)
    twin.reset(seed=1)
    rng = np.random.default_rng(0)
    for _ in range(60):
        obs = twin.step(rng.uniform(-1, 1, (5, 2)))[0]
    names = {name: index for index, name in enumerate(twin.obs_names)}
    for index in range(5):
        yaw = yaws(twin)[index]
        dx, dy = twin.goals[index] - twin.positions[index]
        distance = math.hypot(dx, dy)
        forward, left = dx * math.cos(yaw) + dy * math.sin(yaw), dy * math.cos(yaw) - dx * math.sin(yaw)
        assert obs[index, names["goal_forward"]] == pytest.approx(forward / (distance + 1e-3) / 0.7, abs=1e-5)
        assert obs[index, names["goal_left"]] == pytest.approx(left / (distance + 1e-3) / 0.7, abs=1e-5)
        assert obs[index, names["goal_distance"]] == pytest.approx((distance - 1.5) / 0.6, abs=1e-5)
        # The sensors are one time step old, so they agree with the state up to one time step's change.
        vx, vy = twin.physics.qvel[index, :2]
        forward, left = vx * math.cos(yaw) + vy * math.sin(yaw), vy * math.cos(yaw) - vx * math.sin(yaw)
        assert obs[index, names["velocity_forward"]] * 0.2 == pytest.approx(forward, abs=0.04)
        assert obs[index, names["velocity_left"]] * 0.2 == pytest.approx(left, abs=0.04)
        rate = twin.physics.qvel[index, 2 if task == "point_goal" else 5]
        assert obs[index, names["yaw_rate"]] * 2.0 == pytest.approx(rate, abs=0.3)
        nearest = np.hypot(*(twin.hazards[index] - twin.positions[index]).T).min()
        assert obs[index, 8:].max() * 0.3 + 0.3 == pytest.approx(max(0.0, 1 - nearest / 3), abs=1e-5)


@pytest.mark.parametrize("task", ROBOTS)
def test_an_episode_begins_at_rest_in_its_layout(task):
    twin = make(task, 50)
    obs, _ = twin.reset(seed=0)
    np.testing.assert_array_equal(obs[:, 3:8], 0.0)
    goal, hazard = looped_distances(twin)
    assert goal.min() >= 0.705 - 1e-12
    assert hazard.min() >= 0.58 - 1e-12
    assert np.ptp(yaws(twin)) > 4.0
    still = twin.step(np.zeros((50, 2)))[0]
    assert np.abs(still[:, 5:8]).max() < 0.05


@pytest.mark.parametrize("task", ROBOTS)
def test_goals_of_a_stored_state_go_on(task):
    """The goals after the next one are the same too, as they depend on how many there were."""
    twin, other = make(task, 4), make(task, 4)
    obs, _ = twin.reset(seed=3)
    while twin.state_dict()["goals"].min() < 1:
        obs = twin.step(steer(obs, task))[0]
    other.load_state_dict(twin.state_dict())
    before = twin.state_dict()["goals"]
    for _ in range(500):
        actions = steer(obs, task)
        obs = twin.step(actions)[0]
        np.testing.assert_array_equal(other.step(actions)[0], obs)
        np.testing.assert_array_equal(other.goals, twin.goals)
    assert (twin.state_dict()["goals"] > before).any()


def drive(task, action, steps):
    twin = make(task, 1)
    twin.reset(seed=0)
    for _ in range(steps):
        twin.step(np.array([action]))
    return twin.physics.sensors[0, 3:9]  # velocity, rates


def test_point_robot_reaches_its_speeds():
    assert drive("point_goal", [1.0, 0.0], 200)[0] == pytest.approx(1.5, abs=0.05)
    assert drive("point_goal", [0.0, 1.0], 50)[5] == pytest.approx(3.0, abs=0.05)
    velocity = drive("point_goal", [-0.5, 0.0], 200)
    assert velocity[0] == pytest.approx(-0.75, abs=0.03)
    np.testing.assert_allclose(velocity[[1, 5]], 0.0, atol=1e-6)


def test_car_reaches_its_speeds():
    ahead = drive("car_goal", [1.0, 1.0], 150)
    np.testing.assert_allclose(ahead, [0.8, 0, 0, 0, 0, 0], atol=0.02)
    back = drive("car_goal", [-1.0, -1.0], 150)
    assert back[0] == pytest.approx(-0.8, abs=0.02)
    right_wheel = drive("car_goal", [0.2, 0.4], 100)
    assert right_wheel[0] > 0.1
    assert right_wheel[5] > 0.2  # a faster right wheel turns it to the left


def test_car_stands_on_wheels_and_caster():
    twin = make("car_goal", 3)
    twin.reset(seed=0)
    rng = np.random.default_rng(0)
    for _ in range(500):
        twin.step(rng.uniform(-1, 1, (3, 2)))
        np.testing.assert_allclose(twin.physics.qpos[:, 2], 0.1, atol=2e-3)
        tilt = 1 - 2 * (twin.physics.qpos[:, 4] ** 2 + twin.physics.qpos[:, 5] ** 2)
        assert (tilt > 0.999).all()


def test_a_divergence_is_reported():
    twin = make("point_goal", 3)
    twin.reset(seed=0)
    twin.physics.qvel[1, 0] = np.nan
    with pytest.raises(BackendError, match=r"copies \[1\] diverged"):
        twin.step(np.zeros((3, 2)))
