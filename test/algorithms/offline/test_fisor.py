"""FISOR: its backups on a problem of three rows, its wiring, its state, and what it exports."""

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from safe_rl_ros.algorithms.offline import OFFLINE_ALGORITHMS
from safe_rl_ros.algorithms.offline.fisor import FISOR, FISORConfig
from safe_rl_ros.types import TransitionBatch

SMALL = {
    "hidden": (16,),
    "batch_size": 32,
    "actor_batch_size": 16,
    "actor_width": 16,
    "actor_blocks": 1,
    "actor_expansion": 2,
    "time_features": 8,
    "time_width": 8,
}


def batch_of(obs, action, next_obs, **columns):
    """Return rows from arrays; what is not given is 0, and a row is truncated unless it is terminated."""
    rows = len(obs)
    numbers = {name: np.asarray(columns.get(name, np.zeros(rows)), np.float32) for name in ("reward", "cost", "margin")}
    terminated = np.asarray(columns.get("terminated", np.zeros(rows)), bool)
    action = np.asarray(action, np.float32)
    return TransitionBatch(
        obs=np.asarray(obs, np.float32),
        action_proposed=action,
        action_executed=action,
        intervened=np.zeros(rows, bool),
        behaviour_mean=action,
        behaviour_std=np.zeros_like(action),
        **numbers,
        terminated=terminated,
        truncated=np.asarray(columns.get("truncated", ~terminated), bool) & ~terminated,
        next_obs=np.asarray(next_obs, np.float32),
    )


def random_batch(rows=200, seed=0):
    """Return rows in episodes of ten, whose numbers mean nothing."""
    rng = np.random.default_rng(seed)
    last = np.arange(rows) % 10 == 9
    return batch_of(
        rng.normal(3.0, 2.0, (rows, 3)),
        rng.uniform(-1, 1, (rows, 2)),
        rng.normal(3.0, 2.0, (rows, 3)),
        reward=rng.normal(size=rows),
        cost=rng.random(rows) < 0.3,
        margin=rng.normal(size=rows),
        terminated=last & (rng.random(rows) < 0.3),
        truncated=last,
    )


def make(seed=0, batch=None, **settings):
    learner = FISOR(FISORConfig(**SMALL | settings), 3, 2, seed)
    learner.attach(random_batch() if batch is None else batch, 10)
    return learner


def test_it_is_in_the_table():
    assert OFFLINE_ALGORITHMS["fisor"] == (FISORConfig, FISOR)


def test_the_defaults_are_the_paper_s():
    config = FISORConfig()
    assert (config.expectile, config.feasibility_expectile, config.gamma, config.target_tau) == (0.9, 0.9, 0.99, 0.005)
    assert (config.reward_temperature, config.feasibility_temperature) == (3.0, 5.0)
    assert (config.reward_weight_bound, config.feasibility_weight_bound) == (100.0, 150.0)
    assert (config.batch_size, config.actor_batch_size, config.actor_updates) == (256, 1024, 2)
    assert (config.denoising_steps, config.candidates, config.actor_target_tau) == (5, 16, 0.001)
    assert (config.violation_value, config.hidden, config.actor_dropout) == (25.0, (256, 256), 0.1)


def test_time_limits_bootstrap_and_true_ends_do_not():
    """Three rows of one action each: A leads to C and is cut there, B leads to C and ends, C stays in C.

    h is -1 on the way to C and 2 in C. With gamma .5: V_h(C) = 2, Q_h(A) = .5 (-1) + .5 (2) = .5, Q_h(B) = -1;
    rewards 1, 1, 3: V_r(C) = 3 / (1 - .5) = 6, Q_r(A) = 1 + .5 (6) = 4, Q_r(B) = 1.
    """
    batch = batch_of(
        [[0.0, 1.0], [1.0, 0.0], [-1.0, -1.0]],
        [[0.3]] * 3,
        [[-1.0, -1.0]] * 3,
        reward=[1.0, 1.0, 3.0],
        margin=[1.0, 1.0, -2.0],
        terminated=[False, True, False],
    )
    settings = {"gamma": 0.5, "reward_scale": 1.0, "critic_learning_rate": 1e-2, "target_tau": 0.1}
    config = FISORConfig(**SMALL | settings, actor_start=10**6, normalise_obs=False)
    learner = FISOR(config, 2, 1, 0)
    learner.attach(batch, 1)
    learner.fit(500)
    joint = torch.cat((learner.data.obs, learner.data.action), dim=1)
    with torch.no_grad():
        q_h, q_r = learner.feasibility_critics_target(joint), learner.critics_target(joint)
    np.testing.assert_allclose(q_h.numpy(), [[0.5, -1.0, 2.0]] * 2, atol=0.05)
    np.testing.assert_allclose(q_r.numpy(), [[4.0, 1.0, 6.0]] * 2, atol=0.1)
    np.testing.assert_allclose(learner.feasibility(batch.obs), [0.5, -1.0, 2.0], atol=0.05)


def test_h_is_the_worst_of_both_ends_of_a_step_within_its_episode():
    batch = batch_of(
        np.zeros((4, 3)),
        np.zeros((4, 2)),
        np.zeros((4, 3)),
        margin=[1, -2, 3, 0.5],
        truncated=[False, False, True, True],
    )
    assert make(batch=batch)._h.tolist() == [-1.0, 2.0, 2.0, -0.5]
    assert make(batch=batch, violation_bound=1.5)._h.tolist() == [-1.0, 1.5, 1.5, -0.5]
    assert make(batch=batch, kept_margin=0.75)._h.tolist() == [-0.25, 2.75, 2.75, 0.25]


def test_h_from_the_cost():
    batch = batch_of(np.zeros((3, 3)), np.zeros((3, 2)), np.zeros((3, 3)), margin=[-9, -9, 9], cost=[0.0, 0.7, 0.2])
    learner = make(batch=batch, violation_from="cost", violation_value=7.0)
    assert learner._h.tolist() == [-1.0, 7.0, -1.0]


def test_rewards_are_scaled_by_the_spread_of_returns():
    batch = batch_of(
        np.zeros((4, 3)),
        np.zeros((4, 2)),
        np.zeros((4, 3)),
        reward=[1, 2, 0.5, 0.5],
        truncated=[False, True, False, True],
    )
    np.testing.assert_allclose(make(batch=batch).data.reward, np.array([1, 2, 0.5, 0.5]) * 10 / (3 - 1))
    np.testing.assert_allclose(make(batch=batch, reward_scale=0.1).data.reward, [0.1, 0.2, 0.05, 0.05])


def test_weights_take_the_pessimistic_critics():
    learner = make()
    learner.fit(30)
    obs, action = learner.data.obs, learner.data.action
    joint = torch.cat((obs, action), dim=1)
    with torch.no_grad():
        q_r = learner.critics_target(joint).min(dim=0).values
        q_h = learner.feasibility_critics_target(joint).max(dim=0).values
        v_r, v_h = learner.value(obs), learner.feasibility_value(obs)
    inside = torch.where(q_h <= 0, torch.exp(3 * (q_r - v_r)).clamp(max=100), torch.zeros(()))
    expected = torch.where(v_h <= 0, inside, torch.exp(5 * (v_h - q_h)).clamp(max=150))
    torch.testing.assert_close(learner._weights(obs, action), expected)
    assert 0.1 < (v_h <= 0).float().mean() < 0.9  # both regions are there


def squared(difference, above, below):
    return (torch.where(difference < 0, below, above) * difference**2).mean()


def test_one_step_of_values_and_critics_has_the_losses_of_the_paper():
    """Values follow the slow critics (least reward, largest violation), critics the values after their step."""
    learner = make(expectile=0.7, feasibility_expectile=0.8, gamma=0.9)
    learner.fit(30)  # now the two networks of a pair differ, as do fast and slow ones
    data, index = learner.data, torch.arange(60)
    joint = torch.cat((data.obs, data.action), dim=1)[:60]
    with torch.no_grad():
        least = learner.critics_target(joint).min(dim=0).values
        largest = learner.feasibility_critics_target(joint).max(dim=0).values
        value_loss = squared(least - learner.value(data.obs[:60]), 0.7, 0.3)
        feasibility_loss = squared(largest - learner.feasibility_value(data.obs[:60]), 0.2, 0.8)
        q_r, q_h = learner.critics(joint), learner.feasibility_critics(joint)
    found = learner._critic_step(data, index)
    torch.testing.assert_close(found["value_loss"].detach(), value_loss)
    torch.testing.assert_close(found["feasibility_value_loss"].detach(), feasibility_loss)
    alive, h = data.not_terminated[:60], learner._h[:60]
    with torch.no_grad():
        y_r = data.reward[:60] + 0.9 * alive * learner.value(data.next_obs[:60])
        worst = torch.maximum(h, learner.feasibility_value(data.next_obs[:60]))
    y_h = torch.where(alive == 1, 0.1 * h + 0.9 * worst, h)
    torch.testing.assert_close(found["critic_loss"].detach(), ((q_r - y_r) ** 2).mean(dim=1).sum())
    torch.testing.assert_close(found["feasibility_critic_loss"].detach(), ((q_h - y_h) ** 2).mean(dim=1).sum())


def test_the_actor_sees_actions_with_the_noise_of_their_time_step(monkeypatch):
    rows = 3000
    batch = batch_of(np.zeros((rows, 3)), np.full((rows, 2), 0.5), np.zeros((rows, 3)))
    learner, seen = make(batch=batch, actor_batch_size=rows), {}
    forward = learner.actor.forward

    def record(action, obs, time, keep=None):
        seen.update(action=action, time=time)
        return forward(action, obs, time, keep)

    monkeypatch.setattr(learner.actor, "forward", record)
    learner._actor_step(learner.data, torch.arange(rows))
    for step, bar in enumerate(np.cumprod(1 - np.array([0.1959, 0.4590, 0.6360, 0.7550, 0.8351]))):
        part = seen["action"][seen["time"] == step]
        assert len(part) > 500
        assert part.mean().item() == pytest.approx(np.sqrt(bar) * 0.5, abs=0.08)
        assert part.std().item() == pytest.approx(np.sqrt(1 - bar), rel=0.05)


def parameters(network):
    return torch.cat([parameter.detach().flatten().clone() for parameter in network.parameters()])


def test_every_network_learns_with_an_optimiser_of_its_own():
    learner = make()
    before = {name: parameters(network) for name, network in learner._networks.items()}
    learner.fit(2)
    for name, network in learner._networks.items():
        assert not torch.equal(parameters(network), before[name]), name
    owned = {name: optimizer.param_groups[0]["params"] for name, optimizer in learner._optimizers.items()}
    assert set(owned) == {"value", "feasibility_value", "critics", "feasibility_critics", "actor"}
    for name, group in owned.items():
        assert [id(p) for p in group] == [id(p) for p in learner._networks[name].parameters()]


def test_slow_copies_follow_by_their_shares():
    learner = make(target_tau=0.25, actor_target_tau=0.5, actor_updates=1)
    names = ("critics", "feasibility_critics", "actor")
    start = {name: parameters(learner._networks[name]) for name in names}
    learner.fit(1)
    for name in names:
        share = 0.5 if name == "actor" else 0.25
        moved = start[name] + share * (parameters(learner._networks[name]) - start[name])
        torch.testing.assert_close(parameters(learner._networks[f"{name}_target"]), moved)


def test_the_actor_starts_when_it_is_told():
    learner = make(actor_start=3)
    before = parameters(learner.actor)
    assert "actor_loss" not in learner.fit(3)
    assert torch.equal(parameters(learner.actor), before)
    metrics = learner.fit(1)
    assert not torch.equal(parameters(learner.actor), before)
    assert {"actor_loss", "weight", "feasible_share", "critic_loss"} <= set(metrics)


def test_a_stored_state_goes_on_bit_for_bit():
    learner = make(actor_start=2)
    learner.fit(4)
    state = learner.state_dict()
    expected = learner.fit(3)
    other = make(seed=9, actor_start=2)
    other.load_state_dict(state)
    assert other.fit(3) == expected
    for name, value in learner.state_dict().items():
        assert torch.equal(other.state_dict()[name], value), name


def test_global_random_state_is_left_alone_and_the_seed_decides():
    torch.manual_seed(5)
    before = torch.get_rng_state()
    one, two, other = make(seed=1), make(seed=1), make(seed=2)
    for learner in (one, two, other):
        learner.fit(2)
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(parameters(one.actor), parameters(two.actor))
    assert not torch.equal(parameters(one.actor), parameters(other.actor))


def test_dropout_drops_its_share_and_keeps_the_mean():
    learner = make(actor_dropout=0.3)
    (mask,) = learner.actor.draw_masks(4000, torch.Generator().manual_seed(0))
    assert mask.shape == (4000, 16)
    assert mask.float().mean().item() == pytest.approx(0.7, abs=0.01)
    assert make(actor_dropout=0.0).actor.draw_masks(4, torch.Generator()) is None


def test_the_exported_risk_is_the_sigmoid_of_the_worse_q_h():
    learner = make(risk_scale=0.2)
    learner.fit(30)
    batch = random_batch(50, seed=4)
    with torch.no_grad():
        obs = torch.from_numpy(learner.normaliser(batch.obs))
        q_h = learner.feasibility_critics_target(torch.cat((obs, torch.from_numpy(batch.action_executed)), dim=1))
    risk = learner.critic().risk_rows(batch.obs, batch.action_executed)
    np.testing.assert_allclose(risk, torch.sigmoid(q_h.amax(dim=0) / 0.2).numpy(), atol=1e-5)
    np.testing.assert_array_equal(risk <= learner.threshold, q_h.amax(dim=0).numpy() <= 0.0)


def test_the_policy_acts_with_the_slow_copies_on_normalised_observations():
    learner = make(actor_target_tau=0.5)
    learner.fit(20)
    policy, obs = learner.policy(), random_batch(6, seed=2).obs
    noise = np.random.default_rng(0).standard_normal((5, 6, 4, 2)).astype(np.float32)
    seen = torch.from_numpy(learner.normaliser(obs)).repeat_interleave(4, dim=0)
    expected = learner.actor_target.sample(seen, torch.from_numpy(noise).reshape(5, 24, 2)).reshape(6, 4, 2)
    np.testing.assert_allclose(policy.draw(obs, noise), expected.numpy(), atol=2e-5)
    assert policy.candidates == 16
    np.testing.assert_array_equal(policy.normaliser.mean, learner.normaliser.mean)


def test_without_data_there_is_a_policy_but_no_learning():
    learner = FISOR(FISORConfig(**SMALL), 3, 2, 0)
    assert learner.policy().mean(np.zeros(3)).shape == (2,)
    with pytest.raises(RuntimeError, match="attach"):
        learner.fit(1)


@pytest.mark.parametrize(
    "wrong", [{"expectile": 1.0}, {"time_features": 9}, {"actor_dropout": 1.0}, {"violation_from": "reward"}, {"n": 8}]
)
def test_wrong_settings_are_refused(wrong):
    with pytest.raises(ValidationError, match=next(iter(wrong))):
        FISORConfig(**wrong)
