"""The filter node's parameters, and FilterConfig <-> parameters."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from safe_rl_ros.config import build
from safe_rl_ros.ros import qos
from safe_rl_ros.ros.parameters import NodeParameter
from safe_rl_ros.ros.spin import EXECUTORS
from safe_rl_ros.safety.action_filter import FilterConfig

_MAX_SEED = 2**63 - 1


def _field(name: str, default: bool | int | float | str, **bounds: Any) -> NodeParameter:
    """Return the parameter of a FilterConfig field, with that field's description."""
    description = FilterConfig.model_fields[name].description or ""
    return NodeParameter(name, default, description, read_only=False, **bounds)


_DEFAULT = build(FilterConfig, {}, "defaults")

NODE_PARAMETERS = (
    NodeParameter("robot", "rover", "Robot spec: a YAML file, or a name in config/robots."),
    NodeParameter("task", "hazard_nav", "Task whose observation the bundle was trained on: a file or a name."),
    NodeParameter("timing", "realtime", "lockstep: one tick per state; realtime: own timer.", choices=qos.TIMINGS),
    NodeParameter("executor", "single", "rclpy executor of this process.", choices=EXECUTORS),
    NodeParameter("autostart", False, "Configure and activate at start, where no lifecycle manager does it."),
)
"""Fixed at start."""

FILTER_PARAMETERS = (
    NodeParameter(
        "bundle", "", "Directory of the bundle to load at configure; empty: wait for `bundle`.", read_only=False
    ),
    NodeParameter("bundle_sha256", "", "Hash that the bundle must have; empty: any.", read_only=False),
    _field("critic", _DEFAULT.critic, choices=("enforce", "shadow", "off")),
    _field("max_samples", _DEFAULT.max_samples, minimum=1, maximum=10_000),
    NodeParameter(
        "threshold_source",
        "bundle",
        "Where the veto threshold comes from: the bundle, or the parameter `threshold`.",
        choices=("bundle", "parameter"),
        read_only=False,
    ),
    _field("threshold", 0.0, minimum=0.0, maximum=1.0),
    _field("proposal_timeout_s", _DEFAULT.proposal_timeout_s, minimum=1e-3, maximum=10.0),
    _field("observation_timeout_s", _DEFAULT.observation_timeout_s, minimum=1e-3, maximum=10.0),
    _field("critic_deadline_ms", _DEFAULT.critic_deadline_ms, minimum=1e-3, maximum=10_000.0),
    _field("seed", _DEFAULT.seed, minimum=0, maximum=_MAX_SEED),
)
"""Read at configure; they may be set only while the node is unconfigured."""

_FIELDS = tuple(item.name for item in FILTER_PARAMETERS if item.name in FilterConfig.model_fields)


def filter_config(
    values: Mapping[str, Any], strictest_sensor_timeout_s: float, realtime_period_s: float | None = None
) -> FilterConfig:
    """Return the filter's configuration from parameter values.

    ``observation_timeout_s`` is cut to the shortest sensor timeout of the robot spec: the stricter of the two holds.
    With ``realtime_period_s``, ``critic_deadline_ms`` is cut to half of that control period: a slower critic would
    make the command late, and the default is made for lock-step.

    Raises:
        ConfigError: a value is out of range.
    """
    content = {name: values[name] for name in _FIELDS}
    if values["threshold_source"] == "bundle":
        content["threshold"] = None
    if realtime_period_s is not None:
        content["critic_deadline_ms"] = min(content["critic_deadline_ms"], 0.5e3 * realtime_period_s)
    content["observation_timeout_s"] = min(content["observation_timeout_s"], strictest_sensor_timeout_s)
    return build(FilterConfig, content, "parameters")


def parameters_of(config: FilterConfig) -> dict[str, object]:
    """Return the parameters that give this configuration."""
    content = {name: value for name, value in config.model_dump().items() if name in _FIELDS}
    source = "bundle" if config.threshold is None else "parameter"
    if config.threshold is None:
        del content["threshold"]
    return {**content, "threshold_source": source}
