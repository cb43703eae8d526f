"""An epoch out of spooled episodes: what counts as the policy's own, what goes beside it, and nothing lost or twice."""

from __future__ import annotations

import logging

import numpy as np
import pytest
from spool_helpers import make_episode, make_reader

from safe_rl_ros.algorithms import ALGORITHMS
from safe_rl_ros.data.spool import SpoolDiskError, SpoolReader, SpoolWriter
from safe_rl_ros.training.gathering import DISK_POLLS, Gatherer, learns_from_any_policy
from safe_rl_ros.types import BackendError, Reason


def gather(directory, *, any_policy=False):
    return Gatherer(make_reader(directory), any_policy=any_policy)


def never(wait):
    """Take a turn in which nothing has to be waited for."""
    assert not wait, "the episodes that are there were not enough"


def spool(directory, *episodes):
    writer = SpoolWriter(directory)
    for episode in episodes:
        writer.write(episode)
    return writer


def test_rows_of_the_deployed_networks_make_the_rollout_in_whole_episodes(tmp_path):
    spool(
        tmp_path,
        make_episode(0, 3, networks="old"),
        make_episode(1, 2, networks="A", ending="terminated", margins=[1, -1]),
        make_episode(2, 4, networks="A", takeover=[0, 1, 1, 0]),
        make_episode(3, 5, networks="A", ending="paused"),
        make_episode(4, 6, networks="A"),
    )
    gatherer = gather(tmp_path)
    rollout = gatherer.collect("A", 5, never)
    # 2 + 2 of 4 + 5: the first three episodes hold four own rows, the fourth makes it nine.
    assert rollout.batch.obs[:, 0].tolist() == [0, 1, 0, 3, 0, 1, 2, 3, 4]
    assert rollout.batch.truncated.tolist() == [False, False, True, True, False, False, False, False, True]
    assert rollout.aside.obs[:, 0].tolist() == [0, 1, 2, 1, 2]
    assert rollout.aside.truncated.tolist() == [False, False, True, False, True]
    assert [stats.length for stats in rollout.episodes] == [2, 2]
    assert [end.step for end in rollout.ends] == [2, 4]
    assert (rollout.cut, rollout.violations, rollout.vetoes) == (1, 1, 3)
    assert (rollout.stats.episodes, rollout.stats.failures) == (3, 1)
    assert rollout.counts == {
        "actor/older_rows": 3,
        "actor/older_failures": 0,
        "actor/takeover_rows": 2,
        "actor/refused_episodes": 0,
        "actor/episodes_waiting": 1,
    }
    assert len(rollout.latencies_s) == 9
    assert gatherer.next_number == 4


def test_a_learner_from_the_buffer_counts_every_policys_rows_but_no_humans(tmp_path):
    spool(tmp_path, make_episode(0, 3, networks="old"), make_episode(1, 2, networks="older", takeover=[0, 1]))
    rollout = gather(tmp_path, any_policy=True).collect("A", 4, never)
    assert rollout.batch.obs[:, 0].tolist() == [0, 1, 2, 0]
    assert rollout.aside.obs[:, 0].tolist() == [1]
    assert rollout.counts["actor/older_rows"] == 0


def test_which_algorithms_learn_from_any_policy():
    found = {name for name, (config, _) in ALGORITHMS.items() if learns_from_any_policy(config(name=name))}
    assert found == {"sac", "wcsac", "sqrl", "recovery_rl", "reachability"}


def test_nothing_is_taken_when_a_turn_raises_and_a_restart_goes_on_where_it_was(tmp_path):
    writer = spool(tmp_path, make_episode(0, 2), make_episode(1, 2))
    gatherer = gather(tmp_path)
    waited = []

    def turn(wait):
        waited.append(wait)
        if wait:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        gatherer.collect("A", 5, turn)
    assert waited == [False, False, True]
    assert gatherer.next_number == 0
    first = gatherer.collect("A", 2, never)
    state = gatherer.state()
    writer.write(make_episode(2, 3))
    again = gather(tmp_path)
    again.restore(state)
    second = again.collect("A", 4, never)
    assert (len(first.batch), len(second.batch)) == (2, 5)
    assert again.next_number == 3


def test_states_of_other_sessions_are_refused_and_none_begins_at_the_first_episode(tmp_path):
    gatherer = gather(tmp_path)
    with pytest.raises(ValueError, match="keeps 'next_episode', got"):
        gatherer.restore({"rng": np.zeros(1)})
    gatherer.restore({})
    assert gatherer.next_number == 0


def test_a_damaged_episode_is_left_out_with_an_error(tmp_path, caplog):
    spool(tmp_path, make_episode(0, 2), make_episode(1, 2), make_episode(2, 2))
    (tmp_path / "episode_00000001.npz").write_bytes(b"PK nothing")
    with caplog.at_level(logging.ERROR):
        rollout = gather(tmp_path).collect("A", 4, never)
    assert len(rollout.batch) == 4
    assert rollout.counts["actor/refused_episodes"] == 1
    assert "episode_00000001.npz" in caplog.text


def failing(monkeypatch, method, times):
    """Have a method of the reader fail so often, as a disk that does not answer."""
    original, left = getattr(SpoolReader, method), [times]

    def look(self, *arguments):
        if left[0]:
            left[0] -= 1
            raise SpoolDiskError("episode_00000000.npz cannot be read: Input/output error")
        return original(self, *arguments)

    monkeypatch.setattr(SpoolReader, method, look)


def polls(waited):
    """Return a turn that notes whether it waits, and ends the test where it would wait for ever."""

    def turn(wait):
        waited.append(wait)
        assert len(waited) < 3 * DISK_POLLS, "waits for ever"

    return turn


@pytest.mark.parametrize("method", ["read", "first_from", "waiting"])
def test_a_disk_that_does_not_answer_for_a_while_costs_no_episode(tmp_path, monkeypatch, caplog, method):
    spool(tmp_path, make_episode(0, 2), make_episode(1, 3))
    failing(monkeypatch, method, DISK_POLLS - 1)
    waited = []
    rollout = gather(tmp_path).collect("A", 5, polls(waited))
    assert len(rollout.batch) == 5
    assert rollout.counts["actor/refused_episodes"] == 0
    assert waited.count(True) == DISK_POLLS - 1, "once per poll, not in a loop of its own"
    assert caplog.text == ""


@pytest.mark.parametrize("method", ["read", "first_from", "waiting"])
def test_what_the_disk_never_gives_ends_the_epoch_and_nothing_is_taken_or_skipped(tmp_path, monkeypatch, method):
    spool(tmp_path, make_episode(0, 2), make_episode(1, 3))
    failing(monkeypatch, method, DISK_POLLS)
    gatherer = gather(tmp_path)
    with pytest.raises(SpoolDiskError, match=rf"Input/output error \({DISK_POLLS} times in a row\)"):
        gatherer.collect("A", 5, polls([]))
    assert gatherer.next_number == 0
    assert len(gatherer.collect("A", 5, never).batch) == 5  # and now it does


def test_an_emptied_spool_goes_on_with_the_next_number(tmp_path):
    writer = spool(tmp_path, make_episode(0, 2), make_episode(1, 2))
    gatherer = gather(tmp_path)
    gatherer.collect("A", 4, never)
    writer.close()
    for path in tmp_path.glob("episode_*"):
        path.unlink()
    again = SpoolWriter(tmp_path)

    def turn(wait):
        if wait:  # the next episode comes only now
            again.write(make_episode(again.next_number, 3))

    assert len(gatherer.collect("A", 3, turn).batch) == 3
    assert gatherer.next_number == 3


@pytest.mark.parametrize("there", [0, 1])
def test_a_spool_that_counts_from_a_lower_number_is_an_error_and_not_a_wait(tmp_path, there):
    spool(tmp_path / "old", make_episode(0, 2), make_episode(1, 2)).close()
    gatherer = gather(tmp_path / "old")
    gatherer.collect("A", 4, never)
    spool(tmp_path / "new", *(make_episode(number, 2) for number in range(there))).close()
    again = gather(tmp_path / "new")
    again.restore(gatherer.state())
    with pytest.raises(BackendError) as info:
        again.collect("A", 2, polls([]))
    assert f"its next episode is {there}, and the learner's is 2" in str(info.value)
    assert f"write 2 into {tmp_path / 'new' / '.next'}" in str(info.value)
    assert again.next_number == 2
    (tmp_path / "new" / ".next").write_text("2\n")  # as it says
    writer = SpoolWriter(tmp_path / "new")
    writer.write(make_episode(writer.next_number, 2))
    assert len(again.collect("A", 2, never).batch) == 2


def test_shadow_vetoes_are_counted_on_own_rows(tmp_path):
    shadow = Reason.SHADOW_VETO.value
    spool(tmp_path, make_episode(0, 3, reasons=[shadow, shadow, 0], takeover=[0, 1, 0]))
    assert gather(tmp_path).collect("A", 1, never).shadow_vetoes == 1
