"""OffTRC's batch: newest rollout and older segments, weights, the adapted trust region, the ablations."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from line_world import SMALL, STATS, line_world

from safe_rl_ros.algorithms import (
    OffTRC,
    OffTRCConfig,
)
from safe_rl_ros.algorithms.offtrc import join, with_known_behaviour
from safe_rl_ros.data.replay_buffer import ReplayBuffer
from safe_rl_ros.functional.trust_region import adapted_max_kl, gaussian_kl


def drifted(buffer_rows=600):
    """Return OffTRC, a buffer of an older policy's rows and the newest rollout."""
    algorithm = OffTRC(OffTRCConfig(**SMALL, batch_size=500, segment_length=40, gamma=0.9), 2, 1, seed=0)
    rng, buffer = np.random.default_rng(0), ReplayBuffer(2000, 2, 1)
    old = OffTRC(OffTRCConfig(**SMALL, init_log_std=-1.5), 2, 1, seed=1)
    buffer.add(line_world(old.policy(), rng, rows=buffer_rows))
    rollout = line_world(algorithm.policy(), rng, rows=100)
    buffer.add(rollout)
    return algorithm, buffer, rollout


def test_the_batch_is_the_newest_rollout_and_older_segments():
    algorithm, buffer, rollout = drifted()
    drawn = algorithm._draw(rollout, buffer)
    assert len(drawn.batch) == 500
    assert drawn.latest == 100
    np.testing.assert_array_equal(drawn.batch.obs[:100], rollout.obs)
    old = {row.tobytes() for row in buffer.latest(10_000).obs[:600]}
    assert all(row.tobytes() in old for row in drawn.batch.obs[100:])
    weight = drawn.weight.numpy()
    np.testing.assert_allclose(weight[:100], 1.0, atol=1e-5)
    assert weight.max() <= 1.0
    assert weight[100:].mean() < 0.95
    with torch.no_grad():
        mean, log_std = algorithm.actor(drawn.obs)
    behaviour = torch.from_numpy(drawn.batch.behaviour_mean), torch.from_numpy(drawn.batch.behaviour_std).log()
    assert drawn.divergence == pytest.approx(gaussian_kl(*behaviour, mean, log_std).mean().item(), rel=1e-4)


def test_the_region_shrinks_with_the_divergence_unless_told_otherwise():
    algorithm, buffer, rollout = drifted()
    metrics = algorithm.update(rollout, buffer, STATS)
    expected = adapted_max_kl(0.001, metrics["behaviour_kl"])
    assert metrics["trust_region"] == pytest.approx(expected)
    assert metrics["kl"] <= expected < 0.001
    assert metrics["batch_rows"] == 500.0
    algorithm, buffer, rollout = drifted()
    algorithm.config = algorithm.config.model_copy(update={"adaptive_region": False})
    assert algorithm.update(rollout, buffer, STATS)["trust_region"] == 0.001


def test_the_ablations_change_what_they_name():
    algorithm, buffer, rollout = drifted()
    cut = algorithm._draw(rollout, buffer)
    rows, found = algorithm._targets(cut)
    algorithm.config = algorithm.config.model_copy(update={"trace": False})
    one_step = algorithm._targets(cut)[1].targets
    values = algorithm._evaluate(cut.batch)
    np.testing.assert_allclose(one_step[0], cut.batch.reward + 0.9 * values.next_value, rtol=1e-5, atol=1e-6)
    assert np.abs(one_step[0] - found.targets[0]).max() > 0.01
    algorithm, buffer, rollout = drifted()
    algorithm.config = algorithm.config.model_copy(update={"truncate_ratios": False})
    whole = algorithm._draw(rollout, buffer).weight
    torch.testing.assert_close(whole.clamp(max=1.0), cut.weight)
    assert whole.max() > 1.05
    assert rows.weight is cut.weight


def test_estimates_of_the_cost_come_from_the_newest_rollout_only():
    algorithm, buffer, rollout = drifted()
    rollout = replace(rollout, cost=np.full(100, 0.25, np.float32))
    fresh = ReplayBuffer(2000, 2, 1)
    fresh.add(replace(buffer.latest(700), cost=np.full(700, 0.9, np.float32)))
    fresh.add(rollout)
    metrics = algorithm.update(rollout, fresh, STATS)
    assert metrics["cost_return_mean"] == pytest.approx(2.5)


def test_rows_of_an_unknown_behaviour_are_left_out_and_end_a_trace():
    rollout = line_world(OffTRC(OffTRCConfig(**SMALL), 2, 1, 0).policy(), np.random.default_rng(0), rows=20)
    assert with_known_behaviour(rollout) is rollout
    std = rollout.behaviour_std.copy()
    std[[0, 7, 8, 19]] = 0.0
    kept = with_known_behaviour(replace(rollout, behaviour_std=std))
    assert len(kept) == 16
    assert np.flatnonzero(kept.truncated).tolist() == [5, 15]  # rows 6 and 18 of before
    both = join(rollout, kept)
    assert len(both) == 36
    np.testing.assert_array_equal(both.obs[20:], kept.obs)


def test_an_update_on_logged_data_of_an_unknown_behaviour_only_uses_the_rollout():
    algorithm, _, rollout = drifted()
    buffer = ReplayBuffer(2000, 2, 1)
    buffer.add(replace(rollout, behaviour_std=np.zeros((100, 1), np.float32)))
    buffer.add(rollout)
    metrics = algorithm.update(rollout, buffer, STATS)
    assert metrics["batch_rows"] == 100.0
    assert metrics["behaviour_kl"] == pytest.approx(0.0, abs=1e-6)
