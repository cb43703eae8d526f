"""Safety-Gymnasium's ids as our vector environment, against a stand-in with the same six values."""

from __future__ import annotations

import dataclasses
import re
import sys
import types
from pathlib import Path

import numpy as np
import pytest
from gymnasium import spaces

from safe_rl_ros.envs.tasks.safety_gymnasium import substitute_margin
from safe_rl_ros.envs.vector import load_simulated_task, make_vector_env
from safe_rl_ros.envs.vector.safety_gymnasium import INSTALL, import_safety_gymnasium
from safe_rl_ros.types import BackendError, ConfigError

NAME = "safety_gymnasium"


class FakeEnv:
    """Counts steps; the first action value says what happens: see ``step``."""

    metadata = {"render_fps": 30}  # noqa: RUF012

    def __init__(self, low=-1.0, high=1.0, limit=1000):
        self.observation_space = spaces.Box(-np.inf, np.inf, (3,), np.float64)
        self.action_space = spaces.Box(low, high, (2,), np.float64)
        self.limit, self.closed, self.seeds, self.actions, self.steps = limit, False, [], [], 0

    @property
    def unwrapped(self):
        return self

    def reset(self, *, seed=None, options=None):
        self.seeds.append(seed)
        self.steps = 0
        return np.array([0.0, seed % 1000, 0.0]), {}

    def step(self, action):
        """More than .8 of the first value: cost 1; more than .9: also terminated; the second is the reward."""
        self.actions.append(np.array(action))
        self.steps += 1
        cost = 1.0 if action[0] > 0.8 else 0.0
        obs = np.array([self.steps, self.seeds[-1] % 1000, action[0]])
        info = {"goal_met": True} if action[1] > 0.5 else {}
        return obs, action[1], cost, action[0] > 0.9 or action[0] < -0.9, self.steps >= self.limit, info

    def close(self):
        self.closed = True


@pytest.fixture
def fake(monkeypatch):
    """Install a module ``safety_gymnasium`` whose ids are settings of the stand-in."""
    module = types.ModuleType(NAME)
    module.made = []
    kinds = {
        "Fake-v0": {},
        "Wide-v0": {"low": 0.0, "high": 4.0},
        "Short-v0": {"limit": 3},
        "Endless-v0": {"high": np.inf},
    }

    def make(env_id):
        env = FakeEnv(**kinds[env_id])
        module.made.append(env)
        return env

    module.make = make
    monkeypatch.setitem(sys.modules, NAME, module)
    return module


def twin_of(env_id="Fake-v0", num_envs=2, **settings):
    changes = [f"{key}={value}" for key, value in settings.items()]
    return make_vector_env(load_simulated_task(NAME, [f"id={env_id}", *changes]), num_envs)


def test_copies_are_stepped_and_judged(fake):
    twin = twin_of()
    obs, _ = twin.reset(seed=4)
    assert (obs.shape, obs.dtype, twin.obs_names) == ((2, 3), np.float32, ("obs_0", "obs_1", "obs_2"))
    obs, reward, terminated, truncated, info = twin.step([[0.85, 0.25], [0.0, 0.75]])
    np.testing.assert_allclose(obs[:, [0, 2]], [[1.0, 0.85], [1.0, 0.0]], rtol=1e-6)
    np.testing.assert_allclose(reward, [0.25, 0.75])
    np.testing.assert_array_equal(info["cost"], [1.0, 0.0])
    np.testing.assert_array_equal(info["margin"], [-1.0, 0.5])
    np.testing.assert_array_equal(info["violation"], [True, False])
    np.testing.assert_array_equal(info["goal_reached"], [False, True])
    assert not (terminated | truncated | info["failure"]).any()
    assert twin.control_rate_hz == 30.0


def test_a_failure_is_a_termination_with_a_cost(fake):
    twin = twin_of(num_envs=3)
    twin.reset(seed=0)
    _, _, terminated, _, info = twin.step([[0.95, 0.0], [-0.95, 0.0], [0.0, 0.0]])
    np.testing.assert_array_equal(terminated, [True, True, False])
    np.testing.assert_array_equal(info["failure"], [True, False, False])
    np.testing.assert_array_equal(info["final_info"]["failure"], [True, False, False])
    np.testing.assert_array_equal(info["_final_obs"], [True, True, False])
    assert info["final_obs"][0][0] == 1.0
    assert [len(env.seeds) for env in fake.made] == [2, 2, 1]


def test_the_shorter_of_the_two_time_limits_cuts(fake):
    theirs, ours = twin_of("Short-v0"), twin_of(max_episode_steps=2)
    for twin, length in ((theirs, 3), (ours, 2)):
        twin.reset(seed=0)
        for step in range(1, 8):
            _, _, terminated, truncated, _ = twin.step(np.zeros((2, 2)))
            assert not terminated.any()
            np.testing.assert_array_equal(truncated, [step % length == 0] * 2)


def test_actions_are_mapped_to_the_environments_range(fake):
    twin = twin_of("Wide-v0", 1)
    twin.reset(seed=0)
    twin.step([[-1.0, 0.5]])
    twin.step([[7.0, 0.0]])
    np.testing.assert_allclose(fake.made[0].actions, [[0.0, 3.0], [4.0, 2.0]])


def test_seeds_name_episodes(fake):
    first, second = twin_of(), twin_of()
    np.testing.assert_array_equal(first.reset(seed=9)[0], second.reset(seed=9)[0])
    assert fake.made[0].seeds[0] != fake.made[1].seeds[0]
    assert first.reset(seed=10)[0].tolist() != second.reset(seed=9)[0].tolist()


def test_it_cannot_be_resumed_and_says_so(fake):
    twin = twin_of()
    twin.reset(seed=0)
    assert twin.resumable is False
    with pytest.raises(BackendError, match="cannot be stored"):
        twin.state_dict()
    with pytest.raises(BackendError, match="cannot be loaded"):
        twin.load_state_dict({})
    twin.close()
    assert all(env.closed for env in fake.made)


def test_wrong_ids_and_spaces_are_refused(fake):
    with pytest.raises(ConfigError, match="'Nothing-v0'"):
        twin_of("Nothing-v0")
    with pytest.raises(ConfigError, match="expected a bounded Box"):
        twin_of("Endless-v0")


def test_without_the_package_the_error_says_how_to_install_it(monkeypatch):
    monkeypatch.setitem(sys.modules, NAME, None)
    with pytest.raises(ConfigError, match="pip install --no-deps safety-gymnasium"):
        twin_of()


def test_the_recipe_holds_everything_that_training_needs():
    setup = Path(__file__).resolve().parents[3] / "setup.py"
    (required,) = re.findall(r"install_requires=\[(.*?)\]", setup.read_text(), re.DOTALL)
    names = re.findall(r'^ *"([A-Za-z0-9_.-]+?)[<>=]', required, re.MULTILINE)
    assert len(names) > 10
    recipe = set(re.findall(r"[A-Za-z0-9_.-]+", INSTALL))
    assert set(names) <= recipe
    assert INSTALL.rstrip().endswith(" .")  # this package itself
    docs = (setup.parent / "docs" / "tasks.md").read_text().split()
    assert {word for word in INSTALL.split() if "==" in word} <= set(docs)


def test_the_margin_is_positive_exactly_without_cost():
    np.testing.assert_array_equal(substitute_margin(np.array([0.0, 1.0, 0.2, 3.0])), [0.5, -1.0, -0.2, -3.0])


def test_array_defaults_work_while_the_package_is_imported_and_not_after(tmp_path, monkeypatch):
    """What Python 3.11 refuses in that package's dataclasses; instances must not share the array."""
    package = tmp_path / NAME
    package.mkdir()
    package.joinpath("__init__.py").write_text(
        "import dataclasses, numpy\n@dataclasses.dataclass\nclass Part:\n    x: numpy.ndarray = numpy.zeros(2)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, NAME, raising=False)
    module = import_safety_gymnasium()
    monkeypatch.delitem(sys.modules, NAME)
    first, second = module.Part(), module.Part()
    first.x[0] = 5.0
    assert second.x[0] == 0.0
    with pytest.raises(ValueError, match="mutable default"):
        dataclasses.make_dataclass("After", [("x", np.ndarray, np.zeros(2))])
