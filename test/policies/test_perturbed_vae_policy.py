"""BCQ's policy in numpy: equal to torch, picks by its critics, stays within its bounds; refuses what is wrong."""

import json

import numpy as np
import pytest
import torch

from safe_rl_ros.algorithms.offline import OFFLINE_ALGORITHMS
from safe_rl_ros.algorithms.offline.critic_learner import joined
from safe_rl_ros.inference import Normaliser
from safe_rl_ros.policies import Policy, make_policy
from safe_rl_ros.policies.perturbed_vae import PerturbedVaePolicy

OBS_DIM, ACT_DIM, CANDIDATES = 3, 2, 12
OBS = np.random.default_rng(0).standard_normal((7, OBS_DIM)).astype(np.float32)
NORMALISER = Normaliser([0.5, -1.0, 0.0], [1.0, 2.0, 0.5])
SIZES = {"hidden": (16, 12), "vae_hidden": (14,), "test_actions": CANDIDATES, "perturbation": 0.2}


def made(name="bcq"):
    """Return a learner with no bias of 0 and no scale of 1, which could hide a mistake."""
    config, constructor = OFFLINE_ALGORITHMS[name]
    learner = constructor(config(**SIZES), OBS_DIM, ACT_DIM, 0)
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for network in learner._networks.values():
            for parameter in network.parameters():
                parameter += 0.3 * torch.randn(parameter.shape, generator=generator)
    learner.normaliser = NORMALISER
    return learner


@pytest.fixture(params=["bcq", "bcq_lag"])
def learner(request):
    return made(request.param)


def in_torch(learner, obs, latent):
    """Return candidates (N, C) and scores (N,) of one observation as torch computes them."""
    state = torch.from_numpy(NORMALISER(obs))[None]
    with torch.no_grad():
        action = learner.candidates(learner.perturbation, state, torch.from_numpy(latent)[:, None])
        joint = joined(state, action)
        score = learner.critics(joint)[0]
        if hasattr(learner, "cost_critics"):
            score = score - learner.multiplier() * learner.cost_critics(joint)[0]
    return action[:, 0].numpy(), score.numpy()


def test_candidates_and_scores_equal_torch(learner):
    latent = np.random.default_rng(1).normal(scale=0.6, size=(9, 2 * ACT_DIM)).astype(np.float32)
    for obs in OBS:
        action, score = learner.policy().candidates(obs, latent)
        expected_action, expected_score = in_torch(learner, obs, latent)
        np.testing.assert_allclose(action, expected_action, atol=2e-6)
        np.testing.assert_allclose(score, expected_score, rtol=2e-5, atol=2e-5)


def test_mean_is_the_best_candidate_of_torch_too(learner):
    policy = learner.policy()
    latent = policy.arrays()["latent"]
    assert latent.shape == (CANDIDATES, 2 * ACT_DIM)
    together = policy.mean(OBS)
    assert together.shape == (7, ACT_DIM)
    picked = set()
    for obs, row in zip(OBS, together, strict=True):
        action, score = in_torch(learner, obs, latent)
        np.testing.assert_allclose(row, action[score.argmax()], atol=2e-6)
        assert policy.mean(obs).tolist() == row.tolist()  # bit for bit, alone or among others
        picked.add(int(score.argmax()))
    assert len(picked) > 1


def test_a_sample_is_the_best_of_new_candidates_and_more_come_in_order(learner):
    policy, obs = learner.policy(), OBS[0]
    latent = np.random.default_rng(5).standard_normal((CANDIDATES, 2 * ACT_DIM), dtype=np.float32)
    action, score = in_torch(learner, obs, latent)
    np.testing.assert_allclose(policy.sample(obs, 1, np.random.default_rng(5))[0], action[score.argmax()], atol=2e-6)
    five = policy.sample(obs, 5, np.random.default_rng(5))
    np.testing.assert_allclose(five, action[np.argsort(-score)[:5]], atol=2e-6)
    many = policy.sample(obs, 40, np.random.default_rng(6))
    assert many.shape == (40, ACT_DIM)
    assert len(np.unique(many, axis=0)) == 40
    assert many.dtype == np.float32


def test_no_candidate_is_moved_beyond_the_bound():
    learner = made()
    still = PerturbedVaePolicy(learner.policy().arrays(), learner.policy().meta() | {"bound": 0.0}, NORMALISER)
    latent = np.random.default_rng(2).standard_normal((200, 2 * ACT_DIM), dtype=np.float32)
    moved, plain = learner.policy().candidates(OBS[1], latent)[0], still.candidates(OBS[1], latent)[0]
    assert 0.01 < np.abs(moved - plain).max() <= 0.2 + 1e-6
    assert np.abs(moved).max() <= 1.0


def test_latents_are_clipped():
    policy = made().policy()
    far = np.full((1, 2 * ACT_DIM), 9.0, np.float32)
    assert policy.candidates(OBS[0], far)[0].tolist() == policy.candidates(OBS[0], far / 18.0)[0].tolist()


def test_round_trip_by_its_kind(learner):
    policy: Policy = learner.policy()
    again = make_policy(policy.arrays(), json.loads(json.dumps(policy.meta())), policy.normaliser)
    assert isinstance(again, PerturbedVaePolicy)
    assert again.meta() == policy.meta()
    assert again.mean(OBS).tolist() == policy.mean(OBS).tolist()
    assert all(array.dtype == np.float32 for array in again.arrays().values())


def test_nan_is_answered_with_nan():
    spoiled = OBS[:2].copy()
    spoiled[0, 1] = np.nan
    answer = made().policy().mean(spoiled)
    assert np.isnan(answer[0]).all()
    assert np.isfinite(answer[1]).all()


def without(name):
    return lambda arrays, meta: arrays.pop(name)


def misshapen(arrays, meta):
    arrays["decoder.bias_0"] = np.zeros(3, np.float32)


def not_finite(arrays, meta):
    arrays["critic_weight"] = np.array([np.nan], np.float32)


def setting(**values):
    return lambda arrays, meta: meta.update(values)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (without("latent"), "'latent' is missing"),
        (without("critic.weight_1"), "'critic.weight_1' is missing"),
        (misshapen, r"'decoder.bias_0' has shape \(3,\), expected \(14,\)"),
        (not_finite, "'critic_weight' holds 1 non-finite"),
        (lambda arrays, meta: arrays.update(extra=np.zeros(1)), r"unknown array\(s\) \['extra'\]"),
        (setting(kind="cem"), "kind is 'cem', expected 'perturbed_vae'"),
        (setting(candidates=0), "candidates is 0, expected a positive integer"),
        (setting(bound=float("nan")), "bound is nan, expected a finite number"),
        (setting(critic_hidden=[]), r"critic_hidden is \[\], expected a list"),
        (setting(more=1), r"missing or unknown key\(s\) \['more'\]"),
    ],
)
def test_what_is_wrong_is_named(damage, message):
    policy = made().policy()
    arrays, meta = policy.arrays(), policy.meta()
    damage(arrays, meta)
    with pytest.raises(ValueError, match=message):
        PerturbedVaePolicy.from_arrays(arrays, meta)


def test_wrong_observations_and_normalisers_are_refused():
    policy = made().policy()
    with pytest.raises(ValueError, match=r"obs has shape \(2,\), expected \(3,\) or \(B, 3\)"):
        policy.mean(np.zeros(2))
    with pytest.raises(ValueError, match=r"obs has shape \(7, 3\), expected \(3,\)"):
        policy.sample(OBS, 1, np.random.default_rng(0))
    with pytest.raises(ValueError, match="normaliser takes observations of length 1, not 3"):
        PerturbedVaePolicy(policy.arrays(), policy.meta(), Normaliser([0.0], [1.0]))
