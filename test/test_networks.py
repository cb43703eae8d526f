"""Torch networks: parity with the numpy runtime, initial outputs, gradients, private randomness."""

import numpy as np
import pytest
import torch

from safe_rl_ros.networks import GaussianActor, SafetyCriticEnsemble, ValueNet

OBS = torch.randn(50, 29, generator=torch.Generator().manual_seed(1))
ACTIONS = torch.rand(50, 2, generator=torch.Generator().manual_seed(2)) * 2.0 - 1.0


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def shaken(network, by=0.3):
    """Move every parameter away from its initial value, as training does."""
    noise = generator(5)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter += by * torch.randn(parameter.shape, generator=noise)
    return network


@pytest.mark.parametrize("activation", ["tanh", "relu"])
@pytest.mark.parametrize("state_dependent_std", [False, True])
def test_actor_parity(state_dependent_std, activation):
    made = GaussianActor(29, 2, (64, 64), generator(), state_dependent_std=state_dependent_std, activation=activation)
    actor = shaken(made)
    mean, log_std = actor(OBS)
    numpy_mean, numpy_std = actor.export().distribution(OBS.numpy())
    np.testing.assert_allclose(numpy_mean, mean.detach().numpy(), atol=2e-6)
    np.testing.assert_allclose(numpy_std, log_std.exp().detach().numpy(), rtol=1e-5)


@pytest.mark.parametrize("activation", ["tanh", "relu"])
@pytest.mark.parametrize(("members", "aggregate"), [(1, "mean"), (5, "mean"), (5, "mean_plus_std"), (5, "max")])
def test_critic_parity(members, aggregate, activation):
    made = SafetyCriticEnsemble(29, 2, (64, 64), generator(), members=members, activation=activation, final_gain=2.0)
    critic = shaken(made, by=0.05)
    numpy_risk = critic.export(aggregate, 1.5).risk(OBS[0].numpy(), ACTIONS.numpy())
    risk = critic.risk(OBS[:1].expand(50, -1), ACTIONS, aggregate, 1.5).detach().numpy()
    assert np.ptp(risk) > 0.01
    np.testing.assert_allclose(numpy_risk, risk, atol=1e-6 if activation == "tanh" else 5e-6)
    rows = critic.export(aggregate, 1.5).risk_rows(OBS.numpy(), ACTIONS.numpy())
    np.testing.assert_allclose(rows, critic.risk(OBS, ACTIONS, aggregate, 1.5).detach().numpy(), atol=5e-6)


def test_initial_outputs():
    critic = SafetyCriticEnsemble(29, 2, (64, 64), generator(), members=3, initial_probability=0.02)
    risk = critic(OBS, ACTIONS)
    assert risk.shape == (3, 50)
    assert risk.min().item() > 0.01
    assert risk.max().item() < 0.04
    mean, log_std = GaussianActor(29, 2, (64, 64), generator(), init_log_std=-1.0)(OBS)
    assert mean.abs().max().item() < 0.1
    assert log_std.unique().tolist() == [-1.0]


def test_log_std_is_clamped():
    actor = GaussianActor(29, 2, (8,), generator())
    with torch.no_grad():
        actor.log_std.copy_(torch.tensor([-7.0, 5.0]))
    assert actor(OBS)[1][0].tolist() == [-4.0, 2.0]
    assert actor.export().distribution(OBS[0].numpy())[1].tolist() == pytest.approx(np.exp([-4.0, 2.0]))


def test_members_differ_and_take_their_own_rows():
    critic = SafetyCriticEnsemble(29, 2, (16,), generator(), members=3)
    shared = critic(OBS, ACTIONS)
    assert not shared[0].equal(shared[1])
    own = critic(OBS.expand(3, -1, -1), ACTIONS.expand(3, -1, -1))
    torch.testing.assert_close(shared, own)
    torch.testing.assert_close(critic.joint(torch.cat((OBS, ACTIONS), dim=1)), shared)


def test_every_parameter_gets_a_gradient():
    for network, output in (
        (critic := SafetyCriticEnsemble(29, 2, (16, 16), generator(), members=2), critic(OBS, ACTIONS)),
        (value := ValueNet(29, (16, 16), generator()), value(OBS)),
        (actor := GaussianActor(29, 2, (16, 16), generator()), torch.cat(actor(OBS))),
    ):
        output.square().sum().backward()
        assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in network.parameters())


def test_initial_weights_come_from_the_generator_alone():
    torch.manual_seed(3)
    before = torch.get_rng_state()
    one, two, three = (GaussianActor(29, 2, (16,), generator(seed)) for seed in (0, 0, 1))
    assert torch.get_rng_state().equal(before)
    assert one.net.weights[0].equal(two.net.weights[0])
    assert not one.net.weights[0].equal(three.net.weights[0])


def test_export_is_a_snapshot():
    actor = GaussianActor(29, 2, (16,), generator())
    policy = actor.export()
    before = policy.distribution(OBS[0].numpy())[0]
    shaken(actor)
    np.testing.assert_array_equal(before, policy.distribution(OBS[0].numpy())[0])


def test_value_shape():
    assert ValueNet(29, (16,), generator())(OBS).shape == (50,)


@pytest.mark.parametrize(("key", "value"), [("members", 0), ("initial_probability", 0.0), ("initial_probability", 1.0)])
def test_bad_construction(key, value):
    with pytest.raises(ValueError, match=f"{key} is {value}"):
        SafetyCriticEnsemble(29, 2, (16,), generator(), **{key: value})
