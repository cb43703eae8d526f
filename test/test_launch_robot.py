"""The launch file for the robot and its stand-in: the same nodes and parameters, whichever of the two it is."""

from __future__ import annotations

import types
from collections.abc import Callable

import pytest
from launch_stand_ins import parameters_of, stand_in, start


@pytest.fixture
def load(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], types.ModuleType]:
    """Return a function that imports a launch file with stand-ins in place of `launch` and `launch_ros`."""
    return stand_in(monkeypatch)


def test_robot_puts_a_bundle_behind_the_filter_on_the_stand_in_as_on_hardware(
    load: Callable[[str], types.ModuleType],
) -> None:
    module, given = load("robot.launch.py"), {"bundle": "robot/bundle", "mode": "shadow", "params_file": "robot.yaml"}
    safety_filter, standin, policy = start(module, **given)
    hardware = start(module, robot="hardware", **given)
    assert [node.keywords["executable"] for node in hardware] == ["safety_filter_node", "policy_node"]
    # Nobody but the stand-in is told that there is one.
    assert [node.keywords for node in hardware] == [safety_filter.keywords, policy.keywords]
    assert standin.keywords["executable"] == "standin_node"
    values, others = parameters_of(safety_filter), parameters_of(policy)
    assert (values["mode"], values["critic"], values["autostart"]) == ("shadow", "enforce", True)
    for key, expected in (("bundle", "robot/bundle"), ("timing", "realtime"), ("use_sim_time", False)):
        assert values[key] == others[key] == expected
    for key in ("robot", "task"):
        assert values[key] == others[key] == parameters_of(standin)[key]
    assert parameters_of(standin)["standin_seed"] == -1, "by default nobody knows what it is"
    assert "use_sim_time" not in parameters_of(standin)
    assert all(node.keywords["parameters"][-1] == "robot.yaml" for node in (safety_filter, standin, policy))


def test_robot_goes_on_learning_there_with_an_actor(load: Callable[[str], types.ModuleType]) -> None:
    module, given = load("robot.launch.py"), {"acting": "actor", "runs": "mine", "arena_seed": "7", "resume": "true"}
    nodes = {node.keywords["executable"]: node for node in start(module, **given)}
    assert sorted(nodes) == ["actor_node", "learner_node", "safety_filter_node", "standin_node"]
    actor, learner = parameters_of(nodes["actor_node"]), parameters_of(nodes["learner_node"])
    assert actor["robot_kind"] == learner["robot_kind"] == "hardware", "the stand-in is not reset"
    assert actor["arena_seed"] == parameters_of(nodes["standin_node"])["arena_seed"] == 7
    assert actor["spool"] == "mine/csc_hazard_nav/spool"
    assert (learner["acting"], learner["timing"], learner["resume"]) == ("actor", "realtime", True)
    assert parameters_of(nodes["safety_filter_node"])["bundle"] == "", "the actor announces it"
    assert [name for name, node in nodes.items() if "on_exit" in node.keywords] == ["learner_node"]
    hardware = start(module, robot="hardware", **given)
    assert [node.keywords["name"] for node in hardware] == ["safety_filter", "actor", "learner"]
    assert [parameters_of(node) for node in hardware[1:]] == [actor, learner]


def test_what_learns_without_a_critic_acts_behind_that_of_a_bundle(
    load: Callable[[str], types.ModuleType],
) -> None:
    nodes = start(load("robot.launch.py"), acting="actor", config="offtrc_standin.yaml", bundle="robot/bundle")
    named = {node.keywords["executable"]: parameters_of(node) for node in nodes}
    judge, actor = named["safety_filter_node"], named["actor_node"]
    assert (judge["bundle"], judge["critic"], judge["mode"]) == ("robot/bundle", "enforce", "enforce")
    assert (actor["roll_back_episodes"], actor["roll_back_level"]) == (4, 0.05)
    alone = start(load("robot.launch.py"), acting="actor", config="offtrc_standin.yaml")
    assert parameters_of(alone[0])["critic"] == "off"


def test_robot_records_by_a_contract_of_the_robot(load: Callable[[str], types.ModuleType]) -> None:
    recorder = start(load("robot.launch.py"), bundle="robot/bundle", record="true", bags="mine")[0]
    values = parameters_of(recorder)
    assert values["contract"].endswith("config/contracts/rover.yaml")
    assert (values["directory"], values["use_sim_time"]) == ("mine", False)


@pytest.mark.parametrize(
    ("changed", "problem"),
    [
        ({}, "bundle is empty, expected the directory of a bundle"),
        ({"acting": "actor", "bundle": "x"}, "bundle = 'x', expected none with acting:=actor"),
        ({"bundle": "x", "arena_seed": "first"}, "arena_seed = 'first', expected an integer"),
        ({"bundle": "x", "standin_seed": "1.5"}, r"standin_seed = '1\.5', expected an integer"),
        ({"bundle": "x", "record": "true", "contract": "arm.yaml"}, r"arm\.yaml is for robot 'arm'"),
    ],
)
def test_robot_refuses_what_does_not_fit(
    changed: dict[str, str], problem: str, load: Callable[[str], types.ModuleType]
) -> None:
    with pytest.raises(ValueError, match=problem):
        start(load("robot.launch.py"), **changed)


@pytest.mark.parametrize(
    ("file", "changed", "wanted"),
    [
        ("robot.launch.py", {"bundle": "robot/bundle"}, True),
        ("robot.launch.py", {"acting": "actor"}, True),
        ("robot.launch.py", {"acting": "actor", "realtime": "false"}, False),
        ("train.launch.py", {"robot": "hardware"}, True),
        ("train.launch.py", {"acting": "actor"}, True),
        ("train.launch.py", {}, False),  # in lock-step nothing is due at a time
        ("filter.launch.py", {}, True),
        ("filter.launch.py", {"timing": "lockstep"}, False),
        ("filter.launch.py", {"realtime": "false"}, False),
    ],
)
def test_who_keeps_the_control_rate_asks_the_kernel_for_it(
    file: str, changed: dict[str, str], wanted: bool, load: Callable[[str], types.ModuleType]
) -> None:
    asked = {
        node.keywords["name"]: (parameters_of(node)["realtime_scheduling"], parameters_of(node)["lock_memory"])
        for node in start(load(file), **changed)
        if "realtime_scheduling" in parameters_of(node)
    }
    expected = {"safety_filter", "actor"} if changed.get("acting") == "actor" else {"safety_filter"}
    assert asked == dict.fromkeys(expected, (wanted, wanted))
