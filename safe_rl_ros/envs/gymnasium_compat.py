"""What our environments use of Gymnasium: registering, the time limit of ``make``, stand-ins for versions before 1.1.

Safety-Gymnasium and OmniSafe need Gymnasium 0.28, and our tasks run beside them in the same process. Only what is
imported here differs; wrappers and ``make_vec`` of an old Gymnasium know nothing of our vector environments.
"""

from __future__ import annotations

import inspect
import sys
from typing import TYPE_CHECKING, Any

import gymnasium
from gymnasium.envs import registration

from safe_rl_ros.types import ConfigError

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


__all__ = ["AutoresetMode", "VectorEnv", "limit_of_make", "register"]

_VECTOR = "vector_entry_point" in inspect.signature(gymnasium.register).parameters


def register(env_id: str, entry_point: str, vector_entry_point: str, kwargs: dict[str, Any]) -> None:
    """Register an environment, and where Gymnasium has a place for it, its vector environment."""
    more: dict[str, Any] = {"vector_entry_point": vector_entry_point} if _VECTOR else {}
    # The environment checker's warnings about unbounded observations would come with every make.
    gymnasium.register(id=env_id, entry_point=entry_point, kwargs=kwargs, disable_env_checker=True, **more)


def limit_of_make() -> dict[str, int]:
    """Return the ``max_episode_steps`` of the ``gymnasium.make`` that called the caller, by name; empty without one.

    For entry points: ``make`` takes this argument for a wrapper and tells the environment nothing, while our tasks
    reckon with their limit. It is read from the frame of ``make``, because the hook that would see the wrapper
    (additional wrappers of a spec) shuts out ``make_vec``.

    Raises:
        ConfigError: the limit is not positive.
    """
    frame = sys._getframe(2)
    if frame.f_code is not registration.make.__code__:
        return {}
    limit = frame.f_locals["max_episode_steps"]
    if limit is None:  # a spec, as of an environment that was made before, may have one
        limit = getattr(frame.f_locals.get("env_spec"), "max_episode_steps", None)
    if limit is None:
        return {}
    if limit < 1:
        raise ConfigError(f"max_episode_steps is {limit}, expected at least 1: every task has a limit")
    return {"max_episode_steps": int(limit)}
