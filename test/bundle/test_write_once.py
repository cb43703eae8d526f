"""A bundle that others were told of stays as it is: the same networks are found again, others get another name."""

from __future__ import annotations

import shutil

import pytest
from bundle_helpers import KEYS, make_policy, write

from safe_rl_ros.bundle import load_bundle
from safe_rl_ros.bundle.write_once import write_once
from safe_rl_ros.types import BundleError


def put(target, seed=0, second=0, **changes):
    """Write the networks of a seed, with another date by the second; return what was made of it."""
    again = changes.pop("again", False)
    created = f"2026-01-01T00:00:{second:02d}+00:00"
    return write_once(
        target,
        lambda path: write(path, make_policy(seed), created=created, **changes),
        lambda path: load_bundle(path, **KEYS),
        again=again,
    )


def content(directory):
    return {path.name: path.read_bytes() for path in directory.iterdir()}


@pytest.fixture
def target(tmp_path):
    return tmp_path / "bundles" / "epoch_00007"


def test_the_same_networks_are_found_again_untouched(target):
    first = put(target)
    assert (first.path, first.found) == (target, False)
    before = content(target)
    second = put(target, second=1)
    assert (second.path, second.found) == (target, True)
    assert second.bundle.hash == first.bundle.hash
    assert content(target) == before
    assert [path.name for path in target.parent.iterdir()] == ["epoch_00007"]


@pytest.mark.parametrize("changes", [{"seed": 1}, {"threshold": 0.5}, {"critic": None}])
def test_other_networks_or_another_threshold_get_another_name(target, changes):
    first = put(target)
    before = content(target)
    second = put(target, second=1, **changes)
    assert (second.path.name, second.found) == ("epoch_00007_02", False)
    assert second.bundle.hash != first.bundle.hash
    assert content(target) == before
    assert put(target, second=2).path == target
    assert put(target, second=2, **changes).path == second.path


def test_the_newest_of_several_is_found_and_another_can_be_asked_for(target):
    put(target)
    third = [put(target, second=second, again=True) for second in (1, 2)][-1]
    assert (third.path.name, third.found) == ("epoch_00007_03", False)
    assert put(target, second=3).path == third.path
    shutil.rmtree(target)
    assert put(target, seed=1).path.name == "epoch_00007_04", "a name that was given is not given again"


def test_a_damaged_one_is_left_as_it_is_and_not_used_again(target, caplog):
    put(target)
    (target / "weights.safetensors").write_bytes(b"nothing")
    before = content(target)
    again = put(target, second=1)
    assert (again.path.name, again.found) == ("epoch_00007_02", False)
    assert content(target) == before
    assert "weights.safetensors is damaged" in caplog.text


def test_longer_numbers_and_other_names_are_not_mixed_up(target):
    for name in ("epoch_000071", "epoch_00007_x", "recovery_00007", ".epoch_00007_05.tmp"):
        put(target.with_name(name))
    assert put(target, second=1).path == target


def test_networks_that_cannot_be_written_leave_nothing(target):
    with pytest.raises(BundleError, match="threshold is nan"):
        put(target, threshold=float("nan"))
    assert not target.exists()
