"""Diffusion policy in numpy: candidate actions by denoising, of which a critic chooses the least unsafe (FISOR).

Zheng et al., arXiv:2401.10700. The network is the one of :mod:`safe_rl_ros.algorithms.offline.diffusion_actor`, which
exports to here. What depends on the time step alone is computed once, what depends on the observation alone once per
decision. No torch: the robot runs it.

Letters beside those of :mod:`safe_rl_ros.types`: T denoising steps, N candidates per decision, W width of the network.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from safe_rl_ros.policies.stored import StoredPolicy
from safe_rl_ros.types import Float32Array

KIND = "diffusion"
MEAN_SEED = 0
"""Seeds the noise with which :meth:`DiffusionPolicy.mean` draws its candidates, the same for every observation."""
NORM_EPSILON = 1e-5
_ROWS_AT_ONCE = 256
_SIZES = ("obs_dim", "act_dim", "width", "blocks", "expansion", "time_features", "time_width")
_COUNTS = ("steps", "candidates", "selector_members")
WIDE = "wide_candidates"
"""Key of the description that may be missing: samples of the whole action space, see :class:`DiffusionPolicy`."""
_WIDTH = np.float32(2.0)
"""They are uniform in a box of this half width and cut to [-1, 1], so half of them lie at a bound of each axis."""


def array_shapes(meta: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    """Return name -> shape of the arrays of a policy with this description; weights are (in, out)."""
    obs_dim, act_dim, width, blocks, expansion, features, time_width = (meta[name] for name in _SIZES)
    wide, joint = expansion * width, obs_dim + act_dim
    shapes: dict[str, tuple[int, ...]] = {
        "beta": (meta["steps"],),
        "frequency": (features // 2,),
        **_layer("time_0", features, time_width),
        **_layer("time_1", time_width, time_width),
        **_layer("enter", act_dim + obs_dim + time_width, width),
    }
    for i in range(blocks):
        shapes |= {f"block_{i}_scale": (width,), f"block_{i}_shift": (width,)}
        shapes |= _layer(f"block_{i}_up", width, wide) | _layer(f"block_{i}_down", wide, width)
    shapes |= _layer("leave", width, act_dim)
    for i, (fan_in, fan_out) in enumerate(pairwise([joint, *meta["selector_hidden"], 1])):
        members = (meta["selector_members"],)
        shapes |= {f"selector_weight_{i}": (*members, fan_in, fan_out), f"selector_bias_{i}": (*members, fan_out)}
    return shapes


def _layer(name: str, fan_in: int, fan_out: int) -> dict[str, tuple[int, ...]]:
    return {f"{name}_weight": (fan_in, fan_out), f"{name}_bias": (fan_out,)}


def mish(x: npt.NDArray[Any]) -> Float32Array:
    """Return x tanh(log(1 + exp(x))), elementwise; NaN stays NaN."""
    grown = np.exp(np.minimum(x, np.float32(20.0)))
    raised = grown * (grown + np.float32(2.0))
    result: Float32Array = x * (raised / (raised + np.float32(2.0)))
    return result


class DiffusionPolicy(StoredPolicy):
    """N denoised candidates per decision, of which the one with the least max_e Q_h acts; see :class:`.base.Policy`.

    With ``wide_candidates`` M, which the paper has not, M samples of the whole action space are looked at too where
    none of the N has Q_h <= 0: what the data's drivers did is no way out there, and the critic may know one.
    """

    def _checked(self, meta: Mapping[str, Any]) -> dict[str, Any]:
        return _checked_meta(meta)

    def _take(self, arrays: Mapping[str, npt.ArrayLike]) -> None:
        self.candidates: int = self._meta["candidates"]
        self.steps: int = self._meta["steps"]
        self.wide_candidates: int = self._meta.get(WIDE, 0)
        self._arrays = _checked_arrays(arrays, array_shapes(self._meta))
        beta = self._arrays["beta"]
        if not ((beta > 0.0) & (beta < 1.0)).all():
            raise ValueError(f"array 'beta' holds {beta.tolist()}, expected numbers between 0 and 1")
        self._beta, self._alpha = beta, np.float32(1.0) - beta
        self._alpha_bar: Float32Array = np.cumprod(self._alpha, dtype=np.float64).astype(np.float32)
        self._time = self._time_parts()
        shape = (self.steps, 1, self.candidates, self.act_dim)
        rng = np.random.default_rng(MEAN_SEED)
        self._mean_noise = rng.standard_normal(shape, dtype=np.float32)
        self._mean_wide = self._draw_wide(1, rng)

    def arrays(self) -> dict[str, Float32Array]:
        """Return copies of the arrays by name."""
        return {name: array.copy() for name, array in self._arrays.items()}

    def mean(self, obs: npt.ArrayLike) -> Float32Array:
        """Return the least unsafe of N candidates drawn with one fixed noise, (C,) at ``obs`` (O,) or (B, C)."""
        state = self._state(obs)
        rows = np.atleast_2d(state)
        parts = [rows[first : first + _ROWS_AT_ONCE] for first in range(0, len(rows), _ROWS_AT_ONCE)]
        chosen = [
            self._choose(part, self._mean_noise.repeat(len(part), axis=1), self._mean_wide.repeat(len(part), axis=0), 1)
            for part in parts
        ]
        action: Float32Array = np.concatenate(chosen)[:, 0] if chosen else np.empty((0, self.act_dim), np.float32)
        return np.asarray(action[0]) if state.ndim == 1 else action

    def sample(self, obs: npt.ArrayLike, n: int, rng: np.random.Generator) -> Float32Array:
        """Return the ``n`` least unsafe (n, C) of max(n, N) candidates for one ``obs`` (O,), the least unsafe first.

        With ``n`` = 1 that is FISOR's policy.
        """
        state = self._state(obs)
        if state.ndim != 1:
            raise ValueError(f"sample takes one observation of shape ({self.obs_dim},)")
        shape = (self.steps, 1, max(n, self.candidates), self.act_dim)
        noise = rng.standard_normal(shape, dtype=np.float32)
        return np.asarray(self._choose(state[None], noise, self._draw_wide(1, rng), n)[0])

    def sample_rows(self, obs: npt.ArrayLike, rng: np.random.Generator) -> Float32Array:
        """Return one random action (B, C) for each of ``obs`` (B, O): the least unsafe of N candidates."""
        state = self._state(obs)
        if state.ndim != 2:
            raise ValueError(f"sample_rows takes observations of shape (B, {self.obs_dim})")
        shape = (self.steps, len(state), self.candidates, self.act_dim)
        noise = rng.standard_normal(shape, dtype=np.float32)
        return np.asarray(self._choose(state, noise, self._draw_wide(len(state), rng), 1)[:, 0])

    def draw(self, obs: npt.ArrayLike, noise: Float32Array) -> Float32Array:
        """Return all candidates (B, K, C) of ``obs`` (B, O) from standard normal ``noise`` (T, B, K, C), unsorted.

        ``noise[0]`` is what is denoised; ``noise[k]`` is added after the k-th of the T steps, none after the last.
        """
        return self._candidates(self._state(obs), noise)

    def unsafety(self, obs: npt.ArrayLike, actions: Float32Array) -> Float32Array:
        """Return max_e Q_h (B, K) of ``actions`` (B, K, C) at ``obs`` (B, O), in units of h; at most 0 is feasible."""
        return self._unsafety(self._state(obs), actions)

    def _state(self, obs: npt.ArrayLike) -> Float32Array:
        state = np.asarray(obs, dtype=np.float32)
        if state.ndim not in (1, 2) or state.shape[-1] != self.obs_dim:
            raise ValueError(f"obs has shape {state.shape}, expected ({self.obs_dim},) or (B, {self.obs_dim})")
        return state if self.normaliser is None else self.normaliser(state)

    def _draw_wide(self, rows: int, rng: np.random.Generator) -> Float32Array:
        """Return samples (B, M, C) of the whole action space; nothing is drawn if M is 0."""
        drawn = rng.random((rows, self.wide_candidates, self.act_dim), dtype=np.float32)
        return np.asarray(np.clip(_WIDTH * (2.0 * drawn - 1.0), np.float32(-1.0), np.float32(1.0)))

    def _choose(self, state: Float32Array, noise: Float32Array, wide: Float32Array, count: int) -> Float32Array:
        """Return the ``count`` least unsafe candidates (B, count, C), the least unsafe first."""
        drawn = self._candidates(state, noise)
        unsafety = self._unsafety(state, drawn)
        chosen = _least(drawn, unsafety, count)
        lost = unsafety.min(axis=1) > 0.0
        if wide.shape[1] and lost.any():
            more = np.concatenate([unsafety[lost], self._unsafety(state[lost], wide[lost])], axis=1)
            chosen[lost] = _least(np.concatenate([drawn[lost], wide[lost]], axis=1), more, count)
        return chosen

    def _candidates(self, state: Float32Array, noise: Float32Array) -> Float32Array:
        """Return candidates (B, K, C) in [-1, 1] of normalised observations (B, O); Algorithm 2, arXiv:2006.11239."""
        arrays, (steps, rows, count, _) = self._arrays, noise.shape
        weight = arrays["enter_weight"][self.act_dim : self.act_dim + self.obs_dim]
        seen = np.repeat(state @ weight + arrays["enter_bias"], count, axis=0)
        action = noise[0].reshape(rows * count, self.act_dim)
        for t in reversed(range(steps)):
            share = self._beta[t] / np.sqrt(np.float32(1.0) - self._alpha_bar[t])
            action = (action - share * self._predict(action, seen, t)) / np.sqrt(self._alpha[t])
            if t > 0:
                action = action + np.sqrt(self._beta[t]) * noise[steps - t].reshape(action.shape)
            action = np.clip(action, np.float32(-1.0), np.float32(1.0))
        return np.asarray(action.reshape(rows, count, self.act_dim))

    def _predict(self, action: Float32Array, seen: Float32Array, t: int) -> Float32Array:
        """Return the noise (R, C) predicted in actions (R, C); ``seen`` (R, W) is the observation's part."""
        arrays = self._arrays
        hidden = action @ arrays["enter_weight"][: self.act_dim] + seen + self._time[t]
        for i in range(self._meta["blocks"]):
            inner = _layer_norm(hidden) * arrays[f"block_{i}_scale"] + arrays[f"block_{i}_shift"]
            inner = mish(inner @ arrays[f"block_{i}_up_weight"] + arrays[f"block_{i}_up_bias"])
            hidden = hidden + (inner @ arrays[f"block_{i}_down_weight"] + arrays[f"block_{i}_down_bias"])
        result: Float32Array = mish(hidden) @ arrays["leave_weight"] + arrays["leave_bias"]
        return result

    def _time_parts(self) -> Float32Array:
        """Return what each time step adds to the first layer, (T, W)."""
        arrays = self._arrays
        times: Float32Array = np.arange(self.steps, dtype=np.float32)[:, None]
        angle = times * (np.float32(2.0 * np.pi) * arrays["frequency"])
        features = np.concatenate([np.cos(angle), np.sin(angle)], axis=1)
        hidden = mish(features @ arrays["time_0_weight"] + arrays["time_0_bias"])
        encoded: Float32Array = hidden @ arrays["time_1_weight"] + arrays["time_1_bias"]
        result: Float32Array = encoded @ arrays["enter_weight"][self.act_dim + self.obs_dim :]
        return result

    def _unsafety(self, state: Float32Array, actions: Float32Array) -> Float32Array:
        rows, count, _ = actions.shape
        first = self._arrays["selector_weight_0"]
        seen = state @ first[:, : self.obs_dim] + self._arrays["selector_bias_0"][:, None]
        acted = actions.reshape(rows * count, self.act_dim) @ first[:, self.obs_dim :]
        hidden: npt.NDArray[Any] = acted + np.repeat(seen, count, axis=1)
        for i in range(1, len(self._meta["selector_hidden"]) + 1):
            hidden = np.maximum(hidden, np.float32(0.0))
            hidden = hidden @ self._arrays[f"selector_weight_{i}"] + self._arrays[f"selector_bias_{i}"][:, None]
        result: Float32Array = hidden[..., 0].max(axis=0).reshape(rows, count)
        return result


def _least(actions: Float32Array, unsafety: Float32Array, count: int) -> Float32Array:
    """Return the ``count`` of ``actions`` (B, K, C) with the least ``unsafety`` (B, K), the least first."""
    order = np.argsort(unsafety, axis=1, kind="stable")[:, :count]
    return np.asarray(np.take_along_axis(actions, order[:, :, None], axis=1))


def _layer_norm(x: Float32Array) -> Float32Array:
    """Return ``x`` (..., W) less its mean over its std, each along the last axis."""
    centred = x - x.mean(axis=-1, keepdims=True)
    variance = np.square(centred).mean(axis=-1, keepdims=True)
    result: Float32Array = centred / np.sqrt(variance + np.float32(NORM_EPSILON))
    return result


def _checked_meta(meta: Mapping[str, Any]) -> dict[str, Any]:
    """Return ``meta`` as a dict after checking its kind, keys and numbers."""
    if meta.get("kind") != KIND:
        raise ValueError(f"meta kind is {meta.get('kind')!r}, expected {KIND!r}")
    wrong = {"kind", "selector_hidden", *_SIZES, *_COUNTS} ^ (set(meta) - {WIDE})
    if wrong:
        raise ValueError(f"meta of {KIND}: missing or unknown key(s) {sorted(wrong)}")
    hidden = meta["selector_hidden"]
    if not isinstance(hidden, list | tuple) or not hidden:
        raise ValueError(f"meta selector_hidden is {hidden!r}, expected a list of at least one layer width")
    numbers = {name: meta[name] for name in (*_SIZES, *_COUNTS)}
    numbers |= {f"selector_hidden[{i}]": width for i, width in enumerate(hidden)}
    numbers |= {WIDE: meta[WIDE]} if WIDE in meta else {}
    for name, value in numbers.items():
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise ValueError(f"meta {name} is {value!r}, expected a positive integer")
    if meta["time_features"] % 2:
        raise ValueError(f"meta time_features is {meta['time_features']}, expected an even number")
    return dict(meta)


def _checked_arrays(
    arrays: Mapping[str, npt.ArrayLike], shapes: Mapping[str, tuple[int, ...]]
) -> dict[str, Float32Array]:
    """Return private float32 copies after checking names, shapes and that all is finite."""
    wrong = sorted(set(arrays) ^ set(shapes))
    if wrong:
        raise ValueError(f"missing or unknown array(s) {wrong}")
    result = {}
    for name, shape in shapes.items():
        array = np.array(arrays[name], dtype=np.float32, order="C")
        if array.shape != shape:
            raise ValueError(f"array {name!r} has shape {array.shape}, expected {shape}")
        if not np.isfinite(array).all():
            raise ValueError(f"array {name!r} holds {int((~np.isfinite(array)).sum())} non-finite value(s)")
        result[name] = array
    return result
