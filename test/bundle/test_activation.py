"""ReLU networks in a bundle: both forms answer as numpy does, tanh bundles stay as they were, mixtures are refused."""

from __future__ import annotations

import json

import numpy as np
import onnx
import onnxruntime
import pytest
from bundle_helpers import (
    ACT,
    KEYS,
    NORMALISER,
    certificate_for,
    edit,
    edit_weights,
    make_critic,
    make_policy,
    replace_file,
    write,
)

from safe_rl_ros.bundle import component_hashes, export_bundle, load_as_is, load_bundle, stamp_certificate
from safe_rl_ros.bundle.forms import pack_networks
from safe_rl_ros.bundle.onnx_networks import OnnxCritic, OnnxPolicy
from safe_rl_ros.inference import SafetyCritic, choose
from safe_rl_ros.types import BundleError

OBSERVATION = np.array([0.9, -1.3, 1.2], dtype=np.float32)
ACTIONS = np.random.default_rng(0).uniform(-1, 1, (20, ACT)).astype(np.float32)
FORMS = ["safetensors", "onnx"]
# Of the tanh networks below, as packages without ReLU computed them.
POLICY_HASH = "407d7fd567e884bdf19b2c69f52413e8a00b06cde7e52313288e6033fa4bb9ad"
CRITIC_HASH = "f88185745447a5daa86ac3cb04e07b28900b6de51781f8989ffe9f26a6f4682c"


def networks(policy="relu", critic="relu", *, members=3, aggregate="mean_plus_std", normaliser=None, std_head=True):
    one = make_policy(hidden=(8, 6), std_head=std_head, normaliser=normaliser, activation=policy)
    other = make_critic(
        hidden=(8, 6), members=members, aggregate=aggregate, std_factor=0.7, normaliser=normaliser, activation=critic
    )
    return tamed(one), tamed(other)


def tamed(network):
    """Return the network with small weights: those of a tanh network let one without bounds run away."""
    arrays = {name: 0.4 * array if name.startswith("weight") else array for name, array in network.arrays().items()}
    return type(network)(arrays, network.meta(), network.normaliser)


@pytest.mark.parametrize("normaliser", [None, NORMALISER])
@pytest.mark.parametrize(("members", "aggregate"), [(1, "mean"), (3, "mean"), (3, "mean_plus_std"), (3, "max")])
@pytest.mark.parametrize("activations", [("relu", "relu"), ("relu", "tanh"), ("tanh", "relu")], ids="-".join)
def test_both_forms_answer_as_the_networks_do(tmp_path, activations, members, aggregate, normaliser):
    policy, critic = networks(*activations, members=members, aggregate=aggregate, normaliser=normaliser)
    write(tmp_path / "arrays", policy, critic)
    export_bundle(tmp_path / "arrays", tmp_path / "onnx")
    expected = critic.risk(OBSERVATION, ACTIONS)
    assert np.ptp(expected) > 0.01
    for bundle in (load_bundle(tmp_path / name, **KEYS) for name in ("arrays", "onnx")):
        assert bundle.component_hashes() == component_hashes(policy, critic, normaliser)
        np.testing.assert_allclose(bundle.risk(OBSERVATION, ACTIONS), expected, atol=1e-6)
        np.testing.assert_allclose([bundle.risk(OBSERVATION, a[None])[0] for a in ACTIONS], expected, atol=1e-6)
        for given, wanted in zip(
            bundle.policy.distribution(OBSERVATION), policy.distribution(OBSERVATION), strict=True
        ):
            np.testing.assert_allclose(given, wanted, rtol=1e-5, atol=1e-6)
        rows = bundle.critic.risk_rows(np.stack([OBSERVATION, -OBSERVATION]), ACTIONS[:2])
        one_by_one = [critic.risk(o, a[None])[0] for o, a in zip((OBSERVATION, -OBSERVATION), ACTIONS, strict=False)]
        np.testing.assert_allclose(rows, one_by_one, atol=2e-6)


def test_relu_files_are_complete_for_any_runtime():
    policy, critic = networks(normaliser=NORMALISER)
    answers = {}
    inputs = {"obs": OBSERVATION[None], "actions": ACTIONS}
    for data in pack_networks(policy, critic, "onnx").values():
        model = onnx.load_model_from_string(data)
        onnx.checker.check_model(model, full_check=True)
        assert [node.op_type for node in model.graph.node].count("Relu") == 2
        session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
        outputs = [output.name for output in session.get_outputs()]
        wanted = {each.name: inputs[each.name] for each in session.get_inputs()}
        answers |= dict(zip(outputs, session.run(outputs, wanted), strict=True))
    np.testing.assert_allclose(answers["risk"], critic.risk(OBSERVATION, ACTIONS), atol=1e-6)
    np.testing.assert_allclose(answers["mean"][0], policy.distribution(OBSERVATION)[0], atol=1e-6)


def test_tanh_networks_keep_their_hashes_and_their_format(tmp_path):
    policy = make_policy(hidden=(8, 6), std_head=True)
    critic = make_critic(hidden=(8, 6), members=3, aggregate="mean_plus_std", std_factor=0.7)
    found = component_hashes(policy, critic, None)
    assert (found.policy, found.critic) == (POLICY_HASH, CRITIC_HASH)
    write(tmp_path / "bundle", policy, critic)
    manifest = json.loads((tmp_path / "bundle" / "manifest.json").read_text())
    assert manifest["format_version"] == 2
    assert "activation" not in json.dumps(manifest)


def test_activation_is_part_of_the_identity():
    tanh, relu = (component_hashes(*networks(each, each), None) for each in ("tanh", "relu"))
    assert tanh.policy != relu.policy
    assert tanh.critic != relu.critic


@pytest.mark.parametrize("activations", [("relu", "relu"), ("relu", "tanh"), ("tanh", "relu")], ids="-".join)
@pytest.mark.parametrize("kind", FORMS)
def test_relu_is_written_as_a_version_that_older_packages_refuse(tmp_path, kind, activations):
    write(tmp_path / "bundle", *networks(*activations), kind=kind)
    assert load_as_is(tmp_path / "bundle").manifest.format_version == 3
    edit(tmp_path / "bundle", lambda content: content.update(format_version=2))
    with pytest.raises(BundleError, match="format_version is 2, these networks are written in 3"):
        load_bundle(tmp_path / "bundle", **KEYS)


def test_certificate_goes_with_relu_networks(tmp_path):
    policy, critic = networks()
    write(tmp_path / "bundle", policy, critic)
    stamp_certificate(tmp_path / "bundle", tmp_path / "stamped", certificate_for(policy, critic))
    export_bundle(tmp_path / "stamped", tmp_path / "onnx")
    assert load_bundle(tmp_path / "onnx", **KEYS).calibrated
    other = certificate_for(*networks("tanh", "tanh"))
    with pytest.raises(BundleError, match="certificate is for another policy and critic"):
        stamp_certificate(tmp_path / "bundle", tmp_path / "other", other)


def set_operator(directory, name, index, operator):
    model = onnx.load(directory / name)
    hidden = [node for node in model.graph.node if node.output[0].startswith("hidden_")]
    hidden[index].op_type = operator
    replace_file(directory, name, model.SerializeToString())


@pytest.mark.parametrize("layer", [0, 1])
@pytest.mark.parametrize("name", ["policy.onnx", "critic.onnx"])
@pytest.mark.parametrize(("activation", "operator"), [("relu", "Tanh"), ("tanh", "Relu")])
def test_graph_of_mixed_activations_is_refused(tmp_path, name, activation, operator, layer):
    write(tmp_path / "onnx", *networks(activation, activation), kind="onnx")
    load_bundle(tmp_path / "onnx", **KEYS)
    set_operator(tmp_path / "onnx", name, layer, operator)
    with pytest.raises(BundleError, match=f"{name}: its nodes are not those of the network"):
        load_bundle(tmp_path / "onnx", **KEYS)


@pytest.mark.parametrize("part", ["policy", "critic"])
@pytest.mark.parametrize(("kind", "message"), [("onnx", "its nodes are not those"), ("safetensors", "on the test vec")])
def test_description_of_another_activation_is_refused(tmp_path, kind, message, part):
    write(tmp_path / "bundle", *networks("relu", "relu"), kind=kind)
    edit(tmp_path / "bundle", lambda content: content[part].update(activation="tanh"))
    with pytest.raises(BundleError, match=message):
        load_bundle(tmp_path / "bundle", **KEYS)


@pytest.mark.parametrize("kind", FORMS)
@pytest.mark.parametrize("wrong", ["gelu", ["relu"], None, 3])
def test_unknown_activation_is_refused(tmp_path, kind, wrong):
    write(tmp_path / "bundle", *networks(), kind=kind)
    edit(tmp_path / "bundle", lambda content: content["critic"].update(activation=wrong))
    with pytest.raises(BundleError, match=r"wrong weights: .*meta activation is .*, expected one of"):
        load_bundle(tmp_path / "bundle", **KEYS)


@pytest.mark.parametrize("aggregate", ["mean", "mean_plus_std", "max"])
def test_staged_choice_of_a_relu_ensemble_is_the_full_one_bit_for_bit(aggregate):
    base = tamed(make_critic(members=5, aggregate=aggregate, std_factor=0.7, hidden=(64, 64), activation="relu"))
    critic = OnnxCritic(base.arrays(), base.meta())
    rng = np.random.default_rng(2)
    saved, spread = 0, 0.0
    for number in range(200):
        count = int(rng.integers(30, 65))
        obs = rng.normal(size=3).astype(np.float32)
        actions = rng.uniform(-1, 1, (count, 2)).astype(np.float32)
        if number % 5 == 0:
            actions[rng.integers(count, size=3)] = np.nan
        risks = critic.risk(obs, actions)
        threshold = float(rng.choice([-0.1, 0.2, 0.5, float(np.nanmedian(risks))]))
        staged, full = critic.select(obs, actions, threshold), choose(risks, threshold)
        assert (staged.index, staged.risk, staged.acceptable) == (full.index, full.risk, full.acceptable)
        saved += count - staged.evaluated
        spread = max(spread, float(np.nanmax(risks) - np.nanmin(risks)))
    assert saved > 0
    assert spread > 0.3


@pytest.mark.parametrize("aggregate", ["mean", "mean_plus_std", "max"])
@pytest.mark.parametrize("members", [1, 3])
def test_bad_numbers_are_no_risk_and_no_action(aggregate, members):
    policy, base = networks(members=members, aggregate=aggregate)
    critic, actor = OnnxCritic(base.arrays(), base.meta()), OnnxPolicy(policy.arrays(), policy.meta())
    actions, unknown = ACTIONS.copy(), np.array([0.0, np.nan, 0.0], np.float32)
    actions[3, 1] = np.nan
    assert np.flatnonzero(np.isnan(critic.risk(OBSERVATION, actions))).tolist() == [3]
    assert np.isnan(critic.risk(OBSERVATION, actions[3:4])).all()
    for some in (ACTIONS, ACTIONS[:1]):
        assert np.isnan(critic.risk(unknown, some)).all()
    assert critic.select(unknown, ACTIONS, 1.0).index == -1
    assert np.isnan(actor.distribution(unknown)[0]).all()


def test_runtime_that_answers_nan_with_numbers_is_refused(tmp_path, monkeypatch):
    """A plain maximum is a ReLU that turns NaN into 0; what the filter must veto would then look like any other."""
    write(tmp_path / "bundle", *networks())
    load_bundle(tmp_path / "bundle", **KEYS)
    unguarded = SafetyCritic.risk
    monkeypatch.setattr(SafetyCritic, "risk", lambda self, obs, actions: unguarded(self, np.nan_to_num(obs), actions))
    with pytest.raises(BundleError, match="the networks answer NaN with numbers here, expected NaN"):
        load_bundle(tmp_path / "bundle", **KEYS)
    monkeypatch.setattr(SafetyCritic, "risk", lambda self, obs, actions: unguarded(self, obs, np.nan_to_num(actions)))
    with pytest.raises(BundleError, match="the networks answer NaN with numbers here, expected NaN"):
        load_bundle(tmp_path / "bundle", **KEYS)


def test_weights_of_another_width_are_named(tmp_path):
    write(tmp_path / "bundle", *networks())
    edit_weights(tmp_path / "bundle", lambda arrays: arrays | {"policy.bias_0": np.zeros(7, np.float32)})
    with pytest.raises(BundleError, match=r"'bias_0' has shape \(7,\), expected \(8,\)"):
        load_bundle(tmp_path / "bundle", **KEYS)
