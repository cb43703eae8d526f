"""The parameters of every episode of a run, one JSON object a line, from which the same episodes can be run again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import NamedTuple

from safe_rl_ros.config import build
from safe_rl_ros.envs.randomisation import as_record
from safe_rl_ros.envs.twin_parameters import TwinParameters
from safe_rl_ros.types import ConfigError

FILE = "randomisation.jsonl"
"""Its name in a run's directory."""


class LoggedEpisode(NamedTuple):
    """An episode: ``make_robot_env(..., randomisation=parameters)`` and ``reset(seed=seed)`` begin it again."""

    seed: int
    parameters: TwinParameters


class ParameterLog:
    """Appends a line per episode, at once; an episode that a resumed run repeats is not written twice."""

    def __init__(self, path: Path) -> None:
        """Take the file, which is made with the first episode."""
        self._path = path
        self._known: set[str] | None = None

    def add(self, seed: int, parameters: TwinParameters) -> None:
        """Note an episode that begins.

        Raises:
            ConfigError: the file is there and is no such log.
        """
        if self._known is None:
            self._known = {_line(*episode) for episode in read_parameter_log(self._path)} if self._mend() else set()
        line = _line(seed, parameters)
        if line not in self._known:
            self._known.add(line)
            with self._path.open("a", encoding="utf-8") as file:
                file.write(line)

    def _mend(self) -> bool:
        """Return whether there is a file, after cutting off the line in which a process was killed."""
        if not self._path.is_file():
            return False
        data = self._path.read_bytes()
        if data and not data.endswith(b"\n"):
            self._path.write_bytes(data[: data.rfind(b"\n") + 1])
        return True


def _line(seed: int, parameters: TwinParameters) -> str:
    return json.dumps({"seed": seed, "twin_parameters": as_record(parameters)}) + "\n"


def read_parameter_log(path: Path | str) -> list[LoggedEpisode]:
    """Return the episodes of a log in the order in which they first began.

    Raises:
        ConfigError: there is no such file, or a line of it is not what :class:`ParameterLog` writes.
    """
    file = Path(path)
    if not file.is_file():
        raise ConfigError(f"{file} does not exist, expected the parameters of a run's episodes")
    episodes = []
    for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), 1):
        where = f"{file}, line {number}"
        try:
            entry = json.loads(line)
            seed, parameters = entry["seed"], dict(entry["twin_parameters"])
        except (ValueError, TypeError, KeyError) as error:
            raise ConfigError(f"{where}: {line[:100]!r} is no JSON with seed and twin_parameters") from error
        if type(seed) is not int or seed < 0:
            raise ConfigError(f"{where}: seed = {seed!r}, expected a whole number from 0")
        episodes.append(LoggedEpisode(seed, build(TwinParameters, parameters, where)))
    return episodes
