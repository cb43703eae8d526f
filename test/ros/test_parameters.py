"""Node parameters: described, bounded, finite, and refused with one message."""

from __future__ import annotations

import math

import pytest

pytest.importorskip("rclpy")
pytestmark = pytest.mark.ros

import rclpy  # noqa: E402
from rclpy.node import Node  # noqa: E402
from rclpy.parameter import Parameter  # noqa: E402
from rclpy.signals import SignalHandlerOptions  # noqa: E402

from safe_rl_ros.config import read_yaml  # noqa: E402
from safe_rl_ros.resources import find_resource  # noqa: E402
from safe_rl_ros.ros.filter_parameters import (  # noqa: E402
    FILTER_PARAMETERS,
    NODE_PARAMETERS,
    OPERATION_PARAMETERS,
    filter_config,
    parameters_of,
)
from safe_rl_ros.ros.parameters import NodeParameter, declare  # noqa: E402
from safe_rl_ros.ros.supervisor import ros_arguments  # noqa: E402
from safe_rl_ros.ros.twin_node import PARAMETERS as TWIN_PARAMETERS  # noqa: E402
from safe_rl_ros.safety.action_filter import FilterConfig  # noqa: E402
from safe_rl_ros.types import ConfigError  # noqa: E402

TABLE = (
    NodeParameter("rate", 10.0, "Rate in Hz.", 1.0, 100.0, read_only=False),
    NodeParameter("open", 0.5, "No bounds.", read_only=False),
    NodeParameter("count", 3, "A count.", 0, 5, read_only=False),
    NodeParameter("mode", "slow", "How.", choices=("slow", "fast"), read_only=False),
    NodeParameter("fixed", True, "Fixed."),
)


@pytest.fixture
def make_node():
    contexts, nodes = [], []

    def make(parameters=None, params_file=None):
        context = rclpy.Context()
        arguments = ros_arguments(parameters or {}, params_file=params_file)
        rclpy.init(context=context, args=arguments, signal_handler_options=SignalHandlerOptions.NO)
        contexts.append(context)
        nodes.append(Node("subject", context=context))
        return nodes[-1]

    yield make
    for node in nodes:
        node.destroy_node()
    for context in contexts:
        rclpy.try_shutdown(context=context)


def test_defaults_and_given_values(make_node):
    assert declare(make_node(), TABLE) == {"rate": 10.0, "open": 0.5, "count": 3, "mode": "slow", "fixed": True}
    given = {"rate": 2.0, "count": 0, "mode": "fast", "fixed": False, "open": -1e-5}
    assert declare(make_node(given), TABLE) == given


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"rate": 0.5}, r"subject: parameter rate, expected a number in \[1, 100\]"),
        ({"rate": 5}, r"parameter rate, expected a number in \[1, 100\]"),
        ({"rate": "fast"}, r"parameter rate, expected a number"),
        ({"count": 6}, r"parameter count, expected an integer in \[0, 5\]"),
        ({"count": 1.0}, r"parameter count, expected an integer"),
        ({"mode": "warp"}, r"parameter mode = 'warp', expected one of slow, fast"),
    ],
)
def test_wrong_value_at_start_is_one_config_error(make_node, given, message):
    with pytest.raises(ConfigError, match=message):
        declare(make_node(given), TABLE)


@pytest.mark.parametrize("name", ["rate", "open"])
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_non_finite_value_is_refused_at_run_time(make_node, name, value):
    node = make_node()
    declare(node, TABLE)
    (result,) = node.set_parameters([Parameter(name, value=value)])
    assert not result.successful
    assert math.isfinite(node.get_parameter(name).value)


def test_changes_are_checked_and_read_only_is_fixed(make_node):
    node = make_node()
    declare(node, TABLE)
    results = node.set_parameters(
        [Parameter("mode", value="warp"), Parameter("count", value=5), Parameter("fixed", value=False)]
    )
    assert [r.successful for r in results] == [False, True, False]
    assert results[0].reason == "parameter mode = 'warp', expected one of slow, fast"


ALL_PARAMETERS = (*NODE_PARAMETERS, *FILTER_PARAMETERS, *OPERATION_PARAMETERS)


@pytest.mark.parametrize("item", ALL_PARAMETERS, ids=lambda item: item.name)
def test_every_parameter_of_the_filter_is_described(item):
    assert item.description.endswith(".")
    assert item.problem(item.default) is None


@pytest.mark.parametrize(
    ("node", "table"),
    [("safety_filter_node", ALL_PARAMETERS), ("twin_node", TWIN_PARAMETERS)],
)
def test_parameter_file_holds_every_parameter_with_a_legal_value(node, table):
    content = read_yaml(find_resource(f"{node}.yaml", "config/ros"))
    values = content["/**"]["ros__parameters"]
    assert set(values) == {item.name for item in table}
    for item in table:
        assert type(values[item.name]) is type(item.default), item.name
        assert item.problem(values[item.name]) is None


def test_parameter_file_is_read_by_a_node(make_node, tmp_path):
    path = tmp_path / "parameters.yaml"
    path.write_text("/**:\n  ros__parameters:\n    rate: 3.0\n    count: .nan\n")
    with pytest.raises(ConfigError, match="parameter count"):
        declare(make_node(params_file=path), TABLE)


def config(**values):
    return FilterConfig.model_validate(values)


EVERY_FIELD = {
    "mode": "shadow",
    "critic": "shadow",
    "candidates": "around",
    "max_samples": 3,
    "around_std": 0.5,
    "fallback_mode": "brake",
    "threshold": 0.25,
    "threshold_off": 0.125,
    "min_hold_cycles": 4,
    "risk_abort": 0.75,
    "max_consecutive_vetoes": 6,
    "max_consecutive_overruns": None,
    "proposal_timeout_s": 0.5,
    "observation_timeout_s": 0.75,
    "critic_deadline_ms": 15.0,
    "seed": 7,
}


def test_every_field_of_the_configuration_is_a_parameter():
    names = {item.name for item in FILTER_PARAMETERS}
    assert set(EVERY_FIELD) == set(FilterConfig.model_fields)
    assert names >= set(FilterConfig.model_fields)
    partners = {name.removesuffix("_enabled") for name in names if name.endswith("_enabled")}
    optional = {name for name, field in FilterConfig.model_fields.items() if "None" in str(field.annotation)}
    assert partners == optional


@pytest.mark.parametrize("given", [{}, {"threshold": 0.0}, EVERY_FIELD])
def test_filter_configuration_survives_the_way_through_parameters(given):
    original = config(**given)
    values = {item.name: item.default for item in FILTER_PARAMETERS} | parameters_of(original)
    assert filter_config(values, strictest_sensor_timeout_s=10.0) == original


def test_observation_timeout_is_never_longer_than_a_sensors():
    values = {item.name: item.default for item in FILTER_PARAMETERS}
    assert filter_config(values, strictest_sensor_timeout_s=0.05).observation_timeout_s == 0.05


def test_critic_deadline_is_cut_to_half_a_period_in_real_time_only():
    values = {item.name: item.default for item in FILTER_PARAMETERS}
    assert filter_config(values, 1.0).critic_deadline_ms == 1000.0
    assert filter_config(values, 1.0, realtime_period_s=0.1).critic_deadline_ms == 50.0
    assert filter_config(values | {"critic_deadline_ms": 20.0}, 1.0, realtime_period_s=0.1).critic_deadline_ms == 20.0
