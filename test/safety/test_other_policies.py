"""The filter's candidates and backup come from whatever kind of policy a bundle holds."""

from __future__ import annotations

import numpy as np
import pytest
from policy_fakes import KIND, TwoWays

from safe_rl_ros.bundle import load_bundle, save_bundle
from safe_rl_ros.inference import SafetyCritic
from safe_rl_ros.policies import POLICIES
from safe_rl_ros.safety.action_filter import ActionFilter, CommandLimits, FilterConfig, Observation, Proposal
from safe_rl_ros.types import Reason

NAMES = ("a", "b")


def right_is_safe():
    """Return a critic of risk near 1 where the first action is negative, near 0 where it is positive."""
    arrays = {"weight_0": np.zeros((1, 4, 2), np.float32), "bias_0": np.zeros((1, 2), np.float32)}
    arrays["weight_0"][0, 2, 0] = 30.0
    arrays |= {"weight_1": np.array([[[-20.0], [0.0]]], np.float32), "bias_1": np.zeros((1, 1), np.float32)}
    meta = {"kind": "safety_critic", "obs_dim": 2, "act_dim": 2, "hidden": [2], "members": 1}
    return SafetyCritic.from_arrays(arrays, meta | {"aggregate": "mean", "std_factor": 0.0})


@pytest.fixture
def bundle(tmp_path, monkeypatch):
    monkeypatch.setitem(POLICIES, KIND, TwoWays)
    keys = {"spec_hash": "0" * 64, "obs_names": NAMES}
    policy = TwoWays([[0.2, 0.1], [0.0, 0.3]])
    save_bundle(
        tmp_path / "bundle", policy, right_is_safe(), threshold=0.5, threshold_mode="fixed", algorithm="test", **keys
    )
    return load_bundle(tmp_path / "bundle", **keys)


def decide(bundle, **settings):
    limits = CommandLimits.from_axes(
        lower=-np.ones(2), upper=np.ones(2), rate=np.full(2, 1e6), stop=np.zeros(2), period_s=0.1
    )
    acting = ActionFilter(limits, FilterConfig(**settings), lambda values: values, lambda values: values)
    acting.set_model(bundle)
    acting.activate()
    obs = np.array([0.4, -0.2], np.float32)
    return acting.decide(100, Proposal(np.array([-0.8, 0.1]), 100, 100), Observation(obs, 100, 100)), obs


def test_a_vetoed_proposal_is_replaced_by_one_of_its_samples(bundle):
    decision, obs = decide(bundle)
    assert decision.reason is Reason.RESAMPLED
    np.testing.assert_allclose(np.abs(decision.executed - bundle.mean(obs)), 0.5, atol=1e-6)
    assert decision.executed[0] > 0.0


def test_its_mean_is_the_backup(bundle):
    decision, obs = decide(bundle, candidates="topic", fallback_mode="backup_policy")
    assert decision.reason is Reason.BACKUP
    np.testing.assert_allclose(decision.executed, bundle.mean(obs), atol=1e-6)
