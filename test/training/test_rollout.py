from typing import Any

import numpy as np
import pytest
from training_helpers import ScriptedEnv, WidePolicy

from safe_rl_ros.training.rollout import StopRequestedError, collect, episode_seed


def rollout(script: list[tuple[int, bool]], steps: int, epoch: int = 0) -> tuple[Any, ScriptedEnv]:
    env = ScriptedEnv(script)
    return collect(env, WidePolicy(), steps, seed=1, epoch=epoch), env  # type: ignore[arg-type]


def test_failure_time_limit_and_cut_are_told_apart() -> None:
    result, env = rollout([(3, True), (2, False), (10, False)], 7)
    batch = result.batch
    np.testing.assert_array_equal(batch.terminated, [0, 0, 1, 0, 0, 0, 0])
    np.testing.assert_array_equal(batch.truncated, [0, 0, 0, 0, 1, 0, 1])
    assert [e.failure for e in result.episodes] == [True, False]
    assert [e.length for e in result.episodes] == [3, 2]
    assert result.cut
    assert (result.stats.episodes, result.stats.failures) == (3, 1)
    assert result.vetoes == 3
    assert len(set(env.seeds)) == 3


def test_an_epoch_that_ends_with_an_episode_is_not_cut() -> None:
    result, env = rollout([(3, True), (4, False), (1, True)], 7)
    assert not result.cut
    assert result.stats.episodes == 2
    assert len(env.seeds) == 2  # no episode is begun that nobody will see


def test_a_failure_on_the_last_row_is_not_also_truncated() -> None:
    result, _ = rollout([(5, True)], 5)
    assert result.batch.terminated[-1]
    assert not result.batch.truncated[-1]


def test_proposed_and_executed_are_kept_apart() -> None:
    result, _ = rollout([(50, False)], 50)
    assert np.abs(result.batch.action_proposed).max() > 1.0
    np.testing.assert_array_equal(result.batch.action_executed, np.full((50, 2), 0.5, dtype=np.float32))
    np.testing.assert_array_equal(result.batch.next_obs[:-1], result.batch.obs[1:])


def test_the_same_epoch_repeats_and_another_differs() -> None:
    first, _ = rollout([(50, False)], 20, epoch=3)
    again, _ = rollout([(50, False)], 20, epoch=3)
    other, _ = rollout([(50, False)], 20, epoch=4)
    np.testing.assert_array_equal(first.batch.action_proposed, again.batch.action_proposed)
    assert not np.array_equal(first.batch.action_proposed, other.batch.action_proposed)
    assert episode_seed(1, 3, 0) != episode_seed(1, 4, 0) != episode_seed(2, 4, 0)


def test_a_requested_stop_ends_the_rollout_before_the_next_step() -> None:
    env, calls = ScriptedEnv([(50, False)]), []

    def stop_at_five() -> None:
        calls.append(1)
        if len(calls) == 6:
            raise StopRequestedError

    with pytest.raises(StopRequestedError):
        collect(env, WidePolicy(), 20, seed=0, epoch=0, on_step=stop_at_five)  # type: ignore[arg-type]
    assert env.t == 5
