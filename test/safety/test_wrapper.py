from __future__ import annotations

import gymnasium
import numpy as np
import pytest
from filter_helpers import PERIOD_NS, StubModel, first_axis, limits, to_action, to_command
from gymnasium import spaces

from safe_rl_ros.safety.action_filter import FilterConfig
from safe_rl_ros.safety.wrapper import SafetyFilterWrapper, make_filter
from safe_rl_ros.types import BundleError, ConfigError, Reason, RobotState


def state_at(stamp_ns):
    return RobotState(stamp_ns, *(np.zeros(3) for _ in range(6)), ranges=np.zeros(1, dtype=np.float32))


class TinyEnv(gymnasium.Env):
    """Passes commands through the hook; a reset is a gap of 1 s in its time."""

    observation_space = spaces.Box(-1, 1, (3,), np.float32)
    action_space = spaces.Box(-1, 1, (2,), np.float32)

    def __init__(self):
        self.command_filter = None
        self.stamp = 0
        self.commands = []

    def reset(self, *, seed=None, options=None):
        self.stamp += 10**9
        return np.zeros(3, dtype=np.float32), {"options": options}

    def step(self, action):
        decision = self.command_filter(state_at(self.stamp), np.zeros(3, dtype=np.float32), to_command(action))
        self.commands.append(decision.executed.tolist())
        self.stamp += PERIOD_NS
        return np.zeros(3, dtype=np.float32), 0.0, False, False, {"decision": decision}


def wrapped(model=None, **config):
    action_filter = make_filter(limits(), FilterConfig(**config), to_action, to_command, model)
    return SafetyFilterWrapper(TinyEnv(), action_filter)


def test_commands_pass_through_the_filter():
    env = wrapped(StubModel(first_axis, threshold=0.5, samples=[[0.0, 0.5]]), max_samples=1)
    env.reset()
    *_, info = env.step(np.array([0.25, 0.0]))
    assert info["decision"].reason is Reason.ACCEPTED
    assert info["vetoes"] == 0
    *_, info = env.step(np.array([0.75, 0.0]))
    assert info["decision"].reason is Reason.RESAMPLED
    assert info["vetoes"] == 1
    assert env.unwrapped.commands == [[0.25, 0.0], [0.0, 1.0]]


def test_vetoes_count_stops_and_start_again_with_each_episode():
    env = wrapped()
    env.reset()
    assert [env.step(np.zeros(2))[4]["vetoes"] for _ in range(3)] == [1, 2, 3]
    env.set_model(StubModel())
    assert env.step(np.zeros(2))[4]["vetoes"] == 3
    env.reset(options={"a": 1})
    assert env.step(np.zeros(2))[4]["vetoes"] == 0


def test_shadow_vetoes_are_counted_apart():
    env = wrapped(StubModel(lambda a: np.ones(len(a))), critic="shadow")
    env.reset()
    info = env.step(np.array([0.25, 0.0]))[4]
    assert (info["vetoes"], info["shadow_vetoes"]) == (0, 1)


def test_time_is_the_state_s_stamp_and_a_reset_clears_the_ramp():
    env = wrapped(StubModel())
    env.reset()
    for _ in range(3):
        *_, info = env.step(np.array([1.0, 0.0]))
    assert info["decision"].stamp_ns == 10**9 + 2 * PERIOD_NS
    env.reset()
    env.step(np.array([1.0, 0.0]))
    assert [command[0] for command in env.unwrapped.commands] == [0.5, 1.0, 1.0, 0.5]


def test_model_for_another_robot_is_refused():
    model = StubModel()
    model.act_dim = 5
    with pytest.raises(BundleError, match="act_dim"):
        wrapped(model)
    with pytest.raises(BundleError, match="act_dim"):
        wrapped().set_model(model)


def test_environment_without_the_hook_is_refused():
    action_filter = make_filter(limits(), FilterConfig(), to_action, to_command)
    with pytest.raises(ConfigError, match="CartPoleEnv has no command_filter"):
        SafetyFilterWrapper(gymnasium.make("CartPole-v1"), action_filter)


def test_second_filter_is_refused_and_closing_keeps_the_first():
    env = wrapped(StubModel())
    env.close()
    with pytest.raises(ConfigError, match="already"):
        SafetyFilterWrapper(env, make_filter(limits(), FilterConfig(), to_action, to_command))
    env.reset()
    assert env.step(np.zeros(2))[4]["decision"].reason is Reason.ACCEPTED


def test_real_environment_end_to_end():
    pytest.importorskip("mujoco")
    from safe_rl_ros.envs.robot_env import make_robot_env
    from safe_rl_ros.envs.robot_spec import load_robot_spec
    from safe_rl_ros.safety.action_filter import CommandLimits

    env = make_robot_env("rover.yaml", "hazard_nav.yaml")
    spec, maps = load_robot_spec("rover.yaml"), env.unwrapped.command_map
    real = CommandLimits.from_axes(
        spec.command_lower, spec.command_upper, spec.command_rate, spec.command_stop, spec.period_ns / 1e9
    )
    model = StubModel(lambda a: (np.abs(a[:, 0] - 0.5) > 0.25).astype(float), threshold=0.5)
    model.obs_dim = env.observation_space.shape[0]
    filtered = SafetyFilterWrapper(env, make_filter(real, FilterConfig(), maps.to_action, maps.to_command, model))
    try:
        filtered.reset(seed=3)
        rng, reasons = np.random.default_rng(0), set()
        for _ in range(20):
            *_, terminated, truncated, info = filtered.step(rng.uniform(-1, 1, 2).astype(np.float32))
            decision = info["decision"]
            reasons.add(decision.reason)
            np.testing.assert_allclose(info["action_executed"], maps.to_action(decision.executed), atol=1e-6)
            if decision.reason is not Reason.LEAST_RISK:
                assert abs(info["action_executed"][0] - 0.5) <= 0.25 + 1e-6
            if terminated or truncated:
                filtered.reset(seed=4)
        assert reasons & {Reason.ACCEPTED, Reason.SHAPED}
        assert Reason.RESAMPLED in reasons
    finally:
        filtered.close()
