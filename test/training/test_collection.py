"""Data sets made by policies: what is stored is what happened, noise is as configured, seeds repeat."""

import itertools
import json

import numpy as np
import pytest
from calibration_helpers import write_run
from vector_fakes import LENGTHS, ScriptedTwin

from safe_rl_ros.bundle import save_bundle
from safe_rl_ros.data.containers import load_dataset
from safe_rl_ros.data.episodes import to_batch
from safe_rl_ros.envs.robot_env import make_robot_env
from safe_rl_ros.envs.twin_parameters import TwinParameters
from safe_rl_ros.envs.vector import load_simulated_task, make_vector_env
from safe_rl_ros.inference import GaussianPolicy
from safe_rl_ros.training.collection import Actor, collect_dataset, run_source
from safe_rl_ros.training.collection_config import SourceConfig, load_collection
from safe_rl_ros.types import BundleError, ConfigError

SHORT = "task.max_episode_steps=7"


def constant_policy(obs_dim, value=0.25, std=0.1, act_dim=2):
    arrays = {
        "weight_0": np.zeros((obs_dim, 1)),
        "bias_0": np.zeros(1),
        "weight_1": np.zeros((1, act_dim)),
        "bias_1": np.full(act_dim, np.arctanh(value)),
        "log_std": np.full(act_dim, np.log(std)),
    }
    meta = {"kind": "gaussian_policy", "state_dependent_std": False, "obs_dim": obs_dim, "act_dim": act_dim}
    return GaussianPolicy(arrays, {**meta, "hidden": [1]})


@pytest.fixture
def bundle(tmp_path):
    """A policy for short episodes of point_goal, as a finished run has it."""
    env = make_vector_env(load_simulated_task("point_goal", ["max_episode_steps=7"]), 1)
    save_bundle(
        tmp_path / "run" / "bundle",
        constant_policy(len(env.obs_names)),
        None,
        threshold=None,
        threshold_mode="fixed",
        spec_hash=env.spec_hash,
        obs_names=env.obs_names,
        algorithm="trpo",
    )
    return tmp_path / "run"


def acted(source, policy, steps=1, num_envs=4000):
    actor = Actor(SourceConfig(episodes=1, **source), policy, 2, num_envs)
    rng, obs = np.random.default_rng(0), np.zeros((num_envs, 3), np.float32)
    return actor, [actor.act(obs, rng) for _ in range(steps)]


def test_samples_and_means():
    policy = constant_policy(3)
    actor, (step,) = acted({"policy": "p"}, policy)
    assert actor.known
    assert step["proposed"].std() == pytest.approx(0.1, rel=0.05)
    assert step["proposed"].mean() == pytest.approx(0.25, abs=0.01)
    np.testing.assert_allclose(step["std"], 0.1, rtol=1e-5)
    actor, (step,) = acted({"policy": "p", "deterministic": True}, policy)
    assert not actor.known  # a point has no likelihood
    np.testing.assert_allclose(step["proposed"], 0.25, rtol=1e-5)


def test_noise_widens_the_known_gaussian():
    actor, (step,) = acted({"policy": "p", "noise_std": 0.2}, constant_policy(3))
    assert actor.known
    np.testing.assert_allclose(step["std"], np.hypot(0.1, 0.2), rtol=1e-5)
    assert step["proposed"].std() == pytest.approx(np.hypot(0.1, 0.2), rel=0.05)
    actor, (step,) = acted({"policy": "p", "noise_std": 0.2, "deterministic": True}, constant_policy(3))
    assert actor.known
    np.testing.assert_allclose(step["std"], 0.2, rtol=1e-6)
    assert step["proposed"].std() == pytest.approx(0.2, rel=0.05)


class Point:
    """A policy without a density: it answers its mean, and samples that are something else."""

    obs_dim, act_dim, normaliser = 3, 2, None

    def mean(self, obs):
        return np.full((*np.shape(obs)[:-1], 2), 0.5, np.float32)

    def sample(self, obs, n, rng):
        return rng.choice([-0.75, 0.75], size=(n, 2)).astype(np.float32)


def test_policies_without_a_density():
    actor, (step,) = acted({"policy": "p", "noise_std": 0.1}, Point(), num_envs=50)
    assert not actor.known
    assert np.abs(step["proposed"]).mean() == pytest.approx(0.75, abs=0.05)
    assert np.abs(step["proposed"]).std() == pytest.approx(0.1, abs=0.03)
    assert not step["std"].any()
    actor, (step,) = acted({"policy": "p", "deterministic": True}, Point(), num_envs=50)
    assert (step["proposed"] == 0.5).all()


def test_random_actions_are_uniform_and_kept():
    actor, steps = acted({"policy": "random", "hold_steps": 3}, None, steps=7)
    assert not actor.known
    same = [np.array_equal(a["proposed"], b["proposed"]) for a, b in itertools.pairwise(steps)]
    assert same == [True, True, False, True, True, False]
    first = steps[0]["proposed"]
    assert np.abs(first).max() <= 1.0
    assert first.std() == pytest.approx(1.0 / np.sqrt(3.0), rel=0.03)
    actor, steps = acted({"policy": "random", "hold_steps": 3}, None, steps=1)
    actor.forget(np.arange(4000) < 2000)
    second = actor.act(np.zeros((4000, 3), np.float32), np.random.default_rng(1))["proposed"]
    changed = (second != steps[0]["proposed"]).any(axis=1)
    assert changed[:2000].all()
    assert not changed[2000:].any()


def test_a_share_of_random_actions():
    actor, (step,) = acted({"policy": "p", "deterministic": True, "random_share": 0.25}, constant_policy(3))
    assert not actor.known
    random = (np.abs(step["proposed"] - 0.25) > 1e-4).any(axis=1)
    assert random.mean() == pytest.approx(0.25, abs=0.03)
    # Each random action is kept for three steps, so that three of every 1 / share + 2 actions are random.
    _, steps = acted({"policy": "p", "deterministic": True, "random_share": 0.25, "hold_steps": 3}, Point(), steps=60)
    shares = [(np.abs(step["proposed"] - 0.5) > 1e-4).any(axis=1).mean() for step in steps[20:]]
    assert np.mean(shares) == pytest.approx(3 / (3 + 3), abs=0.02)


def test_every_environment_runs_its_own_number_of_episodes():
    twin = ScriptedTwin(2)
    source = SourceConfig(policy="random", episodes=5, label="noise")
    episodes = list(run_source(twin, Actor(source, None, 2, 2), source, 0, 0))
    # Environment 0 runs its first three episodes, environment 1 its first two.
    assert sorted(map(len, episodes)) == sorted([LENGTHS[0], LENGTHS[1], LENGTHS[2], LENGTHS[1], LENGTHS[2]])
    for episode in episodes:
        length = len(episode)
        np.testing.assert_array_equal(episode.obs[:, 1], np.arange(length + 1))  # nothing of the next episode
        assert (episode.obs[:, 0] == episode.obs[0, 0]).all()
        assert (episode.terminated, episode.truncated) == (length == 5, length != 5)
        np.testing.assert_allclose(episode.reward, episode.action.sum(1), rtol=1e-6)
        assert episode.notes == {"source": "noise", "end": "terminated" if length == 5 else "time_limit"}
        assert episode.behaviour is None


def test_a_mixture_on_a_simulated_task(bundle, tmp_path):
    overrides = [SHORT, "seed=3", "num_envs=2", "name=mixed"]
    config = load_collection(None, overrides, "point_goal", ["random=3", f"{bundle}=2"])
    seen = []
    info = collect_dataset(config, tmp_path / "d", on_episode=seen.append)
    found, episodes = load_dataset(tmp_path / "d")
    episodes = list(episodes)
    assert found == info
    assert (info.name, info.task, info.max_episode_steps, info.control_period_s) == ("mixed", "point_goal", 7, 0.02)
    assert "max_episode_steps: 7" in info.provenance
    assert [episode.notes["source"] for episode in episodes] == ["random"] * 3 + ["run"] * 2
    assert [episode.behaviour is None for episode in episodes] == [True] * 3 + [False] * 2
    assert len(seen) == 5
    for episode in episodes:
        assert len(episode) == 7
        assert episode.truncated
        np.testing.assert_array_equal(episode.cost >= 0.5, episode.margin <= 0.0)
    behaviour = episodes[-1].behaviour
    np.testing.assert_allclose(behaviour.mean, 0.25, rtol=1e-5)
    np.testing.assert_array_equal(np.clip(behaviour.proposed, -1, 1), episodes[-1].action)
    # The same actions lead from the same start to the same end: what is stored is what happened.
    env = make_vector_env(config.task, 2)
    assert env.spec_hash == info.robot_spec_hash
    from safe_rl_ros.training.collection import FIRST_EPOCH
    from safe_rl_ros.training.rollout import episode_seed

    obs, _ = env.reset(seed=episode_seed(3, FIRST_EPOCH + 1, 0))
    for t in range(7):
        np.testing.assert_array_equal(obs, [episodes[3].obs[t], episodes[4].obs[t]])
        obs, reward, _, _, step = env.step(np.stack([episodes[3].action[t], episodes[4].action[t]]))
        np.testing.assert_array_equal(reward.astype(np.float32), [episodes[3].reward[t], episodes[4].reward[t]])
        np.testing.assert_array_equal(step["cost"].astype(np.float32), [episodes[3].cost[t], episodes[4].cost[t]])
    np.testing.assert_array_equal(step["next_obs"], [episodes[3].obs[7], episodes[4].obs[7]])


def test_seeds(tmp_path):
    batches = []
    for number, seed in enumerate((1, 1, 2)):
        config = load_collection(None, [SHORT, f"seed={seed}"], "point_goal", ["random=4"])
        collect_dataset(config, tmp_path / str(number))
        batches.append(to_batch(load_dataset(tmp_path / str(number))[1]))
    np.testing.assert_array_equal(batches[0].obs, batches[1].obs)
    np.testing.assert_array_equal(batches[0].action_executed, batches[1].action_executed)
    assert not np.array_equal(batches[0].obs[0], batches[2].obs[0])
    first = batches[0].obs.reshape(4, 7, -1)[:, 0]
    assert len(np.unique(first, axis=0)) == 4  # every episode has its own layout


def test_on_the_twin_of_a_robot(tmp_path):
    run = write_run(tmp_path / "run")
    config = load_collection(None, ["task.max_episode_steps=60"], "hazard_nav", ["random=2", f"{run}=3"])
    collect_dataset(config, tmp_path / "d")
    info, episodes = load_dataset(tmp_path / "d")
    episodes = list(episodes)
    assert info.axes == ("linear_x", "angular_z")
    assert len(episodes) == 5
    starts = np.stack([episode.obs[0] for episode in episodes])
    assert len(np.unique(starts, axis=0)) == 5
    for episode in episodes:
        assert episode.terminated == (episode.cost[-1] > 0.0)
        assert len(episode) == 60 or episode.terminated
        assert not np.array_equal(episode.obs[-1], episode.obs[0])


def test_an_episode_of_a_randomised_twin_can_be_run_again_from_its_notes(tmp_path):
    changes = ["task.max_episode_steps=20", "randomisation=rover"]
    collect_dataset(load_collection(None, changes, "hazard_nav", ["random=3"]), tmp_path / "d")
    plain = load_collection(None, changes[:1], "hazard_nav", ["random=3"])
    collect_dataset(plain, tmp_path / "plain")
    episodes = list(load_dataset(tmp_path / "d")[1])
    drawn = [json.loads(episode.notes["twin_parameters"]) for episode in episodes]
    assert len({each["mass_scale"] for each in drawn}) == 3
    for episode, parameters in zip(episodes, drawn, strict=True):
        env = make_robot_env("rover", "hazard_nav", randomisation=TwinParameters(**parameters))
        obs = [env.reset(seed=episode.notes["seed"])[0], *(env.step(action)[0] for action in episode.action)]
        env.close()
        np.testing.assert_array_equal(np.stack(obs), episode.obs)
    neutral = list(load_dataset(tmp_path / "plain")[1])
    assert not any({"seed", "twin_parameters"} & set(episode.notes) for episode in neutral)
    assert any(not np.array_equal(one.obs[:5], other.obs[:5]) for one, other in zip(episodes, neutral, strict=True))


@pytest.mark.parametrize(
    ("overrides", "sources", "message"),
    [
        ([], ["random"], "expected POLICY=EPISODES"),
        ([], ["random=many"], "expected POLICY=EPISODES"),
        ([], ["random=0"], "greater than or equal to 1"),
        ([], ["random=1", "random=2"], r"\['random'\] more than once"),
        ([], ["nowhere=1"], "neither 'random' nor the directory"),
        (["robot=rover.yaml"], ["random=1"], "is simulated and has no robot"),
        (["randomisation=rover"], ["random=1"], "'point_goal' has no robot whose twin it changes"),
        (["name=a/b"], ["random=1"], "name = 'a/b'"),
        (["colour=red"], ["random=1"], "unknown key"),
    ],
)
def test_wrong_collections(tmp_path, overrides, sources, message):
    with pytest.raises(ConfigError, match=message):
        collect_dataset(load_collection(None, overrides, "point_goal", sources), tmp_path / "d")
    assert list(tmp_path.iterdir()) == []


def test_what_has_no_effect_is_refused():
    for source, message in (
        ({"policy": "random", "noise_std": 0.1}, "noise_std is 0.1"),
        ({"policy": "random", "deterministic": True}, "deterministic is True"),
        ({"policy": "p", "hold_steps": 2}, "hold_steps is 2"),
    ):
        with pytest.raises(ValueError, match=message):
            SourceConfig(episodes=1, **source)


def test_a_bundle_of_another_task(bundle, tmp_path):
    with pytest.raises(BundleError, match="spec"):
        collect_dataset(load_collection(None, [], "point_goal", [f"{bundle}=1"]), tmp_path / "d")
    assert not (tmp_path / "d").exists()


def test_names_and_files(tmp_path):
    with pytest.raises(ConfigError, match="nothing to collect"):
        load_collection(None, [], "point_goal")
    with pytest.raises(ConfigError, match="both the collection"):
        load_collection("point_goal", [], "point_goal", ["random=1"])
    with pytest.raises(ConfigError, match="task 'moon' is unknown"):
        load_collection(None, [], "moon", ["random=1"])
    shipped = load_collection("point_goal", ["task.hazards=3"])
    assert (shipped.episodes, shipped.task.hazards, shipped.sources[1].name) == (1000, 3, "medium")
