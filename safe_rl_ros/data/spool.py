"""Episodes on disk between the process that acts and the one that learns: one .npz per episode. No pickles.

The writer numbers them without gaps and puts each in place whole (temporary file, fsync, rename, fsync of the
directory), so a reader that is slow, killed or started later finds every one, in order. Nothing is deleted here, and
where somebody else deletes episodes their numbers are not used again: the next one is kept beside them.
"""

from __future__ import annotations

import fcntl
import hashlib
import io
import json
import os
import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from safe_rl_ros.data.replay_buffer import row_layout
from safe_rl_ros.files import put_file
from safe_rl_ros.types import BoolArray, Float32Array, SafeRlRosError, TransitionBatch

FORMAT = 1
PREFIX, SUFFIX, LOCK = "episode_", ".npz", ".lock"
NEXT = ".next"
"""File beside the episodes with the number of the next one; a spool from before it has none."""
MAX_NEXT_BYTES = 20
NOTES = "notes"
MAX_EPISODE_BYTES = 1_000_000_000
DAMAGE = (OSError, ValueError, TypeError, KeyError, EOFError, RuntimeError, zlib.error, zipfile.BadZipFile)
"""What reading damaged bytes may raise; RuntimeError: a flag that says encrypted, or a zip of another version."""
NO_REASON = -1
"""In the column ``reason``: nobody decided on the row."""

Ending = Literal["terminated", "time_limit", "paused", "fault", "shutdown"]
"""Why an episode ended: the first two are the task's own; ``fault``: robot, filter or policy failed."""
FINISHED: tuple[Ending, ...] = ("terminated", "time_limit")

COLUMNS: dict[str, type[np.generic]] = {
    "takeover": np.bool_,
    "answered": np.bool_,
    "goal_reached": np.bool_,
    "reason": np.int16,
    "latency_s": np.float32,
    "late_s": np.float32,
    "stamp_ns": np.int64,
}
"""Columns (B,) beside those of a TransitionBatch, see :class:`SpooledEpisode`."""


class SpoolError(SafeRlRosError, RuntimeError):
    """A spooled episode is damaged or of another robot, or the spool cannot be written."""


class SpoolDiskError(SpoolError):
    """The system did not give what the spool holds; it says nothing of the content, and may do so later."""


@dataclass(frozen=True)
class EpisodeNotes:
    """What holds for a whole episode.

    ``networks`` names policy, critic and threshold by their content, whenever and wherever the bundle was written;
    ``bundle_sha256`` is the bundle itself. ``begun_unix_s``: wall clock at the first row.
    """

    number: int
    seed: int
    bundle_sha256: str
    networks: str
    spec_hash: str
    obs_names: tuple[str, ...]
    ending: Ending
    begun_unix_s: float


@dataclass(frozen=True)
class SpooledEpisode:
    """One episode: B rows in time order, the last one closed by ``terminated`` or ``truncated``.

    ``takeover`` (B,): a human commanded. ``answered`` (B,): what the filter says of the row is on the row's own
    proposal, and not on the one before, which it then still carried out. ``goal_reached`` (B,). ``reason`` (B,) int16:
    the filter's, -1 without one. ``latency_s`` (B,): the filter's, NaN without one. ``late_s`` (B,): how late the actor
    was at the row's end. ``stamp_ns`` (B,) int64: stamp of the state that the row ends in.
    """

    notes: EpisodeNotes
    batch: TransitionBatch
    takeover: BoolArray
    answered: BoolArray
    goal_reached: BoolArray
    reason: npt.NDArray[np.int16]
    latency_s: Float32Array
    late_s: Float32Array
    stamp_ns: npt.NDArray[np.int64]

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self.batch)


@dataclass(frozen=True)
class SpooledFile:
    """Where an episode was put."""

    path: Path
    sha256: str
    steps: int


def _name(number: int) -> str:
    return f"{PREFIX}{number:08d}{SUFFIX}"


def _numbers(directory: Path) -> list[int]:
    """Return the numbers of the episodes in a directory, sorted; [] if there is no such directory."""
    try:
        names = os.listdir(directory)
    except FileNotFoundError:
        return []
    except OSError as error:
        raise SpoolDiskError(f"spool {directory} cannot be listed: {error}") from error
    middles = (name[len(PREFIX) : -len(SUFFIX)] for name in names if name.startswith(PREFIX) and name.endswith(SUFFIX))
    return sorted(int(middle) for middle in middles if middle.isdecimal())


def _next_number(directory: Path) -> int:
    """Return the number to go on with: behind the newest episode, and never back where episodes were deleted."""
    path = directory / NEXT
    try:
        with path.open("rb") as file:
            text = file.read(MAX_NEXT_BYTES)
    except FileNotFoundError:  # of a spool from before it was kept: its episodes alone count
        text = b"0"
    except OSError as error:
        raise SpoolDiskError(f"{path} cannot be read: {error}") from error
    if not text.strip().isdigit():
        raise SpoolError(f"{path} holds {text!r}, expected the number of the next episode")
    return max([int(text), *(number + 1 for number in _numbers(directory)[-1:])])


class SpoolWriter:
    """Writes episodes into a directory; one writer at a time, also over processes."""

    def __init__(self, directory: str | Path) -> None:
        """Make the directory, lock it, and go on behind the newest episode that was ever there.

        Raises:
            SpoolError: another process writes there, the directory cannot be made, or its next number is damaged.
        """
        self.directory = Path(directory)
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
            self._lock = (self.directory / LOCK).open("w")
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            for leftover in self.directory.glob(f".{PREFIX}*.partial"):
                leftover.unlink()
            self.next_number = _next_number(self.directory)
            self._keep(self.next_number)
        except BlockingIOError as error:
            raise SpoolError(f"spool {self.directory}: another process writes there") from error
        except OSError as error:
            raise SpoolError(f"spool {self.directory} cannot be written: {error}") from error

    def write(self, episode: SpooledEpisode) -> SpooledFile:
        """Put an episode in place, whole or not at all; its number must be :attr:`next_number`.

        Raises:
            SpoolError: the number is another one, or the file cannot be written; it may be tried again.
        """
        number = episode.notes.number
        if number != self.next_number:
            raise SpoolError(f"spool {self.directory}: episode {number} written, expected {self.next_number}")
        data = pack(episode)
        path = self.directory / _name(number)
        try:
            put_file(path, data)
            self._keep(number + 1)
        except OSError as error:
            raise SpoolError(f"episode {number} cannot be written to {path}: {error}") from error
        self.next_number += 1
        return SpooledFile(path, hashlib.sha256(data).hexdigest(), len(episode))

    def _keep(self, number: int) -> None:
        """Keep the next number, for when the episodes are gone. Raises OSError."""
        put_file(self.directory / NEXT, f"{number}\n".encode())

    def close(self) -> None:
        """Let others write. Idempotent."""
        self._lock.close()


def pack(episode: SpooledEpisode) -> bytes:
    """Return an episode as the bytes of an .npz."""
    notes = json.dumps({"format": FORMAT, **asdict(episode.notes)}).encode()
    arrays: dict[str, Any] = {field.name: getattr(episode.batch, field.name) for field in fields(episode.batch)}
    arrays |= {name: getattr(episode, name) for name in COLUMNS}
    arrays[NOTES] = np.frombuffer(notes, dtype=np.uint8)
    file = io.BytesIO()
    np.savez(file, **arrays)
    return file.getvalue()


def _bytes(path: Path) -> bytes:
    """Return an episode's bytes. Raises SpoolError: none or too many; SpoolDiskError: they cannot be had now."""
    try:
        if (size := path.stat().st_size) > MAX_EPISODE_BYTES:
            raise SpoolError(f"{path} has {size} bytes, expected at most {MAX_EPISODE_BYTES}")
        return path.read_bytes()
    except FileNotFoundError as error:
        raise SpoolError(f"{path} is no readable episode: {error}") from error
    except OSError as error:
        raise SpoolDiskError(f"{path} cannot be read: {error}") from error


class SpoolReader:
    """Reads the episodes of one robot and task in order, and trusts nothing in them.

    Every method raises SpoolDiskError where the system does not answer: that may be tried again.
    """

    def __init__(self, directory: str | Path, obs_names: Sequence[str], act_dim: int, spec_hash: str) -> None:
        """Take the place, which need not exist yet, and what the episodes must be of."""
        self.directory = Path(directory)
        self._obs_names, self._act_dim, self._spec_hash = tuple(obs_names), act_dim, spec_hash

    def first_from(self, number: int) -> int | None:
        """Return the lowest number of an episode that is not below ``number``, None if there is none."""
        if os.path.isfile(self.directory / _name(number)):
            return number
        return next((found for found in _numbers(self.directory) if found >= number), None)

    def waiting(self, number: int) -> int:
        """Return how many episodes there are from ``number`` on."""
        return sum(found >= number for found in _numbers(self.directory))

    def next_number(self) -> int:
        """Return the number that the spool's next episode gets."""
        return _next_number(self.directory)

    def read(self, number: int) -> SpooledEpisode:
        """Return one episode after checking every array.

        Raises:
            SpoolError: it is missing, damaged, or of another robot, observation or format; names file and reason.
            SpoolDiskError: its bytes cannot be had now.
        """
        path = self.directory / _name(number)
        data = _bytes(path)
        try:
            with np.load(io.BytesIO(data), allow_pickle=False) as stored:
                arrays = {name: stored[name] for name in stored.files}
            notes = self._notes(arrays.pop(NOTES))
        except DAMAGE as error:
            raise SpoolError(f"{path} is no readable episode: {type(error).__name__}: {error}") from error
        problem = self._problem(notes, number, arrays)
        if problem:
            raise SpoolError(f"{path}: {problem}")
        columns = {name: arrays.pop(name) for name in COLUMNS}
        return SpooledEpisode(notes, TransitionBatch(**arrays), **columns)

    def _notes(self, data: Any) -> EpisodeNotes:
        content = json.loads(bytes(data.astype(np.uint8)).decode())
        if content.pop("format") != FORMAT:
            raise ValueError(f"another format than {FORMAT}")
        notes = EpisodeNotes(**{**content, "obs_names": tuple(content["obs_names"])})
        if notes.ending not in get_args(Ending):
            raise ValueError(f"ending is {notes.ending!r}, expected one of {', '.join(get_args(Ending))}")
        return notes

    def _problem(self, notes: EpisodeNotes, number: int, arrays: dict[str, Any]) -> str:
        """Return what is wrong with an episode's content, empty if nothing is."""
        if notes.number != number:
            return f"holds episode {notes.number}"
        if notes.spec_hash != self._spec_hash:
            return f"is of robot spec {notes.spec_hash[:12]}, expected {self._spec_hash[:12]}"
        if notes.obs_names != self._obs_names:
            return f"has {len(notes.obs_names)} observations that are not this task's {len(self._obs_names)}"
        layout = row_layout(len(self._obs_names), self._act_dim) | {name: (kind, ()) for name, kind in COLUMNS.items()}
        if set(arrays) != set(layout):
            return f"has arrays {sorted(arrays)}, expected {sorted(layout)}"
        count = arrays["reward"].shape[0] if arrays["reward"].ndim else 0
        for name, (kind, shape) in layout.items():
            value = arrays[name]
            if value.dtype != np.dtype(kind) or value.shape != (count, *shape):
                return f"{name} is {value.dtype}{value.shape}, expected {np.dtype(kind)}{(count, *shape)}"
            if name != "latency_s" and not np.isfinite(value).all():
                return f"{name} holds NaN or infinity"
        if count == 0 or not (arrays["terminated"][-1] or arrays["truncated"][-1]):
            return "has no rows" if count == 0 else "its last row is neither terminated nor truncated"
        if (arrays["terminated"] | arrays["truncated"])[:-1].any():
            return "a row before the last one is terminated or truncated"
        return ""
