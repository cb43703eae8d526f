"""Bundles: what is written is what is read, whole or not at all."""

from __future__ import annotations

import ctypes
import math
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from bundle_helpers import (
    ACT,
    KEYS,
    MEMBERS,
    NAMES,
    NORMALISER,
    OBS,
    SPEC,
    make_critic,
    make_policy,
    write,
)

from safe_rl_ros.bundle import load_as_is, load_bundle, read_manifest, storage
from safe_rl_ros.bundle.manifest import sha256
from safe_rl_ros.types import BundleError


@pytest.fixture
def saved(tmp_path):
    write(tmp_path / "bundle")
    return tmp_path / "bundle"


# --- what is written is what is read -----------------------------------------------------------------------------


def test_round_trip(tmp_path):
    policy, critic = make_policy(), make_critic()
    digest = write(tmp_path / "a" / "b", policy, critic, extra={"epoch": 3})
    bundle = load_bundle(tmp_path / "a" / "b", expected_hash=digest, **KEYS)
    assert bundle.hash == digest == sha256((tmp_path / "a" / "b" / "manifest.json").read_bytes())
    assert (bundle.threshold, bundle.obs_dim, bundle.act_dim) == (0.125, OBS, ACT)
    assert not bundle.calibrated
    assert bundle.manifest.extra == {"epoch": 3}
    obs = np.array([0.1, -0.2, 0.3], dtype=np.float32)
    actions = np.array([[0.5, 0.5], [-1.0, 1.0]], dtype=np.float32)
    assert bundle.risk(obs, actions).tolist() == critic.risk(obs, actions).tolist()
    samples = [each.sample(obs, 5, np.random.default_rng(0)).tolist() for each in (bundle, policy)]
    assert samples[0] == samples[1]
    assert bundle.policy.distribution(obs)[0].tolist() == policy.distribution(obs)[0].tolist()


def test_bundle_is_what_the_filter_takes(tmp_path):
    from safe_rl_ros.safety.action_filter import ActionFilter, CommandLimits, FilterConfig, Observation, Proposal
    from safe_rl_ros.safety.contracts import StagedModel
    from safe_rl_ros.types import Reason

    digest = write(tmp_path / "bundle", threshold=1.0)
    bundle = load_bundle(tmp_path / "bundle", **KEYS)
    assert isinstance(bundle, StagedModel)
    limits = CommandLimits.from_axes([-1, -1], [1, 1], [10, 10], [0, 0], 0.1)
    action_filter = ActionFilter(limits, FilterConfig(), lambda c: c, lambda a: a)
    action_filter.set_model(bundle)
    action_filter.activate()
    decision = action_filter.decide(0, Proposal([0.5, 0.5], 0, 0), Observation(np.zeros(OBS), 0, 0))
    assert decision.reason is Reason.ACCEPTED
    assert decision.bundle_hash == digest


def test_normaliser_is_kept_and_applied_to_both_networks(tmp_path):
    write(tmp_path / "bundle", make_policy(normaliser=NORMALISER), make_critic(normaliser=NORMALISER))
    bundle = load_bundle(tmp_path / "bundle", **KEYS)
    assert bundle.manifest.normaliser.model_dump() == {"mean": [0.5, -1, 10], "std": [2, 0.5, 3], "clip": 2.5}
    obs = np.array([1.5, 1.0, 4.0], dtype=np.float32)
    seen = np.array([0.5, 2.5, -2.0], dtype=np.float32)  # (1.5 - .5) / 2, 4 clipped to 2.5, (4 - 10) / 3
    actions = np.array([[0.5, 0.5], [-1.0, 1.0]], dtype=np.float32)
    assert bundle.risk(obs, actions).tolist() == make_critic().risk(seen, actions).tolist()
    assert bundle.mean(obs).tolist() == make_policy().distribution(seen)[0].tolist()


def test_normaliser_of_one_network_alone_is_refused(tmp_path):
    with pytest.raises(BundleError, match="different normalisers"):
        write(tmp_path / "bundle", make_policy(), make_critic(normaliser=NORMALISER))


def test_select_is_the_choice_over_all_risks(saved):
    bundle = load_bundle(saved, **KEYS)
    rng = np.random.default_rng(0)
    obs, actions = rng.normal(size=OBS).astype(np.float32), rng.uniform(-1, 1, (6, ACT)).astype(np.float32)
    risks = bundle.risk(obs, actions)
    ranking = risks.argsort()
    choice = bundle.select(obs, actions, float(risks[ranking[2]]), order=ranking[[5, 2, 0]])
    assert (choice.index, choice.risk, choice.acceptable) == (ranking[2], risks[ranking[2]], True)
    choice = bundle.select(obs, actions, -1.0, order=ranking[[5, 3]])
    assert (choice.index, choice.acceptable) == (ranking[3], False)


def test_manifest_alone(saved):
    manifest, digest = read_manifest(saved)
    assert (manifest.robot_spec_hash, manifest.kind, manifest.critic["members"]) == (SPEC, "safetensors", MEMBERS)
    assert load_as_is(saved).hash == digest


def test_without_critic(tmp_path):
    write(tmp_path / "bundle", critic=None, threshold=float("inf"))
    bundle = load_bundle(tmp_path / "bundle", **KEYS)
    assert bundle.critic is None
    assert math.isnan(bundle.threshold), "a missing threshold must veto everything"
    with pytest.raises(BundleError, match="has no critic"):
        bundle.risk(np.zeros(OBS, dtype=np.float32), np.zeros((1, ACT), dtype=np.float32))
    with pytest.raises(BundleError, match="has no critic"):
        bundle.select(np.zeros(OBS, dtype=np.float32), np.zeros((1, ACT), dtype=np.float32), 0.5)
    with pytest.raises(BundleError, match=r"\(csc\) has no critic, and one is required"):
        load_bundle(tmp_path / "bundle", require_critic=True, **KEYS)


def test_negative_threshold_is_kept(tmp_path):
    write(tmp_path / "bundle", threshold=np.float64(-0.01), threshold_mode="paper")
    assert load_bundle(tmp_path / "bundle", **KEYS).threshold == -0.01


def test_same_content_gives_the_same_hash(tmp_path):
    hashes = {write(tmp_path / name, created="2026-01-01T00:00:00+00:00") for name in ("a", "b")}
    assert len(hashes) == 1


# --- writing -----------------------------------------------------------------------------------------------------


def test_existing_target_is_refused_unless_replaced(saved):
    before = (saved / "manifest.json").read_bytes()
    with pytest.raises(BundleError, match="exists already"):
        write(saved)
    assert (saved / "manifest.json").read_bytes() == before
    digest = write(saved, threshold=0.5, replace=True)
    assert load_bundle(saved, expected_hash=digest, **KEYS).threshold == 0.5
    assert os.listdir(saved.parent) == ["bundle"]


@pytest.mark.parametrize("kind", ["directory", "file", "broken link"])
def test_what_is_no_bundle_is_never_replaced(tmp_path, kind):
    target = tmp_path / "home"
    if kind == "directory":
        target.mkdir()
        (target / "letter.txt").write_text("keep me")
    elif kind == "file":
        target.write_text("keep me")
    else:
        target.symlink_to(tmp_path / "nowhere")
    with pytest.raises(BundleError, match="is no bundle, refusing to replace it"):
        write(target, replace=True)
    assert os.listdir(tmp_path) == ["home"]
    assert kind != "directory" or (target / "letter.txt").read_text() == "keep me"


def nan_policy():
    policy = make_policy()
    policy._layers[0][0, 0] = np.nan
    return policy


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"policy": nan_policy()}, r"policy.weight_0 is not finite"),
        ({"threshold": float("nan")}, "threshold is nan"),
        ({"threshold": None}, "threshold is None"),
        ({"threshold": 1.5}, "threshold"),
        ({"threshold_mode": "guess"}, "threshold_mode"),
        ({"obs_names": NAMES[:2]}, "obs_dim is 3, obs_names has 2"),
        ({"critic": make_critic(obs_dim=5)}, r"the critic takes \(5, 2\), the policy \(3, 2\)"),
        ({"extra": {"a": float("nan")}}, "not JSON"),
        ({"extra": {"a": object()}}, "not JSON"),
    ],
    ids=lambda value: value if isinstance(value, str) else next(iter(value)),
)
def test_bad_content_is_not_written(tmp_path, changes, message):
    with pytest.raises(BundleError, match=message):
        write(tmp_path / "bundle", **changes)
    assert os.listdir(tmp_path) == []


def test_parent_that_is_a_file_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(BundleError, match="cannot be written"):
        write(tmp_path / "file" / "bundle")


@pytest.mark.parametrize("failing", ["fsync", "rename"])
def test_interrupted_write_leaves_nothing(tmp_path, monkeypatch, failing):
    def fail(*_):
        raise OSError("disk full")

    if failing == "fsync":
        monkeypatch.setattr(os, "fsync", fail)
    else:
        monkeypatch.setattr(Path, "rename", fail)
    with pytest.raises(BundleError, match="disk full"):
        write(tmp_path / "bundle")
    assert os.listdir(tmp_path) == []


def test_failed_replacement_keeps_the_old_bundle(saved, monkeypatch):
    rename, calls = Path.rename, []

    def fail_second(self, target):
        calls.append(target)
        if len(calls) == 2:
            raise OSError("disk full")
        return rename(self, target)

    monkeypatch.setattr(storage, "_exchange", lambda *_: False)
    monkeypatch.setattr(Path, "rename", fail_second)
    with pytest.raises(BundleError, match="disk full"):
        write(saved, threshold=0.5, replace=True)
    assert load_bundle(saved, **KEYS).threshold == 0.125
    assert os.listdir(saved.parent) == ["bundle"]


def test_replacement_where_directories_cannot_be_exchanged(saved, monkeypatch):
    monkeypatch.setattr(storage, "_exchange", lambda *_: False)
    write(saved, threshold=0.5, replace=True)
    assert load_bundle(saved, **KEYS).threshold == 0.5
    assert os.listdir(saved.parent) == ["bundle"]


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "renameat2"), reason="no renameat2 on this system")
def test_replacement_is_one_step(saved, monkeypatch):
    def forbidden(*_):
        raise AssertionError("a rename would leave a moment without a bundle")

    monkeypatch.setattr(Path, "rename", forbidden)
    write(saved, threshold=0.5, replace=True)
    assert load_bundle(saved, **KEYS).threshold == 0.5
    assert os.listdir(saved.parent) == ["bundle"]


def test_link_in_the_targets_place_is_replaced_and_what_it_names_is_kept(saved, tmp_path):
    (tmp_path / "link").symlink_to(saved)
    write(tmp_path / "link", threshold=0.5, replace=True)
    assert load_bundle(saved, **KEYS).threshold == 0.125
    assert load_bundle(tmp_path / "link", **KEYS).threshold == 0.5
    assert not (tmp_path / "link").is_symlink()


def test_files_are_synchronised_before_the_rename(tmp_path, monkeypatch):
    events = []
    fsync, rename = os.fsync, Path.rename
    monkeypatch.setattr(os, "fsync", lambda fd: events.append("fsync") or fsync(fd))
    monkeypatch.setattr(Path, "rename", lambda self, target: events.append("rename") or rename(self, target))
    write(tmp_path / "bundle")
    assert events == ["fsync", "fsync", "fsync", "rename", "fsync"]  # 2 files, directory; parent


KILLED_WRITER = """
import os, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from bundle_helpers import write

EVENTS = ("open", "os.mkdir", "os.chmod", "os.rename", "tempfile.mkdtemp", "os.scandir", "ctypes.dlsym", "os.remove")
replace = sys.argv[3] == "replace"

def write_until(target, limit):
    count = 0
    def watch(event, args):
        nonlocal count
        count += event in EVENTS
        if count == limit:
            os._exit(9)
    sys.addaudithook(watch)
    write(target, threshold=0.5, replace=replace)
    os._exit(0)

for limit in range(1, 100):
    target = Path(sys.argv[2]) / str(limit) / "bundle"
    if replace:
        write(target)
    child = os.fork()
    if child == 0:
        write_until(target, limit)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if code == 0:
        break
    assert code == 9, code
print(limit)
"""


@pytest.mark.parametrize("how", ["new", "replace"])
def test_writer_killed_at_any_moment_leaves_a_whole_bundle(tmp_path, how):
    """Kill the writer at each of its file operations: the old bundle (or none, if there was none), or the new one."""
    command = [sys.executable, "-c", KILLED_WRITER, str(Path(__file__).parent), str(tmp_path), how]
    result = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert result.returncode == 0, result.stderr
    last = int(result.stdout)
    assert 6 < last < 99
    found = []
    for limit in range(1, last + 1):
        target = tmp_path / str(limit) / "bundle"
        there = target.exists() or (how == "replace" and hasattr(ctypes.CDLL(None), "renameat2"))
        found.append(load_bundle(target, **KEYS).threshold if there else None)
    assert found[0] == (0.125 if how == "replace" else None)
    assert found[-1] == 0.5
    assert found == sorted(found, key=lambda threshold: threshold == 0.5), "once the new one is there, it stays"
