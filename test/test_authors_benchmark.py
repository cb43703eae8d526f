"""The benchmark beside the authors' code: figures by hand, and what is run again and what is not."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import authors
from benchmarks.authors import FIGURES, OURS, THEIRS, Job
from benchmarks.peer_runs import RunFigures


def job(method: str = OURS, seed: int = 0, steps: int = 1000, folder: Path | str = "") -> Job:
    return Job(method, seed, steps, "checkout", str(folder))


def test_a_finished_run_is_kept_and_another_request_is_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ran: list[tuple[str, int]] = []

    def train(given: Job) -> tuple[RunFigures, float]:
        ran.append((given.method, given.seed))
        episode = {"step": 1000, "return": 4.0, "cost": 5.0, "violations": 1, "length": 100}
        return RunFigures(1000, 3.0, 2.0, 7, [episode], {}), 0.5

    monkeypatch.setattr(authors, "run_ours", train)
    monkeypatch.setattr(authors, "run_theirs", train)
    mine = job(folder=tmp_path)
    first = authors.run_job(mine)
    assert first[0] == mine
    expected = {"return": 4.0, "cost": 5.0, "cvar": 5.0, "violations_per_episode": 1.0, "score": 2.0}
    expected |= {"violations_in_training": 7.0, "learner_ms_per_step": 0.5}
    assert first[1] == pytest.approx(expected)
    assert authors.run_job(mine) == first
    assert ran == [(OURS, 0)]
    authors.run_job(job(THEIRS, folder=tmp_path))
    assert ran == [(OURS, 0), (THEIRS, 0)]
    session = Job.session  # of another session with the same name nothing is taken
    monkeypatch.setattr(Job, "session", lambda its: session(its).model_copy(update={"seed": 9}))
    authors.run_job(mine)
    assert ran == [(OURS, 0), (THEIRS, 0), (OURS, 0)]


def test_pairs_are_compared_seed_by_seed() -> None:
    ours, theirs = (dict.fromkeys(FIGURES, value) for value in (3.0, 1.0))
    found = [(job(OURS, 1), {**ours, "return": 7.0}), (job(OURS, 0), ours), (job(THEIRS, 0), theirs)]
    figures = authors.summarise(found)
    assert (figures[OURS]["seeds"], figures["ours - authors"]["seeds"]) == ([0, 1], [0])
    assert figures[OURS]["return"]["per_seed"] == [3.0, 7.0]
    # Student's t with one degree of freedom: 12.706 times the standard error, which is 2.
    assert figures[OURS]["return"]["ci95"] == pytest.approx([5.0 - 25.412, 5.0 + 25.412], abs=1e-3)
    assert figures["ours - authors"]["return"]["mean"] == 2.0
    assert [(each["value"], each["ok"]) for each in authors.targets(figures)] == [
        (2.0, True),
        (2.0, False),
        (pytest.approx(1.0 / 3.0), False),
    ]
    assert authors.targets(authors.summarise(found[:2])) == []
