"""Learning on a stand-in in this process, without ROS: what is judged, what is kept, where it ends."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from benchmarks import sim_to_real_parts as parts
from benchmarks.standin_robots import Place, Standing, StandInSession
from safe_rl_ros.bundle import Bundle, save_bundle
from safe_rl_ros.data.containers import load_dataset
from safe_rl_ros.data.trials import Verdict
from safe_rl_ros.inference import GaussianPolicy, SafetyCritic
from safe_rl_ros.training.metrics import read_csv
from safe_rl_ros.training.session_config import SessionConfig, load_session_config
from safe_rl_ros.types import EpisodeStats

HERE = Place(4, "none")
"""MuJoCo's neutral twin: PyBullet is not needed for what is shown here."""
SMALL = ["training.start_from=null", "task.max_episode_steps=20", "training.total_steps=80"]
SMALL += ["training.steps_per_epoch=40"]


def small(name: str = "offtrc", *changes: str) -> SessionConfig:
    """Return a shipped session of two epochs of two episodes, that begins with what nobody trained."""
    return load_session_config(f"{name}_standin.yaml", [*SMALL, *changes])


def ended(episode_return: float, failure: bool = False) -> EpisodeStats:
    return EpisodeStats(episode_return, 20, failure, 0, 0)


def bundle_in(directory: Path, session: StandInSession, risk: float) -> Bundle:
    """Return a bundle whose policy drives on at a quarter of a metre per second, and whose critic always says this."""
    obs_dim, sizes = session.obs_dim, {"obs_dim": session.obs_dim, "act_dim": 2, "hidden": [2]}
    arrays = {"weight_0": np.zeros((obs_dim, 2)), "bias_0": np.zeros(2), "weight_1": np.zeros((2, 2))}
    arrays |= {"bias_1": np.zeros(2), "log_std": np.full(2, -4.0)}
    policy = GaussianPolicy.from_arrays(arrays, {"kind": "gaussian_policy", "state_dependent_std": False, **sizes})
    layers = {"weight_0": np.zeros((1, obs_dim + 2, 2)), "bias_0": np.zeros((1, 2)), "weight_1": np.zeros((1, 2, 1))}
    layers["bias_1"] = np.full((1, 1), np.log(risk / (1.0 - risk)))
    kind = {"kind": "safety_critic", "members": 1, "aggregate": "mean", "std_factor": 0.0}
    keys = {"spec_hash": session.spec_hash, "obs_names": session.obs_names, "algorithm": "test"}
    critic = SafetyCritic.from_arrays(layers, {**kind, **sizes})
    save_bundle(directory, policy, critic, threshold=0.5, threshold_mode="fixed", **keys)
    return parts.read_bundle(directory)


def action_of(directory: Path) -> tuple[float, ...]:
    """Return what a bundle does where it sees nothing."""
    bundle = parts.read_bundle(directory)
    return tuple(bundle.policy.mean(np.zeros(bundle.obs_dim, np.float32)).tolist())


@pytest.fixture
def constant(tmp_path: Path) -> tuple[Bundle, Bundle]:
    """Return two bundles with the same policy, whose critics find nothing risky, and everything."""
    session = StandInSession(small(), HERE)
    session.close()
    return bundle_in(tmp_path / "calm", session, 0.01), bundle_in(tmp_path / "afraid", session, 0.99)


def test_a_stand_ins_session_keeps_the_episodes_of_its_newest_epoch(constant: tuple[Bundle, Bundle]) -> None:
    session, algorithm = StandInSession(small(), HERE), SimpleNamespace(policy=lambda: constant[0].policy)
    try:
        assert session.latest == []
        assert isinstance(session.env.unwrapped.backend, Standing)  # episodes begin where it stands
        first = session.collect(algorithm, 40, seed=0, epoch=0)
        assert [episode.length for episode in session.latest] == [20, 20]
        assert session.latest == first.episodes
        second = session.collect(algorithm, 20, seed=0, epoch=1)
        assert [episode.length for episode in session.latest] == [20]
        assert session.latest == second.episodes
    finally:
        session.close()


@pytest.mark.parametrize(("judge", "vetoes"), [(None, 0), (0, 0), (1, 10)], ids=["none", "calm", "afraid"])
def test_a_judge_enforces_where_the_session_has_no_critic(
    constant: tuple[Bundle, Bundle], judge: int | None, vetoes: int
) -> None:
    config = small("offtrc", "filter.threshold=0.5")
    session = StandInSession(config, HERE, None if judge is None else constant[judge])
    try:
        assert config.filter.critic == "off"
        assert session.filter.config.critic == ("off" if judge is None else "enforce")
        algorithm = SimpleNamespace(policy=lambda: constant[0].policy)
        assert session.collect(algorithm, 10, seed=0, epoch=0).vetoes == vetoes
    finally:
        session.close()


def verdicts_of(config: SessionConfig, *epochs: list[EpisodeStats]) -> list[Verdict | None]:
    """Return what a session says of epochs with these episodes."""
    session, found = StandInSession(config, HERE), []
    try:
        for epoch, episodes in enumerate(epochs):
            session.latest = episodes
            found.append(session.verdict(epoch))
    finally:
        session.close()
    return found


def test_an_epoch_is_judged_by_the_first_episode_by_which_it_gives_way() -> None:
    config = small("offtrc", "ros.roll_back_episodes=2")
    good, failed = [ended(9.0), ended(10.0)], [ended(12.0), ended(11.0), ended(13.0, True), ended(1.0, True)]
    start, better, worse = verdicts_of(config, good, good[:1] * 2, failed)
    assert start is None
    assert (better.name, better.back_to, better.episodes) == ("epoch_00001", "", 2)
    # It was good after its second episode, and then failed: its newest good forerunner takes its place.
    assert (worse.name, worse.back_to, worse.episodes) == ("epoch_00002", "epoch_00001", 3)
    assert "episode 3 of it ended in a failure" in worse.reason


@pytest.mark.parametrize(("level", "back_to"), [(0.2, "epoch_00000"), (0.1, "")], ids=["0.2", "0.1"])
def test_lower_returns_are_judged_at_the_sessions_level(level: float, back_to: str) -> None:
    """Two that are lower than two: one of six ways, p = 1/6."""
    config = small("offtrc", "ros.roll_back_episodes=2", f"ros.roll_back_level={level}")
    _, verdict = verdicts_of(config, [ended(10.0), ended(11.0)], [ended(1.0), ended(2.0)])
    assert verdict.chance == pytest.approx(1.0 / 6.0)
    assert verdict.back_to == back_to


def test_where_nothing_is_rolled_back_nothing_is_judged() -> None:
    config = small("offtrc", "ros.roll_back_episodes=0")
    assert verdicts_of(config, [ended(10.0)] * 4, [ended(-5.0, True)] * 4) == [None, None]


class Stage:
    """Session, trainer and bundles that only note what is done with them; verdicts by script."""

    def __init__(self, verdicts: list[Verdict | None], fails_in: int = -1) -> None:
        self.verdicts, self.fails_in = verdicts, fails_in
        self.done: list[tuple[str, Any]] = []
        self.latest: list[EpisodeStats] = []
        self.epoch, self.algorithm = 0, "algorithm"

    def install(self, monkeypatch: pytest.MonkeyPatch) -> Stage:
        monkeypatch.setattr(parts, "StandInSession", self.open)
        monkeypatch.setattr(parts, "Trainer", self.train)
        monkeypatch.setattr(parts, "write_bundle", self.write)
        return self

    def open(self, config: SessionConfig, place: Place, judge: Bundle | None) -> Stage:
        self.done.append(("session", (place, judge)))
        return self

    def train(self, config: SessionConfig, session: Stage, directory: Path) -> Stage:
        self.done.append(("trainer", directory.exists()))
        return self

    def write(self, directory: Path, algorithm: str, config: SessionConfig, session: Stage) -> None:
        assert (directory.parent.name, algorithm, session) == ("bundles", "algorithm", self)
        self.done.append(("bundle", directory.name))

    def run(self, on_epoch: Any, max_epochs: int) -> None:
        if self.epoch == self.fails_in:
            raise RuntimeError("broken")
        assert max_epochs == 1
        self.done.append(("epoch", self.epoch))
        self.latest = [ended(float(self.epoch))]
        self.epoch += 1
        on_epoch(None)

    def verdict(self, epoch: int) -> Verdict | None:
        self.done.append(("verdict", epoch))
        return self.verdicts[epoch]

    def close(self) -> None:
        self.done.append(("close", None))


def judged(name: str, back_to: str) -> Verdict:
    return Verdict(name, back_to, "r" if back_to else "", 4, 1.0, 4, 2.0, None)


THREE = ("training.total_steps=120",)


def test_learning_that_gets_no_worse_ends_with_what_it_learned(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, constant: tuple[Bundle, Bundle]
) -> None:
    directory, good = tmp_path / "run", judged("epoch_00001", "")
    (directory / "checkpoints").mkdir(parents=True)  # half of one that was interrupted
    stage = Stage([None, good, None]).install(monkeypatch)
    found = parts.adapt(small("offtrc", *THREE), HERE, constant[0], directory)
    assert stage.done == [
        ("session", (HERE, constant[0])),
        ("trainer", False),
        *[("bundle", "epoch_00000"), ("epoch", 0), ("verdict", 0)],
        *[("bundle", "epoch_00001"), ("epoch", 1), ("verdict", 1)],
        *[("bundle", "epoch_00002"), ("epoch", 2), ("verdict", 2)],
        ("bundle", "final"),
        ("close", None),
    ]
    assert found["bundle"] == "final"
    assert found["epochs"] == [[asdict(ended(float(epoch)))] for epoch in range(3)]
    assert found["verdicts"] == [asdict(good)]


def test_learning_that_gets_worse_ends_with_what_it_goes_back_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    worse = judged("epoch_00001", "epoch_00000")
    stage = Stage([None, worse, None]).install(monkeypatch)
    found = parts.adapt(small("offtrc", *THREE), HERE, None, tmp_path / "run")
    assert [what for what in stage.done if what[0] == "epoch"] == [("epoch", 0), ("epoch", 1)]
    assert ("bundle", "final") not in stage.done
    assert stage.done[-1] == ("close", None)
    assert (found["bundle"], len(found["epochs"]), found["verdicts"]) == ("epoch_00000", 2, [asdict(worse)])


def test_a_session_is_closed_also_where_learning_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stage = Stage([None], fails_in=1).install(monkeypatch)
    with pytest.raises(RuntimeError, match="broken"):
        parts.adapt(small("offtrc", *THREE), HERE, None, tmp_path / "run")
    assert stage.done[-1] == ("close", None)


def test_a_critic_of_margins_takes_the_place_of_a_runs_own_and_is_made_once(tmp_path: Path) -> None:
    session, run = StandInSession(small(), HERE), tmp_path / "run"
    session.close()
    own = bundle_in(run / "bundle", session, 0.01)
    made = parts.train_margin_critic(run, tmp_path / "margins", 0.00125, ["training.steps_per_epoch=20"])
    judge = parts.read_bundle(made)
    assert judge.component_hashes().policy == own.component_hashes().policy
    assert judge.component_hashes().critic != own.component_hashes().critic
    shipped = load_session_config(f"{parts.VETO}.yaml", [f"data.path={tmp_path / 'margins' / 'data'}"])
    assert judge.threshold == shipped.algorithm.fixed_threshold
    info, episodes = load_dataset(tmp_path / "margins" / "data")
    assert info.margin_kind == "signed"
    rows = read_csv(tmp_path / "margins" / parts.VETO / "metrics.csv")
    assert (len(rows), rows[0]["steps"]) == (3, 20), "an eight hundredth of 2,050 epochs of 20"
    labels = [episode.notes["source"] for episode in episodes]
    assert labels == ["policy", "disturbed", "disturbed", "confused", "random"]
    written = (made / "manifest.json").stat().st_mtime_ns
    assert parts.train_margin_critic(run, tmp_path / "margins") == made
    assert (made / "manifest.json").stat().st_mtime_ns == written


def test_a_small_session_learns_in_earnest_and_what_it_says_can_be_kept(tmp_path: Path) -> None:
    directory = tmp_path / "run"
    found = parts.adapt(small(), HERE, None, directory)
    assert json.loads(json.dumps(found)) == found
    assert [[episode["length"] for episode in epoch] for epoch in found["epochs"]] == [[20, 20], [20, 20]]
    assert (found["bundle"], found["verdicts"]) == ("final", [])
    names = sorted(path.name for path in (directory / "bundles").iterdir())
    assert names == ["epoch_00000", "epoch_00001", "final"]
    acts = [action_of(directory / "bundles" / name) for name in names]
    assert len(set(acts)) == 3, "every epoch learned something"
    assert parts.adapt(small(), HERE, None, directory) == found, "it begins anew, and seeds alone decide"
    assert [action_of(directory / "bundles" / name) for name in names] == acts
