"""The scripted driver solves the task, which shows that the task can be solved."""

import numpy as np
import pytest

from safe_rl_ros.envs.robot_env import RobotEnv, make_robot_env
from safe_rl_ros.envs.robot_spec import load_robot_spec
from safe_rl_ros.envs.scripted import ScriptedDriver
from safe_rl_ros.types import RobotState

SPEC = load_robot_spec("rover")


def at_origin(**hits: float) -> RobotState:
    ranges = np.full(72, 3.0, dtype=np.float32)
    for ray, distance in hits.items():
        ranges[int(ray[1:])] = distance
    return RobotState(
        stamp_ns=0,
        position=np.zeros(3),
        orientation=np.array([0.0, 0.0, 0.0, 1.0]),
        linear_velocity=np.zeros(3),
        angular_velocity=np.zeros(3),
        joint_position=np.zeros(2),
        joint_velocity=np.zeros(2),
        ranges=ranges,
    )


def test_in_the_open_it_drives_to_the_goal():
    driver = ScriptedDriver(SPEC)
    np.testing.assert_allclose(driver.command(at_origin(), np.array([2.0, 0.0])), [1.0, 0.0], atol=1e-9)
    linear, angular = driver.command(at_origin(), np.array([-2.0, 0.5]))
    assert (linear, angular) == (0.0, 2.0)
    assert driver.command(at_origin(), np.array([0.0, -2.0]))[1] == -2.0


def test_free_distance_by_hand():
    driver = ScriptedDriver(SPEC)
    # A point 1.06 m ahead of the base; the corridor's circle of 0.36 m meets it after 0.70 m.
    free = driver.free_distance(at_origin(r36=1.0))
    assert free[36] == pytest.approx(0.7)
    # 15 degrees aside: along 1.06 cos 15, across 1.06 sin 15 = 0.274.
    assert free[39] == pytest.approx(1.06 * np.cos(np.pi / 12) - np.sqrt(0.36**2 - (1.06 * np.sin(np.pi / 12)) ** 2))
    assert free[0] == 3.0


def test_it_turns_away_from_a_blocked_way():
    driver = ScriptedDriver(SPEC)
    wall = {f"r{ray}": 0.5 for ray in range(30, 40)}
    linear, angular = driver.command(at_origin(**wall), np.array([2.0, 0.0]))
    assert abs(angular) > 0.5
    assert linear < 0.5


def run(env: RobotEnv, driver: ScriptedDriver, seed: int) -> tuple[float, int, bool]:
    env.reset(seed=seed)
    total, goals, terminated, truncated = 0.0, 0, False, False
    while not (terminated or truncated):
        action = env.command_map.to_action(driver.command(env.state, env.goal)).astype(np.float32)
        _, reward, terminated, truncated, info = env.step(action)
        total += float(reward)
        goals += info["goal_reached"]
    return total, goals, terminated


def test_it_reaches_goals_with_few_failures():
    env = make_robot_env()
    driver = ScriptedDriver(SPEC)
    episodes = [run(env, driver, seed) for seed in range(1000, 1010)]
    env.close()
    returns, goals, failures = zip(*episodes, strict=True)
    assert np.mean(returns) > 14.0
    assert np.mean(goals) > 4.0
    assert sum(failures) <= 1
