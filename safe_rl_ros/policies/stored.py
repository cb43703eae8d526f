"""What policies that are no Gaussians share: built from arrays and a checked description, which they give back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

import numpy.typing as npt

from safe_rl_ros.inference import Normaliser

PolicyT = TypeVar("PolicyT", bound="StoredPolicy")


class StoredPolicy:
    """Subclasses check the description and take the arrays; both say by ValueError what is wrong."""

    def __init__(
        self, arrays: Mapping[str, npt.ArrayLike], meta: Mapping[str, Any], normaliser: Normaliser | None = None
    ) -> None:
        """Build from arrays and meta. Raises ValueError naming the array or key that is wrong."""
        self._meta = self._checked(meta)
        self.obs_dim: int = self._meta["obs_dim"]
        self.act_dim: int = self._meta["act_dim"]
        if normaliser is not None and normaliser.mean.shape != (self.obs_dim,):
            raise ValueError(f"the normaliser takes observations of length {normaliser.mean.size}, not {self.obs_dim}")
        self.normaliser = normaliser
        self._take(arrays)

    @classmethod
    def from_arrays(
        cls: type[PolicyT],
        arrays: Mapping[str, npt.ArrayLike],
        meta: Mapping[str, Any],
        normaliser: Normaliser | None = None,
    ) -> PolicyT:
        """Rebuild from ``arrays`` and :meth:`meta`. Raises ValueError naming what is wrong."""
        return cls(arrays, meta, normaliser)

    def meta(self) -> dict[str, Any]:
        """Return the JSON-able description that :meth:`from_arrays` needs."""
        return {key: list(value) if isinstance(value, list) else value for key, value in self._meta.items()}

    def _checked(self, meta: Mapping[str, Any]) -> dict[str, Any]:
        raise NotImplementedError

    def _take(self, arrays: Mapping[str, npt.ArrayLike]) -> None:
        raise NotImplementedError
