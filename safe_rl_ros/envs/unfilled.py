"""Values that a draft leaves to people, and their refusal until somebody filled them in."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from safe_rl_ros.types import ConfigError

FILL_IN = "FILL_IN"
"""Stands for a value that has to be looked up or measured; no file that has one is loaded."""


def unfilled(data: Any, key: str = "") -> Iterator[str]:
    """Yield the keys whose value is still :data:`FILL_IN`; items of a list go by their ``name``."""
    if isinstance(data, dict):
        for name, value in data.items():
            yield from unfilled(value, f"{key}.{name}" if key else str(name))
    elif isinstance(data, list):
        for index, value in enumerate(data):
            name = value.get("name", index) if isinstance(value, dict) else index
            yield from unfilled(value, f"{key}[{name}]")
    elif isinstance(data, str) and FILL_IN in data:
        yield key


def refuse_unfilled(data: Any, source: str) -> None:
    """Raise one :class:`ConfigError` that names every key of ``source`` that is still to be filled in."""
    keys = list(unfilled(data))
    if keys:
        values = "value is" if len(keys) == 1 else "values are"
        raise ConfigError(
            f"{source}: {len(keys)} {values} still {FILL_IN}: {', '.join(keys)}; look them up or measure them, the "
            "comments beside them say what is meant"
        )
