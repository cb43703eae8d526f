"""When a newer policy is worse than the first: ranks, chances and verdicts, by hand."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from safe_rl_ros.data.trials import Trials, chance_of_as_low, doubled_ranks
from safe_rl_ros.types import EpisodeStats


def episode(value, failure=False, violations=0):
    return EpisodeStats(value, 10, failure, 0, 0, float(failure), violations)


def tried(trials, name, returns):
    """Return the last verdict on a policy that had these returns."""
    return [trials.add(name, episode(value)) for value in returns][-1]


def test_ranks_count_twice_and_ties_share():
    assert doubled_ranks([30.0, 10.0, 20.0]) == [6, 2, 4]
    assert doubled_ranks([1.0, 5.0, 5.0, 9.0]) == [2, 5, 5, 8]


def test_the_chance_by_hand():
    # Two below three: 1 of the (5 choose 2) = 10 ways has a rank sum as low.
    assert chance_of_as_low([1.0, 2.0], [3.0, 4.0, 5.0]) == pytest.approx(0.1)
    # Ranks 1 and 3: the sums 3 and 4 are as low, {1,2} and {1,3}.
    assert chance_of_as_low([1.0, 3.0], [2.0, 4.0, 5.0]) == pytest.approx(0.2)
    assert chance_of_as_low([4.0, 5.0], [1.0, 2.0, 3.0]) == 1.0
    assert chance_of_as_low([1.0] * 4, [2.0] * 4) == pytest.approx(1 / 70)
    assert chance_of_as_low([7.0, 7.0], [7.0]) == 1.0, "ties alone say nothing"


def test_the_chance_is_that_of_all_ways_to_choose():
    rng = np.random.default_rng(0)
    values = [float(v) for v in rng.integers(0, 6, 9)]
    ranks = doubled_ranks(values)
    sums = [sum(ways) for ways in itertools.combinations(ranks, 4)]
    expected = np.mean([each <= sum(ranks[:4]) for each in sums])
    assert chance_of_as_low(values[:4], values[4:]) == pytest.approx(expected)


@pytest.mark.parametrize("newer", [[], [math.nan], [math.inf]])
def test_what_cannot_be_compared_is_refused(newer):
    with pytest.raises(ValueError, match="at least one of each, all finite"):
        chance_of_as_low(newer, [1.0])


def test_a_policy_whose_returns_are_lower_gives_way_to_the_start():
    trials = Trials(episodes=3, level=0.05)
    assert tried(trials, "start", [5.0, 6.0, 7.0]) is None
    assert tried(trials, "worse", [1.0, 2.0]) is None, "too early to say"
    verdict = trials.add("worse", episode(3.0))
    assert verdict.worse
    assert (verdict.back_to, verdict.chance) == ("start", pytest.approx(1 / 20))
    assert (verdict.episodes, verdict.return_mean, verdict.start_episodes, verdict.start_return_mean) == (3, 2, 3, 6)
    assert "p = 0.05, level 0.05" in verdict.reason


def test_a_policy_that_is_not_worse_is_good_and_gone_back_to():
    trials = Trials(episodes=3, level=0.04)
    tried(trials, "start", [5.0, 6.0, 7.0])
    kept = tried(trials, "second", [1.0, 2.0, 3.0])
    assert not kept.worse, "p = .05 is above the level"
    assert trials.good == ["start", "second"]
    assert trials.add("second", episode(0.0)) is None, "judged once"
    tried(trials, "start", [8.0])
    assert tried(trials, "third", [1.0, 2.0, 3.0]).back_to == "second"


@pytest.mark.parametrize("failed", [episode(99.0, failure=True), episode(99.0, violations=1)])
def test_the_first_failure_decides_also_of_one_that_was_good(failed):
    trials = Trials(episodes=2, level=0.05)
    tried(trials, "start", [1.0, 2.0])
    assert trials.add("start", failed) is None, "there is nothing to go back to"
    assert trials.add("second", failed).back_to == "start"
    tried(trials, "third", [5.0, 6.0])
    verdict = trials.add("third", failed)
    assert (verdict.back_to, verdict.chance) == ("start", None)
    assert "episode 3 of it ended in a failure" in verdict.reason
    assert trials.good == ["start"]


def test_without_an_episode_of_the_start_nothing_is_worse_by_its_returns():
    trials = Trials(episodes=1, level=0.05)
    trials.begin("start")
    verdict = trials.add("second", episode(-9.0))
    assert not verdict.worse
    assert math.isnan(verdict.start_return_mean)
