from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from calibration_helpers import EPISODES, bundle_of, dataset, minari_dataset, transitions, write_run

from safe_rl_ros.envs.robot_env import make_robot_env
from safe_rl_ros.training.risk_traces import CALIBRATION_EPOCH, Twin, read_recording, record_failing
from safe_rl_ros.training.rollout import episode_seed
from safe_rl_ros.training.session_config import SessionConfig
from safe_rl_ros.training.stored_run import load_run
from safe_rl_ros.types import ConfigError, Reason


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_run(tmp_path_factory.mktemp("runs") / "driver")


@pytest.fixture(scope="module")
def config(run: Path) -> SessionConfig:
    return load_run(run)


def test_the_same_seed_gives_the_same_risks_and_another_seed_other_episodes(run: Path, config: SessionConfig) -> None:
    twin = Twin(config)
    bundle = bundle_of(run, twin)
    first, again, other = (
        record_failing(twin, bundle, config.filter, 4, seed=seed, max_episodes=50) for seed in (0, 0, 1)
    )
    twin.close()
    assert all(np.array_equal(a.risks, b.risks) for a, b in zip(first.traces, again.traces, strict=True))
    assert not first.seeds & other.seeds


def test_recorded_risks_are_those_of_the_shaped_command(run: Path, config: SessionConfig) -> None:
    """The first command cannot be faster than the rate allows, and that one is judged, not the proposal."""
    twin = Twin(config)
    bundle = bundle_of(run, twin)
    watching = config.filter.model_copy(update={"critic": "shadow"})
    _, _, decisions = next(twin.episodes(bundle, watching, seed=0, epoch=3))
    twin.close()
    first = decisions[0]
    assert first.executed[0] == pytest.approx(0.4)  # 4 m/s^2 for one period, from rest
    assert first.proposed[0] > 0.5
    env = make_robot_env(config.robot_spec, config.task)
    obs, _ = env.reset(seed=episode_seed(0, 3, 0))
    env.close()
    action = np.array([[0.2, first.executed[1] / 2.0]], dtype=np.float32)  # .4 m/s of [-.5, 1]
    assert first.risk_proposed == pytest.approx(bundle.risk(obs, action)[0], rel=1e-6)
    unlimited = np.array([[1.0, first.executed[1] / 2.0]], dtype=np.float32)
    assert first.risk_proposed < 0.99 * bundle.risk(obs, unlimited)[0]


def test_traces_are_the_risks_that_the_filter_judged(run: Path, config: SessionConfig) -> None:
    twin = Twin(config)
    bundle = bundle_of(run, twin)
    recording = record_failing(twin, bundle, config.filter, 1, seed=0, max_episodes=50)
    watching = config.filter.model_copy(update={"critic": "shadow"})
    _, stats, decisions = next(twin.episodes(bundle, watching, seed=0, epoch=CALIBRATION_EPOCH))
    twin.close()
    assert recording.traces[0].risks.tolist() == [d.risk_proposed for d in decisions]
    assert recording.traces[0].failed == stats.failure


def test_nothing_latched_outlives_its_episode(run: Path, config: SessionConfig) -> None:
    """Too many vetoes in a row end an episode's driving, not that of the episodes after it."""
    twin = Twin(config)
    bundle = bundle_of(run, twin)
    latching = config.filter.model_copy(update={"threshold": 0.0, "max_consecutive_vetoes": 5})
    episodes = twin.episodes(bundle, latching, seed=0, epoch=3)
    decided = [next(episodes)[2] for _ in range(2)]
    twin.close()
    assert [decisions[-1].reason for decisions in decided] == [Reason.STOP_VETOES] * 2
    assert [decisions[0].reason for decisions in decided] == [Reason.LEAST_RISK] * 2


def test_too_few_failures_are_an_error_that_says_what_to_do(run: Path, config: SessionConfig) -> None:
    twin = Twin(config)
    with pytest.raises(ConfigError, match="of 2 episodes without the veto failed, 50 failing"):
        record_failing(twin, bundle_of(run, twin), config.filter, 50, seed=0, max_episodes=2)
    twin.close()


@pytest.mark.parametrize("graded", [0.2, 0.4999])
def test_a_graded_cost_is_a_failure_from_one_half_on(run: Path, config, tmp_path: Path, graded: float) -> None:
    """Sigmoid costs are positive everywhere: what fails is the row whose margin is violated, where they reach .5."""
    twin = Twin(config)
    bundle = bundle_of(run, twin)
    twin.close()
    binary = transitions(run, EPISODES).cost
    cost = np.where(binary > 0.0, 0.5, graded).astype(np.float32)
    recording = read_recording(dataset(run, tmp_path / "data.npz", cost=cost), bundle)
    assert [(len(t.risks), t.failed) for t in recording.traces] == [(9, True), (7, False), (6, True), (1, True)]


def test_a_data_set_gives_its_episodes_and_the_risk_of_what_was_executed(run: Path, config, tmp_path: Path) -> None:
    twin = Twin(config)
    bundle = bundle_of(run, twin)
    twin.close()
    batch = transitions(run, EPISODES)
    recording = read_recording(dataset(run, tmp_path / "data.npz"), bundle)
    # The third episode failed in its sixth row; what follows is not part of it. The last one has no end.
    assert [(len(t.risks), t.failed) for t in recording.traces] == [(9, True), (7, False), (6, True), (1, True)]
    assert (recording.dropped, recording.of_policy, recording.failing) == (1, True, 3)
    for row in (0, 8, 9, 16, 21):
        trace, first = (recording.traces[0], 0) if row < 9 else (recording.traces[1], 9)
        trace, first = (recording.traces[2], 16) if row >= 16 else (trace, first)
        expected = bundle.risk(batch.obs[row], batch.action_executed[row][None])[0]
        assert trace.risks[row - first] == expected


def test_a_minari_data_set_gives_the_same_episodes_and_must_be_of_the_robot(run: Path, config, tmp_path: Path) -> None:
    twin = Twin(config)
    bundle = bundle_of(run, twin)
    twin.close()
    found = read_recording(minari_dataset(run, tmp_path / "drives"), bundle)
    plain = read_recording(dataset(run, tmp_path / "data.npz"), bundle)
    assert (found.dropped, found.of_policy, len(found.traces)) == (0, True, 4)
    for ours, theirs in zip(found.traces, plain.traces, strict=True):
        np.testing.assert_array_equal(ours.risks, theirs.risks)
        assert ours.failed == theirs.failed
    with pytest.raises(ConfigError, match="its spec is 1234"):
        read_recording(minari_dataset(run, tmp_path / "other", robot_spec_hash="1234"), bundle)
