"""The launch files: what they start, with stand-ins for `launch` that always work (for real: test_launch_real)."""

from __future__ import annotations

import ast
import re
import types
from collections.abc import Callable
from pathlib import Path

import pytest
from launch_stand_ins import ROOT, Recorded, arguments_of, parameters_of, stand_in, start

LAUNCH_FILES = sorted((ROOT / "launch").glob("*.launch.py"))
NODE_SOURCES = ROOT / "safe_rl_ros" / "ros"
BUILT_IN_PARAMETERS = {"use_sim_time"}
COMMON_ARGUMENTS = {"use_sim_time", "namespace", "params_file", "log_level"}


@pytest.fixture
def load(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], types.ModuleType]:
    """Return a function that imports a launch file with stand-ins in place of `launch` and `launch_ros`."""
    return stand_in(monkeypatch)


def declared_parameters(executable: str) -> set[str]:
    """Return the names in a node's parameter tables: its own source and the ``*_parameters`` modules it imports."""
    pending, names = [NODE_SOURCES / f"{executable}.py"], set()
    for path in pending:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and (node.module or "").endswith("_parameters"):
                pending.append(NODE_SOURCES / f"{node.module.rpartition('.')[2]}.py")
            if isinstance(node, ast.Call) and ast.unparse(node.func) in ("NodeParameter", "_field", "_switch"):
                suffix = "_enabled" if ast.unparse(node.func) == "_switch" else ""
                names |= {argument.value + suffix for argument in node.args[:1] if isinstance(argument, ast.Constant)}
    return names


VARIANTS = [
    ("train.launch.py", {}),
    ("train.launch.py", {"record": "true", "namespace": "rover1"}),
    ("train.launch.py", {"robot": "hardware", "use_sim_time": "false", "namespace": "rover1", "log_level": "debug"}),
    ("train.launch.py", {"acting": "actor", "namespace": "rover1"}),
    ("train.launch.py", {"acting": "actor", "robot": "hardware", "use_sim_time": "false", "runs": "mine"}),
    ("robot.launch.py", {"bundle": "robot/bundle"}),
    ("robot.launch.py", {"robot": "hardware", "bundle": "robot/bundle", "record": "true", "namespace": "rover1"}),
    ("robot.launch.py", {"acting": "actor", "arena_seed": "7", "standin_seed": "5", "reveal_file": "known.json"}),
    ("filter.launch.py", {}),
    (
        "filter.launch.py",
        {"critic": "shadow", "log_level": "debug", "policy_topic": "cmd_vel_policy", "bundle": "runs/demo/bundle"},
    ),
    (
        "filter.launch.py",
        {
            "mode": "shadow",
            "candidates": "around",
            "fallback_mode": "nearest_safe",
            "proposal_type": "geometry_msgs/msg/Twist",
            "require_calibrated": "true",
            "require_heartbeat": "true",
            "other_publishers": "stop",
            "record": "bags",
        },
    ),
    ("filter.launch.py", {"policy": "own", "bundle": "robot/bundle", "candidates": "topic", "namespace": "rover1"}),
    (
        "filter.launch.py",
        {"robot_spec": "arm.yaml", "task": "joint_hold.yaml", "command_topic": "left/commands", "critic": "off"},
    ),
]


def test_all_launch_files_compile_and_are_covered() -> None:
    for path in LAUNCH_FILES:
        compile(path.read_text(), str(path), "exec")
    assert {path.name for path in LAUNCH_FILES} == {name for name, _ in VARIANTS}


@pytest.mark.parametrize("path", LAUNCH_FILES, ids=lambda path: path.name)
def test_arguments_have_descriptions_and_text_defaults(path: Path, load: Callable[[str], types.ModuleType]) -> None:
    arguments = arguments_of(load(path.name))
    assert set(arguments) >= COMMON_ARGUMENTS
    for name, keywords in arguments.items():
        assert re.fullmatch(r"[A-Za-z].{10,}\.", keywords["description"]), name
        assert isinstance(keywords["default_value"], str), name
        assert keywords["default_value"] in keywords.get("choices", [keywords["default_value"]]), name


@pytest.mark.parametrize("path", LAUNCH_FILES, ids=lambda path: path.name)
def test_every_argument_is_used(path: Path, load: Callable[[str], types.ModuleType]) -> None:
    nodes = ast.walk(ast.parse(path.read_text()))
    reads = [node for node in nodes if isinstance(node, ast.Subscript) and ast.unparse(node.value) == "value"]
    assert {ast.literal_eval(node.slice) for node in reads} == set(arguments_of(load(path.name)))


@pytest.mark.parametrize(("name", "changed"), VARIANTS)
def test_executables_and_parameters_exist(
    name: str, changed: dict[str, str], load: Callable[[str], types.ModuleType]
) -> None:
    for node in start(load(name), **changed):
        executable = node.keywords["executable"]
        assert node.keywords["package"] == "safe_rl_ros"
        assert (ROOT / "scripts" / executable).is_file(), f"{name}: no executable {executable}"
        unknown = set(parameters_of(node)) - declared_parameters(executable) - BUILT_IN_PARAMETERS
        assert not unknown, f"{name}: {executable} declares no parameter {sorted(unknown)}"
        assert node.keywords["namespace"] == changed.get("namespace", "")
        assert node.keywords["arguments"] == ["--ros-args", "--log-level", changed.get("log_level", "info")]


@pytest.mark.ros
@pytest.mark.parametrize(("name", "changed"), VARIANTS)
def test_parameter_values_pass_the_nodes_own_checks(
    name: str, changed: dict[str, str], load: Callable[[str], types.ModuleType]
) -> None:
    from safe_rl_ros.ros import (
        actor_node,
        filter_parameters,
        learner_node,
        policy_node,
        recorder_node,
        standin_node,
        twin_node,
    )

    tables = {
        "twin_node": twin_node.PARAMETERS,
        "safety_filter_node": (
            *filter_parameters.NODE_PARAMETERS,
            *filter_parameters.FILTER_PARAMETERS,
            *filter_parameters.OPERATION_PARAMETERS,
        ),
        "actor_node": actor_node.PARAMETERS,
        "learner_node": learner_node.PARAMETERS,
        "recorder_node": recorder_node.PARAMETERS,
        "policy_node": policy_node.PARAMETERS,
        "standin_node": standin_node.PARAMETERS,
    }
    for node in start(load(name), **changed):
        known = {parameter.name: parameter for parameter in tables[node.keywords["executable"]]}
        assert set(known) == declared_parameters(node.keywords["executable"]), "the test reads the wrong table"
        for key, value in parameters_of(node).items():
            if key not in BUILT_IN_PARAMETERS:
                assert type(value) is type(known[key].default), key
                assert known[key].problem(value) is None


def test_train_starts_twin_filter_and_learner_in_lockstep(load: Callable[[str], types.ModuleType]) -> None:
    nodes = {node.keywords["executable"]: node for node in start(load("train.launch.py"))}
    assert sorted(nodes) == ["learner_node", "safety_filter_node", "twin_node"]
    twin, safety_filter = parameters_of(nodes["twin_node"]), parameters_of(nodes["safety_filter_node"])
    assert {twin["timing"], safety_filter["timing"]} == {"lockstep"}
    # One session file names the robot and the task of all of them.
    assert (
        (twin["robot"], twin["task"])
        == (safety_filter["robot"], safety_filter["task"])
        == ("rover.yaml", "hazard_nav.yaml")
    )
    # The twin is the clock; everything else follows it. Only the learner's end ends the launch.
    assert "use_sim_time" not in twin
    assert safety_filter["use_sim_time"] is True
    learner = parameters_of(nodes["learner_node"])
    assert (learner["timing"], learner["robot_kind"]) == ("lockstep", "twin")
    assert [name for name, node in nodes.items() if "on_exit" in node.keywords] == ["learner_node"]
    on_exit = nodes["learner_node"].keywords["on_exit"]
    assert isinstance(on_exit(None, types.SimpleNamespace(is_shutdown=False)), Recorded)
    assert on_exit(None, types.SimpleNamespace(is_shutdown=True)) is None


def test_train_on_hardware_starts_no_twin_and_keeps_wall_time(load: Callable[[str], types.ModuleType]) -> None:
    nodes = start(load("train.launch.py"), robot="hardware", use_sim_time="false", params_file="robot.yaml")
    assert sorted(node.keywords["executable"] for node in nodes) == ["learner_node", "safety_filter_node"]
    assert parameters_of(nodes[-1])["robot_kind"] == "hardware"
    for node in nodes:
        assert parameters_of(node)["timing"] == "realtime"
        assert parameters_of(node)["use_sim_time"] is False
        assert node.keywords["parameters"][-1] == "robot.yaml", "the file comes last, so that it overrides"


def test_train_with_an_actor_runs_in_real_time_and_spools_into_the_run(
    load: Callable[[str], types.ModuleType],
) -> None:
    nodes = {node.keywords["executable"]: node for node in start(load("train.launch.py"), acting="actor", runs="mine")}
    assert sorted(nodes) == ["actor_node", "learner_node", "safety_filter_node", "twin_node"]
    for name in ("twin_node", "safety_filter_node", "learner_node"):
        assert parameters_of(nodes[name])["timing"] == "realtime"
    actor, learner = parameters_of(nodes["actor_node"]), parameters_of(nodes["learner_node"])
    assert (learner["acting"], learner["runs"]) == ("actor", "mine")
    assert actor["spool"] == "mine/csc_hazard_nav/spool", "the run is called after its session"
    assert (actor["robot"], actor["task"], actor["robot_kind"]) == ("rover.yaml", "hazard_nav.yaml", "twin")
    hardware = start(load("train.launch.py"), acting="actor", robot="hardware")
    assert [node.keywords["name"] for node in hardware] == ["safety_filter", "actor", "learner"]
    assert parameters_of(hardware[1])["robot_kind"] == "hardware"


def test_train_records_by_a_contract_for_the_sessions_robot(load: Callable[[str], types.ModuleType]) -> None:
    module = load("train.launch.py")
    recorder = start(module, record="true", bags="mine")[0]
    assert recorder.keywords["executable"] == "recorder_node"
    values = parameters_of(recorder)
    assert values["contract"].endswith("config/contracts/rover_twin.yaml")
    assert (values["directory"], values["use_sim_time"]) == ("mine", True)
    with pytest.raises(ValueError, match=r"arm\.yaml is for robot 'arm', the session has rover"):
        start(module, record="true", contract="arm.yaml")


def test_train_refuses_a_session_that_names_no_files(tmp_path: Path, load: Callable[[str], types.ModuleType]) -> None:
    session = tmp_path / "session.yaml"
    session.write_text("name: x\nrobot: rover.yaml\ntask: {max_episode_steps: 5}\n")
    with pytest.raises(ValueError, match=r"session\.yaml: task = .*expected a file name"):
        start(load("train.launch.py"), config=str(session))


@pytest.mark.parametrize(("line", "expected"), [("", "spec"), ("simulator: pybullet\n", "pybullet")])
def test_train_gives_the_twin_the_sessions_simulator(
    tmp_path: Path, load: Callable[[str], types.ModuleType], line: str, expected: str
) -> None:
    session = tmp_path / "session.yaml"
    session.write_text("name: x\nrobot: rover.yaml\ntask: hazard_nav.yaml\n" + line)
    nodes = {node.keywords["executable"]: node for node in start(load("train.launch.py"), config=str(session))}
    assert parameters_of(nodes["twin_node"])["simulator"] == expected


def test_train_gives_the_twin_the_sessions_randomisation(
    tmp_path: Path, load: Callable[[str], types.ModuleType]
) -> None:
    session = tmp_path / "session.yaml"
    text = "name: x\nrobot: rover.yaml\ntask: hazard_nav.yaml\n"
    for line, expected in (("", ""), ("randomisation: rover\n", "rover")):
        session.write_text(text + line)
        nodes = {node.keywords["executable"]: node for node in start(load("train.launch.py"), config=str(session))}
        assert parameters_of(nodes["twin_node"])["randomisation"] == expected
    session.write_text(text + "randomisation: {lag_s: 0.1}\n")
    with pytest.raises(ValueError, match=r"randomisation = \{'lag_s': 0\.1\}, expected a file name"):
        start(load("train.launch.py"), config=str(session))


def test_filter_takes_the_policys_topic_and_gives_the_robots(load: Callable[[str], types.ModuleType]) -> None:
    (node,) = start(load("filter.launch.py"), policy_topic="cmd_vel_policy", command_topic="base/cmd_vel")
    topics = dict(node.keywords["remappings"])
    assert topics == {
        "~/proposed": "cmd_vel_policy",
        "~/candidates": "safety_filter/candidates",
        "cmd_vel": "base/cmd_vel",
        "goal_pose": "goal_pose",
    }
    sources = (NODE_SOURCES / "filter_topics.py").read_text() + (ROOT / "config/robots/rover.yaml").read_text()
    for topic in topics:
        assert re.search(rf'["\s]{re.escape(topic)}["\s]', sources), f"the filter has no topic {topic}"


def test_filter_remaps_the_command_topic_of_the_robot_spec(load: Callable[[str], types.ModuleType]) -> None:
    arm = {"robot_spec": "arm.yaml", "task": "joint_hold.yaml"}
    own = "arm_position_controller/commands"
    for changed, target in (({}, own), ({"command_topic": "left/commands"}, "left/commands")):
        (node,) = start(load("filter.launch.py"), **arm, **changed)
        assert dict(node.keywords["remappings"])[own] == target
    (rover,) = start(load("filter.launch.py"))
    assert dict(rover.keywords["remappings"])["cmd_vel"] == "cmd_vel"


def test_filter_takes_robot_task_and_topics_from_a_contract(
    tmp_path: Path, load: Callable[[str], types.ModuleType]
) -> None:
    contract = tmp_path / "mine.yaml"
    contract.write_text(
        "robot: rover\ntask: hazard_nav\nmargin: [{source: scan}]\n"
        "topics: {odom: base/odom, goal: plan/goal, command: base/cmd_vel}\n"
    )
    (node,) = start(load("filter.launch.py"), contract=str(contract))
    topics = dict(node.keywords["remappings"])
    assert topics == {
        "~/proposed": "safety_filter/proposed",
        "~/candidates": "safety_filter/candidates",
        "odom": "base/odom",
        "goal_pose": "plan/goal",
        "cmd_vel": "base/cmd_vel",
    }
    values = parameters_of(node)
    assert values["robot"].endswith("config/robots/rover.yaml")
    assert values["task"].endswith("config/tasks/hazard_nav.yaml")
    contract.write_text(contract.read_text() + "namespace: rover1\n")
    (node,) = start(load("filter.launch.py"), contract=str(contract), command_topic="other")
    topics = dict(node.keywords["remappings"])
    assert (topics["odom"], topics["scan"], topics["cmd_vel"]) == ("/rover1/base/odom", "/rover1/scan", "other")


def test_filter_brings_the_bundles_own_policy_on_the_same_contract(
    tmp_path: Path, load: Callable[[str], types.ModuleType]
) -> None:
    contract = tmp_path / "mine.yaml"
    contract.write_text(
        "robot: rover\ntask: hazard_nav\nmargin: [{source: scan}]\ntopics: {odom: base/odom, command: base/cmd_vel}\n"
    )
    module = load("filter.launch.py")
    changed = {"bundle": "robot/bundle", "contract": str(contract), "policy_topic": "mine"}
    safety_filter, policy = start(module, policy="own", candidates="topic", **changed)
    assert (safety_filter.keywords["executable"], policy.keywords["executable"]) == (
        "safety_filter_node",
        "policy_node",
    )
    values, others = parameters_of(policy), parameters_of(safety_filter)
    assert [values[key] == others[key] for key in ("robot", "task", "timing", "bundle")] == [True] * 4
    assert values["list_size"] > 1
    topics, filters = dict(policy.keywords["remappings"]), dict(safety_filter.keywords["remappings"])
    assert topics["safety_filter/proposed"] == filters["~/proposed"] == "mine"
    assert topics["safety_filter/candidates"] == filters["~/candidates"]
    assert topics["odom"] == filters["odom"] == "base/odom"
    source = (NODE_SOURCES / "policy_node.py").read_text()
    assert all(f'"{name}"' in source for name in topics if name.startswith("safety_filter/"))
    _, other = start(module, policy="elsewhere", **changed)
    assert (parameters_of(other)["bundle"], parameters_of(other)["list_size"]) == ("elsewhere", 0)


def test_filters_arguments_reach_the_node(load: Callable[[str], types.ModuleType]) -> None:
    (node,) = start(load("filter.launch.py"), mode="shadow", candidates="topic", require_calibrated="true", record="x")
    values = parameters_of(node)
    assert (values["mode"], values["candidates"], values["recorder_directory"]) == ("shadow", "topic", "x")
    assert (values["require_calibrated"], values["require_heartbeat"]) == (True, False)


@pytest.mark.ros
@pytest.mark.parametrize(
    "argument", ["mode", "critic", "candidates", "fallback_mode", "other_publishers", "proposal_type"]
)
def test_filters_arguments_offer_what_the_parameter_takes(
    argument: str, load: Callable[[str], types.ModuleType]
) -> None:
    from safe_rl_ros.ros import filter_parameters as tables

    known = {
        item.name: item.choices
        for item in (*tables.NODE_PARAMETERS, *tables.FILTER_PARAMETERS, *tables.OPERATION_PARAMETERS)
    }
    assert tuple(arguments_of(load("filter.launch.py"))[argument]["choices"]) == known[argument]
