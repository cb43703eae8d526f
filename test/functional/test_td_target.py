"""Targets and reward scales of logged data against numbers worked out by hand."""

import pytest
import torch

from safe_rl_ros.functional.td_target import episode_sums, return_range_scale, td_target

LAST = torch.tensor([False, False, True, True, False, True])


def test_a_true_end_has_no_future_and_a_time_limit_has():
    target = td_target(torch.tensor([1.0, 1.0]), torch.tensor([0.0, 1.0]), torch.tensor([10.0, 10.0]), 0.9)
    assert target.tolist() == [1.0, 10.0]


def test_sums_are_per_episode_and_exact_in_long_ones():
    sums, episode = episode_sums(torch.tensor([1.0, 2.0, 3.0, 10.0, -1.0, -2.0]), LAST)
    assert sums.tolist() == [6.0, 10.0, -3.0]
    assert episode.tolist() == [0, 0, 0, 1, 2, 2]
    ones = torch.ones(20_000_001)  # float32 alone stops counting at 2^24
    assert episode_sums(ones, torch.zeros(len(ones), dtype=torch.bool))[0].tolist() == [20_000_001.0]


@pytest.mark.parametrize(("reward", "expected"), [([1.0, 2.0, 3.0, 10.0, -1.0, -2.0], 100.0 / 13.0), ([0.0] * 6, 1.0)])
def test_range_scale(reward, expected):
    assert return_range_scale(torch.tensor(reward), LAST, 100) == pytest.approx(expected)
