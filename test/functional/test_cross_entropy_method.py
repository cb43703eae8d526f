"""The cross-entropy search: two iterations by hand, and the maximum of a known function."""

import pytest
import torch

from safe_rl_ros.functional.cross_entropy_method import cross_entropy_search


def test_two_iterations_by_hand():
    # score -(a - .8)^2. First: 0 + .5 * (-1, 0, 1, 3) -> -.5, 0, .5, 1 (clipped); the two best are 1 (-.04) and
    # .5 (-.09): mean .75, std .25. Second: .75 + .25 * (0, .4, -4, 0) -> .75, .85, -.25, .75: best .75, first.
    noise = torch.tensor([[-1.0, 0.0, 1.0, 3.0], [0.0, 0.4, -4.0, 0.0]]).view(2, 4, 1, 1)
    tried = []

    def score(actions):
        tried.append(actions[:, 0, 0].tolist())
        return -(actions[..., 0] - 0.8).square()

    best, value = cross_entropy_search(score, noise, elites=2, initial_std=0.5, least_std=0.01)
    assert tried[0] == pytest.approx([-0.5, 0.0, 0.5, 1.0])
    assert tried[1] == pytest.approx([0.75, 0.85, -0.25, 0.75])
    assert best.item() in (pytest.approx(0.75), pytest.approx(0.85))
    assert value.item() == pytest.approx(-0.0025)


def test_the_best_action_of_an_earlier_iteration_is_kept():
    noise = torch.tensor([[0.0, 2.0], [3.0, -3.0]]).view(2, 2, 1, 1)  # the first try is the maximum itself
    best, value = cross_entropy_search(lambda a: -a[..., 0].abs(), noise, elites=1, initial_std=0.4, least_std=0.2)
    assert (best.item(), value.item()) == (0.0, 0.0)


def test_rows_have_maxima_of_their_own_and_stay_within_the_bounds():
    goal = torch.tensor([[0.3, -0.6], [-0.9, 0.1], [2.0, -2.0]])
    noise = torch.randn(6, 64, 3, 2, generator=torch.Generator().manual_seed(0))
    best, value = cross_entropy_search(
        lambda a: -(a - goal).square().sum(dim=-1), noise, elites=12, initial_std=0.7, least_std=0.01
    )
    torch.testing.assert_close(best, goal.clamp(-1.0, 1.0), atol=0.03, rtol=0.0)
    torch.testing.assert_close(value, -(best - goal).square().sum(dim=-1))


def test_iterations_get_closer_than_as_many_random_tries():
    goal = torch.tensor([[0.37, -0.61, 0.12]])
    score = lambda a: -(a - goal).square().sum(dim=-1)  # noqa: E731
    noise = torch.randn(4, 64, 1, 3, generator=torch.Generator().manual_seed(1))
    options = {"elites": 6, "initial_std": 0.5, "least_std": 0.01}
    _, refined = cross_entropy_search(score, noise, **options)
    _, plain = cross_entropy_search(score, noise.view(1, 256, 1, 3), **options)
    assert refined.item() > -2e-3
    assert refined.item() > 3.0 * plain.item()
