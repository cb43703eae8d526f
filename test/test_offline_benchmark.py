"""The benchmark of the offline algorithms: figures by hand, what is made once, and the value gap of known policies."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from offline_benchmark_fakes import episode

from benchmarks import offline, offline_cells
from benchmarks.offline_cells import VARIANTS, Cell
from safe_rl_ros.algorithms.offline import OFFLINE_ALGORITHMS
from safe_rl_ros.config import build
from safe_rl_ros.data.containers import open_sink
from safe_rl_ros.data.episodes import DatasetInfo
from safe_rl_ros.envs.tasks.point_robot import PointRobotConfig


def cell(**changes: Any) -> Cell:
    made = Cell("point_robot", "nowhere", "0" * 64, PointRobotConfig(), "iql", 10, 1000, 16, 32, 2)
    return replace(made, **changes)


def info(**changes: Any) -> DatasetInfo:
    named = {"name": "a", "task": "point_robot", "obs_names": ("x",), "axes": ("u",), "max_episode_steps": 300}
    return DatasetInfo(**named, return_bounds=(-1.0, 5.0), cost_limit=10.0).model_copy(update=changes)


def figures(gain: float, cost: float, **more: float) -> dict[str, Any]:
    keys = ("return", "cost", "length", "ms_per_step")
    return {"return_normalised": gain, "cost_normalised": cost, "diverged": False} | dict.fromkeys(keys, 1.0) | more


def entry(gain: float, cost: float, gap: float = 0.0) -> dict[str, Any]:
    means = {"return_normalised": gain, "cost_normalised": cost, "gap": gap, "true": 1.0}
    return {name: {"mean": value, "ci95": [value - 1.0, value + 1.0]} for name, value in means.items()}


class Line:
    """Two copies that pay their own action, cost 1 a step; copy 0 ends for good after 2 steps, copy 1 after 4."""

    def __init__(self) -> None:
        self.steps = 0

    def reset(self, *, seed: int) -> tuple[Any, dict[str, Any]]:
        self.steps = 0
        return np.array([[1.0], [2.0]], np.float32), {}

    def step(self, action: Any) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        self.steps += 1
        ended = np.array([self.steps % 2 == 0, False]), np.array([False, self.steps == 4])
        return np.array([[1.0], [2.0]], np.float32), action[:, 0].astype(float), *ended, {"cost": np.ones(2)}

    def close(self) -> None:
        pass


class Constant:
    """Proposes its observation times a factor, not clipped."""

    def __init__(self, factor: float) -> None:
        self.factor = factor

    def mean(self, obs: Any) -> Any:
        return self.factor * obs

    def sample(self, obs: Any, n: int, rng: Any) -> Any:
        return np.repeat(self.factor * obs[None], n, axis=0)


def test_everything_but_the_critic_without_a_policy_is_compared() -> None:
    assert {name for name, _ in VARIANTS.values()} == set(OFFLINE_ALGORITHMS) - {"safety_critic"}
    assert set(OFFLINE_ALGORITHMS) - set(VARIANTS) == {"safety_critic"}


@pytest.mark.parametrize("variant", VARIANTS)
def test_all_get_the_same_sizes_and_scale_of_rewards(variant: str) -> None:
    algorithm, changes = VARIANTS[variant]
    made = build(OFFLINE_ALGORITHMS[algorithm][0], offline_cells.settings(cell(variant=variant), info()), variant)
    values = made.model_dump()
    expected = {
        "batch_size": 32,
        "actor_batch_size": 32,
        "actor_width": 16,
        "cost_limit": 10.0,
        "warm_start_steps": 200,
        "target_tau": 0.4,  # 400 / 1000 steps
        "reward_scale": 50.0,  # 300 steps over a range of 6
    }
    assert {name: values[name] for name in expected if name in values} == {
        name: value for name, value in expected.items() if name in values
    }
    assert {tuple(values[name]) for name in values if name.endswith("hidden")} == {(16, 16)}
    assert {name: values[name] for name in changes} == changes


def test_an_episode_is_summed_until_its_first_end_and_actions_are_clipped() -> None:
    found = offline_cells.run_policy(Line(), Constant(0.4), 0, deterministic=True, gamma=0.5)
    assert found.obs.tolist() == [[1.0], [2.0]]
    assert found.returns.tolist() == pytest.approx([0.8, 3.2])
    assert found.costs.tolist() == [2.0, 4.0]
    assert found.lengths.tolist() == [2.0, 4.0]
    assert found.discounted.tolist() == pytest.approx([0.4 * 1.5, 0.8 * 1.875])
    cut = offline_cells.run_policy(Line(), Constant(2.0), 0, deterministic=False, horizon=3)
    assert cut.returns.tolist() == [2.0, 3.0]
    assert cut.lengths.tolist() == [2.0, 3.0]


class Believer:
    """A learner that expects 7 times the observation."""

    obs_dim = 1

    def policy(self) -> Constant:
        return Constant(0.5)

    def expected_return(self, obs: Any, rng: Any, samples: int = 1) -> Any:
        return 7.0 * obs[:, 0]


class Clone(Believer):
    def expected_return(self, obs: Any, rng: Any, samples: int = 1) -> Any:
        raise TypeError("no values")


def test_the_gap_is_what_is_believed_less_what_comes_without_a_time_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def make(task: Any, copies: int) -> Line:
        asked.append((task.max_episode_steps, copies))
        return Line()

    monkeypatch.setattr(offline_cells, "make_vector_env", make)
    found = offline_cells.value_gap(cell(), Believer(), 3, 0.99)  # type: ignore[arg-type]
    true = np.mean([0.5 * (1 + 0.99), 1.0 + 0.99 + 0.99**2 + 0.99**3])
    assert found["learned"] == pytest.approx(10.5)
    assert found["true"] == pytest.approx(true)
    assert found["gap"] == pytest.approx(10.5 - true)
    assert asked == [(688, 2)]  # .99^688 < .001
    assert offline_cells.value_gap(cell(), Clone(), 3, 0.99) == {}  # type: ignore[arg-type]


class Fragile:
    def __init__(self) -> None:
        self.left = 600

    def fit(self, steps: int) -> None:
        self.left -= steps
        if self.left < 0:
            raise FloatingPointError


def test_learning_that_diverged_counts_the_steps_before() -> None:
    assert offline_cells._fit(Fragile(), 550) == 550  # type: ignore[arg-type]
    assert offline_cells._fit(Fragile(), 1000) == 500  # type: ignore[arg-type]


def test_a_finished_cell_is_not_run_again_and_another_budget_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs: list[int] = []
    monkeypatch.setattr(offline_cells, "_figures", lambda cell, config: runs.append(cell.steps) or figures(0.5, 0.1))
    place = tmp_path / "data.hdf5"
    with open_sink(place, info()) as sink:
        sink.add(episode("random", 0.0))
    one = cell(path=str(place))
    assert offline_cells.stored(one, tmp_path) is None
    first = offline_cells.run_cell((one, tmp_path))
    assert offline_cells.run_cell((one, tmp_path)) == first
    assert offline_cells.stored(one, tmp_path) == first[1] == figures(0.5, 0.1)
    for other in (replace(one, steps=2000), replace(one, sha256="1" * 64), replace(one, hidden=8)):
        assert offline_cells.stored(other, tmp_path) is None
    offline_cells.run_cell((replace(one, steps=2000), tmp_path))
    assert runs == [1000, 2000]



def test_figures_are_means_over_seeds_in_a_fixed_order() -> None:
    results = [
        (cell(seed=11, variant="iql"), figures(0.6, 0.5, gap=3.0)),
        (cell(variant="iql"), figures(0.2, 1.5, gap=1.0) | {"diverged": True}),
        (cell(variant="fisor"), figures(0.9, 0.1)),
    ]
    found = offline.summarise(results)
    assert list(found["point_robot"]) == ["fisor", "iql"]
    mine = found["point_robot"]["iql"]
    assert (mine["seeds"], mine["diverged"]) == ([10, 11], 1)
    assert mine["return_normalised"]["per_seed"] == [0.2, 0.6]
    assert mine["gap"]["mean"] == 2.0
    assert "gap" not in found["point_robot"]["fisor"]


@pytest.mark.parametrize(
    ("mine", "others", "expected"),
    [
        ((0.5, 0.9), [(0.9, 1.0), (0.4, 0.1)], 0.0),  # at the limit is not safe
        ((0.5, 0.9), [(0.5, 0.1), (0.6, 0.99)], 2.0),
        ((0.5, 1.0), [(0.1, 9.0)], math.nan),
        ((0.5, 0.9), [], 0.0),
    ],
)
def test_fisor_is_best_if_it_is_safe_and_no_safe_one_earns_as_much(
    mine: tuple[float, float], others: list[tuple[float, float]], expected: float
) -> None:
    entries = {"fisor": entry(*mine)} | {f"other_{i}": entry(*other) for i, other in enumerate(others)}
    assert offline.better_safe(entries) == pytest.approx(expected, nan_ok=True)


def test_gaps_are_held_to_their_signs() -> None:
    entries = {"fisor": entry(0.5, 0.5), "cql": entry(0.1, 2.0, -1.0), "sac_offline": entry(0.0, 2.0, -0.5)}
    found = offline.targets({"point_robot": entries | {"sac_n5": entry(0.0, 2.0, 4.0)}})
    assert [item["ok"] for item in found] == [True, True, True, False, True]
    entries["cql"]["gap"]["mean"] = 0.1
    assert [item["ok"] for item in offline.targets({"a": entries})] == [True, True, False, False]
    assert offline.targets({"a": {"bc": entry(0.5, 0.5)}}) == []


def test_the_tables_mark_what_is_safe_and_leave_out_those_without_values() -> None:
    without = {name: value for name, value in entry(0.25, 0.5).items() if name != "gap"}
    text = offline.tables({"point_robot": {"bc": without, "cql": entry(0.5, 2.0, -3.0)}, "point_goal": {"bc": without}})
    assert "| bc | **0.25 / 0.50** | **0.25 / 0.50** |" in text
    assert "| cql | 0.50 / 2.00 |  |" in text
    assert "| cql | -3 [-4, -2], true 1 |  |" in text
    assert text.count("| bc |") == 1


def test_data_sets_are_added_to_a_saved_result_of_the_same_budget_and_seeds(tmp_path: Path) -> None:
    budget, file = {"steps": 10, "hidden": 8}, tmp_path / "offline.json"
    assert offline.saved_others(file, ["point_goal"], budget, [1]) == {}
    kept = {"point_goal": {"cql": entry(0.1, 0.2)}, "point_robot": {"cql": entry(math.nan, 0.5)}, "budget": budget}
    result = {"figures": kept, "seeds": [1], "quick": False}
    file.write_text(json.dumps(result).replace("NaN", "null"))
    found = offline.saved_others(file, ["point_goal"], budget, [1])
    assert list(found) == ["point_robot"]
    assert math.isnan(found["point_robot"]["cql"]["return_normalised"]["mean"])
    assert found["point_robot"]["cql"]["cost_normalised"] == {"mean": 0.5, "ci95": [-0.5, 1.5]}
    for changed in ({"figures": kept | {"budget": {"steps": 20, "hidden": 8}}}, {"seeds": [2]}, {"quick": True}):
        file.write_text(json.dumps(result | changed).replace("NaN", "null"))
        with pytest.raises(ValueError, match="must be the same"):
            offline.saved_others(file, ["point_goal"], budget, [1])
