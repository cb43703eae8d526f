"""Judges what was recorded of a running robot against its robot spec, before anybody arms a policy. No ROS in here."""
