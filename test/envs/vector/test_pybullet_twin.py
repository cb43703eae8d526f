"""What all tasks on PyBullet share: servers, resets, stored states, divergence and pictures, on a ball in a box."""

import gc
import subprocess
import sys
from typing import Literal

import gymnasium
import numpy as np
import pytest

pybullet = pytest.importorskip("pybullet")

from safe_rl_ros.config import StrictModel  # noqa: E402
from safe_rl_ros.envs.vector.base import Outcome, TwinInfo  # noqa: E402
from safe_rl_ros.envs.vector.marks import Mark  # noqa: E402
from safe_rl_ros.envs.vector.pybullet_twin import BulletTwin, BulletWorld, View  # noqa: E402
from safe_rl_ros.types import BackendError, ConfigError  # noqa: E402


class ToyConfig(StrictModel):
    name: Literal["toy"] = "toy"


def build(server, looks):
    """A floor and two boxes."""
    assert server.createMultiBody(0.0, server.createCollisionShape(server.GEOM_PLANE)) == 0
    boxes = []
    for half in ([0.1, 0.1, 0.1], [0.05, 0.2, 0.05]):  # m
        shape = server.createCollisionShape(server.GEOM_BOX, halfExtents=half)
        look = (
            server.createVisualShape(server.GEOM_BOX, halfExtents=half, rgbaColor=[0.1, 0.1, 0.9, 1]) if looks else -1
        )
        boxes.append(server.createMultiBody(1.0, shape, look, [0.0, 0.0, 0.2 * len(boxes) + 0.1]))
    return tuple(boxes)


class Toy(BulletTwin[tuple[int, ...]]):
    """Boxes pushed sideways by two forces; they tumble over each other, always in contact."""

    marks = (Mark(0.5, 0.0, 0.2, 0.02, (0.9, 0.1, 0.1, 1.0)), Mark(-0.5, 0.0, 0.2, 0.02, (0.1, 0.9, 0.1, 1.0), 0.1))

    def __init__(self, num_envs=1, steps=30, fail_at=np.inf, **more):
        bounds = np.full(26, 50.0)
        world = BulletWorld(build, bounds, time_step_s=0.01, substeps=5, view=View(3.0, elevation_deg=-40.0))
        info = TwinInfo(ToyConfig(), "toy", ("x", "y", "z"), 2, 20.0, steps)
        super().__init__(info, world, num_envs, **more)

    def _place(self, index, rng):
        place = self._servers[index].resetBasePositionAndOrientation
        for box, height in zip(self.scene, (0.1, 0.25), strict=True):  # at rest on the floor, and on the other one
            place(box, [*rng.uniform(-0.1, 0.1, 2), height], [0.0, 0.0, 0.0, 1.0])

    def _drive(self, index, action):
        server = self._servers[index]
        for _ in range(self.world.substeps):
            for box, push in zip(self.scene, action, strict=True):
                force = [14.0 * push, 0.0, 4.0]
                server.applyExternalForce(box, -1, force, [0.0, 0.0, 0.02], server.LINK_FRAME)
            server.stepSimulation()

    def _read(self, index):
        server = self._servers[index]
        parts = [(*server.getBasePositionAndOrientation(box), *server.getBaseVelocity(box)) for box in self.scene]
        return [value for part in parts for values in part for value in values]

    def _judge(self, actions):
        none = np.zeros(self.num_envs, np.bool_)
        return Outcome(self.states[:, 0].copy(), np.zeros(self.num_envs), np.ones(self.num_envs), none, none.copy())

    def _observe(self, rows):
        return self.states[rows, :3]

    def _marks(self, index):
        return self.marks


def roll(twin, steps, seed=0):
    rng = np.random.default_rng(seed)
    rows = []
    for _ in range(steps):
        twin.step(rng.uniform(-1.0, 1.0, (8, 2))[: twin.num_envs])
        rows.append(twin.states.copy())
    return np.array(rows)


def test_an_episode_begins_and_goes_the_same_whatever_was_before():
    fresh, used = Toy(steps=60), Toy(steps=60)
    fresh.reset(seed=5)
    expected = roll(fresh, 55)
    assert np.ptp(expected[:, 0, :13], axis=0)[3:7].max() > 0.02  # the lower box rocks
    for seed, steps in ((3, 47), (5, 0), (5, 1), (5, 2), (5, 5)):  # so that they lie where they lay before, too
        used.reset(seed=seed)
        roll(used, steps, seed=9)
        used.reset(seed=5)
        np.testing.assert_array_equal(roll(used, 55), expected)


def test_every_copy_is_on_its_own():
    several, one = Toy(3, steps=20), Toy(1, steps=20)
    several.reset(seed=1)
    one.reset(seed=1)
    np.testing.assert_array_equal(roll(several, 50)[:, :1], roll(one, 50))


def test_a_stored_state_is_played_again_and_goes_on_bit_for_bit():
    twin = Toy(2, steps=25)
    twin.reset(seed=2)
    roll(twin, 40)  # 15 steps into the second episode
    state = twin.state_dict()
    np.testing.assert_array_equal(state["played"], [15, 15])
    expected = roll(twin, 30, seed=4)
    for other in (Toy(2, steps=25), twin):
        other.load_state_dict(state)
        assert all(np.array_equal(value, state[name]) for name, value in other.state_dict().items())
        np.testing.assert_array_equal(roll(other, 30, seed=4), expected)


def test_a_state_before_the_first_reset_is_one_too():
    twin = Toy(2)
    twin.load_state_dict(Toy(2).state_dict())
    with pytest.raises(gymnasium.error.ResetNeeded):
        twin.step(np.zeros((2, 2)))


def test_physics_that_do_not_come_back_are_refused():
    twin = Toy(2)
    twin.reset(seed=2)
    roll(twin, 5)
    state = twin.state_dict()
    state["history"][1, 2] += 1e-6
    with pytest.raises(BackendError, match=r"copies \[1\] did not come back as they were stored"):
        twin.load_state_dict(state)
    with pytest.raises(gymnasium.error.ResetNeeded):
        twin.step(np.zeros((2, 2)))
    with pytest.raises(ValueError, match=r"state played is \[5, 99\], expected 0 to 30"):
        twin.load_state_dict(state | {"played": np.array([5, 99])})


@pytest.mark.parametrize("speed", [1e200, np.nan])
def test_after_diverged_physics_a_reset_is_as_good_as_new(speed):
    fresh, twin = Toy(2), Toy(2)
    twin.reset(seed=0)
    twin._servers[1].resetBaseVelocity(1, [speed, 0.0, 0.0])
    with pytest.raises(BackendError, match=r"copies \[1\] diverged"):
        twin.step(np.zeros((2, 2)))
    with pytest.raises(gymnasium.error.ResetNeeded):
        twin.step(np.zeros((2, 2)))
    twin.reset(seed=6)
    fresh.reset(seed=6)
    np.testing.assert_array_equal(roll(twin, 25), roll(fresh, 25))


def test_servers_are_given_back():
    closed, dropped = Toy(2), Toy(2)
    closed.reset(seed=0)
    closed.picture()
    servers = [[server.id for server in twin._servers] for twin in (closed, dropped)]
    servers[0].append(closed._painter._server.id)
    closed.close()
    closed.close()
    assert not any(pybullet.isConnected(server) for server in servers[0])
    assert all(pybullet.isConnected(server) for server in servers[1])
    for call in (closed.reset, closed.picture, lambda: closed.step(np.zeros((2, 2)))):
        with pytest.raises(BackendError, match="closed"):
            call()
    del dropped
    gc.collect()
    assert not any(pybullet.isConnected(server) for server in servers[1])


def test_a_scene_that_cannot_be_built_gives_its_servers_back(monkeypatch):
    opened = []
    connect = pybullet.connect
    monkeypatch.setattr(pybullet, "connect", lambda mode: opened.append(connect(mode)) or opened[-1])
    monkeypatch.setattr(pybullet, "saveState", lambda physicsClientId: int("x") if len(opened) == 2 else 0)
    with pytest.raises(ValueError, match="invalid literal"):
        Toy(3)
    assert len(opened) == 2
    assert not any(pybullet.isConnected(server) for server in opened)


def test_a_picture_shows_scene_and_marks_and_changes_nothing():
    twin, other = Toy(), Toy()
    twin.reset(seed=0)
    other.reset(seed=0)
    roll(twin, 5)
    roll(other, 5)
    first = twin.picture()
    assert (first.shape, first.dtype) == ((480, 640, 3), np.uint8)
    red, green, blue = first.reshape(-1, 3).T.astype(int)
    for ours, theirs in ((red, green), (green, red), (blue, red)):
        assert (ours > theirs + 60).sum() > 300
    np.testing.assert_array_equal(roll(twin, 10, seed=1), roll(other, 10, seed=1))
    twin.marks = twin.marks[1:]
    red, green, blue = twin.picture().reshape(-1, 3).T.astype(int)
    assert (red > green + 60).sum() == 0
    assert (green > red + 60).sum() > 300


def test_without_pybullet_one_error_names_the_extra():
    code = (
        "import sys; sys.modules['pybullet'] = None; sys.path.insert(0, 'test/envs/vector')\n"
        "from safe_rl_ros.envs.pybullet_scene import Server, bullet_data\n"
        "from safe_rl_ros.types import ConfigError\n"
        "try: Server('task toy runs on PyBullet')\n"
        "except ConfigError as error: print(error)\n"
        "sys.modules['pybullet_data'] = None\n"
        "try: bullet_data('plane.urdf', 'task toy runs on PyBullet')\n"
        "except ConfigError as error: print(error)\n"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    line = "task toy runs on PyBullet, which is not installed: pip install 'safe_rl_ros[pybullet]'\n"
    assert result.stdout == 2 * line, result.stderr


def test_no_free_server(monkeypatch):
    monkeypatch.setattr(pybullet, "connect", lambda mode: -1)
    with pytest.raises(ConfigError, match="no free physics server"):
        Toy()
