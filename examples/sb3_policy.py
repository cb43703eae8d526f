"""A policy trained with stable-baselines3, and how to drive the robot with it behind the safety filter.

    pip install stable-baselines3
    python examples/sb3_policy.py train --steps 150000            # writes runs/sb3/ppo.zip
    python examples/sb3_policy.py drive runs/sb3/ppo.zip --ros-args -r cmd_vel:=cmd_vel_policy

The policy knows nothing of the filter: it publishes ``cmd_vel`` as any policy does, and remapping puts the filter in
between. Its observation is built by the package from the same topics, so it is the one that it was trained on.
stable-baselines3 stores models with pickle: load only files that you trust, and only in the policy's own process. The
filter's process never reads them.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from stable_baselines3 import PPO

import safe_rl_ros  # noqa: F401  registers SafeRlRos/HazardNav-v0
from safe_rl_ros.types import Float32Array, FloatArray, RobotState

app = typer.Typer(no_args_is_help=True, add_completion=False, help=__doc__, pretty_exceptions_enable=False)


@app.command()
def train(
    output: Annotated[Path, typer.Argument(help="Where the model goes.")] = Path("runs/sb3/ppo.zip"),
    steps: Annotated[int, typer.Option(min=1, help="Environment steps.")] = 150_000,
    seed: Annotated[int, typer.Option(min=0, help="Seed of networks, layouts and exploration.")] = 0,
) -> None:
    """Train PPO on the twin, without any safety constraint."""
    model = PPO("MlpPolicy", "SafeRlRos/HazardNav-v0", seed=seed, device="cpu", n_steps=2048, gamma=0.97, verbose=1)
    model.learn(total_timesteps=steps)
    output.parent.mkdir(parents=True, exist_ok=True)
    model.save(output)
    typer.echo(f"model: {output}")


@app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def drive(
    context: typer.Context,
    model: Annotated[Path, typer.Argument(exists=True, dir_okay=False, help="A model that train wrote.")],
    episodes: Annotated[int, typer.Option(min=1, help="Episodes before it stops.")] = 5,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the first arena.")] = 0,
) -> None:
    """Drive as a ROS 2 node; arguments after --ros-args go to ROS."""
    from driver_node import drive_episodes

    from safe_rl_ros.envs.observation import CommandMap, Observer
    from safe_rl_ros.envs.robot_spec import load_robot_spec
    from safe_rl_ros.envs.tasks.hazard_nav import load_hazard_nav

    spec = load_robot_spec("rover")
    observer, maps = Observer(spec, load_hazard_nav().observation), CommandMap(spec)
    policy = PPO.load(model, device="cpu")

    def command(state: RobotState, goal: FloatArray) -> FloatArray:
        obs: Float32Array = observer.observe(state, goal)
        action, _ = policy.predict(obs, deterministic=True)
        return maps.to_command(np.clip(action, -1.0, 1.0))

    drive_episodes(command, "sb3_policy", episodes, seed, context.args)


if __name__ == "__main__":
    app()
