"""Identification finds the parameters of a twin whose bag it is given, says what it cannot find, and writes a file
that a twin takes."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from drive_helpers import CONTRACT, record_drive
from spec_files import write_spec
from typer.testing import CliRunner

from safe_rl_ros.bags.bag_topics import load_contract
from safe_rl_ros.bags.base_model import TwinResponse
from safe_rl_ros.bags.drive_log import greatest, read_drives
from safe_rl_ros.bags.identification import Estimate, Identification, Identifier
from safe_rl_ros.bags.message_types import BagError
from safe_rl_ros.cli.app import app
from safe_rl_ros.envs.randomisation import load_randomisation
from safe_rl_ros.envs.robot_env import make_robot_env
from safe_rl_ros.envs.robot_spec import load_robot_spec
from safe_rl_ros.envs.twin_parameters import TwinParameters
from safe_rl_ros.types import ConfigError

KNOWN = TwinParameters(
    gain_linear=0.93,
    gain_angular=1.06,
    actuation_delay_s=0.08,
    observation_delay_s=0.05,
    lag_s=0.06,
    linear_velocity_std=0.01,
    angular_velocity_std=0.02,
)
TRUE = {"delay_s": 0.13, "gain_linear": 0.93, "gain_angular": 1.06, "lag_s": 0.06}
WITHIN = {"delay_s": 0.005, "gain_linear": 0.005, "gain_angular": 0.008, "lag_s": 0.006}
"""What docs/sim_to_real.md states for such bags."""
QUIET = KNOWN.model_copy(update={"linear_velocity_std": 0.001, "angular_velocity_std": 0.002})
SOFT = {"wheel_servo_nms: 10.0": "wheel_servo_nms: 1.0"}
"""Wheels that give way to the body: its mass shows."""


@pytest.fixture(scope="module")
def contract_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("contract") / "mine.yaml"
    path.write_text(CONTRACT + "clock: stamp\n")
    return path


@pytest.fixture(scope="module")
def fitted(tmp_path_factory: pytest.TempPathFactory, contract_file: Path) -> tuple[Path, str]:
    """Run the command on a bag of a known twin; return the file it wrote and what it printed."""
    directory = tmp_path_factory.mktemp("identify")
    bag = record_drive(directory / "bag", KNOWN, seconds=24.0)
    output = directory / "out" / "fitted.yaml"
    result = CliRunner().invoke(app, ["identify", str(bag), "-c", str(contract_file), "-o", str(output)])
    assert result.exit_code == 0, f"{result.output}\n{result.exception}"
    return output, result.output


def identify(bag: Path, contract_file: Path) -> Identification:
    contract = load_contract(contract_file)
    drives, _ = read_drives([bag], contract)
    response = TwinResponse(contract.spec, drives)
    try:
        return Identifier(response, drives, greatest(contract.spec)).run()
    finally:
        response.close()


def base_scaled(scale: float) -> dict[str, str]:
    """Return what makes the base of the rover's URDF, and what is fixed to it, so many times as heavy."""
    masses = {f'<mass value="{kg}"/>': f'<mass value="{kg * scale:.6f}"/>' for kg in (12.0, 0.1, 0.2)}
    inertia = ("0.1157", "0.1960", "0.2725")
    return masses | {f'"{value}"': f'"{float(value) * scale:.6f}"' for value in inertia}


def floor(friction: float) -> dict[str, str]:
    return {"wheel_friction: 1.2": f"wheel_friction: {friction:g}"}


def identify_as(spec: dict[str, str], bag: Path, directory: Path) -> dict[str, Estimate]:
    """Return what is found in a bag by a contract with the rover whose spec has some text replaced."""
    robot, contract = write_spec(directory / "told", "rover", spec=spec), directory / "contract.yaml"
    contract.write_text(CONTRACT.replace("robot: rover", f"robot: {robot}") + "clock: stamp\n")
    return identify(bag, contract).estimates


def test_known_parameters_are_recovered_within_the_stated_error(fitted: tuple[Path, str]):
    report = json.loads(fitted[0].with_suffix(".json").read_text())
    for name, true in TRUE.items():
        told = report["parameters"][name]
        assert told["value"] == pytest.approx(true, abs=WITHIN[name]), name
        assert told["ci95"][0] <= true <= told["ci95"][1], name
    # With the right parameters nothing but the noise is left over, also where nothing was fitted.
    assert report["error_before"]["linear"] > 0.1
    assert report["error_after"]["linear"] < 0.014
    assert report["error_before"]["angular"] > 0.3
    assert report["error_after"]["angular"] < 0.035
    assert report["fitted_s"] + report["held_out_s"] == pytest.approx(24.0)
    assert max(report["unexplained"].values()) < 0.03
    assert report["poor_fit"] is None
    assert 0.15 < report["held_out_s"] / 24.0 < 0.3


@pytest.mark.parametrize("mass", [0.7, 1.5])
def test_a_base_lighter_or_heavier_than_the_urdfs_is_found_where_wheels_give_way(mass: float, tmp_path: Path):
    true = load_robot_spec(write_spec(tmp_path / "true", "rover", spec=SOFT, urdf=base_scaled(mass)))
    found = identify_as(SOFT, record_drive(tmp_path / "bag", QUIET, spec=true, seconds=24.0), tmp_path)
    told = found["mass_scale"]
    assert told.value == pytest.approx(mass, rel=0.1)
    assert told.low <= mass <= told.high
    assert not told.low <= 1.0 <= told.high
    assert found["friction_scale"].value is None
    assert found["lag_s"].value == pytest.approx(0.06, abs=WITHIN["lag_s"])  # a mass looks like some lag


@pytest.mark.parametrize(("friction", "scale"), [(0.45, 0.7), (0.5, 0.6)], ids=["0.7", "0.6"])
def test_a_floor_more_slippery_than_the_specs_is_found_where_wheels_slip(friction: float, scale: float, tmp_path: Path):
    true = load_robot_spec(write_spec(tmp_path / "true", "rover", spec=floor(scale * friction)))
    bag = record_drive(tmp_path / "bag", QUIET, spec=true, seconds=32.0, scale=(1.0, 0.0), full=True)
    found = identify_as(floor(friction), bag, tmp_path)
    told = found["friction_scale"]
    assert told.value == pytest.approx(scale, rel=0.1)
    assert told.low <= scale <= told.high < 1.0
    assert found["mass_scale"].value is None


def test_the_rover_hides_mass_and_friction_which_is_said_and_spoils_nothing_else(contract_file: Path, tmp_path: Path):
    parameters = KNOWN.model_copy(update={"mass_scale": 1.5, "friction_scale": 0.7})
    found = identify(record_drive(tmp_path / "bag", parameters, seconds=24.0), contract_file).estimates
    for name in ("mass_scale", "friction_scale"):
        assert (found[name].value, found[name].low, found[name].high) == (None, None, None)
        assert "does not depend on it" in found[name].why_not
    for name, true in TRUE.items():
        assert found[name].value == pytest.approx(true, abs=WITHIN[name]), name


def test_a_fit_that_leaves_much_of_the_motion_says_so_and_tells_no_mass_and_no_friction(tmp_path: Path):
    # Wheels that slip all the time: the least difference is another motion, so that anything may look like a mass.
    true = load_robot_spec(write_spec(tmp_path / "true", "rover", spec=floor(0.42)))
    bag = record_drive(tmp_path / "bag", QUIET, spec=true, seconds=24.0, full=True)
    robot, contract = write_spec(tmp_path / "told", "rover", spec=floor(0.3)), tmp_path / "contract.yaml"
    contract.write_text(CONTRACT.replace("robot: rover", f"robot: {robot}") + "clock: stamp\n")
    arguments = ["identify", str(bag), "--contract", str(contract), "--output", str(tmp_path / "fitted.yaml")]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    report = json.loads((tmp_path / "fitted.json").read_text())
    assert report["unexplained"]["angular"] > 0.3
    for told in (result.output, report["poor_fit"], (tmp_path / "fitted.yaml").read_text()):
        assert "leaves more than 15% of the motion unexplained" in " ".join(told.split())
    assert {report["parameters"][name]["value"] for name in ("mass_scale", "friction_scale")} == {None}


def fit(unexplained: tuple[float, float]) -> Identification:
    return Identification({}, np.ones(2), np.ones(2), np.array(unexplained), np.ones(2), 1, 10.0, 3.0)


def test_a_fit_is_poor_by_either_axis_that_moved():
    assert [fit(parts).poor for parts in ((0.14, 0.15), (0.16, 0.0), (0.0, 0.16), (np.nan, 0.1))] == [
        False,
        True,
        True,
        False,
    ]


def test_what_the_bag_does_not_tell_is_said_and_left_out(fitted: tuple[Path, str]):
    output, printed = fitted
    report, text = json.loads(output.with_suffix(".json").read_text()), output.read_text()
    untold = [name for name, told in report["parameters"].items() if told["value"] is None]
    assert "friction_scale" in untold  # this rover's wheels do not slip
    for name in untold:
        assert f"# {name}: not identifiable from these bags" in text
        assert report["parameters"][name]["why_not"]
    assert "delay_s is the sum of actuation and observation delay" in printed
    assert "not identifiable" in printed


def test_what_is_written_randomises_a_twin_around_the_fit(fitted: tuple[Path, str]):
    given = load_randomisation(fitted[0])
    drawn = [given.draw(seed) for seed in range(50)]
    for name, true in (("actuation_delay_s", 0.13), ("gain_linear", 0.93), ("gain_angular", 1.06), ("lag_s", 0.06)):
        values = [getattr(parameters, name) for parameters in drawn]
        assert min(values) <= true <= max(values)
        assert len(set(values)) == 50
    assert drawn[0].linear_velocity_std == pytest.approx(0.01, rel=0.3)
    assert drawn[0].angular_velocity_std == pytest.approx(0.02, rel=0.4)
    assert drawn[0].friction_scale == 1.0
    info = make_robot_env(randomisation=fitted[0]).reset(seed=4)[1]
    assert info["twin_parameters"] == given.draw(4).model_dump()


def test_a_known_observation_delay_is_taken_from_the_sum(fitted: tuple[Path, str], contract_file: Path, tmp_path: Path):
    from safe_rl_ros.bags.identification_report import write_fitted

    report = json.loads(fitted[0].with_suffix(".json").read_text())
    estimates = {"delay_s": Estimate("delay_s", 0.13, 0.12, 0.14)}
    found = Identification(estimates, np.ones(2), np.ones(2), np.full(2, 0.1), np.full(2, 0.01), 1, 10.0, 3.0)
    write_fitted(tmp_path / "split.yaml", found, report, 0.05)
    given = load_randomisation(tmp_path / "split.yaml")
    assert given.observation_delay_s == 0.05
    assert given.actuation_delay_s.ends == pytest.approx((0.07, 0.09))
    with pytest.raises(ConfigError, match=r"observation delay is said to be 0\.2 s, but the whole delay is 0\.13 s"):
        write_fitted(tmp_path / "no.yaml", found, report, 0.2)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["split.yaml"]


def test_a_base_that_never_turned_tells_no_turning_gain(contract_file: Path, tmp_path: Path):
    bag = record_drive(tmp_path / "bag", KNOWN, seconds=16.0, scale=(1.0, 0.0))
    found = identify(bag, contract_file).estimates
    assert found["gain_angular"].value is None
    assert "does not depend on it" in found["gain_angular"].why_not
    assert found["gain_linear"].value == pytest.approx(0.93, abs=0.01)
    assert found["delay_s"].value + found["lag_s"].value == pytest.approx(0.19, abs=0.01)


def test_times_of_arrival_do_where_commands_are_heard_late(tmp_path: Path):
    contract = tmp_path / "log.yaml"
    contract.write_text(CONTRACT)
    bag = record_drive(tmp_path / "bag", KNOWN, seconds=16.0, late_ms=20.0)
    found = identify(bag, contract).estimates
    # A recorder that hears commands 10 ms late in the mean sees a delay that is so much shorter.
    assert found["delay_s"].value + found["lag_s"].value == pytest.approx(0.12 + 0.06, abs=0.012)
    assert found["gain_linear"].value == pytest.approx(0.93, abs=0.015)


def test_mistakes_are_one_error(contract_file: Path, tmp_path: Path):
    with pytest.raises(BagError, match="expected at least 10 s of driving"):
        identify(record_drive(tmp_path / "short", KNOWN, seconds=5.0), contract_file)
    bag = record_drive(tmp_path / "still", KNOWN, seconds=12.0, scale=(0.01, 0.01))
    with pytest.raises(BagError, match="no motion was commanded on /cmd_vel"):
        identify(bag, contract_file)
    there = tmp_path / "there.yaml"
    there.write_text("lag_s: 0.1\n")
    for arguments, message in (
        (["-o", str(there)], "exists already"),
        (["-o", str(tmp_path / "fitted.txt")], "expected a .yaml file"),
    ):
        result = CliRunner().invoke(app, ["identify", str(bag), "-c", str(contract_file), *arguments])
        assert isinstance(result.exception, ConfigError)
        assert message in str(result.exception)
    assert there.read_text() == "lag_s: 0.1\n"
