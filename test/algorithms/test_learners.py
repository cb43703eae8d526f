"""What holds for every learner: ownership of parameters, exact resume, private randomness, all-or-nothing updates."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from safe_rl_ros.algorithms import ALGORITHMS, EpochStats, TRPOConfig, make_algorithm
from safe_rl_ros.config import StrictModel, build
from safe_rl_ros.data.replay_buffer import ReplayBuffer
from safe_rl_ros.types import ConfigError

OBS_DIM, ACT_DIM = 3, 2
STATS = EpochStats(episodes=10, failures=3)
SMALL = {
    "trpo": {"hidden": [8, 8], "value_epochs": 2},
    "csc": {"hidden": [8, 8], "value_epochs": 2, "critic_hidden": [8], "critic_updates": 7, "critic_batch_size": 32},
    "q_ensembles": {"hidden": [8], "value_epochs": 2, "critic_hidden": [8], "critic_updates": 7, "members": 3},
    **{name: {"hidden": [8, 8], "critic_epochs": 2, "critic_batch_size": 64} for name in ("trc", "cpo", "cppo")},
    **{name: {"hidden": [8], "batch_size": 400, "segment_length": 30} for name in ("offtrc", "offcpo")},
    **{
        name: {"hidden": [8, 8], "batch_size": 32, "learning_starts": 100, "gradient_steps_per_row": 0.052}
        for name in ("sac", "wcsac", "sqrl", "recovery_rl", "reachability")
    },
}
# Networks that an optimiser moves. An actor without one is moved by natural-gradient steps, a target by averaging.
OPTIMISED = {
    "trpo": {"value"},
    "csc": {"value", "safety_critic"},
    "q_ensembles": {"value", "safety_critic"},
    **{name: {"critics"} for name in ("trc", "cpo", "offtrc", "offcpo")},
    "cppo": {"critics", "actor"},
    "sac": {"actor", "reward_critics", "temperature"},
    "wcsac": {"actor", "reward_critics", "temperature", "cost_critics", "multiplier"},
    "sqrl": {"actor", "reward_critics", "temperature", "safety_critic", "multiplier"},
    "recovery_rl": {"actor", "reward_critics", "temperature", "safety_critic", "recovery_actor"},
    "reachability": {"actor", "reward_critics", "temperature", "safety_critic", "safety_actor", "multiplier"},
}


def small(name, seed=0):
    return make_algorithm(build(ALGORITHMS[name][0], {"name": name} | SMALL[name], "test"), OBS_DIM, ACT_DIM, seed)


def run_epoch(algorithm, buffer, make_rollout, epoch):
    rollout = make_rollout(algorithm.policy(), np.random.default_rng(epoch))
    buffer.add(rollout)
    return algorithm.update(rollout, buffer, STATS)


@pytest.fixture
def buffer():
    return ReplayBuffer(500, OBS_DIM, ACT_DIM)


@pytest.fixture(params=ALGORITHMS)
def name(request):
    return request.param


def test_every_network_changes_in_an_update_and_metrics_are_finite(name, buffer, make_rollout):
    algorithm = small(name)
    before = algorithm.state_dict()
    metrics = run_epoch(algorithm, buffer, make_rollout, 0)
    after = algorithm.state_dict()
    unchanged = [k for k in before if k.startswith("network.") and before[k].equal(after[k])]
    assert unchanged == []
    assert all(isinstance(v, float) and np.isfinite(v) for v in metrics.values())
    if "line_search_accepted" in metrics:
        assert metrics["line_search_accepted"] == 1.0
        assert 0.0 < metrics["kl"] <= 0.01


def test_each_optimizer_owns_exactly_its_network(name):
    algorithm = small(name)
    assert algorithm._optimizers.keys() == OPTIMISED[name]
    for key, optimizer in algorithm._optimizers.items():
        owned = [id(p) for group in optimizer.param_groups for p in group["params"]]
        assert owned == [id(p) for p in algorithm._networks[key].parameters()]
        assert algorithm._networks[key] is getattr(algorithm, key)


def test_three_epochs_equal_one_saved_loaded_and_two_more(name, make_rollout):
    def fresh():
        return small(name), ReplayBuffer(500, OBS_DIM, ACT_DIM)

    whole, whole_buffer = fresh()
    for epoch in range(3):
        run_epoch(whole, whole_buffer, make_rollout, epoch)

    first, first_buffer = fresh()
    run_epoch(first, first_buffer, make_rollout, 0)
    saved, rows = first.state_dict(), first_buffer.arrays()
    resumed = small(name, seed=99)
    resumed.load_state_dict(saved)
    buffer = ReplayBuffer.from_arrays(rows, capacity=500, obs_dim=OBS_DIM, act_dim=ACT_DIM)
    assert resumed.threshold == first.threshold
    for epoch in (1, 2):
        run_epoch(resumed, buffer, make_rollout, epoch)

    expected, actual = whole.state_dict(), resumed.state_dict()
    assert expected.keys() == actual.keys()
    assert [k for k in expected if not expected[k].equal(actual[k])] == []


def test_global_randomness_is_not_touched_and_seeds_matter(name, buffer, make_rollout):
    torch_before, numpy_before = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    one = small(name)
    run_epoch(one, buffer, make_rollout, 0)
    torch.manual_seed(1234)
    two, other = small(name), small(name, seed=1)
    again = ReplayBuffer(500, OBS_DIM, ACT_DIM)
    run_epoch(two, again, make_rollout, 0)
    torch.set_rng_state(torch_before)
    assert (np.random.get_state()[1] == numpy_before).all()  # noqa: NPY002
    a, b = one.state_dict(), two.state_dict()
    assert all(a[k].equal(b[k]) for k in a)
    assert not a["network.actor.net.weights.0"].equal(other.state_dict()["network.actor.net.weights.0"])


def test_global_torch_state_is_left_alone(name, buffer, make_rollout):
    before = torch.get_rng_state()
    run_epoch(small(name), buffer, make_rollout, 0)
    assert torch.get_rng_state().equal(before)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"reward": np.full(200, np.nan, np.float32)}, "rollout.reward holds NaN or infinity in 200 row"),
        ({"obs": np.zeros((200, 4), np.float32)}, r"rollout.obs has shape \(200, 4\)"),
        ({"truncated": np.zeros(200, bool), "terminated": np.zeros(200, bool)}, "ends inside an episode"),
    ],
)
def test_a_bad_rollout_is_refused_and_nothing_changes(name, buffer, make_rollout, change, message):
    algorithm = small(name)
    good = make_rollout(algorithm.policy(), np.random.default_rng(0))
    buffer.add(good)
    before = algorithm.state_dict()
    with pytest.raises(ValueError, match=message):
        algorithm.update(replace(good, **change), buffer, STATS)
    after = algorithm.state_dict()
    assert all(before[k].equal(after[k]) for k in before)


def test_an_update_that_diverges_is_undone(name, buffer, make_rollout, monkeypatch):
    algorithm = small(name)
    before = algorithm.state_dict()

    network = sorted(OPTIMISED[name])[0]
    learn = algorithm._learn

    def poisoned(*epoch):
        metrics = learn(*epoch)
        with torch.no_grad():
            next(getattr(algorithm, network).parameters()).fill_(float("nan"))
        return metrics

    monkeypatch.setattr(algorithm, "_learn", poisoned)
    with pytest.raises(FloatingPointError, match=rf"{network}\.\S+ non-finite"):
        run_epoch(algorithm, buffer, make_rollout, 0)
    after = algorithm.state_dict()
    assert all(before[k].equal(after[k]) for k in before)


def test_bad_state_is_refused_before_anything_is_written(name):
    algorithm = small(name)
    good = algorithm.state_dict()
    key = f"network.{sorted(OPTIMISED[name])[0]}.net.biases.0"
    other = good[key].new_zeros(9)
    for state, message in (
        ({k: v for k, v in good.items() if k != key}, key),
        (good | {"surprise": torch.zeros(1)}, "surprise"),
        (good | {key: other}, r"biases.0 is torch.float32 of shape \(9,\), expected .* \(.*8,?\)"),
        (good | {key: good[key].double()}, "is torch.float64"),
    ):
        with pytest.raises(ValueError, match=message):
            algorithm.load_state_dict({k: v + 1 if v.is_floating_point() else v for k, v in state.items()})
    after = algorithm.state_dict()
    assert all(good[k].equal(after[k]) for k in good)


def test_state_is_a_copy(name):
    algorithm = small(name)
    for tensor in algorithm.state_dict().values():
        tensor.zero_()
    assert algorithm.state_dict()["network.actor.net.weights.0"].abs().sum() > 0


def test_configs_are_strict_and_described(name):
    config = ALGORITHMS[name][0]
    for field, info in config.model_fields.items():
        assert info.description, field
        assert info.description.endswith("."), field
    with pytest.raises(ConfigError, match="unknown key"):
        build(config, {"gama": 0.9}, "test")
    with pytest.raises(ConfigError, match=r"gamma = 1\.0"):
        build(config, {"gamma": 1.0}, "test")
    with pytest.raises(ConfigError, match="expected at least one positive width"):
        build(config, {"hidden": [64, 0]}, "test")
    with pytest.raises(ConfigError, match="name"):
        build(config, {"name": "other"}, "test")


def test_the_table_names_each_algorithm():
    for name, (config, _) in ALGORITHMS.items():
        assert config().name == name


def test_unknown_config_class():
    class Other(StrictModel):
        pass

    with pytest.raises(ConfigError, match="Other is no algorithm's configuration"):
        make_algorithm(Other(), 1, 1, 0)


def test_base_has_no_critic():
    trpo = make_algorithm(TRPOConfig(), OBS_DIM, ACT_DIM, 0)
    assert trpo.critic() is None
    assert trpo.threshold == 1.0
