"""The launch files: what they start, with stand-ins for `launch` that always work, and for real where launch_ros is."""

from __future__ import annotations

import ast
import importlib.util
import os
import re
import signal
import subprocess
import sys
import time
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rosbags.highlevel import AnyReader

ROOT = Path(__file__).resolve().parent.parent
LAUNCH_FILES = sorted((ROOT / "launch").glob("*.launch.py"))
NODE_SOURCES = ROOT / "safe_rl_ros" / "ros"
BUILT_IN_PARAMETERS = {"use_sim_time"}
COMMON_ARGUMENTS = {"use_sim_time", "namespace", "params_file", "log_level"}
HAS_LAUNCH = importlib.util.find_spec("launch_ros") is not None


class Recorded:
    """Stand-in for a class of `launch`: remembers what it was made of."""

    def __init__(self, *positional: Any, **keywords: Any) -> None:
        self.positional, self.keywords = positional, keywords
        self.name = positional[0] if positional else keywords.get("name")


class StandInConfiguration(Recorded):
    """Stand-in for LaunchConfiguration; the context is a plain dict."""

    def perform(self, context: dict[str, str]) -> str:
        return context[self.name]


@pytest.fixture
def load(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], types.ModuleType]:
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
    from safe_rl_ros.ros import filter_parameters, learner_node, policy_node, recorder_node, twin_node

    tables = {
        "twin_node": twin_node.PARAMETERS,
        "safety_filter_node": (
            *filter_parameters.NODE_PARAMETERS,
            *filter_parameters.FILTER_PARAMETERS,
            *filter_parameters.OPERATION_PARAMETERS,
        ),
        "learner_node": learner_node.PARAMETERS,
        "recorder_node": recorder_node.PARAMETERS,
        "policy_node": policy_node.PARAMETERS,
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


LAUNCH_SCRIPT = """
import sys
from launch import LaunchDescription, LaunchService
from launch.actions import IncludeLaunchDescription
from launch.launch_description_sources import PythonLaunchDescriptionSource
pairs = [item.split(":=") for item in sys.argv[2:]]
service = LaunchService()
service.include_launch_description(
    LaunchDescription([IncludeLaunchDescription(PythonLaunchDescriptionSource(sys.argv[1]), launch_arguments=pairs)])
)
sys.exit(service.run())
"""


needs_launch = pytest.mark.skipif(
    not HAS_LAUNCH, reason="launch_ros is not installed: it comes with a ROS 2 installation, not from wheels"
)


def run_launch(prefix: Path, log: Path, name: str, *arguments: str) -> subprocess.Popen[bytes]:
    """Start a launch file of the prefix with the real `launch`, its output going to ``log``."""
    prefixes = [str(prefix), os.environ["AMENT_PREFIX_PATH"]]
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    variables = {**os.environ, "AMENT_PREFIX_PATH": os.pathsep.join(prefixes), "PATH": path}
    command = [sys.executable, "-c", LAUNCH_SCRIPT, str(prefix / "share" / "safe_rl_ros" / "launch" / name), *arguments]
    with log.open("w") as output:
        return subprocess.Popen(
            command, env=variables, stdout=output, stderr=subprocess.STDOUT, cwd=log.parent, start_new_session=True
        )


@pytest.mark.ros
@needs_launch
def test_train_launch_records_a_session_and_the_filters_drives_by_its_policy(
    installed_prefix: Path, tmp_path: Path
) -> None:
    """For real: four processes in a namespace on simulated time, a bag; the learner's end ends the launch."""
    session = tmp_path / "tiny.yaml"
    session.write_text(
        "name: tiny\nseed: 1\nrobot: rover.yaml\ntask: hazard_nav.yaml\nalgorithm: {name: csc}\n"
        "training: {total_steps: 60, steps_per_epoch: 60}\n"
    )
    log = tmp_path / "launch.log"
    recorded = ["record:=true", "contract:=rover_twin.yaml", f"bags:={tmp_path / 'bags'}"]
    process = run_launch(installed_prefix, log, "train.launch.py", f"config:={session}", "namespace:=rover1", *recorded)
    try:
        assert process.wait(timeout=90) == 0, log.read_text()
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(timeout=30)
    assert log.read_text().count("process has finished cleanly") == 4
    assert '"finished": true' in (tmp_path / "runs" / "tiny" / "summary.json").read_text()
    bags = list((tmp_path / "bags").rglob("metadata.yaml"))
    assert len(bags) == 1
    with AnyReader([bags[0].parent]) as reader:
        counts = {connection.topic: connection.msgcount for connection in reader.connections}
    assert counts["/cmd_vel"] >= 60
    assert counts["/odom"] >= 60
    drives_by_its_own_policy(installed_prefix, tmp_path, tmp_path / "runs" / "tiny" / "bundle")


def drives_by_its_own_policy(prefix: Path, tmp_path: Path, bundle: Path) -> None:
    """For real: the launch file's policy node proposes, and the filter passes something on to a twin in real time."""
    import rclpy
    from geometry_msgs.msg import PoseStamped, TwistStamped
    from rclpy.signals import SignalHandlerOptions

    from safe_rl_ros.ros.supervisor import Supervisor, ros_arguments

    log = tmp_path / "own.log"
    parameters = {"robot": "rover", "task": "hazard_nav", "timing": "realtime"}
    with Supervisor(int(os.environ["ROS_DOMAIN_ID"]), tmp_path / "nodes") as nodes:
        nodes.start("twin", "safe_rl_ros.ros.twin_node", ros_arguments(parameters, namespace="rover2"))
        arguments = [f"bundle:={bundle}", "policy:=own", "critic:=off", "contract:=rover_twin.yaml"]
        process = run_launch(prefix, log, "filter.launch.py", "namespace:=rover2", *arguments)
        rclpy.init(signal_handler_options=SignalHandlerOptions.NO)
        try:
            node = rclpy.create_node("own_policy_test")
            goals = node.create_publisher(PoseStamped, "/rover2/goal_pose", 1)
            commands: list[float] = []
            node.create_subscription(
                TwistStamped,
                "/rover2/cmd_vel",
                lambda m: commands.append(abs(m.twist.linear.x) + abs(m.twist.angular.z)),
                10,
            )
            goal = PoseStamped()
            goal.header.frame_id, goal.pose.position.x, goal.pose.orientation.w = "odom", 1.0, 1.0
            deadline = time.monotonic() + 40.0
            while sum(speed > 0.0 for speed in commands) < 10 and time.monotonic() < deadline:
                goal.header.stamp = node.get_clock().now().to_msg()
                goals.publish(goal)
                rclpy.spin_once(node, timeout_sec=0.1)
            assert sum(speed > 0.0 for speed in commands) >= 10, log.read_text()
        finally:
            rclpy.try_shutdown()
            process.send_signal(signal.SIGINT)
            status = process.wait(timeout=30)
    assert status == 0, log.read_text()
    assert log.read_text().count("process has finished cleanly") == 2


@pytest.mark.ros
@needs_launch
def test_filter_launch_runs_and_ends_on_sigint(installed_prefix: Path, tmp_path: Path) -> None:
    """For real: the node comes up under its name with the arguments' parameters, and Ctrl-C ends everything."""
    import rclpy
    from rcl_interfaces.srv import GetParameters
    from rclpy.signals import SignalHandlerOptions

    log = tmp_path / "launch.log"
    process = run_launch(installed_prefix, log, "filter.launch.py", "namespace:=rover1", "critic:=off")
    rclpy.init(signal_handler_options=SignalHandlerOptions.NO)
    try:
        node = rclpy.create_node("launch_test")
        client = node.create_client(GetParameters, "/rover1/safety_filter/get_parameters")
        assert client.wait_for_service(timeout_sec=30.0), log.read_text()
        future = client.call_async(GetParameters.Request(names=["critic", "robot", "autostart"]))
        deadline = time.monotonic() + 10.0
        while not future.done() and time.monotonic() < deadline:
            rclpy.spin_once(node, timeout_sec=0.1)
        critic, robot, autostart = future.result().values
        assert (critic.string_value, robot.string_value, autostart.bool_value) == ("off", "rover.yaml", True)
    finally:
        rclpy.try_shutdown()
        process.send_signal(signal.SIGINT)
        status = process.wait(timeout=30)
    assert status == 0, log.read_text()
    assert "process has finished cleanly" in log.read_text()
