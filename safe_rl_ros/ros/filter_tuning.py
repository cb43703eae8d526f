"""Changes of the filter's parameters at run time: free while inactive, only stricter while active."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from rcl_interfaces.msg import SetParametersResult
from rclpy.node import Node

from safe_rl_ros.ros.filter_parameters import FILTER_PARAMETERS, OPERATION_PARAMETERS
from safe_rl_ros.safety.action_filter import ActionFilter, FilterConfig
from safe_rl_ros.types import ConfigError

_FILTER = frozenset(item.name for item in FILTER_PARAMETERS)
_OPERATION = frozenset(item.name for item in OPERATION_PARAMETERS)


class Tuning:
    """Applies a change to the filter before rclpy stores it, so that both always agree.

    Make it before the parameters are declared: rclpy asks the youngest callback first, so this one is asked last,
    with values that the tables' own checks have passed.
    """

    def __init__(self, node: Node) -> None:
        """Watch the node's parameters; nothing is applied until :meth:`attach`."""
        self._node = node
        self._apply: Callable[[FilterConfig], None] | None = None
        self._config_of: Callable[[Mapping[str, Any]], FilterConfig] | None = None
        self.locked = False
        """True from configure to clean-up: what configure read is in use."""
        node.add_on_set_parameters_callback(self._on_set)

    def attach(
        self,
        action_filter: ActionFilter,
        config_of: Callable[[Mapping[str, Any]], FilterConfig],
        on_change: Callable[[], None],
    ) -> None:
        """Apply changes to this filter from now on.

        Args:
            action_filter: the filter.
            config_of: parameter values to configuration; raises ConfigError.
            on_change: called after each change.
        """
        self._config_of = config_of

        def apply(config: FilterConfig) -> None:
            if config != action_filter.config:
                action_filter.reconfigure(config)
                on_change()

        self._apply = apply

    def values(self) -> dict[str, Any]:
        """Return the present values of all parameters that configure reads."""
        return {name: self._node.get_parameter(name).value for name in (*_FILTER, *_OPERATION)}

    def _on_set(self, parameters: list[Any]) -> SetParametersResult:
        changed = {parameter.name: parameter.value for parameter in parameters}
        if not self.locked or self._apply is None or self._config_of is None:
            return SetParametersResult(successful=True, reason="")
        for name in changed:
            if name in _OPERATION:
                reason = f"{name} is read at configure: deactivate and clean up first"
                return SetParametersResult(successful=False, reason=reason)
        if not _FILTER.intersection(changed):
            return SetParametersResult(successful=True, reason="")
        try:
            self._apply(self._config_of(self.values() | changed))
        except ConfigError as error:
            return SetParametersResult(successful=False, reason=str(error))
        return SetParametersResult(successful=True, reason="")
