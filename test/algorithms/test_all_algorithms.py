"""What holds for every algorithm of the table beyond one update: ownership, checkpoints, extreme numbers, exports."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from off_policy_helpers import make
from safetensors.torch import load, save
from test_learners import ACT_DIM, OBS_DIM, OPTIMISED, SMALL, STATS, run_epoch, small

from safe_rl_ros.algorithms import ALGORITHMS
from safe_rl_ros.bundle import component_hashes, export_bundle, load_bundle, save_bundle
from safe_rl_ros.config import build
from safe_rl_ros.data.replay_buffer import ReplayBuffer
from safe_rl_ros.types import ConfigError

NATURAL_STEP = {"trpo", "csc", "q_ensembles", "trc", "offtrc", "offcpo", "cpo"}
"""Algorithms whose actor moves by natural-gradient steps, so without an optimiser."""
AGGREGATES = {"csc": "mean", "q_ensembles": "mean_plus_std", "sqrl": "max", "recovery_rl": "max", "reachability": "max"}
"""What a learner's own risk is of its ensemble, by algorithm."""
KEYS = {"spec_hash": "0" * 64, "obs_names": [f"o{i}" for i in range(OBS_DIM)]}


@pytest.fixture
def buffer():
    return ReplayBuffer(500, OBS_DIM, ACT_DIM)


@pytest.fixture(params=ALGORITHMS)
def name(request):
    return request.param


@pytest.fixture
def trained(name, buffer, make_rollout):
    """A learner after two epochs."""
    algorithm = small(name)
    for epoch in range(2):
        run_epoch(algorithm, buffer, make_rollout, epoch)
    return algorithm


def same(one, other):
    return one.keys() == other.keys() and all(one[key].equal(other[key]) for key in one)


def test_table_of_small_settings_is_complete():
    assert SMALL.keys() == OPTIMISED.keys() == ALGORITHMS.keys()


VARIANCE = {"variance_form": "central", "surrogate_square": True}
MULTIPLIER = {"init_multiplier": 2.0, "multiplier_learning_rate": 1e-3}


@pytest.mark.parametrize(
    ("option", "value", "owners"),
    [
        *((option, value, {"trc", "offtrc"}) for option, value in VARIANCE.items()),
        *((option, value, {"wcsac", "sqrl", "reachability"}) for option, value in MULTIPLIER.items()),
    ],
)
def test_an_option_is_accepted_only_where_it_has_an_effect(name, option, value, owners):
    settings = {"name": name, option: value}
    if name in owners:
        assert getattr(build(ALGORITHMS[name][0], settings, "test"), option) == value
    else:
        with pytest.raises(ConfigError, match=option):
            build(ALGORITHMS[name][0], settings, "test")


def test_the_seed_alone_decides_the_first_weights(name):
    torch.manual_seed(5)
    torch_before, numpy_before = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    one = small(name, seed=3).state_dict()
    assert torch.get_rng_state().equal(torch_before)
    assert (np.random.get_state()[1] == numpy_before).all()  # noqa: NPY002
    torch.manual_seed(6)
    assert same(one, small(name, seed=3).state_dict())
    other = small(name, seed=4).state_dict()
    moved = [key for key in one if key.startswith("network.") and not one[key].equal(other[key])]
    assert any(key.startswith("network.actor.") for key in moved)


def test_optimisers_own_disjoint_parameters_and_every_network_is_moved_by_something(name):
    algorithm = small(name)
    owners: dict[int, str] = {}
    for key, network in algorithm._networks.items():
        for parameter in network.parameters():
            assert owners.setdefault(id(parameter), key) == key, f"{key} shares parameters with {owners[id(parameter)]}"
    for key, optimizer in algorithm._optimizers.items():
        assert {owners[id(p)] for group in optimizer.param_groups for p in group["params"]} == {key}
    left = set(algorithm._networks) - set(algorithm._optimizers)
    allowed = {f"{key}_target" for key in algorithm._networks} | ({"actor"} if name in NATURAL_STEP else set())
    assert left <= allowed
    # What a learner has as an attribute is what its state has: a network that is not in the state is lost on a resume.
    modules = {id(value) for value in vars(algorithm).values() if isinstance(value, torch.nn.Module)}
    assert modules == {id(network) for network in algorithm._networks.values()}


def test_targets_start_as_copies_and_share_nothing(name, trained):
    fresh = small(name)
    for key in (key for key in fresh._networks if key.endswith("_target")):
        fast = key.removesuffix("_target")
        first = zip(fresh._networks[key].parameters(), fresh._networks[fast].parameters(), strict=True)
        assert all(a.equal(b) and a.data_ptr() != b.data_ptr() for a, b in first)
        later = zip(trained._networks[key].parameters(), trained._networks[fast].parameters(), strict=True)
        assert not all(a.equal(b) for a, b in later)


def test_next_update_after_a_checkpoint_is_the_same_bit_for_bit(name, trained, buffer, make_rollout):
    stored = load(save({key: tensor.contiguous().clone() for key, tensor in trained.state_dict().items()}))
    resumed = small(name, seed=77)
    resumed.load_state_dict(stored)
    assert same(trained.state_dict(), resumed.state_dict())
    rows = buffer.arrays()
    again = ReplayBuffer.from_arrays(rows, capacity=500, obs_dim=OBS_DIM, act_dim=ACT_DIM)
    one = run_epoch(trained, buffer, make_rollout, 2)
    two = run_epoch(resumed, again, make_rollout, 2)
    assert one == two
    assert same(trained.state_dict(), resumed.state_dict())
    assert trained.threshold == resumed.threshold


def test_exports_are_snapshots_and_do_not_touch_the_learner(trained, buffer, make_rollout):
    before = trained.state_dict()
    policy, critic = trained.policy(), trained.critic()
    for array in policy.arrays().values():
        array[:] = 7.0
    assert same(before, trained.state_dict())
    kept = component_hashes(policy, critic, None)
    run_epoch(trained, buffer, make_rollout, 5)
    assert component_hashes(policy, critic, None) == kept
    assert component_hashes(trained.policy(), trained.critic(), None).policy != kept.policy


def grown(state):
    """Return a state with its networks' weights changed by a lot, as long training does."""
    noise = torch.Generator().manual_seed(1)
    return {
        key: tensor + 0.3 * torch.randn(tensor.shape, generator=noise) if key.startswith("network.") else tensor
        for key, tensor in state.items()
    }


def test_exports_answer_as_torch_does(name, trained):
    trained.load_state_dict(grown(trained.state_dict()))
    noise = torch.Generator().manual_seed(2)
    obs = torch.randn(40, OBS_DIM, generator=noise)
    action = 2.0 * torch.rand(40, ACT_DIM, generator=noise) - 1.0
    actors = [(trained.policy(), trained.actor)]
    if (recovery := trained.recovery()) is not None:
        actors.append(
            (recovery, next(v for k, v in trained._networks.items() if k in ("recovery_actor", "safety_actor")))
        )
    for policy, actor in actors:
        with torch.no_grad():
            mean, log_std = actor(obs)
        given_mean, given_std = policy.distribution(obs.numpy())
        np.testing.assert_allclose(given_mean, mean.numpy(), atol=2e-6)
        np.testing.assert_allclose(given_std, log_std.exp().numpy(), rtol=2e-5)
    critic = trained.critic()
    assert (critic is None) == (name not in AGGREGATES)
    if critic is not None:
        factor = getattr(trained.config, "std_factor", 0.0)
        with torch.no_grad():
            risk = trained.safety_critic.risk(obs, action, AGGREGATES[name], factor).numpy()
        np.testing.assert_allclose(critic.risk_rows(obs.numpy(), action.numpy()), risk, atol=5e-6)
        assert np.ptp(risk) > 0.01


@pytest.mark.parametrize("name", ["sqrl", "recovery_rl", "reachability"])
def test_of_several_safety_critics_the_most_pessimistic_is_exported(name):
    algorithm = make(name, OBS_DIM, ACT_DIM, safety_members=3)
    algorithm.load_state_dict(grown(algorithm.state_dict()))
    obs = torch.randn(30, OBS_DIM, generator=torch.Generator().manual_seed(2))
    action = torch.zeros(30, ACT_DIM)
    with torch.no_grad():
        each = algorithm.safety_critic(obs, action)
    assert len(each.argmax(dim=0).unique()) > 1
    risk = algorithm.critic().risk_rows(obs.numpy(), action.numpy())
    np.testing.assert_allclose(risk, each.amax(dim=0).numpy(), atol=5e-6)


@pytest.mark.parametrize("kind", ["safetensors", "onnx"])
def test_bundle_round_trip(name, trained, kind, tmp_path):
    trained.load_state_dict(grown(trained.state_dict()))
    policy, critic = trained.policy(), trained.critic()
    for role, actor in {"policy": policy, "recovery": trained.recovery()}.items():
        if actor is None:
            continue
        threshold = trained.threshold
        where = tmp_path / role
        save_bundle(
            where, actor, critic, threshold=threshold, threshold_mode="fixed", algorithm=name, kind=kind, **KEYS
        )
        export_bundle(where, tmp_path / f"{role}_other", kind="onnx" if kind == "safetensors" else "safetensors")
        obs = np.random.default_rng(0).normal(size=(6, OBS_DIM)).astype(np.float32)
        actions = np.random.default_rng(1).uniform(-1, 1, (9, ACT_DIM)).astype(np.float32)
        for path in (where, tmp_path / f"{role}_other"):
            bundle = load_bundle(path, **KEYS)
            assert bundle.component_hashes() == component_hashes(actor, critic, None)
            relu = "activation" in actor.meta() or (critic is not None and "activation" in critic.meta())
            assert bundle.manifest.format_version == (3 if relu else 2)
            for given, wanted in zip(bundle.policy.distribution(obs), actor.distribution(obs), strict=True):
                np.testing.assert_allclose(given, wanted, rtol=1e-4, atol=1e-5)
            assert (bundle.critic is None) == (critic is None)
            if critic is not None:
                assert bundle.threshold == threshold
                np.testing.assert_allclose(bundle.risk(obs[0], actions), critic.risk(obs[0], actions), atol=1e-5)


def test_default_networks_fit_into_a_bundle(name, tmp_path):
    """The widths of the papers, for as many observations as the largest task has."""
    config, constructor = ALGORITHMS[name]
    algorithm = constructor(build(config, {"name": name}, "test"), 62, ACT_DIM, 0)
    keys = {"spec_hash": "0" * 64, "obs_names": [f"o{i}" for i in range(62)]}
    save_bundle(
        tmp_path / "bundle",
        algorithm.policy(),
        algorithm.critic(),
        threshold=algorithm.threshold,
        threshold_mode="fixed",
        algorithm=name,
        kind="onnx",
        **keys,
    )
    assert load_bundle(tmp_path / "bundle", **keys).manifest.algorithm == name


def sign(rows):
    return np.where(np.arange(rows) % 2 == 0, 1.0, -1.0).astype(np.float32)


EXTREME = {
    "rewards": lambda rows: {"reward": 1e38 * sign(len(rows))},
    "costs": lambda rows: {"cost": np.full(len(rows), 1e38, np.float32)},
    "margins": lambda rows: {"margin": 1e38 * sign(len(rows))},
    "observations": lambda rows: {"obs": rows.obs * np.float32(1e37), "next_obs": rows.next_obs * np.float32(-1e37)},
    "proposals": lambda rows: {"action_proposed": rows.action_proposed * np.float32(1e37)},
}


@pytest.mark.parametrize("what", EXTREME)
@pytest.mark.filterwarnings("ignore:overflow encountered", "ignore:invalid value encountered")
def test_an_update_on_extreme_numbers_ends_finite_or_leaves_everything_as_it_was(trained, buffer, make_rollout, what):
    rollout = make_rollout(trained.policy(), np.random.default_rng(9))
    rollout = replace(rollout, **EXTREME[what](rollout))
    buffer.add(rollout)
    before = trained.state_dict()
    try:
        trained.update(rollout, buffer, STATS)
    except (FloatingPointError, ValueError):
        assert same(before, trained.state_dict())
    after = trained.state_dict()
    wild = [key for key, tensor in after.items() if tensor.is_floating_point() and not torch.isfinite(tensor).all()]
    assert wild == []
    # Whatever happened, the learner goes on with rows of this world.
    clean = ReplayBuffer(500, OBS_DIM, ACT_DIM)
    if np.isfinite(trained.policy().distribution(np.zeros(OBS_DIM))[0]).all():
        run_epoch(trained, clean, make_rollout, 3)


def test_rows_that_spoil_learning_leave_everything_as_it_was(name, trained, buffer, make_rollout):
    """NaN that gets past the checks of rollout and buffer, in what a learner of old rows draws from."""
    rollout = make_rollout(trained.policy(), np.random.default_rng(9))
    buffer.add(rollout)
    for column in ("obs", "next_obs", "reward"):
        buffer._rows[column][:] = np.nan
    before = trained.state_dict()
    if name in ("trpo", "trc", "cpo", "cppo"):  # learn from the newest rollout alone
        trained.update(rollout, buffer, STATS)
        assert not same(before, trained.state_dict())
        return
    with pytest.raises((FloatingPointError, ValueError)):
        trained.update(rollout, buffer, STATS)
    assert same(before, trained.state_dict())
