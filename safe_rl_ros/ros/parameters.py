"""Node parameters: declared from a table, described, bounded, finite, and fixed after start unless said otherwise."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rcl_interfaces.msg import (
    FloatingPointRange,
    IntegerRange,
    ParameterDescriptor,
    ParameterType,
    SetParametersResult,
)
from rclpy.exceptions import (
    InvalidParameterTypeException,
    InvalidParameterValueException,
    ParameterException,
)
from rclpy.node import Node
from rclpy.parameter import Parameter

from safe_rl_ros.types import ConfigError

_KINDS: dict[type, tuple[int, str]] = {
    bool: (ParameterType.PARAMETER_BOOL, "a boolean"),
    int: (ParameterType.PARAMETER_INTEGER, "an integer"),
    float: (ParameterType.PARAMETER_DOUBLE, "a number"),
    str: (ParameterType.PARAMETER_STRING, "a string"),
}


@dataclass(frozen=True)
class NodeParameter:
    """One parameter: its type is that of ``default``; bounds are inclusive; ``choices`` only for strings."""

    name: str
    default: bool | int | float | str
    description: str
    minimum: float | None = None
    maximum: float | None = None
    choices: tuple[str, ...] = ()
    read_only: bool = True

    @property
    def expectation(self) -> str:
        """What a value must be, for messages and descriptors."""
        if self.choices:
            return "one of " + ", ".join(self.choices)
        text = _KINDS[type(self.default)][1]
        if self.minimum is not None or self.maximum is not None:
            low = "-inf" if self.minimum is None else f"{self.minimum:g}"
            high = "inf" if self.maximum is None else f"{self.maximum:g}"
            text += f" in [{low}, {high}]"
        return text

    def problem(self, value: object) -> str | None:
        """Return why ``value`` may not be set, or None if it may."""
        wrong = f"parameter {self.name} = {value!r}, expected {self.expectation}"
        if self.choices:
            return None if value in self.choices else wrong
        # Not left to the descriptor's range: rclpy compares with < and >, which lets NaN through.
        if isinstance(self.default, float) and not (isinstance(value, float) and math.isfinite(value)):
            return wrong
        if isinstance(value, int | float) and not isinstance(value, bool):
            low = -math.inf if self.minimum is None else self.minimum
            high = math.inf if self.maximum is None else self.maximum
            return None if low <= value <= high else wrong
        return None

    def descriptor(self) -> ParameterDescriptor:
        """Return the ROS descriptor with type, range, description and constraint text."""
        descriptor = ParameterDescriptor(
            name=self.name,
            type=_KINDS[type(self.default)][0],
            description=self.description,
            additional_constraints=self.expectation,
            read_only=self.read_only,
        )
        if self.minimum is None and self.maximum is None:
            return descriptor
        if isinstance(self.default, float):
            low = -math.inf if self.minimum is None else float(self.minimum)
            high = math.inf if self.maximum is None else float(self.maximum)
            descriptor.floating_point_range = [FloatingPointRange(from_value=low, to_value=high, step=0.0)]
        else:
            low_int = -(2**63) if self.minimum is None else int(self.minimum)
            high_int = 2**63 - 1 if self.maximum is None else int(self.maximum)
            descriptor.integer_range = [IntegerRange(from_value=low_int, to_value=high_int, step=0)]
        return descriptor


def declare(node: Node, table: Sequence[NodeParameter]) -> dict[str, Any]:
    """Declare every parameter of ``table`` on ``node``, watch later changes, and return name -> value.

    Raises:
        ConfigError: a value given at start has the wrong type, is not finite or is out of range.
    """
    name = node.get_name()
    values: dict[str, Any] = {}
    for item in table:
        try:
            value = node.declare_parameter(item.name, item.default, item.descriptor()).value
        except (InvalidParameterValueException, InvalidParameterTypeException, ParameterException) as error:
            raise ConfigError(f"{name}: parameter {item.name}, expected {item.expectation}: {error}") from error
        problem = item.problem(value)
        if problem is not None:
            raise ConfigError(f"{name}: {problem}")
        values[item.name] = value
    by_name = {item.name: item for item in table}

    def check(parameters: list[Parameter[Any]]) -> SetParametersResult:
        for parameter in parameters:
            item = by_name.get(parameter.name)
            problem = item.problem(parameter.value) if item is not None else None
            if problem is not None:
                return SetParametersResult(successful=False, reason=problem)
        return SetParametersResult(successful=True, reason="")

    node.add_on_set_parameters_callback(check)
    return values
