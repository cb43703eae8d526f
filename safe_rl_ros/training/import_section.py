"""What an import from bags left beside a data set, as tables of its page: breaks between episodes, and topics."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from safe_rl_ros.types import ConfigError

NAME = "import.json"
MAX_BYTES = 50_000_000
FIGURES = ("messages", "damaged", "unfit", "repeated", "late", "age_mean_s", "age_max_s", "held", "stale")
"""Figures of a topic that are shown, as the import calls them."""


def read_import(path: str | Path) -> dict[str, Any] | None:
    """Return what the import of a data set noted, None if it was not imported.

    Raises:
        ConfigError: the file is there, but not what an import writes.
    """
    place = Path(path)
    file = place / NAME if place.is_dir() else place.with_suffix(f".{NAME}")
    if not file.is_file():
        return None
    if file.stat().st_size > MAX_BYTES:
        raise ConfigError(f"{file} has {file.stat().st_size} bytes, expected at most {MAX_BYTES}")
    try:
        noted = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ConfigError(f"{file} is not JSON: {error}") from error
    if not isinstance(noted, dict) or not isinstance(noted.get("bags"), list):
        raise ConfigError(f"{file} is not what an import writes: it lists no bags")
    return noted


def import_tables(noted: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the tables of the page about what an import noted.

    Raises:
        ConfigError: an entry is not what an import writes.
    """
    try:
        return [_break_table(noted), _topic_table(noted)]
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ConfigError(f"{NAME} is not what an import writes: {error!r}") from error


def _break_table(noted: dict[str, Any]) -> dict[str, Any]:
    rows = [
        (str(bag["path"]), f"{each['at_s']:.3f}", f"{each['length_s']:.3f}", str(each["cause"]))
        for bag in noted["bags"]
        for each in bag["breaks"]
    ]
    used, span = float(noted["used_s"]), float(noted["span_s"])
    short = noted["short_pieces"]
    note = (
        f"{used:.1f} s of {span:.1f} s recorded are in the data set. {short['pieces']} pieces of {short['steps']} steps"
        f" were too short to be episodes. {len(rows)} breaks between episodes are listed, with what ended the episode"
        " before."
    )
    problems = [f"{bag['path']}: {bag['problem']}" for bag in noted["bags"] if bag["problem"]]
    heads = ["bag", "at / s", "length / s", "cause"]
    return _table("Breaks of the recording", " ".join([note, *problems]), heads, rows)


def _topic_table(noted: dict[str, Any]) -> dict[str, Any]:
    rows = [(name, *(_cell(topic.get(figure)) for figure in FIGURES)) for name, topic in noted["topics"].items()]
    note = "Ages are those of the message in force at the control ticks."
    return _table("Topics", note, ["topic", *(figure.replace("_", " ") for figure in FIGURES)], rows)


def _cell(value: Any) -> str:
    return "-" if value is None else f"{value:.3f}" if isinstance(value, float) else str(value)


def _table(title: str, note: str, columns: list[str], rows: Sequence[tuple[str, ...]]) -> dict[str, Any]:
    return {"title": title, "image": "", "style": "", "note": note, "columns": columns, "rows": rows}
