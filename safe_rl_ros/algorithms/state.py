"""Exact state of a learner as one flat dict of tensors: networks, Adam moments, numbers, generator."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from safe_rl_ros.algorithms.config import Device
from safe_rl_ros.types import ConfigError

_MOMENTS = ("step", "exp_avg", "exp_avg_sq")


def find_device(name: Device) -> torch.device:
    """Return the device that ``name`` means here. Raises ConfigError if it is "cuda" and there is none."""
    if name == "cuda" and not torch.cuda.is_available():
        raise ConfigError("device is cuda, but torch finds none here: expected cpu or auto")
    return torch.device("cuda" if name != "cpu" and torch.cuda.is_available() else "cpu")


def adam(network: nn.Module, learning_rate: float) -> torch.optim.Adam:
    """Return a fused Adam of exactly ``network``'s parameters, its moments already allocated.

    Adam allocates lazily; doing it here gives the state the same names before and after the first step.
    """
    optimizer = torch.optim.Adam(network.parameters(), lr=learning_rate, fused=True)
    for parameter in network.parameters():
        optimizer.state[parameter] = {
            "step": torch.zeros((), dtype=torch.float32, device=parameter.device),
            "exp_avg": torch.zeros_like(parameter),
            "exp_avg_sq": torch.zeros_like(parameter),
        }
    return optimizer


def check_finite(
    networks: Mapping[str, nn.Module],
    optimizers: Mapping[str, torch.optim.Adam],
    scalars: Mapping[str, float],
) -> None:
    """Raise FloatingPointError naming the first weight, Adam moment or number that is NaN or infinite.

    A moment too: squares overflow long before weights do, and a network whose second moment is infinite never moves
    again, without a word.
    """
    wrong = [name for name, tensor in _live_tensors(networks, optimizers).items() if not _is_finite(tensor)]
    wrong += [f"scalar.{name}" for name, value in scalars.items() if not math.isfinite(value)]
    if wrong:
        raise FloatingPointError(f"learning made {wrong[0]} non-finite; the update was undone")


def _is_finite(tensor: Tensor) -> bool:
    return bool(torch.isfinite(tensor).all())


def _live_tensors(networks: Mapping[str, nn.Module], optimizers: Mapping[str, torch.optim.Adam]) -> dict[str, Tensor]:
    """Return name -> the tensor itself (not a copy) of every weight and Adam moment."""
    live: dict[str, Tensor] = {}
    for name, network in networks.items():
        live |= {f"network.{name}.{key}": value.detach() for key, value in network.state_dict().items()}
        if name in optimizers:
            for key, parameter in network.named_parameters():
                moments = optimizers[name].state[parameter]
                live |= {f"adam.{name}.{key}.{moment}": moments[moment] for moment in _MOMENTS}
    return live


def read_state(
    networks: Mapping[str, nn.Module],
    optimizers: Mapping[str, torch.optim.Adam],
    scalars: Mapping[str, float],
    generator: torch.Generator,
) -> dict[str, Tensor]:
    """Return copies of everything on the CPU, by name; scalars as float64 so that they come back bit for bit."""
    state = {name: tensor.to("cpu", copy=True) for name, tensor in _live_tensors(networks, optimizers).items()}
    state |= {f"scalar.{name}": torch.tensor(value, dtype=torch.float64) for name, value in scalars.items()}
    state["generator"] = generator.get_state().clone()
    return state


def write_state(
    state: Mapping[str, Tensor],
    networks: Mapping[str, nn.Module],
    optimizers: Mapping[str, torch.optim.Adam],
    scalars: dict[str, float],
    generator: torch.Generator,
) -> None:
    """Restore :func:`read_state` in place; everything is checked before anything is written.

    Raises:
        ValueError: an entry is missing, unknown, or has the wrong shape or dtype.
    """
    expected = read_state(networks, optimizers, scalars, generator)
    wrong = sorted(set(expected) ^ set(state))
    if wrong:
        raise ValueError(f"learner state: missing or unknown entries {wrong}")
    for name, current in expected.items():
        given = state[name]
        if given.shape != current.shape or given.dtype != current.dtype:
            raise ValueError(
                f"learner state: {name} is {given.dtype} of shape {tuple(given.shape)},"
                f" expected {current.dtype} of shape {tuple(current.shape)}"
            )
    for name, tensor in _live_tensors(networks, optimizers).items():
        tensor.copy_(state[name])
    for name in scalars:
        scalars[name] = float(state[f"scalar.{name}"])
    generator.set_state(state["generator"])
