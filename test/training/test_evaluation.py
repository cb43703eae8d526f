import numpy as np
import pytest
from training_helpers import ScriptedEnv, WidePolicy

from safe_rl_ros.training.evaluation import Evaluation, evaluate
from safe_rl_ros.types import EpisodeStats


def test_whole_episodes_are_counted() -> None:
    env = ScriptedEnv([(3, True), (2, False), (4, False)])
    result = evaluate(env, WidePolicy(), 3, seed=0)  # type: ignore[arg-type]
    assert [e.length for e in result.episodes] == [3, 2, 4]
    assert [e.failure for e in result.episodes] == [True, False, False]
    figures = result.summary()
    assert figures["return_mean"] == 3.0
    assert figures["failures_per_episode"] == pytest.approx(1 / 3)
    assert figures["veto_rate"] == pytest.approx(3 / 9)  # one veto in each of three episodes, nine steps
    assert figures["failures_ci95"] == pytest.approx((0.0084, 0.9057), abs=1e-4)


def test_evaluation_layouts_repeat_with_the_seed_and_are_not_those_of_training() -> None:
    first, second, other = (ScriptedEnv([(2, False)] * 3) for _ in range(3))
    evaluate(first, WidePolicy(), 3, seed=5)  # type: ignore[arg-type]
    evaluate(second, WidePolicy(), 3, seed=5)  # type: ignore[arg-type]
    evaluate(other, WidePolicy(), 3, seed=6)  # type: ignore[arg-type]
    assert first.seeds == second.seeds
    assert not set(first.seeds) & set(other.seeds)


def test_latency_percentiles_are_in_microseconds() -> None:
    latencies = list(np.arange(1, 101) * 1e-6)
    figures = Evaluation([EpisodeStats(1.0, 1, False, 0, 0)], latencies, 1.0).summary()
    assert figures["filter_latency_us"]["p50"] == pytest.approx(50.5)
    assert figures["filter_latency_us"]["p99"] == pytest.approx(99.01)


def test_costs_by_hand() -> None:
    # (return, cost, violations); an eighth of eight episodes is the worst one
    rows = [(4.0, 1.0, 0), (8.0, 9.0, 3), (6.0, 2.0, 1), *[(6.0, 0.0, 0)] * 5]
    episodes = [EpisodeStats(value, 100, False, 0, 0, cost, violations) for value, cost, violations in rows]
    figures = Evaluation(episodes, [], 1.0).summary()
    assert figures["cost_mean"] == 1.5
    assert figures["cost_cvar"] == 9.0
    assert figures["violations_mean"] == 0.5
    assert figures["cv_rate"] == 5.0  # 4 in 800 steps
    assert figures["score"] == pytest.approx(6.0 / 1.5)
    assert (figures["failures"], figures["failures_per_episode"]) == (2, 0.25)  # episodes with a violation
    assert figures["cost_ci95"] == pytest.approx([1.5 - 2.6057, 1.5 + 2.6057], abs=1e-3)  # t(.975, 7) s / sqrt(8)
    low, high = figures["score_ci95"]
    assert 2.0 < low < 4.0 < high < 7.0
    assert figures["cost_cvar_ci95"][1] == 9.0
