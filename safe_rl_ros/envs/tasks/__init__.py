"""Tasks: reward, cost, margin and termination as pure functions."""
