"""What the simulated tasks use of Gymnasium 1.1 and later, with stand-ins for older ones.

Safety-Gymnasium and OmniSafe need Gymnasium 0.28, and our tasks run beside them in the same process. Only what is
imported here differs; wrappers and ``make_vec`` of an old Gymnasium know nothing of our vector environments.
"""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

import gymnasium

if TYPE_CHECKING:
    from gymnasium.vector import AutoresetMode, VectorEnv
else:
    try:
        from gymnasium.vector import AutoresetMode, VectorEnv
    except ImportError:  # before 1.1
        import enum

        class AutoresetMode(enum.Enum):
            """The enumeration of Gymnasium 1.1."""

            NEXT_STEP = "NextStep"
            SAME_STEP = "SameStep"
            DISABLED = "Disabled"

        class VectorEnv(gymnasium.vector.VectorEnv):
            """A vector environment that can be subscripted, and whose constructor need not be called to close it."""

            closed = False
            viewer = None

            def __class_getitem__(cls, item: Any) -> type:
                """Return the class itself, whatever the types."""
                return cls


__all__ = ["AutoresetMode", "VectorEnv", "register"]

_VECTOR = "vector_entry_point" in inspect.signature(gymnasium.register).parameters


def register(env_id: str, entry_point: str, vector_entry_point: str, kwargs: dict[str, Any]) -> None:
    """Register an environment, and where Gymnasium has a place for it, its vector environment."""
    more: dict[str, Any] = {"vector_entry_point": vector_entry_point} if _VECTOR else {}
    # The environment checker's warnings about unbounded observations would come with every make.
    gymnasium.register(id=env_id, entry_point=entry_point, kwargs=kwargs, disable_env_checker=True, **more)
