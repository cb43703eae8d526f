"""Safe reinforcement learning on real robots: twins, learners and a safety filter over ROS 2."""

import gymnasium

__version__ = "0.1.0"

gymnasium.register(id="SafeRlRos/HazardNav-v0", entry_point="safe_rl_ros.envs.robot_env:make_robot_env")
