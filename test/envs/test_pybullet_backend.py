"""What is PyBullet's own of its twin; what all twins share is in test_backend_contract."""

import gc
import subprocess
import sys

import numpy as np
import pytest
from twin_helpers import FAR, assert_same, drive, episode, fixed, nav_layout, spec_of

pybullet = pytest.importorskip("pybullet")

from safe_rl_ros.envs.pybullet_backend import PybulletBackend  # noqa: E402
from safe_rl_ros.types import BackendError, ConfigError  # noqa: E402

SPEC = spec_of("rover", "pybullet")


def with_twin(**changes: float) -> object:
    return SPEC.model_copy(update={"twin": SPEC.twin.model_copy(update=changes)})


@pytest.mark.parametrize("speed", [1e200, np.nan])
def test_after_diverged_physics_a_reset_is_as_good_as_new(speed: float):
    fresh = episode(PybulletBackend(SPEC, nav_layout(SPEC)), 5)
    backend = PybulletBackend(SPEC, nav_layout(SPEC))
    backend.reset(0)
    backend._server.resetBaseVelocity(backend._scene.robot, [speed, 0.0, 0.0], [0.0, 0.0, 0.0])
    with pytest.raises(BackendError, match="diverged"):
        backend.step(np.zeros(2))
    for first, second in zip(fresh, episode(backend, 5), strict=True):
        assert_same(first, second)


@pytest.mark.parametrize("name", ["rover", "jackal"])
def test_a_reset_to_about_where_the_robot_is_forgets_its_contacts(name: str):
    spec = spec_of(name, "pybullet")
    fresh = episode(PybulletBackend(spec, nav_layout(spec)), 5)
    for steps in (1, 2):
        backend = PybulletBackend(spec, nav_layout(spec))
        backend.reset(5)
        for _ in range(steps):
            backend.step(np.array([0.6, 0.3]))
        for first, second in zip(fresh, episode(backend, 5), strict=True):
            assert_same(first, second)


def test_every_twin_has_a_server_of_its_own_and_gives_it_back():
    backend, other = (PybulletBackend(SPEC, fixed(FAR)) for _ in range(2))
    first, second = backend._server.id, other._server.id
    assert first != second
    backend.close()
    assert not pybullet.isConnected(first)
    assert pybullet.isConnected(second)
    del backend, other
    gc.collect()
    assert not pybullet.isConnected(second)


def test_a_twin_that_cannot_be_built_gives_its_server_back(monkeypatch: pytest.MonkeyPatch):
    opened = []
    connect = pybullet.connect
    monkeypatch.setattr(pybullet, "connect", lambda mode: opened.append(connect(mode)) or opened[-1])
    with pytest.raises(ConfigError, match=r"robot rover: twin\.wheel_servo_nms 1e\+06 is too stiff for PyBullet"):
        PybulletBackend(with_twin(wheel_servo_nms=1e6), fixed(FAR))
    assert len(opened) == 1
    assert not pybullet.isConnected(opened[0])


def test_physics_steps_are_short_enough_for_the_servo():
    # 10 N m s / rad over 0.052 kg m^2 corrects the error in 5.2 ms; a substep is 10 ms.
    assert PybulletBackend(SPEC, fixed(FAR))._scene.splits == 2
    assert PybulletBackend(with_twin(wheel_servo_nms=5.0), fixed(FAR))._scene.splits == 1
    assert PybulletBackend(with_twin(wheel_rotor_kgm2=0.0), fixed(FAR))._scene.splits == 50


def test_friction_gain_and_effort_of_the_spec_count():
    starts = {}
    for name, twin in (("as it is", {}), ("slippery", {"wheel_friction": 0.1}), ("weak", {"wheel_servo_nms": 0.3})):
        backend = PybulletBackend(with_twin(**twin), fixed(FAR))
        backend.reset(0)
        starts[name] = drive(backend, (1.0, 0.0), 5)
    assert starts["as it is"].linear_velocity[0] == pytest.approx(1.0, abs=0.02)
    # Friction 0.1 on the wheels' share of the weight gives at most 0.98 m/s^2.
    assert 0.3 < starts["slippery"].linear_velocity[0] < 0.5
    assert starts["slippery"].joint_velocity[0] > 8.0
    assert starts["weak"].linear_velocity[0] < 0.8


def test_pictures_show_robot_hazards_and_goal():
    backend = PybulletBackend(SPEC, fixed((0.0, 1.0, 0.3)))
    backend.reset(0)
    picture = backend.render()
    assert picture.shape == (480, 640, 3)
    assert picture.dtype == np.uint8
    red, green, blue = (picture[..., index].astype(int) for index in range(3))
    assert ((red > 120) & (green < 80) & (blue < 80)).sum() > 500  # the hazard
    assert ((green > 80) & (red < 60) & (blue < 80)).sum() > 50  # the goal
    assert ((red > 120) & (green > 80) & (blue < 60)).sum() > 50  # the rover's body
    backend.set_goal(np.array([-1.0, -1.0]), 0)
    assert (backend.render() != picture).any()


def test_without_pybullet_the_error_says_what_to_install():
    code = (
        "import sys\n"
        "sys.modules['pybullet'] = None\n"
        "from safe_rl_ros.envs.robot_env import make_robot_env\n"
        "from safe_rl_ros.envs.robot_spec import load_robot_spec\n"
        "make_robot_env('rover').close()\n"
        "try:\n"
        "    make_robot_env(load_robot_spec('rover', ['twin.simulator=pybullet']))\n"
        "except Exception as error:\n"
        "    print(type(error).__name__, error)\n"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert shown.stdout.startswith("ConfigError ")
    assert "not installed: pip install 'safe_rl_ros[pybullet]'" in shown.stdout


def test_a_pybullet_twin_does_not_load_mujoco():
    code = (
        "import sys\n"
        "from safe_rl_ros.envs.robot_env import make_robot_env\n"
        "from safe_rl_ros.envs.robot_spec import load_robot_spec\n"
        "make_robot_env(load_robot_spec('rover', ['twin.simulator=pybullet'])).close()\n"
        "print('mujoco' in sys.modules, 'pybullet' in sys.modules)\n"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert shown.stdout.split() == ["False", "True"]
