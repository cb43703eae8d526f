"""The diffusion's schedule against the numbers of the paper's settings; noising and denoising by hand."""

import math

import pytest
import torch

from safe_rl_ros.functional.diffusion import denoised, denoising_error, noised, vp_schedule


def test_schedule_of_five_steps():
    schedule = vp_schedule(5)
    torch.testing.assert_close(schedule.beta, torch.tensor([0.196, 0.459, 0.636, 0.755, 0.835]), atol=5e-4, rtol=0)
    torch.testing.assert_close(schedule.alpha, 1.0 - schedule.beta)
    # Summed exponents: alpha_bar_4 = exp(-.1 - 1/2 * 9.9 * (1 + 3 + 5 + 7 + 9) / 25)
    assert schedule.alpha_bar[4].item() == pytest.approx(math.exp(-0.1 - 4.95), rel=1e-5)
    assert schedule.alpha_bar[0] == schedule.alpha[0]


def test_no_steps_are_refused():
    with pytest.raises(ValueError, match="steps is 0"):
        vp_schedule(0)


def test_noised_mixes_by_row():
    found = noised(
        torch.tensor([[1.0, -1.0], [1.0, 0.0]]), torch.tensor([[2.0, 0.0], [1.0, 1.0]]), torch.tensor([0.64, 0.0])
    )
    torch.testing.assert_close(found, torch.tensor([[0.8 + 0.6 * 2.0, -0.8], [1.0, 1.0]]))


def test_noised_keeps_unit_variance():
    generator = torch.Generator().manual_seed(0)
    draws = torch.randn(2, 200_000, 1, generator=generator)
    spread = noised(draws[0], draws[1], torch.full((200_000,), 0.3)).var().item()
    assert spread == pytest.approx(1.0, abs=0.02)


def test_one_step_back_by_hand():
    schedule = vp_schedule(5)
    beta, alpha, bar = (part[2].item() for part in schedule)
    action, predicted, noise = torch.tensor([[0.1]]), torch.tensor([[0.2]]), torch.tensor([[0.3]])
    mean = (0.1 - beta / math.sqrt(1.0 - bar) * 0.2) / math.sqrt(alpha)
    found = denoised(action, predicted, noise, schedule, 2)
    assert found.item() == pytest.approx(mean + math.sqrt(beta) * 0.3, rel=1e-5)


def test_the_last_step_adds_no_noise_and_gives_the_action_back():
    """With the true noise as prediction, t = 0 inverts what was added exactly."""
    schedule = vp_schedule(5)
    action, noise = torch.tensor([[0.3, -0.7]]), torch.tensor([[1.2, -0.4]])
    found = denoised(noised(action, noise, schedule.alpha_bar[:1]), noise, torch.full((1, 2), 9.0), schedule, 0)
    torch.testing.assert_close(found, action)


def test_every_step_is_clipped():
    schedule = vp_schedule(5)
    for step in range(5):
        found = denoised(torch.tensor([[40.0, -40.0]]), torch.zeros(1, 2), torch.zeros(1, 2), schedule, step)
        assert found.tolist() == [[1.0, -1.0]]


def test_error_weighs_rows_and_sums_axes():
    noise, predicted = torch.tensor([[1.0, 2.0], [0.0, 0.0]]), torch.tensor([[0.0, 0.0], [3.0, 0.0]])
    assert denoising_error(torch.tensor([2.0, 0.5]), noise, predicted).item() == pytest.approx((2 * 5 + 0.5 * 9) / 2)
