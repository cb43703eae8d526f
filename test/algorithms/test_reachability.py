"""The learned safe set of a cart that must brake before a wall, against the one that can be computed."""

import numpy as np
import pytest
import torch
from double_integrator import TOP_SPEED, can_stay_inside, drive, margin
from off_policy_helpers import buffer_of, make, one_state, rows_of, train

SETTINGS = {
    "safety_gamma": 0.99,
    "safety_learning_rate": 2e-3,
    "actor_learning_rate": 2e-3,
    "target_tau": 0.02,
    "pretrain_steps": 2000,
}


@pytest.fixture(scope="module")
def learned():
    rng = np.random.default_rng(0)
    state = np.stack([rng.uniform(-1.3, 1.3, 10_000), rng.uniform(-TOP_SPEED, TOP_SPEED, 10_000)], axis=1)
    action = rng.uniform(-1.0, 1.0, 10_000)
    following = drive(state, action)
    batch = rows_of(state, action[:, None], following, margin=margin(following))
    learner = make("reachability", 2, 1, **SETTINGS)
    learner.pretrain(buffer_of(batch))
    return learner


GRID = np.stack(np.meshgrid(np.linspace(-1.2, 1.2, 49), np.linspace(-1.4, 1.4, 57)), axis=-1).reshape(-1, 2)


def test_the_learned_safe_set_is_the_computed_one(learned):
    states = GRID.astype(np.float32)
    best, _ = learned.recovery().distribution(states)
    found = (learned.critic().risk_rows(states, best) <= learned.threshold) & (margin(GRID) >= 0.0)
    truth = can_stay_inside(GRID)
    assert 0.5 < truth.mean() < 0.8  # braking matters: not simply |position| <= 1
    assert (margin(GRID) >= 0.0).mean() > truth.mean() + 0.1
    assert (found & truth).sum() / (found | truth).sum() > 0.93
    assert (found & ~truth).sum() / truth.sum() < 0.03  # little is called safe that is not


def test_the_least_restrictive_filter_keeps_a_reckless_driver_inside(learned):
    rng = np.random.default_rng(1)
    state = 0.8 * GRID[can_stay_inside(GRID)]
    critic, recovery = learned.critic(), learned.recovery()
    inside, vetoes = np.ones(len(state), bool), 0.0
    for _ in range(100):
        obs = state.astype(np.float32)
        proposed = np.sign(obs[:, 1:2] + 0.1 * rng.standard_normal((len(state), 1), dtype=np.float32))  # ever faster
        vetoed = critic.risk_rows(obs, proposed) > learned.threshold
        action = np.where(vetoed[:, None], recovery.distribution(obs)[0], proposed)
        state = drive(state, action[:, 0])
        inside &= margin(state) >= -0.03
        vetoes += vetoed.mean() / 100
    assert inside.mean() > 0.99
    assert 0.05 < vetoes < 0.95


def test_risk_is_the_sigmoid_of_the_value(learned):
    obs, action = torch.tensor([[0.2, -0.4], [0.95, 1.0]]), torch.tensor([[0.5], [1.0]])
    value = learned.safety_values(learned.safety_critic, torch.cat((obs, action), dim=1)).amin(dim=0)
    expected = torch.sigmoid(-value / learned.config.margin_scale).detach().numpy()
    np.testing.assert_allclose(learned.critic().risk_rows(obs.numpy(), action.numpy()), expected, atol=1e-5)
    assert value[0].item() > 0.0 > value[1].item()
    assert expected[0] < 0.5 < expected[1]


def test_an_untrained_value_vetoes_nothing():
    rng = np.random.default_rng(3)
    learner = make("reachability", 24, 2, hidden=[256, 256])
    obs, actions = rng.normal(size=(200, 24)).astype(np.float32), rng.uniform(-1, 1, (200, 2)).astype(np.float32)
    assert (learner.critic().risk_rows(obs, actions) <= learner.threshold).mean() > 0.98


@pytest.mark.parametrize(("clip", "expected"), [(0.5, 0.5), (None, 2.0)])
def test_margins_are_cut_and_ended_rows_have_no_future(clip, expected):
    learner = make("reachability", margin_clip=clip, margin_scale=1.0, safety_learning_rate=1e-2, pretrain_steps=300)
    learner.pretrain(buffer_of(one_state(np.random.default_rng(0), margin=2.0, terminated=True)))
    value = learner.safety_values(learner.safety_critic, torch.tensor([[0.0, 0.3]])).flatten()
    assert value.tolist() == pytest.approx([expected, expected], abs=0.1)


def test_the_task_policy_is_pushed_towards_safe_actions():
    # Action 1 earns reward but has margin -1; action -1 has margin 1. With the multiplier the policy turns round.
    rng = np.random.default_rng(2)
    action = rng.uniform(-1.0, 1.0, 1000)
    zero = np.zeros((1000, 1))
    batch = rows_of(zero, action[:, None], zero, reward=0.2 * action, margin=-action, terminated=True)
    fast = {"actor_learning_rate": 3e-3, "critic_learning_rate": 3e-3, "safety_learning_rate": 3e-3}
    means = []
    for multiplier in (1e-6, 5.0):
        learner = make("reachability", init_multiplier=multiplier, multiplier_learning_rate=0.0, **fast)
        metrics = train(learner, batch, 200)
        means.append(learner.policy().distribution(np.zeros(1, np.float32))[0].item())
    assert means[0] > 0.2
    assert means[1] < 0.0
    assert metrics["multiplier"] == pytest.approx(5.0, rel=1e-4)
