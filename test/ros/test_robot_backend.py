"""The backend over topics: what is missing is named within its deadline, and nothing waits for ever."""

from __future__ import annotations

import time

import numpy as np
import pytest

pytest.importorskip("rclpy")
pytestmark = pytest.mark.ros

from ros_helpers import GOAL, PERIOD_NS, SPEC, start_filter, start_twin  # noqa: E402

from safe_rl_ros.envs.robot_env import make_robot_env  # noqa: E402
from safe_rl_ros.ros.robot_backend import RosBackend  # noqa: E402
from safe_rl_ros.ros.supervisor import Supervisor  # noqa: E402
from safe_rl_ros.types import BackendError, Reason  # noqa: E402

GO = np.array([0.2, 0.1])


@pytest.fixture(scope="module")
def lockstep_processes(tmp_path_factory, ros_domain_id):
    with Supervisor(ros_domain_id, tmp_path_factory.mktemp("log")) as processes:
        start_twin(processes)
        start_filter(processes, critic="off")
        yield processes


@pytest.fixture
def backend(lockstep_processes, ros_domain_id):
    with RosBackend(SPEC, domain_id=ros_domain_id) as connected:
        connected.wait_ready(lockstep_processes.check)
        yield connected


def test_nothing_there_is_one_error_that_names_everything():
    with RosBackend(SPEC, namespace="lonely", startup_timeout_s=0.5) as backend:
        begin = time.monotonic()
        with pytest.raises(BackendError) as caught:
            backend.reset(0)
        assert time.monotonic() - begin < 2.0
    message = str(caught.value)
    assert message.startswith("not ready within 0.5 s: no publisher on /lonely/odom; ")
    for part in ("/lonely/scan", "/lonely/safety_filter/decisions", "no service /lonely/twin/reset", "no state of the"):
        assert part in message


def test_steps_follow_each_other_by_exactly_one_period(backend):
    state = backend.reset(3)
    backend.set_goal(GOAL, state.stamp_ns)
    for count in range(1, 21):
        result = backend.step(GO)
        assert result.state.stamp_ns == state.stamp_ns + count * PERIOD_NS
        assert result.decision is not None
        assert result.decision.stamp_ns == result.state.stamp_ns - PERIOD_NS
    assert result.decision.reason is Reason.ACCEPTED
    assert result.decision.executed.tobytes() == GO.tobytes()


def test_reset_is_seeded_and_time_goes_forward(backend):
    first = backend.reset(5)
    other = backend.reset(6)
    again = backend.reset(5)
    assert first.position.tobytes() == again.position.tobytes()
    assert first.ranges.tobytes() == again.ranges.tobytes()
    assert first.position.tobytes() != other.position.tobytes()
    assert first.stamp_ns < other.stamp_ns < again.stamp_ns


@pytest.mark.parametrize("seed", [-1, 2**63])
def test_seed_out_of_range_is_refused(backend, seed):
    with pytest.raises(BackendError, match=f"reset seed = {seed}"):
        backend.reset(seed)


def test_nan_proposal_is_a_stop_and_the_episode_goes_on(backend):
    backend.reset(1)
    backend.set_goal(GOAL, 0)
    result = backend.step(np.array([np.nan, 0.0]))
    assert result.decision.reason is Reason.STOP_BAD_PROPOSAL
    assert result.decision.executed.tolist() == [0.0, 0.0]
    assert backend.step(GO).decision.reason is Reason.ACCEPTED


def test_step_needs_reset_and_a_stop_ends_the_episode(backend):
    with pytest.raises(BackendError, match="reset first"):
        backend.step(GO)
    backend.reset(1)
    backend.set_goal(GOAL, 0)
    backend.stop()
    backend.stop()
    with pytest.raises(BackendError, match="reset first"):
        backend.step(GO)
    backend.reset(1)
    backend.step(GO)


def test_close_is_idempotent_and_final(lockstep_processes, ros_domain_id):
    backend = RosBackend(SPEC, domain_id=ros_domain_id, executor="single")
    backend.close()
    backend.close()
    backend.stop()
    with pytest.raises(BackendError, match="closed"):
        backend.reset(0)


def test_environment_over_ros(backend):
    env = make_robot_env(SPEC, backend=backend)
    obs, _ = env.reset(seed=4)
    assert env.observation_space.contains(obs)
    obs, reward, _, _, info = env.step(np.zeros(2, dtype=np.float32))
    assert env.observation_space.contains(obs)
    assert np.isfinite(reward)
    assert info["decision"].intervened is info["intervened"] is False
    with pytest.raises(ValueError, match="refused"):
        env.step(np.array([np.nan, 0.0], dtype=np.float32))


def test_filter_that_cannot_be_configured_is_reported_at_once(tmp_path, ros_domain_id):
    with Supervisor(ros_domain_id, tmp_path) as processes:
        start_twin(processes, namespace="broken")
        start_filter(processes, namespace="broken", bundle="/nowhere/bundle")
        with RosBackend(SPEC, domain_id=ros_domain_id, namespace="broken", startup_timeout_s=20.0) as backend:
            begin = time.monotonic()
            with pytest.raises(BackendError, match=r"cannot be configured: bundle file /nowhere/bundle/manifest\.json"):
                backend.wait_ready(processes.check)
            assert time.monotonic() - begin < 10.0


def test_second_session_in_the_same_domain_is_noticed(backend, lockstep_processes, ros_domain_id, tmp_path):
    backend.startup_timeout_s = 5.0
    with Supervisor(ros_domain_id, tmp_path) as intruders:
        start_twin(intruders)
        assert backend._link.wait(lambda: any("2 publishers on /odom" in m for m in backend._link.missing()), 5.0)
        backend.startup_timeout_s = 0.2
        with pytest.raises(BackendError, match="2 publishers on /odom, expected one"):
            backend.reset(0)
