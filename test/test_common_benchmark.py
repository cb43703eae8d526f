"""What all benchmarks share: parts that are kept with the request that made them, and means over seeds."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from benchmarks.common import interval, keep, kept


class Maker:
    """Counts how often it was asked."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self) -> dict[str, Any]:
        self.count += 1
        return {"n": self.count, "pair": (1, 2)}


def test_a_part_is_run_once_for_one_request(tmp_path: Path) -> None:
    file, make = tmp_path / "a" / "part.json", Maker()
    assert [keep(file, {"x": x}, make)["n"] for x in (1, 1, 2, 2, 1)] == [1, 1, 2, 2, 3]
    assert json.loads(file.read_text())["request"] == {"x": 1}
    assert sorted(path.name for path in file.parent.iterdir()) == ["part.json"]


def test_a_part_is_the_same_whether_made_or_read(tmp_path: Path) -> None:
    file, make = tmp_path / "part.json", Maker()
    request = {"seeds": (1, 2), "by": {3: "x"}}  # JSON has lists, and texts for keys
    made, read = keep(file, request, make), keep(file, request, make)
    assert make.count == 1
    assert (
        made == read == kept(file, request) == {"request": {"seeds": [1, 2], "by": {"3": "x"}}, "n": 1, "pair": [1, 2]}
    )


def test_of_another_request_or_no_request_nothing_is_kept(tmp_path: Path) -> None:
    file = tmp_path / "part.json"
    assert kept(file, {"x": 1}) is None
    file.write_text('{"robot": "rover"}')  # as an older version wrote it
    assert kept(file, {"x": 1}) is None
    assert keep(file, {"x": 1}, Maker())["n"] == 1
    assert kept(file, {"x": 2}) is None
    assert kept(file, {"x": 1}) == {"request": {"x": 1}, "n": 1, "pair": [1, 2]}


def test_a_part_that_was_not_finished_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "part.json"
    keep(file, {"x": 1}, Maker())
    before = file.read_text()

    def failing() -> dict[str, Any]:
        raise RuntimeError("no")

    with pytest.raises(RuntimeError, match="no"):
        keep(file, {"x": 2}, failing)
    with pytest.raises(TypeError, match="not JSON serializable"):
        keep(file, {"x": 2}, lambda: {"object": object()})
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("part.json", before)]

    def killed(path: Path, text: str, encoding: str) -> int:
        with path.open("w", encoding=encoding) as stream:
            stream.write(text[:10])
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "write_text", killed)  # half of the file is on the disk then
    with pytest.raises(KeyboardInterrupt):
        keep(file, {"x": 2}, Maker())
    assert file.read_text() == before
    assert kept(file, {"x": 1}) is not None


def test_the_interval_of_a_mean_by_hand() -> None:
    found = interval([1.0, 3.0])
    assert list(found) == ["mean", "ci95", "per_seed"]
    assert (found["mean"], found["per_seed"]) == (2.0, [1.0, 3.0])
    # Student's t with one degree of freedom: 12.706 times the standard error, which is 1.
    assert found["ci95"] == pytest.approx([2.0 - 12.706, 2.0 + 12.706], abs=1e-3)
    alone = interval([5.0])
    assert alone["mean"] == 5.0
    assert all(math.isnan(end) for end in alone["ci95"])
