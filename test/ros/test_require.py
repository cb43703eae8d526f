"""Without ROS 2 there is one clear error; with wheels the prefix path gets its default. Needs no ROS 2."""

import os
import subprocess
import sys


def run(script: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={**os.environ, **environment},
    )


def test_import_without_rclpy_says_how_to_get_it():
    result = run("import sys; sys.modules['rclpy'] = None; import safe_rl_ros.ros.qos")
    assert result.returncode == 1
    last = result.stderr.strip().splitlines()[-1]
    assert last.startswith("ImportError: safe_rl_ros.ros needs rclpy")
    assert "/opt/ros/jazzy/setup.bash" in last
    assert 'pip install "safe_rl_ros[ros-jazzy]"' in last


def test_the_rest_imports_without_rclpy():
    result = run("import sys; sys.modules['rclpy'] = None; import safe_rl_ros.envs.robot_env; print('ok')")
    assert result.stdout == "ok\n", result.stderr


def test_prefix_path_default_is_set_before_rclpy_is_imported():
    script = (
        "import os, sys, types\n"
        "class Probe(types.ModuleType): pass\n"
        "sys.modules['rclpy'] = Probe('rclpy')\n"
        "from safe_rl_ros.ros.require import require_rclpy\n"
        "print(os.environ['AMENT_PREFIX_PATH'] == sys.prefix)\n"
    )
    assert run(script, AMENT_PREFIX_PATH="").stdout == "True\n"


def test_prefix_path_of_an_installation_is_kept():
    script = (
        "import os, sys, types\n"
        "sys.modules['rclpy'] = types.ModuleType('rclpy')\n"
        "import safe_rl_ros.ros\n"
        "print(os.environ['AMENT_PREFIX_PATH'])\n"
    )
    assert run(script, AMENT_PREFIX_PATH="/opt/ros/jazzy").stdout == "/opt/ros/jazzy\n"
