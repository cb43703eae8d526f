"""CSC and Q-ensembles: thresholds, multiplier, the direction of the constraint, pessimism."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from safe_rl_ros.algorithms import CSC, CSCConfig, EpochStats, QEnsembles, QEnsemblesConfig
from safe_rl_ros.config import build
from safe_rl_ros.data.replay_buffer import ReplayBuffer
from safe_rl_ros.types import ConfigError

OBS_DIM, ACT_DIM = 3, 2
BOTH = pytest.mark.parametrize(("algorithm", "config"), [(CSC, CSCConfig), (QEnsembles, QEnsemblesConfig)])
QUICK = {"hidden": (8,), "critic_hidden": (8,), "critic_updates": 2, "critic_batch_size": 16, "value_epochs": 1}


def epoch(algorithm, make_rollout, episodes=10, failures=0, seed=0):
    rollout = make_rollout(algorithm.policy(), np.random.default_rng(seed))
    buffer = ReplayBuffer(500, OBS_DIM, ACT_DIM)
    buffer.add(rollout)
    return algorithm.update(rollout, buffer, EpochStats(episodes, failures))


@BOTH
def test_paper_threshold_follows_the_failures_of_the_last_epoch(algorithm, config, make_rollout):
    learner = algorithm(config(chi=0.2, **QUICK), OBS_DIM, ACT_DIM, 0)
    assert learner.threshold == 0.0  # first epoch: Vhat = chi
    metrics = epoch(learner, make_rollout, episodes=10, failures=1)
    assert metrics["failure_rate"] == pytest.approx(0.1)
    assert metrics["threshold"] == learner.threshold == pytest.approx(0.01 * 0.1)
    assert metrics["threshold_collapsed"] == 0.0
    metrics = epoch(learner, make_rollout, episodes=10, failures=2)
    assert learner.threshold == 0.0
    assert metrics["threshold_collapsed"] == 1.0
    epoch(learner, make_rollout, episodes=0, failures=0)  # no episode ended: the estimate stays
    assert learner._scalars["failure_rate"] == pytest.approx(0.2)


@BOTH
def test_fixed_threshold_and_decay(algorithm, config, make_rollout):
    learner = algorithm(
        config(threshold_mode="fixed", fixed_threshold=0.25, chi=0.1, failure_rate_decay=0.5, **QUICK),
        OBS_DIM,
        ACT_DIM,
        0,
    )
    metrics = epoch(learner, make_rollout, episodes=2, failures=2)
    assert learner.threshold == 0.25
    assert metrics["failure_rate"] == pytest.approx(0.5 * 0.1 + 0.5 * 1.0)
    assert metrics["threshold_collapsed"] == 0.0


@BOTH
def test_calibrated_mode_is_refused(algorithm, config):
    with pytest.raises(ConfigError, match="calibrated thresholds are not yet supported"):
        build(config, {"threshold_mode": "calibrated"}, "csc.yaml")


@BOTH
def test_multiplier_grows_on_failures_and_shrinks_without(algorithm, config, make_rollout):
    learner = algorithm(config(chi=0.1, multiplier_init=0.1, safety_gamma=0.9, **QUICK), OBS_DIM, ACT_DIM, 0)
    metrics = epoch(learner, make_rollout, episodes=10, failures=8)
    expected = 0.1 + 0.04 * (metrics["cost_advantage_step"] / 0.1 + 0.7)
    assert metrics["multiplier"] == pytest.approx(expected)
    assert metrics["multiplier"] > 0.1
    grown = metrics["multiplier"]
    assert epoch(learner, make_rollout, episodes=10, failures=0)["multiplier"] < grown


def risky_to_the_right(critic):
    """Set a critic to sigmoid(2 tanh(a_0)): risk grows with the first action axis."""
    with torch.no_grad():
        for parameter in critic.parameters():
            parameter.zero_()
        critic.net.weights[0][:, OBS_DIM, 0] = 1.0
        critic.net.weights[1][:, 0, 0] = 2.0


@BOTH
@pytest.mark.parametrize(("multiplier", "sign"), [(1.0, -1.0), (0.0, 1.0)])
def test_the_constraint_turns_the_policy_away_from_risk(algorithm, config, multiplier, sign, make_rollout):
    # The reward likes a_0, the critic fears it; the multiplier decides.
    learner = algorithm(config(multiplier_init=multiplier, critic_learning_rate=1e-9, **QUICK), OBS_DIM, ACT_DIM, 0)
    risky_to_the_right(learner.safety_critic)
    rollout = make_rollout(learner.policy(), np.random.default_rng(0), rows=400)
    rollout = replace(
        rollout,
        reward=rollout.action_proposed[:, 0],
        terminated=np.ones(400, bool),
        truncated=np.zeros(400, bool),
        intervened=np.zeros(400, bool),
    )
    buffer = ReplayBuffer(500, OBS_DIM, ACT_DIM)
    buffer.add(rollout)
    before = learner.policy().distribution(rollout.obs)[0][:, 0].mean()
    metrics = learner.update(rollout, buffer, EpochStats(10, 1))
    after = learner.policy().distribution(rollout.obs)[0][:, 0].mean()
    assert (after - before) * sign > 0.01
    assert metrics["cost_advantage_step"] * sign > 0.0
    assert abs(metrics["cost_advantage_rollout"]) < 0.02  # on-policy A_C has mean zero


def test_policy_actions_are_those_that_can_be_executed():
    learner = CSC(CSCConfig(init_log_std=1.0, **QUICK), OBS_DIM, ACT_DIM, 0)
    noise = torch.tensor([-9.0, 0.1, 9.0]).view(3, 1, 1).expand(3, 4, ACT_DIM)
    obs = torch.zeros(4, OBS_DIM)
    actions = learner._policy_actions(obs, noise)
    assert actions.shape == (3, 4, ACT_DIM)
    assert actions[:, 0, 0].tolist() == pytest.approx([-1.0, 0.1 * np.e, 1.0], abs=1e-6)


def test_the_target_critic_lags_behind(make_rollout):
    learner = CSC(CSCConfig(target_tau=0.25, **(QUICK | {"critic_updates": 1})), OBS_DIM, ACT_DIM, 0)
    start = learner.safety_critic.net.weights[0].detach().clone()
    assert learner.safety_critic_target.net.weights[0].equal(start)
    epoch(learner, make_rollout)
    moved = learner.safety_critic.net.weights[0].detach()
    torch.testing.assert_close(learner.safety_critic_target.net.weights[0], start + 0.25 * (moved - start))
    assert not moved.equal(start)


def test_ensemble_is_pessimistic_where_members_disagree():
    learner = QEnsembles(QEnsemblesConfig(members=5, std_factor=2.0), OBS_DIM, ACT_DIM, 0)
    obs, actions = np.ones(OBS_DIM, np.float32), np.zeros((1, ACT_DIM), np.float32)
    probabilities = learner.safety_critic(torch.from_numpy(obs)[None], torch.from_numpy(actions)).detach().numpy()[:, 0]
    assert probabilities.std() > 0.0
    expected = probabilities.mean() + 2.0 * probabilities.std()
    assert learner.critic().risk(obs, actions)[0] == pytest.approx(expected, rel=1e-5)
    worst = QEnsembles(QEnsemblesConfig(members=5, pessimism="max"), OBS_DIM, ACT_DIM, 0)
    assert worst.critic().risk(obs, actions)[0] == pytest.approx(probabilities.max(), rel=1e-5)
