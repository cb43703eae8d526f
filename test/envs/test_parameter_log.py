"""The log of a run's randomised episodes: from it an episode is run again bit for bit."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from safe_rl_ros.envs.parameter_log import ParameterLog, read_parameter_log
from safe_rl_ros.envs.robot_env import RobotEnv, make_robot_env
from safe_rl_ros.envs.twin_parameters import TwinParameters
from safe_rl_ros.types import ConfigError

LINE = '{"seed": 3, "twin_parameters": {"mass_scale": 1.5}}\n'


def run(env: RobotEnv, seed: int) -> list[bytes]:
    obs, _ = env.reset(seed=seed)
    rng = np.random.default_rng(seed)
    seen = [obs.tobytes()]
    for _ in range(30):
        obs, reward, terminated, truncated, info = env.step(rng.uniform(-1, 1, 2).astype(np.float32))
        seen.append(obs.tobytes() + np.array([reward, info["cost"], info["margin"]]).tobytes())
        if terminated or truncated:
            break
    return seen


def test_an_episode_is_run_again_from_the_log_bit_for_bit(tmp_path: Path):
    path = tmp_path / "randomisation.jsonl"
    env = make_robot_env(randomisation="rover")
    env.on_episode = ParameterLog(path).add
    seen = {seed: run(env, seed) for seed in (5, 6, 7)}
    logged = read_parameter_log(path)
    assert [episode.seed for episode in logged] == [5, 6, 7]
    for seed, parameters in logged[::-1]:
        assert run(make_robot_env(randomisation=parameters), seed) == seen[seed]
    assert run(make_robot_env(randomisation=logged[0].parameters), 6) != seen[6]


def test_a_repeated_episode_is_written_once_also_after_a_restart(tmp_path: Path):
    path = tmp_path / "log.jsonl"
    one, other = TwinParameters(lag_s=0.1 + 0.2), TwinParameters(lag_s=0.3)
    for _ in range(2):
        log = ParameterLog(path)
        for seed, parameters in ((1, one), (2, one), (1, one), (1, other)):
            log.add(seed, parameters)
    assert read_parameter_log(path) == [(1, one), (2, one), (1, other)]


def test_the_line_of_a_killed_process_is_cut_off(tmp_path: Path):
    path = tmp_path / "log.jsonl"
    path.write_text(LINE + LINE[:20])
    ParameterLog(path).add(4, TwinParameters())
    assert [episode.seed for episode in read_parameter_log(path)] == [3, 4]
    path.write_text(LINE[:20])
    ParameterLog(path).add(4, TwinParameters())
    assert [episode.seed for episode in read_parameter_log(path)] == [4]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("what", r"log\.jsonl, line 2: 'what' is no JSON with seed and twin_parameters"),
        ('{"seed": 1}', "no JSON with seed and twin_parameters"),
        ('{"seed": -1, "twin_parameters": {}}', "seed = -1, expected a whole number"),
        ('{"seed": 1, "twin_parameters": {"mass_scale": 0.0}}', r"line 2: 1 wrong value.*\n.*mass_scale = 0\.0"),
        ('{"seed": 1, "twin_parameters": {"mass": 1.0}}', "mass = 1.0: unknown key"),
    ],
)
def test_what_is_no_log_is_one_error(line: str, message: str, tmp_path: Path):
    path = tmp_path / "log.jsonl"
    path.write_text(LINE + line + "\n")
    with pytest.raises(ConfigError, match=message):
        read_parameter_log(path)
    with pytest.raises(ConfigError, match=message):
        ParameterLog(path).add(1, TwinParameters())


def test_a_log_that_is_not_there_is_an_error(tmp_path: Path):
    with pytest.raises(ConfigError, match=r"nothing\.jsonl does not exist"):
        read_parameter_log(tmp_path / "nothing.jsonl")
