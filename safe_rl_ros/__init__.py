"""Safe reinforcement learning on real robots: twins, learners and a safety filter over ROS 2."""

import gymnasium

from safe_rl_ros.envs.gymnasium_compat import register

__version__ = "0.1.0"

gymnasium.register(id="SafeRlRos/HazardNav-v0", entry_point="safe_rl_ros.envs.robot_env:make_registered")
gymnasium.register(
    id="SafeRlRos/JointReach-v0",
    entry_point="safe_rl_ros.envs.robot_env:make_registered",
    kwargs={"task": "joint_reach"},
)

# The simulated tasks: alone with gymnasium.make, N at once with gymnasium.make_vec.
for _id, _task in (
    ("PointGoal", "point_goal"),
    ("CarGoal", "car_goal"),
    ("HalfCheetah", "half_cheetah"),
    ("JackalNav", "jackal_nav"),
    ("PointRobot", "point_robot"),
    ("PointTraps", "point_traps"),
    ("CarTraps", "car_traps"),
    ("PandaPushTopple", "panda_push_topple"),
    ("PandaPushBoundary", "panda_push_boundary"),
    ("LaikagoWalk", "laikago_walk"),
):
    register(
        f"SafeRlRos/{_id}-v0",
        "safe_rl_ros.envs.vector.single:make_registered",
        "safe_rl_ros.envs.vector.single:make_vector",
        {"task": _task},
    )
