"""How well `safe-rl-ros identify` finds the known parameters of twins, and whether its intervals hold them.

Per robot and seed a twin with random gains, delays, lag, friction and mass drives for a minute by random commands, each
held for 0.5 s; its odometry has noise. What is found is compared with what the twin had: mean and greatest error
(relative for gains and scales), how many intervals hold the truth, and the velocity error on what was held out.

Finished drives are kept in --runs and not run again.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.common import finish, keep, make_parser, progress, target
from safe_rl_ros.bags.base_model import CLEAR, TwinResponse
from safe_rl_ros.bags.drive_log import Drive, greatest
from safe_rl_ros.bags.identification import DELAY, FITTED, TRIED, Identifier
from safe_rl_ros.envs.randomisation import Randomisation, Spread
from safe_rl_ros.envs.robot_spec import RobotSpec, load_robot_spec
from safe_rl_ros.envs.twin_parameters import TwinParameters
from safe_rl_ros.envs.twins import make_backend

ROBOTS = ("rover", "jackal")
HOLD_S = 0.5
TWINS = Randomisation(
    mass_scale=Spread(uniform=(0.8, 1.5)),
    friction_scale=Spread(log_uniform=(0.5, 1.5)),
    gain_linear=Spread(uniform=(0.85, 1.1)),
    gain_angular=Spread(uniform=(0.85, 1.1)),
    actuation_delay_s=Spread(uniform=(0.0, 0.15)),
    observation_delay_s=Spread(uniform=(0.0, 0.1)),
    lag_s=Spread(uniform=(0.0, 0.12)),
    linear_velocity_std=0.01,
    angular_velocity_std=0.02,
)
ABSOLUTE = (DELAY, "lag_s")
"""Parameters whose errors are in s; the others' are relative."""


def make_drive(spec: RobotSpec, parameters: TwinParameters, seconds: float, seed: int) -> Drive:
    """Return what a recorder in lock-step hears of a drive by random commands."""
    backend, rng = make_backend(spec, lambda _: CLEAR, lambda _: parameters), np.random.default_rng(seed)
    period_s, held = spec.period_ns * 1e-9, round(HOLD_S * spec.control_rate_hz)
    state, command = backend.reset(seed), spec.command_stop
    told, motion = [], [(state.linear_velocity[0], state.angular_velocity[2])]
    for step in range(round(seconds * spec.control_rate_hz)):
        if step % held == 0:
            command = rng.uniform(spec.command_lower, spec.command_upper)
        state = backend.step(command).state
        told.append(command)
        motion.append((state.linear_velocity[0], state.angular_velocity[2]))
    backend.close()
    times = period_s * np.arange(len(motion))
    return Drive(times[:-1], np.array(told), times, np.array(motion), True)


def true_values(parameters: TwinParameters, substep_s: float) -> dict[str, float]:
    """Return what there is to be found; delays count in whole substeps."""
    substeps = sum(round(getattr(parameters, f"{which}_delay_s") / substep_s) for which in ("actuation", "observation"))
    names = [name for name in (*FITTED, *TRIED) if name != DELAY]
    return {DELAY: substeps * substep_s, **{name: getattr(parameters, name) for name in names}}


def measure(robot: str, seed: int, seconds: float) -> dict[str, Any]:
    """Return one drive's truth and estimates."""
    spec = load_robot_spec(robot)
    parameters = TWINS.draw(seed)
    drive = make_drive(spec, parameters, seconds, seed)
    begun = time.perf_counter()
    response = TwinResponse(spec, [drive])
    found = Identifier(response, [drive], greatest(spec)).run()
    response.close()
    return {
        "robot": robot,
        "seed": seed,
        "true": true_values(parameters, response.substep_s),
        "found": {name: (its.value, its.low, its.high) for name, its in found.estimates.items()},
        "before": found.error_before.tolist(),
        "after": found.error_after.tolist(),
        "wall_s": time.perf_counter() - begun,
    }


def request_of(robot: str, seed: int, seconds: float) -> dict[str, Any]:
    """Return what a drive's figures depend on, as JSON has it."""
    twins, spec_hash = TWINS.model_dump(mode="json"), load_robot_spec(robot).hash
    drive = {"robot": robot, "seed": seed, "seconds": seconds, "hold_s": HOLD_S}
    return {**drive, "twins": twins, "spec_hash": spec_hash}


def kept_measure(runs: Path | None, robot: str, seed: int, seconds: float) -> dict[str, Any]:
    """Return one drive's truth and estimates, from ``runs`` if it was asked for there before."""
    if runs is None:
        return measure(robot, seed, seconds)
    file = runs / f"{robot}_{seed}_{seconds:g}.json"
    return keep(file, request_of(robot, seed, seconds), lambda: measure(robot, seed, seconds))


def summarise(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return a robot's figures over its drives."""
    figures: dict[str, Any] = {"drives": len(rows)}
    for name in (*FITTED, *TRIED):
        told = [(row["true"][name], *row["found"][name]) for row in rows if row["found"][name][0] is not None]
        figures[name] = {"told": len(told)}
        if told:
            errors = [abs(value - true) / (1.0 if name in ABSOLUTE else true) for true, value, _, _ in told]
            figures[name] |= {
                "error_mean": float(np.mean(errors)),
                "error_most": float(np.max(errors)),
                "half_width_mean": float(np.mean([(high - low) / 2.0 for _, _, low, high in told])),
                "held_by_interval": sum(low <= true <= high for true, _, low, high in told),
            }
    for which in ("before", "after"):
        figures[f"error_{which}"] = np.mean([row[which] for row in rows], axis=0).tolist()
    figures["wall_s"] = float(np.median([row["wall_s"] for row in rows]))
    return figures


def main(argv: Sequence[str] | None = None) -> None:
    """Identify every robot's twins."""
    parser = make_parser(__doc__)
    parser.add_argument("--drives", type=int, default=12, help="twins per robot")
    parser.add_argument("--seconds", type=float, default=60.0, help="length of a drive")
    parser.add_argument("--runs", type=Path, help="keep finished drives here and go on where they were")
    options = parser.parse_args(argv)
    drives, seconds = (1, 12.0) if options.quick else (options.drives, options.seconds)
    rows: list[dict[str, Any]] = []
    for seed in range(drives):
        for robot in ROBOTS:
            rows.append(kept_measure(options.runs, robot, seed, seconds))
            progress(f"{robot} {seed}: {rows[-1]['wall_s']:.1f} s")
    figures = {robot: summarise([row for row in rows if row["robot"] == robot]) for robot in ROBOTS}
    rover = figures["rover"]
    targets = [
        target("rover: greatest error of the delay, s", rover[DELAY].get("error_most", np.nan), 0.015),
        target("rover: greatest error of the linear gain", rover["gain_linear"].get("error_most", np.nan), 0.01),
        target("rover: greatest error of the angular gain", rover["gain_angular"].get("error_most", np.nan), 0.02),
    ]
    finish("identify", figures, targets, list(range(drives)), options)


if __name__ == "__main__":
    main()
