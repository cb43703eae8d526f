"""Reward, cost, margin and layouts of hazard_nav, by hand."""

import math

import numpy as np
import pytest

from safe_rl_ros.envs.tasks.hazard_nav import HazardNav, HazardNavConfig, Layout, TaskState, load_hazard_nav
from safe_rl_ros.types import ConfigError, RobotState

LAYOUT = Layout(
    hazards=np.array([[2.0, 0.0, 0.3], [0.0, -3.0, 0.5]]),
    goals=np.array([[0.0, 2.0], [0.0, 1.0], [1.0, 1.0]]),
    start=np.zeros(3),
)


def at(x: float, y: float) -> RobotState:
    return RobotState(
        stamp_ns=0,
        position=np.array([x, y, 0.0]),
        orientation=np.array([0.0, 0.0, 0.0, 1.0]),
        linear_velocity=np.zeros(3),
        angular_velocity=np.zeros(3),
        joint_position=np.zeros(2),
        joint_velocity=np.zeros(2),
        ranges=np.full(72, 3.0, dtype=np.float32),
    )


def task(**changes: float) -> HazardNav:
    return HazardNav(HazardNavConfig(**changes), footprint_radius_m=0.26)


def test_margin_is_the_distance_from_footprint_to_the_nearest_edge():
    nav = task()
    assert nav.margin(at(0.0, 0.0), LAYOUT) == pytest.approx(2.0 - 0.3 - 0.26)
    assert nav.margin(at(2.0, 1.0), LAYOUT) == pytest.approx(1.0 - 0.56)
    # (0, -2): sqrt(8) - .56 = 2.27 to the first, 1 - .5 - .26 = .24 to the second.
    assert nav.margin(at(0.0, -2.0), LAYOUT) == pytest.approx(0.24)
    assert nav.margin(at(2.0, 0.0), LAYOUT) == pytest.approx(-0.56)


def test_reward_is_progress_to_the_goal():
    outcome = task(progress_weight=2.0).evaluate(at(0.0, 0.0), at(0.0, 0.1), LAYOUT, TaskState())
    assert outcome.reward == pytest.approx(0.2)
    assert (outcome.cost, outcome.terminated, outcome.goal_reached) == (0.0, False, False)
    assert outcome.task_state == TaskState(0)
    back = task().evaluate(at(0.0, 0.1), at(0.0, 0.0), LAYOUT, TaskState())
    assert back.reward == pytest.approx(-0.1)


def test_reaching_a_goal_pays_progress_to_the_old_goal_and_the_bonus():
    nav = task(goal_radius_m=0.35, goal_bonus=1.5)
    outcome = nav.evaluate(at(0.0, 1.6), at(0.0, 1.7), LAYOUT, TaskState(0))
    assert outcome.goal_reached
    assert outcome.reward == pytest.approx(0.1 + 1.5)
    assert outcome.task_state == TaskState(1)
    # The next step is measured to the next goal, (0, 1), which lies behind.
    assert nav.evaluate(at(0.0, 1.7), at(0.0, 1.8), LAYOUT, outcome.task_state).reward == pytest.approx(-0.1)


def test_goal_radius_is_inclusive_and_sharp():
    nav = task(goal_radius_m=0.25)
    assert nav.evaluate(at(0.0, 0.0), at(0.0, 1.75), LAYOUT, TaskState()).goal_reached
    assert not nav.evaluate(at(0.0, 0.0), at(0.0, 1.749), LAYOUT, TaskState()).goal_reached


def test_goals_repeat_from_the_first():
    nav = task()
    np.testing.assert_array_equal(nav.goal(LAYOUT, TaskState(2)), [1.0, 1.0])
    np.testing.assert_array_equal(nav.goal(LAYOUT, TaskState(3)), [0.0, 2.0])


@pytest.mark.parametrize(("x", "failure"), [(1.43, False), (1.4401, True), (1.6, True), (1.4399, False)])
def test_failure_iff_the_margin_is_not_positive(x: float, failure: bool):
    # The edge of the hazard is at 1.7, so the centre of the robot touches it at 1.44.
    outcome = task().evaluate(at(1.4, 0.0), at(x, 0.0), LAYOUT, TaskState())
    assert outcome.margin == pytest.approx(1.44 - x)
    assert outcome.terminated is failure
    assert outcome.cost == float(failure)


def test_a_margin_of_exactly_zero_is_a_failure():
    layout = Layout(hazards=np.array([[2.0, 0.0, 0.5]]), goals=LAYOUT.goals, start=LAYOUT.start)
    nav = HazardNav(HazardNavConfig(), footprint_radius_m=0.5)
    outcome = nav.evaluate(at(0.5, 0.0), at(1.0, 0.0), layout, TaskState())
    assert outcome.margin == 0.0
    assert outcome.terminated


def test_an_unknown_position_is_a_failure():
    outcome = task().evaluate(at(0.0, 0.0), at(math.nan, 0.0), LAYOUT, TaskState())
    assert outcome.terminated
    assert outcome.cost == 1.0


def test_the_same_seed_gives_the_same_layout_and_another_seed_another():
    nav = task()
    first, again, other = nav.layout(7), nav.layout(7), nav.layout(8)
    for name in ("hazards", "goals", "start"):
        np.testing.assert_array_equal(getattr(first, name), getattr(again, name))
        assert not np.array_equal(getattr(first, name), getattr(other, name))


def test_an_arena_of_its_own_is_that_of_every_episode():
    always = HazardNav(HazardNavConfig(), 0.26, arena_seed=5)
    for seed in (0, 5, 17):
        for name in ("hazards", "goals", "start"):
            assert getattr(always.layout(seed), name).tobytes() == getattr(task().layout(5), name).tobytes()
    first = HazardNav(HazardNavConfig(), 0.26, arena_seed=0).layout(9)
    assert first.start.tobytes() == task().layout(0).start.tobytes(), "0 is a seed like any other"


def test_layouts_keep_all_distances():
    config = HazardNavConfig()
    nav = task()
    for seed in range(100):
        layout = nav.layout(seed)
        centres = layout.hazards[:, :2]
        assert layout.hazards.shape == (config.hazards, 3)
        assert layout.goals.shape == (config.goals, 2)
        assert (np.abs(np.vstack([centres, layout.goals, layout.start[None, :2]])) <= config.arena_half_width_m).all()
        between = np.linalg.norm(centres[:, None] - centres[None], axis=2) + 9.0 * np.eye(len(centres))
        assert between.min() >= 2 * 0.3 + config.hazard_gap_m
        assert nav.margin(at(*layout.start[:2]), layout) >= config.start_margin_m - 1e-12
        assert min(nav.margin(at(*goal), layout) for goal in layout.goals) >= config.goal_margin_m - 1e-12
        legs = np.diff(np.vstack([layout.start[:2], layout.goals]), axis=0)
        assert np.linalg.norm(legs, axis=1).min() >= config.goal_spacing_m
        assert -math.pi <= layout.start[2] <= math.pi


def test_the_robot_fits_between_any_two_hazards():
    assert HazardNavConfig().hazard_gap_m > 2 * 0.26


def test_a_crowded_arena_is_one_clear_error():
    with pytest.raises(ConfigError, match=r"no layout with 60 hazards .* half width 1\.5 m .*\(seed 3\)"):
        task(hazards=60, arena_half_width_m=1.5).layout(3)


def test_the_task_file_holds_the_defaults():
    assert load_hazard_nav("hazard_nav") == HazardNavConfig()


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("hazard=3", "hazard = 3: unknown key"),
        ("observation.sector=3", r"observation\.sector = 3: unknown key"),
        ("hazards=0", "hazards = 0: .*greater than or equal to 1"),
        ("goal_radius_m=-1", "greater than 0"),
        ("goal_bonus=.inf", "finite"),
        ("max_episode_steps=2.5", "integer"),
    ],
)
def test_each_mistake_is_one_clear_error(override: str, message: str):
    with pytest.raises(ConfigError, match=message):
        load_hazard_nav("hazard_nav", [override])
