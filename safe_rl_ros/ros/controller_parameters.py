"""Asks the nodes that take a robot's commands for those of their parameters that the robot spec speaks of, too."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from rcl_interfaces.srv import GetParameters, ListParameters
from rclpy.node import Node
from rclpy.parameter import parameter_value_to_python

from safe_rl_ros.checks.controllers import names_of_parameters
from safe_rl_ros.checks.records import ControllerRecord
from safe_rl_ros.envs.robot_spec import RobotSpec

ANSWER_S = 1.0
"""Longest wait for each answer; a node may have no parameter services."""


def ask_controllers(
    node: Node, run: Callable[[Callable[[], bool], float], bool], spec: RobotSpec, names: Iterable[str]
) -> tuple[ControllerRecord, ...]:
    """Return what nodes say of themselves; one that does not answer has no parameters.

    Args:
        node: that asks.
        run: runs callbacks until a condition holds or a time in s is up; returns whether it holds.
        spec: the robot.
        names: full names of the nodes to be asked.
    """
    asked = names_of_parameters(spec)
    return tuple(ControllerRecord(name, _ask(node, run, name, asked)) for name in sorted(set(names)))


def _ask(node: Node, run: Callable[[Callable[[], bool], float], bool], name: str, asked: Iterable[str]) -> Any:
    # A list first: to be asked for one parameter that it has not, a node in C++ answers with none.
    listed = _call(node, run, ListParameters, f"{name}/list_parameters", ListParameters.Request())
    present = [] if listed is None else [parameter for parameter in asked if parameter in listed.result.names]
    if not present:
        return {}
    found = _call(node, run, GetParameters, f"{name}/get_parameters", GetParameters.Request(names=present))
    if found is None or len(found.values) != len(present):
        return {}
    values = {key: parameter_value_to_python(value) for key, value in zip(present, found.values, strict=True)}
    return {key: value for key, value in values.items() if value is not None}


def _call(node: Node, run: Callable[[Callable[[], bool], float], bool], kind: Any, name: str, request: Any) -> Any:
    """Return the answer of a service, None if there is none in time."""
    client = node.create_client(kind, name)
    try:
        if not run(client.service_is_ready, ANSWER_S):
            return None
        future = client.call_async(request)
        return future.result() if run(future.done, ANSWER_S) else None
    finally:
        node.destroy_client(client)
