"""What is particular to one learner of the first offline family: whose values, whose copies, which units."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from offline_worlds import attached, learner, noise_rows, one_state, walk

from safe_rl_ros.algorithms.offline.actor_critic import gaussian, log_likelihood
from safe_rl_ros.functional.returns import gae
from safe_rl_ros.functional.td_target import return_range_scale


@pytest.mark.parametrize("variant", ["h", "rho"])
def test_cqls_penalty_takes_its_temperature(variant):
    algorithm = attached("cql", noise_rows(), variant=variant, penalty_temperature=1e-4, action_samples=3, alpha=1.0)
    rows = algorithm.data.rows(torch.arange(5))
    state = algorithm._generator.get_state()
    _, metrics = algorithm._critic_loss(rows, torch.zeros(5))
    algorithm._generator.set_state(state)
    action, _ = algorithm._actions(rows)
    with torch.no_grad():
        each = torch.stack([algorithm.critics(torch.cat((rows.obs, a), dim=1)) for a in action])
        data = algorithm.critics(torch.cat((rows.obs, rows.action), dim=1))
    assert metrics["penalty"].item() == pytest.approx((each.amax(dim=0) - data).mean().item(), abs=2e-3)


def test_expected_return_is_in_the_datas_units_and_touches_nothing():
    batch = one_state(reward=2.0, terminated=True)
    algorithm = attached("td3_bc", batch, reward_scale=0.25)
    algorithm.fit(300)
    before = algorithm.state_dict()
    assert algorithm.expected_return(np.zeros((3, 1)), np.random.default_rng(0)).tolist() == pytest.approx(
        [2.0] * 3, 0.1
    )
    assert all(before[key].equal(value) for key, value in algorithm.state_dict().items())
    with pytest.raises(TypeError, match="BC learns no action values"):
        attached("bc", batch).expected_return(np.zeros((3, 1)), np.random.default_rng(0))


def test_expected_return_normalises_observations_as_the_data():
    batch = noise_rows()
    algorithm = attached("iql", replace(batch, obs=batch.obs * 5.0 + 20.0), reward_scale=2.0)
    obs = batch.obs[:4] * 5.0 + 20.0
    noise = torch.from_numpy(np.random.default_rng(1).standard_normal((2, 4, 2)).astype(np.float32))
    states = torch.from_numpy(algorithm.normaliser(obs))
    with torch.no_grad():
        mean, log_std = algorithm.actor(states)
        action = (mean + log_std.exp() * noise).clamp(-1.0, 1.0)
        each = [algorithm.critics(torch.cat((states, action[j]), dim=1)).amin(dim=0) for j in range(2)]
    found = algorithm.expected_return(obs, np.random.default_rng(1), samples=2)
    np.testing.assert_allclose(found, (0.5 * (each[0] + each[1]) / 2.0).numpy(), atol=1e-5)


@pytest.mark.parametrize("state_dependent_std", [True, False])
def test_a_spread_that_left_its_bounds_can_come_back(state_dependent_std):
    actor = attached("iql", noise_rows(), state_dependent_std=state_dependent_std).actor
    raw = actor.net.biases[-1] if state_dependent_std else actor.log_std
    with torch.no_grad():
        raw[-2:] = -6.0
    mean, log_std = gaussian(actor, torch.zeros(5, 3))
    assert log_std.tolist() == [[-4.0, -4.0]] * 5
    inward = torch.autograd.grad(-log_std.sum(), raw, retain_graph=True)[0][-2:]
    outward = torch.autograd.grad(log_std.sum(), raw)[0][-2:]
    assert inward.tolist() == [-5.0, -5.0]
    assert outward.tolist() == [0.0, 0.0]
    # Rows whose action is far from the mean ask for more spread.
    gradient = torch.autograd.grad(-log_likelihood(actor, torch.zeros(5, 3), mean.detach() + 0.5).mean(), raw)[0]
    assert (gradient[-2:] < 0.0).all()


def test_iql_scales_rewards_by_the_range_of_returns_and_others_do_not():
    batch = walk()
    returns = batch.reward.reshape(60, 20).sum(axis=1)
    iql = attached("iql", batch)
    assert iql.reward_scale == pytest.approx(20.0 / (returns.max() - returns.min()), rel=1e-5)
    assert iql.reward_scale == pytest.approx(return_range_scale(torch.from_numpy(batch.reward), iql.data.last, 20))
    torch.testing.assert_close(iql.data.reward, torch.from_numpy(batch.reward) * iql.reward_scale)
    assert attached("iql", batch, reward_scale=3.0).data.reward[5] == pytest.approx(3.0 * batch.reward[5])
    assert attached("awac", batch).data.reward.equal(torch.from_numpy(batch.reward))
    iql.attach(batch, 20)  # not twice
    torch.testing.assert_close(iql.data.reward, torch.from_numpy(batch.reward) * iql.reward_scale)


def test_awr_takes_the_traces_of_its_slow_copy_and_renews_it_whole():
    batch = walk(episodes=3, length=6)
    algorithm = attached("awr", batch, refresh_interval=4, trace_decay=0.7, gamma=0.9)
    algorithm.fit(3)
    first = algorithm._returns
    with torch.no_grad():
        value, after = algorithm.value_target(algorithm.data.obs), algorithm.value_target(algorithm.data.next_obs)
    advantage, target = gae(batch.reward, value, after, batch.terminated, batch.truncated, gamma=0.9, lam=0.7)
    np.testing.assert_allclose(first[0].numpy(), target, atol=1e-5)
    expected = np.minimum(np.exp((advantage - advantage.mean()) / advantage.std()), 20.0)
    np.testing.assert_allclose(first[1].numpy(), expected, rtol=1e-4)
    assert not algorithm.value_target.net.weights[0].equal(algorithm.value.net.weights[0])
    algorithm.fit(1)
    for slow, fast in zip(algorithm.value_target.parameters(), algorithm.value.parameters(), strict=True):
        assert slow.equal(fast)
        assert slow.data_ptr() != fast.data_ptr()
    algorithm.fit(1)
    assert not algorithm._returns[0].equal(first[0])


def test_td3_bc_moves_its_actor_at_every_second_step_alone():
    algorithm = attached("td3_bc", noise_rows())
    moved, names = [], []
    for _ in range(4):
        before = algorithm.state_dict()
        names.append(set(algorithm.fit(1)))
        after = algorithm.state_dict()
        moved.append(
            {key.split(".")[1] for key in before if key.startswith("network.") and not before[key].equal(after[key])}
        )
    assert moved == [{"critics"}, {"critics", "actor", "critics_target", "actor_target"}] * 2
    assert [("actor_loss" in found) for found in names] == [False, True, False, True]


def test_td3_bc_exports_a_policy_with_the_least_spread():
    policy = attached("td3_bc", noise_rows()).policy()
    _, std = policy.distribution(np.zeros(3))
    assert std.tolist() == pytest.approx([np.exp(-4.0)] * 2)


@pytest.mark.parametrize(("name", "step"), [("crr", "_critic_step"), ("td3_bc", "_critic_step")])
def test_targets_take_the_slow_copy_of_the_policy(name, step):
    algorithm = attached(name, noise_rows())
    rows, noise = algorithm.data.rows(torch.arange(8)), torch.zeros(8, 2)
    assert getattr(algorithm, step)(rows, noise)["q_mean"].isfinite()
    spoil(algorithm.actor_target)
    assert getattr(algorithm, step)(rows, noise)["q_mean"].isnan()


@pytest.mark.parametrize("name", ["sac_offline", "cql", "awac", "crr", "td3_bc"])
def test_policies_look_at_the_critics_and_targets_at_their_slow_copies(name):
    algorithm = attached(name, noise_rows())
    spoil(algorithm.critics_target)
    rows, noise = algorithm.data.rows(torch.arange(8)), torch.zeros(8, 2)
    arguments = {"td3_bc": (), "awac": (noise[None],), "crr": (noise.expand(4, 8, 2),)}.get(name, (noise,))
    assert algorithm._actor_step(rows, *arguments)["actor_loss"].isfinite()
    if name in ("sac_offline", "cql"):
        assert algorithm._target(rows, noise).isnan().all()
    else:
        assert algorithm._critic_step(rows, noise)["q_mean"].isnan()


def spoil(network):
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.fill_(torch.nan)


@pytest.mark.parametrize(("weight", "expected"), [("exp", [1.0, np.exp(-2.0)]), ("binary", [0.0, 0.0])])
def test_crrs_options_reach_its_weights(weight, expected):
    value_data, value_policy = torch.tensor([[3.0, 0.0]]), torch.tensor([[[1.0, 2.0], [3.0, 1.0]]])
    crr = attached("crr", noise_rows(), advantage="max", weight=weight)
    assert crr._weight(crr._advantage(value_data, value_policy)).tolist() == pytest.approx(expected)
    mean = attached("crr", noise_rows(), weight=weight, temperature=0.1)
    clipped = 20.0 if weight == "exp" else 1.0
    assert mean._weight(mean._advantage(value_data, value_policy))[0] == pytest.approx(clipped)


@pytest.mark.parametrize("paid", [True, False])
def test_cqls_target_pays_for_entropy_only_if_told(paid):
    algorithm = attached("cql", noise_rows(), backup_entropy=paid, init_temperature=0.5, gamma=0.5)
    rows, noise = algorithm.data.rows(torch.arange(6)), torch.zeros(6, 2)
    with torch.no_grad():
        mean, log_std = algorithm.actor(rows.next_obs)
        value = algorithm.critics_target(torch.cat((rows.next_obs, mean), dim=1)).amin(dim=0)
    log_prob = torch.distributions.Normal(mean, log_std.exp()).log_prob(mean).sum(dim=1)
    expected = rows.reward + 0.5 * rows.not_terminated * (value - (0.5 * log_prob if paid else 0.0))
    torch.testing.assert_close(algorithm._target(rows, noise), expected)


def test_cqls_sampled_actions_and_densities_belong_together():
    algorithm = attached("cql", noise_rows(), action_samples=4)
    rows = algorithm.data.rows(torch.arange(6))
    action, log_density = algorithm._actions(rows)
    assert action.shape == (12, 6, 2)
    assert action.abs().max() <= 1.0
    assert action[:4].min() < -0.5
    assert action[:4].max() > 0.5
    assert log_density[:4].unique().tolist() == pytest.approx([-2.0 * np.log(2.0)])
    for part, obs in ((slice(4, 8), rows.obs), (slice(8, 12), rows.next_obs)):
        with torch.no_grad():
            mean, log_std = algorithm.actor(obs)
        normal = torch.distributions.Normal(mean, log_std.exp())
        mass = normal.cdf(torch.ones(())) - normal.cdf(-torch.ones(()))
        expected = (normal.log_prob(action[part]) - mass.log()).sum(dim=-1)
        torch.testing.assert_close(log_density[part], expected, atol=1e-3, rtol=1e-3)


def test_cqls_loss_is_the_penalty_and_half_the_squared_error_of_each_critic():
    algorithm = attached("cql", noise_rows(), variant="eq1", alpha=2.0, action_samples=3)
    rows, target = algorithm.data.rows(torch.arange(5)), torch.arange(5.0)
    state = algorithm._generator.get_state()
    loss, _ = algorithm._critic_loss(rows, target)
    algorithm._generator.set_state(state)
    action, _ = algorithm._actions(rows)
    by_hand = 0.0
    for member in range(2):
        sampled = [algorithm.critics(torch.cat((rows.obs, action[j]), dim=1))[member].mean().item() for j in range(3)]
        data = algorithm.critics(torch.cat((rows.obs, rows.action), dim=1))[member]
        by_hand += 2.0 * np.mean(sampled) + 0.5 * (data - target).square().mean().item()
    assert loss.item() == pytest.approx(by_hand, rel=1e-4)


def test_a_data_set_without_spread_in_returns_is_not_scaled():
    assert attached("iql", one_state(reward=1.0, truncated=True)).reward_scale == 1.0


def test_learning_needs_data():
    with pytest.raises(RuntimeError, match="no data are attached"):
        learner("cql").fit(1)


def test_resuming_with_other_data_is_another_learner():
    batch = noise_rows()
    one, other = attached("iql", batch), attached("iql", replace(batch, reward=batch.reward * 2.0), reward_scale=1.0)
    assert one.fit(2) != other.fit(2)
