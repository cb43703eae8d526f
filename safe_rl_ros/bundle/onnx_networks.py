"""Policy and safety critic run by ONNX Runtime on one thread, in place of numpy. No torch."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime
from onnx import ModelProto

from safe_rl_ros.bundle.onnx_graph import logits_model, policy_model
from safe_rl_ros.bundle.screening import SMALL, Ensemble, Indices, lower_bound, select_staged
from safe_rl_ros.inference import GaussianPolicy, Normaliser, SafetyCritic, choose
from safe_rl_ros.types import Float32Array, FloatArray, Selection

PROVIDER = "CPUExecutionProvider"


def open_session(model: ModelProto) -> onnxruntime.InferenceSession:
    """Return a session on the calling thread alone: no pool, nothing that could wait for another core."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    options.log_severity_level = 3  # errors; they are raised anyway
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=[PROVIDER])


class OnnxPolicy(GaussianPolicy):
    """A :class:`GaussianPolicy` whose network is run by ONNX Runtime."""

    def __init__(
        self, arrays: Mapping[str, npt.ArrayLike], meta: Mapping[str, Any], normaliser: Normaliser | None = None
    ) -> None:
        """Build as the base class does, and open the session."""
        super().__init__(arrays, meta, normaliser)
        # Observations arrive normalised (the base class does it), so the graph is that of the bare network.
        self._session = open_session(policy_model(GaussianPolicy.from_arrays(arrays, meta)))

    def _forward(self, hidden: Float32Array) -> tuple[Float32Array, Float32Array]:
        mean, std = self._session.run(["mean", "std"], {"obs": hidden.reshape(-1, self.obs_dim)})
        return (mean[0], std[0]) if hidden.ndim == 1 else (mean, std)


class OnnxCritic(SafetyCritic):
    """A :class:`SafetyCritic` whose members are run by ONNX Runtime; :meth:`select` screens in stages.

    One graph holds all members, another the first alone, which screens. One action is judged with input and output in
    place: not for use by two threads at once.

    ONNX Runtime computes each row of a product as if it were alone, so a risk does not depend on which other actions
    are judged with it, and the staged choice is the full one bit for bit. (On a machine where that does not hold,
    they may differ between two risks that are equal but for rounding.)
    """

    def __init__(
        self, arrays: Mapping[str, npt.ArrayLike], meta: Mapping[str, Any], normaliser: Normaliser | None = None
    ) -> None:
        """Build as the base class does, and open the sessions."""
        super().__init__(arrays, meta, normaliser)
        self._all = open_session(logits_model(self, range(self.members)))
        self._first = open_session(logits_model(self, range(1))) if self.members > 1 else None
        # One row in, one row out, always in the same place: half the overhead of a plain run.
        self._obs = np.zeros((1, self.obs_dim), dtype=np.float32)
        self._action = np.zeros((1, self.act_dim), dtype=np.float32)
        self._answer = np.zeros((1, self.members), dtype=np.float32)
        self._binding = self._all.io_binding()
        for name, array in (("obs", self._obs), ("actions", self._action)):
            self._binding.bind_input(name, "cpu", 0, np.float32, array.shape, array.ctypes.data)
        answer = self._answer
        self._binding.bind_output("logits", "cpu", 0, np.float32, answer.shape, answer.ctypes.data)

    def risk(self, obs: npt.ArrayLike, actions: npt.ArrayLike) -> FloatArray:
        """Return the risk (K,) of ``actions`` (K, C) at one ``obs`` (O,); NaN stays NaN."""
        state, candidates = self._inputs(obs, actions)
        if len(candidates) != 1:
            return self._risk(state[None, :], candidates)
        self._obs[0] = state
        self._action[0] = candidates[0]
        self._all.run_with_iobinding(self._binding)
        return np.array([self._aggregate_one(self._answer[0].tolist())])

    def select(
        self, obs: npt.ArrayLike, actions: npt.ArrayLike, threshold: float, order: npt.NDArray[np.intp] | None = None
    ) -> Selection:
        """Return the choice among ``actions`` (K, C): that of :func:`choose` over all risks, with less work."""
        screener = self._first
        if screener is None or len(np.asarray(actions) if order is None else order) <= SMALL:
            return choose(self.risk(obs, actions), threshold, order)
        state, candidates = self._inputs(obs, actions)
        row = state[None, :]

        def judge(rows: Indices) -> tuple[FloatArray, FloatArray]:
            logits = self._run(self._all, row, candidates[rows])
            return self._aggregate(logits.T), self._sigmoid(logits[:, 0])

        def screen(rows: Indices) -> FloatArray:
            return self._sigmoid(self._run(screener, row, candidates[rows])[:, 0])

        def bound(first: FloatArray) -> FloatArray:
            return lower_bound(first, self.members, self.aggregate, self.std_factor)

        places = np.arange(len(candidates)) if order is None else order
        return select_staged(Ensemble(judge, screen, bound), threshold, places)

    def _risk(self, row: Float32Array, candidates: Float32Array) -> FloatArray:
        """Return the risk (K,) of checked actions at one normalised observation (1, O)."""
        logits = self._run(self._all, row, candidates)
        return self._aggregate(logits[:, 0] if self.members == 1 else logits.T)

    @staticmethod
    def _run(session: onnxruntime.InferenceSession, row: Float32Array, candidates: Float32Array) -> FloatArray:
        """Return logits (K, members of the session), float64."""
        return np.asarray(session.run(None, {"obs": row, "actions": candidates})[0], dtype=np.float64)

    @staticmethod
    def _sigmoid(logits: FloatArray) -> FloatArray:
        return np.asarray(1.0 / (1.0 + np.exp(np.minimum(-logits, 700.0))))

    def _aggregate(self, logits: FloatArray) -> FloatArray:
        """Return (K,) from logits (K,) or (E, K): the base class's sums with fewer temporary arrays."""
        probability = self._sigmoid(logits)
        if probability.ndim == 1:
            return probability
        if self.aggregate == "max":
            return np.asarray(np.maximum.reduce(probability, axis=0))
        mean = np.add.reduce(probability, axis=0) / self.members
        if self.aggregate == "mean":
            return np.asarray(mean)
        difference = probability - mean
        variance = np.add.reduce(difference * difference, axis=0) / self.members
        return np.asarray(np.minimum(mean + self.std_factor * np.sqrt(variance), 1.0))

    def _aggregate_one(self, logits: list[float]) -> float:
        """Return the risk of one action from its logits (E,): the base class's sums without arrays."""
        values = [1.0 / (1.0 + math.exp(min(-logit, 700.0))) for logit in logits]
        mean = math.fsum(values) / len(values)
        if len(values) == 1 or self.aggregate == "mean" or math.isnan(mean):
            return mean
        if self.aggregate == "max":
            return max(values)
        variance = math.fsum((value - mean) ** 2 for value in values) / len(values)
        return min(mean + self.std_factor * math.sqrt(variance), 1.0)
