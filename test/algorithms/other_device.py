"""A device that is not the CPU, for machines without one: real numbers behind tensors that say they are elsewhere.

Tensors of device ``meta`` are made to hold a tensor of the CPU, on which every operation is done. As on a GPU, an
operation on tensors of both devices raises, numbers come back only through ``.cpu()``, ``float()`` and the like, and
nothing moves by itself. What computes there without an error keeps its tensors together, and gives what the CPU gives.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter, tree_map

OTHER = torch.device("meta")
MOVES = {torch.ops.aten._to_copy.default, torch.ops.aten.copy_.default}
JOINS = {torch.ops.aten.cat.default, torch.ops.aten.stack.default}
INDEXED = {torch.ops.aten.index.Tensor, torch.ops.aten.index_put_.default}


class OtherTensor(torch.Tensor):
    """A tensor of the other device; ``inner`` has its numbers."""

    inner: torch.Tensor
    __torch_function__ = torch._C._disabled_torch_function_impl

    @staticmethod
    def __new__(cls, inner: torch.Tensor) -> OtherTensor:
        made = torch.Tensor._make_wrapper_subclass(
            cls, inner.shape, strides=inner.stride(), dtype=inner.dtype, device=OTHER, requires_grad=False
        )
        made.inner = inner
        return made

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return compute(func, args, kwargs or {})

    def tolist(self) -> Any:
        """Return the numbers; torch's own refuses subclasses."""
        return self.inner.tolist()

    def __repr__(self, *, tensor_contents: Any = None) -> str:
        return f"OtherTensor({self.inner!r})"


class OtherDevice(TorchDispatchMode):
    """Also sees operations on tensors of the CPU: those that move or make something on the other device."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return compute(func, args, kwargs or {})


def compute(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    """Do ``func`` on the CPU and say that it was done where its arguments are. Raises RuntimeError: on two devices."""
    tensors = [each for each in tree_iter((args, kwargs)) if isinstance(each, torch.Tensor)]
    others = {id(each.inner): each for each in tensors if isinstance(each, OtherTensor)}
    device = kwargs.get("device")
    if device is not None:
        there = torch.device(device) == OTHER
        kwargs = {**kwargs, "device": torch.device("cpu")}
    elif func is torch.ops.aten.copy_.default:
        there = isinstance(args[0], OtherTensor)
    else:
        there = bool(others)
        judged = tensors[:1] if func in INDEXED else tensors  # indices may be on the CPU
        # A single number of the CPU goes with tensors of a GPU, but is not joined to them.
        least = 0 if func in JOINS else 1
        plain = [each for each in judged if not isinstance(each, OtherTensor) and each.dim() >= least]
        if others and plain and func not in MOVES:
            raise RuntimeError(f"{func}: expected all tensors on one device, found the CPU's of shape {plain[0].shape}")
    inner_args, inner_kwargs = tree_map(lambda x: x.inner if isinstance(x, OtherTensor) else x, (args, kwargs))
    result = func(*inner_args, **inner_kwargs)

    def back(x: Any) -> Any:
        if not isinstance(x, torch.Tensor):
            return x
        if id(x) in others:  # changed in place
            return others[id(x)]
        return OtherTensor(x) if there else x

    return tree_map(back, result)


@contextmanager
def other_device() -> Iterator[torch.device]:
    """Make the other device usable; tensors are moved there with ``.to(...)``."""
    with OtherDevice():
        yield OTHER
