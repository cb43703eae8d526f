"""jackal_nav on the twin: it drives as commanded, every step is worth what the poses say, contact ends the episode."""

from __future__ import annotations

import math

import numpy as np
import pytest
from spec_files import write_spec

from safe_rl_ros.envs.robot_spec import load_robot_spec
from safe_rl_ros.envs.tasks.jackal_nav import JackalNavConfig
from safe_rl_ros.envs.vector import make_vector_env

SECTORS = np.radians(np.arange(-125.0, 126.0, 10.0))


def make(num_envs, **settings):
    return make_vector_env(JackalNavConfig(**settings), num_envs)


def yaw_of(qpos):
    w, x, y, z = qpos[3:7]
    return math.atan2(2 * (w * z + x * y), 1 - 2 * (y * y + z * z))


def hold(twin, speed, yaw_rate, steps):
    """Return the means over the last second of speed, sideways speed and yaw rate, at a command that is held."""
    seen = []
    for _ in range(steps):
        error = np.array([speed, yaw_rate]) - twin.state_dict()["command"][0]
        twin.step([[30.0 * error[0], twin.state_dict()["command"][0, 1] + 5.0 * error[1]]])
        yaw, (x, y) = yaw_of(twin.physics.qpos[0]), twin.physics.qvel[0, :2]
        seen.append(
            [x * math.cos(yaw) + y * math.sin(yaw), y * math.cos(yaw) - x * math.sin(yaw), twin.physics.qvel[0, 5]]
        )
    return np.mean(seen[-30:], axis=0)


def follow_gap(obs, speed):
    """Return actions that drive to the goal, around what is near; ``speed`` (N,) is the command that is held."""
    bearing = np.arctan2(obs[:, 1], obs[:, 0])
    ranges = -np.log(np.maximum(obs[:, 6:], 1e-9)) / 3.0
    padded = np.pad(ranges, ((0, 0), (2, 2)), mode="edge")
    wide = np.min([padded[:, shift : shift + 26] for shift in range(5)], axis=0)
    blocked = np.maximum(np.minimum(obs[:, 2], 1.2)[:, None] - wide, 0.0)
    heading = SECTORS[(np.abs(SECTORS - bearing[:, None]) + 6.0 * blocked).argmin(axis=1)]
    heading = np.where(np.abs(bearing) > 2.0, np.sign(bearing) * 1.5, heading)
    free = 0.9 * (ranges[:, 9:17].min(axis=1) - 0.45)
    target = np.clip(np.minimum(free, 0.8) * np.clip(1.2 - np.abs(heading), 0.0, 1.0), 0.0, 0.8)
    return np.column_stack([15.0 * (target - speed), 2.5 * heading])


def test_the_robot_spec_is_a_jackals():
    spec = load_robot_spec("jackal")
    spec.require_twin()
    twin = make(1)
    model = twin.physics.model
    robot = sum(float(model.body_mass[i]) for i in range(model.nbody) if "hazard" not in model.body(i).name)
    robot -= float(model.body("goal").mass[0])
    assert robot == pytest.approx(17.0)
    assert spec.control_rate_hz == twin.control_rate_hz == 30.0
    assert math.hypot(0.508, 0.43) / 2 <= spec.footprint_radius_m
    for name in ("front_left", "rear_right"):
        assert abs(spec.description.joints[f"{name}_wheel_joint"].origin[1, 3]) == 0.188
    # The track that a skid steer feels: W + L^2 / W.
    assert spec.base_drive.wheel_separation_m == pytest.approx(0.376 + 0.262**2 / 0.376, abs=1e-4)


@pytest.mark.parametrize(("speed", "yaw_rate"), [(0.8, 0.0), (0.0, 0.9), (0.4, -0.5), (0.2, 0.9)])
def test_it_drives_and_turns_as_commanded(speed, yaw_rate):
    """Within 12 %: the wheels of a skid steer slip."""
    twin = make(1, boxes=0, arena_half_width_m=50.0)
    twin.reset(seed=0)
    forward, left, turn = hold(twin, speed, yaw_rate, 120)
    assert forward == pytest.approx(speed, abs=0.02 + 0.02 * speed)
    assert turn == pytest.approx(yaw_rate, abs=0.01 + 0.12 * abs(yaw_rate))
    assert abs(left) < 0.06


def test_it_stands_still_without_a_command():
    twin = make(1)
    twin.reset(seed=0)
    assert abs(hold(twin, 0.0, 0.0, 60)).max() < 1e-3
    np.testing.assert_allclose(twin.positions, 0.0, atol=1e-3)


def test_every_step_pays_what_the_poses_say():
    """Lidar, margin, reward and observation again, robot by robot and ray by ray."""
    twin = make(4, turn_boxes=True)
    obs, _ = twin.reset(seed=5)
    reached = violations = 0
    for step in range(260):
        goals, before = twin.goals, [math.dist(p, g) for p, g in zip(twin.positions, twin.goals, strict=True)]
        speeds = obs[:, 3].copy()
        boxes = twin.boxes
        actions = follow_gap(obs, twin.state_dict()["command"][:, 0])
        obs, reward, terminated, _, info = twin.step(actions)
        for index in np.flatnonzero(~terminated):
            after = math.dist(twin.positions[index], goals[index])
            bonus = 1.0 if after <= 0.25 else 0.0
            assert reward[index] == pytest.approx(before[index] - after + bonus)
            assert info["goal_reached"][index] == bool(bonus)
            if step % 20 == 0:
                rays = slow_rays(*twin.positions[index], yaw_of(twin.physics.qpos[index]), boxes[index])
                sectors = [np.mean(rays[5 * k : 5 * k + 11]) for k in range(26)]
                assert info["margin"][index] == pytest.approx(min(sectors) - 0.5, abs=1e-9)
                np.testing.assert_allclose(obs[index, 6:], np.exp(-3.0 * np.array(sectors)), atol=1e-6)
                assert obs[index, 5] == pytest.approx((obs[index, 3] - speeds[index]) * 30.0 / 8.0, abs=1e-4)
            expected = 1 / (1 + math.exp(10 * info["margin"][index]))
            assert info["cost"][index] == pytest.approx(expected)
            assert info["violation"][index] == (info["margin"][index] <= 0)
        reached += info["goal_reached"].sum()
        violations += info["violation"].sum()
    assert reached >= 2
    assert violations > 0


def slow_rays(x, y, yaw, boxes):
    """Return 136 ranges of a lidar by walking along each ray in steps of 1 mm, then halving the last step."""

    def blocked(px, py):
        hit = abs(px) > 4.0 or abs(py) > 4.0
        for bx, by, turn in boxes:
            dx, dy = px - bx, py - by
            along, across = dx * math.cos(turn) + dy * math.sin(turn), dy * math.cos(turn) - dx * math.sin(turn)
            hit = hit | ((np.abs(along) < 0.25) & (np.abs(across) < 0.25))
        return hit

    found = []
    for degrees in range(-135, 136, 2):
        cos, sin = math.cos(yaw + math.radians(degrees)), math.sin(yaw + math.radians(degrees))
        steps = np.arange(0.0, 3.0, 1e-3)
        hits = np.zeros(len(steps), bool)
        px, py = x + steps * cos, y + steps * sin
        hits |= (np.abs(px) > 4.0) | (np.abs(py) > 4.0)
        for bx, by, turn in boxes:
            dx, dy = px - bx, py - by
            along, across = dx * math.cos(turn) + dy * math.sin(turn), dy * math.cos(turn) - dx * math.sin(turn)
            hits |= (np.abs(along) < 0.25) & (np.abs(across) < 0.25)
        if not hits.any():
            found.append(3.0)
            continue
        low, high = steps[hits.argmax()] - 1e-3, steps[hits.argmax()]
        for _ in range(40):
            middle = (low + high) / 2
            low, high = (low, middle) if blocked(x + middle * cos, y + middle * sin) else (middle, high)
        found.append(high)
    return np.array(found)


def test_a_lidar_that_is_off_centre_and_turned_looks_from_where_it_is(tmp_path):
    place = {'<origin xyz="0 0 0.202" rpy="0 0 0"/>': '<origin xyz="0.12 -0.05 0.202" rpy="0 0 0.3"/>'}
    twin = make(1, robot=str(write_spec(tmp_path, "jackal", urdf=place)))
    assert twin.spec_hash != make(1).spec_hash
    obs, _ = twin.reset(seed=2)
    for _ in range(60):
        obs, _, _, _, info = twin.step(follow_gap(obs, twin.state_dict()["command"][:, 0]))
    yaw, (x, y) = yaw_of(twin.physics.qpos[0]), twin.positions[0]
    assert abs(yaw) > 0.2
    laser = x + 0.12 * math.cos(yaw) + 0.05 * math.sin(yaw), y + 0.12 * math.sin(yaw) - 0.05 * math.cos(yaw)
    rays = slow_rays(*laser, yaw + 0.3, twin.boxes[0])
    sectors = [np.mean(rays[5 * k : 5 * k + 11]) for k in range(26)]
    assert info["margin"][0] == pytest.approx(min(sectors) - 0.5, abs=1e-8)
    np.testing.assert_allclose(obs[0, 6:], np.exp(-3.0 * np.array(sectors)), atol=1e-6)


def test_driving_on_ends_in_a_contact_that_costs_the_rest_of_the_episode():
    twin = make(1, boxes=0)
    twin.reset(seed=0)
    steps, terminated = 0, np.array([False])
    while not terminated[0]:
        obs, _, terminated, truncated, info = twin.step([[1.0, 0.0]])
        steps += 1
        assert steps < 400
    assert not truncated[0]
    assert info["failure"][0]
    assert info["violation"][0]
    # The wall is at 4 m and the front .254 m before the centre; 1 m/s moves it 33 mm a step.
    front = 4.0 - 0.5 - info["margin"][0] + 0.254
    assert front + 1e-9 >= 4.0
    assert front < 4.04 + 0.02  # the foremost sector is a mean over 20 degrees: 1 % farther
    rest = sum(0.99**k for k in range(1, 1000 - steps + 1))
    assert info["cost"][0] == pytest.approx(1 / (1 + math.exp(10 * info["margin"][0])) + rest)
    # The next episode began in the same step: at the origin, at rest, with the goal's direction first.
    np.testing.assert_allclose(twin.positions, 0.0, atol=1e-12)
    np.testing.assert_array_equal(obs[0, 3:6], 0.0)
    np.testing.assert_array_equal(info["final_obs"][0], info["next_obs"][0])
    _, _, _, _, info = twin.step([[0.0, 0.0]])
    assert info["cost"][0] < 0.1


def test_a_contact_behind_the_lidar_ends_the_episode():
    """The robot is put with its rear left corner just inside a box that no ray reaches."""
    twin = make(1, boxes=1)
    twin.reset(seed=0)
    state = twin.state_dict()
    state["boxes"][0, 0] = -0.254 - 0.25 + 0.001, 0.0, 0.0
    twin.load_state_dict(state)
    _, _, terminated, _, info = twin.step([[0.0, 0.0]])
    assert terminated[0]
    assert info["margin"][0] == pytest.approx(0.253 - 0.5, abs=2e-3)
    assert info["next_obs"][0, 6:].max() < math.exp(-3.0 * 1.0)  # nothing is seen within a metre


def test_a_scripted_driver_reaches_goals_among_boxes():
    twin = make(16)
    obs, _ = twin.reset(seed=1)
    goals = np.zeros(16)
    failures = 0
    for _ in range(600):
        obs, _, _, _, info = twin.step(follow_gap(obs, twin.state_dict()["command"][:, 0]))
        goals += info["goal_reached"]
        failures += info["failure"].sum()
    assert goals.mean() > 1.0
    assert (goals > 0).sum() >= 10
    assert failures <= 6
