"""Strict configuration: frozen models, YAML files, ``key.sub=value`` overrides.

Every unknown key, duplicate key, NaN and out-of-range value is one :class:`ConfigError` that names the
file, the key, the value and what was expected.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from io import StringIO
from pathlib import Path
from typing import Any, ClassVar, TypeVar

from pydantic import BaseModel, ConfigDict, SerializerFunctionWrapHandler, ValidationError, model_serializer
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from safe_rl_ros.types import ConfigError

MAX_CONFIG_BYTES = 1_000_000


class StrictModel(BaseModel):
    """Base of all configuration: frozen, no unknown keys, no NaN or infinity."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, validate_default=True)


class GrownModel(StrictModel):
    """A model that has got fields since files of it were written.

    At their defaults these ``younger`` fields stay unwritten: the same settings give the same file, and hash, as ever.
    """

    younger: ClassVar[frozenset[str]] = frozenset()

    @model_serializer(mode="wrap")
    def _without_younger_defaults(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        fields = type(self).model_fields
        left_out = {name for name in self.younger if getattr(self, name) == fields[name].default}
        return {name: value for name, value in handler(self).items() if name not in left_out}


ModelT = TypeVar("ModelT", bound=StrictModel)


def _yaml() -> YAML:
    # YAML 1.2: 1e-4 is a number, and a key defined twice is an error.
    return YAML(typ="safe", pure=True)


def read_yaml(path: str | Path) -> dict[str, Any]:
    """Return the mapping in a YAML file.

    Raises:
        ConfigError: the file is missing, too large, not YAML, or not a mapping.
    """
    file = Path(path)
    if not file.is_file():
        raise ConfigError(f"configuration file {file} does not exist")
    if file.stat().st_size > MAX_CONFIG_BYTES:
        raise ConfigError(f"{file} has {file.stat().st_size} bytes, expected at most {MAX_CONFIG_BYTES}")
    try:
        data = _yaml().load(file.read_text(encoding="utf-8"))
    except (YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{file} is not valid YAML: {error}") from error
    if not isinstance(data, dict):
        raise ConfigError(f"{file} holds {type(data).__name__}, expected a mapping of keys")
    return data


def apply_overrides(data: Mapping[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    """Return ``data`` with ``a.b=value`` overrides applied; values are YAML scalars or lists.

    Raises:
        ConfigError: an override has no ``=``, or walks through something that is not a mapping.
    """
    result: dict[str, Any] = {k: v for k, v in data.items()}
    for override in overrides:
        key, sep, text = override.partition("=")
        if not sep or not key:
            raise ConfigError(f"override {override!r} is malformed, expected key.sub=value")
        node = result
        *parents, leaf = key.split(".")
        for name in parents:
            child = node.get(name, {})
            if not isinstance(child, Mapping):
                raise ConfigError(f"override {override!r}: {name} is {child!r}, not a mapping")
            node[name] = dict(child)
            node = node[name]
        try:
            node[leaf] = _yaml().load(text)
        except YAMLError as error:
            raise ConfigError(f"override {override!r}: value is not valid YAML: {error}") from error
    return result


def build(model: type[ModelT], data: Mapping[str, Any], source: str) -> ModelT:
    """Validate ``data`` into ``model``; ``source`` names the file or caller in messages.

    Raises:
        ConfigError: one line per wrong key, with its value and what was expected.
    """
    try:
        return model.model_validate(dict(data))
    except ValidationError as error:
        lines = []
        for item in error.errors():
            key = ".".join(str(part) for part in item["loc"]) or "(whole)"
            what = "unknown key" if item["type"] == "extra_forbidden" else item["msg"]
            lines.append(f"  {key} = {item.get('input')!r}: {what}")
        raise ConfigError(f"{source}: {len(lines)} wrong value(s)\n" + "\n".join(lines)) from error


def load_config(model: type[ModelT], path: str | Path, overrides: Sequence[str] = ()) -> ModelT:
    """Read a YAML file, apply overrides and validate it. Raises :class:`ConfigError`."""
    return build(model, apply_overrides(read_yaml(path), overrides), str(path))


def dump_yaml(model: StrictModel) -> str:
    """Return the model as YAML that :func:`load_config` reads back to an equal model."""
    out = StringIO()
    yaml = YAML(typ="safe", pure=True)
    yaml.default_flow_style = False
    yaml.dump(model.model_dump(mode="json"), out)
    return out.getvalue()
