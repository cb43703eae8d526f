"""The benchmark of the offline learners' speed: ratios by hand, turns, and the peer's protocol with a stand-in."""

from __future__ import annotations

import argparse
import stat
import sys
from pathlib import Path
from typing import Any, ClassVar

import pytest

from benchmarks import offline_speed
from benchmarks.offline_speed import Peer, PeerError, make_ours, make_rows, measure, parameters, summarise, targets

CHILD = """#!{python}
import json, os, sys
request = json.loads(sys.argv[2])
assert sys.argv[1].endswith("offline_speed_peer.py"), sys.argv
assert os.path.exists(request["data"])
assert os.environ["OMP_NUM_THREADS"] == "1"
about = {{"versions": {{"d3rlpy": "0"}}, "threads": 1, "parameters": {{name: 5 for name in request["cases"]}}}}
print(json.dumps(about), flush=True)
for line in sys.stdin:
    asked = json.loads(line)
    if asked["steps"] == 13:
        sys.exit(3)
    print(json.dumps({{"update": 2.0 * asked["steps"], "whole": 3.0 * asked["steps"]}}), flush=True)
"""


@pytest.fixture
def python(tmp_path: Path) -> Path:
    file = tmp_path / "python"
    file.write_text(CHILD.format(python=sys.executable), encoding="utf-8")
    file.chmod(file.stat().st_mode | stat.S_IXUSR)
    return file


def test_ratios_are_taken_within_rounds() -> None:
    rounds = [{"ours": 0.1, "update": 0.2, "whole": 0.4}, {"ours": 0.2, "update": 0.2, "whole": 0.6}]
    found = summarise({"iql": rounds, "fisor": [{"ours": 0.5}]})
    assert found["iql"]["steps_per_s"]["ours"] == pytest.approx(1 / 0.15)
    assert found["iql"]["ms_per_step"]["d3rlpy_whole"] == pytest.approx(500.0)
    assert found["iql"]["d3rlpy_update / ours"]["per_round"] == pytest.approx([2.0, 1.0])
    assert found["iql"]["d3rlpy_whole / ours"]["mean"] == pytest.approx(3.5)
    assert set(found["fisor"]) == {"steps_per_s", "ms_per_step", "rounds"}


def test_the_target_takes_the_lower_end_and_only_those_with_a_peer() -> None:
    near = {"d3rlpy_update / ours": {"mean": 1.1, "ci95": [0.95, 1.25]}}
    clear = {"d3rlpy_update / ours": {"mean": 1.1, "ci95": [1.05, 1.15]}}
    found = targets({"iql": near, "cql": clear, "fisor": {}})
    assert [item["ok"] for item in found] == [False, True]


class Learner:
    def __init__(self, name: str, calls: list[str]) -> None:
        self.name, self.calls = name, calls

    def fit(self, steps: int) -> None:
        self.calls.append(f"{self.name} {steps}")


class TurnsPeer:
    about: ClassVar[dict[str, Any]] = {"parameters": {"iql": 1}}

    def __init__(self, calls: list[str]) -> None:
        self.calls = calls

    def time(self, case: str, steps: int) -> dict[str, float]:
        self.calls.append(f"peer {case} {steps}")
        return {"update": 4.0, "whole": 6.0}


def test_ours_and_the_peer_take_turns_and_the_first_round_is_not_counted() -> None:
    calls: list[str] = []
    learners: Any = {"iql": Learner("iql", calls), "fisor": Learner("fisor", calls)}
    found = measure(learners, TurnsPeer(calls), 2, {"iql": 4, "fisor": 2})  # type: ignore[arg-type]
    assert calls == ["iql 4", "peer iql 4", "fisor 2"] * 3
    assert [sorted(seconds) for seconds in found["iql"]] == [["ours", "update", "whole"]] * 2
    assert [seconds["whole"] for seconds in found["iql"]] == [1.5, 1.5]
    assert [sorted(seconds) for seconds in found["fisor"]] == [["ours"]] * 2


def test_the_peer_is_asked_and_answers(python: Path, tmp_path: Path) -> None:
    peer = Peer(python, make_rows(1000), {"iql": (8,)}, tmp_path)
    assert peer.about["parameters"] == {"iql": 5}
    assert peer.time("iql", 4) == {"update": 8.0, "whole": 12.0}
    with pytest.raises(PeerError, match="status 3"):
        peer.time("iql", 13)


def test_a_whole_run_compares_what_has_a_peer(python: Path) -> None:
    options = argparse.Namespace(quick=True, rounds=1, cases=["iql", "fisor"], peer_python=python)
    found = offline_speed.run(options)
    assert found["iql"]["parameters"]["d3rlpy"] == 5
    assert found["iql"]["ms_per_step"]["d3rlpy_update"] == pytest.approx(2000.0)
    assert set(found["fisor"]["ms_per_step"]) == {"ours"}
    assert found["fisor"]["parameters"]["ours"] > found["iql"]["parameters"]["ours"] > 0


def test_learned_parameters_are_counted_once() -> None:
    learner = make_ours("iql", make_rows(1000), (3,))
    obs, act, width = offline_speed.OBS_DIM, offline_speed.ACT_DIM, 3
    actor = (obs + 1) * width + (width + 1) * act + act
    value, critic = (obs + 1) * width + width + 1, (obs + act + 1) * width + width + 1
    assert parameters(learner) == actor + value + 2 * critic


def test_rows_are_closed_episodes() -> None:
    rows = make_rows(2000)
    assert rows.truncated.nonzero()[0].tolist() == [999, 1999]
    assert not rows.terminated.any()
    assert abs(rows.action_executed).max() <= 1.0
