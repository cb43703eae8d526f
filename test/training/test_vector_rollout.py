from typing import Any

import numpy as np
import pytest
from vector_fakes import LENGTHS, LinePolicy, ScriptedTwin

from safe_rl_ros.safety.filter_config import FilterConfig
from safe_rl_ros.training.behaviour import Behaviour
from safe_rl_ros.training.rollout import Rollout
from safe_rl_ros.training.vector_rollout import VectorTally, collect_vector, run_episodes


def acting() -> Behaviour:
    return Behaviour(LinePolicy(), None, 1.0, FilterConfig(critic="off"))  # type: ignore[arg-type]


def collected(epochs: list[int], num_envs: int = 2) -> tuple[list[Rollout], ScriptedTwin]:
    """Return one rollout per entry, of so many steps per environment, the episodes going on in between."""
    twin, tally = ScriptedTwin(num_envs), VectorTally(num_envs)
    obs, _ = twin.reset(seed=0)
    rng = np.random.default_rng(0)
    rollouts = []
    for steps in epochs:
        rollout, obs = collect_vector(twin, acting(), steps, obs, tally, rng)
        rollouts.append(rollout)
    return rollouts, twin


def test_rows_of_one_environment_lie_together_in_time_order() -> None:
    (rollout,), twin = collected([10])
    batch = rollout.batch
    sent = np.stack(twin.actions)  # (T, N, C)
    np.testing.assert_array_equal(batch.action_executed, np.concatenate([sent[:, 0], sent[:, 1]]))
    np.testing.assert_array_equal(batch.reward, batch.action_executed.astype(np.float64).sum(1).astype(np.float32))
    np.testing.assert_array_equal(batch.obs[:10, 0], [0, 0, 0, 1, 1, 1, 1, 1, 2, 2])  # episodes of 3, 5, 4 steps
    np.testing.assert_array_equal(batch.obs[:10, 1], [0, 1, 2, 0, 1, 2, 3, 4, 0, 1])
    np.testing.assert_array_equal(batch.obs[10:, 0], [0, 0, 0, 0, 0, 1, 1, 1, 1, 2])  # 5, 4, 7
    assert batch.obs.dtype == np.float32
    assert batch.terminated.dtype == np.bool_
    np.testing.assert_array_equal(batch.behaviour_mean, LinePolicy().distribution(batch.obs)[0])
    assert np.abs(batch.action_proposed).max() > 1.0
    np.testing.assert_array_equal(np.clip(batch.action_proposed, -1, 1), batch.action_executed)


def test_next_obs_is_what_the_step_reached_and_not_the_next_episode_s_start() -> None:
    (rollout,), _ = collected([10])
    batch = rollout.batch
    np.testing.assert_array_equal(batch.next_obs[:, 0], batch.obs[:, 0])
    np.testing.assert_array_equal(batch.next_obs[:, 1], batch.obs[:, 1] + 1)


def test_failures_time_limits_and_cuts_are_told_apart() -> None:
    (rollout,), _ = collected([10])
    batch = rollout.batch
    np.testing.assert_array_equal(np.flatnonzero(batch.terminated), [7, 14])  # the episodes of five steps
    # Time ran out after 3 steps (row 2) and 4 steps (row 18); rows 9 and 19 are where the epoch was cut.
    np.testing.assert_array_equal(np.flatnonzero(batch.truncated), [2, 9, 18, 19])
    assert not rollout.cut
    assert rollout.stats.episodes == 4


def test_a_row_that_ends_an_epoch_and_an_episode_is_closed_once() -> None:
    (rollout,), _ = collected([5])  # the second environment fails in the last step
    assert rollout.batch.terminated[-1]
    assert not rollout.batch.truncated[-1]
    assert rollout.batch.truncated[4]


def test_episodes_that_span_epochs_are_counted_once_and_whole() -> None:
    parts, _ = collected([4, 4, 4, 4])
    (whole,), _ = collected([16])
    assert [e for part in parts for e in part.episodes] == whole.episodes
    assert sum(part.violations for part in parts) == whole.violations
    steps = [8 * k + end.step for k, part in enumerate(parts) for end in part.ends]
    assert list(zip(steps, [end.env for part in parts for end in part.ends], strict=True)) == whole.ends
    for name in ("obs", "reward", "cost", "terminated"):
        joined = [np.split(getattr(part.batch, name), 2) for part in parts]
        np.testing.assert_array_equal(
            np.concatenate([p[0] for p in joined] + [p[1] for p in joined]), getattr(whole.batch, name), err_msg=name
        )


def test_figures_of_an_episode() -> None:
    (rollout,), twin = collected([8])
    first, second, third = rollout.episodes
    assert [e.length for e in rollout.episodes] == [3, 5, 5]
    assert [(end.step, end.env) for end in rollout.ends] == [(6, 0), (10, 1), (16, 0)]
    assert [e.failure for e in rollout.episodes] == [False, True, True]
    assert (first.cost, first.violations) == (1.5, 1)  # .25 + .25 + 1
    assert (second.cost, second.violations) == (2.75, 2)  # steps 3 and 5
    assert third.goals == 1
    assert first.episode_return == pytest.approx(np.stack(twin.actions)[:3, 0].sum(dtype=np.float64), rel=1e-4)
    assert rollout.violations == 6  # after steps 3, 6 and 8 in the first environment, 3, 5 and 8 in the second
    assert rollout.stats.failures == 3  # episodes with a violation, whether or not it ended them
    assert rollout.stats.episode_costs == (1.5, 2.75, 2.75)


def test_what_is_raised_before_a_step_stops_there() -> None:
    twin, calls = ScriptedTwin(), []
    obs, _ = twin.reset(seed=0)

    def third() -> None:
        calls.append(1)
        if len(calls) == 4:
            raise KeyError("stop")

    with pytest.raises(KeyError):
        collect_vector(twin, acting(), 10, obs, VectorTally(2), np.random.default_rng(0), third)
    assert len(twin.actions) == 3


@pytest.mark.parametrize(("episodes", "quotas"), [(1, [1, 0, 0]), (3, [1, 1, 1]), (7, [3, 2, 2]), (13, [4, 3, 3, 3])])
def test_evaluation_runs_a_fixed_number_in_each_environment(episodes: int, quotas: list[int]) -> None:
    twin, seen = ScriptedTwin(len(quotas)), []
    stats, _ = run_episodes(twin, acting(), episodes, 5, np.random.default_rng(0), on_episode=seen.append)
    expected = [LENGTHS[(i + k) % 4] for k in range(max(quotas)) for i in range(len(quotas)) if k < quotas[i]]
    assert [e.length for e in stats] == expected
    assert sorted(e.length for e in seen) == sorted(expected)
    assert twin.seeds == [5]


def test_evaluation_repeats_and_the_mean_needs_no_noise() -> None:
    def returns(seed: int, **options: Any) -> list[float]:
        stats, _ = run_episodes(ScriptedTwin(2), acting(), 6, 0, np.random.default_rng(seed), **options)
        return [e.episode_return for e in stats]

    assert returns(1) == returns(1) != returns(2)
    assert returns(1, deterministic=True) == returns(2, deterministic=True)


def test_a_tally_of_other_environments_is_refused() -> None:
    sums = VectorTally(3).sums
    with pytest.raises(ValueError, match="'episode_return' has shape"):
        VectorTally(2).load(sums)
    with pytest.raises(ValueError, match="expected"):
        VectorTally(3).load({name: sums[name] for name in ("cost", "length")})
