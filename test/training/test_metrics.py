from pathlib import Path

import numpy as np
import pytest

from safe_rl_ros.training.episodes import COLUMNS, EpisodeLog
from safe_rl_ros.training.metrics import CLOCKED, CVAR_WINDOW, Durations, epoch_metrics, read_csv
from safe_rl_ros.training.rollout import EpisodeEnd, Rollout
from safe_rl_ros.training.tables import Pace
from safe_rl_ros.types import EpisodeStats, TransitionBatch


def batch(cost: list[float]) -> TransitionBatch:
    rows = len(cost)
    zeros = np.zeros((rows, 1), np.float32)
    flags = np.zeros(rows, np.bool_)
    return TransitionBatch(
        obs=zeros,
        action_proposed=zeros,
        action_executed=zeros,
        intervened=flags,
        behaviour_mean=zeros,
        behaviour_std=zeros,
        reward=zeros[:, 0],
        cost=np.array(cost, np.float32),
        margin=np.linspace(-0.5, 1.0, rows, dtype=np.float32),
        terminated=flags,
        truncated=flags,
        next_obs=zeros,
    )


def episode(value: float, cost: float, violations: int, failure: bool = False) -> EpisodeStats:
    return EpisodeStats(value, 10, failure, 2, 1, cost, violations)


ROLLOUT = Rollout(
    batch([0.5, 0.25, 0.25, 0.0, 0.0]),
    [episode(3.0, 4.0, 3, failure=True), episode(5.0, 1.0, 0)],
    cut=True,
    vetoes=2,
    ends=[EpisodeEnd(2, 0), EpisodeEnd(4, 1)],
    shadow_vetoes=1,
    violations=2,
)


def test_a_row_by_hand() -> None:
    row = epoch_metrics(7, ROLLOUT, None, 0.1, Durations(2.0, 1.25, 0.5), [4.0, 1.0])
    assert row["return_mean"] == 4.0
    assert row["cost_mean"] == 2.5
    assert row["score"] == pytest.approx(4.0 / (1.5 + 1.0))  # 3 and 0 violations: 1.5 per episode
    assert row["cost_rate"] == pytest.approx(200.0)  # 1 in 5 steps
    assert (row["violations"], row["violations_total"], row["cv_rate"]) == (2, 2, 400.0)
    assert (row["episodes"], row["failures"], row["failure_rate"]) == (3, 1, pytest.approx(1 / 3))
    assert (row["veto_rate"], row["shadow_veto_rate"]) == (0.4, 0.2)
    assert row["cost_cvar"] == 4.0  # an eighth of two episodes is a quarter of the worst one
    assert (row["wall_s"], row["rollout_s"], row["learner_s"], row["steps_per_s"]) == (2.0, 1.25, 0.5, 2.5)
    assert set(CLOCKED) <= set(row)


def test_totals_go_on_from_the_row_before_also_from_one_of_an_older_version() -> None:
    first = epoch_metrics(0, ROLLOUT, None, 0.1, Durations(1.0), [4.0])
    second = epoch_metrics(1, ROLLOUT, first, 0.1, Durations(1.0), [4.0])
    assert (second["steps"], second["episodes_total"], second["failures_total"]) == (10, 6, 2)
    assert second["violations_total"] == 4
    del first["violations_total"]
    assert epoch_metrics(1, ROLLOUT, first, 0.1, Durations(1.0), [4.0])["violations_total"] == 2


def test_without_a_finished_episode_its_figures_are_unknown_and_the_rates_are_not() -> None:
    empty = Rollout(batch([0.5, 0.5]), [], cut=False, vetoes=0, violations=1)
    row = epoch_metrics(0, empty, None, 1.0, Durations(1.0))
    for name in ("return_mean", "cost_mean", "cost_cvar", "score", "goals_mean", "length_mean"):
        assert np.isnan(row[name]), name
    assert (row["cost_rate"], row["cv_rate"], row["failure_rate"]) == (500.0, 500.0, 0.0)


def test_the_cvar_is_the_mean_of_the_worst_eighth_of_the_newest_fifty() -> None:
    log = EpisodeLog()
    costs = [1000.0, *range(CVAR_WINDOW)]  # the first one is too old to count
    for cost in costs:
        log.add(0, 0, Rollout(batch([0.0]), [episode(0.0, cost, 0)], False, 0, ends=[EpisodeEnd(1, 0)]))
    newest = log.latest("cost", CVAR_WINDOW)
    assert newest == [float(c) for c in range(50)]
    row = epoch_metrics(0, ROLLOUT, None, 0.1, Durations(1.0), newest)
    # 50 / 8 = 6.25 episodes: 49, 48, 47, 46, 45, 44 and a quarter of 43.
    assert row["cost_cvar"] == pytest.approx((49 + 48 + 47 + 46 + 45 + 44 + 0.25 * 43) / 6.25)


def test_a_log_is_written_read_and_kept_exactly(tmp_path: Path) -> None:
    log = EpisodeLog()
    log.add(0, 0, ROLLOUT)
    log.add(1, 5, ROLLOUT)
    again = EpisodeLog.from_arrays(log.arrays())
    assert len(again) == 4
    first, second = (log.write(tmp_path / "a.csv"), again.write(tmp_path / "b.csv"))
    assert first.read_text() == second.read_text()
    rows = read_csv(first)
    assert list(rows[0]) == list(COLUMNS)
    assert rows[0] == {
        **{"epoch": 0, "step": 2, "env": 0, "return": 3.0, "length": 10, "cost": 4.0, "violations": 3},
        **{"failure": 1, "goals": 2, "vetoes": 1},
    }
    assert (rows[3]["epoch"], rows[3]["step"], rows[3]["env"]) == (1, 9, 1)
    assert first.read_text().splitlines()[1] == "0,2,0,3.0,10,4.0,3,1,2,1"


def test_a_log_of_other_columns_is_refused_and_none_is_empty() -> None:
    assert len(EpisodeLog.from_arrays({})) == 0
    assert len(EpisodeLog.from_arrays(EpisodeLog().arrays())) == 0
    with pytest.raises(ValueError, match="expected"):
        EpisodeLog.from_arrays({"return": np.zeros(1)})


def test_writing_takes_a_hundredth_of_the_time_and_the_last_state_is_always_written() -> None:
    now, written = [0.0], []
    pace = Pace(lambda: now[0])

    def slow() -> None:
        now[0] += 0.5
        written.append(now[0])

    assert pace.write(slow)
    now[0] = 50.0
    assert not pace.write(slow)
    assert pace.write(slow, always=True)
    now[0] = 101.0
    assert pace.write(slow)
    assert written == [0.5, 50.5, 101.5]
