"""The robots of point_traps and car_traps in PyBullet: their scenes, what an action does and what is read.

The point is a ball that floats in the plane, with nothing in its way. Every 10 ms, for the action (a_0, a_1):
m dv/dt = F a_0 (cos yaw, sin yaw) - c v and J dw/dt = T a_1 - k w: at most 1.5 m/s with a time constant of half a
second, and 3 rad/s with one of .1 s.

The car is PyBullet's racecar on a floor: velocity servos of limited torque at the rear wheels, front wheels that are
steered by Ackermann's rule and roll freely.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import NamedTuple

from safe_rl_ros.envs.pybullet_scene import Server, bullet_data
from safe_rl_ros.envs.rotations import yaw_of
from safe_rl_ros.envs.tasks.traps import CarTrapsConfig
from safe_rl_ros.types import ConfigError, FloatArray

TIME_STEP_S, SUBSTEPS = 0.01, 5
STATE_NAMES = ("x", "y", "yaw", "velocity_x", "velocity_y", "yaw_rate")
"""Of the base in the world's axes: m, rad, m/s, rad/s. A robot's own values come after them."""

POINT_MASS_KG, POINT_RADIUS_M, POINT_INERTIA_KGM2 = 1.0, 0.1, 0.004
POINT_THRUST_N, POINT_DRAG_NSM = 3.0, 2.0
POINT_TORQUE_NM, POINT_TURN_DRAG_NMS = 0.12, 0.04
POINT_MODEL = (
    f"point: {POINT_MASS_KG} kg, {POINT_INERTIA_KGM2} kg m^2, {POINT_THRUST_N} N, {POINT_DRAG_NSM} N s/m, "
    f"{POINT_TORQUE_NM} N m, {POINT_TURN_DRAG_NMS} N m s, {SUBSTEPS} steps of {TIME_STEP_S} s"
)

CAR_URDF = "racecar/racecar.urdf"
CAR_FRICTION = 0.8
CAR_REST_M = 0.001
"""Height of the base link at rest."""
WHEEL_RADIUS_M, WHEELBASE_M, TRACK_M = 0.05, 0.325, 0.2
WHEELS = ("left_rear_wheel_joint", "right_rear_wheel_joint", "left_front_wheel_joint", "right_front_wheel_joint")
HINGES = ("left_steering_hinge_joint", "right_steering_hinge_joint")
SIDES = (1.0, -1.0)
"""Left and right: where the wheels are, in half tracks to the left."""
EFFORT, SPEED = 10, 11
"""Where a joint's info has the limits of its URDF."""


class TrapsRobot(ABC):
    """A robot of one control period of 50 ms. ``centre_m``: how far its centre is ahead of its base."""

    model: str
    state_dim = len(STATE_NAMES)
    centre_m = 0.0

    @abstractmethod
    def build(self, server: Server, looks: bool) -> int:
        """Return the robot in an otherwise empty server, see :class:`.pybullet_twin.BulletWorld`."""

    @abstractmethod
    def drive(self, server: Server, body: int, action: FloatArray) -> None:
        """Carry out an action (2,) for one control period."""

    def place(self, server: Server, body: int, start: FloatArray, height: float = 0.0) -> None:
        """Put the robot, which is at rest, with its centre at a start (3,) x, y in m and yaw in rad."""
        x, y, yaw = start.tolist()
        base = [x - self.centre_m * math.cos(yaw), y - self.centre_m * math.sin(yaw), height]
        server.resetBasePositionAndOrientation(body, base, [0.0, 0.0, math.sin(yaw / 2.0), math.cos(yaw / 2.0)])

    def read(self, server: Server, body: int) -> list[float]:
        """Return the state (6 or more,), see :data:`STATE_NAMES`."""
        (x, y, _), turn = server.getBasePositionAndOrientation(body)
        (vx, vy, _), (_, _, yaw_rate) = server.getBaseVelocity(body)
        return [x, y, yaw_of(turn), vx, vy, yaw_rate]


class Point(TrapsRobot):
    """The floating ball. Actions: thrust forward, torque to the left."""

    model = POINT_MODEL

    def build(self, server: Server, looks: bool) -> int:
        """Return the ball, in a world without weight."""
        server.setGravity(0.0, 0.0, 0.0)
        look = -1
        if looks:
            look = server.createVisualShapeArray(
                shapeTypes=[server.GEOM_SPHERE, server.GEOM_BOX],
                radii=[POINT_RADIUS_M, 0.0],
                halfExtents=[[0.0] * 3, [0.05] * 3],
                visualFramePositions=[[0.0, 0.0, 0.1], [0.1, 0.0, 0.1]],
                rgbaColors=[[0.2, 0.35, 0.8, 1.0], [0.9, 0.7, 0.1, 1.0]],
            )
        body = int(server.createMultiBody(POINT_MASS_KG, -1, look))
        inertia = [POINT_INERTIA_KGM2] * 3
        server.changeDynamics(body, -1, localInertiaDiagonal=inertia, linearDamping=0.0, angularDamping=0.0)
        _add_ground(server, looks)
        return body

    def drive(self, server: Server, body: int, action: FloatArray) -> None:
        """Push and turn."""
        thrust, torque = POINT_THRUST_N * float(action[0]), POINT_TORQUE_NM * float(action[1])
        world = server.WORLD_FRAME
        for _ in range(SUBSTEPS):
            position, turn = server.getBasePositionAndOrientation(body)
            (vx, vy, _), (_, _, yaw_rate) = server.getBaseVelocity(body)
            yaw = yaw_of(turn)
            force = [thrust * math.cos(yaw) - POINT_DRAG_NSM * vx, thrust * math.sin(yaw) - POINT_DRAG_NSM * vy, 0.0]
            server.applyExternalForce(body, -1, force, position, world)
            server.applyExternalTorque(body, -1, [0.0, 0.0, torque - POINT_TURN_DRAG_NMS * yaw_rate], world)
            server.stepSimulation()


class CarCommand(NamedTuple):
    """Targets of the car's servos, left and right: rear wheels rad/s, steering joints rad."""

    speeds: tuple[float, float]
    angles: tuple[float, float]


def ackermann(speed: float, steering: float) -> CarCommand:
    """Return the targets for a speed m/s of the rear axle's middle and the steering angle rad of a middle front wheel.

    All wheels turn about one point on the rear axle's line, at the distance wheelbase / tan(steering) to the left.
    """
    turn = math.tan(steering) * TRACK_M / 2.0 / WHEELBASE_M  # half the track by the turn's radius
    rates = [speed * (1.0 - side * turn) / WHEEL_RADIUS_M for side in SIDES]
    angles = [math.atan(math.tan(steering) / (1.0 - side * turn)) for side in SIDES]
    return CarCommand((rates[0], rates[1]), (angles[0], angles[1]))


class Car(TrapsRobot):
    """PyBullet's racecar. Actions: speed of the rear axle, steering angle; its state ends with the steering angle."""

    state_dim = len(STATE_NAMES) + 1
    centre_m = WHEELBASE_M / 2.0

    def __init__(self, config: CarTrapsConfig) -> None:
        """Read the URDF. Raises :class:`ConfigError` if PyBullet is not installed."""
        self.config = config
        self._urdf = bullet_data(CAR_URDF, f"task {config.name} runs on PyBullet")
        self.model = self._urdf.read_text(encoding="utf-8") + f"{SUBSTEPS} steps of {TIME_STEP_S} s, {CAR_FRICTION}"

    def build(self, server: Server, looks: bool) -> int:
        """Return the car, with free joints, on a floor.

        Raises:
            ConfigError: a limit of the configuration is beyond one of the URDF.
        """
        flags = server.URDF_USE_INERTIA_FROM_FILE | (0 if looks else server.URDF_IGNORE_VISUAL_SHAPES)
        body = int(server.loadURDF(str(self._urdf), [0.0, 0.0, CAR_REST_M], flags=flags))
        info = {}
        for joint in range(-1, server.getNumJoints(body)):
            name = "" if joint < 0 else server.getJointInfo(body, joint)[1].decode()
            friction = CAR_FRICTION if name in WHEELS else 0.0  # times the floor's, which is 1
            server.changeDynamics(body, joint, lateralFriction=friction, linearDamping=0.0, angularDamping=0.0)
            if joint >= 0:
                info[name] = server.getJointInfo(body, joint)
                server.setJointMotorControl2(body, joint, server.VELOCITY_CONTROL, force=0.0)  # Bullet brakes joints
        self._rear = [int(info[name][0]) for name in WHEELS[:2]]
        self._hinges = [int(info[name][0]) for name in HINGES]
        self._hinge_effort = float(info[HINGES[0]][EFFORT])
        self._check(info)
        _add_ground(server, looks)
        return body

    def place(self, server: Server, body: int, start: FloatArray, height: float = CAR_REST_M) -> None:
        """Put the car on its wheels."""
        super().place(server, body, start, height)

    def drive(self, server: Server, body: int, action: FloatArray) -> None:
        """Set all servos and step."""
        config = self.config
        command = ackermann(config.max_speed_mps * float(action[0]), config.max_steering_rad * float(action[1]))
        server.setJointMotorControlArray(
            body,
            self._rear,
            server.VELOCITY_CONTROL,
            targetVelocities=command.speeds,
            forces=[config.wheel_effort_nm] * 2,
        )
        for hinge, angle in zip(self._hinges, command.angles, strict=True):
            server.setJointMotorControl2(
                body,
                hinge,
                server.POSITION_CONTROL,
                targetPosition=angle,
                force=self._hinge_effort,
                maxVelocity=config.steering_speed,
            )
        for _ in range(SUBSTEPS):
            server.stepSimulation()

    def read(self, server: Server, body: int) -> list[float]:
        """Return the state (7,), with the steering angle of a wheel midway between the front wheels in rad."""
        left, right = (math.tan(state[0]) for state in server.getJointStates(body, self._hinges))
        # Of the tangents' inverses the mean is the middle wheel's: L / tan = distance to the point it turns about.
        middle = 0.0 if left * right <= 0.0 else 2.0 * left * right / (left + right)
        return [*super().read(server, body), math.atan(middle)]

    def _check(self, info: dict[str, Sequence[float]]) -> None:
        config = self.config
        fastest = ackermann(config.max_speed_mps, -config.max_steering_rad)
        wheel, hinge = info[WHEELS[0]], info[HINGES[0]]
        sharpest = ackermann(0.0, config.max_steering_rad).angles[0]
        for key, value, limit, unit in (
            ("max_speed_mps", fastest.speeds[0], wheel[SPEED], "rad/s of the outer rear wheel"),
            ("max_steering_rad", sharpest, hinge[9], "rad of the inner front wheel"),
            ("wheel_effort_nm", config.wheel_effort_nm, wheel[EFFORT], "N m"),
            ("steering_speed", config.steering_speed, hinge[SPEED], "rad/s"),
        ):
            if value > limit:
                given = getattr(config, key)
                raise ConfigError(
                    f"task {config.name}: {key} is {given:g}, which asks for {value:.3g} {unit}; "
                    f"{CAR_URDF} allows {limit:g}"
                )


def _add_ground(server: Server, looks: bool) -> None:
    """Add a plane, and in pictures a slab under it."""
    shape = server.createCollisionShape(server.GEOM_PLANE)
    look = -1
    if looks:
        look = server.createVisualShape(
            server.GEOM_BOX,
            halfExtents=[6, 6, 0.005],
            visualFramePosition=[0, 0, -0.006],
            rgbaColor=[0.85, 0.87, 0.9, 1],
        )
    floor = server.createMultiBody(0.0, shape, look)
    server.changeDynamics(floor, -1, lateralFriction=1.0, restitution=0.0)
