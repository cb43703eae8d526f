"""What is MuJoCo's own of its twin; what all twins share is in test_backend_contract."""

from pathlib import Path

import numpy as np
import pytest
from twin_helpers import FAR, fixed, spec_of, write_rover

from safe_rl_ros.envs.mujoco_backend import MujocoBackend
from safe_rl_ros.types import BackendError, ConfigError

SPEC = spec_of("rover", "mujoco")


def test_diverged_physics_is_an_error_and_no_silent_reset(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)  # MuJoCo writes a log file where it runs
    backend = MujocoBackend(SPEC, fixed(FAR))
    backend.reset(0)
    backend._data.qvel[0] = 1e200
    with pytest.raises(BackendError, match="diverged"):
        backend.step(np.zeros(2))


def test_a_urdf_that_mujoco_cannot_use_is_one_config_error(tmp_path: Path):
    spec = write_rover(tmp_path, "mujoco", ('<mass value="0.5"/>', '<mass value="-0.5"/>'))
    with pytest.raises(ConfigError, match=r"MuJoCo cannot use the URDF .*rover\.urdf"):
        MujocoBackend(spec, fixed(FAR))
