"""The session that a run goes on with: its own ``config.yaml`` with changes on top."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from safe_rl_ros.config import apply_overrides, build, read_yaml
from safe_rl_ros.training.session_config import SessionConfig, resolve
from safe_rl_ros.training.sweep_config import as_overrides
from safe_rl_ros.types import ConfigError

MOST_NAMED = 4
"""Differences that a message lists."""


def own_session(directory: Path, overrides: Sequence[str] = ()) -> SessionConfig:
    """Return a run's own session, with the robot spec that lies beside it, and ``key.sub=value`` changes on top.

    Raises:
        ConfigError: there is no such run, it was renamed, or a value is wrong.
    """
    path = directory / "config.yaml"
    if not path.is_file():
        raise ConfigError(f"nothing to resume: {path} does not exist")
    data = read_yaml(path)
    if data.get("name") != directory.resolve().name:
        raise ConfigError(f"run {directory} was made as {data.get('name')!r}: give its directory that name again")
    if data.get("robot") is not None:
        data["robot"] = str((directory / "robot.yaml").resolve())
    return resolve(build(SessionConfig, apply_overrides(data, overrides), str(path)))


def check_same(named: SessionConfig, own: SessionConfig, directory: Path) -> None:
    """Check that a session that was named, with the same changes on top, is the run's own.

    Raises:
        ConfigError: naming what differs, with both values.
    """
    flat = [dict(_settings(session)) for session in (named, own)]
    keys = sorted(key for key in {*flat[0], *flat[1]} if flat[0].get(key) != flat[1].get(key))
    for part in ("algorithm", "task"):  # of two algorithms, every other key differs too
        if f"{part}.name" in keys:
            keys = [f"{part}.name", *(key for key in keys if not key.startswith(f"{part}."))]
    lines = [f"{key} = {flat[0].get(key, 'none')}, the run has {flat[1].get(key, 'none')}" for key in keys]
    if named.robot is not None and own.robot is not None and _content(named.robot) != _content(own.robot):
        lines.append("robot: another file than the run's robot.yaml")
    if lines:
        more = f" and {len(lines) - MOST_NAMED} more" if len(lines) > MOST_NAMED else ""
        raise ConfigError(
            f"the session that was named is not that of run {directory}: {'; '.join(lines[:MOST_NAMED])}{more}\n"
            f"to go on with the run's own settings: safe-rl-ros train {directory} --resume [key.sub=value ...]"
        )


def _settings(session: SessionConfig) -> list[tuple[str, str]]:
    """Return every setting but the paths of robot and data as ``a.b`` and its value."""
    values = session.model_dump(mode="json", exclude={"robot"})
    values.get("data", {}).pop("path", None)  # a place; what is there is told apart by its hash
    pairs = (text.partition("=") for text in as_overrides(values))
    return [(key, value) for key, _, value in pairs]


def _content(path: str) -> bytes:
    return Path(path).read_bytes()
