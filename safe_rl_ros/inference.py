"""Policy and safety critic in numpy: what the filter, the policy node and rollouts run. No torch.

Both are tanh or ReLU networks in float32, built from plain arrays (``weight_i`` of shape (in, out) or
(E, in, out), ``bias_i``) and a JSON-able ``meta``; :mod:`safe_rl_ros.networks` exports to them. Both may have a
:class:`Normaliser`, which is applied to every observation first.
Shape letters: see :mod:`safe_rl_ros.types`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from safe_rl_ros.types import Float32Array, FloatArray, Selection

LOG_STD_MIN = -4.0
LOG_STD_MAX = 2.0

SMALLEST, LARGEST = float(np.finfo(np.float32).tiny), float(np.finfo(np.float32).max)

Aggregate = Literal["mean", "mean_plus_std", "max"]
Activation = Literal["tanh", "relu"]


def _relu(values: Float32Array) -> Float32Array:
    result: Float32Array = np.maximum(values, np.float32(0.0))  # keeps NaN
    return result


ACTIVATIONS: dict[str, Callable[[Any], Any]] = {"tanh": np.tanh, "relu": _relu}


def _checked(name: str, array: npt.ArrayLike, shape: tuple[int, ...]) -> Float32Array:
    """Return a private float32 copy of ``array`` after checking its shape and that it is finite."""
    result = np.array(array, dtype=np.float32, order="C")
    if result.shape != shape:
        raise ValueError(f"array {name!r} has shape {result.shape}, expected {shape}")
    if not np.isfinite(result).all():
        raise ValueError(f"array {name!r} holds {int((~np.isfinite(result)).sum())} non-finite value(s)")
    return result


def _layers(arrays: Mapping[str, npt.ArrayLike], sizes: Sequence[int], lead: tuple[int, ...]) -> list[Float32Array]:
    """Return [weight_0, bias_0, weight_1, ...] of a network of layer ``sizes``; ``lead`` is () or (E,)."""
    result = []
    for i, (fan_in, fan_out) in enumerate(pairwise(sizes)):
        for name, shape in ((f"weight_{i}", (*lead, fan_in, fan_out)), (f"bias_{i}", (*lead, fan_out))):
            if name not in arrays:
                raise ValueError(f"array {name!r} is missing, expected shape {shape}")
            result.append(_checked(name, arrays[name], shape))
    return result


def _meta(meta: Mapping[str, Any], kind: str, keys: set[str]) -> dict[str, Any]:
    """Return ``meta`` as a dict after checking its kind, its keys and its sizes."""
    if meta.get("kind") != kind:
        raise ValueError(f"meta kind is {meta.get('kind')!r}, expected {kind!r}")
    wrong = (keys | {"kind"}) ^ (set(meta) - {"activation"})
    if wrong:
        raise ValueError(f"meta of {kind}: missing or unknown key(s) {sorted(wrong)}")
    activation = meta.get("activation", "tanh")
    if not isinstance(activation, str) or activation not in ACTIVATIONS:
        raise ValueError(f"meta activation is {activation!r}, expected one of {tuple(ACTIVATIONS)}")
    hidden = meta["hidden"]
    if not isinstance(hidden, list | tuple) or not hidden:
        raise ValueError(f"meta hidden is {hidden!r}, expected a list of at least one layer width")
    sizes = {"obs_dim": meta["obs_dim"], "act_dim": meta["act_dim"], "members": meta.get("members", 1)}
    sizes |= {f"hidden[{i}]": width for i, width in enumerate(hidden)}
    for name, value in sizes.items():
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise ValueError(f"meta {name} is {value!r}, expected a positive integer")
    # Never written for tanh: the same network has one description, so one hash.
    return {key: value for key, value in meta.items() if (key, value) != ("activation", "tanh")}


def activation_of(meta: Mapping[str, Any]) -> Activation:
    """Return the activation of the hidden layers that the description of a network says; tanh if it says none."""
    found: Activation = meta.get("activation", "tanh")
    return found


def _unknown(arrays: Mapping[str, npt.ArrayLike], known: set[str]) -> None:
    extra = sorted(set(arrays) - known)
    if extra:
        raise ValueError(f"unknown array(s) {extra}, expected only {sorted(known)}")


class Normaliser:
    """Observations to network inputs: (obs - mean) / std, then clipped to [-clip, clip] if there is a clip."""

    def __init__(self, mean: npt.ArrayLike, std: npt.ArrayLike, clip: float | None = None) -> None:
        """Take mean and std (O,), std positive, clip positive. Raises ValueError naming what is wrong."""
        self.mean = _checked("mean", mean, np.shape(mean))
        if self.mean.ndim != 1 or self.mean.size == 0:
            raise ValueError(f"array 'mean' has shape {self.mean.shape}, expected (O,)")
        self.std = _checked("std", std, self.mean.shape)
        if not (self.std > 0).all():
            raise ValueError(f"array 'std' has the least value {self.std.min():g}, expected positive numbers")
        if clip is not None and not SMALLEST <= clip <= LARGEST:
            raise ValueError(f"clip is {clip}, expected a positive float32 number or none")
        self.clip = None if clip is None else float(clip)

    def __call__(self, obs: Float32Array) -> Float32Array:
        """Return the normalised observations, same shape (..., O) float32; NaN stays NaN."""
        scaled = (obs - self.mean) / self.std
        return scaled if self.clip is None else np.clip(scaled, -np.float32(self.clip), np.float32(self.clip))

    def arrays(self) -> dict[str, Float32Array]:
        """Return copies of the arrays by name."""
        return {"mean": self.mean.copy(), "std": self.std.copy()}

    def meta(self) -> dict[str, Any]:
        """Return the JSON-able rest."""
        return {"kind": "normaliser", "clip": self.clip}


def _fitting(normaliser: Normaliser | None, obs_dim: int) -> Normaliser | None:
    if normaliser is not None and normaliser.mean.shape != (obs_dim,):
        raise ValueError(f"the normaliser takes observations of length {normaliser.mean.size}, expected {obs_dim}")
    return normaliser


def choose(risks: FloatArray, threshold: float, order: npt.NDArray[np.intp] | None = None) -> Selection:
    """Return the first acceptable of K actions, else the first of least risk, else index -1.

    Args:
        risks: (K,); what is not finite or negative is not usable.
        threshold: largest acceptable risk; negative, NaN or infinite: none is.
        order: (M,) indices by preference, what is not in it is no candidate; None: all as given.
    """
    places = np.arange(len(risks)) if order is None else order
    ordered = risks[places]
    usable = (ordered >= 0.0) & (ordered < np.inf)
    acceptable = usable & (ordered <= threshold) & (threshold < np.inf)
    if acceptable.any():
        place = int(acceptable.argmax())
    elif usable.any():
        place = int(np.where(usable, ordered, np.inf).argmin())
    else:
        return Selection(-1, float("nan"), False, len(risks))
    return Selection(int(places[place]), float(ordered[place]), bool(acceptable[place]), len(risks))


class GaussianPolicy:
    """Diagonal Gaussian over actions: mean tanh(MLP(obs)) in [-1, 1], log std clamped to [-4, 2].

    The std is a vector of its own (array ``log_std`` (C,)) or, with ``state_dependent_std``, the
    second half of the network's output. Samples are not clipped; the filter shapes them.
    """

    def __init__(
        self, arrays: Mapping[str, npt.ArrayLike], meta: Mapping[str, Any], normaliser: Normaliser | None = None
    ) -> None:
        """Build from arrays and meta. Raises ValueError naming the array or key that is wrong."""
        self._meta = _meta(meta, "gaussian_policy", {"obs_dim", "act_dim", "hidden", "state_dependent_std"})
        self.obs_dim: int = self._meta["obs_dim"]
        self.normaliser = _fitting(normaliser, self.obs_dim)
        self.act_dim: int = self._meta["act_dim"]
        self._activate = ACTIVATIONS[activation_of(self._meta)]
        self.state_dependent_std: bool = self._meta["state_dependent_std"]
        if not isinstance(self.state_dependent_std, bool):
            raise ValueError(f"meta state_dependent_std is {self.state_dependent_std!r}, expected true or false")
        outputs = self.act_dim * (2 if self.state_dependent_std else 1)
        self._layers = _layers(arrays, [self.obs_dim, *self._meta["hidden"], outputs], ())
        names = {f"{kind}_{i}" for i in range(len(self._layers) // 2) for kind in ("weight", "bias")}
        self._log_std: Float32Array | None = None
        if not self.state_dependent_std:
            if "log_std" not in arrays:
                raise ValueError(f"array 'log_std' is missing, expected shape {(self.act_dim,)}")
            self._log_std = _checked("log_std", arrays["log_std"], (self.act_dim,))
            self._std = np.exp(np.clip(self._log_std, LOG_STD_MIN, LOG_STD_MAX))
            names.add("log_std")
        _unknown(arrays, names)

    @classmethod
    def from_arrays(
        cls, arrays: Mapping[str, npt.ArrayLike], meta: Mapping[str, Any], normaliser: Normaliser | None = None
    ) -> GaussianPolicy:
        """Rebuild from :meth:`arrays` and :meth:`meta`. Raises ValueError naming what is wrong."""
        return cls(arrays, meta, normaliser)

    def arrays(self) -> dict[str, Float32Array]:
        """Return copies of the arrays by name."""
        result = {f"{'bias' if i % 2 else 'weight'}_{i // 2}": a.copy() for i, a in enumerate(self._layers)}
        if self._log_std is not None:
            result["log_std"] = self._log_std.copy()
        return result

    def meta(self) -> dict[str, Any]:
        """Return the JSON-able description that :meth:`from_arrays` needs."""
        return {**self._meta, "hidden": list(self._meta["hidden"])}

    def distribution(self, obs: npt.ArrayLike) -> tuple[Float32Array, Float32Array]:
        """Return mean and std, each (C,) for ``obs`` (O,) or (B, C) for ``obs`` (B, O)."""
        state = np.asarray(obs, dtype=np.float32)
        if state.ndim not in (1, 2) or state.shape[-1] != self.obs_dim:
            raise ValueError(f"obs has shape {state.shape}, expected ({self.obs_dim},) or (B, {self.obs_dim})")
        return self._forward(state if self.normaliser is None else self.normaliser(state))

    def mean(self, obs: npt.ArrayLike) -> Float32Array:
        """Return the mean action in [-1, 1], (C,) for ``obs`` (O,) or (B, C) for ``obs`` (B, O)."""
        return self.distribution(obs)[0]

    def _forward(self, hidden: Float32Array) -> tuple[Float32Array, Float32Array]:
        """Return mean and std of checked and normalised observations."""
        layers = self._layers
        for i in range(0, len(layers) - 2, 2):
            hidden = self._activate(hidden @ layers[i] + layers[i + 1])
        out = hidden @ layers[-2] + layers[-1]
        if self.state_dependent_std:
            std = np.exp(np.clip(out[..., self.act_dim :], LOG_STD_MIN, LOG_STD_MAX))
            return np.tanh(out[..., : self.act_dim]), std
        mean = np.tanh(out)
        return mean, self._std.copy() if mean.ndim == 1 else np.broadcast_to(self._std, mean.shape).copy()

    def sample(self, obs: npt.ArrayLike, n: int, rng: np.random.Generator) -> Float32Array:
        """Return ``n`` samples (n, C) for one ``obs`` (O,), not clipped."""
        mean, std = self.distribution(obs)
        if mean.ndim != 1:
            raise ValueError(f"sample takes one observation of shape ({self.obs_dim},)")
        return mean + std * rng.standard_normal((n, self.act_dim), dtype=np.float32)


class SafetyCritic:
    """Ensemble of E networks: probability of failure of (obs, action), aggregated and in [0, 1].

    ``aggregate``: "mean", "mean_plus_std" (mean + ``std_factor`` times the members' std) or "max".
    """

    def __init__(
        self, arrays: Mapping[str, npt.ArrayLike], meta: Mapping[str, Any], normaliser: Normaliser | None = None
    ) -> None:
        """Build from arrays and meta. Raises ValueError naming the array or key that is wrong."""
        self._meta = _meta(
            meta, "safety_critic", {"obs_dim", "act_dim", "hidden", "members", "aggregate", "std_factor"}
        )
        self.obs_dim: int = self._meta["obs_dim"]
        self.normaliser = _fitting(normaliser, self.obs_dim)
        self.act_dim: int = self._meta["act_dim"]
        self.members: int = self._meta["members"]
        self._activate = ACTIVATIONS[activation_of(self._meta)]
        self.aggregate: Aggregate = self._meta["aggregate"]
        self.std_factor = float(self._meta["std_factor"])
        if self.aggregate not in get_args(Aggregate):
            raise ValueError(f"meta aggregate is {self.aggregate!r}, expected one of {get_args(Aggregate)}")
        if not np.isfinite(self.std_factor) or self.std_factor < 0.0:
            raise ValueError(f"meta std_factor is {self.std_factor}, expected a finite number >= 0")
        sizes = [self.obs_dim + self.act_dim, *self._meta["hidden"], 1]
        self._layers = _layers(arrays, sizes, (self.members,))
        _unknown(arrays, {f"{kind}_{i}" for i in range(len(sizes) - 1) for kind in ("weight", "bias")})
        # One member runs as plain 2-D products: a third of the time of the batched ones.
        first, *rest = [a[0] if self.members == 1 else a for a in self._layers[0::2]]
        biases = [a[0] if self.members == 1 else a[:, None, :] for a in self._layers[1::2]]
        self._first_obs = np.ascontiguousarray(first[..., : self.obs_dim, :])
        self._first_action = np.ascontiguousarray(first[..., self.obs_dim :, :])
        self._first_bias = biases[0]
        self._rest = list(zip(rest, biases[1:], strict=True))

    @classmethod
    def from_arrays(
        cls, arrays: Mapping[str, npt.ArrayLike], meta: Mapping[str, Any], normaliser: Normaliser | None = None
    ) -> SafetyCritic:
        """Rebuild from :meth:`arrays` and :meth:`meta`. Raises ValueError naming what is wrong."""
        return cls(arrays, meta, normaliser)

    def arrays(self) -> dict[str, Float32Array]:
        """Return copies of the arrays by name, each with a leading member axis (E, ...)."""
        return {f"{'bias' if i % 2 else 'weight'}_{i // 2}": a.copy() for i, a in enumerate(self._layers)}

    def meta(self) -> dict[str, Any]:
        """Return the JSON-able description that :meth:`from_arrays` needs."""
        return {**self._meta, "hidden": list(self._meta["hidden"])}

    def risk(self, obs: npt.ArrayLike, actions: npt.ArrayLike) -> FloatArray:
        """Return the risk (K,) of ``actions`` (K, C) at one ``obs`` (O,); NaN stays NaN."""
        return self._aggregate(self._logits(*self._inputs(obs, actions)).astype(np.float64))

    def risk_rows(self, obs: npt.ArrayLike, actions: npt.ArrayLike) -> FloatArray:
        """Return the risk (B,) of one action each, ``actions`` (B, C), at ``obs`` (B, O); NaN stays NaN."""
        chosen = np.asarray(actions, dtype=np.float32)
        if chosen.ndim != 2 or chosen.shape[1] != self.act_dim:
            raise ValueError(f"actions has shape {chosen.shape}, expected (B, {self.act_dim})")
        return np.asarray(self.risk_candidates(obs, chosen[:, None])[:, 0])

    def risk_candidates(self, obs: npt.ArrayLike, actions: npt.ArrayLike) -> FloatArray:
        """Return the risk (B, K) of ``actions`` (B, K, C) at ``obs`` (B, O); NaN stays NaN."""
        states = np.asarray(obs, dtype=np.float32)
        candidates = np.asarray(actions, dtype=np.float32)
        if states.ndim != 2 or states.shape[1] != self.obs_dim:
            raise ValueError(f"obs has shape {states.shape}, expected (B, {self.obs_dim})")
        if candidates.ndim != 3 or candidates.shape[0] != len(states) or candidates.shape[2] != self.act_dim:
            raise ValueError(f"actions has shape {candidates.shape}, expected ({len(states)}, K, {self.act_dim})")
        if self.normaliser is not None:
            states = self.normaliser(states)
        rows, count, _ = candidates.shape
        # The observation's part of the first layer is the same for every candidate of a row.
        seen = np.repeat(states @ self._first_obs + self._first_bias, count, axis=-2)
        hidden = candidates.reshape(rows * count, self.act_dim) @ self._first_action + seen
        return self._aggregate(self._hidden_to_logits(hidden).astype(np.float64)).reshape(rows, count)

    def select(
        self, obs: npt.ArrayLike, actions: npt.ArrayLike, threshold: float, order: npt.NDArray[np.intp] | None = None
    ) -> Selection:
        """Return the choice among ``actions`` (K, C), see :func:`choose`."""
        return choose(self.risk(obs, actions), threshold, order)

    def _inputs(self, obs: npt.ArrayLike, actions: npt.ArrayLike) -> tuple[Float32Array, Float32Array]:
        """Return the normalised observation (O,) and the actions (K, C), both checked and float32."""
        state = np.asarray(obs, dtype=np.float32)
        candidates = np.asarray(actions, dtype=np.float32)
        if state.shape != (self.obs_dim,):
            raise ValueError(f"obs has shape {state.shape}, expected ({self.obs_dim},)")
        if candidates.ndim != 2 or candidates.shape[1] != self.act_dim:
            raise ValueError(f"actions has shape {candidates.shape}, expected (K, {self.act_dim})")
        return state if self.normaliser is None else self.normaliser(state), candidates

    def _logits(self, state: Float32Array, candidates: Float32Array) -> Float32Array:
        """Return (K,), or (E, K) of an ensemble."""
        # The observation's part of the first layer is the same for every candidate.
        hidden = candidates @ self._first_action + (state[None, :] @ self._first_obs + self._first_bias)
        return self._hidden_to_logits(hidden)

    def _hidden_to_logits(self, hidden: Float32Array) -> Float32Array:
        """Return (N,), or (E, N), from the first layer (N, H), or (E, N, H), before its activation."""
        for weight, bias in self._rest:
            hidden = self._activate(hidden) @ weight + bias
        return np.asarray(hidden[..., 0])

    def _aggregate(self, logits: FloatArray) -> FloatArray:
        """Return (K,) from logits (K,) or (E, K)."""
        # exp(700) is finite in float64, so no overflow warning; minimum and maximum keep NaN.
        probability = 1.0 / (1.0 + np.exp(np.minimum(-logits, 700.0)))
        if probability.ndim == 1:
            return np.asarray(probability)
        if self.aggregate == "max":
            return np.asarray(probability.max(axis=0))
        mean = probability.mean(axis=0)
        if self.aggregate == "mean":
            return np.asarray(mean)
        return np.asarray(np.minimum(mean + self.std_factor * probability.std(axis=0), 1.0))
