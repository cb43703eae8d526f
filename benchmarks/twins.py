"""Steps per second and reset times of both simulators' twins, and how far apart the same commands lead them.

``speed``: control periods per second with random commands, lidar and odometry included, one thread; robots and
simulators take turns in short slices, so that other load on the machine meets all of them. ``reset_us`` is a reset to
an arena that is there already, its first state included; ``build_s`` builds a twin once.

``disagreement``: random commands, each held for 0.5 s, over 5 s from rest: distance (m) and difference of heading (rad,
at most pi) between the two twins at the end, mean and 95 % interval over seeds.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Callable, Sequence
from statistics import median
from typing import Any, get_args

import numpy as np

from benchmarks.common import finish, make_parser, progress
from safe_rl_ros.envs.robot_parts import Simulator
from safe_rl_ros.envs.robot_spec import RobotSpec, load_robot_spec
from safe_rl_ros.envs.rotations import yaw_of
from safe_rl_ros.envs.tasks.hazard_nav import HazardNav, Layout, load_hazard_nav
from safe_rl_ros.envs.twin_backend import TwinBackend
from safe_rl_ros.envs.twins import make_backend
from safe_rl_ros.training.statistics import mean_interval
from safe_rl_ros.types import FloatArray, RobotState

ROBOTS = ("rover", "jackal")
SIMULATORS: tuple[Simulator, ...] = get_args(Simulator)
ARENAS = 20
DRIVE_S, HOLD_S = 5.0, 0.5


def arenas(spec: RobotSpec) -> Callable[[int], Layout]:
    """Return layouts that are drawn beforehand: their search takes longer than a reset."""
    nav = HazardNav(load_hazard_nav("hazard_nav"), spec.base_radius_m)
    drawn = [nav.layout(seed) for seed in range(ARENAS)]
    return lambda seed: drawn[seed % ARENAS]


def step_rate(twin: TwinBackend, commands: FloatArray) -> float:
    """Return control periods per second over the commands (T, C)."""
    twin.reset(0)
    start = time.perf_counter()
    for command in commands:
        twin.step(command)
    return len(commands) / (time.perf_counter() - start)


def reset_us(twin: TwinBackend, resets: int) -> float:
    """Return the median time of a reset in microseconds; the robot drives between them."""
    times = []
    for seed in range(resets):
        twin.step(twin.spec.command_upper)
        start = time.perf_counter()
        twin.reset(seed)
        times.append(time.perf_counter() - start)
    return 1e6 * median(times)


def measure_speed(rounds: int, steps: int) -> dict[str, Any]:
    """Return the figures of every robot and simulator, measured in turns; a first round does not count."""
    twins: dict[str, TwinBackend] = {}
    figures: dict[str, dict[str, Any]] = {}
    for robot in ROBOTS:
        layout = arenas(load_robot_spec(robot))
        for simulator in SIMULATORS:
            start = time.perf_counter()
            name = f"{robot} {simulator}"
            twins[name] = make_backend(load_robot_spec(robot).with_simulator(simulator), layout)
            figures[name] = {"build_s": time.perf_counter() - start, "rates": [], "resets": []}
    rng = np.random.default_rng(0)
    for index in range(rounds + 1):
        for name, twin in twins.items():
            commands = rng.uniform(twin.spec.command_lower, twin.spec.command_upper, (steps, twin.spec.act_dim))
            rate, reset = step_rate(twin, commands), reset_us(twin, max(ARENAS, steps // 20))
            if index:
                figures[name]["rates"].append(rate)
                figures[name]["resets"].append(reset)
        progress(f"speed: round {index} of {rounds}")
    for twin in twins.values():
        twin.close()
    return {name: summarise(values) for name, values in figures.items()}


def summarise(values: dict[str, Any]) -> dict[str, Any]:
    """Return medians over rounds, with the extremes of the rate."""
    rates = values["rates"]
    return {
        "steps_per_s": {"median": round(median(rates), 1), "min": round(min(rates), 1), "max": round(max(rates), 1)},
        "reset_us": round(median(values["resets"]), 1),
        "build_s": round(values["build_s"], 3),
    }


def drive(twin: TwinBackend, seed: int) -> RobotState:
    """Return where the random commands of a seed lead a twin from rest."""
    spec, rng = twin.spec, np.random.default_rng(seed)
    state = twin.reset(0)
    for _ in range(round(DRIVE_S / HOLD_S)):
        command = rng.uniform(spec.command_lower, spec.command_upper)
        for _ in range(round(HOLD_S * spec.control_rate_hz)):
            state = twin.step(command).state
    return state


def apart(first: RobotState, second: RobotState) -> tuple[float, float]:
    """Return distance (m) and difference of heading (rad, 0 to pi) of two states."""
    distance = float(np.hypot(*(first.position - second.position)[:2]))
    return distance, abs(math.remainder(yaw_of(first.orientation) - yaw_of(second.orientation), 2.0 * math.pi))


def measure_disagreement(robot: str, seeds: Sequence[int]) -> dict[str, Any]:
    """Return mean, 95 % interval and maximum over the seeds of what is between the simulators after the drive."""
    spec = load_robot_spec(robot)
    layout = arenas(spec)
    twins = [make_backend(spec.with_simulator(simulator), layout) for simulator in SIMULATORS]
    pairs = [apart(*(drive(twin, seed) for twin in twins)) for seed in seeds]
    for twin in twins:
        twin.close()
    progress(f"disagreement: {robot}")
    figures: dict[str, Any] = {"driven_s": DRIVE_S, "command_held_s": HOLD_S}
    for name, values in zip(("position_m", "heading_rad"), zip(*pairs, strict=True), strict=True):
        mean, low, high = mean_interval(values)
        figures[name] = {
            "mean": round(mean, 4),
            "interval_95": [round(low, 4), round(high, 4)],
            "max": round(max(values), 4),
        }
    return figures


def run(options: argparse.Namespace) -> dict[str, Any]:
    """Measure everything and print the result."""
    rounds, steps, count = (1, 40, 3) if options.quick else (options.rounds, 1000, options.seeds)
    seeds = range(count)
    figures = {
        "unit": "control periods per second",
        "rounds": rounds,
        "speed": measure_speed(rounds, steps),
        "disagreement": {robot: measure_disagreement(robot, seeds) for robot in ROBOTS},
    }
    return finish("twins", figures, [], list(seeds), options)


def main(argv: Sequence[str] | None = None) -> None:
    """Measure speed, then disagreement."""
    parser = make_parser(__doc__)
    parser.add_argument("--rounds", type=int, default=9, help="rounds of the speed that count")
    parser.add_argument("--seeds", type=int, default=50, help="seeds of the disagreement")
    run(parser.parse_args(argv))


if __name__ == "__main__":
    main()
