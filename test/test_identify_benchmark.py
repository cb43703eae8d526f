"""The benchmark of the identification: its figures by hand, what is measured again and what is not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from benchmarks import identify
from safe_rl_ros.envs.robot_spec import load_robot_spec
from safe_rl_ros.envs.twin_parameters import TwinParameters


def row(delay: tuple[float, float, float] | None, gain: float) -> dict:
    nothing = (None, None, None)
    true = {name: 1.0 for name in (*identify.FITTED, *identify.TRIED)} | {"delay_s": 0.1, "gain_linear": 0.8}
    found = dict.fromkeys(true, nothing) | {"delay_s": delay or nothing, "gain_linear": (gain, gain - 0.1, gain + 0.1)}
    return {"true": true, "found": found, "before": [1.0, 2.0], "after": [0.1, 0.3], "wall_s": 2.0}


def test_errors_in_seconds_and_relative_ones() -> None:
    rows = [row((0.11, 0.09, 0.13), 0.84), row((0.07, 0.06, 0.08), 1.0), row(None, 0.8)]
    figures = identify.summarise(rows)
    assert figures["drives"] == 3
    delay = {"told": 2, "error_mean": 0.02, "error_most": 0.03, "half_width_mean": 0.015, "held_by_interval": 1}
    assert figures["delay_s"] == pytest.approx(delay)
    gain = {"told": 3, "error_mean": 0.1, "error_most": 0.25, "half_width_mean": 0.1, "held_by_interval": 2}
    assert figures["gain_linear"] == pytest.approx(gain)
    assert figures["mass_scale"] == {"told": 0}
    assert figures["error_after"] == pytest.approx([0.1, 0.3])


def test_the_true_delay_counts_whole_substeps() -> None:
    parameters = TwinParameters(actuation_delay_s=0.083, observation_delay_s=0.026, lag_s=0.05, mass_scale=1.2)
    true = identify.true_values(parameters, 0.01)
    assert true["delay_s"] == pytest.approx(0.11)
    assert (true["lag_s"], true["mass_scale"], true["friction_scale"]) == (0.05, 1.2, 1.0)
    assert set(true) == {*identify.FITTED, *identify.TRIED}


def test_a_drive_is_kept_with_what_it_depends_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, int, float]] = []

    def measure(robot: str, seed: int, seconds: float) -> dict[str, Any]:
        asked.append((robot, seed, seconds))
        return {**row((0.1, 0.09, 0.11), 0.8), "robot": robot, "seed": seed, "wall_s": float(len(asked))}

    monkeypatch.setattr(identify, "measure", measure)

    def run(*arguments: str) -> list[tuple[str, int, float]]:
        """Run the benchmark; return what was measured anew."""
        asked.clear()
        identify.main(["--drives", "2", "--seconds", "12", "--runs", str(tmp_path), *arguments])
        return list(asked)

    every = [("rover", 0, 12.0), ("jackal", 0, 12.0), ("rover", 1, 12.0), ("jackal", 1, 12.0)]
    assert run() == every
    assert run() == []
    assert run("--drives", "3") == [("rover", 2, 12.0), ("jackal", 2, 12.0)]
    # The names of the files are the same for all of these.
    monkeypatch.setattr(identify, "HOLD_S", 0.7)
    assert run() == every
    monkeypatch.setattr(identify, "TWINS", identify.TWINS.model_copy(update={"lag_s": 0.05}))
    assert run() == every
    rover = load_robot_spec("rover")
    slower = rover.model_copy(update={"control_rate_hz": 5.0})
    monkeypatch.setattr(identify, "load_robot_spec", lambda name: slower if name == "rover" else load_robot_spec(name))
    assert run() == [drive for drive in every if drive[0] == "rover"]
    assert run() == []
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(
        f"{robot}_{seed}_12.json" for robot in ("rover", "jackal") for seed in range(3)
    )


def test_without_a_folder_every_drive_is_measured(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    asked: list[str] = []

    def measure(robot: str, seed: int, seconds: float) -> dict[str, Any]:
        asked.append(robot)
        return {**row((0.1, 0.09, 0.11), 0.8), "robot": robot, "seed": seed}

    monkeypatch.setattr(identify, "measure", measure)
    monkeypatch.chdir(tmp_path)
    for _ in range(2):
        identify.main(["--drives", "1", "--seconds", "12"])
    assert asked == ["rover", "jackal"] * 2
    assert list(tmp_path.iterdir()) == []
