"""Networks as ONNX graphs, node by node from their arrays: no exporter, no torch.

The files of a bundle hold :func:`policy_model` and :func:`critic_model`, complete for any ONNX runtime:

- ``policy.onnx``: ``obs`` (B, O) -> ``mean`` (B, C), ``std`` (B, C).
- ``critic.onnx``: ``obs`` (1, O), ``actions`` (K, C) -> ``risk`` (K,), normaliser and aggregate included.

:func:`logits_model` is what the filter runs: the same sums, arranged for speed.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, ValueInfoProto, helper, numpy_helper

from safe_rl_ros.inference import (
    LOG_STD_MAX,
    LOG_STD_MIN,
    Activation,
    GaussianPolicy,
    Normaliser,
    SafetyCritic,
    activation_of,
)

OPSET = 17
IR_VERSION = 8
OPERATORS = frozenset(
    {"Add", "Clip", "Div", "Exp", "Expand", "Gemm", "MatMul", "Min", "Mul", "ReduceMax", "ReduceMean"}
    | {"Relu", "Shape", "Sigmoid", "Split", "Sqrt", "Sub", "Tanh"}
)
"""Every operator that the graphs of files use."""

HIDDEN: dict[Activation, str] = {"tanh": "Tanh", "relu": "Relu"}
"""Operator after a hidden layer, by the activation that a network's description says."""

Shape = Sequence[int | str]


class _Graph:
    """Collects nodes and initialisers; the result is a :class:`ModelProto`."""

    def __init__(self) -> None:
        self._nodes: list[NodeProto] = []
        self._initialisers: list[TensorProto] = []

    def constant(self, name: str, value: npt.ArrayLike) -> str:
        """Add a float32 initialiser and return its name."""
        array = np.ascontiguousarray(np.asarray(value, dtype="<f4")).reshape(np.shape(value))
        self._initialisers.append(numpy_helper.from_array(array, name))
        return name

    def node(self, operator: str, inputs: Sequence[str], output: str | Sequence[str], **attributes: int) -> str:
        """Add a node and return the name of its first output."""
        outputs = [output] if isinstance(output, str) else list(output)
        node = helper.make_node(operator, list(inputs), outputs)
        for key, value in attributes.items():
            node.attribute.append(helper.make_attribute(key, [value] if key == "axes" else value))
        self._nodes.append(node)
        return outputs[0]

    def model(self, name: str, inputs: dict[str, Shape], outputs: dict[str, Shape]) -> ModelProto:
        """Return the finished model."""
        graph: GraphProto = helper.make_graph(
            self._nodes, name, _values(inputs), _values(outputs), initializer=self._initialisers
        )
        model: ModelProto = helper.make_model(
            graph, opset_imports=[helper.make_opsetid("", OPSET)], producer_name="safe_rl_ros", ir_version=IR_VERSION
        )
        return model


def _values(shapes: dict[str, Shape]) -> list[ValueInfoProto]:
    return [helper.make_tensor_value_info(name, TensorProto.FLOAT, list(shape)) for name, shape in shapes.items()]


def policy_model(policy: GaussianPolicy) -> ModelProto:
    """Return the policy's graph: hidden layers, then tanh mean and clamped std."""
    graph, arrays, count = _Graph(), policy.arrays(), len(policy.meta()["hidden"]) + 1
    x, activate = _normalise(graph, policy.normaliser), HIDDEN[activation_of(policy.meta())]
    for i in range(count):
        weight, bias = (graph.constant(f"{kind}_{i}", arrays[f"{kind}_{i}"]) for kind in ("weight", "bias"))
        x = graph.node("Gemm", [x, weight, bias], f"layer_{i}")
        x = graph.node(activate, [x], f"hidden_{i}") if i < count - 1 else x
    if policy.state_dependent_std:
        graph.node("Split", [x], ["raw_mean", "log_std_head"], axis=1)
        graph.node("Tanh", ["raw_mean"], "mean")
    else:
        graph.node("Tanh", [x], "mean")
        graph.node("Shape", ["mean"], "mean_shape")
        graph.node("Expand", [graph.constant("log_std", arrays["log_std"]), "mean_shape"], "log_std_head")
    limits = [graph.constant("log_std_min", LOG_STD_MIN), graph.constant("log_std_max", LOG_STD_MAX)]
    graph.node("Exp", [graph.node("Clip", ["log_std_head", *limits], "log_std_clamped")], "std")
    shape = ("batch", policy.act_dim)
    return graph.model("policy", {"obs": ("batch", policy.obs_dim)}, {"mean": shape, "std": shape})


def critic_model(critic: SafetyCritic) -> ModelProto:
    """Return the critic's graph: all members at once in batched products, then the aggregate."""
    graph, arrays, count = _Graph(), critic.arrays(), len(critic.meta()["hidden"]) + 1
    obs, activate = _normalise(graph, critic.normaliser), HIDDEN[activation_of(critic.meta())]
    for part, rows in (("obs", slice(None, critic.obs_dim)), ("action", slice(critic.obs_dim, None))):
        graph.constant(f"weight_0_{part}", arrays["weight_0"][:, rows])
    for i in range(count):
        graph.constant(f"bias_{i}", arrays[f"bias_{i}"][:, None, :])
    graph.node("Add", [graph.node("MatMul", [obs, "weight_0_obs"], "obs_part"), "bias_0"], "obs_layer")
    x = graph.node("Add", [graph.node("MatMul", ["actions", "weight_0_action"], "action_part"), "obs_layer"], "layer_0")
    for i in range(1, count):
        x = graph.node(activate, [x], f"hidden_{i - 1}")
        product = graph.node("MatMul", [x, graph.constant(f"weight_{i}", arrays[f"weight_{i}"])], f"product_{i}")
        x = graph.node("Add", [product, f"bias_{i}"], f"layer_{i}")
    _aggregate(graph, critic, graph.node("Sigmoid", [x], "probability"))
    inputs: dict[str, Shape] = {"obs": (1, critic.obs_dim), "actions": ("candidates", critic.act_dim)}
    return graph.model("critic", inputs, {"risk": ("candidates",)})


def _aggregate(graph: _Graph, critic: SafetyCritic, x: str) -> None:
    """Add the nodes from probabilities (E, K, 1) to ``risk`` (K,)."""

    def reduce(operator: str, source: str, output: str) -> str:
        # Over the members, then over the last axis, which has one element.
        inner = graph.node(operator, [source], f"{output}_column", axes=0, keepdims=0)
        return graph.node("ReduceMax", [inner], output, axes=1, keepdims=0)

    if critic.aggregate == "max":
        reduce("ReduceMax", x, "risk")
    elif critic.aggregate == "mean":
        reduce("ReduceMean", x, "risk")
    else:
        mean = graph.node("ReduceMean", [x], "mean", axes=0, keepdims=1)
        difference = graph.node("Sub", [x, mean], "difference")
        square = graph.node("Mul", [difference, difference], "square")
        spread = graph.node("Sqrt", [reduce("ReduceMean", square, "variance")], "spread")
        scaled = graph.node("Mul", [spread, graph.constant("std_factor", critic.std_factor)], "scaled_spread")
        total = graph.node("Add", [reduce("ReduceMean", x, "mean_risk"), scaled], "unbounded")
        graph.node("Min", [total, graph.constant("one", 1.0)], "risk")


def _normalise(graph: _Graph, normaliser: Normaliser | None) -> str:
    """Add the normaliser's nodes and return the name of what the networks see."""
    if normaliser is None:
        return "obs"
    centred = graph.node("Sub", ["obs", graph.constant("obs_mean", normaliser.mean)], "obs_centred")
    scaled = graph.node("Div", [centred, graph.constant("obs_std", normaliser.std)], "obs_scaled")
    if normaliser.clip is None:
        return scaled
    limits = [graph.constant("obs_low", -normaliser.clip), graph.constant("obs_high", normaliser.clip)]
    return graph.node("Clip", [scaled, *limits], "obs_clipped")


def logits_model(critic: SafetyCritic, members: range) -> ModelProto:
    """Return the graph of some members' logits, a chain of products for each: what the filter runs.

    Inputs are ``obs`` (1, O), normalised already, and ``actions`` (K, C): the observation's part of the first layer is
    computed once for all candidates. The output is ``logits`` (K, len(members)).
    """
    graph, arrays, count = _Graph(), critic.arrays(), len(critic.meta()["hidden"]) + 1
    outputs, activate = [], HIDDEN[activation_of(critic.meta())]
    for e in members:
        first = arrays["weight_0"][e]
        weights = [
            graph.constant(f"weight_0_obs_{e}", first[: critic.obs_dim]),
            graph.constant(f"weight_0_action_{e}", first[critic.obs_dim :]),
            *(graph.constant(f"weight_{i}_{e}", arrays[f"weight_{i}"][e]) for i in range(1, count)),
        ]
        biases = [graph.constant(f"bias_{i}_{e}", arrays[f"bias_{i}"][e]) for i in range(count)]
        x = graph.node("Gemm", ["obs", weights[0], biases[0]], f"obs_layer_{e}")
        x = graph.node("Gemm", ["actions", weights[1], x], f"layer_0_{e}")
        for i in range(1, count):
            x = graph.node(activate, [x], f"hidden_{i - 1}_{e}")
            x = graph.node("Gemm", [x, weights[i + 1], biases[i]], f"layer_{i}_{e}")
        outputs.append(x)
    graph.node("Concat", outputs, "logits", axis=1)
    inputs: dict[str, Shape] = {"obs": (1, critic.obs_dim), "actions": ("candidates", critic.act_dim)}
    return graph.model("logits", inputs, {"logits": ("candidates", len(members))})
