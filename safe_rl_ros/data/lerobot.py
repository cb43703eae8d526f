"""Export of a data set in LeRobot's form, version 3.0: parquet files of frames, and what is known about them.

A frame is one step: what was observed (``observation.state``), the action, and what came of it: ``next.reward``,
``next.cost``, ``next.margin``, ``next.done``, ``next.terminated`` and ``intervened``. LeRobot has no name for a safety
cost; ``next.cost`` and ``next.margin`` are declared as features of the data set. What the last step of an episode
reached, measured times and remarks are not kept: time stamps are whole control periods, as LeRobot's reader demands.
Needs pyarrow (the extra ``lerobot``). The form is written only, not read.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from safe_rl_ros.data.episodes import DatasetInfo, Episode
from safe_rl_ros.data.sinks import StagedSink
from safe_rl_ros.data.summary import Columns
from safe_rl_ros.data.validation import Array
from safe_rl_ros.types import ConfigError

VERSION = "v3.0"
CHUNKS_SIZE = 1000
FILE_BYTES = 100_000_000
GROUP_ROWS = 8192
DATA_PATH = "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
EPISODES_PATH = "meta/episodes/chunk-000/file-000.parquet"
RATE_TOLERANCE = 1e-6
"""Largest difference of the control rate from a whole number, relative."""


def frames_per_second(info: DatasetInfo) -> int:
    """Return the control rate.

    Raises:
        ConfigError: the control period is unknown, or not that of a whole number of steps per second.
    """
    rate = 0.0 if info.control_period_s is None else 1.0 / info.control_period_s
    if rate < 0.5 or abs(rate - round(rate)) > RATE_TOLERANCE * rate:
        raise ConfigError(
            f"control_period_s of data set {info.name} is {info.control_period_s}, LeRobot needs a whole number of"
            " steps per second"
        )
    return round(rate)


def features(info: DatasetInfo) -> dict[str, dict[str, Any]]:
    """Return the features of a frame by name, as LeRobot's ``info.json`` lists them."""

    def scalar(dtype: str) -> dict[str, Any]:
        return {"dtype": dtype, "shape": [1], "names": None}

    wide = {"observation.state": info.obs_names, "action": info.axes}
    found = {n: {"dtype": "float32", "shape": [len(v)], "names": list(v)} for n, v in wide.items()}
    found |= {f"next.{name}": scalar("float32") for name in ("reward", "cost", "margin")}
    found |= {name: scalar("bool") for name in ("next.done", "next.terminated", "intervened")}
    found |= {"timestamp": scalar("float32")}
    return found | {name: scalar("int64") for name in ("frame_index", "episode_index", "index", "task_index")}


class LeRobotSink(StagedSink):
    """Writes a directory; see :class:`~safe_rl_ros.data.sinks.StagedSink` for how."""

    def __init__(self, path: str | Path, info: DatasetInfo, *, replace: bool = False) -> None:
        """Check where to, and that the data set can be written in this form. Raises ConfigError."""
        super().__init__(path, info, replace=replace)
        self._rate = frames_per_second(info)
        try:
            import pyarrow.parquet
        except ImportError as error:
            raise ConfigError(
                "a data set in LeRobot's form needs pyarrow: install safe_rl_ros with the extra 'lerobot'"
            ) from error
        self._arrow, self._parquet = pyarrow, pyarrow.parquet

    @staticmethod
    def _is_own(path: Path) -> bool:
        return (path / "meta" / "info.json").is_file()

    def _open(self) -> None:
        arrow = self._arrow
        kinds = {"float32": arrow.float32(), "bool": arrow.bool_(), "int64": arrow.int64()}
        self._features = features(self.info)
        fields = []
        for name, feature in self._features.items():
            kind, width = kinds[feature["dtype"]], feature["shape"][0]
            fields.append(arrow.field(name, kind if width == 1 else arrow.list_(kind, width)))
        self._schema = arrow.schema(fields)
        self._stats = {name: Columns(feature["shape"][0]) for name, feature in self._features.items()}
        self._rows: list[dict[str, Any]] = []
        self._pending: list[dict[str, Array]] = []
        self._writer: Any = None
        self._file_index, self._file_bytes, self._pending_rows = 0, 0, 0
        (self.staged / EPISODES_PATH).parent.mkdir(parents=True)

    def _write(self, episode: Episode) -> None:
        steps = len(episode)
        columns = self._columns(episode)
        for name, values in columns.items():
            self._stats[name].add(values.reshape(steps, -1))
        size = sum(values.nbytes for values in columns.values())
        if self._file_bytes and self._file_bytes + size > FILE_BYTES:
            self._next_file()
        self._file_bytes += size
        self._rows.append(
            {
                "episode_index": self.episodes,
                "tasks": [self.info.task],
                "length": steps,
                "data/chunk_index": self._file_index // CHUNKS_SIZE,
                "data/file_index": self._file_index % CHUNKS_SIZE,
                "dataset_from_index": self.steps,
                "dataset_to_index": self.steps + steps,
                "meta/episodes/chunk_index": 0,
                "meta/episodes/file_index": 0,
            }
        )
        self._pending.append(columns)
        self._pending_rows += steps
        if self._pending_rows >= GROUP_ROWS:
            self._flush()

    def _columns(self, episode: Episode) -> dict[str, Array]:
        steps = len(episode)
        frame = np.arange(steps)
        return {
            "observation.state": episode.obs[:-1],
            "action": episode.action,
            "next.reward": episode.reward,
            "next.cost": episode.cost,
            "next.margin": episode.margin,
            "next.done": frame == steps - 1,
            "next.terminated": (frame == steps - 1) & episode.terminated,
            "intervened": episode.intervened,
            "timestamp": (frame / self._rate).astype(np.float32),
            "frame_index": frame,
            "episode_index": np.full(steps, self.episodes),
            "index": self.steps + frame,
            "task_index": np.zeros(steps, np.int64),
        }

    def _flush(self) -> None:
        if not self._pending:
            return
        if self._writer is None:
            chunk, index = divmod(self._file_index, CHUNKS_SIZE)
            file = self.staged / DATA_PATH.format(chunk_index=chunk, file_index=index)
            file.parent.mkdir(parents=True, exist_ok=True)
            self._writer = self._parquet.ParquetWriter(file, self._schema)
        arrays = []
        for field in self._schema:
            values = np.concatenate([columns[field.name] for columns in self._pending])
            width = self._features[field.name]["shape"][0]
            flat = self._arrow.array(values.reshape(-1))
            arrays.append(flat if width == 1 else self._arrow.FixedSizeListArray.from_arrays(flat, width))
        self._writer.write_table(self._arrow.Table.from_arrays(arrays, schema=self._schema))
        self._pending, self._pending_rows = [], 0

    def _next_file(self) -> None:
        self._flush()
        self._end_file()
        self._file_index += 1
        self._file_bytes = 0

    def _end_file(self) -> None:
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    def _close(self, *, complete: bool) -> None:
        try:
            if complete:
                self._flush()
        finally:
            self._end_file()
        if not complete:
            return
        self._parquet.write_table(self._arrow.Table.from_pylist(self._rows), self.staged / EPISODES_PATH)
        self._parquet.write_table(self._task_table(), self.staged / "meta/tasks.parquet")
        self._write_json("meta/stats.json", {name: _stats(columns) for name, columns in self._stats.items()})
        self._write_json("meta/info.json", self._about())

    def _task_table(self) -> Any:
        """Return the one task, indexed by its name: LeRobot reads this table with pandas."""
        columns = [
            {"name": "task_index", "field_name": "task_index", "pandas_type": "int64", "numpy_type": "int64"},
            {"name": "task", "field_name": "task", "pandas_type": "unicode", "numpy_type": "object"},
        ]
        about = {
            "index_columns": ["task"],
            "column_indexes": [],
            "columns": [{**column, "metadata": None} for column in columns],
        }
        table = self._arrow.table({"task_index": np.zeros(1, np.int64), "task": [self.info.task]})
        return table.replace_schema_metadata({"pandas": json.dumps(about)})

    def _about(self) -> dict[str, Any]:
        return {
            "codebase_version": VERSION,
            "robot_type": None,
            "total_episodes": self.episodes,
            "total_frames": self.steps,
            "total_tasks": 1,
            "chunks_size": CHUNKS_SIZE,
            "data_files_size_in_mb": FILE_BYTES // 1_000_000,
            "video_files_size_in_mb": 200,
            "fps": self._rate,
            "splits": {"train": f"0:{self.episodes}"},
            "data_path": DATA_PATH,
            "video_path": None,
            "features": self._features,
            "safe_rl_ros": self.final_info().model_dump(mode="json"),
        }

    def _write_json(self, name: str, values: dict[str, Any]) -> None:
        (self.staged / name).write_text(json.dumps(values, indent=1, allow_nan=False), encoding="utf-8")


def _stats(columns: Columns) -> dict[str, list[float]]:
    named = {"min": columns.low, "max": columns.high, "mean": columns.mean, "std": columns.std}
    return {**{name: values.tolist() for name, values in named.items()}, "count": [columns.count]}
