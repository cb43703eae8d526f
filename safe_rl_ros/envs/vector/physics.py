"""N physics states of one MuJoCo model, stepped together by ``mujoco.rollout`` on a thread pool.

The solver starts every call cold (no warm start is handed over), so that a step is a pure function of state and
control, whichever thread carries it out and whatever that thread did before.
"""

from __future__ import annotations

from typing import Any

import mujoco
import numpy as np
from mujoco import rollout

from safe_rl_ros.types import ConfigError, FloatArray

STATE = mujoco.mjtState.mjSTATE_FULLPHYSICS
CONTROL = int(mujoco.mjtState.mjSTATE_CTRL)


class RolloutPhysics:
    """States and sensors of N copies. Not thread-safe itself.

    ``state`` (N, S) is time, positions and velocities of every copy (MuJoCo's FULLPHYSICS), to be read and to be
    changed in place; ``qpos`` (N, nq) and ``qvel`` (N, nv) are views of it. ``sensors`` (N, M) are MuJoCo's sensor
    data of the latest :meth:`advance`: they are taken one time step before ``state``, as in any loop over mj_step.
    """

    def __init__(self, model: Any, frame_skip: int, num_envs: int, threads: int = 1) -> None:
        """Allocate everything and start the pool (none for one thread).

        Args:
            model: compiled ``mujoco.MjModel``; its automatic reset is switched off, so that a divergence shows.
            frame_skip: time steps of one control period.
            num_envs: N.
            threads: threads that share the copies.

        Raises:
            ConfigError: a number is not positive.
        """
        for name, value in (("frame_skip", frame_skip), ("num_envs", num_envs), ("env_threads", threads)):
            if value < 1:
                raise ConfigError(f"{name} is {value}, expected at least 1")
        model.opt.disableflags |= int(mujoco.mjtDisableBit.mjDSBL_AUTORESET)
        self.model = model
        self.frame_skip = frame_skip
        self._data: list[Any] = [mujoco.MjData(model) for _ in range(threads)]
        self._pool: Any = rollout.Rollout(nthread=threads if threads > 1 else 0)
        self._models: list[Any] = [model] * num_envs
        size = mujoco.mj_stateSize(model, int(STATE))
        mujoco.mj_resetData(model, self._data[0])
        self.initial: FloatArray = np.empty(size)
        mujoco.mj_getState(model, self._data[0], self.initial, int(STATE))
        self.state: FloatArray = np.tile(self.initial, (num_envs, 1))
        self.qpos: FloatArray = self.state[:, 1 : 1 + model.nq]
        self.qvel: FloatArray = self.state[:, 1 + model.nq : 1 + model.nq + model.nv]
        self.sensors: FloatArray = np.zeros((num_envs, model.nsensordata))
        self._controls: FloatArray = np.empty((num_envs, frame_skip, model.nu))
        self._states: FloatArray = np.empty((num_envs, frame_skip, size))
        self._readings: FloatArray = np.empty((num_envs, frame_skip, model.nsensordata))
        self._chunk = max(1, num_envs // (4 * threads))

    @property
    def period_s(self) -> float:
        """Return the control period in s."""
        return float(self.model.opt.timestep) * self.frame_skip

    def advance(self, control: FloatArray) -> None:
        """Hold control (N, nu) for one control period."""
        self._controls[...] = control[:, None, :]
        self._pool.rollout(
            self._models,
            self._data,
            self.state,
            self._controls,
            skip_checks=True,
            nstep=self.frame_skip,
            state=self._states,
            sensordata=self._readings,
            chunk_size=self._chunk,
        )
        self.state[...] = self._states[:, -1]
        self.sensors[...] = self._readings[:, -1]

    def data_of(self, index: int) -> Any:
        """Return an ``MjData`` (the pool's first) with the state of one copy and its kinematics, for a picture."""
        data = self._data[0]
        mujoco.mj_setState(self.model, data, self.state[index], int(STATE))
        mujoco.mj_forward(self.model, data)
        return data

    def close(self) -> None:
        """Stop the pool. Idempotent."""
        if self._pool is not None:
            self._pool.close()
            self._pool = None
