"""The filter node's parameters, and FilterConfig <-> parameters.

ROS parameters have no ``null``. An optional field of the configuration therefore has a partner
``<field>_enabled``; no number means "off".
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from safe_rl_ros.config import build
from safe_rl_ros.ros import qos
from safe_rl_ros.ros.parameters import NodeParameter
from safe_rl_ros.ros.spin import EXECUTORS
from safe_rl_ros.safety.contracts import FilterConfig

PROPOSAL_TYPES = (
    "command",
    "geometry_msgs/msg/TwistStamped",
    "geometry_msgs/msg/Twist",
    "std_msgs/msg/Float64MultiArray",
    "trajectory_msgs/msg/JointTrajectory",
)
_MAX_SEED = 2**63 - 1
_ENABLED = "_enabled"


def _field(name: str, default: bool | int | float | str, **bounds: Any) -> NodeParameter:
    """Return the parameter of a FilterConfig field, with that field's description."""
    description = FilterConfig.model_fields[name].description or ""
    return NodeParameter(name, default, description, read_only=False, **bounds)


def _switch(name: str) -> NodeParameter:
    """Return the partner that says whether an optional field of FilterConfig is set."""
    default = getattr(_DEFAULT, name) is not None
    return NodeParameter(name + _ENABLED, default, f"Whether `{name}` is in force.", read_only=False)


_DEFAULT = build(FilterConfig, {}, "defaults")

NODE_PARAMETERS = (
    NodeParameter("robot", "rover", "Robot spec: a YAML file, or a name in config/robots."),
    NodeParameter("task", "hazard_nav", "Task whose observation the bundle was trained on: a file or a name."),
    NodeParameter("timing", "realtime", "lockstep: one tick per state; realtime: own timer.", choices=qos.TIMINGS),
    NodeParameter("executor", "single", "rclpy executor of this process.", choices=EXECUTORS),
    NodeParameter("autostart", False, "Configure and activate at start, where no lifecycle manager does it."),
    NodeParameter(
        "follow_resets",
        False,
        "Of twins, not on hardware: after a reset, commands that are positions go on from where the joints are.",
    ),
    NodeParameter(
        "proposal_type",
        "command",
        "Message type of the policy's proposals. command: the type that the robot takes.",
        choices=PROPOSAL_TYPES,
    ),
    NodeParameter("realtime_scheduling", False, "Ask the kernel for SCHED_FIFO for the thread that decides."),
    NodeParameter("realtime_priority", 50, "Priority under SCHED_FIFO.", minimum=1, maximum=99),
    NodeParameter("cpu_affinity", "", "Cores of the thread that decides, as `2` or `2,3`; empty: any."),
    NodeParameter("lock_memory", False, "Keep the process's memory from being paged out (mlockall)."),
    NodeParameter("recorder_directory", "", "Where the flight recorder writes its bags; empty: no recorder."),
    NodeParameter("recorder_pre_s", 5.0, "Time before an event that is recorded (s).", minimum=0.0, maximum=600.0),
    NodeParameter("recorder_post_s", 5.0, "Time after an event that is recorded (s).", minimum=0.0, maximum=600.0),
    NodeParameter("recorder_all", False, "Record without end instead of a window around each event."),
    NodeParameter("recorder_max_files", 100, "Bags that are kept; older ones go.", minimum=1, maximum=100_000),
)
"""Fixed at start."""

FILTER_PARAMETERS = (
    _field("mode", _DEFAULT.mode, choices=("enforce", "shadow")),
    _field("critic", _DEFAULT.critic, choices=("enforce", "shadow", "off")),
    _field("candidates", _DEFAULT.candidates, choices=("actor", "topic", "around")),
    _field("max_samples", _DEFAULT.max_samples, minimum=1, maximum=10_000),
    _field("around_std", _DEFAULT.around_std, minimum=1e-6, maximum=2.0),
    _field(
        "fallback_mode",
        _DEFAULT.fallback_mode,
        choices=("min_risk", "nearest_safe", "hold", "brake", "backup_policy", "estop"),
    ),
    _switch("threshold"),
    _field("threshold", 0.0, minimum=0.0, maximum=1.0),
    _switch("threshold_off"),
    _field("threshold_off", 0.0, minimum=0.0, maximum=1.0),
    _field("min_hold_cycles", _DEFAULT.min_hold_cycles, minimum=0, maximum=10_000),
    _switch("risk_abort"),
    _field("risk_abort", 1.0, minimum=0.0, maximum=1.0),
    _switch("max_consecutive_vetoes"),
    _field("max_consecutive_vetoes", 10, minimum=1, maximum=1_000_000),
    _switch("max_consecutive_overruns"),
    _field("max_consecutive_overruns", 5, minimum=1, maximum=1_000_000),
    _field("proposal_timeout_s", _DEFAULT.proposal_timeout_s, minimum=1e-3, maximum=10.0),
    _field("observation_timeout_s", _DEFAULT.observation_timeout_s, minimum=1e-3, maximum=10.0),
    _field("critic_deadline_ms", _DEFAULT.critic_deadline_ms, minimum=1e-3, maximum=10_000.0),
    _field("seed", _DEFAULT.seed, minimum=0, maximum=_MAX_SEED),
)
"""The filter's behaviour. Free while inactive; while active they may only be made stricter."""

OPERATION_PARAMETERS = (
    NodeParameter(
        "bundle", "", "Directory of the bundle to load at configure; empty: wait for `bundle`.", read_only=False
    ),
    NodeParameter("bundle_sha256", "", "Hash that the bundle must have; empty: any.", read_only=False),
    NodeParameter(
        "require_calibrated",
        False,
        "Refuse to activate, and refuse bundles, without a threshold certificate for exactly this set-up.",
        read_only=False,
    ),
    NodeParameter(
        "require_heartbeat", False, "Latch a stop when the operator's `heartbeat` falls silent.", read_only=False
    ),
    NodeParameter(
        "heartbeat_timeout_s",
        1.0,
        "Longest silence of `heartbeat` (s).",
        minimum=0.01,
        maximum=60.0,
        read_only=False,
    ),
    NodeParameter(
        "other_publishers",
        "error",
        "When somebody else publishes on the robot's command topic. error: say so; stop: latch a stop as well.",
        choices=("error", "stop"),
        read_only=False,
    ),
    NodeParameter(
        "shadow_run_ticks",
        20,
        "Decisions that a new bundle is watched beside the one in force before it takes over (real time only).",
        minimum=0,
        maximum=10_000,
        read_only=False,
    ),
)
"""Read at configure; they may be set only while the node is unconfigured."""

_OPTIONAL = tuple(item.name[: -len(_ENABLED)] for item in FILTER_PARAMETERS if item.name.endswith(_ENABLED))
_FIELDS = tuple(item.name for item in FILTER_PARAMETERS if not item.name.endswith(_ENABLED))


def filter_config(
    values: Mapping[str, Any], strictest_sensor_timeout_s: float, realtime_period_s: float | None = None
) -> FilterConfig:
    """Return the filter's configuration from parameter values.

    ``observation_timeout_s`` is cut to the shortest sensor timeout of the robot spec: the stricter of the two holds.
    With ``realtime_period_s``, ``critic_deadline_ms`` is cut to half of that control period: a slower critic would
    make the command late, and the default is made for lock-step.

    Raises:
        ConfigError: a value is out of range, or ``threshold_off`` is above ``threshold``.
    """
    content = {name: values[name] for name in _FIELDS}
    for name in _OPTIONAL:
        if not values[name + _ENABLED]:
            content[name] = None
    if realtime_period_s is not None:
        content["critic_deadline_ms"] = min(content["critic_deadline_ms"], 0.5e3 * realtime_period_s)
    content["observation_timeout_s"] = min(content["observation_timeout_s"], strictest_sensor_timeout_s)
    return build(FilterConfig, content, "parameters")


def parameters_of(config: FilterConfig) -> dict[str, object]:
    """Return the parameters that give this configuration."""
    content: dict[str, object] = {}
    for name in _FIELDS:
        value = getattr(config, name)
        if name in _OPTIONAL:
            content[name + _ENABLED] = value is not None
        if value is not None:
            content[name] = value
    return content
