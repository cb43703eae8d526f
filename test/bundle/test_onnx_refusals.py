"""An ONNX file that is not, node for node, the described network is refused, whatever its hashes say."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from bundle_helpers import ACT, KEYS, NORMALISER, OBS, edit, make_critic, make_policy, replace_file, write
from onnx import TensorProto, helper, numpy_helper

from safe_rl_ros.bundle import load_bundle
from safe_rl_ros.types import BundleError

OBSERVATION = np.array([0.9, -1.3, 30.0], dtype=np.float32)
ACTIONS = np.random.default_rng(0).uniform(-1, 1, (20, ACT)).astype(np.float32)


def export(tmp_path, normaliser=None):
    policy = make_policy(hidden=(8, 6), normaliser=normaliser)
    critic = make_critic(hidden=(8, 6), members=3, aggregate="mean_plus_std", std_factor=0.7, normaliser=normaliser)
    write(tmp_path / "onnx", policy, critic, kind="onnx")
    return tmp_path / "onnx"


@pytest.fixture
def exported(tmp_path):
    return export(tmp_path)


def changed(name, change):
    """Return what changes a graph on disk by a function and makes the hashes right again."""

    def apply(directory):
        model = onnx.load(directory / name)
        change(model)
        replace_file(directory, name, model.SerializeToString())

    return apply


def tensor(model, name):
    return next(each for each in model.graph.initializer if each.name == name)


def put_values(name, values):
    return lambda model: tensor(model, name).CopyFrom(numpy_helper.from_array(values, name))


def external(model):
    each = tensor(model, "weight_1")
    each.ClearField("raw_data")
    each.data_location = TensorProto.EXTERNAL
    each.external_data.add(key="location", value="/etc/hostname")


def add_loop(model):
    body = helper.make_graph([], "body", [], [])
    model.graph.node.append(helper.make_node("Tanh", ["risk"], ["again"], body=body))


def scaled(model):
    for each in model.graph.initializer:
        each.raw_data = (numpy_helper.to_array(each) * np.float32(1.01)).tobytes()


def set_operator(index, operator):
    return lambda model: setattr(model.graph.node[index], "op_type", operator)


def append_node(operator, domain=""):
    return lambda model: model.graph.node.append(helper.make_node(operator, ["risk"], ["again"], domain=domain))


def infinite(model):
    values = numpy_helper.to_array(tensor(model, "weight_1")).copy()
    values[0, 0, 0] = np.inf
    put_values("weight_1", values)(model)


CRITIC_CHANGES = {
    "infinite weight": (infinite, "critic.onnx: weight_1 is not finite"),
    "double": (put_values("bias_1", np.zeros((3, 1, 6))), "bias_1 is DOUBLE, expected FLOAT"),
    "short": (lambda m: setattr(tensor(m, "bias_1"), "raw_data", b"\0" * 8), r"8 bytes for the shape \(3, 1, 6\)"),
    "external": (external, "weight_1 has its values in another file"),
    "another shape": (put_values("bias_1", np.zeros((3, 1, 7), np.float32)), r"'bias_1' has shape \(3, 7\)"),
    "missing": (lambda m: m.graph.initializer.remove(tensor(m, "bias_2")), "'bias_2' is missing"),
    "first layer missing": (lambda m: m.graph.initializer.remove(tensor(m, "weight_0_obs")), "weight_0_obs or"),
    "more arrays": (
        lambda m: m.graph.initializer.append(numpy_helper.from_array(np.ones(1, np.float32), "x")),
        "initialis",
    ),
    "array twice": (lambda m: m.graph.initializer.append(tensor(m, "bias_1")), "two initialisers of the same name"),
    "sparse": (lambda m: m.graph.sparse_initializer.add(), "has sparse initialisers, expected none"),
    "functions": (lambda m: m.functions.add(), "has functions, expected none"),
    "training": (lambda m: m.training_info.add(), "has training information, expected none"),
    "quantisation": (lambda m: m.graph.quantization_annotation.add(), "has quantisation, expected none"),
    "operator set": (lambda m: setattr(m.opset_import[0], "version", 99), r"operator sets \[\('', 99\)\]"),
    "other domain": (lambda m: m.opset_import.add(domain="com.evil", version=1), "operator sets"),
    "ir version": (lambda m: setattr(m, "ir_version", 99), "has IR version 99"),
    "custom operator": (append_node("Tanh", "com.evil"), "operator com.evil:Tanh, which is not allowed"),
    "operator": (append_node("If"), "operator :If, which is not allowed"),
    "subgraph": (add_loop, "attribute body of type GRAPH"),
    "many nodes": (lambda m: m.graph.node.extend([m.graph.node[0]] * 1001), "nodes, expected at most 1000"),
    "one node more": (append_node("Tanh"), "nodes are not those of the network"),
    "no sigmoid": (set_operator(-1, "Exp"), "nodes are not those"),
    "other input": (lambda m: setattr(m.graph.input[0], "name", "state"), "inputs are not those"),
    "other output": (lambda m: setattr(m.graph.output[0].type.tensor_type, "elem_type", 11), "outputs are not those"),
    "other axis": (lambda m: m.graph.node[-4].attribute[0].ints.__setitem__(0, 1), "nodes are not those"),
    "other factor": (put_values("std_factor", np.array(0.0, np.float32)), "std_factor is not the manifest's"),
    "normaliser": (put_values("obs_mean", np.zeros(OBS, np.float32)), "obs_mean is not the manifest's"),
    "clip": (put_values("obs_high", np.array(9.0, np.float32)), "obs_high is not the manifest's"),
    "other weights": (scaled, "critic.onnx: obs_mean is not the manifest's"),
}


@pytest.mark.parametrize("damage", list(CRITIC_CHANGES))
def test_critic_that_is_not_the_described_one_is_refused(tmp_path, damage):
    export(tmp_path, normaliser=NORMALISER)
    change, message = CRITIC_CHANGES[damage]
    changed("critic.onnx", change)(tmp_path / "onnx")
    with pytest.raises(BundleError, match=message) as caught:
        load_bundle(tmp_path / "onnx", **KEYS)
    assert "\n" not in str(caught.value), "one message, one line"


DIRECTORY_CHANGES = {
    "no policy": (lambda d: (d / "policy.onnx").unlink(), "policy.onnx does not exist"),
    "bit flipped": (lambda d: (d / "critic.onnx").write_bytes((d / "critic.onnx").read_bytes()[:-1] + b"?"), "damaged"),
    "no model": (
        lambda d: replace_file(d, "critic.onnx", b"\x80\x04pickle"),
        "critic.onnx is not an ONNX model|IR version",
    ),
    "empty": (lambda d: replace_file(d, "policy.onnx", b""), "policy.onnx has IR version 0"),
    "cut": (lambda d: replace_file(d, "policy.onnx", (d / "policy.onnx").read_bytes()[:-40]), "policy.onnx"),
    "critic undeclared": (lambda d: edit(d, lambda c: c.update(critic=None, threshold=None)), "files are"),
    "fewer members": (lambda d: edit(d, lambda c: c["critic"].update(members=2)), r"expected \(2, 5, 8\)"),
    "other aggregate": (lambda d: edit(d, lambda c: c["critic"].update(aggregate="max")), "initialisers are not those"),
    "other weights": (changed("policy.onnx", scaled), "policy.onnx: log_std_min is not the manifest's"),
    "other bias": (changed("policy.onnx", put_values("bias_2", np.ones(ACT, np.float32))), "mean on the test vectors"),
    "other critic bias": (
        changed("critic.onnx", put_values("bias_2", np.ones((3, 1, 1), np.float32))),
        "risk on the test vectors",
    ),
    "policy tanh gone": (changed("policy.onnx", set_operator(1, "Sigmoid")), "policy.onnx: its nodes are not those"),
    "std head": (lambda d: edit(d, lambda c: c["policy"].update(state_dependent_std=True)), "policy.onnx"),
    "swapped": (
        lambda d: replace_file(d, "critic.onnx", (d / "policy.onnx").read_bytes()),
        "weight_0_obs or weight_0_action is missing",
    ),
}


@pytest.mark.parametrize("damage", list(DIRECTORY_CHANGES))
def test_damaged_directory_is_refused(exported, damage):
    change, message = DIRECTORY_CHANGES[damage]
    change(exported)
    with pytest.raises(BundleError, match=message):
        load_bundle(exported, **KEYS)


@pytest.mark.filterwarnings("error")
def test_bytes_of_a_file_are_refused_or_do_not_matter(exported):
    """Flip single bits and make the hashes right again, as an attacker would: refused, or the networks are the same
    up to what the test vectors tolerate. Nothing else is raised."""
    good = load_bundle(exported, **KEYS).risk(OBSERVATION, ACTIONS)
    rng = np.random.default_rng(0)
    original = (exported / "critic.onnx").read_bytes()
    refused = 0
    for position in rng.integers(len(original), size=60):
        data = bytearray(original)
        data[position] ^= 1 << int(rng.integers(8))
        replace_file(exported, "critic.onnx", bytes(data))
        try:
            np.testing.assert_allclose(load_bundle(exported, **KEYS).risk(OBSERVATION, ACTIONS), good, atol=0.01)
        except BundleError:
            refused += 1
    assert refused > 30
