"""From the twin to a robot that nobody knows: what randomisation, filter and 20 episodes of learning there are worth.

Policies are trained with CSC on MuJoCo's twin of the rover, with randomisation (``csc_rover_randomised``) and without
(the same, neutral), and calibrated there for a miss rate of 5 %. The robot is PyBullet's twin with parameters that
training never saw (``standin_rover``), in an arena of its own; episodes begin where it stands. Per training seed there
are so many robots:

- ``zero_shot``: the trained policy as it is; ``after``: what the session ends with that goes on there for 20 episodes,
  starting from that run (``csc_standin``, ``offtrc_standin``), rolled back where it was worse;
- ``filter``: behind the safety filter with the run's own critic; ``margin`` (of randomised ones): with a critic that
  learned from margins on the same twins (``fisor_rover_veto``), its threshold as shipped; ``none``: limits and rates
  only, in learning, too, and nothing is rolled back;
- ``twin``: the trained policy behind the filter on the twin that it was trained on, in the same arena.

Policies act by samples, as an actor's do. The statistics are of simulated time in lock-step, faster than real time
(:mod:`benchmarks.standin_robots`); ``ros`` is the same session once over ROS in real time (stand-in, filter, actor and
learner as processes), whose episodes are compared with those in this process of the same robot.

Finished parts are kept in --runs and not run again.
"""

from __future__ import annotations

import argparse
import math
import shutil
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from benchmarks import sim_to_real_parts as parts
from benchmarks.common import finish, keep, make_parser, progress, run_all, target
from benchmarks.standin_robots import Place
from safe_rl_ros.bundle import Bundle
from safe_rl_ros.data.trials import chance_of_as_low
from safe_rl_ros.training.session_config import SessionConfig
from safe_rl_ros.training.statistics import clopper_pearson, mean_interval

Row = dict[str, Any]
KEPT_RETURN = 0.8


class Sizes:
    """How much is run."""

    def __init__(self, options: argparse.Namespace) -> None:
        """Take the options; ``--quick`` puts small numbers in their place."""
        self.steps, self.seeds, self.robots, self.episodes = (
            options.steps,
            options.seeds,
            options.robots,
            options.episodes,
        )
        self.adapt, self.epoch, self.failing = 4000, 800, 40
        self.loop_delay_s = options.loop_delay
        self.ros_episodes, self.learners = options.ros_episodes, tuple(options.learners.split(","))
        self.margin_share = 1.0
        if options.quick:
            self.steps, self.seeds, self.robots, self.episodes = 2000, 1, 1, 3
            self.adapt, self.epoch, self.failing, self.margin_share = 800, 400, 20, 0.0025
            self.ros_episodes, self.learners = min(2, options.ros_episodes), ("csc",)


class Guard(NamedTuple):
    """What stands between a policy and a robot: nothing, or a filter with a bundle's critic and a threshold.

    ``name``: ``none``, ``filter`` (the run's own critic, calibrated) or ``margin`` (a critic of margins).
    """

    name: str
    judge: Bundle | None = None
    threshold: float = 0.0


class Pair:
    """One trained policy on one robot; finished cases are kept in ``runs``."""

    def __init__(self, runs: Path, size: Sizes, kind: str, seed: int, robot: int) -> None:
        """Train, and calibrate the run's own critic, unless that was done."""
        self.size, self.kind, self.seed, self.robot = size, kind, seed, robot
        self.run = parts.train_kind(runs / "train", kind, seed, size.steps)
        self.trained = parts.read_bundle(self.run / "bundle")
        wanted = {"bundle": self.trained.hash, "failing": size.failing}
        calibrated = keep(self.run / "threshold.json", wanted, lambda: parts.calibrate_kind(self.run, size.failing))
        self.own = Guard("filter", self.trained, float(calibrated["threshold"]))
        self.where = runs / "pairs" / f"{kind}_{seed}_{robot}"
        self.margins = runs / "margins" / f"{kind}_{seed}_{self.trained.hash[:8]}_{size.margin_share:g}"

    def rows(self) -> list[Row]:
        """Return all cases."""
        place, home = Place(self.robot, loop_delay_s=self.size.loop_delay_s), Place(self.robot, parts.TWINS[self.kind])
        none = Guard("none")
        found = [self.case("twin", self.own, home)]
        for guard in (self.own, none):
            found += [self.case("zero_shot", guard, place), self.case("after", guard, place, "csc")]
        if self.kind == "randomised":
            judge = parts.read_bundle(parts.train_margin_critic(self.run, self.margins, self.size.margin_share))
            margin = Guard("margin", judge, judge.threshold)
            found.append(self.case("zero_shot", margin, place))
            if "offtrc" in self.size.learners:
                found += [self.case("after", guard, place, "offtrc") for guard in (self.own, margin)]
        return found

    def case(self, name: str, guard: Guard, at: Place, algorithm: str = "") -> Row:
        """Return one case, from its file if it is there: ``algorithm`` goes on learning at the place first."""
        size = self.size
        request: Row = {"kind": self.kind, "seed": self.seed, "robot": self.robot, "bundle": self.trained.hash}
        request |= {"episodes": size.episodes, "threshold": guard.threshold, "case": name, "guard": guard.name}
        request |= {"algorithm": algorithm, "adapt": [size.adapt, size.epoch] if algorithm else []}
        request |= {"judge": guard.judge.hash if guard.judge else "", "loop_delay_s": at.loop_delay_s}
        label = "_".join(part for part in (name, algorithm, guard.name) if part)

        def make() -> Row:
            begun = time.perf_counter()
            extra: Row = {}
            bundle, judge = self.trained, guard.judge
            if algorithm:
                directory = self.where / label
                lent = guard.judge if algorithm == "offtrc" else None  # it has no critic of its own
                extra = parts.adapt(self.session(algorithm, guard), at, lent, directory)
                bundle = parts.read_bundle(directory / "bundles" / extra["bundle"])
                if guard.judge is not None and bundle.critic is not None:
                    judge = bundle
            rows = parts.evaluate_place(at, bundle, judge, guard.threshold, size.episodes)
            return {**rows, "learning": extra, "wall_s": time.perf_counter() - begun}

        row = keep(self.where / f"{label}.json", request, make)
        failures = sum(episode["failure"] for episode in row["episodes"])
        progress(f"{self.kind} {self.seed} robot {self.robot} {label}: {failures} failures, {row['wall_s']:.0f} s")
        return row

    def session(self, algorithm: str, guard: Guard) -> SessionConfig:
        """Return the session that goes on with the run."""
        size, filtered = self.size, guard.judge is not None
        return parts.standin_config(
            algorithm, self.run, size.adapt, size.epoch, self.seed, guard.threshold, filtered=filtered
        )


def measure_kind(job: tuple[Path, Sizes, str, int]) -> list[Row]:
    """Return the cases of a kind's policy of one seed on all its robots."""
    runs, size, kind, seed = job
    return [row for number in range(size.robots) for row in Pair(runs, size, kind, seed, 10 * seed + number).rows()]


def mean_of(values: Sequence[float]) -> dict[str, Any]:
    """Return a mean over robots with its 95 % interval."""
    mean, low, high = mean_interval(values)
    return {"mean": mean, "ci95": [low, high]}


def return_of(row: Row) -> float:
    """Return the mean return of a row's episodes."""
    return float(np.mean([episode["episode_return"] for episode in row["episodes"]]))


def summarise(rows: Sequence[Row], twins: dict[tuple[str, int, int], float]) -> Row:
    """Return the figures of one case over its robots; intervals over robots, of failures over all episodes."""
    episodes = [episode for row in rows for episode in row["episodes"]]
    failed = [sum(episode["failure"] for episode in row["episodes"]) for row in rows]
    kept = [return_of(row) / twins[_pair(row)] if twins[_pair(row)] > 0.0 else math.nan for row in rows]
    vetoes = [sum(e["vetoes"] for e in row["episodes"]) / sum(e["length"] for e in row["episodes"]) for row in rows]
    learning = [row["learning"] for row in rows if row["learning"]]
    figures: Row = {
        "robots": len(rows),
        "episodes": len(episodes),
        "failures": sum(failed),
        "failures_per_episode": sum(failed) / len(episodes),
        "failures_ci95": list(clopper_pearson(sum(failed), len(episodes))),
        "failures_by_robot": failed,
        "return": mean_of([return_of(row) for row in rows]),
        "return_kept": mean_of(kept),
        "veto_rate": mean_of(vetoes),
    }
    if learning:
        tried = [episode for one in learning for epoch in one["epochs"] for episode in epoch]
        figures["while_learning"] = {
            "episodes": len(tried),
            "failures": sum(episode["failure"] for episode in tried),
            "rolled_back": sum(any(verdict["back_to"] for verdict in one["verdicts"]) for one in learning),
            "by": [verdict["reason"] for one in learning for verdict in one["verdicts"] if verdict["back_to"]],
        }
    return figures


def _pair(row: Row) -> tuple[str, int, int]:
    return tuple(row["request"][name] for name in ("kind", "seed", "robot"))  # type: ignore[return-value]


def _case(row: Row) -> str:
    asked = row["request"]
    return "_".join(asked[name] for name in ("kind", "case", "algorithm", "guard") if asked[name])


def all_figures(rows: Sequence[Row]) -> Row:
    """Return the figures of every case by its name."""
    twins = {_pair(row): return_of(row) for row in rows if row["request"]["case"] == "twin"}
    return {name: summarise([row for row in rows if _case(row) == name], twins) for name in map(_case, rows)}


def compare_with_ros(over_ros: Row, here: Row) -> Row:
    """Return the episodes over ROS beside those of the same session in this process, and whether they differ."""
    sides = {"ros": over_ros["episodes"], "here": [e for epoch in here["learning"]["epochs"] for e in epoch]}
    figures: Row = {name: over_ros[name] for name in ("bundles", "late_ms_most", "answered", "wall_s")}
    for name, episodes in sides.items():
        figures[name] = {
            "episodes": len(episodes),
            "failures": sum(e["failure"] for e in episodes),
            "return": mean_of([e["episode_return"] for e in episodes]),
            "veto_rate": sum(e["vetoes"] for e in episodes) / sum(e["length"] for e in episodes),
        }
    returns = [[e["episode_return"] for e in episodes] for episodes in sides.values()]
    lower, higher = chance_of_as_low(returns[0], returns[1]), chance_of_as_low(returns[1], returns[0])
    figures["two_sided_p"] = min(1.0, 2.0 * min(lower, higher))
    return figures


def measure_ros(runs: Path, size: Sizes, seed: int, robot: int, threshold: float) -> Row:
    """Return the session over ROS on one robot."""
    from benchmarks.sim_to_real_ros import run_session, write_session  # here and not above: it needs ROS

    run = parts.train_kind(runs / "train", "randomised", seed, size.steps)
    directory = runs / "ros" / f"{seed}_{robot}_{size.ros_episodes}"
    request = {"seed": seed, "robot": robot, "episodes": size.ros_episodes, "adapt": [size.adapt, size.epoch]}
    request |= {"bundle": parts.read_bundle(run / "bundle").hash, "threshold": threshold}

    def make() -> Row:
        shutil.rmtree(directory, ignore_errors=True)  # what an interrupted session left is no part of this one
        file = write_session(parts.GOES_ON["csc"], directory, run, size.adapt, size.epoch, threshold)
        return run_session(file, directory, robot, size.ros_episodes)

    return keep(directory / "ros.json", request, make)


def targets(figures: Row) -> list[Row]:
    """Return what was to be reached with what was measured."""
    told = {
        "randomised_zero_shot_filter": "own critic, zero-shot",
        "randomised_after_csc_filter": "own critic, after 20 episodes",
        "randomised_zero_shot_margin": "critic of margins, zero-shot",
        "randomised_after_offtrc_margin": "critic of margins, after 20 episodes",
    }
    found = []
    for case, text in told.items():
        if case in figures:
            found.append(target(f"{text}: most failures of a robot", max(figures[case]["failures_by_robot"]), 0))
            if "after" in case:
                kept = figures[case]["return_kept"]["mean"]
                found.append(target(f"{text}: return / the twin's", kept, KEPT_RETURN, ">="))
    if "ros" in figures:
        found.append(target("over ROS as in process: p of the returns", figures["ros"]["two_sided_p"], 0.05, ">="))
    return found


def main(argv: Sequence[str] | None = None) -> None:
    """Run what is not there yet, and print the figures."""
    parser = make_parser(__doc__)
    parser.add_argument("--runs", type=Path, help="keep finished parts here and go on where they were")
    parser.add_argument("--steps", type=int, default=80_000, help="environment steps of a training")
    parser.add_argument("--seeds", type=int, default=3, help="trainings of each kind")
    parser.add_argument(
        "--first-seed", type=int, default=36, help="first one; 20 to 22 and 30 to 32 were used for choosing settings"
    )
    parser.add_argument("--robots", type=int, default=1, help="robots per training seed")
    parser.add_argument("--episodes", type=int, default=50, help="episodes of a case on one robot")
    parser.add_argument(
        "--ros-episodes", type=int, default=20, help="episodes over ROS in real time, 20 s each; 0: none"
    )
    parser.add_argument("--loop-delay", type=float, default=0.0, help="s more from command to wheels of each robot")
    parser.add_argument("--workers", type=int, default=2, help="policies at a time")
    parser.add_argument("--learners", default="csc,offtrc", help="what goes on learning on a robot; csc always does")
    options = parser.parse_args(argv)
    size = Sizes(options)
    seeds = list(range(options.first_seed, options.first_seed + size.seeds))
    with tempfile.TemporaryDirectory() as scratch:
        runs = Path(scratch) if options.runs is None else options.runs
        jobs = [(runs, size, kind, seed) for seed in seeds for kind in parts.TRAINED]
        rows = sorted((row for found in run_all(measure_kind, jobs, options.workers) for row in found), key=_pair)
        figures = all_figures(rows)
        if size.ros_episodes:
            wanted = ("randomised", seeds[0], 10 * seeds[0]), "randomised_after_csc_filter"
            here = next(row for row in rows if (_pair(row), _case(row)) == wanted)
            over_ros = measure_ros(runs, size, seeds[0], 10 * seeds[0], here["request"]["threshold"])
            figures["ros"] = compare_with_ros(over_ros, here)
        figures["wall_s"] = sum(row["wall_s"] for row in rows)
    finish("sim_to_real", figures, targets(figures), seeds, options)


if __name__ == "__main__":
    main()
