"""The same seed and actions give the same bits in process and over ROS, the filter in the loop in both."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

pytest.importorskip("rclpy")
pytestmark = [pytest.mark.ros, pytest.mark.patient]

from ros_helpers import OBSERVER, SPEC, TASK, start_filter, start_twin, write_bundle  # noqa: E402

from safe_rl_ros.bundle import load_bundle  # noqa: E402
from safe_rl_ros.config import build  # noqa: E402
from safe_rl_ros.envs.observation import CommandMap  # noqa: E402
from safe_rl_ros.envs.robot_env import make_robot_env  # noqa: E402
from safe_rl_ros.ros.filter_parameters import parameters_of  # noqa: E402
from safe_rl_ros.ros.robot_backend import RosBackend  # noqa: E402
from safe_rl_ros.ros.supervisor import Supervisor  # noqa: E402
from safe_rl_ros.safety.action_filter import ActionFilter, CommandLimits, FilterConfig  # noqa: E402
from safe_rl_ros.safety.wrapper import SafetyFilterWrapper  # noqa: E402
from safe_rl_ros.types import BundleError, Reason  # noqa: E402

STEPS = 60
SEEDS = (11, 12, 11)


def in_process_env(config, bundle):
    maps = CommandMap(SPEC)
    limits = CommandLimits(
        SPEC.command_lower, SPEC.command_upper, SPEC.command_rate, SPEC.command_stop, SPEC.period_ns * 1e-9
    )
    action_filter = ActionFilter(limits, config, maps.to_action, maps.to_command)
    action_filter.set_model(bundle)
    action_filter.activate()
    return SafetyFilterWrapper(make_robot_env(SPEC, TASK), action_filter)


def rollout(env):
    """Return one row per step: everything that must be equal, as bytes or numbers; and the reasons."""
    rows, reasons = [], Counter()
    for episode, seed in enumerate(SEEDS):
        rng = np.random.default_rng(100 + episode)
        obs, info = env.reset(seed=seed)
        rows.append((obs.tobytes(), info["margin"]))
        for _ in range(STEPS):
            obs, reward, terminated, truncated, info = env.step(rng.uniform(-1, 1, 2).astype(np.float32))
            decision = info["decision"]
            reasons[decision.reason] += 1
            rows.append(
                (
                    obs.tobytes(),
                    reward,
                    info["cost"],
                    info["margin"],
                    terminated,
                    truncated,
                    info["intervened"],
                    info["goal_reached"],
                    info["action_executed"].tobytes(),
                    decision.proposed.tobytes(),
                    decision.executed.tobytes(),
                    decision.reason,
                    np.float64(decision.risk_proposed).tobytes(),
                    np.float64(decision.risk_executed).tobytes(),
                    decision.samples,
                    decision.bundle_hash,
                )
            )
            if terminated or truncated:
                break
    return rows, reasons


def test_parity_with_the_filter_in_the_loop(tmp_path, ros_domain_id):
    config = build(FilterConfig, {"max_samples": 10, "seed": 5}, "test")
    digest = write_bundle(tmp_path / "bundle", threshold=0.5)
    bundle = load_bundle(tmp_path / "bundle", spec_hash=SPEC.hash, obs_names=OBSERVER.names, expected_hash=digest)
    local = in_process_env(config, bundle)
    expected, reasons = rollout(local)
    local.close()
    # The comparison means something only if the critic let some pass and vetoed others, both ways.
    passed = reasons[Reason.ACCEPTED] + reasons[Reason.SHAPED]
    assert min(passed, reasons[Reason.RESAMPLED], reasons[Reason.LEAST_RISK]) >= 5, reasons
    with Supervisor(ros_domain_id, tmp_path / "log") as processes:
        start_twin(processes)
        start_filter(processes, **parameters_of(config))
        with RosBackend(SPEC, domain_id=ros_domain_id) as backend:
            backend.wait_ready(processes.check)
            backend.announce_bundle(tmp_path / "bundle", digest)
            remote = make_robot_env(SPEC, TASK, backend=backend)
            got, got_reasons = rollout(remote)
            with pytest.raises(BundleError, match=r"refused the bundle: .* announced was"):
                backend.announce_bundle(tmp_path / "bundle", "0" * 64)
    assert got_reasons == reasons
    assert len(got) == len(expected)
    for step, (a, b) in enumerate(zip(got, expected, strict=True)):
        assert a == b, f"row {step}"
