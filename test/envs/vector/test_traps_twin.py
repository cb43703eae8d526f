"""The robots of the tasks with traps, what their worlds do to them, and drivers that solve the tasks."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

pytest.importorskip("pybullet")

from safe_rl_ros.envs.tasks.traps import CarTrapsConfig, PointTrapsConfig
from safe_rl_ros.envs.tasks.traps_driver import drive_car, drive_point
from safe_rl_ros.envs.vector import make_vector_env
from safe_rl_ros.types import ConfigError

CONFIGS = {"point_traps": PointTrapsConfig, "car_traps": CarTrapsConfig}
DRIVERS = {"point_traps": drive_point, "car_traps": drive_car}
TASKS = list(CONFIGS)
STILL, AHEAD = np.zeros((1, 2)), np.array([[1.0, 0.0]])


def make(task, num_envs=1, **changes):
    twin = make_vector_env(CONFIGS[task](**changes), num_envs)
    twin.reset(seed=0)
    return twin


def hold(twin, action, steps):
    """Step all copies by one action; return the states (steps, N, P)."""
    states = []
    for _ in range(steps):
        twin.step(np.tile(action, (twin.num_envs, 1)))
        states.append(twin.states.copy())
    return np.array(states)


def move(twin, *, goal=None, trap=None):
    """Put goal or first trap of every copy at an offset (2,) m from its robot."""
    state = twin.state_dict()
    for row, offset in ((0, goal), (1, trap)):
        if offset is not None:
            state["points"][:, row] = twin.positions + offset
    state["goal_distance"] = np.hypot(*(state["points"][:, 0] - twin.positions).T)
    twin.load_state_dict(state)


@pytest.mark.parametrize("task", TASKS)
def test_an_episode_begins_and_goes_the_same_whatever_was_before(task):
    fresh, used = make(task), make(task)
    rng = np.random.default_rng(0)
    actions = rng.uniform(-1.0, 1.0, (15, 1, 2))

    def go(twin):
        twin.reset(seed=4)
        return np.array([(twin.step(action), twin.states.copy())[1] for action in actions])

    expected = go(fresh)
    for steps in (0, 1, 2, 5, 20):
        used.reset(seed=4)
        hold(used, rng.uniform(-1.0, 1.0, 2), steps)
        np.testing.assert_array_equal(go(used), expected)


def test_the_points_thrust_by_hand():
    """Of 3 N and 2 N s/m on 1 kg, in steps of 10 ms: v = 1.5 (1 - .98^n)."""
    twin = make("point_traps")
    x, y, yaw, *_ = twin.states[0]
    after = hold(twin, AHEAD[0], 1)[0, 0]
    speeds = 1.5 * (1.0 - 0.98 ** np.arange(1, 6))
    assert np.hypot(after[3], after[4]) == pytest.approx(speeds[-1])
    way = 0.01 * speeds.sum()
    np.testing.assert_allclose(after[:3], [x + way * np.cos(yaw), y + way * np.sin(yaw), yaw])
    assert twin.observations[0, 3] == pytest.approx(speeds[-1])
    last = hold(twin, AHEAD[0], 100)[-1, 0]
    assert np.hypot(last[3], last[4]) == pytest.approx(1.5, abs=1e-4)


def test_the_points_torque_by_hand():
    """Of .12 N m and .04 N m s on .004 kg m^2, in steps of 10 ms: w = 3 (1 - .9^n)."""
    twin = make("point_traps")
    before = twin.states[0].copy()
    after = hold(twin, np.array([0.0, -1.0]), 1)[0, 0]
    rates = -3.0 * (1.0 - 0.9 ** np.arange(1, 6))
    assert after[5] == pytest.approx(rates[-1])
    assert after[2] - before[2] == pytest.approx(0.01 * rates.sum())
    np.testing.assert_allclose(after[:2], before[:2])


def test_the_car_accelerates_as_its_wheels_torque_allows_and_reaches_its_speed():
    """Two wheels of 0.3 N m at .05 m push 5.892 kg by 12 N: 2.04 m/s^2, less what turns the wheels."""
    twin = make("car_traps")
    states = hold(twin, AHEAD[0], 60)[:, 0]
    speeds = np.hypot(states[:, 3], states[:, 4])
    assert speeds[0] < 2.04 * 0.05
    assert 1.4 < speeds[9] / 0.5 < 2.04
    assert speeds[40:].mean() == pytest.approx(1.5, rel=0.05)
    backwards = hold(twin, -AHEAD[0], 60)[-1, 0]
    assert backwards[3] * np.cos(backwards[2]) + backwards[4] * np.sin(backwards[2]) == pytest.approx(-1.5, rel=0.05)


def test_the_car_steers_at_its_rate_to_its_angle_and_drives_the_circle_of_it():
    twin = make("car_traps")
    states = hold(twin, np.array([0.4, 1.0]), 60)[:, 0]
    assert states[0, 6] == pytest.approx(4.0 * 0.05, rel=0.2)
    assert (np.diff(states[:, 6]) < 4.0 * 0.05 * 1.2).all()
    assert states[-1, 6] == pytest.approx(0.5, abs=0.01)
    assert twin.observations[0, 10] == pytest.approx(1.0, abs=0.02)
    speed = np.hypot(states[-20:, 3], states[-20:, 4]).mean()
    assert speed / states[-20:, 5].mean() == pytest.approx(0.325 / np.tan(0.5), rel=0.1)
    slow = make("car_traps", steering_speed=0.5)
    assert hold(slow, np.array([0.4, 1.0]), 4)[-1, 0, 6] < 0.5 * 0.2 * 1.2


def test_the_cars_centre_is_midway_between_its_axles():
    twin = make("car_traps")
    x, y, yaw = twin.states[0, :3]
    np.testing.assert_allclose(twin.positions[0], [x + 0.1625 * np.cos(yaw), y + 0.1625 * np.sin(yaw)])
    hold(twin, np.array([0.5, 1.0]), 30)
    forward, left, turn = twin.observations[0, 3:6]
    assert left == pytest.approx(0.1625 * 2.0 * turn, abs=0.05)  # it turns about the rear axle
    assert forward > 0.5


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("max_speed_mps", 4.5, "rad/s of the outer rear wheel"),
        ("max_steering_rad", 0.9, "rad of the inner front wheel"),
        ("wheel_effort_nm", 10.5, "10.5 N m"),
        ("steering_speed", 101.0, "101 rad/s"),
    ],
)
def test_what_the_urdf_does_not_allow_is_refused(key, value, words):
    with pytest.raises(
        ConfigError, match=rf"task car_traps: {key} is {value:g}, .*{words}; racecar/racecar.urdf allows"
    ):
        make("car_traps", **{key: value})


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("violation", ["death", "trap"])
def test_a_robot_that_stays_in_a_trap_dies_of_it(task, violation):
    twin = make(task, 2, health=4, violation=violation, max_episode_steps=9)
    move(twin, trap=np.array([[0.1, 0.0], [0.0, 0.7]]))  # one robot in it, one outside
    for step in range(1, 5):
        _, _, terminated, truncated, info = twin.step(np.zeros((2, 2)))
        dead = np.array([step == 4, False])
        np.testing.assert_array_equal(terminated, dead)
        np.testing.assert_array_equal(info["failure"], dead)
        assert not truncated.any()
        np.testing.assert_array_equal(info["violation"], [violation == "trap" or step == 4, False])
        assert info["next_obs"][0, 6] == pytest.approx(1.0 - step / 4)
        if violation == "death":
            np.testing.assert_array_equal(info["margin"], [1.0 - step / 4, 1.0])
            np.testing.assert_array_equal(info["cost"], dead)
        else:
            np.testing.assert_allclose(info["margin"], [-0.35, 0.25], atol=1e-3)
    np.testing.assert_array_equal(twin.health, [4, 4])  # the next episode
    assert twin.state_dict()["episode"].tolist() == [1, 0]


@pytest.mark.parametrize("task", TASKS)
def test_health_lost_does_not_come_back(task):
    twin = make(task)
    move(twin, trap=np.array([0.1, 0.0]))
    hold(twin, STILL[0], 3)
    move(twin, trap=np.array([0.9, 0.0]))
    hold(twin, STILL[0], 3)
    assert twin.health.tolist() == [22]


@pytest.mark.parametrize("task", TASKS)
def test_a_goal_is_worth_its_bonus_and_the_next_one_is_drawn(task):
    twin = make(task, 2)
    heading = np.stack([np.cos(twin.states[:, 2]), np.sin(twin.states[:, 2])], axis=1)
    move(twin, goal=heading * np.array([[0.301], [1.0]]))
    traps = twin.traps
    before = np.hypot(*(twin.goals - twin.positions).T)
    reached = np.zeros(2, bool)
    while not reached[0]:
        old, at = twin.goals, twin.positions
        _, reward, _, _, info = twin.step(np.tile(AHEAD, (2, 1)))
        reached = info["goal_reached"]
        way = np.hypot(*(old - at).T) - np.hypot(*(old - twin.positions).T)
        np.testing.assert_allclose(reward, way + reached, atol=1e-12)
    assert before[0] == pytest.approx(0.301)
    assert not reached[1]
    new = twin.goals
    np.testing.assert_array_equal(new[1], old[1])
    assert np.hypot(*(new[0] - twin.positions[0])) >= 0.6
    assert np.hypot(*(new[0] - traps[0]).T).min() >= 0.9
    np.testing.assert_allclose(twin.state_dict()["goal_distance"], np.hypot(*(new - twin.positions).T))


def drive(task, num_envs, *, avoid):
    """Drive one episode in every copy; return goals reached and whether it failed, each (N,)."""
    twin = make(task, num_envs)
    obs = twin.observations
    goals, failed, over = np.zeros(num_envs), np.zeros(num_envs, bool), np.zeros(num_envs, bool)
    while not over.all():
        obs, _, terminated, truncated, info = twin.step(DRIVERS[task](twin.task, obs.astype(float), avoid=avoid))
        goals += info["goal_reached"] & ~over
        failed |= terminated & ~over
        over |= terminated | truncated
    return goals, failed


@pytest.mark.parametrize(("task", "copies"), [("point_traps", 6), ("car_traps", 3)])
def test_a_driver_reaches_goals_and_lives_where_one_without_eyes_dies(task, copies):
    goals, failed = drive(task, copies, avoid=True)
    assert not failed.any()
    assert goals.min() >= 3
    _, failed = drive(task, copies, avoid=False)
    assert failed.mean() > 0.6


@pytest.mark.parametrize("task", TASKS)
def test_a_picture_shows_eight_traps_and_a_goal(task):
    twin = make(task)
    twin.reset(seed=8)
    picture = twin.picture().reshape(-1, 3).T.astype(int)
    red, green, blue = picture
    per_metre = 480 / (2 * 7.0 * np.tan(np.pi / 8))  # from 7 m above, 45 degrees high
    assert (red > green + 60).sum() == pytest.approx(8 * np.pi * (0.45 * per_metre) ** 2, rel=0.05)
    assert (green > red + 60).sum() == pytest.approx(np.pi * (0.3 * per_metre) ** 2, rel=0.05)
    assert (blue > red + 60).sum() > 50


@pytest.mark.parametrize("task", TASKS)
def test_without_pybullet_one_error_names_the_extra(task):
    code = (
        "import sys; sys.modules['pybullet'] = sys.modules['pybullet_data'] = None\n"
        "from safe_rl_ros.envs.vector import load_simulated_task, make_vector_env\n"
        "from safe_rl_ros.types import ConfigError\n"
        f"try: make_vector_env(load_simulated_task({task!r}), 2)\n"
        "except ConfigError as error: print(error)\n"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    line = f"task {task} runs on PyBullet, which is not installed: pip install 'safe_rl_ros[pybullet]'\n"
    assert result.stdout == line, result.stderr
