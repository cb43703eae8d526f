"""The data sets of the offline benchmark: what is mixed, what is left out, and what is made only once."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from offline_benchmark_fakes import episode, info

from benchmarks import offline_data
from safe_rl_ros.data.containers import open_dataset, open_sink
from safe_rl_ros.types import ConfigError


def test_of_the_safe_source_only_safe_episodes_are_kept(tmp_path: Path) -> None:
    source, place = tmp_path / "b", tmp_path / "c"
    with open_sink(source, info()) as sink:
        for label, cost in (("random", 30.0), ("safe", 10.0), ("medium", 12.0), ("safe", 10.5)):
            sink.add(episode(label, cost))
    assert offline_data.keep_safe(source, place) == 1
    kept = open_dataset(place)
    assert [(e.notes["source"], e.episode_cost) for e in kept] == [("random", 30.0), ("safe", 10.0), ("medium", 12.0)]
    assert kept.info.return_bounds == (20.0, 60.0)
    with open_sink(tmp_path / "d", info()) as sink:
        sink.add(episode("safe", 11.0))
    with pytest.raises(ConfigError, match="none of 1 episodes of safe"):
        offline_data.keep_safe(tmp_path / "d", tmp_path / "e")


@pytest.mark.parametrize("name", offline_data.DATASETS)
@pytest.mark.parametrize("quick", [False, True])
def test_a_collection_mixes_random_medium_and_safe_on_the_task_that_the_policies_learn(
    name: str, quick: bool, tmp_path: Path
) -> None:
    plan = offline_data.Plan(tmp_path, quick)
    config = plan.collection(name)
    assert [source.name for source in config.sources] == ["random", "medium", "safe"]
    assert [source.policy for source in config.sources[1:]] == [
        str(plan.policy(name, label)) for label in ("medium", "safe")
    ]
    assert config.cost_limit == 10.0
    sessions = [plan.session(name, label) for label in ("medium", "safe")]
    assert [session.task for session in sessions] == [config.task, config.task]
    assert [session.name for session in sessions] == [plan.policy(name, label).name for label in ("medium", "safe")]
    assert (config.episodes == 3 * offline_data.QUICK_EPISODES) is quick
    if name == "half_cheetah":
        assert config.task.cost == "velocity"  # type: ignore[union-attr]


def test_a_data_set_is_made_once_for_one_configuration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[str] = []

    def collect(config: Any, place: Path, *, replace: bool) -> None:
        made.append(f"{config.name} {replace}")
        place.mkdir(parents=True, exist_ok=True)

    monkeypatch.setattr(offline_data, "collect_dataset", collect)
    monkeypatch.setattr(offline_data, "keep_safe", lambda source, place: place.mkdir(exist_ok=True) or 0)
    plan = offline_data.Plan(tmp_path)
    for _ in range(2):
        offline_data.make_dataset((plan, "point_robot"))
    assert made == ["offline_point_robot False"]
    offline_data.make_dataset((replace(plan, quick=True), "point_robot"))
    assert made == ["offline_point_robot False", "offline_point_robot True"]


def test_a_policy_that_is_finished_is_not_trained_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan, trained = offline_data.Plan(tmp_path, quick=True), []

    def train(config: Any, directory: Path) -> None:
        trained.append(directory.name)
        last = {"return_mean": 2.0, "cost_mean": 3.0}
        summary = {"finished": True, "training": {"last_tenth": last}}
        (directory / "summary.json").write_text(json.dumps(summary), encoding="utf-8")

    monkeypatch.setattr(offline_data, "train", train)
    for _ in range(2):
        told = offline_data.make_policy((plan, "point_robot", "safe"))
    assert told == "point_robot_safe_4000: return 2.0, cost 3.0"
    assert trained == ["point_robot_safe_4000"]
