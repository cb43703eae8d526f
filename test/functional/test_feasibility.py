"""FISOR's feasibility backup and region weights by hand."""

import math

import pytest
import torch

from safe_rl_ros.functional.feasibility import (
    bounded_exponential,
    feasibility_target,
    region_weights,
    violation_of_cost,
    violation_of_interval,
)

SETTINGS = {
    "reward_temperature": 3.0,
    "feasibility_temperature": 5.0,
    "reward_bound": 100.0,
    "feasibility_bound": 150.0,
}


@pytest.mark.parametrize(
    ("h", "not_terminated", "next_value", "expected"),
    [
        (-1.0, 1.0, -3.0, -1.0),  # now is the worst: .2 * -1 + .8 * -1
        (-1.0, 1.0, 4.0, 3.0),  # worse is to come: .2 * -1 + .8 * 4
        (2.0, 1.0, -5.0, 2.0),  # a violation now is not made good later
        (-1.0, 0.0, 4.0, -1.0),  # nothing follows a true end
        (25.0, 0.0, -1.0, 25.0),
    ],
)
def test_backup_by_hand(h, not_terminated, next_value, expected):
    numbers = (torch.tensor([x]) for x in (h, not_terminated, next_value))
    assert feasibility_target(*numbers, 0.8).item() == pytest.approx(expected)


def test_violation_of_a_cost_is_minus_one_or_m():
    cost = torch.tensor([0.0, 0.49, 0.5, 1.0, 3.0])
    assert violation_of_cost(cost, 25.0).tolist() == [-1.0, -1.0, 25.0, 25.0, 25.0]


def test_violation_of_an_interval_is_that_of_both_its_ends_within_an_episode():
    reached = torch.tensor([-1.0, 3.0, -2.0, -4.0, -5.0, -3.0])
    last = torch.tensor([False, False, True, False, False, True])
    assert violation_of_interval(reached, last).tolist() == [-1.0, 3.0, 3.0, -4.0, -4.0, -3.0]


def weight(advantage, v_h, q_h):
    numbers = (torch.tensor([x]) for x in (advantage, v_h, q_h))
    return region_weights(*numbers, **SETTINGS).item()


@pytest.mark.parametrize(
    ("advantage", "v_h", "q_h", "expected"),
    [
        (0.5, -1.0, -0.2, math.exp(1.5)),  # feasible, and stays so: the reward counts
        (-2.0, -1.0, -0.2, math.exp(-6.0)),
        (0.5, 0.0, 0.0, math.exp(1.5)),  # the boundary is feasible
        (0.5, -1.0, 1e-6, 0.0),  # feasible, but this action leaves
        (9.0, 0.4, 0.1, math.exp(1.5)),  # infeasible: exp(5 (.4 - .1)), whatever the reward
        (9.0, 0.4, 0.8, math.exp(-2.0)),
        (9.0, 0.4, -0.1, math.exp(2.5)),  # the way back in
        (1.6, -1.0, -0.2, 100.0),  # exp(4.8) = 121 is cut
        (1e9, -1.0, -0.2, 100.0),  # and so is what would overflow
        (0.0, 1.5, 0.45, 150.0),  # exp(5.25) = 190 is cut
        (0.0, 1e9, 0.0, 150.0),
        (0.0, 1e-3, 1e9, 0.0),
    ],
)
def test_weights_in_each_region_and_at_their_bounds(advantage, v_h, q_h, expected):
    assert weight(advantage, v_h, q_h) == pytest.approx(expected, rel=1e-5)


def test_the_bounded_exponential_keeps_below_its_bound_what_it_is():
    found = bounded_exponential(torch.tensor([-200.0, 0.0, 2.0, 5.0, 1e30]), 100.0)
    torch.testing.assert_close(found, torch.tensor([0.0, 1.0, math.exp(2.0), 100.0, 100.0]))
