"""BCQ's perturbation bounds, mixed targets and Lagrangian scores by hand."""

import math

import pytest
import torch

from safe_rl_ros.functional.batch_constrained import at_best, lagrangian_score, mixed_value, perturbed_action


def test_perturbation_by_hand_and_at_its_bounds():
    action = torch.tensor([[0.2, -0.98, 0.99]])
    raw = torch.tensor([[math.atanh(0.5), -50.0, 50.0]])
    # .2 + .05 * .5; -.98 - .05 is clipped to -1; .99 + .05 to 1
    assert perturbed_action(action, raw, 0.05)[0].tolist() == pytest.approx([0.225, -1.0, 1.0])


def test_no_perturbation_goes_beyond_its_bound():
    generator = torch.Generator().manual_seed(0)
    action = 2.0 * torch.rand(500, 3, generator=generator) - 1.0
    moved = perturbed_action(action, 100.0 * torch.randn(500, 3, generator=generator), 0.05)
    assert float((moved - action).abs().max()) <= 0.05 + 1e-6
    assert float((moved - action).abs().max()) > 0.0499
    assert float(moved.abs().max()) <= 1.0
    assert perturbed_action(action, torch.ones(500, 3), 0.0).equal(action)


def test_mixed_value_by_hand():
    value = torch.tensor([[1.0, -2.0], [3.0, -6.0]])
    assert mixed_value(value, 0.75).tolist() == [1.5, -5.0]  # .75 * 1 + .25 * 3, .75 * -6 + .25 * -2
    assert mixed_value(value, 1.0).tolist() == [1.0, -6.0]
    assert mixed_value(value, 0.25).tolist() == [2.5, -3.0]


def test_lagrangian_score_by_hand():
    reward, cost = torch.tensor([4.0, 6.0]), torch.tensor([1.0, 3.0])
    assert lagrangian_score(reward, cost, torch.tensor(0.0)).tolist() == [4.0, 6.0]
    assert lagrangian_score(reward, cost, torch.tensor(3.0)).tolist() == [0.25, -0.75]
    # however large lam is, the score is then the negative cost
    assert lagrangian_score(reward, cost, torch.tensor(1e7)).tolist() == pytest.approx([-1.0, -3.0], abs=1e-5)


def test_value_of_the_candidate_with_the_best_score():
    score = torch.tensor([[1.0, 5.0], [2.0, -5.0], [0.0, 4.0]])
    value = torch.tensor([[10.0, 20.0], [30.0, 40.0], [50.0, 60.0]])
    assert at_best(score, value).tolist() == [30.0, 20.0]
