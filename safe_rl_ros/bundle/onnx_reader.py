"""Read an ONNX file without trusting it: what comes out are checked arrays, and the certainty of what they compute.

A file is parsed, never run. It must be, node for node, the graph that :mod:`~safe_rl_ros.bundle.onnx_graph` builds for
the network that the manifest describes; only the numbers may differ. What is run afterwards is built here from these
numbers, so no bytes of a file ever reach the runtime.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from google.protobuf.message import DecodeError
from onnx import AttributeProto, ModelProto, NodeProto, TensorProto, ValueInfoProto, helper, numpy_helper

from safe_rl_ros.bundle.onnx_graph import IR_VERSION, OPERATORS, OPSET, critic_model, policy_model
from safe_rl_ros.inference import GaussianPolicy, Normaliser, SafetyCritic
from safe_rl_ros.types import Float32Array

MAX_NODES = 1_000
PLAIN_ATTRIBUTES = {AttributeProto.INT, AttributeProto.INTS, AttributeProto.FLOAT}


def read_policy(name: str, data: bytes, meta: Mapping[str, Any], normaliser: Normaliser | None) -> GaussianPolicy:
    """Return the policy in a file. Raises ValueError naming the file and what is wrong."""
    model, arrays = _parse(name, data)
    kept = {key: value for key, value in arrays.items() if key.startswith(("weight_", "bias_")) or key == "log_std"}
    try:
        policy = GaussianPolicy.from_arrays(kept, meta, normaliser)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from error
    _require_same(name, model, arrays, policy_model(policy))
    return policy


def read_critic(name: str, data: bytes, meta: Mapping[str, Any], normaliser: Normaliser | None) -> SafetyCritic:
    """Return the critic in a file. Raises ValueError naming the file and what is wrong."""
    model, arrays = _parse(name, data)
    kept = {key: value for key, value in arrays.items() if key.startswith(("weight_", "bias_"))}
    parts = [kept.pop(f"weight_0_{part}", None) for part in ("obs", "action")]
    for first in parts:
        if first is None or first.ndim != 3:
            raise ValueError(f"{name}: weight_0_obs or weight_0_action is missing or not of shape (E, in, out)")
    try:
        kept["weight_0"] = np.concatenate(parts, axis=1)  # type: ignore[arg-type]
        kept = {key: a.squeeze(1) if key.startswith("bias_") and a.ndim == 3 else a for key, a in kept.items()}
        critic = SafetyCritic.from_arrays(kept, meta, normaliser)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from error
    _require_same(name, model, arrays, critic_model(critic))
    return critic


def _parse(name: str, data: bytes) -> tuple[ModelProto, dict[str, Float32Array]]:
    """Return the model and its initialisers, float32 and finite. Raises ValueError."""
    model = ModelProto()
    try:
        model.ParseFromString(data)
    except DecodeError as error:
        raise ValueError(f"{name} is not an ONNX model: {error}") from error
    opsets = [(each.domain, each.version) for each in model.opset_import]
    if model.ir_version != IR_VERSION or opsets != [("", OPSET)]:
        raise ValueError(
            f"{name} has IR version {model.ir_version} and operator sets {opsets}, "
            f"expected {IR_VERSION} and {[('', OPSET)]}"
        )
    graph = model.graph
    extras = {
        "functions": model.functions,
        "training information": model.training_info,
        "sparse initialisers": graph.sparse_initializer,
        "quantisation": graph.quantization_annotation,
    }
    for what, found in extras.items():
        if len(found):
            raise ValueError(f"{name} has {what}, expected none")
    if len(graph.node) > MAX_NODES:
        raise ValueError(f"{name} has {len(graph.node)} nodes, expected at most {MAX_NODES}")
    for node in graph.node:
        _check_node(name, node)
    return model, {tensor.name: _array(name, tensor) for tensor in _unique(name, graph.initializer)}


def _check_node(name: str, node: NodeProto) -> None:
    if node.domain not in ("", "ai.onnx") or node.op_type not in OPERATORS:
        raise ValueError(f"{name} has the operator {node.domain}:{node.op_type}, which is not allowed")
    for attribute in node.attribute:
        if attribute.type not in PLAIN_ATTRIBUTES:
            kind = AttributeProto.AttributeType.Name(attribute.type)
            raise ValueError(
                f"{name}: {node.op_type} has the attribute {attribute.name} of type {kind}, expected numbers"
            )


def _unique(name: str, tensors: Iterable[TensorProto]) -> list[TensorProto]:
    found = {tensor.name: tensor for tensor in tensors}
    listed = list(tensors)
    if len(found) != len(listed):
        raise ValueError(f"{name} has two initialisers of the same name")
    return listed


def _array(name: str, tensor: TensorProto) -> Float32Array:
    """Return an initialiser's values. Raises ValueError unless they are in the file, float32 and finite."""
    # Before anything looks at the values: they might name another file to read them from.
    if tensor.data_location != TensorProto.DEFAULT or len(tensor.external_data):
        raise ValueError(f"{name}: {tensor.name} has its values in another file")
    if tensor.data_type != TensorProto.FLOAT:
        kind = TensorProto.DataType.Name(tensor.data_type) if tensor.data_type in TensorProto.DataType.values() else "?"
        raise ValueError(f"{name}: {tensor.name} is {kind}, expected FLOAT")
    dims = tuple(tensor.dims)
    if any(size < 1 for size in dims) or 4 * math.prod(dims) != len(tensor.raw_data):
        raise ValueError(f"{name}: {tensor.name} has {len(tensor.raw_data)} bytes for the shape {dims}")
    array = np.asarray(numpy_helper.to_array(tensor), dtype=np.float32)
    if not np.isfinite(array).all():
        raise ValueError(f"{name}: {tensor.name} is not finite")
    return array


def _require_same(name: str, model: ModelProto, arrays: Mapping[str, Float32Array], expected: ModelProto) -> None:
    """Raise ValueError unless the graph is the expected one, its constants included."""
    found, wanted = _describe(model), _describe(expected)
    for what in wanted:
        if found[what] != wanted[what]:
            raise ValueError(f"{name}: its {what} are not those of the network that the manifest describes")
    for tensor in expected.graph.initializer:
        if not np.array_equal(arrays[tensor.name], numpy_helper.to_array(tensor)):
            raise ValueError(f"{name}: {tensor.name} is not the manifest's")


def _describe(model: ModelProto) -> dict[str, list[Any]]:
    """Return what a graph computes but for the values of its initialisers."""
    graph = model.graph
    return {
        "inputs": [_describe_value(value) for value in graph.input],
        "outputs": [_describe_value(value) for value in graph.output],
        "initialisers": sorted((tensor.name, tuple(tensor.dims)) for tensor in graph.initializer),
        "nodes": [
            (
                node.op_type,
                list(node.input),
                list(node.output),
                sorted((each.name, helper.get_attribute_value(each)) for each in node.attribute),
            )
            for node in graph.node
        ],
    }


def _describe_value(value: ValueInfoProto) -> tuple[str, int, list[int | str]]:
    tensor = value.type.tensor_type
    return value.name, tensor.elem_type, [each.dim_param or each.dim_value for each in tensor.shape.dim]
