"""``half_cheetah`` as a vector environment, on the model that Gymnasium ships."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gymnasium
import mujoco
import numpy as np
import numpy.typing as npt

from safe_rl_ros.envs.tasks.half_cheetah import (
    HalfCheetahConfig,
    forward_reward,
    pitch_margin,
    velocity_margin,
)
from safe_rl_ros.envs.tasks.sigmoid_cost import sigmoid_cost
from safe_rl_ros.envs.vector.base import Outcome, Rows, TwinInfo, VectorTwin
from safe_rl_ros.envs.vector.painter import Painter
from safe_rl_ros.envs.vector.physics import RolloutPhysics
from safe_rl_ros.types import ConfigError, FloatArray

FRAME_SKIP = 5
PITCH = 2  # joint positions: x, z, pitch, then three joints of each leg

_LEGS = ("back_thigh", "back_shin", "back_foot", "front_thigh", "front_shin", "front_foot")
OBS_NAMES = (
    *("height", "pitch", *(f"{joint}_angle" for joint in _LEGS)),
    *("velocity_x", "velocity_z", "pitch_rate", *(f"{joint}_rate" for joint in _LEGS)),
)


def cheetah_xml() -> str:
    """Return the MJCF of the half cheetah in the installed Gymnasium. Raises :class:`ConfigError` without it."""
    path = Path(gymnasium.__file__).parent / "envs" / "mujoco" / "assets" / "half_cheetah.xml"
    if not path.is_file():
        raise ConfigError(f"{path} does not exist; the installed gymnasium has no MuJoCo assets")
    return path.read_text(encoding="utf-8")


def cheetah_model(xml: str) -> Any:
    """Return the compiled model (``mujoco.MjModel``).

    The file asks the compiler for a total mass, which MuJoCo complains about on standard error and in a log file; the
    masses are scaled afterwards instead, to the same numbers.
    """
    spec = mujoco.MjSpec.from_string(xml)
    mass = float(spec.compiler.settotalmass)
    spec.compiler.settotalmass = -1.0  # leave the masses alone
    model = spec.compile()
    if mass > 0.0:
        mujoco.mj_setTotalmass(model, mass)
        mujoco.mj_setConst(model, mujoco.MjData(model))
    return model


class HalfCheetahTwin(VectorTwin):
    """N half cheetahs."""

    def __init__(self, config: HalfCheetahConfig, num_envs: int, threads: int = 1, *, autoreset: bool = True) -> None:
        """Compile the model and allocate N states; see :class:`VectorTwin` for the arguments."""
        xml = cheetah_xml()
        model = cheetah_model(xml)
        info = TwinInfo(
            config=config,
            model=xml,
            obs_names=OBS_NAMES,
            act_dim=len(_LEGS),
            control_rate_hz=1.0 / (FRAME_SKIP * float(model.opt.timestep)),
            max_episode_steps=config.max_episode_steps,
        )
        super().__init__(info, num_envs, autoreset=autoreset)
        self.task = config
        self.physics = RolloutPhysics(model, FRAME_SKIP, num_envs, threads)
        self._painter = Painter(model, distance_m=4.0, elevation_deg=-20.0)
        self._period_s = self.physics.period_s
        self._register(physics=self.physics.state)

    def close_extras(self, **kwargs: Any) -> None:
        """Stop the physics' threads and release the renderer."""
        self.physics.close()
        self._painter.close()

    def picture(self, index: int = 0) -> npt.NDArray[np.uint8]:
        """Return a picture (480, 640, 3) of copy ``index`` from its side. See :meth:`VectorTwin.picture`."""
        centre = (float(self.physics.qpos[index, 0]), 0.0, 0.5)
        return self._painter.paint(self.physics.data_of(index), centre)

    def _begin(self, index: int, rng: np.random.Generator) -> None:
        physics, noise = self.physics, self.task.reset_noise
        physics.state[index] = physics.initial
        physics.qpos[index] += rng.uniform(-noise, noise, physics.model.nq)
        physics.qvel[index] += noise * rng.standard_normal(physics.model.nv)

    def _advance(self, actions: FloatArray) -> Outcome:
        qpos = self.physics.qpos
        before = qpos[:, 0].copy()
        self.physics.advance(actions)
        velocity = (qpos[:, 0] - before) / self._period_s
        if self.task.cost == "velocity":
            margin = velocity_margin(velocity, self.task.velocity_limit)
        else:
            margin = pitch_margin(qpos[:, PITCH].copy(), self.task.pitch_limit_rad)
        return Outcome(
            reward=forward_reward(self.task, velocity, actions),
            cost=sigmoid_cost(margin, self.task.cost_slope),
            margin=margin,
            terminated=np.zeros(self.num_envs, np.bool_),
            goal_reached=np.zeros(self.num_envs, np.bool_),
        )

    def _observe(self, rows: Rows) -> FloatArray:
        return self.physics.state[rows, 2:]  # all but time and x


def make_half_cheetah(
    config: HalfCheetahConfig, num_envs: int, threads: int = 1, *, autoreset: bool = True
) -> HalfCheetahTwin:
    """Return N half cheetahs."""
    return HalfCheetahTwin(config, num_envs, threads, autoreset=autoreset)
