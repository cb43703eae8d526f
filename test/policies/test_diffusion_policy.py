"""The diffusion policy in numpy: equal to the torch network, picks by the critic, refuses what is wrong."""

import numpy as np
import pytest
import torch

from safe_rl_ros.algorithms.off_policy import ActionValues
from safe_rl_ros.algorithms.offline.diffusion_actor import DenoiserSizes, DiffusionActor
from safe_rl_ros.inference import Normaliser
from safe_rl_ros.policies import make_policy
from safe_rl_ros.policies.diffusion import DiffusionPolicy, mish

O, C, T, N = 4, 3, 5, 6  # noqa: E741  (the shape letters of the package)
SIZES = DenoiserSizes(width=24, blocks=2, expansion=3, time_features=8, time_width=10, steps=T)
NORMALISER = Normaliser([0.5, -1.0, 0.0, 2.0], [1.0, 2.0, 0.5, 3.0])
OBS = np.random.default_rng(0).standard_normal((7, O)).astype(np.float32)


def networks(seed=0):
    generator = torch.Generator().manual_seed(seed)
    actor = DiffusionActor(O, C, SIZES, 0.1, generator)
    selector = ActionValues(O, C, (16, 8), generator, members=2, activation="relu")
    with torch.no_grad():  # no bias of 0 and no scale of 1, which could hide a mistake
        for parameter in [*actor.parameters(), *selector.parameters()]:
            parameter += 0.1 * torch.randn(parameter.shape, generator=generator)
    return actor, selector


@pytest.fixture(scope="module")
def policy():
    actor, selector = networks()
    return actor.export(selector, N, NORMALISER)


def test_denoising_equals_torch(policy):
    actor, _ = networks()
    noise = np.random.default_rng(1).standard_normal((T, 7, N, C)).astype(np.float32)
    obs = torch.from_numpy(NORMALISER(OBS)).repeat_interleave(N, dim=0)
    expected = actor.sample(obs, torch.from_numpy(noise).reshape(T, 7 * N, C)).reshape(7, N, C)
    found = policy.draw(OBS, noise)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected.numpy(), atol=2e-5)
    assert 0.05 < (np.abs(found) < 1.0).mean() < 1.0  # not all of it at the bounds


def test_the_network_itself_equals_torch_at_every_step(policy):
    actor, _ = networks()
    action = np.random.default_rng(2).standard_normal((7, C)).astype(np.float32)
    weight = policy.arrays()["enter_weight"][C : C + O]
    seen = NORMALISER(OBS) @ weight + policy.arrays()["enter_bias"]
    for t in range(T):
        with torch.no_grad():
            expected = actor(torch.from_numpy(action), torch.from_numpy(NORMALISER(OBS)), torch.full((7,), t))
        np.testing.assert_allclose(policy._predict(action, seen, t), expected.numpy(), atol=2e-5)


def test_unsafety_is_the_larger_of_the_two_critics(policy):
    _, selector = networks()
    actions = np.random.default_rng(3).uniform(-1, 1, (7, N, C)).astype(np.float32)
    joint = np.concatenate([np.repeat(NORMALISER(OBS), N, axis=0), actions.reshape(7 * N, C)], axis=1)
    with torch.no_grad():
        expected = selector(torch.from_numpy(joint)).amax(dim=0).numpy().reshape(7, N)
    np.testing.assert_allclose(policy.unsafety(OBS, actions), expected, atol=1e-5)


def test_the_sample_is_the_least_unsafe_of_n_candidates(policy):
    noise = np.random.default_rng(5).standard_normal((T, 1, N, C), dtype=np.float32)
    drawn = policy.draw(OBS[:1], noise)
    order = np.argsort(policy.unsafety(OBS[:1], drawn)[0])
    one = policy.sample(OBS[0], 1, np.random.default_rng(5))
    np.testing.assert_allclose(one, drawn[0, order[:1]], atol=1e-6)
    every = policy.sample(OBS[0], N, np.random.default_rng(5))
    np.testing.assert_allclose(every, drawn[0, order], atol=1e-6)
    assert np.ptp(every, axis=0).max() > 0.1  # they differ, so there is a choice


def test_more_samples_than_candidates(policy):
    drawn = policy.sample(OBS[0], 3 * N, np.random.default_rng(0))
    assert drawn.shape == (3 * N, C)
    assert (np.diff(policy.unsafety(OBS[:1], drawn[None])[0]) >= -1e-5).all()
    assert policy.sample(OBS[0], 0, np.random.default_rng(0)).shape == (0, C)


def test_rows_are_drawn_independently(policy):
    same = np.repeat(OBS[:1], 50, axis=0)
    actions = policy.sample_rows(same, np.random.default_rng(0))
    assert actions.shape == (50, C)
    assert len(np.unique(actions.round(5), axis=0)) > 10
    least = policy.unsafety(same[:1], actions[None])[0].mean()
    raw = policy.draw(OBS[:1], np.random.default_rng(1).standard_normal((T, 1, 50, C), dtype=np.float32))
    assert least < policy.unsafety(OBS[:1], raw)[0].mean()


def test_the_mean_is_the_same_alone_and_among_others(policy):
    together = policy.mean(OBS)
    assert together.shape == (7, C)
    np.testing.assert_allclose(np.stack([policy.mean(row) for row in OBS]), together, atol=1e-5)
    many = policy.mean(np.concatenate([OBS] * 60))  # more rows than one part has
    np.testing.assert_allclose(many, np.concatenate([together] * 60), atol=1e-5)
    assert policy.mean(np.empty((0, O))).shape == (0, C)
    assert np.abs(together).max() <= 1.0


def shifted(policy, shift, wide):
    """Return the policy with Q_h larger by ``shift`` everywhere, and that many wide candidates."""
    arrays = policy.arrays()
    arrays["selector_bias_2"] = arrays["selector_bias_2"] + np.float32(shift)
    return DiffusionPolicy(arrays, policy.meta() | ({"wide_candidates": wide} if wide else {}), NORMALISER)


def test_wide_candidates_are_looked_at_where_no_other_is_feasible(policy):
    lost, before = shifted(policy, 100.0, 500), shifted(policy, 100.0, 0)
    rows, alone = (p.sample_rows(OBS, np.random.default_rng(2)) for p in (lost, before))
    unsafe, unsafe_alone = (before.unsafety(OBS, a[:, None])[:, 0] for a in (rows, alone))
    assert (unsafe <= unsafe_alone).all()
    assert (unsafe < unsafe_alone - 1e-3).sum() >= 5  # 500 find better than 6
    # The very best of 500 is nearly the best there is, which a piecewise linear Q_h has near a corner.
    box = np.random.default_rng(9).uniform(-1, 1, (7, 20_000, C)).astype(np.float32)
    span = np.ptp(before.unsafety(OBS, box), axis=1)
    assert (unsafe - before.unsafety(OBS, box).min(axis=1) < 0.15 * span).all()
    assert (np.abs(rows) <= 1.0).all()
    np.testing.assert_allclose(lost.mean(OBS[3]), lost.mean(OBS)[3], atol=1e-5)
    assert (before.unsafety(OBS, lost.mean(OBS)[:, None]) <= before.unsafety(OBS, before.mean(OBS)[:, None])).all()
    some = lost.sample(OBS[0], 2 * N, np.random.default_rng(1))
    assert some.shape == (2 * N, C)
    assert (np.diff(before.unsafety(OBS[:1], some[None])[0]) >= -1e-5).all()


def test_wide_candidates_change_nothing_where_one_of_the_others_is_feasible(policy):
    safe, before = shifted(policy, -100.0, 500), shifted(policy, -100.0, 0)
    np.testing.assert_array_equal(*(p.sample_rows(OBS, np.random.default_rng(2)) for p in (safe, before)))
    np.testing.assert_array_equal(safe.mean(OBS), before.mean(OBS))


def test_rows_of_both_kinds_do_not_disturb_each_other(policy):
    middle = float(np.median(policy.unsafety(OBS, policy.sample_rows(OBS, np.random.default_rng(2))[:, None])))
    mixed, before = shifted(policy, -middle, 500), shifted(policy, -middle, 0)
    rows, alone = (p.sample_rows(OBS, np.random.default_rng(2)) for p in (mixed, before))
    lost = before.unsafety(OBS, alone[:, None])[:, 0] > 0.0
    assert 0 < lost.sum() < len(OBS)
    np.testing.assert_array_equal(rows[~lost], alone[~lost])
    assert (rows[lost] != alone[lost]).any(axis=1).all()


def test_nan_in_gives_nan_out(policy):
    obs = OBS.copy()
    obs[2, 1] = np.nan
    action = policy.mean(obs)
    assert np.isnan(action[2]).all()
    assert np.isfinite(np.delete(action, 2, axis=0)).all()


def test_round_trip_by_kind(policy):
    again = make_policy(policy.arrays(), policy.meta(), NORMALISER)
    assert isinstance(again, DiffusionPolicy)
    assert again.meta() == policy.meta()
    np.testing.assert_array_equal(again.mean(OBS), policy.mean(OBS))
    policy.arrays()["beta"][:] = 0.5  # a copy: nothing changes
    assert policy.arrays()["beta"][0] < 0.3


def test_mish_equals_torch_also_far_out():
    x = np.array([-100.0, -5.0, -0.3, 0.0, 2.0, 19.0, 21.0, 300.0], np.float32)
    np.testing.assert_allclose(mish(x), torch.nn.functional.mish(torch.from_numpy(x)).numpy(), rtol=1e-5, atol=1e-30)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kind": "gaussian_policy"}, "meta kind"),
        ({"steps": 0}, "meta steps is 0"),
        ({"candidates": True}, "meta candidates is True"),
        ({"wide_candidates": 0}, "meta wide_candidates is 0"),
        ({"time_features": 7}, "an even number"),
        ({"selector_hidden": []}, "selector_hidden"),
        ({"width": 25}, "has shape"),
        ({"colour": 1}, "colour"),
    ],
)
def test_wrong_descriptions_are_refused(policy, change, message):
    with pytest.raises(ValueError, match=message):
        DiffusionPolicy(policy.arrays(), policy.meta() | change, NORMALISER)


def test_wrong_arrays_are_refused(policy):
    arrays = policy.arrays()
    with pytest.raises(ValueError, match="leave_bias"):
        DiffusionPolicy({name: a for name, a in arrays.items() if name != "leave_bias"}, policy.meta())
    with pytest.raises(ValueError, match="non-finite"):
        DiffusionPolicy(arrays | {"leave_bias": np.full(C, np.nan)}, policy.meta())
    with pytest.raises(ValueError, match="beta"):
        DiffusionPolicy(arrays | {"beta": np.ones(T)}, policy.meta())
    with pytest.raises(ValueError, match="normaliser"):
        DiffusionPolicy(arrays, policy.meta(), Normaliser([0.0], [1.0]))


@pytest.mark.parametrize("obs", [np.zeros(O + 1), np.zeros((2, O + 1)), np.zeros((1, 1, O))])
def test_misshapen_observations_are_refused(policy, obs):
    with pytest.raises(ValueError, match="obs has shape"):
        policy.mean(obs)


def test_one_observation_or_rows_but_not_the_other(policy):
    with pytest.raises(ValueError, match="one observation"):
        policy.sample(OBS, 1, np.random.default_rng(0))
    with pytest.raises(ValueError, match="observations of shape"):
        policy.sample_rows(OBS[0], np.random.default_rng(0))
