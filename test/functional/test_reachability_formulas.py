"""The safety Bellman backup by hand, on a chain whose values can be written down, and the masked policy's draw."""

import pytest
import torch

from safe_rl_ros.functional.masked_policy import masked_risk
from safe_rl_ros.functional.reachability import safety_bellman_target, unsafe_depth


@pytest.mark.parametrize(
    ("margin", "next_value", "terminated", "expected"),
    [
        (1.0, 3.0, 0.0, 1.0),  # the margin now is the least: (1 - g) 1 + g 1
        (1.0, -2.0, 0.0, -1.4),  # it gets worse: .2 * 1 + .8 * -2
        (-1.0, 5.0, 0.0, -1.0),  # a violation now is not made good later
        (1.0, -2.0, 1.0, 1.0),  # nothing follows a true end
    ],
)
def test_backup_by_hand(margin, next_value, terminated, expected):
    numbers = (torch.tensor([x]) for x in (margin, terminated, next_value))
    assert safety_bellman_target(*numbers, 0.8).item() == pytest.approx(expected)


def test_iterated_backup_is_the_least_margin_when_nothing_is_discounted():
    # Margins met along a chain whose last state stays: the value of each state is the least margin from there on.
    margins = torch.tensor([3.0, 1.0, 2.0, -1.0, 4.0, 5.0])
    values = margins.clone()
    for _ in range(2000):
        following = torch.cat((values[1:], values[-1:]))
        values = safety_bellman_target(margins, torch.zeros(6), following, 0.9999)
    torch.testing.assert_close(values, torch.tensor([-1.0, -1.0, -1.0, -1.0, 4.0, 5.0]), atol=2e-3, rtol=0.0)


def test_depth_counts_unsafe_values_only():
    assert unsafe_depth(torch.tensor([-0.3, 0.0, 2.0]), 0.1).tolist() == pytest.approx([3.0, 0.0, 0.0])


def test_the_masked_policy_takes_the_first_acceptable_sample_else_the_least_risk():
    risk = torch.tensor([[0.9, 0.1, 0.7], [0.2, 0.0, 0.5], [0.1, 0.9, 0.6]])  # (K, B)
    assert masked_risk(risk, 0.3).tolist() == pytest.approx([0.2, 0.1, 0.5])
    assert masked_risk(risk, 0.2).tolist() == pytest.approx([0.2, 0.1, 0.5])  # at the threshold is acceptable
