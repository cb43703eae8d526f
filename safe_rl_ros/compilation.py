"""torch's compiler for the inner loop of a learner, where there is one: fewer and fused operations."""

from __future__ import annotations

import logging
from collections.abc import Callable

import torch
from torch import Tensor

logger = logging.getLogger(__name__)


class Compiled:
    """A function of tensors that is compiled at its first call, and once more for every new shape.

    The compiler needs a C++ compiler (on CUDA: Triton). Where it fails, one warning says why and the function runs
    uncompiled from then on; the results agree within rounding.
    """

    def __init__(self, function: Callable[..., Tensor], device: torch.device) -> None:
        """Wrap ``function``; on CUDA its kernels are replayed as CUDA graphs."""
        self.function = function
        mode = "reduce-overhead" if device.type == "cuda" else None
        self._compiled: Callable[..., Tensor] | None = torch.compile(function, dynamic=False, mode=mode)

    @property
    def active(self) -> bool:
        """False once the compiler has failed."""
        return self._compiled is not None

    def __call__(self, *args: Tensor) -> Tensor:
        """Return what the function returns."""
        if self._compiled is not None:
            from torch._dynamo.exc import TorchDynamoException  # two seconds, which only who compiles should wait

            try:
                return self._compiled(*args)
            except TorchDynamoException as error:
                reason = str(error).strip().partition("\n")[0]
                logger.warning("torch.compile failed, the learner runs uncompiled: %s", reason)
                self._compiled = None
        return self.function(*args)
