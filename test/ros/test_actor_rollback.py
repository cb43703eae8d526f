"""A bundle that is worse on the robot than the first one gives way to the last good one, in actor and filter."""

from __future__ import annotations

import json
from types import SimpleNamespace

import numpy as np
import pytest

pytest.importorskip("rclpy")
pytestmark = pytest.mark.ros

from spool_helpers import NAMES, SPEC_HASH  # noqa: E402
from test_actor import LENGTH, PERIOD_NS, FakePolicy, World, deployment, name_of  # noqa: E402

from safe_rl_ros.bundle import load_bundle, save_bundle  # noqa: E402
from safe_rl_ros.bundle.write_once import write_once  # noqa: E402
from safe_rl_ros.data.trials import Trials  # noqa: E402
from safe_rl_ros.inference import GaussianPolicy  # noqa: E402
from safe_rl_ros.ros.actor_messages import Deployment  # noqa: E402
from safe_rl_ros.ros.actor_verdicts import VerdictLog  # noqa: E402
from safe_rl_ros.ros.bundle_loader import Announcement  # noqa: E402
from safe_rl_ros.types import BundleError, EpisodeStats  # noqa: E402


class Judged(World):
    """Bundle n earns n / 10 a step, and a little less with every step, so that no two returns are equal."""

    def __init__(self, tmp_path, episodes=3, level=0.05):
        self.verdicts = []
        super().__init__(tmp_path, roll_back_episodes=episodes, roll_back_level=level)
        self.actor._acting_bundle._on_verdict = lambda *verdict: self.verdicts.append(verdict)

    def step(self, action):
        obs, _, terminated, truncated, info = super().step(action)
        info["margin"] = -1.0 if terminated else 1.0
        return obs, float(action[0]) - 1e-4 * self.step_count, terminated, truncated, info

    def deploy_at(self, episode, *digits):
        """Deploy bundles in the first step of an episode: they act from the next one on."""
        self.at_step[episode * LENGTH + 1] = [lambda d=digit: self.actor.deploy(deployment(d)) for digit in digits]

    def acted(self, episodes):
        """Return which bundle acted in each episode."""
        return "".join(episode.notes.bundle_sha256[0] for episode in self.run(episodes))


@pytest.fixture
def world(tmp_path):
    world = Judged(tmp_path)
    world.actor.deploy(deployment(5))
    return world


def test_lower_returns_lead_back_to_the_start_filter_first(world):
    world.deploy_at(2, 3)
    assert world.acted(8) == "55533355"
    assert world.log.count("filter 5") == 2
    before = world.log.index("filter 3")
    assert world.log.index("filter 5", before) > before
    [(verdict, tried)] = world.verdicts
    assert verdict.chance == pytest.approx(1 / 20)
    assert tried.acting.sha256 == name_of(3)
    report = world.actor.report
    assert (report.roll_backs, report.bundle_sha256, report.refused_sha256) == (1, name_of(5), name_of(3))
    assert "rolled back to /runs/5, as /runs/3 is worse: returns are lower" in report.refused_reason


def test_what_is_better_is_kept_and_gone_back_to(world):
    world.deploy_at(2, 6)
    world.deploy_at(5, 3)
    assert world.acted(11) == "55566633366"
    assert [verdict.worse for verdict, _ in world.verdicts] == [False, True]


def test_a_learner_that_goes_on_from_what_was_worse_is_told_so(world):
    world.deploy_at(2, 3)
    world.deploy_at(5, 7)  # deployed before the last episode of bundle 3 showed that it is worse
    assert world.acted(8) == "55533355"
    assert world.log.count("load 7") == 0
    assert world.actor.report.refused_sha256 == name_of(7)
    assert "rolled back to /runs/5" in world.actor.report.refused_reason


def test_the_first_failure_leads_back_at_once(world):
    world.deploy_at(2, 6)
    world.crash_at = 3 * LENGTH + 2
    assert world.acted(5) == "55565"
    [(verdict, _)] = world.verdicts
    assert (verdict.chance, verdict.episodes) == (None, 1)


def test_a_failure_of_the_start_leads_nowhere(world):
    world.crash_at = 2
    assert world.acted(3) == "555"
    assert world.actor.report.roll_backs == 0


def test_nothing_acts_if_the_good_one_cannot_be_used(world):
    world.deploy_at(2, 3)
    world.at_step[4 * LENGTH] = [lambda: world.bad_bundles.add(name_of(5))]
    world.turns_left = 60
    assert world.acted(9) == "555333"
    assert world.actor.report.state == "waiting"
    assert "the one to go back to cannot be used: hash differs" in world.actor.report.problem


def test_a_silent_filter_is_asked_again(world):
    world.deploy_at(2, 3)
    world.at_step[4 * LENGTH] = [lambda: setattr(world, "filter_silent", True)]
    world.at_step["wait"] = []
    original = world.announce_bundle

    def answer_the_third_time(path, sha256, timeout_s):
        if world.log.count("filter 5") == 3:
            world.filter_silent = False
        original(path, sha256, timeout_s)

    world.announce_bundle = answer_the_third_time
    assert world.acted(7) == "5553335"
    assert world.log.count("filter 5") == 4


def test_episodes_that_a_human_took_part_in_are_not_counted(world):
    world.deploy_at(2, 3)
    world.takeover._timeout_ns = PERIOD_NS  # one step of the episode is the human's, not its last
    world.at_step[3 * LENGTH + 2] = [lambda: world.takeover.take(world.takeover.stop, world.now_ns)]
    assert world.acted(9) == "555333355"


def test_without_the_setting_nothing_is_judged(tmp_path):
    world = Judged(tmp_path, episodes=0)
    world.actor.deploy(deployment(5))
    world.deploy_at(2, 3)
    assert world.acted(8) == "55533333"


def test_verdicts_are_written_down(tmp_path, caplog):
    trials = Trials(1, 0.5)
    trials.begin("start")
    first = trials.add("second", EpisodeStats(1.0, 5, False, 0, 0))
    second = trials.add("third", EpisodeStats(1.0, 5, True, 0, 0))
    log = VerdictLog(tmp_path / "verdicts.jsonl")
    log.add(first, deployment(1))
    log.add(second, deployment(2))
    kept, back = (json.loads(line) for line in log.path.read_text().splitlines())
    assert (kept["verdict"], kept["networks"], kept["path"], kept["start_return_mean"]) == (
        "kept",
        "second",
        "/runs/1",
        None,
    )
    assert (back["verdict"], back["back_to"], back["bundle_sha256"]) == ("rolled back", "second", name_of(2))
    VerdictLog(tmp_path / "nowhere" / "verdicts.jsonl").add(first, deployment(1))
    assert "cannot be written" in caplog.text


def test_a_refusal_by_the_filter_of_what_is_gone_back_to_is_no_way_to_act_on(world):
    world.deploy_at(2, 3)
    world.at_step[4 * LENGTH] = [lambda: world.refused_by_filter.add(name_of(5))]
    world.turns_left = 60
    assert world.acted(9) == "555333"
    with pytest.raises(BundleError):
        world.announce_bundle("/runs/5", name_of(5), 1.0)


class Learner:
    """Deploys networks that earn ``digit`` / 10 a step as real bundles, each time with another date."""

    def __init__(self, world, directory):
        self.world, self.directory, self.second, self.digits = world, directory, 0, {}
        world.actor._acting_bundle._load = self.load

    def policy(self, digit):
        arrays = {"weight_0": np.zeros((2, 1)), "bias_0": np.zeros(1), "weight_1": np.zeros((1, 2))}
        arrays |= {"bias_1": np.full(2, digit / 10), "log_std": np.zeros(2)}
        meta = {"kind": "gaussian_policy", "obs_dim": 2, "act_dim": 2, "hidden": [1], "state_dependent_std": False}
        return GaussianPolicy.from_arrays(arrays, meta)

    def deploy(self, epoch, digit):
        self.second += 1
        keys = {"threshold": None, "threshold_mode": "fixed", "algorithm": "trpo"}
        keys |= {"spec_hash": SPEC_HASH, "obs_names": NAMES, "created": f"2026-01-01T00:00:{self.second:02d}+00:00"}
        placed = write_once(
            self.directory / f"epoch_{epoch:05d}",
            lambda path: save_bundle(path, self.policy(digit), None, **keys),
            lambda path: load_bundle(path, spec_hash=SPEC_HASH, obs_names=NAMES),
        )
        self.digits[placed.bundle.hash] = digit
        self.world.actor.deploy(Deployment(Announcement(str(placed.path), placed.bundle.hash), None))

    def load(self, deployed):
        """Verify as the actor does."""
        path, sha256 = deployed.acting.path, deployed.acting.sha256
        bundle = load_bundle(path, spec_hash=SPEC_HASH, obs_names=NAMES, expected_hash=sha256)
        return SimpleNamespace(policy=FakePolicy(self.digits[sha256] / 10), hash=sha256, manifest=bundle.manifest)


def test_a_learner_that_was_resumed_in_between_does_not_bar_the_way_back(tmp_path):
    world = Judged(tmp_path)
    learner = Learner(world, tmp_path / "bundles")
    learner.deploy(0, 5)
    world.at_step[2 * LENGTH + 1] = [lambda: learner.deploy(1, 6)]
    # Killed while 6 is tried, and resumed from a checkpoint of epoch 0: what it learns from there on is another policy.
    world.at_step[4 * LENGTH + 1] = [lambda: learner.deploy(0, 5), lambda: learner.deploy(1, 3)]
    assert "".join(str(learner.digits[each.notes.bundle_sha256]) for each in world.run(9)) == "555663335"
    assert world.actor.report.roll_backs == 1
    gone, back = (tmp_path / "bundles" / name for name in ("epoch_00001_02", "epoch_00000"))
    assert f"rolled back to {back}, as {gone} is worse" in world.actor.report.refused_reason
    assert sorted(path.name for path in back.parent.iterdir()) == ["epoch_00000", "epoch_00001", "epoch_00001_02"]
