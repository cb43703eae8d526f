"""Bundles in force, on trial and before: taken, refused and rolled back between ticks."""

from __future__ import annotations

import time

import numpy as np
import pytest

from safe_rl_ros.ros.bundle_loader import Announcement
from safe_rl_ros.ros.filter_swap import BundleSwap
from safe_rl_ros.safety.action_filter import ActionFilter, CommandLimits, FilterConfig
from safe_rl_ros.types import BundleError, Selection

OBS, EXECUTED = np.zeros(2, dtype=np.float32), np.array([0.5])


class Clock:
    """Seconds; every model that is slow lets it run."""

    def __init__(self):
        self.now_s = 0.0

    def __call__(self):
        return self.now_s


class StubBundle:
    """A model with a constant risk."""

    obs_dim, act_dim, threshold = 2, 1, 0.5
    critic = object()

    def __init__(self, name, risk=0.1, takes_s=0.0, clock=None, fault=None):
        self.hash, self._risk, self._takes_s, self._clock, self.fault = name, risk, takes_s, clock, fault
        self.judged = []

    def risk(self, obs, actions):
        if self.fault is not None:
            raise self.fault
        if self._clock is not None:
            self._clock.now_s += self._takes_s
        self.judged.append(actions.copy())
        return np.full(len(actions), self._risk)

    def select(self, obs, actions, threshold, order=None):
        risks = self.risk(obs, actions)
        usable = np.isfinite(risks).any()
        return Selection(0 if usable else -1, float(risks[0]), bool(risks[0] <= threshold), len(actions))

    def sample(self, obs, n, rng):
        return np.zeros((n, 1), dtype=np.float32)

    def mean(self, obs):
        return np.zeros(1, dtype=np.float32)


@pytest.fixture
def make():
    swaps = []

    def build(*bundles, ticks=3, config=None, **keywords):
        limits = CommandLimits(*(np.array([x]) for x in (-1.0, 1.0, 1.0, 0.0)), period_s=0.1)
        config = config or FilterConfig(critic_deadline_ms=10.0, max_samples=4)
        action_filter = ActionFilter(limits, config, lambda x: x, lambda x: x)
        action_filter.activate()
        known = {bundle.hash: bundle for bundle in bundles}

        def load(announcement):
            if announcement.sha256 not in known:
                raise BundleError(f"no bundle {announcement.sha256}")
            return known[announcement.sha256]

        swap = BundleSwap(action_filter, lambda x: x, load, **keywords)
        swap.shadow_run_ticks = ticks
        swaps.append(swap)
        return swap, action_filter

    yield build
    for swap in swaps:
        swap.close()


def answered(swap, armed=True):
    """Wait for the loader's thread and take its answer."""
    deadline = time.monotonic() + 5.0
    while not swap.poll(armed):
        assert time.monotonic() < deadline, "the loader never answered"
        time.sleep(0.001)


def announce(swap, bundle_hash):
    return swap.announce(Announcement("/x", bundle_hash))


def test_first_bundle_is_taken_at_once_and_acknowledged_when_announced_again(make):
    first = StubBundle("a")
    swap, action_filter = make(first)
    assert not announce(swap, "a")
    answered(swap)
    assert action_filter.model is swap.in_force is first
    assert announce(swap, "a")


def test_second_bundle_takes_over_after_its_shadow_run_and_not_before(make):
    first, second = StubBundle("a"), StubBundle("b")
    swap, action_filter = make(first, second, ticks=3)
    swap.install(first)
    announce(swap, "b")
    answered(swap)
    assert (swap.report.trial_sha256, action_filter.model) == ("b", first)
    assert [swap.watch(OBS, EXECUTED) for _ in range(3)] == [False, False, True]
    assert action_filter.model is second
    assert swap.previous is first
    # What a veto needs: the command that was sent, then as many candidates as are drawn.
    assert [len(actions) for actions in second.judged] == [1, 4] * 3
    assert all(actions[0, 0] == 0.5 for actions in second.judged[::2])


def test_observations_that_are_not_finite_do_not_count(make):
    first, second = StubBundle("a"), StubBundle("b")
    swap, action_filter = make(first, second, ticks=1)
    swap.install(first)
    announce(swap, "b")
    answered(swap)
    assert not swap.watch(np.array([np.nan, 0.0], dtype=np.float32), EXECUTED)
    assert action_filter.model is first
    assert swap.watch(OBS, EXECUTED)


@pytest.mark.parametrize(
    ("faulty", "text"),
    [
        ({"risk": np.nan}, "answer 1 is not finite"),
        ({"takes_s": 0.0055}, "took 11.0 ms, expected at most 10 ms"),
        ({"fault": ValueError("torn")}, "ValueError: torn"),
    ],
)
def test_bundle_that_fails_its_shadow_run_is_refused_and_the_old_one_stays(make, faulty, text):
    clock = Clock()
    first, second = StubBundle("a"), StubBundle("b", clock=clock, **faulty)
    swap, action_filter = make(first, second, clock=clock)
    swap.install(first)
    announce(swap, "b")
    answered(swap)
    assert swap.watch(OBS, EXECUTED)
    assert action_filter.model is swap.in_force is first
    assert (swap.report.refused_sha256, swap.report.trial_sha256) == ("b", "")
    assert text in swap.report.refused_reason
    assert swap.previous is None


def test_disagreements_are_counted_and_refuse_nothing(make):
    first, second = StubBundle("a", risk=0.4), StubBundle("b", risk=0.6)
    swap, action_filter = make(first, second, ticks=4)
    swap.install(first)
    announce(swap, "b")
    answered(swap)
    while swap.in_force is first:
        swap.watch(OBS, EXECUTED)
    assert (swap.report.disagreements, swap.report.watched) == (4, 4)
    assert action_filter.model is second


def test_without_a_robot_to_watch_the_swap_is_immediate(make):
    first, second = StubBundle("a"), StubBundle("b")
    swap, action_filter = make(first, second)
    swap.install(first)
    announce(swap, "b")
    answered(swap, armed=False)
    assert action_filter.model is second


def test_disarming_ends_a_trial_in_favour_of_the_new_bundle(make):
    first, second = StubBundle("a"), StubBundle("b")
    swap, action_filter = make(first, second)
    swap.install(first)
    announce(swap, "b")
    answered(swap)
    swap.end_trial()
    assert action_filter.model is second
    assert not swap.watch(OBS, EXECUTED)


def test_corrupt_bundle_is_refused_with_the_loaders_reason(make):
    first = StubBundle("a")
    swap, action_filter = make(first)
    swap.install(first)
    announce(swap, "b")
    answered(swap)
    assert (swap.report.refused_sha256, swap.report.refused_reason) == ("b", "no bundle b")
    assert action_filter.model is first
    assert announce(swap, "a")  # the one in force is acknowledged, and the refusal is history
    assert swap.report.refused_reason == ""


def test_rollback_goes_back_and_forth(make):
    first, second = StubBundle("a"), StubBundle("b")
    swap, action_filter = make(first, second)
    with pytest.raises(BundleError, match="no bundle before"):
        swap.roll_back()
    swap.install(first)
    swap.install(second)
    assert [swap.roll_back() for _ in range(3)] == ["a", "b", "a"]
    assert action_filter.model is first
    assert swap.report.rollbacks == 3


def test_rollback_ends_a_trial_and_is_not_undone_by_the_old_announcement(make):
    first, second, third = StubBundle("a"), StubBundle("b"), StubBundle("c")
    swap, action_filter = make(first, second, third)
    swap.install(first)
    swap.install(second)
    announce(swap, "c")
    answered(swap)
    swap.roll_back()
    assert not swap.watch(OBS, EXECUTED)
    swap.reload()
    assert swap._loader.outstanding is None
    assert action_filter.model is first


def test_bundle_that_is_not_allowed_is_refused_in_every_way(make):
    first, second = StubBundle("a"), StubBundle("b")
    swap, action_filter = make(
        first, second, ticks=1, refuse_because=lambda bundle: "not b" if bundle.hash == "b" else ""
    )
    swap.install(first)
    with pytest.raises(BundleError, match="not b"):
        swap.install(second)
    announce(swap, "b")
    answered(swap)
    assert swap.watch(OBS, EXECUTED)
    assert swap.report.refused_reason == "not b"
    assert action_filter.model is first


def test_bundle_of_another_robot_is_refused_and_the_old_one_stays(make):
    first, wrong = StubBundle("a"), StubBundle("b")
    wrong.act_dim = 3
    swap, action_filter = make(first, wrong)
    swap.install(first)
    with pytest.raises(BundleError, match="act_dim is 3"):
        swap.install(wrong)
    assert action_filter.model is swap.in_force is first
    assert swap.previous is None


def test_nothing_is_watched_without_critics_that_count(make):
    first, blind = StubBundle("a"), StubBundle("b")
    blind.critic = None
    swap, action_filter = make(first, blind)
    swap.install(first)
    announce(swap, "b")
    answered(swap)
    assert action_filter.model is blind
    second = StubBundle("c")
    off, other_filter = make(first, second, config=FilterConfig(critic="off"))
    off.install(first)
    announce(off, "c")
    answered(off)
    assert other_filter.model is second


def test_every_change_is_told(make):
    told = []
    first, second = StubBundle("a"), StubBundle("b")
    swap, action_filter = make(first, second, on_change=lambda: told.append(action_filter.model))
    swap.install(first)
    swap.install(second)
    swap.roll_back()
    swap.remove()
    assert [getattr(model, "hash", None) for model in told] == ["a", "b", "a", None]


@pytest.mark.parametrize("last", ["a", "c"])
def test_the_last_announcement_counts(make, last):
    first, second, third = StubBundle("a"), StubBundle("b"), StubBundle("c")
    swap, action_filter = make(first, second, third, ticks=2)
    swap.install(first)
    announce(swap, "b")
    answered(swap)
    assert announce(swap, last) == (last == "a")
    assert swap.report.trial_sha256 == ""
    if last == "c":
        answered(swap)
    for _ in range(2):
        swap.watch(OBS, EXECUTED)
    assert action_filter.model.hash == last


def test_announcing_the_bundle_on_trial_again_does_not_start_it_anew(make):
    first, second = StubBundle("a"), StubBundle("b")
    swap, action_filter = make(first, second, ticks=2)
    swap.install(first)
    announce(swap, "b")
    answered(swap)
    swap.watch(OBS, EXECUTED)
    announce(swap, "b")
    assert swap.watch(OBS, EXECUTED)
    assert action_filter.model is second


@pytest.mark.parametrize("act", ["roll_back", "remove"])
def test_a_bundle_that_is_still_being_loaded_is_forgotten(make, act):
    first, second, third = StubBundle("a"), StubBundle("b"), StubBundle("c")
    swap, action_filter = make(first, second, third)
    swap.install(first)
    swap.install(second)
    announce(swap, "c")
    getattr(swap, act)()
    time.sleep(0.05)
    assert not swap.poll(True)
    assert action_filter.model is (first if act == "roll_back" else None)
