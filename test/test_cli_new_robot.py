"""The command new-robot: what it writes, what it says, and its refusals, one line each."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner

import safe_rl_ros.cli
from safe_rl_ros.envs.robot_spec import load_robot_spec
from safe_rl_ros.resources import find_resource
from safe_rl_ros.types import ConfigError


def run(*arguments: str) -> str:
    """Run new-robot in this process and return what it printed; its errors are raised."""
    result = CliRunner().invoke(safe_rl_ros.cli.app, ["new-robot", *arguments])
    if result.exception is not None:
        raise result.exception
    return result.output


def test_it_writes_a_draft_beside_the_urdf_and_says_what_is_missing(tmp_path: Path) -> None:
    (tmp_path / "urdf").mkdir()
    shutil.copy(find_resource("arm.urdf", "urdf"), tmp_path / "urdf" / "mine.urdf")
    output = tmp_path / "my_robot.yaml"
    text = run(str(tmp_path / "urdf" / "mine.urdf"), "-o", str(output))
    assert "arm with 3 joints, in the URDF's order: shoulder_pan_joint, shoulder_lift_joint, elbow_joint" in text
    assert "to be filled in (FILL_IN): control_rate_hz, command.topic" in text
    assert "urdf: urdf/mine.urdf" in output.read_text()
    with pytest.raises(ConfigError, match="5 values are still FILL_IN"):
        load_robot_spec(output)
    answers = iter(("50.0", "arm/commands", "0.1", "joint_states", "0.06"))
    lines = [line for line in output.read_text().splitlines() if not line.startswith("#")]
    text = "\n".join(lines)
    while "FILL_IN" in text:
        text = text.replace("FILL_IN", next(answers), 1)
    output.write_text(text)
    assert load_robot_spec(output).urdf == str(tmp_path / "urdf" / "mine.urdf")


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    output = tmp_path / "arm.yaml"
    output.write_text("mine")
    with pytest.raises(ConfigError, match=r"arm\.yaml exists already"):
        run("arm.urdf", "-o", str(output))
    assert output.read_text() == "mine"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("none.urdf", "-o", "r.yaml"), r"file 'none\.urdf' does not exist"),
        (("nobodys_robots:r.urdf", "-o", "r.yaml"), "the Python package 'nobodys_robots' is not installed"),
        (("arm.urdf", "-o", "r.txt"), r"--output is r\.txt, expected a \.yaml file"),
        (("rover.yaml", "-o", "r.yaml"), r"file 'rover\.yaml' does not exist"),
        (("arm.urdf", "-o", "r.yaml", "--kind", "base", "--interface", "joint_group"), "does not fit a robot of the k"),
    ],
)
def test_a_mistake_is_one_error_and_nothing_is_written(
    arguments: tuple[str, ...], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=message):
        run(*arguments)
    assert list(tmp_path.iterdir()) == []


def test_a_bad_urdf_is_one_error_that_names_it(tmp_path: Path) -> None:
    (tmp_path / "bad.urdf").write_text("<robot name='r'><link name='a'/><link name='b'/></robot>")
    with pytest.raises(ConfigError, match=r"URDF .*bad\.urdf: the links without a parent are \['a', 'b'\]"):
        run(str(tmp_path / "bad.urdf"), "-o", str(tmp_path / "r.yaml"))


def test_meshes_that_a_twin_would_not_find_are_named(tmp_path: Path) -> None:
    shape = "<visual><geometry><mesh filename='package://{}.stl'/></geometry></visual>"
    links = f"<link name='a'>{shape.format('there')}</link><link name='b'>{shape.format('gone')}</link>"
    joint = "<joint name='j' type='continuous'><parent link='a'/><child link='b'/><limit velocity='1'/></joint>"
    (tmp_path / "r.urdf").write_text(f"<robot name='r'>{links}{joint}</robot>")
    (tmp_path / "there.stl").write_text("solid")
    text = " ".join(run(str(tmp_path / "r.urdf"), "-o", str(tmp_path / "r.yaml")).split())
    assert ": gone.stl; only a twin needs them" in text
    assert "there.stl" not in text
