"""The environment: Gymnasium's contract, info, hooks, errors, and hand-computed steps on a scripted backend."""

import math
import os
import subprocess
import sys
import warnings

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

import safe_rl_ros  # noqa: F401  (registers the id)
from safe_rl_ros.envs.robot_env import RobotEnv, make_robot_env
from safe_rl_ros.envs.robot_spec import load_robot_spec
from safe_rl_ros.envs.tasks.hazard_nav import HazardNav, HazardNavConfig, Layout
from safe_rl_ros.types import BackendError, FilterDecision, Reason, RobotState, StepResult

SPEC = load_robot_spec("rover")
LAYOUT = Layout(
    hazards=np.array([[2.0, 0.0, 0.3]]), goals=np.array([[0.0, 1.0], [0.0, 3.0]]), start=np.array([0.0, 0.0, 0.0])
)


class FixedTask(HazardNav):
    """hazard_nav with one known arena."""

    def layout(self, seed: int) -> Layout:
        return LAYOUT


class FakeBackend:
    """Plays back positions and records what it is told."""

    def __init__(self, *positions: tuple[float, float], decision: FilterDecision | None = None) -> None:
        self.positions = list(positions)
        self.decision = decision
        self.calls: list[tuple] = []
        self.stamp_ns = 0
        self.fail = False

    def _next(self) -> RobotState:
        x, y = self.positions.pop(0)
        self.stamp_ns += 100
        return RobotState(
            stamp_ns=self.stamp_ns,
            position=np.array([x, y, 0.0]),
            orientation=np.array([0.0, 0.0, 0.0, 1.0]),
            linear_velocity=np.zeros(3),
            angular_velocity=np.zeros(3),
            joint_position=np.zeros(2),
            joint_velocity=np.zeros(2),
            ranges=np.full(72, 3.0, dtype=np.float32),
        )

    def reset(self, seed: int) -> RobotState:
        self.calls.append(("reset", seed))
        return self._next()

    def set_goal(self, goal, stamp_ns: int) -> None:
        self.calls.append(("goal", tuple(goal.tolist()), stamp_ns))

    def step(self, command) -> StepResult:
        self.calls.append(("step", tuple(command.tolist())))
        if self.fail:
            raise BackendError("no answer within 0.5 s")
        return StepResult(self._next(), self.decision)

    def stop(self) -> None:
        self.calls.append(("stop",))

    def close(self) -> None:
        self.calls.append(("close",))


def fake_env(backend: FakeBackend, **config) -> RobotEnv:
    return RobotEnv(backend, SPEC, FixedTask(HazardNavConfig(**config), SPEC.footprint_radius_m))


def decision(executed: tuple[float, float], reason: Reason) -> FilterDecision:
    return FilterDecision(
        stamp_ns=0,
        proposed=np.zeros(2),
        executed=np.array(executed),
        reason=reason,
        risk_proposed=0.5,
        risk_executed=0.1,
        threshold=0.2,
        samples=1,
        observation_age_s=0.0,
        proposal_age_s=0.0,
        latency_s=0.0,
        bundle_hash="",
    )


ZERO = np.zeros(2, dtype=np.float32)


def test_check_env_without_warnings():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        env = gymnasium.make("SafeRlRos/HazardNav-v0").unwrapped
        check_env(env, skip_render_check=True)  # raises on any violation
    # check_env accepts any box: these are ours, and a step must keep to them.
    assert env.observation_space.shape == (29,)
    obs, _ = env.reset(seed=0)
    assert env.observation_space.contains(obs)
    assert env.observation_space.contains(env.step(ZERO)[0])


def test_rendering_and_its_part_of_check_env():
    # The renderer's library is chosen when MuJoCo is first imported: this needs a process of its own.
    code = (
        "import gymnasium, numpy, safe_rl_ros, warnings\n"
        "from gymnasium.utils.env_checker import check_env\n"
        "env = gymnasium.make('SafeRlRos/HazardNav-v0', render_mode='rgb_array')\n"
        "env.reset(seed=0)\n"
        "picture = env.render()\n"
        "assert picture.shape == (480, 640, 3) and picture.dtype == numpy.uint8, picture.shape\n"
        "assert picture.std() > 10.0, 'the picture is blank'\n"
        "red = (picture[..., 0] > 120) & (picture[..., 1] < 90)\n"
        "assert red.sum() > 2000, 'no hazard in sight'\n"
        "warnings.simplefilter('error')\n"
        "check_env(env.unwrapped)\n"
        "env.close()\n"
    )
    environment = {**os.environ, "MUJOCO_GL": "egl"}
    result = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=90)
    if result.returncode and ("cannot render" in result.stderr or "EGL" in result.stderr):
        pytest.skip(f"no off-screen OpenGL here: {result.stderr.strip().splitlines()[-1]}")
    assert result.returncode == 0, result.stderr


def test_spaces_and_registration():
    env = gymnasium.make("SafeRlRos/HazardNav-v0", max_episode_steps=None)
    assert isinstance(env.unwrapped, RobotEnv)
    assert env.action_space == gymnasium.spaces.Box(-1.0, 1.0, (2,), np.float32)
    assert env.observation_space.shape == (29,)
    assert env.unwrapped.metadata["render_fps"] == 10


def test_the_limit_given_to_make_is_the_tasks_own():
    env = gymnasium.make("SafeRlRos/HazardNav-v0", max_episode_steps=300)  # longer than the task's 200
    assert env.unwrapped.max_episode_steps == 300
    assert gymnasium.make("SafeRlRos/HazardNav-v0").unwrapped.max_episode_steps == 200


def test_info_and_reward_by_hand():
    backend = FakeBackend((0.0, 0.0), (0.1, 0.0), (0.0, 0.8))
    env = fake_env(backend)
    obs, info = env.reset(seed=3)
    assert obs.dtype == np.float32
    assert info == {"margin": pytest.approx(1.44), "episode_seed": 3}
    obs, reward, terminated, truncated, info = env.step(np.array([0.5, -1.0], dtype=np.float32))
    # To the goal (0, 1): 1 m before, sqrt(1.01) after.
    assert reward == pytest.approx(1.0 - math.sqrt(1.01))
    assert (terminated, truncated) == (False, False)
    assert info["margin"] == pytest.approx(1.34)
    assert (info["cost"], info["failure"], info["goal_reached"], info["intervened"]) == (0.0, False, False, False)
    assert info["decision"] is None
    np.testing.assert_allclose(info["action_executed"], [0.5, -1.0])
    assert info["action_executed"].dtype == np.float32
    assert backend.calls[-2] == ("step", (0.625, -2.0))
    # Then 0.2 m from the goal: progress sqrt(1.01) - 0.2 and the bonus; the next goal is announced with the stamp.
    _, reward, _, _, info = env.step(ZERO)
    assert info["goal_reached"]
    assert reward == pytest.approx(math.sqrt(1.01) - 0.2 + 1.0)
    assert backend.calls[-1] == ("goal", (0.0, 3.0), 300)
    assert env.stamp_ns == 300


def test_the_goal_is_announced_at_every_reset_and_step():
    backend = FakeBackend((0.0, 0.0), (0.1, 0.0))
    env = fake_env(backend)
    env.reset(seed=3)
    env.step(ZERO)
    assert backend.calls == [
        ("reset", 3),
        ("goal", (0.0, 1.0), 100),
        ("step", (0.25, 0.0)),
        ("goal", (0.0, 1.0), 200),
    ]


def test_the_observation_after_a_goal_looks_at_the_next_goal():
    env = fake_env(FakeBackend((0.0, 0.0), (0.0, 0.8)))
    env.reset(seed=0)
    obs, *_ = env.step(ZERO)
    # From (0, 0.8) to (0, 3): 2.2 m to the left, 0.55 of the scale.
    np.testing.assert_allclose(obs[:3], [0.0, 1.0, 0.55], atol=1e-6)


def test_failure_terminates_and_the_time_limit_truncates():
    env = fake_env(FakeBackend((0.0, 0.0), (1.5, 0.0)))
    env.reset(seed=0)
    _, _, terminated, truncated, info = env.step(ZERO)
    assert (terminated, truncated) == (True, False)
    assert (info["cost"], info["failure"]) == (1.0, True)
    assert info["margin"] == pytest.approx(-0.06)
    env = fake_env(FakeBackend((0.0, 0.0), (0.1, 0.0), (0.2, 0.0)), max_episode_steps=2)
    env.reset(seed=0)
    assert env.step(ZERO)[2:4] == (False, False)
    _, _, terminated, truncated, info = env.step(ZERO)
    assert (terminated, truncated) == (False, True)
    assert info["cost"] == 0.0


def test_a_failure_in_the_last_step_is_not_a_time_limit():
    env = fake_env(FakeBackend((0.0, 0.0), (1.5, 0.0)), max_episode_steps=1)
    env.reset(seed=0)
    assert env.step(ZERO)[2:4] == (True, False)


def test_stepping_needs_a_reset_first_and_after_the_end():
    backend = FakeBackend((0.0, 0.0), (1.5, 0.0))
    env = fake_env(backend)
    with pytest.raises(gymnasium.error.ResetNeeded):
        env.step(ZERO)
    env.reset(seed=0)
    env.step(ZERO)
    with pytest.raises(gymnasium.error.ResetNeeded):
        env.step(ZERO)
    assert sum(call[0] == "step" for call in backend.calls) == 1


@pytest.mark.parametrize("action", [[math.nan, 0.0], [math.inf, 0.0], [0.0], [0.0, 0.0, 0.0], 0.0])
def test_a_bad_action_stops_the_robot(action):
    backend = FakeBackend((0.0, 0.0))
    env = fake_env(backend)
    env.reset(seed=0)
    with pytest.raises(ValueError, match="is refused, expected 2 finite numbers"):
        env.step(np.array(action, dtype=np.float32))
    assert backend.calls[-1] == ("stop",)


def test_actions_are_clipped():
    backend = FakeBackend((0.0, 0.0), (0.0, 0.0))
    env = fake_env(backend)
    env.reset(seed=0)
    *_, info = env.step(np.array([7.0, -7.0], dtype=np.float32))
    assert backend.calls[-2] == ("step", (1.0, -2.0))
    np.testing.assert_array_equal(info["action_executed"], [1.0, -1.0])


def test_the_command_filter_decides_what_moves_the_robot():
    backend = FakeBackend((0.0, 0.0), (0.0, 0.0))
    env = fake_env(backend)
    seen = []

    def command_filter(state, obs, command):
        seen.append((state.stamp_ns, obs.copy(), command.copy()))
        return decision((0.25, 1.0), Reason.RESAMPLED)

    env.command_filter = command_filter
    first, _ = env.reset(seed=0)
    *_, info = env.step(np.array([1.0, 1.0], dtype=np.float32))
    assert seen[0][0] == 100
    np.testing.assert_array_equal(seen[0][1], first)
    np.testing.assert_array_equal(seen[0][2], [1.0, 2.0])
    assert backend.calls[-2] == ("step", (0.25, 1.0))
    np.testing.assert_allclose(info["action_executed"], [0.0, 0.5])
    assert info["intervened"] is True
    assert info["decision"].reason is Reason.RESAMPLED


def test_a_decision_from_behind_the_backend_is_reported():
    backend = FakeBackend((0.0, 0.0), (0.0, 0.0), decision=decision((0.0, 0.0), Reason.STOP_NO_BUNDLE))
    env = fake_env(backend)
    env.reset(seed=0)
    *_, info = env.step(np.array([1.0, 1.0], dtype=np.float32))
    assert backend.calls[-2] == ("step", (1.0, 2.0))
    np.testing.assert_allclose(info["action_executed"], [-1.0 / 3.0, 0.0], atol=1e-6)
    assert info["intervened"] is True


def test_a_backend_error_passes_through_and_needs_a_reset():
    backend = FakeBackend((0.0, 0.0), (0.0, 0.0))
    env = fake_env(backend)
    env.reset(seed=0)
    backend.fail = True
    with pytest.raises(BackendError, match=r"no answer within 0\.5 s"):
        env.step(ZERO)
    with pytest.raises(gymnasium.error.ResetNeeded):
        env.step(ZERO)
    backend.fail = False
    env.reset(seed=0)


def test_seeds():
    env = make_robot_env()
    first, info = env.reset(seed=4)
    assert info["episode_seed"] == 4
    drawn = [env.reset()[1]["episode_seed"] for _ in range(3)]
    assert len(set(drawn)) == 3
    again, _ = env.reset(seed=4)
    np.testing.assert_array_equal(first, again)
    assert [env.reset()[1]["episode_seed"] for _ in range(3)] == drawn
    np.testing.assert_array_equal(env.layout.hazards, env.backend.layout.hazards)
    env.close()


def test_the_same_seed_and_actions_give_the_same_episode():
    def episode(env: RobotEnv) -> list:
        rng = np.random.default_rng(1)
        rows = [env.reset(seed=9)[0].tobytes()]
        for _ in range(30):
            obs, reward, terminated, truncated, info = env.step(rng.uniform(-1, 1, 2).astype(np.float32))
            rows.append((obs.tobytes(), reward, terminated, truncated, info["margin"], info["cost"]))
            if terminated:
                break
        return rows

    env = make_robot_env()
    first = episode(env)
    env.reset(seed=1)
    env.step(np.ones(2, dtype=np.float32))
    assert episode(env) == first


def test_returned_observations_are_the_callers_own():
    env = fake_env(FakeBackend((0.0, 0.0), (0.0, 0.0)))
    seen = []
    env.command_filter = lambda state, obs, command: (seen.append(obs.copy()), decision((0, 0), Reason.ACCEPTED))[1]
    obs, _ = env.reset(seed=0)
    expected = obs.copy()
    obs[:] = 99.0
    env.step(ZERO)
    np.testing.assert_array_equal(seen[0], expected)


def test_render_modes():
    with pytest.raises(ValueError, match="'human' is unknown"):
        make_robot_env(render_mode="human")
    with pytest.raises(ValueError, match=r"needs a backend with render\(\), not FakeBackend"):
        make_robot_env(backend=FakeBackend(), render_mode="rgb_array")
    assert make_robot_env().render() is None


def test_close_closes_the_backend():
    backend = FakeBackend()
    fake_env(backend).close()
    assert backend.calls == [("close",)]


def test_the_environment_loads_mujoco_only_for_the_twin():
    code = "import sys, safe_rl_ros.envs.robot_env; print('mujoco' in sys.modules, 'torch' in sys.modules)"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert result.stdout.split() == ["False", "False"]
