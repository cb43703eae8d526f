from pathlib import Path

import pytest
from training_helpers import tiny_config
from vector_fakes import tiny_simulated

from safe_rl_ros.training.run import open_session, prepare_directory, train
from safe_rl_ros.training.session import InProcessSession, RobotSession
from safe_rl_ros.training.stored_run import trace_episode
from safe_rl_ros.training.vector_session import VectorSession
from safe_rl_ros.types import BundleError, ConfigError


def test_a_robot_s_session_keeps_nothing_from_one_epoch_to_the_next(tmp_path: Path) -> None:
    session = open_session(tiny_config(), tmp_path)
    assert isinstance(session, InProcessSession)
    assert session.state() == {}
    session.restore({})
    with pytest.raises(ValueError, match="'obs'"):
        session.restore({"obs": session.env.observation_space.sample()})
    with pytest.raises(BundleError, match="deploy a bundle first"):
        session.evaluate(1, seed=0)
    assert (session.obs_dim, session.act_dim, len(session.obs_names)) == (29, 2, 29)
    assert session.spec_hash == tiny_config().robot_spec.hash
    session.close()


def test_which_session_opens_depends_on_the_task(tmp_path: Path) -> None:
    with VectorSession(tiny_simulated()) as session:
        assert not isinstance(session, RobotSession)
    with pytest.raises(ConfigError, match="is a robot's"):
        VectorSession(tiny_config())
    with pytest.raises(ConfigError, match="has no robot"):
        InProcessSession(tiny_simulated())


def test_an_episode_of_a_simulated_run_cannot_be_traced(tmp_path: Path) -> None:
    config = tiny_simulated()
    directory = prepare_directory(config, tmp_path, resume=False)
    train(config, directory, max_epochs=1)
    with pytest.raises(ConfigError, match="no robot whose way could be traced"):
        trace_episode(directory, VectorSession, 0, 0, veto=True, title="")
