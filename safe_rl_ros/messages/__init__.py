"""Reading ROS messages by the names of their fields: no message class is imported here, and no rclpy.

The same readers serve messages of a running node and those of a bag read without ROS, whose arrays are numpy arrays.
"""
