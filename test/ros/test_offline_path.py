"""From a robot's bags to a filtered policy, as the README has it: the same commands, small, in processes over DDS."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("rclpy")
pytestmark = [pytest.mark.ros, pytest.mark.patient]

from ros_helpers import start_twin  # noqa: E402
from typer.testing import CliRunner  # noqa: E402

from safe_rl_ros.bags.bag_topics import load_contract  # noqa: E402
from safe_rl_ros.bags.reader import BagReader  # noqa: E402
from safe_rl_ros.bundle import load_as_is  # noqa: E402
from safe_rl_ros.cli.app import app  # noqa: E402
from safe_rl_ros.data.containers import load_dataset  # noqa: E402
from safe_rl_ros.messages.decision_record import DecisionRecord  # noqa: E402
from safe_rl_ros.ros.supervisor import Supervisor, child_environment, ros_arguments  # noqa: E402
from safe_rl_ros.types import Reason  # noqa: E402

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
CONTRACT = "rover_twin"
PASSED, VETOED = {Reason.ACCEPTED, Reason.SHAPED}, {Reason.NEAREST_SAFE, Reason.LEAST_RISK}
TINY = ("training.total_steps=40", "training.steps_per_epoch=20", "data.evaluate_every=0", "algorithm.batch_size=32")
TINY_FISOR = ("algorithm.hidden=[16]", "algorithm.actor_width=16", "algorithm.actor_batch_size=32")


def command(*arguments):
    """Run safe-rl-ros in this process; return what it said."""
    result = CliRunner().invoke(app, [str(argument) for argument in arguments], terminal_width=120)
    assert result.exit_code == 0, result.output
    return result.output


def example(domain_id, name, *arguments):
    """Run an example in a process of its own; return the sums that it ends with."""
    environment = child_environment(domain_id)
    environment.pop("PYTHONSAFEPATH", None)  # an example imports what lies beside it
    process = subprocess.run(
        [sys.executable, str(EXAMPLES / f"{name}.py"), *map(str, arguments)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert process.returncode == 0, process.stdout + process.stderr
    return json.loads(process.stderr.strip().splitlines()[-1])


def start_recorder(processes, directory):
    values = {"contract": CONTRACT, "directory": str(directory)}
    processes.start("recorder", "safe_rl_ros.ros.recorder_node", ros_arguments(values))


def wait_for_line(log, text, timeout_s=60.0):
    """Wait until the log of a process holds ``text``."""
    deadline = time.monotonic() + timeout_s
    while text not in log.read_text():
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.05)


def record_driver(tmp_path, domain_id):
    """Record the mediocre driver straight on the twin; return the bag and the driver's own sums."""
    with Supervisor(domain_id, tmp_path / "log") as processes:
        start_twin(processes)
        start_recorder(processes, tmp_path / "bags")
        sums = example(domain_id, "mediocre_driver", "--episodes", 5, "--attention", 0.6)
        assert processes.end("recorder") == 0
    assert "recording: every topic that is needed was heard" in (tmp_path / "log" / "recorder.log").read_text()
    (bag,) = (tmp_path / "bags").iterdir()
    return bag, sums


def deploy(tmp_path, domain_id, threshold):
    """Let the policy drive behind the filter with the critic, by the contract; return the bag of it and the sums."""
    contract = load_contract(CONTRACT)
    common = {"robot": str(contract.robot_file), "task": str(contract.task_file), "timing": "lockstep"}
    bundle = {"bundle": str(tmp_path / "robot" / "bundle")}
    filtering = {"candidates": "around", "autostart": True}
    filtering |= {"threshold_enabled": True, "threshold": threshold, "critic_deadline_ms": 1000.0}
    nodes = {
        "safety_filter": {**common, **bundle, **filtering},
        "policy": {**common, **bundle},
    }
    with Supervisor(domain_id, tmp_path / "log") as processes:
        start_twin(processes)
        start_recorder(processes, tmp_path / "flight")
        wait_for_line(tmp_path / "log" / "recorder.log", "no message yet on")  # it listens before anyone speaks
        for name, values in nodes.items():
            arguments = ros_arguments(values, remappings=contract.remappings())
            processes.start(name, f"safe_rl_ros.ros.{name}_node", arguments)
        sums = example(domain_id, "give_goals", "--episodes", 2, "--seed", 20)
        processes.check()
        for name in ("recorder", "policy", "safety_filter"):
            assert processes.end(name) == 0
    (bag,) = (tmp_path / "flight").iterdir()
    return bag, sums


def decisions_of(bag):
    with BagReader(bag) as reader:
        record = DecisionRecord(("linear_x", "angular_z"))
        return [record.read(reader.read(message)) for message in reader.messages(["/safety_filter/decisions"])]


@pytest.mark.timeout(400)  # six processes start one after another, slowly where others compute
def test_bags_become_a_policy_that_drives_behind_a_veto_critic(tmp_path, ros_domain_id):
    bag, driven = record_driver(tmp_path, ros_domain_id)
    drives = tmp_path / "drives"
    command("import-bag", bag, "--contract", CONTRACT, "-o", drives)
    info, episodes = load_dataset(drives)
    episodes = list(episodes)
    assert len(episodes) == driven["episodes"] == 5
    assert sum(len(episode) for episode in episodes) == driven["steps"]
    assert sum(episode.terminated for episode in episodes) == driven["collisions"] > 0
    assert info.robot_spec_hash == load_contract(CONTRACT).spec.hash

    data = ("--task", "hazard_nav", "--data", drives, "--runs", tmp_path / "runs", *TINY)
    command("train", "--algorithm", "fisor", *data, *TINY_FISOR, "name=policy")
    command("train", "--algorithm", "safety_critic", *data, "name=critic")
    runs, target = tmp_path / "runs", tmp_path / "robot" / "bundle"
    command("export", runs / "policy", "--critic", runs / "critic", "-o", target)
    policy, critic, robot = (load_as_is(path) for path in (runs / "policy/bundle", runs / "critic/bundle", target))
    parts = robot.component_hashes()
    assert (parts.policy, parts.critic) == (policy.component_hashes().policy, critic.component_hashes().critic)
    assert (robot.manifest.policy["kind"], robot.threshold) == ("diffusion", critic.threshold)
    assert policy.critic is not None, "FISOR's own bundle carries its Q_h"
    assert policy.component_hashes().critic != parts.critic

    # So small a critic knows nothing yet: half of what the driver did is above this threshold.
    rows = [(o, a) for episode in episodes for o, a in zip(episode.obs, episode.action, strict=False)][::20]
    threshold = float(np.median([robot.risk(o, a[None])[0] for o, a in rows]))
    flight, filtered = deploy(tmp_path, ros_domain_id, threshold)
    decisions = decisions_of(flight)
    reasons = {decision.reason for decision in decisions}
    assert reasons & PASSED, reasons
    assert reasons & VETOED, reasons
    assert reasons <= PASSED | VETOED
    assert {decision.bundle_hash for decision in decisions} == {robot.hash[:12]}
    assert len(decisions) >= filtered["steps"] > 50

    command("import-bag", flight, "--contract", CONTRACT, "-o", tmp_path / "filtered")
    _, again = load_dataset(tmp_path / "filtered")
    again = list(again)
    assert sum(len(episode) for episode in again) == filtered["steps"]
    assert 0 < sum(int(episode.intervened.sum()) for episode in again) < filtered["steps"]
    speeds = np.concatenate([np.abs(episode.obs[:, 3]) for episode in again])
    assert speeds.max() > 0.1, "the robot moved"
