"""The benchmark from the twin to the robot: where episodes begin, and the figures by hand."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

pytest.importorskip("rclpy")

from benchmarks import sim_to_real
from benchmarks.sim_to_real_parts import standin_config
from benchmarks.standin_robots import REST_STEPS, Place, Standing, worst_of
from safe_rl_ros.envs.randomisation import load_randomisation
from safe_rl_ros.envs.tasks.hazard_nav import load_hazard_nav
from safe_rl_ros.ros.launching import read_session
from safe_rl_ros.types import StepResult


class Twin:
    """Counts resets, and is wherever it was told to be."""

    def __init__(self):
        self.spec = SimpleNamespace(command_stop=np.zeros(2))
        self.layout, self.margin, self.resets, self.steps = None, 1.0, [], 0

    def reset(self, seed):
        self.resets.append(seed)
        self.margin = 1.0
        return "start"

    def step(self, command):
        self.steps += 1
        return StepResult(state=f"after {self.steps}")


def standing(fresh_every=None):
    twin = Twin()
    return twin, Standing(twin, SimpleNamespace(margin=lambda state, layout: twin.margin), fresh_every)


def test_episodes_begin_where_the_robot_stands_and_after_a_failure_at_the_start():
    twin, base = standing()
    assert base.reset(5) == "start"
    base.step(np.ones(2))
    assert base.reset(6) == f"after {1 + REST_STEPS}", "it was told to stop, and stays"
    twin.margin = -0.01
    assert base.reset(7) == "start"
    assert twin.resets == [5, 7]


def test_of_an_epochs_verdicts_the_first_that_goes_back_counts():
    good, worse, later = (SimpleNamespace(back_to=name) for name in ("", "start", "other"))
    assert worst_of([good, worse, later]) is worse
    assert worst_of([good, good]) is good
    assert worst_of([]) is None


def test_a_twin_is_fresh_every_so_often():
    twin, base = standing(fresh_every=3)
    for seed in range(7):
        base.reset(seed)
    assert twin.resets == [0, 3, 6]


@pytest.mark.parametrize("twin", [None, "rover"])
def test_a_place_is_one_arena_and_a_stand_in_one_robot(twin):
    pytest.importorskip("pybullet")
    env = Place(4, twin).make_env(load_hazard_nav())
    try:
        infos = [env.reset(seed=seed)[1] for seed in range(2)]
        assert env.task.layout(0).hazards.tolist() == env.task.layout(9).hazards.tolist()
        drawn = load_randomisation("standin_rover" if twin is None else twin)
        assert env.backend._twin._parameters == drawn.draw(4 if twin is None else 0)
    finally:
        env.close()
    assert len(infos) == 2


def row(kind, case, returns, failures, robot=0, algorithm="", epochs=(), back_to="", guard="filter"):
    episodes = [
        {"episode_return": value, "failure": index < failures, "vetoes": 2, "length": 10}
        for index, value in enumerate(returns)
    ]
    request = {"kind": kind, "seed": 0, "robot": robot, "case": case, "algorithm": algorithm, "guard": guard}
    verdicts = [{"back_to": back_to, "reason": "r"}]
    learning = {"epochs": [episodes[:count] for count in epochs], "verdicts": verdicts} if epochs else {}
    return {"request": request, "episodes": episodes, "learning": learning, "wall_s": 1.0}


def test_the_figures_by_hand():
    rows = [
        row("randomised", "twin", [10.0, 10.0], 0, 0),
        row("randomised", "twin", [20.0, 20.0], 0, 1),
        row("randomised", "zero_shot", [5.0, 7.0], 1, 0),
        row("randomised", "zero_shot", [18.0, 18.0], 0, 1),
        row("randomised", "after", [9.0, 9.0], 0, 0, "csc", (1, 2), "epoch_00000"),
        row("randomised", "after", [16.0, 16.0], 2, 1, "csc", (2,)),
    ]
    figures = sim_to_real.all_figures(rows)
    zero, after = figures["randomised_zero_shot_filter"], figures["randomised_after_csc_filter"]
    assert (zero["failures"], zero["episodes"], zero["failures_by_robot"]) == (1, 4, [1, 0])
    assert zero["return"]["mean"] == 12.0
    assert zero["return_kept"]["mean"] == pytest.approx((0.6 + 0.9) / 2)
    assert zero["veto_rate"]["mean"] == pytest.approx(0.2)
    learning = after["while_learning"]
    assert (learning["episodes"], learning["failures"], learning["rolled_back"], learning["by"]) == (5, 2, 1, ["r"])
    met = sim_to_real.targets(figures)
    assert [(each["value"], each["ok"]) for each in met] == [(1, False), (2, False), (pytest.approx(0.85), True)]
    cases = (("zero_shot", ""), ("after", "offtrc"))
    margins = [row("randomised", case, [8.0, 9.0], 0, 0, name, guard="margin") for case, name in cases]
    met = sim_to_real.targets(sim_to_real.all_figures(rows + margins))[3:]
    assert [(each["value"], each["ok"]) for each in met] == [(0, True), (0, True), (pytest.approx(0.85), True)]


def test_ros_and_process_are_compared_episode_by_episode():
    here = row("randomised", "after", [1.0, 2.0, 3.0], 0, 0, "csc", (3,))
    over = row("", "", [4.0, 5.0, 6.0], 1)
    over |= {"bundles": 1, "late_ms_most": 1.0, "answered": 1.0}
    found = sim_to_real.compare_with_ros(over, here)
    assert found["two_sided_p"] == pytest.approx(0.1), "one of 20 ways, on either side"
    assert (found["ros"]["failures"], found["here"]["return"]["mean"]) == (1, 2.0)


@pytest.mark.parametrize("name", ["csc", "offtrc"])
def test_the_shipped_sessions_go_on_behind_a_filter_and_without(tmp_path, name):
    filtered, free = (
        standin_config(name, tmp_path, 800, 400, 3, 0.07, filtered=filtered) for filtered in (True, False)
    )
    assert filtered.training.start_from == str(tmp_path)
    assert (filtered.training.total_steps, filtered.training.steps_per_epoch) == (800, 400)
    assert (filtered.ros.acting, filtered.ros.timing) == ("actor", "realtime")
    assert (filtered.ros.roll_back_episodes, free.ros.roll_back_episodes) == (4, 0)
    assert free.filter.critic == "off"
    if name == "csc":
        assert (filtered.filter.critic, filtered.algorithm.fixed_threshold) == ("enforce", 0.07)
    else:
        assert (filtered.filter.critic, filtered.filter.threshold) == ("off", 0.07)
    assert read_session(f"{name}_standin.yaml").robot == "rover.yaml"


def test_the_loop_of_real_time_delays_a_stand_in_alone():
    pytest.importorskip("pybullet")
    own = load_randomisation("standin_rover").draw(4)
    env = Place(4, loop_delay_s=0.15).make_env(load_hazard_nav())
    try:
        env.reset(seed=0)
        has = env.backend._twin._parameters
    finally:
        env.close()
    assert has.actuation_delay_s == pytest.approx(own.actuation_delay_s + 0.15)
    assert has.model_copy(update={"actuation_delay_s": own.actuation_delay_s}) == own
