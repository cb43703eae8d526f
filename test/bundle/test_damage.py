"""What a bundle is refused for: every kind of damage and every wrong use has one clear message."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest
from bundle_helpers import HIDDEN, KEYS, NAMES, OBS, SPEC, edit, edit_weights, replace_file, write

from safe_rl_ros.bundle import load_bundle, store
from safe_rl_ros.types import BundleError


@pytest.fixture
def saved(tmp_path):
    write(tmp_path / "bundle")
    return tmp_path / "bundle"


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


def of_kind(kind, std=None, form="safetensors"):
    def change(content):
        content["policy"]["kind"] = kind
        content["test_vectors"]["std"] = std
        content.update(format_version=4, kind=form)

    return lambda directory: edit(directory, change)


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
    "newer format": (setting(format_version=5), "format_version 5 is newer than 4"),
    "format of others": (setting(format_version=3), "format_version is 3, these networks are written in 2"),
    "policy of no Gaussian kind": (of_kind("oracle"), "policy kind is 'oracle', this version knows"),
    "policy kind is a list": (of_kind(["gaussian_policy"]), r"policy kind is \['gaussian_policy'\]"),
    "policy kind with std": (of_kind("cem", std=[[0.0]]), "test_vectors.std belongs to Gaussian policies"),
    "Gaussian without std": (lambda d: edit(d, lambda c: c["test_vectors"].update(std=None)), "test_vectors.std"),
    "policy kind as onnx": (of_kind("cem", form="onnx"), "kind 'cem' has no form 'onnx', only 'safetensors'"),
    "older format": (setting(format_version=1), "format_version is 1, from before normalisers and certificates"),
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
    "kind unknown": (setting(kind="pickle"), "kind"),
    "kind other": (setting(kind="onnx"), r"files are \['weights.safetensors'\], kind onnx has"),
    "files none": (setting(files={}), r"files are \[\], kind safetensors has"),
    "files more": (lambda d: edit(d, lambda c: c["files"].update({"run.sh": "0" * 64})), "run.sh"),
    "files elsewhere": (setting(files={"../weights.safetensors": "0" * 64}), "files are"),
    "files without hash": (setting(files={"weights.safetensors": ""}), "expected 64 hexadecimal digits"),
    "files beside": (lambda d: (d / "run.sh").write_text("rm"), "holds 'run.sh', which is not a file of this bundle"),
    "normaliser short": (setting(normaliser={"mean": [0.0], "std": [1.0], "clip": None}), "length 1, expected 3"),
    "normaliser std zero": (
        setting(normaliser={"mean": [0.0] * 3, "std": [1.0, 0.0, 1.0], "clip": None}),
        "'std' has the least value 0",
    ),
    "normaliser clip zero": (setting(normaliser={"mean": [0.0] * 3, "std": [1.0] * 3, "clip": 0.0}), "clip"),
    "normaliser other": (
        setting(normaliser={"mean": [0.0] * 3, "std": [2.0] * 3, "clip": None}),
        "mean on the test vectors is not",
    ),
    "certificate empty": (setting(certificate={}), "certificate.created"),
    "policy meta wrong": (setting(policy={"kind": "gaussian_policy"}), "wrong weights"),
    "mean differs": (perturb_vector("mean"), "mean on the test vectors"),
    "std differs": (perturb_vector("std"), "std on the test vectors"),
    "risk differs": (perturb_vector("risk"), "risk on the test vectors"),
    "vectors ragged answer": (lambda d: edit(d, lambda c: c["test_vectors"]["mean"][0].pop()), "mean on the test"),
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
    replace_file(saved, "weights.safetensors", b"\x80\x04pickle")
    with pytest.raises(BundleError, match="wrong weights"):
        load_bundle(saved, **KEYS)


def test_missing_directory_and_file_in_its_place(tmp_path):
    with pytest.raises(BundleError, match="does not exist"):
        load_bundle(tmp_path / "nowhere", **KEYS)
    (tmp_path / "file").write_text("")
    with pytest.raises(BundleError, match="cannot be read"):
        load_bundle(tmp_path / "file", **KEYS)


@pytest.mark.parametrize(
    ("name", "limit"), [("manifest.json", "MAX_MANIFEST_BYTES"), ("weights.safetensors", "MAX_FILE_BYTES")]
)
def test_oversize_file_is_refused(saved, monkeypatch, name, limit):
    size = (saved / name).stat().st_size
    monkeypatch.setattr(store, limit, size)
    load_bundle(saved, **KEYS)
    monkeypatch.setattr(store, limit, size - 1)
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
        "safe_rl_ros.inference\nsafe_rl_ros.bundle.preload()\n"
        "print(sorted({'torch', 'rclpy', 'pickle5'} & set(sys.modules)))"
    )
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False)
    assert result.stdout == "[]\n", result.stderr
