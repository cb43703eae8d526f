"""Data sets into other containers, several into one."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace as replaced
from pathlib import Path
from typing import Any

import numpy as np

from safe_rl_ros.config import build
from safe_rl_ros.data.containers import open_dataset, open_sink
from safe_rl_ros.data.episodes import Container, DatasetInfo, Episode, EpisodeReader
from safe_rl_ros.types import ConfigError

SAME = ("task", "robot_spec_hash", "obs_names", "axes", "margin_kind", "control_period_s")
"""What data sets that become one must agree in."""


def convert(
    sources: Sequence[str | Path],
    target: str | Path,
    container: Container | None = None,
    *,
    changes: Mapping[str, Any] | None = None,
    binary_cost: bool = False,
    replace: bool = False,
    on_episode: Callable[[], None] | None = None,
) -> DatasetInfo:
    """Write the episodes of ``sources``, one after another, to a new data set; return its info.

    Args:
        sources: one data set or several of the same kind.
        target: where to.
        container: as for :func:`~safe_rl_ros.data.containers.open_sink`.
        changes: other values for fields of the info, such as names that the source does not know.
        binary_cost: write a cost of 1 where the margin is violated and 0 elsewhere, as others' programs expect it.
        replace: put it in place of an existing data set.
        on_episode: called after each episode.

    Raises:
        ConfigError: a source is damaged or wrong, sources do not fit each other, or the target cannot be written to.
    """
    readers = [open_dataset(source) for source in sources]
    info = merged_info(readers, sources)
    if changes:
        info = build(DatasetInfo, {**info.model_dump(), **changes}, f"info of {target}")
    with open_sink(target, info, container, replace=replace) as sink:
        for episode in _episodes(readers):
            sink.add(with_binary_cost(episode) if binary_cost else episode)
            if on_episode is not None:
                on_episode()
        return sink.final_info()


def _episodes(readers: Sequence[EpisodeReader]) -> Iterator[Episode]:
    for reader in readers:
        yield from reader


def with_binary_cost(episode: Episode) -> Episode:
    """Return the episode with a cost of 1 where the margin is violated, else 0."""
    return replaced(episode, cost=(episode.margin <= 0.0).astype(np.float32))


def merged_info(readers: Sequence[EpisodeReader], names: Sequence[str | Path]) -> DatasetInfo:
    """Return the info of data sets that become one: the first one's, with the longest episode and nobody's bounds.

    Raises:
        ConfigError: there is none, or one differs in what they must agree in.
    """
    if not readers:
        raise ConfigError("there is no data set to convert")
    first = readers[0].info
    for reader, name in zip(readers[1:], names[1:], strict=True):
        for field in SAME:
            mine, other = getattr(first, field), getattr(reader.info, field)
            if mine != other:
                raise ConfigError(f"{field} of {name} is {other!r}, but of {names[0]} {mine!r}: they cannot become one")
    if len(readers) == 1:
        return first
    longest = max(reader.info.max_episode_steps for reader in readers)
    notes = "; ".join(dict.fromkeys(reader.info.provenance for reader in readers if reader.info.provenance))
    return first.model_copy(update={"max_episode_steps": longest, "return_bounds": None, "provenance": notes})
