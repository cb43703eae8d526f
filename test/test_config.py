from pathlib import Path

import pytest
from pydantic import Field

from safe_rl_ros.config import MAX_CONFIG_BYTES, StrictModel, apply_overrides, build, dump_yaml, load_config
from safe_rl_ros.types import ConfigError


class Inner(StrictModel):
    rate: float = Field(1.0, gt=0)


class Outer(StrictModel):
    inner: Inner = Inner()
    name: str = "a"


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def test_values_overrides_and_round_trip(tmp_path: Path) -> None:
    file = write(tmp_path / "c.yaml", "inner: {rate: 2e-3}\n")
    config = load_config(Outer, file, ["name=b"])
    assert config.inner.rate == 0.002
    assert config.name == "b"
    again = load_config(Outer, write(tmp_path / "d.yaml", dump_yaml(config)))
    assert again == config


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("inner: {rte: 1.0}\n", r"inner\.rte = 1\.0: unknown key"),
        ("inner: {rate: 0}\n", r"inner\.rate = 0: Input should be greater than 0"),
        ("inner: {rate: .nan}\n", r"inner\.rate = nan"),
        ("inner: {rate: fast}\n", r"inner\.rate = 'fast'"),
        ("name: a\nname: b\n", "duplicate key"),
        ("- 1\n", "expected a mapping"),
        ("a: [\n", "not valid YAML"),
    ],
)
def test_each_mistake_is_one_error_that_names_it(tmp_path: Path, text: str, message: str) -> None:
    file = write(tmp_path / "c.yaml", text)
    with pytest.raises(ConfigError, match=message) as error:
        load_config(Outer, file)
    assert "c.yaml" in str(error.value)


def test_missing_and_oversized_files(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nowhere\.yaml does not exist"):
        load_config(Outer, tmp_path / "nowhere.yaml")
    big = write(tmp_path / "big.yaml", "#" * (MAX_CONFIG_BYTES + 1))
    with pytest.raises(ConfigError, match="at most"):
        load_config(Outer, big)


def test_overrides_do_not_touch_their_input() -> None:
    data = {"inner": {"rate": 1.0}}
    assert apply_overrides(data, ["inner.rate=3"])["inner"]["rate"] == 3
    assert data["inner"]["rate"] == 1.0


@pytest.mark.parametrize(
    ("override", "message"), [("rate", "malformed"), ("=3", "malformed"), ("name.x=1", "not a mapping")]
)
def test_bad_overrides(override: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        apply_overrides({"name": "a"}, [override])


def test_models_are_frozen() -> None:
    config = build(Outer, {}, "test")
    with pytest.raises(ValueError, match="frozen"):
        config.name = "c"  # type: ignore[misc]
