"""rosbag2 recordings without ROS: the filter's flight recorder, reading bags, and replaying the filter over them."""
