"""What every soft actor-critic learner does with its rows: targets, time limits, budgets of steps, whose action."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from off_policy_helpers import STATS, buffer_of, make, one_state, rows_of, train

from safe_rl_ros.algorithms.off_policy import PositiveNumber, descend, distribution
from safe_rl_ros.algorithms.state import adam
from safe_rl_ros.types import ConfigError

OFF_POLICY = ("sac", "wcsac", "sqrl", "recovery_rl", "reachability")
PLAIN = {"init_temperature": 1e-6, "critic_learning_rate": 1e-2, "target_tau": 0.05, "gamma": 0.8}


@pytest.fixture(params=OFF_POLICY)
def name(request):
    return request.param


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.mark.parametrize(("end", "expected"), [("truncated", 5.0), ("terminated", 1.0)])
def test_a_time_limit_bootstraps_and_a_true_end_does_not(rng, end, expected):
    # Reward 1 for ever is 1 / (1 - .8); reward 1 and the end is 1.
    batch = one_state(rng, reward=1.0, **{end: True})
    learner = make("sac", **PLAIN)
    train(learner, batch, 500)
    value = learner.reward_critics(torch.tensor([[0.0, 0.3]])).flatten()
    assert value.tolist() == pytest.approx([expected, expected], rel=0.05)


def test_targets_are_a_lagging_average(name, rng):
    learner = make(name, target_tau=0.1)
    before = learner.state_dict()
    batch = one_state(rng, reward=1.0, cost=1.0, margin=-1.0)
    train(learner, batch, 1)
    after = learner.state_dict()
    pairs = [(k, k.replace("_target.", ".")) for k in after if k.startswith("network.") and "_target." in k]
    assert len(pairs) >= 6
    for slow, fast in pairs:
        assert not after[fast].equal(before[fast])
        torch.testing.assert_close(after[slow], 0.9 * before[slow] + 0.1 * after[fast])


def test_targets_start_equal_and_are_no_views(name):
    learner = make(name)
    for key in [k for k in learner._networks if k.endswith("_target")]:
        online = learner._networks[key.removesuffix("_target")]
        for slow, fast in zip(learner._networks[key].parameters(), online.parameters(), strict=True):
            assert slow.equal(fast)
            assert slow.data_ptr() != fast.data_ptr()


def test_no_step_before_learning_starts(name, rng):
    learner = make(name, learning_starts=300)
    batch = one_state(rng, rows=200, truncated=True)
    before = learner.state_dict()
    buffer = buffer_of(replace(batch))
    assert learner.update(batch, buffer, STATS) == {"gradient_steps": 0.0}
    after = learner.state_dict()
    assert all(before[k].equal(after[k]) for k in before if k.startswith(("network.", "adam.")))
    assert learner._scalars["owed_steps"] == 0.0


def test_steps_follow_the_rows_and_fractions_are_owed(rng):
    learner = make("sac", gradient_steps_per_row=0.3)
    batch = one_state(rng, rows=5, truncated=True)
    steps = [learner.update(batch, buffer_of(batch), STATS)["gradient_steps"] for _ in range(4)]
    assert steps == [1.0, 2.0, 1.0, 2.0]  # 1.5 rows owed each time


def test_distribution_is_the_exported_policys(name):
    learner = make(name, 3, 2)
    obs = np.random.default_rng(1).normal(size=(7, 3)).astype(np.float32)
    mean, log_std = distribution(learner.actor, torch.from_numpy(obs))
    expected_mean, expected_std = learner.policy().distribution(obs)
    np.testing.assert_allclose(mean.detach().numpy(), expected_mean, atol=1e-6)
    np.testing.assert_allclose(log_std.detach().exp().numpy(), expected_std, rtol=1e-5)


def test_critics_learn_from_the_executed_action_and_recovery_rls_task_from_the_proposed(name):
    # The filter replaced proposals of .8 by -.5: the reward critics of Recovery RL are told of .8, all others of -.5.
    batch = rows_of(
        np.zeros((8, 1)), np.full((8, 1), -0.5), np.zeros((8, 1)), proposed=np.full((8, 1), 0.8), intervened=True
    )
    learner = make(name)
    minibatch = next(learner._minibatches(buffer_of(batch), 1))
    assert minibatch.joint[:, 1].tolist() == pytest.approx([-0.5] * 64)
    task = 0.8 if name == "recovery_rl" else -0.5
    assert minibatch.task_joint[:, 1].tolist() == pytest.approx([task] * 64)


def test_minibatches_keep_rows_together(name):
    index = np.arange(40.0)
    batch = rows_of(
        index[:, None], np.zeros((40, 1)), index[:, None] + 1.0, reward=index, cost=2 * index, margin=3 * index
    )
    learner = make(name, batch_size=16)
    for minibatch in learner._minibatches(buffer_of(batch), 53):
        drawn = minibatch.obs[:, 0]
        for column, factor in ((minibatch.reward, 1.0), (minibatch.cost, 2.0), (minibatch.margin, 3.0)):
            torch.testing.assert_close(column, factor * drawn)
        torch.testing.assert_close(minibatch.next_obs[:, 0], drawn + 1.0)
        torch.testing.assert_close(minibatch.joint[:, 0], drawn)
        assert minibatch.noise.shape[1:] == (16, 1)


def test_descend_moves_the_named_network_only(rng):
    learner = make("sac")
    joint = torch.from_numpy(rng.normal(size=(4, 2)).astype(np.float32)).requires_grad_()
    mean, _ = distribution(learner.actor, joint[:, :1])
    loss = learner.reward_critics(torch.cat((joint[:, :1], mean), dim=1)).sum()
    before = learner.state_dict()
    descend(adam(learner.actor, 1e-2), loss)
    after = learner.state_dict()
    changed = {k.split(".")[1] for k in before if not before[k].equal(after[k])}
    assert changed == {"actor"}
    assert all(p.grad is None for p in learner.reward_critics.parameters())
    assert joint.grad is None


@pytest.mark.parametrize("fast", [True, False])
def test_matmul_precision_holds_for_the_update_alone(rng, fast, monkeypatch):
    learner, seen = make("sac", fast_matmul=fast), []
    step = learner._gradient_step

    def watched(batch):
        seen.append(torch.get_float32_matmul_precision())
        if len(seen) == 3:
            raise RuntimeError("stop")
        return step(batch)

    monkeypatch.setattr(learner, "_gradient_step", watched)
    with pytest.raises(RuntimeError, match="stop"):
        train(learner, one_state(rng), 4)
    assert seen == ["medium" if fast else "highest"] * 3
    assert torch.get_float32_matmul_precision() == "highest"


@pytest.mark.parametrize("softplus", [True, False])
def test_positive_numbers_start_where_told_and_stay_positive(softplus):
    number = PositiveNumber(0.7, softplus=softplus)
    assert number().item() == pytest.approx(0.7)
    with torch.no_grad():
        number.raw -= 20.0
    assert number().item() > 0.0
    with pytest.raises(ValueError, match=r"initial is 0\.0, expected a positive number"):
        PositiveNumber(0.0, softplus=softplus)


@pytest.mark.parametrize(("target_entropy", "grows"), [(3.0, True), (-3.0, False)])
def test_the_temperature_grows_exactly_while_the_entropy_is_below_its_target(rng, target_entropy, grows):
    learner = make("sac", target_entropy=target_entropy, temperature_learning_rate=1e-2)
    start = learner.temperature().item()
    assert start == pytest.approx(learner.config.init_temperature)
    metrics = train(learner, one_state(rng, terminated=True), 20)
    assert -3.0 < metrics["entropy"] < 3.0
    assert (learner.temperature().item() > start) == grows


def test_a_paid_entropy_spreads_the_policy_up_to_the_counted_std_and_not_beyond(rng):
    fast = {"actor_learning_rate": 1e-2, "init_temperature": 1.0, "target_entropy": 3.0}
    for start in (-2.0, 1.5):
        learner = make("sac", init_log_std=start, entropy_std=0.5, **fast)
        train(learner, one_state(rng, terminated=True), 300)
        assert learner.policy().distribution(np.zeros(1))[1][0] == pytest.approx(0.5, abs=0.1)


def test_cuda_where_there_is_none_is_a_config_error(name, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ConfigError, match="device is cuda"):
        make(name, device="cuda")
    assert make(name, device="auto").device.type == "cpu"
