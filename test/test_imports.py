"""Who may import whom: read from the source with ast, so that a lazy import inside a function counts too."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

PACKAGE = "safe_rl_ros"
ROOT = Path(__file__).resolve().parent.parent / PACKAGE

BASE = {"types", "config", "resources", "files"}
LEARNING = {"functional", "networks", "inference", "policies", "data", "compilation", "algorithms"}
RUNNING = {"envs", "safety", "bundle", "messages"}
# Part of the package -> parts that it may import, itself aside. A part that is not listed here fails the test.
MAY_IMPORT: dict[str, set[str]] = {
    "__init__": {"envs"},  # registers the Gymnasium environment
    "types": set(),
    "config": {"types"},
    "resources": {"types"},
    "files": set(),
    "functional": {"types"},
    "inference": BASE,
    "policies": BASE | {"inference"},
    "compilation": BASE,
    "networks": BASE | {"functional", "inference"},
    "data": BASE,
    "envs": BASE,
    "safety": BASE,
    "messages": BASE | {"envs", "safety"},
    "bundle": BASE | {"inference", "policies"},
    "bags": BASE | RUNNING | {"data"},
    "checks": BASE | RUNNING,
    "algorithms": BASE | LEARNING,
    "training": BASE | LEARNING | RUNNING,
    "ros": BASE | LEARNING | RUNNING | {"training", "bags", "checks"},
    "cli": BASE | LEARNING | RUNNING | {"training", "bags", "checks", "ros"},
}
# The filter decides on a robot: it starts fast and loads no learner. The actor has the robot while the learner learns.
# The twin stands in for the robot's base.
TORCH_FREE_NODES = [f"safe_rl_ros.ros.{name}_node" for name in ("safety_filter", "actor", "twin", "standin")]
TORCH_FREE = ["safety", "bundle", "inference", "policies", "envs", "messages", "bags", "checks"]
TORCH_FREE += ["types", "config", "resources", "files"]
PICKLES = {"pickle", "cloudpickle", "dill", "shelve", "marshal", "joblib"}
ROS_MODULES = {
    "rclpy",
    "std_srvs",
    "builtin_interfaces",
    "rcl_interfaces",
    "ament_index_python",
    "launch",
    "launch_ros",
    "tf2_ros",
}


def modules() -> dict[str, Path]:
    """Return every module of the package by its dotted name."""
    found = {}
    for path in sorted(ROOT.rglob("*.py")):
        parts = [PACKAGE, *path.relative_to(ROOT).with_suffix("").parts]
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


MODULES = modules()


@cache
def tree_of(module: str) -> ast.Module:
    return ast.parse(MODULES[module].read_text(encoding="utf-8"), filename=str(MODULES[module]))


def _executed(node: ast.AST) -> Iterator[ast.AST]:
    """Walk a tree but for the bodies of ``if TYPE_CHECKING``, which never run."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
            continue
        yield child
        yield from _executed(child)


@cache
def imports_of(module: str) -> frozenset[str]:
    """Return the dotted names that a module imports; ``from a import b`` gives ``a``, and ``a.b`` if it is a module."""
    names: set[str] = set()
    for node in _executed(tree_of(module)):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}:{node.lineno}: relative import; the package uses absolute ones"
            assert node.module is not None
            names.add(node.module)
            names.update(
                f"{node.module}.{alias.name}" for alias in node.names if f"{node.module}.{alias.name}" in MODULES
            )
    return frozenset(names)


def part_of(module: str) -> str:
    """Return the part of the package that a module belongs to: its first name below ``safe_rl_ros``."""
    return [*module.split("."), "__init__"][1]


def closure(module: str) -> dict[str, list[str]]:
    """Return every module that importing ``module`` may import, each with the chain that leads to it."""
    chains: dict[str, list[str]] = {}
    pending = [(module, [module])]
    while pending:
        name, chain = pending.pop()
        if name in chains:
            continue
        chains[name] = chain
        if name not in MODULES:
            continue
        parents = [name.rpartition(".")[0]] if "." in name else []
        pending += [(found, [*chain, found]) for found in [*imports_of(name), *parents]]
    return chains


def is_ros(name: str) -> bool:
    top = name.partition(".")[0]
    return top in ROS_MODULES or top.endswith("_msgs")


def test_every_part_has_a_rule() -> None:
    assert {part_of(module) for module in MODULES} <= set(MAY_IMPORT)


@pytest.mark.parametrize("module", sorted(MODULES))
def test_imports_only_lower_parts(module: str) -> None:
    part = part_of(module)
    wrong = [
        name
        for name in imports_of(module)
        if name.startswith(f"{PACKAGE}.") and part_of(name) not in MAY_IMPORT[part] | {part}
    ]
    assert not wrong, f"{module} belongs to {part} and may import {sorted(MAY_IMPORT[part])}, not {wrong}"


@pytest.mark.parametrize("module", sorted(m for m in MODULES if part_of(m) != "ros"))
def test_only_ros_imports_ros(module: str) -> None:
    assert not [name for name in imports_of(module) if is_ros(name)]


@pytest.mark.parametrize("module", sorted(m for m in MODULES if part_of(m) in TORCH_FREE) + TORCH_FREE_NODES)
def test_no_torch_and_no_learner_in_the_filter_process(module: str) -> None:
    assert module in MODULES
    chains = closure(module)
    wrong = [chain for name, chain in chains.items() if name.split(".")[0] == "torch"]
    wrong += [
        chain for name, chain in chains.items() if name.startswith((f"{PACKAGE}.algorithms", f"{PACKAGE}.training"))
    ]
    assert not wrong, "import chain: " + " -> ".join(wrong[0])


@pytest.mark.parametrize("module", sorted(MODULES))
def test_no_pickle_and_no_print(module: str) -> None:
    assert not {name.partition(".")[0] for name in imports_of(module)} & PICKLES
    for node in ast.walk(tree_of(module)):
        if not isinstance(node, ast.Call):
            continue
        where = f"{module}:{node.lineno}"
        assert not (isinstance(node.func, ast.Name) and node.func.id == "print"), f"{where}: print; use logging"
        keywords = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
        assert keywords.get("allow_pickle", "False") == "False", f"{where}: allow_pickle"
        if ast.unparse(node.func) == "torch.load":
            assert keywords.get("weights_only") == "True", f"{where}: torch.load without weights_only=True unpickles"


def test_filter_parts_import_in_a_process_without_torch_and_ros() -> None:
    """The same for real: what ast cannot see (import by name, a dependency that pulls torch) shows here."""
    parts = [PACKAGE, *(module for module in MODULES if part_of(module) in TORCH_FREE)]
    script = (
        "import importlib, sys\n"
        "for name in ('torch', 'rclpy'):\n    sys.modules[name] = None\n"
        f"for part in {parts}:\n    importlib.import_module(part)\n"
        "print('imported')\n"
    )
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False)
    assert result.stdout == "imported\n", result.stderr


@pytest.mark.ros
def test_filter_node_loads_no_torch() -> None:
    script = (
        "import sys, safe_rl_ros.ros.safety_filter_node as m\nassert callable(m.main)\nprint('torch' in sys.modules)"
    )
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False)
    assert result.stdout == "False\n", result.stderr
