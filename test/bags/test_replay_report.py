"""The figures, table and picture of a replay, and the command that makes them."""

from __future__ import annotations

import csv
import itertools
import json
import re
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from bag_helpers import bags_in
from live_session import BOOT_NS, SECOND, LiveSession
from typer.testing import CliRunner

from safe_rl_ros.bags.replay import Replay, Tick, choose_setting
from safe_rl_ros.bags.replay_plot import plot_replay, thin
from safe_rl_ros.bags.replay_report import ReplayReport, Trace
from safe_rl_ros.bags.replay_source import ReplaySource
from safe_rl_ros.bundle import load_bundle, save_bundle
from safe_rl_ros.cli import app
from safe_rl_ros.envs.observers import make_observer
from safe_rl_ros.envs.robot_spec import load_robot_spec
from safe_rl_ros.inference import GaussianPolicy, SafetyCritic
from safe_rl_ros.safety.contracts import FilterConfig
from safe_rl_ros.types import FilterDecision, FilterState, Reason, SafeRlRosError

SPEC = load_robot_spec("rover")
NAMES = make_observer(SPEC, "hazard_nav").names
NAN = float("nan")


def decision(verdict, risk=NAN, threshold=0.5, executed=(0.1, 0.0), **changes):
    values = {
        "stamp_ns": 0,
        "proposed": np.array([0.25, -0.5]),
        "executed": np.array(executed),
        "reason": verdict,
        "risk_proposed": risk,
        "risk_executed": risk,
        "threshold": threshold,
        "samples": 0,
        "observation_age_s": 0.01,
        "proposal_age_s": 0.02,
        "latency_s": 0.0,
        "bundle_hash": "",
        "state": FilterState.NOMINAL,
        "verdict": verdict,
    }
    return FilterDecision(**{**values, **changes})


ROWS = [
    (Reason.STOP_NO_PROPOSAL, NAN),
    (Reason.ACCEPTED, 0.1),
    (Reason.RESAMPLED, 0.6),
    (Reason.LEAST_RISK, 0.8),
    (Reason.SHAPED, 0.2),
    (Reason.STOP_UNSAFE, 0.9),
]


def collect(directory, ticks):
    class Unused:
        path, proposals, start_ns, end_ns, exact, unreadable = "bag", "/p", 0, 6 * SECOND, True, {}
        restored = missed = 0
        filter = type("Filter", (), {"dropped": {"scan": 2}, "problems": []})

    setting = type("Setting", (), {"config": FilterConfig(), "origin": "given", "follow": False, "timing": "realtime"})
    with ReplayReport(directory, ("linear_x", "angular_z"), 0) as report:
        for tick in ticks:
            report.add(tick)
        summary = report.summary(Unused, Unused, setting, "ab")
        report.write(summary)
    return report, summary


def test_figures_by_hand(tmp_path):
    ticks = [Tick(i * SECOND, decision(verdict, risk), None) for i, (verdict, risk) in enumerate(ROWS)]
    _, summary = collect(tmp_path, ticks)
    assert (summary["decisions"], summary["passed"], summary["vetoed"], summary["stopped"]) == (6, 2, 3, 1)
    assert summary["longest_veto_streak"] == 2
    assert summary["judged"] == 5
    assert summary["risk"] == pytest.approx({"p50": 0.6, "p90": 0.86, "p99": 0.896, "p100": 0.9})
    assert summary["verdicts"] == {verdict.name: 1 for verdict, _ in ROWS}
    assert summary["left_out"]["unfit"] == {"scan": 2}
    assert summary["compared"]["decisions"] == 0
    assert json.loads((tmp_path / "summary.json").read_text()) == summary


def test_table_has_every_decision_in_full_precision(tmp_path):
    ticks = [Tick(i * SECOND // 10, decision(verdict, risk), None) for i, (verdict, risk) in enumerate(ROWS)]
    ticks[1] = replace(ticks[1], decision=decision(Reason.ACCEPTED, 1 / 3, executed=(2 / 3, -0.1)))
    collect(tmp_path, ticks)
    with (tmp_path / "decisions.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["verdict"] for row in rows] == [verdict.name for verdict, _ in ROWS]
    assert float(rows[1]["time_s"]) == 0.1
    assert float(rows[1]["risk_proposed"]) == 1 / 3
    assert float(rows[1]["executed.linear_x"]) == 2 / 3
    assert float(rows[1]["proposed.angular_z"]) == -0.5
    assert rows[0]["risk_proposed"] == "nan"
    assert rows[0]["recorded_verdict"] == rows[0]["differs"] == ""


def test_differences_to_the_recording_are_named(tmp_path):
    mine = decision(Reason.ACCEPTED, 0.4)
    recorded = [
        mine,
        replace(mine, latency_s=1.0, stamp_ns=5),  # not compared
        replace(mine, risk_proposed=0.4 + 1e-9),  # rounding
        replace(mine, executed=np.array([0.1, 0.1])),
        replace(mine, verdict=Reason.RESAMPLED, reason=Reason.RESAMPLED, samples=3),
        replace(mine, bundle_hash="0123456789ab"),
        replace(mine, risk_executed=NAN),
    ]
    _, summary = collect(tmp_path, [Tick(i, mine, other) for i, other in enumerate(recorded)])
    compared = summary["compared"]
    assert (compared["decisions"], compared["equal"], compared["different"]) == (7, 3, 4)
    fields = {"executed": 1, "reason": 1, "verdict": 1, "samples": 1, "bundle_hash": 1, "risk_executed": 1}
    assert compared["fields"] == fields
    assert compared["examples"][1]["recorded"] == "RESAMPLED"
    with (tmp_path / "decisions.csv").open() as file:
        assert [row["differs"] for row in csv.DictReader(file)][3:5] == ["executed", "reason verdict samples"]


def test_without_decisions_there_are_no_quantiles_and_no_picture(tmp_path):
    report, summary = collect(tmp_path, [])
    assert (summary["decisions"], summary["risk"]) == (0, {})
    with pytest.raises(ValueError, match="no decisions"):
        plot_replay(report.trace, tmp_path / "replay.png", "nothing")


def test_picture(tmp_path):
    trace = Trace(("linear_x", "angular_z"))
    for index in range(300):
        verdict, risk = ROWS[index // 10 % len(ROWS)]
        trace.add(0.1 * index, decision(verdict, risk))
    assert trace.proposed(1).tolist() == [-0.5] * 300
    assert trace.executed(0).tolist() == [0.1] * 300
    path = plot_replay(trace, tmp_path / "replay.png", "a replay")
    assert path.read_bytes().startswith(b"\x89PNG")
    assert path.stat().st_size > 10_000


def test_thinning_keeps_every_veto_while_there_are_few():
    vetoed = np.zeros(100_000, dtype=bool)
    vetoed[[17, 4321, 99_999]] = True
    rows = thin(vetoed, 1000)
    assert {17, 4321, 99_999} <= set(rows.tolist())
    assert len(rows) <= 1003
    assert len(thin(np.ones(100_000, dtype=bool), 1000)) <= 2000
    assert thin(np.zeros(5, dtype=bool), 1000).tolist() == [0, 1, 2, 3, 4]


def write_bundle(directory):
    """Write a bundle of random networks for the rover, with risks on both sides of its threshold."""
    rng = np.random.default_rng(0)
    sizes = {"obs_dim": len(NAMES), "act_dim": 2, "hidden": [8]}

    def layers(dims, lead):
        arrays = {}
        for i, (inputs, outputs) in enumerate(itertools.pairwise(dims)):
            arrays[f"weight_{i}"] = (
                rng.standard_normal((*lead, inputs, outputs)).astype(np.float32) * 3 / np.sqrt(inputs)
            )
            arrays[f"bias_{i}"] = np.zeros((*lead, outputs), dtype=np.float32)
        return {name: array.astype(np.float32) for name, array in arrays.items()}

    policy = layers([len(NAMES), 8, 2], ()) | {"log_std": np.full(2, -0.5, dtype=np.float32)}
    critic = layers([len(NAMES) + 2, 8, 1], (1,))
    return save_bundle(
        directory,
        GaussianPolicy.from_arrays(policy, {"kind": "gaussian_policy", "state_dependent_std": False, **sizes}),
        SafetyCritic.from_arrays(
            critic, {"kind": "safety_critic", "members": 1, "aggregate": "mean", "std_factor": 0.0, **sizes}
        ),
        threshold=0.5,
        threshold_mode="fixed",
        spec_hash=SPEC.hash,
        obs_names=NAMES,
        algorithm="test",
    )


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    """A bag of a live session behind a bundle, and the bundle."""
    directory = tmp_path_factory.mktemp("recorded")
    write_bundle(directory / "bundle")
    session = LiveSession(directory / "bags", 1, FilterConfig(max_samples=8), faults=0.02)
    session.begin(load_bundle(directory / "bundle", spec_hash=SPEC.hash, obs_names=NAMES))
    live = session.run(12.0)
    return bags_in(directory / "bags")[0], directory / "bundle", live


def command(*arguments):
    """Run ``safe-rl-ros replay`` in this process; return its output as one line, or raise its error."""
    result = CliRunner(env={"COLUMNS": "200"}).invoke(app, ["replay", *map(str, arguments)])
    if isinstance(result.exception, Exception):
        raise result.exception
    assert result.exit_code == 0, result.output
    return re.sub(r"\s+", " ", result.output)


def test_command_replays_a_recording_with_its_own_configuration(tmp_path, recorded):
    bag, bundle, live = recorded
    output = command(bag, "--bundle", bundle, "-o", tmp_path / "out")
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    compared = summary["compared"]
    assert compared["decisions"] == compared["equal"] == summary["decisions"] >= len(live) - 5
    assert f"equal to the recording {compared['equal']} of {compared['decisions']} (arrival times exact)" in output
    assert summary["configuration"]["origin"] == "recorded"
    assert summary["vetoed"] > 0
    assert (tmp_path / "out" / "replay.png").is_file()
    with (tmp_path / "out" / "decisions.csv").open() as file:
        assert len(list(csv.reader(file))) == summary["decisions"] + 1


def test_command_with_another_threshold_and_filter_file(tmp_path, recorded):
    bag, bundle, _ = recorded
    (tmp_path / "mine.yaml").write_text("max_samples: 4\n")
    out = tmp_path / "out"
    output = command(bag, "threshold=0.0", "--bundle", bundle, "--filter", tmp_path / "mine.yaml", "--out", out)
    summary = json.loads((out / "summary.json").read_text())
    assert (summary["configuration"]["origin"], summary["configuration"]["max_samples"]) == ("given", 4)
    assert summary["configuration"]["threshold"] == 0.0
    assert summary["vetoed"] > summary["passed"]
    assert "different:" in output


def test_command_without_critic_and_recorded_decisions(tmp_path, recorded, monkeypatch):
    monkeypatch.chdir(tmp_path)
    command(recorded[0], "critic=off", "--grid")
    (directory,) = (tmp_path / "replays").iterdir()
    assert directory.name == recorded[0].name
    summary = json.loads((directory / "summary.json").read_text())
    assert (summary["judged"], summary["compared"]["decisions"]) == (0, 0)
    assert summary["configuration"]["mode"] == "shadow"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("nothing", "--bundle", "b"), "bag nothing does not exist"),
        (("BAG",), "critic is 'enforce': give the bundle that judges with --bundle"),
        (("BAG", "--bundle", "BUNDLE", "treshold=1"), "treshold = 1: unknown key"),
        (("BAG", "--bundle", "BUNDLE", "--namespace", "r2"), "no topic '/r2/odom'"),
        (("BAG", "--bundle", "BUNDLE", "--filter", "nowhere"), "nowhere.yaml"),
        (("BAG", "--bundle", "BUNDLE", "-o", "FILE"), "results cannot be written"),
    ],
)
def test_command_says_what_is_wrong(tmp_path, recorded, arguments, message):
    bag, bundle, _ = recorded
    (tmp_path / "file").write_text("")
    places = {"BAG": bag, "BUNDLE": bundle, "FILE": tmp_path / "file"}
    with pytest.raises(SafeRlRosError, match=message):
        command(*(places.get(argument, argument) for argument in arguments))


def test_command_is_installed_and_its_errors_are_one_line(tmp_path):
    line = [sys.executable, "-m", "safe_rl_ros.cli", "replay", "nothing", "critic=off"]
    result = subprocess.run(line, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
    assert result.returncode == 1
    assert result.stdout.splitlines() == ["error: bag nothing does not exist"]
    assert "Traceback" not in result.stderr


def test_a_bundle_that_judged_is_compared_by_the_digits_on_record(tmp_path, recorded):
    bag, bundle, live = recorded
    model = load_bundle(bundle, spec_hash=SPEC.hash, obs_names=NAMES)
    source = ReplaySource(bag, SPEC)
    replay = Replay(source, SPEC, make_observer(SPEC, "hazard_nav"), model, choose_setting(source, SPEC, None))
    ticks = list(replay.run())
    assert {t.recorded.bundle_hash for t in ticks} == {model.hash[:12]}
    assert {t.decision.bundle_hash for t in ticks} == {model.hash} == {decision.bundle_hash for decision in live}
    assert source.start_ns >= BOOT_NS
