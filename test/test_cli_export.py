"""The export command: what it writes, what it shows, what it refuses."""

from __future__ import annotations

import itertools
import re

import numpy as np
import pytest
from typer.testing import CliRunner

from safe_rl_ros.bundle import load_as_is, save_bundle
from safe_rl_ros.cli import main
from safe_rl_ros.cli.app import app
from safe_rl_ros.inference import GaussianPolicy, SafetyCritic

OBS, ACT = 3, 2


def write_bundle(directory, threshold=0.25, seed=0, names=("goal", "speed", "closeness")):
    rng = np.random.default_rng(seed)

    def layers(sizes, lead=()):
        pairs = list(enumerate(itertools.pairwise(sizes)))
        weights = {f"weight_{i}": rng.normal(size=(*lead, a, b)) for i, (a, b) in pairs}
        return weights | {f"bias_{i}": rng.normal(size=(*lead, b)) for i, (_, b) in pairs}

    sizes = {"obs_dim": OBS, "act_dim": ACT, "hidden": [8]}
    policy = GaussianPolicy(
        layers([OBS, 8, ACT]) | {"log_std": np.zeros(ACT)},
        {"kind": "gaussian_policy", "state_dependent_std": False, **sizes},
    )
    critic = SafetyCritic(
        layers([OBS + ACT, 8, 1], (3,)),
        {"kind": "safety_critic", "members": 3, "aggregate": "max", "std_factor": 0.0, **sizes},
    )
    return save_bundle(
        directory,
        policy,
        critic,
        threshold=threshold,
        threshold_mode="fixed",
        spec_hash="0" * 64,
        obs_names=names,
        algorithm="csc",
    )


def export(*arguments):
    return CliRunner().invoke(app, ["export", *map(str, arguments)], terminal_width=120)


def test_export_of_a_run_shows_what_it_wrote(tmp_path):
    write_bundle(tmp_path / "run" / "bundle")
    result = export(tmp_path / "run", "-o", tmp_path / "robot")
    assert result.exit_code == 0, result.output
    bundle = load_as_is(tmp_path / "robot")
    assert bundle.manifest.kind == "onnx"
    assert bundle.hash in result.output
    for text in ("policy.onnx", "critic.onnx", "3 members 5 -> 8 (tanh), max", "0.25 (fixed)", "none: uncalibrated"):
        assert text in result.output
    difference = re.search(r"answers *│ *([0-9.e-]+)", result.output)
    assert difference is not None
    assert float(difference.group(1)) < 1e-6


def test_calibrated_bundle_of_a_run_goes_first_and_the_form_can_be_chosen(tmp_path):
    write_bundle(tmp_path / "run" / "bundle")
    write_bundle(tmp_path / "run" / "bundle_calibrated", threshold=0.5)
    assert export(tmp_path / "run", "-o", tmp_path / "robot", "--form", "safetensors").exit_code == 0
    assert load_as_is(tmp_path / "robot").threshold == 0.5
    assert load_as_is(tmp_path / "robot").manifest.kind == "safetensors"
    assert export(tmp_path / "run" / "bundle", "-o", tmp_path / "robot", "--overwrite").exit_code == 0
    assert load_as_is(tmp_path / "robot").threshold == 0.25


def test_critic_of_another_run_takes_the_place_of_its_own_and_brings_its_threshold(tmp_path):
    write_bundle(tmp_path / "run" / "bundle", threshold=0.25)
    write_bundle(tmp_path / "judge" / "bundle", threshold=0.75, seed=1)
    result = export(tmp_path / "run", "-o", tmp_path / "robot", "--critic", tmp_path / "judge")
    assert result.exit_code == 0, result.output
    parts = [load_as_is(tmp_path / name).component_hashes() for name in ("run/bundle", "judge/bundle", "robot")]
    assert parts[2].policy == parts[0].policy != parts[1].policy
    assert parts[2].critic == parts[1].critic != parts[0].critic
    made = load_as_is(tmp_path / "robot")
    assert (made.threshold, made.manifest.threshold_mode) == (0.75, "fixed")
    assert made.manifest.extra["critic_bundle"] == load_as_is(tmp_path / "judge" / "bundle").hash
    write_bundle(tmp_path / "other", names=("a", "b", "c"))
    refused = export(tmp_path / "run", "-o", tmp_path / "new", "--critic", tmp_path / "other")
    assert refused.exit_code == 1
    assert "its critic is for another robot spec or other observations" in str(refused.exception)
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run", "-o", "robot"], "robot exists already"),
        (["robot", "-o", "robot", "--overwrite"], "is the source itself"),
        (["run", "-o", "letters", "--overwrite"], "is no bundle, refusing to replace it"),
        (["nothing", "-o", "new"], "holds neither manifest.json"),
    ],
    ids=str,
)
def test_refusals_are_one_line(tmp_path, monkeypatch, capsys, arguments, message):
    monkeypatch.chdir(tmp_path)
    write_bundle(tmp_path / "run" / "bundle")
    write_bundle(tmp_path / "robot")
    (tmp_path / "letters").mkdir()
    monkeypatch.setattr("sys.argv", ["safe-rl-ros", "export", *arguments])
    with pytest.raises(SystemExit) as exit_info:
        main()
    assert exit_info.value.code == 1
    output = capsys.readouterr().out
    assert message in output
    assert "Traceback" not in output
    assert (tmp_path / "letters").is_dir()
