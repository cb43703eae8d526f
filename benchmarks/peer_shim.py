"""Run Safety-Gymnasium and OmniSafe beside this package: in another virtual environment, on Python 3.11 or later.

Both declare dataclass fields whose default is a numpy array. Python 3.10 let that pass; from 3.11 on such a default
is refused, because it cannot be hashed and all instances would share it. :func:`install` turns these defaults into
default factories that copy, for the whole process; call it before the first import of ``safety_gymnasium``.

This file is imported by the other environment's interpreter too: it needs nothing but numpy.
"""

from __future__ import annotations

import dataclasses
import inspect
import os
from typing import Any

import numpy as np

# A wheel of rclpy sets these for its own interpreter; a child of another environment must not inherit them.
_INHERITED = (
    "_ROS_WHEELS_BOOTSTRAP_COMPLETE",
    "LD_LIBRARY_PATH",
    "PYTHONPATH",
    "PYTHONSAFEPATH",
    "PYTHONHOME",
    "VIRTUAL_ENV",
)


def install() -> None:
    """Let dataclasses have numpy arrays as defaults. Idempotent."""
    original: Any = dataclasses._process_class  # type: ignore[attr-defined]
    if getattr(original, "takes_arrays", False):
        return

    def process_class(cls: type, *args: Any, **kwargs: Any) -> type:
        for name in inspect.get_annotations(cls):
            default = cls.__dict__.get(name)
            if isinstance(default, np.ndarray):
                setattr(cls, name, dataclasses.field(default_factory=default.copy))
        result: type = original(cls, *args, **kwargs)
        return result

    process_class.takes_arrays = True  # type: ignore[attr-defined]
    dataclasses._process_class = process_class  # type: ignore[attr-defined]


def peer_environment() -> dict[str, str]:
    """Return environment variables for a child of another virtual environment, on one thread."""
    kept = {name: value for name, value in os.environ.items() if name not in _INHERITED}
    return kept | {name: "1" for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")}
