"""Launch files without `launch`: stand-ins for its classes, which remember what they were made of."""

from __future__ import annotations

import importlib.util
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent


class Recorded:
    """Stand-in for a class of `launch`: remembers what it was made of."""

    def __init__(self, *positional: Any, **keywords: Any) -> None:
        self.positional, self.keywords = positional, keywords
        self.name = positional[0] if positional else keywords.get("name")


class StandInConfiguration(Recorded):
    """Stand-in for LaunchConfiguration; the context is a plain dict."""

    def perform(self, context: dict[str, str]) -> str:
        return context[self.name]


def stand_in(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], types.ModuleType]:
    """Return a function that imports a launch file with stand-ins in place of `launch` and `launch_ros`."""
    contents: dict[str, dict[str, Any]] = {
        "launch": {"LaunchContext": dict, "LaunchDescription": Recorded},
        "launch.actions": {name: Recorded for name in ("DeclareLaunchArgument", "OpaqueFunction", "Shutdown")},
        "launch.substitutions": {"LaunchConfiguration": StandInConfiguration},
        "launch_ros": {},
        "launch_ros.actions": {name: type(name, (Recorded,), {}) for name in ("Node", "LifecycleNode")},
    }
    for name, attributes in contents.items():
        module = types.ModuleType(name)
        module.__dict__.update(attributes)
        monkeypatch.setitem(sys.modules, name, module)

    def load_file(name: str) -> types.ModuleType:
        spec = importlib.util.spec_from_file_location("launch_file_under_test", ROOT / "launch" / name)
        module = importlib.util.module_from_spec(spec)
        try:
            spec.loader.exec_module(module)
        except ImportError as error:
            if importlib.util.find_spec("rclpy") is None and "needs rclpy" in str(error):
                pytest.skip("rclpy is not installed")
            raise
        return module

    return load_file


def arguments_of(module: types.ModuleType) -> dict[str, dict[str, Any]]:
    """Return name -> keywords of the declared launch arguments, in order."""
    description = module.generate_launch_description()
    entities = description.positional[0]
    return {entity.name: entity.keywords for entity in entities if "default_value" in entity.keywords}


def start(module: types.ModuleType, **changed: str) -> list[Recorded]:
    """Return the nodes that a launch file starts, with its defaults but for ``changed``."""
    arguments = arguments_of(module)
    assert set(changed) <= set(arguments)
    function = module.generate_launch_description().positional[0][-1].keywords["function"]
    return function({**{name: keywords["default_value"] for name, keywords in arguments.items()}, **changed})


def parameters_of(node: Recorded) -> dict[str, Any]:
    """Return the node's parameters given as dictionaries, merged; files are left out."""
    merged: dict[str, Any] = {}
    for item in node.keywords["parameters"]:
        merged |= item if isinstance(item, dict) else {}
    return merged
