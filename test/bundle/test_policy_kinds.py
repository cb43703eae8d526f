"""Bundles of policies that are no Gaussian: written, read back, answered for, refused as ONNX."""

from __future__ import annotations

import json

import numpy as np
import pytest
from bundle_helpers import ACT, KEYS, NORMALISER, OBS, edit, edit_weights, make_critic, make_policy, write
from policy_fakes import KIND, TwoWays
from typer.testing import CliRunner

from safe_rl_ros.bundle import component_hashes, export_bundle, load_bundle
from safe_rl_ros.cli.app import app
from safe_rl_ros.policies import POLICIES
from safe_rl_ros.types import BundleError

WEIGHT = np.random.default_rng(5).normal(size=(OBS, ACT)).astype(np.float32)


@pytest.fixture(autouse=True)
def two_ways(monkeypatch):
    monkeypatch.setitem(POLICIES, KIND, TwoWays)


@pytest.fixture
def saved(tmp_path):
    write(tmp_path / "bundle", TwoWays(WEIGHT, NORMALISER), make_critic(normaliser=NORMALISER))
    return tmp_path / "bundle"


def test_round_trip_with_normaliser_and_critic(saved):
    policy = TwoWays(WEIGHT, NORMALISER)
    bundle = load_bundle(saved, **KEYS)
    obs = np.random.default_rng(1).normal(size=(6, OBS)).astype(np.float32)
    np.testing.assert_array_equal(bundle.mean(obs[0]), policy.mean(obs[0]))
    drawn = [each.sample(obs[0], 7, np.random.default_rng(2)) for each in (bundle, policy)]
    np.testing.assert_array_equal(*drawn)
    assert bundle.manifest.format_version == 4
    assert bundle.manifest.test_vectors.std is None
    assert bundle.component_hashes() == component_hashes(policy, make_critic(normaliser=NORMALISER), NORMALISER)


def test_a_gaussian_is_written_in_the_version_it_always_was(tmp_path):
    write(tmp_path / "bundle", make_policy())
    assert json.loads((tmp_path / "bundle" / "manifest.json").read_text())["format_version"] == 2


def test_a_package_that_does_not_know_the_kind_refuses_it(saved, monkeypatch):
    monkeypatch.delitem(POLICIES, KIND)
    with pytest.raises(BundleError, match=r"policy kind is 'two_ways', this version knows .*gaussian_policy"):
        load_bundle(saved, **KEYS)


def test_other_weights_give_other_answers(saved):
    edit_weights(saved, lambda arrays: arrays | {"policy.weight": arrays["policy.weight"] * np.float32(1.01)})
    with pytest.raises(BundleError, match="mean on the test vectors is not the stored one"):
        load_bundle(saved, **KEYS)


def test_misshapen_weights_are_refused(saved):
    edit_weights(saved, lambda arrays: arrays | {"policy.weight": arrays["policy.weight"][:2]})
    with pytest.raises(BundleError, match="wrong weights: array 'weight' is missing or misshapen"):
        load_bundle(saved, **KEYS)


def test_an_older_version_cannot_be_claimed(saved):
    edit(saved, lambda content: content.update(format_version=2))
    with pytest.raises(BundleError, match="format_version is 2, these networks are written in 4"):
        load_bundle(saved, **KEYS)


class NumbersForNaN(TwoWays):
    def mean(self, obs):
        return np.nan_to_num(super().mean(obs))


class Restless(TwoWays):
    def sample(self, obs, n, rng):
        return super().sample(obs, n, np.random.default_rng())


class FewSamples(TwoWays):
    def sample(self, obs, n, rng):
        return super().sample(obs, 1, rng)


class NeighboursMatter(TwoWays):
    def mean(self, obs):
        return super().mean(obs) * (1.0 if np.ndim(obs) == 1 else 0.5)


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        (NumbersForNaN, "answer NaN with numbers"),
        (Restless, "samples differ though the generator does not"),
        (FewSamples, r"samples are no \(3, 2\) finite numbers"),
        (NeighboursMatter, "mean on the test vectors"),
    ],
)
def test_a_kind_that_breaks_its_contract_is_not_written(tmp_path, monkeypatch, kind, message):
    monkeypatch.setitem(POLICIES, KIND, kind)
    with pytest.raises(BundleError, match=message):
        write(tmp_path / "bundle", kind(WEIGHT))
    assert not (tmp_path / "bundle").exists()


def test_onnx_is_refused_and_nothing_is_written(saved, tmp_path):
    for attempt in (
        lambda: write(tmp_path / "onnx", TwoWays(WEIGHT), kind="onnx"),
        lambda: export_bundle(saved, tmp_path / "onnx"),
    ):
        with pytest.raises(BundleError, match="kind 'two_ways' cannot be written as onnx: choose the form safetensors"):
            attempt()
    assert not (tmp_path / "onnx").exists()


def test_the_command_exports_it_as_safetensors(saved, tmp_path):
    refused = CliRunner().invoke(app, ["export", str(saved), "-o", str(tmp_path / "robot"), "--form", "onnx"])
    assert isinstance(refused.exception, BundleError)
    assert "choose the form safetensors" in str(refused.exception)
    result = CliRunner().invoke(app, ["export", str(saved), "-o", str(tmp_path / "robot")])
    assert result.exit_code == 0, result.output
    assert load_bundle(tmp_path / "robot", **KEYS).component_hashes() == load_bundle(saved, **KEYS).component_hashes()
