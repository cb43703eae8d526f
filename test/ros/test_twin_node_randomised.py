"""The twin's node with a randomisation: the parameters of an episode are told, and its states are the backend's."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("rclpy")
pytestmark = [pytest.mark.ros, pytest.mark.patient]

from ros_helpers import SPEC, TASK, bench  # noqa: E402
from std_msgs.msg import String  # noqa: E402
from test_twin_node import Driver  # noqa: E402

from safe_rl_ros.envs.parameter_log import FILE, read_parameter_log  # noqa: E402
from safe_rl_ros.envs.randomisation import load_randomisation  # noqa: E402
from safe_rl_ros.envs.tasks.hazard_nav import HazardNav  # noqa: E402
from safe_rl_ros.envs.twins import make_backend  # noqa: E402
from safe_rl_ros.ros import qos  # noqa: E402
from safe_rl_ros.ros.session import RosSession  # noqa: E402
from safe_rl_ros.ros.twin_node import TwinNode  # noqa: E402
from safe_rl_ros.training.session_config import load_session_config, write_session_config  # noqa: E402
from safe_rl_ros.types import ConfigError  # noqa: E402


def test_the_node_tells_the_parameters_and_shows_the_randomised_states():
    given = load_randomisation("rover")
    backend = make_backend(SPEC, HazardNav(TASK, SPEC.base_radius_m).layout, given.draw)
    with bench(TwinNode, {"timing": "lockstep", "randomisation": "rover"}) as setup:
        driver, episodes = Driver(setup), []
        topic = "twin/episode"
        setup.harness.create_subscription(String, topic, lambda m: episodes.append(json.loads(m.data)), qos.latched())
        for seed in (11, 12):
            answer = driver.follow(backend, seed)
            assert answer["twin_parameters"] == given.draw(seed).model_dump()
            assert setup.run(lambda answer=answer: answer in episodes)
        before = driver.stamp
        driver.step([0.2, 0.0])
        assert driver.stamp == before + SPEC.period_ns, "a delay moves no stamp"


def test_without_a_randomisation_nothing_is_added():
    with bench(TwinNode, {"timing": "lockstep"}) as setup:
        assert sorted(Driver(setup).call_reset(3)) == ["seed", "stamp_ns"]


def test_a_randomisation_that_is_not_there_is_one_error():
    with (
        pytest.raises(ConfigError, match=r"'nowhere\.yaml' does not exist"),
        bench(TwinNode, {"randomisation": "nowhere"}),
    ):
        pass


def test_a_session_over_ros_is_the_session_in_process(tmp_path: Path, ros_domain_id: int):
    from safe_rl_ros.envs.robot_env import make_robot_env

    overrides = [f"ros.domain_id={ros_domain_id}", "randomisation=rover", "filter.critic=off"]
    config = load_session_config("csc_hazard_nav.yaml", overrides)
    write_session_config(config, tmp_path)
    here = make_robot_env(config.robot_spec, config.robot_task, randomisation=config.randomisation)
    session = RosSession(config, tmp_path)
    try:
        for seed in (21, 22):
            over_ros, info = session.env.reset(seed=seed)
            in_process, expected = here.reset(seed=seed)
            assert info == expected
            assert over_ros.tobytes() == in_process.tobytes()
            for _ in range(5):
                action = np.array([0.3, 0.1], dtype=np.float32)
                assert session.env.step(action)[0].shape == here.step(action)[0].shape
    finally:
        session.close()
    assert [episode.seed for episode in read_parameter_log(tmp_path / FILE)] == [21, 22]
    assert read_parameter_log(tmp_path / FILE)[0].parameters == config.randomisation.draw(21)
