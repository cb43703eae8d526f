"""A bundle that was trained on the arm's twin in process, deployed: policy, filter and twin as processes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("rclpy")
pytest.importorskip("pybullet")
pytestmark = [pytest.mark.ros, pytest.mark.patient]

from joint_helpers import controller  # noqa: E402
from ros_helpers import start_filter, start_twin  # noqa: E402

from safe_rl_ros.bundle import load_bundle  # noqa: E402
from safe_rl_ros.envs.observation import CommandMap  # noqa: E402
from safe_rl_ros.envs.observers import make_observer  # noqa: E402
from safe_rl_ros.envs.robot_spec import load_robot_spec  # noqa: E402
from safe_rl_ros.ros.supervisor import Supervisor, ros_arguments  # noqa: E402
from safe_rl_ros.training.run import prepare_directory, train  # noqa: E402
from safe_rl_ros.training.session_config import compose_session  # noqa: E402
from safe_rl_ros.types import Reason  # noqa: E402

TINY = ["training.total_steps=400", "training.steps_per_epoch=200", "algorithm.critic_updates=2", "name=tiny"]
SLACK = {"observation_timeout_s": 1.0, "proposal_timeout_s": 1.0}


def test_what_was_trained_in_process_acts_over_ros_behind_its_critic(tmp_path: Path, ros_domain_id: int):
    config = compose_session("joint_reach", "csc", TINY)
    run = prepare_directory(config, tmp_path, resume=False)
    train(config, run)
    spec = load_robot_spec("arm")
    observer = make_observer(spec, "joint_reach")
    bundle = load_bundle(run / "bundle", spec_hash=spec.hash, obs_names=observer.names)
    values = {"robot": "arm", "task": "joint_reach", "timing": "realtime"}
    with Supervisor(ros_domain_id, tmp_path) as processes:
        start_twin(processes, **values)
        start_filter(processes, bundle=str(run / "bundle"), **values, **SLACK)
        arguments = ros_arguments({**values, "bundle": str(run / "bundle")})
        processes.start("policy", "safe_rl_ros.ros.policy_node", arguments)
        with controller("arm", "nobody/listens", ros_domain_id) as (node, listen):
            judged = lambda: [d for d in node.decisions if np.isfinite(d.risk_proposed)]  # noqa: E731
            assert listen(lambda: len(judged()) > 50, timeout_s=40.0), processes.check()
            processes.check()
    # What was proposed is what the policy here says of a state that was shown, in joint positions.
    maps, seen = CommandMap(spec), list(node.seen.values())
    meant = [maps.to_command(np.clip(bundle.policy.mean(observer.observe(s)), -1.0, 1.0)) for s in seen]
    for decision in judged()[-20:]:
        assert np.abs(np.array(meant) - decision.proposed).max(axis=1).min() < 1e-6
        assert 0.0 <= decision.risk_proposed <= 1.0
    assert {d.reason for d in judged()} & {Reason.ACCEPTED, Reason.SHAPED, Reason.RESAMPLED, Reason.LEAST_RISK}
    sent = np.array(node.sent)
    assert (np.abs(np.diff(sent, axis=0)) <= 1.5 * spec.command_rate * spec.period_ns * 1e-9 + 1e-9).all()
