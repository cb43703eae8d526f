from pathlib import Path
from typing import Any

import pytest

from safe_rl_ros.config import build, dump_yaml
from safe_rl_ros.training.session_config import SessionConfig, compose_session
from safe_rl_ros.training.sweep_config import SweepConfig, as_overrides, load_sweep, plan_runs, with_earlier
from safe_rl_ros.types import ConfigError

BASE: dict[str, Any] = {"name": "s", "tasks": ["a", "b"], "algorithms": ["x", "y"], "seeds": [3, 5]}


def sweep(**changes: Any) -> SweepConfig:
    return build(SweepConfig, {**BASE, **changes}, "test")


def test_settings_become_overrides() -> None:
    nested = {"a": {"b": 1e-5, "c": {"d": [1, 2]}}, "e": None, "f": "off", "g": True, "h": {}}
    assert as_overrides(nested) == ["a.b=1e-05", "a.c.d=[1, 2]", "e=null", 'f="off"', "g=true"]


def test_later_overrides_win() -> None:
    config = sweep(
        total_steps=100,
        overrides={"training": {"num_envs": 1}},
        per_task={"a": {"training": {"num_envs": 2}}},
        per_algorithm={"x": {"training": {"total_steps": 7}}},
    )
    assert config.overrides_of("a", "x", 5) == [
        "training.total_steps=100",
        "training.num_envs=1",
        "training.num_envs=2",
        "training.total_steps=7",
        "name=seed_5",
        "seed=5",
    ]
    assert config.overrides_of("b", "y", 3) == [
        "training.total_steps=100",
        "training.num_envs=1",
        "name=seed_3",
        "seed=3",
    ]


def test_seeds_are_a_list_or_a_range() -> None:
    assert sweep().seed_list == (3, 5)
    assert sweep(seeds={"first": 4, "count": 3}).seed_list == (4, 5, 6)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"sedes": [1]}, "unknown key"),
        ({"algorithms": ["x", "x"]}, "names one twice"),
        ({"seeds": [1, 1]}, "names one twice"),
        ({"seeds": []}, "at least one"),
        ({"seeds": {"count": 0}}, "greater than 0"),
        ({"tasks": []}, "at least 1"),
        ({"tasks": ["../a"]}, "pattern"),
        ({"workers": 0}, "greater than or equal to 1"),
        ({"per_algorithm": {"z": {"seed": 1}}}, "set by the sweep itself"),
        ({"per_algorithm": {"z": {"training": {"num_envs": 1}}}}, r"names \['z'\], which the sweep does not run"),
        ({"per_task": {"c": {}}}, r"names \['c'\]"),
        ({"overrides": {"name": "other"}}, "set by the sweep itself"),
        ({"overrides": {"algorithm": {"name": "trc"}}}, "set by the sweep itself"),
        ({"overrides": {"task": "a"}}, "set by the sweep itself"),
    ],
)
def test_a_wrong_sweep_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        sweep(**changes)


def test_runs_go_seed_by_seed_each_into_its_own_directory(tmp_path: Path) -> None:
    asked = []

    def compose(task: str, algorithm: str, overrides: Any) -> SessionConfig:
        asked.append((task, algorithm, tuple(overrides)))
        return compose_session("point_goal", "trpo", overrides)

    plans = plan_runs(sweep(), tmp_path, compose)
    expected = [(t, a, s) for s in (3, 5) for t in "ab" for a in "xy"]
    assert [(plan.task, plan.algorithm, plan.seed) for plan in plans] == expected
    assert [call[:2] for call in asked] == [(t, a) for t, a, _ in expected]
    assert plans[1].directory == tmp_path / "s" / "a" / "y" / "seed_3"
    assert plans[1].name == "a/y/seed_3"
    assert [plan.session.seed for plan in plans] == [3] * 4 + [5] * 4
    assert {plan.session.name for plan in plans} == {"seed_3", "seed_5"}


@pytest.mark.parametrize(("name", "runs"), [("quick", 4), ("point_goal", 65), ("half_cheetah", 39)])
def test_the_sweeps_that_come_along_are_valid(name: str, runs: int, tmp_path: Path) -> None:
    config = load_sweep(name)
    assert config.name == name
    count = len(config.tasks) * len(config.algorithms) * len(config.seed_list)
    assert count == runs
    first = load_sweep(name, ["seeds=[0]"])
    plans = plan_runs(first, tmp_path, compose_session)
    assert [plan.session.algorithm.name for plan in plans] == list(config.algorithms)
    assert {plan.session.task.name for plan in plans} == set(config.tasks)


def test_an_unknown_sweep_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"nothing\.yaml"):
        load_sweep("nothing")


def test_a_call_is_written_down_with_those_before_it(tmp_path: Path) -> None:
    path = tmp_path / "sweep.yaml"
    ranged = sweep(seeds={"first": 0, "count": 3})
    assert with_earlier(ranged, path) == ranged
    path.write_text(dump_yaml(ranged))
    assert with_earlier(ranged, path) == ranged
    one = sweep(algorithms=["z"], seeds=[1], per_algorithm={"z": {"algorithm": {"gamma": 0.9}}})
    joined = with_earlier(one, path)
    assert joined.algorithms == ("x", "y", "z")
    assert joined.seeds == ranged.seeds
    assert joined.per_algorithm == one.per_algorithm
    assert with_earlier(sweep(seeds=[9]), path).seeds == (0, 1, 2, 9)
    path.write_text("name: of another version\n")
    assert with_earlier(one, path) == one
