"""What every simulated task keeps to: spaces, counters, autoreset, seeds, and a state that goes on bit for bit."""

from __future__ import annotations

from importlib.util import find_spec

import gymnasium
import numpy as np
import pytest
from gymnasium.vector import AutoresetMode

from safe_rl_ros.envs.vector import SIMULATED_TASKS, load_simulated_task, make_vector_env
from safe_rl_ros.types import ConfigError

TASKS = ["point_goal", "car_goal", "half_cheetah", "jackal_nav", "point_robot"]
TASKS += ["point_traps", "car_traps"] if find_spec("pybullet") else []
TASKS += ["panda_push_topple", "panda_push_boundary", "laikago_walk"] if find_spec("pybullet") else []
ENDING = ("point_robot", "laikago_walk")  # random actions soon end their episodes
KEYS = {"cost", "violation", "margin", "failure", "goal_reached", "next_obs"}


def make(task, num_envs, threads=1, *, steps=1000, **more):
    config = SIMULATED_TASKS[task].config(max_episode_steps=steps)
    return make_vector_env(config, num_envs, threads, **more)


def roll(twin, steps, seed=0):
    """Step with random actions; return every array that came back, by name, stacked over time."""
    rng = np.random.default_rng(seed)
    rows = []
    for _ in range(steps):
        actions = rng.uniform(-1.2, 1.2, (64, *twin.single_action_space.shape))[: twin.num_envs]
        obs, reward, terminated, truncated, info = twin.step(actions)
        rows.append(
            {"obs": obs, "reward": reward, "terminated": terminated, "truncated": truncated}
            | {key: info[key] for key in KEYS}
        )
    return {name: np.stack([row[name] for row in rows]) for name in rows[0]}


def assert_same(found, expected, copies=slice(None)):
    for name, values in expected.items():
        np.testing.assert_array_equal(found[name], values[:, copies], err_msg=name)


@pytest.mark.parametrize("task", TASKS)
def test_shapes_and_kinds(task):
    twin = make(task, 3)
    obs, info = twin.reset(seed=0)
    assert info == {}
    assert obs.shape == (3, len(twin.obs_names)) == twin.observation_space.shape
    assert len(set(twin.obs_names)) == len(twin.obs_names)
    assert obs.dtype == np.float32
    obs, reward, terminated, truncated, info = twin.step(np.zeros(twin.action_space.shape))
    assert set(info) == KEYS
    assert obs.shape == info["next_obs"].shape == (3, len(twin.obs_names))
    assert info["next_obs"].dtype == np.float32
    for values in (reward, info["cost"], info["margin"]):
        assert (values.shape, values.dtype) == ((3,), np.float64)
    for flags in (terminated, truncated, info["violation"], info["failure"], info["goal_reached"]):
        assert (flags.shape, flags.dtype) == ((3,), np.bool_)
    assert twin.metadata["autoreset_mode"] is AutoresetMode.SAME_STEP
    assert twin.resumable
    twin.close()


@pytest.mark.parametrize("task", TASKS)
def test_many_copies_equal_single_ones_bit_for_bit(task):
    """Row i of a stored state goes on alone exactly as it does among the others, over goals and new episodes."""
    together = make(task, 7, steps=40)
    together.reset(seed=5)
    roll(together, 10)
    state = together.state_dict()
    expected = roll(together, 100, seed=1)
    for index in range(7):
        alone = make(task, 1, steps=40)
        alone.load_state_dict({name: v if name == "seed" else v[index : index + 1] for name, v in state.items()})
        rng = np.random.default_rng(1)
        for step in range(100):
            actions = rng.uniform(-1.2, 1.2, (64, *alone.single_action_space.shape))[index : index + 1]
            obs, reward, _, truncated, info = alone.step(actions)
            assert np.array_equal(obs[0], expected["obs"][step, index])
            assert reward[0] == expected["reward"][step, index]
            assert truncated[0] == expected["truncated"][step, index]
            assert info["cost"][0] == expected["cost"][step, index]


@pytest.mark.parametrize("task", TASKS)
def test_threads_change_nothing(task):
    one, two = make(task, 9, 1, steps=60), make(task, 9, 2, steps=60)
    np.testing.assert_array_equal(one.reset(seed=2)[0], two.reset(seed=2)[0])
    assert_same(roll(two, 150), roll(one, 150))
    two.close()


@pytest.mark.parametrize("task", TASKS)
def test_a_stored_state_goes_on_bit_for_bit(task):
    twin = make(task, 4, steps=50)
    twin.reset(seed=7)
    roll(twin, 30)
    state = twin.state_dict()
    expected = roll(twin, 120, seed=3)
    other = make(task, 4, steps=50)
    other.load_state_dict(state)
    np.testing.assert_array_equal(other.observations, state["obs"])
    assert_same(roll(other, 120, seed=3), expected)
    twin.load_state_dict(state)  # and in the environment that has gone on
    assert_same(roll(twin, 120, seed=3), expected)


@pytest.mark.parametrize("task", TASKS)
def test_the_state_is_a_copy_and_a_wrong_one_is_refused(task):
    twin = make(task, 2)
    twin.reset(seed=0)
    state = twin.state_dict()
    roll(twin, 3)
    assert not np.array_equal(state["physics"], twin.state_dict()["physics"])
    before = twin.state_dict()
    with pytest.raises(ValueError, match="expected"):
        twin.load_state_dict({name: value for name, value in state.items() if name != "steps"})
    with pytest.raises(ValueError, match="state obs is"):
        twin.load_state_dict(state | {"obs": state["obs"][:, 1:]})
    with pytest.raises(ValueError, match="state physics is"):
        twin.load_state_dict(state | {"physics": state["physics"].astype(np.float32)})
    for name, value in twin.state_dict().items():
        np.testing.assert_array_equal(value, before[name])


@pytest.mark.parametrize("task", [task for task in TASKS if task not in ENDING])
def test_seeds_name_episodes(task):
    """Episode k of copy i depends on seed, i and k, not on how the episodes before it went."""
    first, second = make(task, 3, steps=20), make(task, 3, steps=20)
    start, _ = first.reset(seed=11)
    np.testing.assert_array_equal(second.reset(seed=11)[0], start)
    assert len(np.unique(start, axis=0)) == 3
    third_a = [roll(first, 20, seed=1)["obs"][-1], roll(first, 20, seed=2)["obs"][-1]]
    third_b = [roll(second, 20, seed=3)["obs"][-1], roll(second, 20, seed=4)["obs"][-1]]
    np.testing.assert_array_equal(third_a, third_b)
    assert not np.array_equal(third_a[0], third_a[1])
    np.testing.assert_array_equal(first.reset(seed=11)[0], start)
    assert not np.array_equal(first.reset()[0], start)
    assert not np.array_equal(first.reset(seed=12)[0], start)


def test_without_a_seed_runs_differ():
    one, two = make("half_cheetah", 1), make("half_cheetah", 1)
    assert not np.array_equal(one.reset()[0], two.reset()[0])


@pytest.mark.parametrize("task", TASKS)
def test_autoreset_in_the_same_step(task):
    twin = make(task, 3, steps=5)
    twin.reset(seed=0)
    twin.load_state_dict(twin.state_dict() | {"steps": np.array([0, 2, 0])})
    for step in range(1, 6):
        obs, _, terminated, truncated, info = twin.step(np.full(twin.action_space.shape, 0.3))
        ended = np.array([step == 5, step == 3, step == 5])
        np.testing.assert_array_equal(truncated, ended)
        assert not terminated.any()
        np.testing.assert_array_equal((obs == info["next_obs"]).all(axis=1), ~ended)
        if not ended.any():
            assert set(info) == KEYS
            continue
        np.testing.assert_array_equal(info["_final_obs"], ended)
        for index in range(3):
            if ended[index]:
                np.testing.assert_array_equal(info["final_obs"][index], info["next_obs"][index])
                assert info["final_info"]["cost"][index] == info["cost"][index]
            else:
                assert info["final_obs"][index] is None
    np.testing.assert_array_equal(twin.state_dict()["episode"], [1, 1, 1])
    np.testing.assert_array_equal(twin.state_dict()["steps"], [0, 2, 0])


def test_new_episodes_equal_those_of_a_reset():
    """What autoreset begins is what reset() begins."""
    twin, other = make("point_goal", 2, steps=3), make("point_goal", 2, steps=3)
    twin.reset(seed=4)
    other.reset(seed=4)
    roll(twin, 3)
    np.testing.assert_array_equal(twin.observations, other.reset()[0])


def test_without_autoreset_the_caller_resets_what_ended():
    twin = make("point_goal", 2, steps=4, autoreset=False)
    twin.reset(seed=0)
    twin.load_state_dict(twin.state_dict() | {"steps": np.array([2, 0])})
    actions = np.zeros((2, 2))
    twin.step(actions)
    obs, _, _, truncated, info = twin.step(actions)
    np.testing.assert_array_equal(truncated, [True, False])
    np.testing.assert_array_equal(obs, info["next_obs"])
    with pytest.raises(gymnasium.error.ResetNeeded, match=r"copies \[0\]"):
        twin.step(actions)
    again, _ = twin.reset(options={"reset_mask": truncated})
    np.testing.assert_array_equal(again[1], obs[1])
    assert not np.array_equal(again[0], obs[0])
    twin.step(actions)
    assert twin.metadata["autoreset_mode"] is AutoresetMode.DISABLED


def test_steps_before_a_reset_are_refused():
    with pytest.raises(gymnasium.error.ResetNeeded):
        make("point_goal", 1).step(np.zeros((1, 2)))


@pytest.mark.parametrize(
    "actions", [np.zeros(2), np.zeros((2, 3)), [[0, np.nan], [0, 0]], [[0, np.inf], [0, 0]], np.zeros((3, 2))]
)
def test_wrong_actions_are_refused_and_move_nothing(actions):
    twin = make("point_goal", 2)
    twin.reset(seed=0)
    before = twin.state_dict()
    with pytest.raises(ValueError, match="refused"):
        twin.step(actions)
    for name, value in twin.state_dict().items():
        np.testing.assert_array_equal(value, before[name])


@pytest.mark.parametrize("task", TASKS)
def test_actions_are_clipped(task):
    one, two = make(task, 2), make(task, 2)
    one.reset(seed=0)
    two.reset(seed=0)
    shape = one.action_space.shape
    far, near = one.step(np.full(shape, 7.0)), two.step(np.ones(shape))
    np.testing.assert_array_equal(far[0], near[0])
    np.testing.assert_array_equal(far[1], near[1])


def test_returned_arrays_belong_to_the_caller():
    twin, other = make("point_goal", 2), make("point_goal", 2)
    obs, _ = twin.reset(seed=0)
    other.reset(seed=0)
    obs[:] = np.nan
    actions = np.zeros((2, 2))
    spoilt = twin.step(actions)
    kept = {key: value.copy() for key, value in spoilt[4].items()}
    for array in (*spoilt[:4], *spoilt[4].values()):
        array[...] = 1
    expected = other.step(actions)
    np.testing.assert_array_equal(kept["next_obs"], expected[4]["next_obs"])
    np.testing.assert_array_equal(twin.step(actions)[0], other.step(actions)[0])


@pytest.mark.parametrize("options", [{"mask": 1}, {"reset_mask": np.ones(3, bool)}, {"reset_mask": np.ones(2)}])
def test_wrong_reset_options_are_refused(options):
    with pytest.raises(ValueError, match="reset"):
        make("point_goal", 2).reset(seed=0, options=options)


def test_wrong_numbers_and_names_are_refused():
    with pytest.raises(ConfigError, match="num_envs is 0"):
        make("point_goal", 0)
    with pytest.raises(ConfigError, match="env_threads is 0"):
        make("point_goal", 1, 0)
    with pytest.raises(ConfigError, match="'swim' is not simulated"):
        load_simulated_task("swim")
    with pytest.raises(ValueError, match="seed is -1"):
        make("point_goal", 1).reset(seed=-1)


@pytest.mark.parametrize("task", TASKS)
def test_shipped_configurations_are_the_defaults(task):
    assert load_simulated_task(task) == SIMULATED_TASKS[task].config()


def test_configurations_load_from_files_with_overrides(tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text("name: car_goal\nhazards: 3\n")
    config = load_simulated_task(file, ["hazard_radius_m=0.1"])
    assert (config.name, config.hazards, config.hazard_radius_m) == ("car_goal", 3, 0.1)


@pytest.mark.parametrize("task", TASKS)
def test_the_hash_names_model_and_configuration(task):
    hashes = {make(task, 1).spec_hash, make(task, 2).spec_hash, make(task, 1, steps=10).spec_hash}
    assert len(hashes) == 2
    assert all(len(value) == 64 for value in hashes)
