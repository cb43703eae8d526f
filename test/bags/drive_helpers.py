"""Bags of drives of a twin whose parameters are known, for the tests of identification."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from import_helpers import EPOCH_NS, MESSAGES, MS, SPEC, Stream

from safe_rl_ros.bags.base_model import CLEAR
from safe_rl_ros.envs.robot_spec import RobotSpec
from safe_rl_ros.envs.twin_parameters import NEUTRAL, TwinParameters
from safe_rl_ros.envs.twins import make_backend
from safe_rl_ros.types import FloatArray, RobotState

CONTRACT = "robot: rover\ntask: hazard_nav\nmargin: [{source: scan}]\n"


def commands(spec: RobotSpec, seconds: float, seed: int, hold_s: float = 0.5, full: bool = False) -> FloatArray:
    """Return random commands (N, C), one per control period, each held for a while; ``full`` ones are the limits."""
    rng, count = np.random.default_rng(seed), round(seconds * spec.control_rate_hz)
    held = round(hold_s * spec.control_rate_hz)
    drawn = rng.uniform(spec.command_lower, spec.command_upper, (count // held + 1, spec.act_dim))
    if full:
        middle = 0.5 * (spec.command_lower + spec.command_upper)
        drawn = np.where(drawn < middle, spec.command_lower, spec.command_upper)
    return np.repeat(drawn, held, axis=0)[:count]


def record_drive(
    path: Path,
    parameters: TwinParameters = NEUTRAL,
    *,
    seconds: float = 40.0,
    seed: int = 0,
    late_ms: float = 0.0,
    scale: tuple[float, float] = (1.0, 1.0),
    full: bool = False,
    spec: RobotSpec = SPEC,
) -> Path:
    """Write a bag of the rover's commands and odometry: two drives, as of two resets.

    Messages arrive when their stamp says, a command 0 to ``late_ms`` later, as a recorder might hear it. ``scale`` is
    of the commands, which are the limits alone where they are to be ``full``; ``spec`` is of a rover of another make.
    """
    backend, rng = make_backend(spec, lambda _: CLEAR, lambda _: parameters), np.random.default_rng(seed)
    stream, told = Stream(), commands(spec, seconds, seed, full=full) * np.array(scale)
    for index, part in enumerate(np.array_split(told, 2)):
        state = backend.reset(seed + index)
        add_odometry(stream, state)
        for command in part:
            at_ns = EPOCH_NS + state.stamp_ns + int(rng.uniform(0.0, late_ms) * MS)
            stream.command(at_ns, *command, stamp_ns=EPOCH_NS + state.stamp_ns)
            state = backend.step(command).state
            add_odometry(stream, state)
    backend.close()
    return stream.write(path)


def add_odometry(stream: Stream, state: RobotState) -> None:
    """Add the odometry of a state, that arrives at its stamp."""
    at_ns = EPOCH_NS + state.stamp_ns
    message = MESSAGES.odom(at_ns, state.position[0], state.linear_velocity[0])
    message.twist.twist.angular.z = float(state.angular_velocity[2])
    stream.add("/odom", at_ns, message)
