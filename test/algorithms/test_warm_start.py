"""Beginning as another policy and critic: what is imitated, what stays, and that it repeats."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from policy_fakes import TwoWays

from safe_rl_ros.algorithms import ALGORITHMS, can_start_as_another, warm_start
from safe_rl_ros.config import build
from safe_rl_ros.data.replay_buffer import ReplayBuffer
from safe_rl_ros.inference import Activation, GaussianPolicy, Normaliser, SafetyCritic
from safe_rl_ros.networks import GaussianActor, SafetyCriticEnsemble
from safe_rl_ros.types import ConfigError, TransitionBatch

WEIGHT = np.array([[0.8, -0.3], [0.2, 0.9], [-0.5, 0.1]], dtype=np.float32)
NORMALISER = Normaliser([0.5, 0.0, -1.0], [2.0, 1.0, 0.5])
SMALL = {
    "csc": {"hidden": [16], "critic_hidden": [16], "critic_updates": 20, "critic_batch_size": 32},
    "offtrc": {"hidden": [16], "batch_size": 200, "segment_length": 20, "critic_batch_size": 32},
}


@pytest.fixture(autouse=True)
def fewer_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(warm_start, "STEPS", 2500)


def rows(count: int = 400, *, std: float = 0.0, seed: int = 0) -> TransitionBatch:
    """Return logged rows of a behaviour 0.3 + noise of std .2, in episodes of 20."""
    rng = np.random.default_rng(seed)
    obs = rng.standard_normal((count, 3)).astype(np.float32)
    action = (0.3 + 0.2 * rng.standard_normal((count, 2))).clip(-1, 1).astype(np.float32)
    ends = np.arange(count) % 20 == 19
    return TransitionBatch(
        obs=obs,
        action_proposed=action,
        action_executed=action,
        intervened=np.zeros(count, np.bool_),
        behaviour_mean=action,
        behaviour_std=np.full_like(action, std),
        reward=np.ones(count, np.float32),
        cost=np.full(count, 0.25, np.float32),
        margin=np.ones(count, np.float32),
        terminated=np.zeros(count, np.bool_),
        truncated=ends,
        next_obs=np.roll(obs, -1, axis=0),
    )


def filled(batch: TransitionBatch) -> ReplayBuffer:
    buffer = ReplayBuffer(1000, 3, 2)
    buffer.add(batch)
    return buffer


def learner(name: str, **settings: object):
    config, constructor = ALGORITHMS[name]
    return constructor(build(config, {"name": name} | SMALL[name] | settings, "test"), 3, 2, 0)


def teacher() -> SafetyCritic:
    """Return a critic with a normaliser whose risk rises with the first action, from about 0 to about 1."""
    arrays = {
        "weight_0": np.zeros((1, 5, 2), np.float32),
        "bias_0": np.zeros((1, 2), np.float32),
        "weight_1": np.array([[[6.0], [0.0]]], np.float32),
        "bias_1": np.zeros((1, 1), np.float32),
    }
    arrays["weight_0"][0, 3, 0] = 2.0
    arrays["weight_0"][0, 0, 0] = 0.5
    meta = {"kind": "safety_critic", "obs_dim": 3, "act_dim": 2, "hidden": [2], "members": 1}
    return SafetyCritic(arrays, meta | {"aggregate": "mean", "std_factor": 0.0}, NORMALISER)


@pytest.mark.parametrize("name", SMALL)
def test_a_learner_begins_as_the_policy_and_keeps_its_spread(name: str) -> None:
    made, policy, batch = learner(name), TwoWays(WEIGHT, NORMALISER), rows()
    before = made.policy().distribution(batch.obs)
    metrics = made.warm_start(policy, None, filled(batch))
    mean, std = made.policy().distribution(batch.obs)
    wanted = policy.mean(batch.obs)
    assert np.abs(mean - wanted).mean() < 0.06 < np.abs(before[0] - wanted).mean()
    assert metrics["imitation_error"] < 0.01
    np.testing.assert_allclose(std.mean(axis=0), before[1].mean(axis=0), rtol=0.1)


def test_csc_takes_the_critic_and_its_target_with_it() -> None:
    made, batch = learner("csc"), rows()
    metrics = made.warm_start(TwoWays(WEIGHT), teacher(), filled(batch))
    actions = np.random.default_rng(3).uniform(-1, 1, (400, 2)).astype(np.float32)
    wanted = teacher().risk_rows(batch.obs, actions)
    assert np.ptp(wanted) > 0.9
    assert np.abs(made.critic().risk_rows(batch.obs, actions) - wanted).mean() < 0.05
    assert metrics["critic_imitation_error"] < 0.05
    pairs = zip(made.safety_critic.parameters(), made.safety_critic_target.parameters(), strict=True)
    assert all(a.equal(b) and a.data_ptr() != b.data_ptr() for a, b in pairs)


@pytest.mark.parametrize("name", SMALL)
def test_it_repeats_and_touches_no_optimiser(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(warm_start, "STEPS", 20)
    found = []
    for _ in range(2):
        torch.rand(3)
        made = learner(name)
        made.warm_start(TwoWays(WEIGHT), teacher(), filled(rows()))
        found.append(made.state_dict())
    assert all(found[0][key].equal(found[1][key]) for key in found[0])
    moments = [value for key, value in found[0].items() if key.startswith("adam.")]
    assert moments
    assert not any(value.any() for value in moments)


def test_offtrc_s_critics_learn_what_logged_data_are_worth() -> None:
    """Reward 1 and cost .25 for ever are worth 1 / (1 - gamma) and a quarter of it."""
    made, buffer = learner("offtrc", gamma=0.5, critic_learning_rate=3e-3), filled(rows())
    for _ in range(20):
        losses = made.pretrain(buffer)
    assert set(losses) == {"value_loss", "cost_value_loss", "cost_std_loss"}
    values = made._evaluate(rows())
    assert values.value.mean() == pytest.approx(2.0, abs=0.2)
    assert values.cost_value.mean() == pytest.approx(0.5, abs=0.1)


def test_an_unknown_behaviour_is_estimated_a_known_one_is_kept() -> None:
    unknown, known = rows(), rows(std=0.5, seed=1)
    both = TransitionBatch(
        **{name: np.concatenate((getattr(unknown, name), getattr(known, name))) for name in vars(unknown)}
    )
    found = learner("offtrc").with_behaviour(both)
    assert np.abs(found.behaviour_mean[:400] - 0.3).mean() < 0.1
    assert 0.1 < found.behaviour_std[:400].mean() < 0.25
    np.testing.assert_array_equal(found.behaviour_mean[400:], known.behaviour_mean)
    np.testing.assert_array_equal(found.behaviour_std[400:], known.behaviour_std)
    np.testing.assert_array_equal(found.action_proposed, both.action_proposed)
    assert (unknown.behaviour_std == 0.0).all()  # what was given is not changed
    made = learner("csc")
    assert made.with_behaviour(unknown) is unknown


def test_at_most_so_many_rows_are_asked_for() -> None:
    index = warm_start.some_rows(25_000, torch.Generator().manual_seed(0))
    assert len(index) == warm_start.MOST_ROWS == len(set(index.tolist()))
    assert index.max() > 20_000


def test_who_can_begin_as_another() -> None:
    able = {name for name, (config, _) in ALGORITHMS.items() if can_start_as_another(config())}
    assert able == {"csc", "offtrc", "offcpo"}
    config, constructor = ALGORITHMS["trpo"]
    with pytest.raises(ConfigError, match="cannot begin as another"):
        constructor(config(), 3, 2, 0).warm_start(TwoWays(WEIGHT), None, filled(rows()))


def test_every_member_of_an_ensemble_learns_the_risks() -> None:
    generator = torch.Generator().manual_seed(0)
    ensemble = SafetyCriticEnsemble(3, 2, [16], generator, members=3)
    batch = rows()
    warm_start.imitate_critic(ensemble, teacher(), batch.obs, batch.action_executed, generator)
    with torch.no_grad():
        each = ensemble(torch.from_numpy(batch.obs), torch.from_numpy(batch.action_executed)).numpy()
    wanted = teacher().risk_rows(batch.obs, batch.action_executed)
    assert (np.abs(each - wanted).mean(axis=1) < 0.05).all()


def test_a_gaussian_is_imitated_through_its_normaliser() -> None:
    generator = torch.Generator().manual_seed(0)
    source = GaussianActor(3, 2, [8], generator)
    with torch.no_grad():
        source.log_std.copy_(torch.tensor([-1.5, -0.25]))
    policy = GaussianPolicy(source.export().arrays(), source.export().meta(), NORMALISER)
    actor = GaussianActor(3, 2, [16], generator, state_dependent_std=True)
    obs = rows().obs
    warm_start.imitate_policy(actor, policy, obs, generator)
    np.testing.assert_allclose(actor.export().mean(obs), policy.mean(obs), atol=0.05)
    found = actor.export().distribution(obs)[1]
    np.testing.assert_allclose(found.mean(axis=0), np.exp([-1.5, -0.25]), rtol=0.05)


@pytest.mark.parametrize("state_dependent", [False, True])
@pytest.mark.parametrize("hidden", [(8,), (8, 4)])
def test_a_network_of_the_same_form_is_copied_bit_for_bit(hidden: tuple[int, ...], state_dependent: bool) -> None:
    source = other_actor(1, hidden, state_dependent)
    actor = other_actor(2, hidden, state_dependent)
    obs = rows().obs
    assert warm_start.imitate_policy(actor, source.export(), obs, torch.Generator()) == 0.0
    for one, other in zip(actor.parameters(), source.parameters(), strict=True):
        assert one.equal(other)
        assert one.data_ptr() != other.data_ptr()


def test_of_another_form_or_seen_through_a_normaliser_it_is_no_copy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(warm_start, "STEPS", 3)
    exported = other_actor(1).export()
    for policy in (
        other_actor(1, (4,)).export(),
        other_actor(1, state_dependent=True).export(),
        other_actor(1, activation="relu").export(),
        GaussianPolicy(exported.arrays(), exported.meta(), NORMALISER),
    ):
        actor = other_actor(2)
        assert warm_start.imitate_policy(actor, policy, rows().obs, torch.Generator()) > 0.0
        assert not actor.net.weights[0].equal(other_actor(1).net.weights[0])


def other_actor(
    seed: int, hidden: tuple[int, ...] = (8,), state_dependent: bool = False, activation: Activation = "tanh"
) -> GaussianActor:
    generator = torch.Generator().manual_seed(seed)
    made = GaussianActor(3, 2, hidden, generator, state_dependent_std=state_dependent, activation=activation)
    with torch.no_grad():  # nothing of it is what all begin with
        for value in made.parameters():
            value.copy_(0.5 * torch.randn(value.shape, generator=generator))
    return made


@pytest.mark.parametrize(("members", "activation"), [(1, "tanh"), (3, "tanh"), (1, "relu")])
def test_a_critic_of_the_same_form_is_copied_whatever_its_members_become(members: int, activation: Activation) -> None:
    batch, generator = rows(), torch.Generator()
    source, own, other = (
        SafetyCriticEnsemble(3, 2, [16], torch.Generator().manual_seed(seed), members=count, activation=kind)
        for seed, count, kind in ((1, members, activation), (2, members, activation), (2, members + 1, "tanh"))
    )
    with torch.no_grad():
        for value in source.parameters():
            value.add_(0.3)
    given = batch.obs, batch.action_executed, generator
    assert warm_start.imitate_critic(own, source.export("mean_plus_std", 2.0), *given) == 0.0
    assert all(a.equal(b) for a, b in zip(own.parameters(), source.parameters(), strict=True))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(warm_start, "STEPS", 3)
        assert warm_start.imitate_critic(other, source.export(), *given) > 0.0
        exported = source.export()
        seen_otherwise = SafetyCritic(exported.arrays(), exported.meta(), NORMALISER)
        assert warm_start.imitate_critic(own, seen_otherwise, *given) > 0.0


def test_csc_goes_on_exactly_as_another_csc_ended() -> None:
    ended, begun = learner("csc"), learner("csc")
    with torch.no_grad():
        for net in (ended.actor, ended.safety_critic):
            for value in net.parameters():
                value.add_(0.1)
    metrics = begun.warm_start(ended.policy(), ended.critic(), filled(rows()))
    assert (metrics["imitation_error"], metrics["critic_imitation_error"]) == (0.0, 0.0)
    for name, value in ended.policy().arrays().items():
        np.testing.assert_array_equal(begun.policy().arrays()[name], value)
    for name, value in ended.critic().arrays().items():
        np.testing.assert_array_equal(begun.critic().arrays()[name], value)
    pairs = zip(begun.safety_critic.parameters(), begun.safety_critic_target.parameters(), strict=True)
    assert all(a.equal(b) and a.data_ptr() != b.data_ptr() for a, b in pairs)
