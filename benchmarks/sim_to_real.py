"""From the twin to a robot that nobody knows: what randomisation, filter and 20 episodes of learning there are worth.

Policies are trained with CSC on MuJoCo's twin of the rover, with randomisation (``csc_rover_randomised``) and without
(the same, neutral), and calibrated there for a miss rate of 5 %. The robot is PyBullet's twin with parameters that
training never saw (``standin_rover``), in an arena of its own; episodes begin where it stands. Per training seed there
are so many robots:

- ``zero_shot``: the trained policy as it is; ``after``: what the session ends with that goes on there for 20 episodes,
  starting from that run (``csc_standin``, ``offtrc_standin``), rolled back where it was worse;
- ``filter``: behind the safety filter; ``none``: limits and rates only, in learning, too, and nothing is rolled back;
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
from typing import Any

import numpy as np

from benchmarks import sim_to_real_parts as parts
from benchmarks.common import finish, keep, make_parser, progress, target
from benchmarks.standin_robots import Place
from safe_rl_ros.data.trials import chance_of_as_low
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
        if options.quick:
            self.steps, self.seeds, self.robots, self.episodes = 2000, 1, 1, 3
            self.adapt, self.epoch, self.failing = 800, 400, 20
            self.ros_episodes, self.learners = min(2, options.ros_episodes), ("csc",)


def measure_pair(runs: Path, size: Sizes, kind: str, seed: int, robot: int) -> list[Row]:
    """Return the cases of one trained policy on one robot."""
    run = parts.train_kind(runs / "train", kind, seed, size.steps)
    trained = parts.read_bundle(run / "bundle")
    wanted = {"bundle": trained.hash, "failing": size.failing}
    calibrated = keep(run / "threshold.json", wanted, lambda: parts.calibrate_kind(run, size.failing))
    threshold = float(calibrated["threshold"])
    place, home = Place(robot, loop_delay_s=size.loop_delay_s), Place(robot, parts.TWINS[kind])
    where = runs / "pairs" / f"{kind}_{seed}_{robot}"
    common = {"kind": kind, "seed": seed, "robot": robot, "bundle": trained.hash, "episodes": size.episodes}
    common["threshold"] = threshold
    found: list[Row] = []

    def case(name: str, filtered: bool, at: Place, algorithm: str = "") -> None:
        request = {**common, "case": name, "filtered": filtered, "algorithm": algorithm}
        request |= {"adapt": [size.adapt, size.epoch] if algorithm else []}
        if at.loop_delay_s:
            request["loop_delay_s"] = at.loop_delay_s
        label = "_".join(part for part in (name, algorithm, "filter" if filtered else "none") if part)

        def make() -> Row:
            begun = time.perf_counter()
            extra: Row = {}
            bundle = judge = trained
            if algorithm:
                config = parts.standin_config(
                    algorithm, run, size.adapt, size.epoch, seed, threshold, filtered=filtered
                )
                lent = trained if algorithm == "offtrc" and filtered else None
                directory = where / label
                extra = parts.adapt(config, place, lent, directory)
                bundle = parts.read_bundle(directory / "bundles" / extra["bundle"])
                judge = trained if bundle.critic is None else bundle
            rows = parts.evaluate_place(at, bundle, judge if filtered else None, threshold, size.episodes)
            return {**rows, "learning": extra, "wall_s": time.perf_counter() - begun}

        row = keep(where / f"{label}.json", request, make)
        failures = sum(episode["failure"] for episode in row["episodes"])
        progress(f"{kind} {seed} robot {robot} {label}: {failures} failures, {row['wall_s']:.0f} s")
        found.append(row)

    case("twin", True, home)
    for filtered in (True, False):
        case("zero_shot", filtered, place)
        case("after", filtered, place, "csc")
    if kind == "randomised" and "offtrc" in size.learners:
        case("after", True, place, "offtrc")
    return found


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
    return "_".join(
        part
        for part in (asked["kind"], asked["case"], asked["algorithm"], "filter" if asked["filtered"] else "none")
        if part
    )


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
    after = figures["randomised_after_csc_filter"]
    found = [
        target(
            "filtered, zero-shot: most failures of a robot",
            max(figures["randomised_zero_shot_filter"]["failures_by_robot"]),
            0,
        ),
        target("filtered, after 20 episodes: most failures of a robot", max(after["failures_by_robot"]), 0),
        target("after 20 episodes: return / the twin's", after["return_kept"]["mean"], KEPT_RETURN, ">="),
    ]
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
        "--first-seed", type=int, default=30, help="first one; 20 to 22 were used for choosing settings"
    )
    parser.add_argument("--robots", type=int, default=1, help="robots per training seed")
    parser.add_argument("--episodes", type=int, default=50, help="episodes of a case on one robot")
    parser.add_argument(
        "--ros-episodes", type=int, default=20, help="episodes over ROS in real time, 20 s each; 0: none"
    )
    parser.add_argument("--loop-delay", type=float, default=0.0, help="s more from command to wheels of each robot")
    parser.add_argument("--learners", default="csc,offtrc", help="what goes on learning on a robot; csc always does")
    options = parser.parse_args(argv)
    size = Sizes(options)
    seeds = list(range(options.first_seed, options.first_seed + size.seeds))
    with tempfile.TemporaryDirectory() as scratch:
        runs = Path(scratch) if options.runs is None else options.runs
        rows: list[Row] = []
        for seed in seeds:
            for number in range(size.robots):
                for kind in parts.TRAINED:
                    rows += measure_pair(runs, size, kind, seed, 10 * seed + number)
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
