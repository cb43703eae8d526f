"""One action proposed with any kind of policy, and the table of kinds."""

from __future__ import annotations

import numpy as np
import pytest
from policy_fakes import TwoWays

from safe_rl_ros.inference import GaussianPolicy
from safe_rl_ros.policies import POLICIES, HasDensity, SamplesRows, make_policy, propose

WEIGHT = np.array([[0.4, -0.3], [0.2, 0.9], [-0.5, 0.1]], dtype=np.float32)
OBS = np.random.default_rng(0).standard_normal((5, 3)).astype(np.float32)


def gaussian():
    arrays = {
        "weight_0": WEIGHT,
        "bias_0": np.zeros(2),
        "weight_1": np.eye(2),
        "bias_1": np.zeros(2),
        "log_std": np.log([0.5, 0.25]),
    }
    meta = {"kind": "gaussian_policy", "obs_dim": 3, "act_dim": 2, "hidden": [2], "state_dependent_std": False}
    return GaussianPolicy.from_arrays(arrays, meta)


@pytest.mark.parametrize("obs", [OBS, OBS[0]])
def test_a_gaussian_proposes_its_mean_plus_its_noise(obs):
    policy = gaussian()
    mean, std, action = propose(policy, obs, np.random.default_rng(3))
    noise = np.random.default_rng(3).standard_normal(mean.shape).astype(np.float32)
    np.testing.assert_array_equal(mean, np.tanh(np.tanh(obs @ WEIGHT)))
    np.testing.assert_allclose(std, np.broadcast_to(np.float32([0.5, 0.25]), mean.shape), rtol=1e-6)
    np.testing.assert_array_equal(action, mean + std * noise)
    still = propose(policy, obs, None)
    np.testing.assert_array_equal(still.action, policy.mean(obs))
    np.testing.assert_array_equal(policy.mean(obs), policy.distribution(obs)[0])


def test_another_kind_proposes_one_sample_per_row_of_unknown_density():
    policy = TwoWays(WEIGHT)
    mean, std, action = propose(policy, OBS, np.random.default_rng(3))
    np.testing.assert_allclose(np.abs(action - np.tanh(OBS @ WEIGHT)), 0.5, atol=1e-6)
    assert len(np.unique(np.sign(action - policy.mean(OBS)), axis=0)) > 1  # the rows do not share their chance
    np.testing.assert_array_equal(mean, action)
    np.testing.assert_array_equal(std, np.zeros((5, 2)))
    alone = propose(policy, OBS[0], np.random.default_rng(3))
    np.testing.assert_array_equal(alone.action, action[0])
    np.testing.assert_array_equal(propose(policy, OBS, None).action, policy.mean(OBS))
    assert not isinstance(policy, HasDensity)


def test_a_kind_that_draws_many_rows_at_once_is_asked_to():
    class Rows(TwoWays):
        def sample_rows(self, obs, rng):
            return np.full((len(obs), 2), 0.25, np.float32)

    policy = Rows(WEIGHT)
    assert isinstance(policy, SamplesRows)
    np.testing.assert_array_equal(propose(policy, OBS, np.random.default_rng(0)).action, np.full((5, 2), 0.25))
    single = propose(policy, OBS[0], np.random.default_rng(0)).action
    np.testing.assert_allclose(np.abs(single - policy.mean(OBS[0])), 0.5, atol=1e-6)


@pytest.mark.parametrize("kind", ["oracle", None, 3, ["gaussian_policy"]])
def test_an_unknown_kind_is_refused(kind):
    with pytest.raises(ValueError, match=r"this version knows .*gaussian_policy"):
        make_policy({}, {"kind": kind})


def test_a_known_kind_is_rebuilt():
    policy = gaussian()
    again = make_policy(policy.arrays(), policy.meta())
    np.testing.assert_array_equal(again.mean(OBS), policy.mean(OBS))
    assert set(POLICIES) >= {"gaussian_policy", "diffusion", "perturbed_vae", "cem"}
