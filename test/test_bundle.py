"""Bundles: what is written is what is read, and everything else is refused with one clear message."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load, save

from safe_rl_ros import bundle as bundles
from safe_rl_ros.bundle import load_bundle, save_bundle
from safe_rl_ros.bundle.manifest import content_hash, sha256
from safe_rl_ros.inference import GaussianPolicy, SafetyCritic
from safe_rl_ros.types import BundleError

SPEC = "0" * 64
NAMES = ("goal", "speed", "closeness")
OBS, ACT, HIDDEN, MEMBERS = 3, 2, 4, 2
KEYS = {"spec_hash": SPEC, "obs_names": NAMES}


def make_policy(seed=0):
    rng = np.random.default_rng(seed)
    arrays = {
        "weight_0": rng.normal(size=(OBS, HIDDEN)),
        "bias_0": rng.normal(size=HIDDEN),
        "weight_1": rng.normal(size=(HIDDEN, ACT)),
        "bias_1": rng.normal(size=ACT),
        "log_std": rng.normal(size=ACT) - 1,
    }
    meta = {"kind": "gaussian_policy", "obs_dim": OBS, "act_dim": ACT, "hidden": [HIDDEN], "state_dependent_std": False}
    return GaussianPolicy.from_arrays(arrays, meta)


def make_critic(seed=1, obs_dim=OBS):
    rng = np.random.default_rng(seed)
    arrays = {
        "weight_0": rng.normal(size=(MEMBERS, obs_dim + ACT, HIDDEN)),
        "bias_0": rng.normal(size=(MEMBERS, HIDDEN)),
        "weight_1": rng.normal(size=(MEMBERS, HIDDEN, 1)),
        "bias_1": rng.normal(size=(MEMBERS, 1)),
    }
    meta = {"kind": "safety_critic", "obs_dim": obs_dim, "act_dim": ACT, "hidden": [HIDDEN], "members": MEMBERS}
    return SafetyCritic.from_arrays(arrays, meta | {"aggregate": "max", "std_factor": 1.0})


def write(directory, policy=None, critic="default", **changes):
    settings = {
        "threshold": 0.125,
        "threshold_mode": "fixed",
        "spec_hash": SPEC,
        "obs_names": NAMES,
        "algorithm": "csc",
    }
    critic = make_critic() if critic == "default" else critic
    return save_bundle(directory, policy or make_policy(), critic, **(settings | changes))


@pytest.fixture
def saved(tmp_path):
    write(tmp_path / "bundle")
    return tmp_path / "bundle"


def edit(directory, change, *, seal=True):
    """Change the manifest by a function; ``seal`` makes its own checksum right again."""
    path = directory / "manifest.json"
    content = json.loads(path.read_text())
    change(content)
    if seal:
        content["content_sha256"] = content_hash(content)
    path.write_text(json.dumps(content))


def edit_weights(directory, change):
    """Change the arrays by a function; the hashes are made right again."""
    path = directory / "weights.safetensors"
    arrays = change(load(path.read_bytes()))
    data = save(arrays)
    path.write_bytes(data)
    edit(directory, lambda content: content.update(weights_sha256=sha256(data)))


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


def test_bundle_drives_the_filter(tmp_path):
    from safe_rl_ros.safety.action_filter import ActionFilter, CommandLimits, FilterConfig, Observation, Proposal
    from safe_rl_ros.types import Reason

    digest = write(tmp_path / "bundle", threshold=1.0)
    limits = CommandLimits.from_axes([-1, -1], [1, 1], [10, 10], [0, 0], 0.1)
    action_filter = ActionFilter(limits, FilterConfig(), lambda c: c, lambda a: a)
    action_filter.set_model(load_bundle(tmp_path / "bundle", **KEYS))
    action_filter.activate()
    decision = action_filter.decide(0, Proposal([0.5, 0.5], 0, 0), Observation(np.zeros(OBS), 0, 0))
    assert decision.reason is Reason.ACCEPTED
    assert decision.bundle_hash == digest


def test_without_critic(tmp_path):
    write(tmp_path / "bundle", critic=None, threshold=float("inf"))
    bundle = load_bundle(tmp_path / "bundle", **KEYS)
    assert bundle.critic is None
    assert math.isnan(bundle.threshold), "a missing threshold must veto everything"
    with pytest.raises(BundleError, match="has no critic"):
        bundle.risk(np.zeros(OBS, dtype=np.float32), np.zeros((1, ACT), dtype=np.float32))
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
    ids=str,
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

    monkeypatch.setattr(Path, "rename", fail_second)
    with pytest.raises(BundleError, match="disk full"):
        write(saved, threshold=0.5, replace=True)
    assert load_bundle(saved, **KEYS).threshold == 0.125
    assert os.listdir(saved.parent) == ["bundle"]


def test_files_are_synchronised_before_the_rename(tmp_path, monkeypatch):
    events = []
    fsync, rename = os.fsync, Path.rename
    monkeypatch.setattr(os, "fsync", lambda fd: events.append("fsync") or fsync(fd))
    monkeypatch.setattr(Path, "rename", lambda self, target: events.append("rename") or rename(self, target))
    write(tmp_path / "bundle")
    assert events == ["fsync", "fsync", "fsync", "rename", "fsync"]  # 2 files, directory; parent


def test_writer_killed_at_any_moment_leaves_a_whole_bundle_or_none(tmp_path):
    """Kill the writer at each of its file operations; the target is a whole bundle, or nothing is there."""
    script = """
import os, sys
sys.path.insert(0, sys.argv[1])
import test_bundle

EVENTS = ("open", "os.mkdir", "os.chmod", "os.rename", "tempfile.mkdtemp", "os.scandir")

def write(directory, limit):
    count = 0
    def watch(event, args):
        nonlocal count
        count += event in EVENTS
        if count == limit:
            os._exit(9)
    sys.addaudithook(watch)
    test_bundle.write(directory)
    os._exit(0)

for limit in range(1, 100):
    child = os.fork()
    if child == 0:
        write(f"{sys.argv[2]}/{limit}/bundle", limit)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if code == 0:
        break
    assert code == 9, code
print(limit)
"""
    here = str(Path(__file__).parent)
    command = [sys.executable, "-c", script, here, str(tmp_path)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert result.returncode == 0, result.stderr
    last = int(result.stdout)
    assert 6 < last < 99
    whole = []
    for limit in range(1, last + 1):
        target = tmp_path / str(limit) / "bundle"
        if target.exists():
            load_bundle(target, **KEYS)
            whole.append(limit)
    assert last in whole
    assert 1 not in whole


# --- reading: the corruption matrix ------------------------------------------------------------------------------


def truncate(path, keep=0.5):
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * keep)])


def flip_bit(path, position):
    data = bytearray(path.read_bytes())
    data[position] ^= 1
    path.write_bytes(data)


def drop(name):
    return lambda arrays: {k: v for k, v in arrays.items() if k != name}


def put(name, array):
    return lambda arrays: arrays | {name: array}


def setting(**values):
    return lambda directory: edit(directory, lambda content: content.update(values))


def scaled(arrays):
    return {name: array * np.float32(1.01) for name, array in arrays.items()}


def perturb_vector(kind):
    def change(content):
        content["test_vectors"][kind][0][0] += 0.01

    return lambda directory: edit(directory, change)


def remove_manifest(directory):
    (directory / "manifest.json").unlink()


def make_pipe(directory):
    (directory / "manifest.json").unlink()
    os.mkfifo(directory / "manifest.json")


def make_directory(directory):
    (directory / "manifest.json").unlink()
    (directory / "manifest.json").mkdir()


def bit_flip_in_threshold(directory):
    path = directory / "manifest.json"
    path.write_text(path.read_text().replace('"threshold": 0.125', '"threshold": 0.925'))


NAN_WEIGHT = np.full((OBS, HIDDEN), np.nan, dtype=np.float32)

MATRIX = {
    "no manifest": (remove_manifest, r"manifest.json does not exist"),
    "no weights": (lambda d: (d / "weights.safetensors").unlink(), r"weights.safetensors does not exist"),
    "pipe": (make_pipe, "not a regular file"),
    "directory": (make_directory, "manifest.json"),
    "manifest truncated": (lambda d: truncate(d / "manifest.json"), "not JSON"),
    "manifest empty": (lambda d: truncate(d / "manifest.json", 0), "not JSON"),
    "manifest is no text": (lambda d: (d / "manifest.json").write_bytes(b"\xff\xfe\x00"), "not JSON"),
    "manifest is a list": (lambda d: (d / "manifest.json").write_text("[]"), "format_version is None"),
    "manifest nested": (lambda d: (d / "manifest.json").write_text("[" * 200_000), "not JSON"),
    "manifest has NaN": (lambda d: (d / "manifest.json").write_text('{"format_version": NaN}'), "NaN is not JSON"),
    "manifest has infinity": (lambda d: (d / "manifest.json").write_text('{"format_version": 1e999}'), "not JSON"),
    "manifest bit flipped": (bit_flip_in_threshold, "manifest.json is damaged"),
    "newer format": (setting(format_version=2), "format_version 2 is newer than 1"),
    "format zero": (setting(format_version=0), "format_version is 0"),
    "format true": (setting(format_version=True), "format_version is True"),
    "format text": (setting(format_version="1"), "format_version is '1'"),
    "unknown key": (setting(run_this="rm"), "run_this"),
    "threshold text": (setting(threshold="0.1"), "threshold"),
    "threshold above one": (setting(threshold=1.5), "threshold"),
    "threshold null": (setting(threshold=None), "threshold and critic go together"),
    "other robot": (setting(robot_spec_hash="f" * 64), f"robot spec {'f' * 64}, the one in use is {SPEC}"),
    "other layout": (
        setting(obs_names=["goal", "closeness", "speed"]),
        "first difference at 1: 'closeness' instead of 'speed'",
    ),
    "other length": (setting(obs_names=[*NAMES, "more"]), "has 4 elements, the one in use 3"),
    "obs_dim wrong": (setting(obs_dim=4), "obs_dim is 4"),
    "act_dim wrong": (setting(act_dim=3), "GaussianPolicy takes"),
    "weights truncated": (lambda d: truncate(d / "weights.safetensors"), "weights.safetensors is damaged"),
    "weights bit flipped": (lambda d: flip_bit(d / "weights.safetensors", -5), "weights.safetensors is damaged"),
    "weights header flipped": (lambda d: flip_bit(d / "weights.safetensors", 12), "weights.safetensors is damaged"),
    "weights are NaN": (lambda d: edit_weights(d, put("policy.weight_0", NAN_WEIGHT)), "policy.weight_0 is not finite"),
    "weights missing": (lambda d: edit_weights(d, drop("critic.bias_1")), "bias_1"),
    "weights unknown": (lambda d: edit_weights(d, put("other.x", np.zeros(1, np.float32))), "unknown array other.x"),
    "weights more": (lambda d: edit_weights(d, put("policy.weight_9", np.zeros(1, np.float32))), "weight_9"),
    "weights misshapen": (lambda d: edit_weights(d, put("policy.bias_0", np.zeros(HIDDEN + 1, np.float32))), "bias_0"),
    "weights float64": (lambda d: edit_weights(d, put("policy.bias_0", np.zeros(HIDDEN))), "float64, expected float32"),
    "weights of another net": (lambda d: edit_weights(d, scaled), "mean on the test vectors is not"),
    "critic undeclared": (setting(critic=None, threshold=None), "manifest has no critic"),
    "policy meta wrong": (setting(policy={"kind": "pickle"}), "wrong weights"),
    "mean differs": (perturb_vector("mean"), "mean on the test vectors"),
    "std differs": (perturb_vector("std"), "std on the test vectors"),
    "risk differs": (perturb_vector("risk"), "risk on the test vectors"),
    "vectors ragged": (
        lambda d: edit(d, lambda c: c["test_vectors"]["obs"][0].pop()),
        "wrong test vectors",
    ),
    "vectors empty": (lambda d: edit(d, lambda c: c["test_vectors"].update(mean=[])), "mean on the test vectors"),
    "vectors without risk": (lambda d: edit(d, lambda c: c["test_vectors"].update(risk=None)), "risk on the test"),
}


@pytest.mark.parametrize("damage", list(MATRIX))
def test_damaged_bundle_is_refused(saved, damage):
    change, message = MATRIX[damage]
    change(saved)
    with pytest.raises(BundleError, match=message) as caught:
        load_bundle(saved, **KEYS)
    assert "\n" not in str(caught.value), "one message, one line"


def test_not_safetensors_at_all(saved):
    data = b"\x80\x04pickle"
    (saved / "weights.safetensors").write_bytes(data)
    edit(saved, lambda content: content.update(weights_sha256=sha256(data)))
    with pytest.raises(BundleError, match="wrong weights"):
        load_bundle(saved, **KEYS)


def test_missing_directory_and_file_in_its_place(tmp_path):
    with pytest.raises(BundleError, match="does not exist"):
        load_bundle(tmp_path / "nowhere", **KEYS)
    (tmp_path / "file").write_text("")
    with pytest.raises(BundleError, match="cannot be read"):
        load_bundle(tmp_path / "file", **KEYS)


@pytest.mark.parametrize(
    ("name", "limit"), [("manifest.json", "MAX_MANIFEST_BYTES"), ("weights.safetensors", "MAX_WEIGHTS_BYTES")]
)
def test_oversize_file_is_refused(saved, monkeypatch, name, limit):
    size = (saved / name).stat().st_size
    monkeypatch.setattr(bundles, limit, size)
    load_bundle(saved, **KEYS)
    monkeypatch.setattr(bundles, limit, size - 1)
    with pytest.raises(BundleError, match=f"{name} is larger than {size - 1} bytes"):
        load_bundle(saved, **KEYS)


def test_announced_hash_must_match(saved):
    with pytest.raises(BundleError, match="announced was aaaa"):
        load_bundle(saved, expected_hash="aaaa", **KEYS)


def test_wrong_use_is_refused(saved):
    with pytest.raises(BundleError, match="the one in use is 1111"):
        load_bundle(saved, spec_hash="1111", obs_names=NAMES)
    with pytest.raises(BundleError, match="the one in use 2"):
        load_bundle(saved, spec_hash=SPEC, obs_names=NAMES[:2])


@pytest.mark.filterwarnings("error")
def test_every_flipped_bit_is_noticed(saved):
    """No single bit of either file can change without a refusal (or, in white space, without the same content)."""
    good = load_bundle(saved, **KEYS)
    rng = np.random.default_rng(0)
    for name in ("manifest.json", "weights.safetensors"):
        path = saved / name
        original = path.read_bytes()
        for position in rng.integers(len(original), size=150):
            data = bytearray(original)
            data[position] ^= 1 << int(rng.integers(8))
            path.write_bytes(data)
            try:
                bundle = load_bundle(saved, **KEYS)
            except BundleError:
                continue
            assert bundle.manifest == good.manifest
            assert bundle.hash != good.hash
        path.write_bytes(original)


def test_filter_process_imports_no_torch_and_no_ros():
    script = (
        "import sys, safe_rl_ros.safety.action_filter, safe_rl_ros.safety.wrapper, safe_rl_ros.bundle, "
        "safe_rl_ros.inference\nprint(sorted({'torch', 'rclpy', 'pickle5'} & set(sys.modules)))"
    )
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False)
    assert result.stdout == "[]\n", result.stderr
