"""Robot specs, observations, tasks, backends and the Gymnasium environment."""
