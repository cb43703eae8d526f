from pathlib import Path

import pytest

from safe_rl_ros.resources import find_resource, share_directories
from safe_rl_ros.types import ConfigError


def test_a_name_is_found_in_its_kind() -> None:
    path = find_resource("rover.yaml", "config/robots")
    assert path.is_absolute()
    assert path.parts[-3:] == ("config", "robots", "rover.yaml")


def test_a_path_wins_over_a_name(tmp_path: Path) -> None:
    mine = tmp_path / "rover.yaml"
    mine.write_text("x: 1\n")
    assert find_resource(mine, "config/robots") == mine


def test_a_missing_file_says_where_it_was_looked_for() -> None:
    with pytest.raises(ConfigError, match=r"'nothing\.yaml' does not exist; looked in: .*config/robots/nothing\.yaml"):
        find_resource("nothing.yaml", "config/robots")


def test_share_directories_exist() -> None:
    assert share_directories()
    assert all(path.is_dir() for path in share_directories())
