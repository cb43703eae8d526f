"""The policy node: it proposes what its bundle's policy says of the filter's own observation, or nothing at all."""

from __future__ import annotations

import subprocess
import sys
import time
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("rclpy")
pytestmark = pytest.mark.ros

from geometry_msgs.msg import TwistStamped  # noqa: E402
from ros_helpers import GOAL, OBSERVER, PERIOD_NS, SPEC, bench, make_state, write_bundle  # noqa: E402
from std_msgs.msg import Float64MultiArray  # noqa: E402

from safe_rl_ros.algorithms import OFFLINE_ALGORITHMS  # noqa: E402
from safe_rl_ros.bundle import load_bundle, save_bundle  # noqa: E402
from safe_rl_ros.envs.observation import CommandMap  # noqa: E402
from safe_rl_ros.messages.readers import read_stamp  # noqa: E402
from safe_rl_ros.policies import DiffusionPolicy  # noqa: E402
from safe_rl_ros.ros import qos  # noqa: E402
from safe_rl_ros.ros.bundle_loader import Announcement, load_and_warm_up  # noqa: E402
from safe_rl_ros.ros.conversions import CandidateCodec, make_command_codec  # noqa: E402
from safe_rl_ros.ros.policy_node import PolicyNode  # noqa: E402
from safe_rl_ros.ros.proposer import Proposer, WithheldError  # noqa: E402
from safe_rl_ros.safety.contracts import FilterConfig  # noqa: E402
from safe_rl_ros.types import BundleError, ConfigError  # noqa: E402

S = 1_000_000_000
MAPS = CommandMap(SPEC)
SMALL = {
    "bc": {},
    "fisor": {"actor_width": 8, "time_width": 8, "time_features": 4},
    "bcq": {"vae_hidden": [8]},
    "qt_opt": {},
}
KINDS = {"bc": "gaussian_policy", "fisor": "diffusion", "bcq": "perturbed_vae", "qt_opt": "cem"}


def make_bundle(directory, name):
    """Write the bundle of an untrained offline learner; return it."""
    config_class, learner = OFFLINE_ALGORITHMS[name]
    config = config_class(name=name, hidden=[8], **SMALL[name])
    untrained = learner(config, OBSERVER.obs_dim, SPEC.act_dim, 3)
    notes = {"threshold": untrained.threshold, "threshold_mode": "fixed", "algorithm": name}
    keys = {"spec_hash": SPEC.hash, "obs_names": OBSERVER.names}
    save_bundle(directory, untrained.policy(), untrained.critic(), **notes, **keys)
    return load_bundle(directory, **keys)


def ranges_of(seed):
    return np.random.default_rng(seed).uniform(0.3, 3.0, SPEC.sensors.scan.rays).astype(np.float32)


class Listener:
    """Keeps what the node proposes and gives it what it needs."""

    def __init__(self, setup):
        self.setup, self.harness = setup, setup.harness
        codec, lists = make_command_codec(SPEC), CandidateCodec(("linear_x", "angular_z"), 100)
        self.proposals, self.lists = [], []
        self.harness.create_subscription(
            TwistStamped,
            "safety_filter/proposed",
            lambda m: self.proposals.append((read_stamp(m.header.stamp), codec.read(m).tolist())),
            100,
        )
        self.harness.create_subscription(
            Float64MultiArray, "safety_filter/candidates", lambda m: self.lists.append(lists.read(m)), qos.command()
        )

    @property
    def told(self):
        return self.harness.diagnostics.get("/policy", {})

    def feed(self, until, stamps, seconds=5.0, goal=True, **changes):
        """Publish states (and the goal) every half period until the condition holds; return whether it does."""
        for _ in range(round(seconds * 2e9 / PERIOD_NS)):
            stamp = next(stamps)
            if goal:
                self.harness.publish_goal(stamp)
            self.harness.publish_state(make_state(stamp, **changes))
            if self.setup.run(until, PERIOD_NS * 0.5e-9):
                return True
        return False


@pytest.fixture
def stamps():
    return iter(range(S, 10**15, PERIOD_NS // 2))


@pytest.mark.parametrize("name", sorted(SMALL))
def test_proposes_what_the_policy_says_whatever_its_kind(name, tmp_path, stamps):
    bundle = make_bundle(tmp_path / "bundle", name)
    parameters = {"bundle": str(tmp_path / "bundle"), "bundle_sha256": bundle.hash}
    with bench(PolicyNode, parameters) as setup:
        listener = Listener(setup)
        ranges = ranges_of(1)
        assert listener.feed(lambda: len(listener.proposals) >= 3, stamps, ranges=ranges)
        expected = MAPS.to_command(np.clip(bundle.mean(OBSERVER.observe(make_state(S, ranges=ranges), GOAL)), -1, 1))
        for stamp, command in listener.proposals[-2:]:
            assert command == pytest.approx(expected.tolist(), abs=1e-5)
            assert stamp % (PERIOD_NS // 2) == 0
            assert stamp >= S, "the stamp is that of the state which it answers"
        assert listener.feed(lambda: listener.told.get("message") == "proposing", stamps, ranges=ranges)
        assert (listener.told["policy"], listener.told["bundle_sha256"]) == (KINDS[name], bundle.hash)
        begin = len(listener.proposals)
        setup.node.send_stop()
        assert setup.run(lambda: [0.0, 0.0] in [command for _, command in listener.proposals[begin:]])


def test_proposes_nothing_without_goal_with_old_or_unusable_observations_and_says_why(tmp_path, stamps):
    write_bundle(tmp_path / "bundle")
    with bench(PolicyNode, {"bundle": str(tmp_path / "bundle")}) as setup:
        listener = Listener(setup)

        def says(text):
            return lambda: text in listener.told.get("message", "")

        assert setup.run(says("nothing is proposed: waiting for odom, scan, joint_states"))
        assert listener.feed(says("nothing is proposed: waiting for goal_pose"), stamps, goal=False)
        assert listener.proposals == []
        assert listener.feed(lambda: len(listener.proposals) >= 2, stamps)
        assert setup.run(says("nothing is proposed: too old: odom, scan, joint_states"))
        setup.settle(0.3)
        count = len(listener.proposals)
        broken = ranges_of(0)
        broken[0] = np.nan
        assert listener.feed(says("the observation is not finite: closeness_"), stamps, ranges=broken)
        position = np.array([np.inf, 0.0, 0.0])
        assert listener.feed(says("not finite: goal_cos, goal_sin, goal_distance"), stamps, position=position)
        messages = setup.harness._states
        messages.write(make_state(next(stamps)))
        messages.scan.ranges = messages.scan.ranges[:5]
        setup.harness.scan.publish(messages.scan)
        assert setup.run(lambda: int(listener.told["dropped_messages"]) == 1)
        assert len(listener.proposals) == count, "something was proposed all the same"
        assert listener.feed(lambda: len(listener.proposals) > count, stamps)


def test_lockstep_answers_each_state_once_and_again_when_asked_again(tmp_path):
    bundle = make_bundle(tmp_path / "bundle", "bc")
    parameters = {"bundle": str(tmp_path / "bundle"), "timing": "lockstep", "sample": True, "seed": 5}
    same = Proposer(bundle, OBSERVER, MAPS, sample=True, list_size=0, seed=5)
    with bench(PolicyNode, parameters) as setup:
        listener, harness = Listener(setup), setup.harness
        for index in range(1, 5):
            stamp, state = index * S, make_state(index * S, ranges=ranges_of(index))
            harness.publish_state(state)
            if index <= 2:
                setup.settle(0.3)
                assert listener.proposals == [], "the goal of this stamp is missing, whatever came before"
            harness.publish_goal(stamp)
            assert setup.run(lambda stamp=stamp: stamp in [at for at, _ in listener.proposals])
            expected = same.propose(state, GOAL)[0].tolist()
            assert listener.proposals == [(stamp, pytest.approx(expected))]
            harness.publish_state(state, only=("scan",))
            assert setup.run(lambda: len(listener.proposals) == 2)
            assert listener.proposals[0] == listener.proposals[1]
            listener.proposals.clear()


def test_lists_candidates_with_the_proposal_first(tmp_path, stamps):
    bundle = make_bundle(tmp_path / "bundle", "bc")
    with bench(PolicyNode, {"bundle": str(tmp_path / "bundle"), "list_size": 6}) as setup:
        listener = Listener(setup)
        assert listener.feed(lambda: len(listener.lists) >= 2, stamps)
        expected = MAPS.to_command(bundle.mean(OBSERVER.observe(make_state(S), GOAL)))
        for rows in listener.lists:
            assert rows.shape == (6, 2)
            assert rows[0] == pytest.approx(expected, abs=1e-5)
            assert len(np.unique(rows, axis=0)) == 6
            assert (rows >= SPEC.command_lower).all()
            assert (rows <= SPEC.command_upper).all()
        assert listener.proposals == [], "the list's first row is the proposal"


@pytest.mark.parametrize(
    ("parameters", "error", "problem"),
    [
        ({"bundle": ""}, ConfigError, "parameter bundle is empty"),
        ({"bundle": "{bundle}", "bundle_sha256": "0" * 64}, BundleError, "announced was 0000"),
        ({"bundle": "{bundle}", "robot": "jackal", "task": "jackal_nav"}, ConfigError, "jackal"),
        ({"bundle": "{bundle}", "robot": "arm", "task": "joint_hold"}, BundleError, "is for the robot spec"),
        ({"bundle": "{bundle}", "timing": "lockstep", "list_size": 4}, ConfigError, "a list of candidates has no"),
    ],
)
def test_refuses_what_does_not_fit(parameters, error, problem, tmp_path):
    write_bundle(tmp_path / "bundle")
    given = {key: str(tmp_path / "bundle") if value == "{bundle}" else value for key, value in parameters.items()}
    with pytest.raises(error, match=problem), bench(PolicyNode, given):
        pass


def test_a_policy_that_fails_or_is_too_slow_is_refused_or_says_nothing(tmp_path):
    write_bundle(tmp_path / "bundle")
    bundle = load_bundle(tmp_path / "bundle", spec_hash=SPEC.hash, obs_names=OBSERVER.names)
    proposer = Proposer(bundle, OBSERVER, MAPS, sample=False, list_size=0, seed=0)
    with pytest.raises(BundleError, match="expected at most the control period of 0 ms"):
        proposer.warm_up(0.0)
    state = make_state(S)
    for answer, text in ((np.full(2, np.nan), "not finite"), (None, "the policy failed: TypeError")):
        broken = Proposer(bundle, OBSERVER, MAPS, sample=False, list_size=0, seed=0)
        broken._policy = type("Broken", (), {"mean": lambda self, obs, answer=answer: answer + np.zeros(2)})()
        with pytest.raises(WithheldError, match=text):
            broken.propose(state, GOAL)
    with pytest.raises(WithheldError, match="there is no goal"):
        proposer.propose(state, None)


def test_filter_refuses_a_policy_too_slow_to_be_sampled_within_the_deadline(tmp_path, monkeypatch):
    digest = make_bundle(tmp_path / "bundle", "fisor").hash
    given = (Announcement(str(tmp_path / "bundle"), digest), SPEC.hash, OBSERVER.names)
    deadline = {"critic_deadline_ms": 60.0, "max_samples": 16}
    inner = DiffusionPolicy.sample

    def slow(self, *arguments):
        time.sleep(0.08)
        return inner(self, *arguments)

    def load(candidates):
        return load_and_warm_up(given[0], FilterConfig(candidates=candidates, **deadline), *given[1:]).hash

    assert load("actor") == digest
    monkeypatch.setattr(DiffusionPolicy, "sample", slow)
    with pytest.raises(BundleError, match=r"policy and critic take .* for 16 candidates.*lower max_samples"):
        load("actor")
    assert load("around") == digest, "nothing is drawn from the policy"


def test_security_policy_gives_the_node_what_it_uses(tmp_path):
    write_bundle(tmp_path / "bundle")
    tree = ElementTree.parse(Path(__file__).resolve().parents[2] / "config" / "security" / "policy.xml")
    (profile,) = [item for item in tree.iter("profile") if item.get("node") == "policy"]
    allowed = {
        verb: {topic.text for group in profile.findall("topics") if group.get(verb) for topic in group}
        for verb in ("publish", "subscribe")
    }
    with bench(PolicyNode, {"bundle": str(tmp_path / "bundle"), "list_size": 3}) as setup:
        node = setup.node
        assert {publisher.topic_name.lstrip("/") for publisher in node.publishers} <= allowed["publish"]
        assert {reader.topic_name.lstrip("/") for reader in node.subscriptions} <= allowed["subscribe"]


def test_needs_no_torch():
    script = "import sys, safe_rl_ros.ros.policy_node; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], timeout=60, check=False).returncode == 0
