"""The robots of point_goal and car_goal in MuJoCo. Sizes, masses and limits follow Safety Gym's point and car.

Each has a site ``imu`` at its centre, x forward, with accelerometer, velocimeter and gyro (the order that
:func:`safe_rl_ros.envs.tasks.goal_world.observe` reads), and two controls in [-1, 1]. The floor of the point is there
to be seen only.
"""

from __future__ import annotations

POINT_TIME_STEP_S, POINT_FRAME_SKIP = 0.002, 10
# Both are controlled every 20 ms. Safety-Gymnasium's car has this time step too, but 10 of them: a period of 40 ms.
CAR_TIME_STEP_S, CAR_FRAME_SKIP = 0.004, 5

_SENSORS = """
  <sensor>
    <accelerometer site="imu"/>
    <velocimeter site="imu"/>
    <gyro site="imu"/>
  </sensor>"""

_LOOKS = """
  <visual>
    <headlight ambient="0.4 0.4 0.4"/>
    <global offwidth="640" offheight="480"/>
  </visual>"""

# Slides and a hinge carry it: it cannot tip, nothing is in its way, so there are no contacts to solve.
# Thrust up to 15 mN against 10 mN s/m of drag: 1.5 m/s at most, with a time constant of half a second.
# Torque up to 15 mN m against 5 mN m s of drag on a light body: the yaw rate follows the control, up to 3 rad/s, within
# 10 ms. (Safety Gym has a servo with a limited force there, which chatters about its set point.)
POINT_XML = f"""
<mujoco model="point">
  <option timestep="{POINT_TIME_STEP_S}">
    <flag contact="disable" constraint="disable"/>
  </option>{_LOOKS}
  <worldbody>
    <geom name="floor" type="plane" size="5 5 0.1" contype="0" conaffinity="0" rgba="0.85 0.87 0.9 1"/>
    <body name="robot" pos="0 0 0.1">
      <joint name="slide_x" type="slide" axis="1 0 0" damping="0.01"/>
      <joint name="slide_y" type="slide" axis="0 1 0" damping="0.01"/>
      <joint name="yaw" type="hinge" axis="0 0 1" damping="0.005"/>
      <geom name="ball" type="sphere" size="0.1" density="1" rgba="0.2 0.35 0.8 1"/>
      <geom name="nose" type="box" pos="0.1 0 0" size="0.05 0.05 0.05" density="1" rgba="0.9 0.7 0.1 1"/>
      <site name="imu" size="0.01"/>
    </body>
  </worldbody>
  <actuator>
    <general name="thrust" site="imu" gear="0.015 0 0 0 0 0" ctrlrange="-1 1" ctrllimited="true"/>
    <general name="turn" joint="yaw" gear="0.015" ctrlrange="-1 1" ctrllimited="true"/>
  </actuator>{_SENSORS}
</mujoco>
"""


def _wheel(name: str, side: float) -> str:
    return f"""
      <body name="{name}" pos="-0.1 {side} -0.05">
        <joint name="{name}" axis="0 1 0" damping="0.00025"/>
        <geom type="ellipsoid" size="0.05 0.025 0.05" density="5" contype="0" conaffinity="1" rgba="0.1 0.1 0.1 1"/>
      </body>"""


# Driven wheels behind, a caster that slides without friction in front: pushed the other way round it would spin out.
# 4 mN m per wheel against 0.25 mN m s of bearing friction: 0.8 m/s at most. Wheels are ellipsoids and touch the floor
# in one point each; only wheels and caster touch it. There is one robot: looking for islands would be wasted.
CAR_XML = f"""
<mujoco model="car">
  <option timestep="{CAR_TIME_STEP_S}">
    <flag island="disable"/>
  </option>{_LOOKS}
  <worldbody>
    <geom name="floor" type="plane" size="5 5 0.1" condim="1" contype="1" conaffinity="0" rgba="0.85 0.87 0.9 1"/>
    <body name="robot" pos="0 0 0.1">
      <freejoint name="base"/>
      <geom name="chassis" type="box" size="0.1 0.1 0.05" density="5" contype="0" conaffinity="0"
            rgba="0.2 0.35 0.8 1"/>
      <geom name="caster" type="sphere" pos="0.1 0 -0.05" size="0.05" density="5" condim="1" contype="0" conaffinity="1"
            rgba="0.9 0.7 0.1 1"/>
      <site name="imu" size="0.01"/>{_wheel("left", 0.1)}{_wheel("right", -0.1)}
    </body>
  </worldbody>
  <actuator>
    <general name="left" joint="left" gear="0.004" ctrlrange="-1 1" ctrllimited="true"/>
    <general name="right" joint="right" gear="0.004" ctrlrange="-1 1" ctrllimited="true"/>
  </actuator>{_SENSORS}
</mujoco>
"""
