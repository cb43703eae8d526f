"""What holds for every learner of the first offline family: ownership, targets, exact resume, all or nothing."""

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from offline_worlds import (
    assert_global_randomness_plays_no_part,
    assert_resume_is_exact,
    assert_slow_copies_lag,
    attached,
    learner,
    noise_rows,
    one_state,
    same,
)
from other_device import OTHER, other_device

from safe_rl_ros.algorithms import base
from safe_rl_ros.algorithms.offline import OFFLINE_ALGORITHMS

OPTIMISED = {
    "bc": {"actor"},
    "bc_safe": {"actor"},
    "iql": {"actor", "critics", "value"},
    "awr": {"actor", "value"},
    "awac": {"actor", "critics"},
    "crr": {"actor", "critics"},
    "td3_bc": {"actor", "critics"},
    "sac_offline": {"actor", "critics", "temperature"},
    "cql": {"actor", "critics", "temperature"},
}
"""Networks that an optimiser moves; the others are slow copies."""
SLOW = {"awr": {"value"}, "crr": {"actor", "critics"}, "td3_bc": {"actor", "critics"}}
SETTINGS = {"bc_safe": {"cost_limit": 12.0}, "awr": {"refresh_interval": 3}}
CASES = {name: (name, {}) for name in OPTIMISED}
CASES |= {
    "sac_n": ("sac_offline", {"critics": 5}),
    "crr_binary_max": ("crr", {"weight": "binary", "advantage": "max"}),
    "cql_rho": ("cql", {"variant": "rho"}),
    "cql_eq1": ("cql", {"variant": "eq1", "backup_entropy": True}),
    "iql_state_std": ("iql", {"state_dependent_std": True}),
}


@pytest.fixture(params=CASES)
def case(request):
    return request.param


def make(case, seed=0, **settings):
    name, own = CASES[case]
    made = learner(name, 3, 2, seed, **SETTINGS.get(name, {}) | own | settings)
    made.attach(noise_rows(), 20)
    return made


def test_the_table_holds_every_name_of_the_family():
    assert OPTIMISED.keys() <= OFFLINE_ALGORITHMS.keys()
    for name in OPTIMISED:
        config, constructor = OFFLINE_ALGORITHMS[name]
        assert constructor(config(), 4, 2, 0).config == config(name=name)


def test_every_network_changes_and_each_optimiser_owns_exactly_its_network(case):
    name = CASES[case][0]
    algorithm = make(case)
    before = algorithm.state_dict()
    metrics = algorithm.fit(3)  # AWR renews its copy and TD3+BC moves its actor within three steps
    after = algorithm.state_dict()
    assert [key for key in before if key.startswith("network.") and before[key].equal(after[key])] == []
    assert algorithm._optimizers.keys() == OPTIMISED[name]
    for key, optimizer in algorithm._optimizers.items():
        owned = [id(p) for group in optimizer.param_groups for p in group["params"]]
        assert owned == [id(p) for p in algorithm._networks[key].parameters()]
    slow = {"critics"} & OPTIMISED[name] | SLOW.get(name, set())
    assert algorithm._networks.keys() == OPTIMISED[name] | {f"{key}_target" for key in slow}
    modules = {id(value) for value in vars(algorithm).values() if isinstance(value, torch.nn.Module)}
    assert modules == {id(network) for network in algorithm._networks.values()}
    assert metrics
    assert all(isinstance(value, float) and np.isfinite(value) for value in metrics.values())


def test_a_step_leaves_no_gradient_on_networks_it_only_looks_through(case):
    algorithm = make(case)
    algorithm.fit(2)
    assert all(p.grad is None for key, n in algorithm._networks.items() if "_target" in key for p in n.parameters())
    critics = algorithm._networks.get("critics")
    if critics is not None:
        kept = [p.grad.clone() for p in critics.parameters()]
        rows = algorithm.data.rows(torch.arange(64))
        if hasattr(algorithm, "_actor_step"):
            noise = torch.randn(getattr(algorithm, "_value_samples", 1), 64, 2)
            arguments = {"awac": (noise,), "crr": (noise,), "td3_bc": ()}.get(CASES[case][0], (noise[0],))
            algorithm._actor_step(rows, *arguments)
        assert all(p.grad.equal(before) for p, before in zip(critics.parameters(), kept, strict=True))


@pytest.mark.parametrize("case", [case for case in CASES if "target_tau" in type(make(case).config).model_fields])
def test_slow_copies_lag_by_their_share(case):
    assert_slow_copies_lag(make(case, target_tau=0.1), 0.1, warm_up=1)  # TD3+BC's copies move at every second step


def test_resume_is_bit_exact_whatever_the_rounds(case):
    assert_resume_is_exact(partial(make, case), 5)


def test_global_randomness_is_neither_read_nor_changed(case):
    assert_global_randomness_plays_no_part(partial(make, case))


READ = [
    (case, column)
    for case in CASES
    for column in ("obs", "action", "reward", "next_obs")
    if column in ("obs", "action") or not case.startswith("bc")
]


@pytest.mark.parametrize(("case", "column"), READ)
def test_nan_that_reaches_a_step_undoes_the_whole_round(case, column):
    name = CASES[case][0]
    algorithm = make(case)
    algorithm.fit(3)
    before, clean = algorithm.state_dict(), algorithm.data
    spoiled = torch.full_like(getattr(clean, column), torch.nan)
    if name == "awr":
        algorithm._returns = None  # derived from the data before
    algorithm.data = replace(clean, **{column: spoiled})
    with pytest.raises(FloatingPointError):
        algorithm.fit(4)
    assert same(before, algorithm.state_dict())
    algorithm.data = clean
    again = make(case)
    again.load_state_dict(before)
    assert algorithm.fit(4) == again.fit(4)


def test_policy_takes_observations_as_the_data_have_them(case):
    algorithm = make(case)
    algorithm.attach(replace(noise_rows(), obs=noise_rows().obs * 9.0 + 4.0), 20)
    algorithm.fit(3)
    obs = np.random.default_rng(3).normal(4.0, 9.0, (5, 3)).astype(np.float32)
    mean, std = algorithm.policy().distribution(obs)
    with torch.no_grad():
        expected, log_std = algorithm.actor(torch.from_numpy(algorithm.normaliser(obs)))
    np.testing.assert_allclose(mean, expected.numpy(), atol=2e-6)
    np.testing.assert_allclose(std, log_std.exp().expand_as(expected).numpy(), rtol=1e-5)
    kept = {key: value.copy() for key, value in algorithm.policy().arrays().items()}
    for array in algorithm.policy().arrays().values():
        array[:] = 7.0
    assert all((kept[key] == value).all() for key, value in algorithm.policy().arrays().items())


ENDED = {"gamma": 0.8, "target_tau": 0.2, "critic_learning_rate": 4e-2, "hidden": [16], "reward_scale": 1.0}
OWN_ENDED = {
    "sac_offline": {"init_temperature": 1e-6},
    "cql": {"alpha": 0.0},
    "awr": {"refresh_interval": 20},
    "td3_bc": {"policy_delay": 1},
}


@pytest.mark.parametrize(("end", "expected"), [("truncated", 5.0), ("terminated", 1.0)])
@pytest.mark.parametrize("name", [name for name in OPTIMISED if not name.startswith("bc")])
def test_a_time_limit_bootstraps_and_a_true_end_does_not(name, end, expected):
    # Reward 1 for ever is 1 / (1 - .8) = 5; reward 1 and the end is 1.
    settings = {key: value for key, value in ENDED.items() if key in OFFLINE_ALGORITHMS[name][0].model_fields}
    algorithm = attached(name, one_state(reward=1.0, **{end: True}), **settings | OWN_ENDED.get(name, {}))
    algorithm.fit(400)
    if name == "awr":
        value = algorithm.value(torch.zeros(1, 1))
    else:
        value = algorithm.critics(torch.tensor([[0.0, 0.3]])).flatten()
    assert value.tolist() == pytest.approx([expected] * len(value), rel=0.1)


def test_every_tensor_follows_the_device(case, monkeypatch):
    """Steps on a device that refuses tensors of the CPU give what the CPU gives, bit for bit."""
    plain = make(case)
    expected = plain.fit(4)
    monkeypatch.setattr(base, "find_device", lambda _: OTHER if _ == "cuda" else torch.device("cpu"))
    with other_device():
        moved = make(case, device="cuda")
        assert {p.device for network in moved._networks.values() for p in network.parameters()} == {OTHER}
        assert moved.fit(4) == expected
        state = moved.state_dict()
        policy = moved.policy()
    assert same(plain.state_dict(), state)
    obs = np.ones((2, 3), np.float32)
    np.testing.assert_array_equal(policy.distribution(obs), plain.policy().distribution(obs))
