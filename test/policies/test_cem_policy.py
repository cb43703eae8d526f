"""QT-Opt's policy in numpy: equal to the torch search, finds a known maximum; refuses what is wrong."""

import json

import numpy as np
import pytest
import torch

from safe_rl_ros.algorithms.offline import OFFLINE_ALGORITHMS
from safe_rl_ros.functional.cross_entropy_method import cross_entropy_search
from safe_rl_ros.inference import Normaliser
from safe_rl_ros.policies import SamplesRows, make_policy
from safe_rl_ros.policies.cem import CemPolicy

OBS_DIM, ACT_DIM = 3, 2
OBS = np.random.default_rng(0).standard_normal((7, OBS_DIM)).astype(np.float32)
NORMALISER = Normaliser([0.5, -1.0, 0.0], [1.0, 2.0, 0.5])


@pytest.fixture(scope="module")
def learner():
    config, constructor = OFFLINE_ALGORITHMS["qt_opt"]
    made = constructor(config(hidden=(16, 12), cem_samples=20, cem_elites=4, cem_iterations=3), OBS_DIM, ACT_DIM, 0)
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in made.critics.parameters():
            parameter += 0.3 * torch.randn(parameter.shape, generator=generator)
    made.normaliser = NORMALISER
    return made


def test_mean_equals_the_search_of_torch(learner):
    policy = learner.policy()
    noise = torch.from_numpy(policy.arrays()["noise"])[:, :, None].expand(-1, -1, len(OBS), -1)
    with torch.no_grad():
        expected, value = learner.search(learner.critics, torch.from_numpy(NORMALISER(OBS)), noise)
        both = learner.critics(torch.cat((torch.from_numpy(NORMALISER(OBS)), expected), dim=1))
    np.testing.assert_allclose(policy.mean(OBS), expected.numpy(), atol=1e-5)
    np.testing.assert_allclose(both[0].numpy(), value.numpy(), atol=1e-5)  # the search climbs the first critic
    assert not np.allclose(both[1].numpy(), value.numpy(), atol=1e-2)
    for obs, row in zip(OBS, policy.mean(OBS), strict=True):
        assert policy.mean(obs).tolist() == row.tolist()


def test_samples_are_the_best_tried_in_order(learner):
    policy = learner.policy()
    noise = np.random.default_rng(4).standard_normal((3, 20, ACT_DIM), dtype=np.float32)
    with torch.no_grad():
        expected, _ = learner.search(
            learner.critics, torch.from_numpy(NORMALISER(OBS[:1])), torch.from_numpy(noise)[:, :, None]
        )
    found = policy.sample(OBS[0], 8, np.random.default_rng(4))
    np.testing.assert_allclose(found[0], expected[0].numpy(), atol=1e-5)
    assert (np.diff(policy.value(OBS[0], found)) <= 0.0).all()
    assert policy.sample(OBS[0], 50, np.random.default_rng(4)).shape == (50, ACT_DIM)


def test_rows_are_drawn_at_once_as_torch_does(learner):
    policy = learner.policy()
    assert isinstance(policy, SamplesRows)
    noise = np.random.default_rng(4).standard_normal((3, 7, 20, ACT_DIM), dtype=np.float32)
    with torch.no_grad():
        expected, _ = learner.search(
            learner.critics, torch.from_numpy(NORMALISER(OBS)), torch.from_numpy(noise).transpose(1, 2)
        )
    found = policy.sample_rows(OBS, np.random.default_rng(4))
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected.numpy(), atol=1e-5)


def tent(goal):
    """Return a policy over one action whose value is -|a - goal|, whatever the observation."""
    arrays = {
        "critic.weight_0": np.array([[[0.0, 0.0], [1.0, -1.0]]]),
        "critic.bias_0": np.array([[-goal, goal]]),
        "critic.weight_1": np.array([[[-1.0], [-1.0]]]),
        "critic.bias_1": np.zeros((1, 1)),
        "noise": np.random.default_rng(0).standard_normal((4, 64, 1)),
    }
    sizes = {"obs_dim": 1, "act_dim": 1, "critics": 1, "critic_hidden": [2]}
    search = {"iterations": 4, "samples": 64, "elites": 6, "initial_std": 0.7, "least_std": 0.01}
    return CemPolicy(arrays, {"kind": "cem"} | sizes | search)


@pytest.mark.parametrize("goal", [-1.0, -0.37, 0.0, 0.8])
def test_it_finds_the_top_of_a_known_function(goal):
    policy = tent(goal)
    assert policy.value(np.zeros(1, np.float32), np.array([[goal], [0.5]], np.float32)).tolist() == pytest.approx(
        [0.0, -abs(0.5 - goal)]
    )
    assert policy.mean(np.array([3.0]))[0] == pytest.approx(goal, abs=0.02)
    assert policy.sample(np.array([3.0]), 1, np.random.default_rng(1))[0, 0] == pytest.approx(goal, abs=0.02)


def test_torch_finds_the_same_top():
    noise = torch.from_numpy(tent(0.8).arrays()["noise"])[:, :, None]
    best, _ = cross_entropy_search(lambda a: -(a[..., 0] - 0.8).abs(), noise, elites=6, initial_std=0.7, least_std=0.01)
    assert best.item() == pytest.approx(float(tent(0.8).mean(np.array([0.0]))[0]), abs=1e-6)


def test_the_least_of_several_critics_counts():
    arrays, meta = tent(0.5).arrays(), tent(0.5).meta()
    other = tent(-0.5).arrays()
    both = {k: np.concatenate((v, other[k])) if k.startswith("critic") else v for k, v in arrays.items()}
    policy = CemPolicy(both, meta | {"critics": 2})
    assert policy.value(np.zeros(1, np.float32), np.array([[0.5], [0.0]], np.float32)).tolist() == [-1.0, -0.5]
    assert abs(policy.mean(np.zeros(1))[0]) < 0.02


def test_round_trip_by_its_kind(learner):
    policy = learner.policy()
    again = make_policy(policy.arrays(), json.loads(json.dumps(policy.meta())), policy.normaliser)
    assert isinstance(again, CemPolicy)
    assert again.mean(OBS).tolist() == policy.mean(OBS).tolist()


def test_nan_is_answered_with_nan(learner):
    spoiled = OBS[:2].copy()
    spoiled[0, 1] = np.nan
    answer = learner.policy().mean(spoiled)
    assert np.isnan(answer[0]).all()
    assert np.isfinite(answer[1]).all()


@pytest.mark.parametrize(
    ("arrays", "meta", "message"),
    [
        ({}, {"elites": 65}, "elites is 65, expected at most samples 64"),
        ({}, {"iterations": 5}, r"'noise' has shape \(4, 64, 1\), expected \(5, 64, 1\)"),
        ({}, {"initial_std": -1.0}, "initial_std is -1.0, expected a finite number >= 0"),
        ({}, {"critics": True}, "critics is True, expected a positive integer"),
        ({"extra": np.zeros(1)}, {}, r"unknown array\(s\) \['extra'\]"),
    ],
)
def test_what_is_wrong_is_named(arrays, meta, message):
    policy = tent(0.0)
    with pytest.raises(ValueError, match=message):
        CemPolicy.from_arrays(policy.arrays() | arrays, policy.meta() | meta)
