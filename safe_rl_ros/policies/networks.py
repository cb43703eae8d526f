"""Pieces that kinds of policies share: a checked network in numpy, checked numbers of a description. No torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from safe_rl_ros.types import Float32Array


def checked_array(name: str, arrays: Mapping[str, npt.ArrayLike], shape: tuple[int, ...]) -> Float32Array:
    """Return a private float32 copy of ``arrays[name]``. Raises ValueError if missing, misshapen or not finite."""
    if name not in arrays:
        raise ValueError(f"array {name!r} is missing, expected shape {shape}")
    result = np.array(arrays[name], dtype=np.float32, order="C")
    if result.shape != shape:
        raise ValueError(f"array {name!r} has shape {result.shape}, expected {shape}")
    if not np.isfinite(result).all():
        raise ValueError(f"array {name!r} holds {int((~np.isfinite(result)).sum())} non-finite value(s)")
    return result


def checked_meta(
    meta: Mapping[str, Any], kind: str, *, counts: Sequence[str], numbers: Sequence[str], widths: Sequence[str]
) -> dict[str, Any]:
    """Return ``meta`` as a dict: ``counts`` are integers > 0, ``numbers`` finite and >= 0, ``widths`` lists of counts.

    Raises:
        ValueError: the kind is another, or a key is missing, unknown or out of range; the message names it.
    """
    if meta.get("kind") != kind:
        raise ValueError(f"meta kind is {meta.get('kind')!r}, expected {kind!r}")
    wrong = {"kind", *counts, *numbers, *widths} ^ set(meta)
    if wrong:
        raise ValueError(f"meta of {kind}: missing or unknown key(s) {sorted(wrong)}")
    for name in widths:
        if not isinstance(meta[name], list | tuple) or not meta[name] or not all(map(_is_count, meta[name])):
            raise ValueError(f"meta {name} is {meta[name]!r}, expected a list of at least one positive layer width")
    for name in counts:
        if not _is_count(meta[name]):
            raise ValueError(f"meta {name} is {meta[name]!r}, expected a positive integer")
    for name in numbers:
        value = meta[name]
        if not isinstance(value, int | float) or isinstance(value, bool) or not (np.isfinite(value) and value >= 0.0):
            raise ValueError(f"meta {name} is {value!r}, expected a finite number >= 0")
    return {key: list(value) if key in widths else value for key, value in meta.items()}


def refuse_unknown(arrays: Mapping[str, npt.ArrayLike], known: Mapping[str, Any]) -> None:
    """Raise ValueError naming arrays that nothing uses."""
    extra = sorted(set(arrays) - set(known))
    if extra:
        raise ValueError(f"unknown array(s) {extra}, expected only {sorted(known)}")


def checked_observations(obs: npt.ArrayLike, obs_dim: int, dims: tuple[int, ...] = (1, 2)) -> Float32Array:
    """Return ``obs``, (O,) or (B, O), as float32. Raises ValueError for another shape."""
    state = np.asarray(obs, dtype=np.float32)
    if state.ndim not in dims or state.shape[-1] != obs_dim:
        expected = " or ".join(f"({obs_dim},)" if dim == 1 else f"(B, {obs_dim})" for dim in dims)
        raise ValueError(f"obs has shape {state.shape}, expected {expected}")
    return state


class ReluNetwork:
    """Network of ReLU layers with linear output, or E of them; arrays ``{prefix}.weight_i`` and ``{prefix}.bias_i``."""

    def __init__(
        self, prefix: str, arrays: Mapping[str, npt.ArrayLike], sizes: Sequence[int], members: int | None = None
    ) -> None:
        """Take layers of widths ``sizes``; with ``members`` E all arrays have it as first axis. Raises ValueError."""
        self._prefix = prefix
        self._lead = () if members is None else (members,)
        self._layers: list[tuple[Float32Array, Float32Array]] = []
        for i, (fan_in, fan_out) in enumerate(pairwise(sizes)):
            weight = checked_array(f"{prefix}.weight_{i}", arrays, (*self._lead, fan_in, fan_out))
            bias = checked_array(f"{prefix}.bias_{i}", arrays, (*self._lead, fan_out))
            self._layers.append((weight, bias[..., None, :]))

    def __call__(self, x: Float32Array) -> Float32Array:
        """Map (N, in) to (N, out), or to (E, N, out) for an ensemble."""
        for i, (weight, bias) in enumerate(self._layers):
            if i:
                x = np.maximum(x, np.float32(0.0))
            x = x @ weight + bias
        return x

    def arrays(self) -> dict[str, Float32Array]:
        """Return copies of all layers by name."""
        result = {}
        for i, (weight, bias) in enumerate(self._layers):
            result[f"{self._prefix}.weight_{i}"] = weight.copy()
            result[f"{self._prefix}.bias_{i}"] = bias[..., 0, :].copy()
        return result


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1
