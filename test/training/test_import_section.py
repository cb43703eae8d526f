"""What an import noted becomes tables; a file that is something else is one clear error."""

import json

import pytest

from safe_rl_ros.bags.import_report import ImportReport
from safe_rl_ros.training.import_section import import_tables, read_import
from safe_rl_ros.types import ConfigError

SECOND = 1_000_000_000


def noted():
    """Return what the importer itself would write about a bag with one gap."""
    report = ImportReport(0.1)
    report.open_bag("drive.mcap", 5 * SECOND, 60.0)
    report.ended("gap", 17 * SECOND, 100)
    report.began(20 * SECOND)
    report.topic("/scan").messages = 600
    report.topic("/scan").aged(0.25, 0.1)
    report.topic("/estop").messages = 1
    report.left_out(2)
    report.steps = 550
    return json.loads(json.dumps(report.summary()))


def test_tables():
    breaks, topics = import_tables(noted())
    assert breaks["rows"] == [("drive.mcap", "12.000", "3.000", "gap")]
    assert "55.0 s of 60.0 s recorded" in breaks["note"]
    assert "1 pieces of 2 steps" in breaks["note"]
    rows = {row[0]: dict(zip(topics["columns"][1:], row[1:], strict=True)) for row in topics["rows"]}
    assert (rows["/scan"]["messages"], rows["/scan"]["age max s"], rows["/scan"]["held"]) == ("600", "0.250", "1")
    assert rows["/estop"]["age max s"] == "-"


def test_where_it_lies(tmp_path):
    (tmp_path / "d").mkdir()
    assert read_import(tmp_path / "d") is None
    (tmp_path / "d" / "import.json").write_text(json.dumps(noted()))
    (tmp_path / "e.import.json").write_text(json.dumps(noted()))
    (tmp_path / "e.hdf5").write_bytes(b"")
    assert read_import(tmp_path / "d") == read_import(tmp_path / "e.hdf5") == noted()


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"bags": 3}'])
def test_files_that_are_something_else(tmp_path, text):
    (tmp_path / "import.json").write_text(text)
    with pytest.raises(ConfigError, match="import"):
        read_import(tmp_path)


@pytest.mark.parametrize("change", [{"used_s": "long"}, {"topics": []}, {"bags": [{}]}, {"short_pieces": 3}])
def test_wrong_entries(change):
    with pytest.raises(ConfigError, match="not what an import writes"):
        import_tables({**noted(), **change})
