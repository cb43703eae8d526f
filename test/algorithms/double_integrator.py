"""A double integrator that must stay between -1 and 1, and the states from which that can be done."""

import numpy as np

PERIOD, TOP_SPEED = 0.1, 1.5


def drive(state, action):
    """One period of a double integrator: state (B, 2) position and speed, action (B,) acceleration in [-1, 1]."""
    speed = (state[:, 1] + PERIOD * action.clip(-1.0, 1.0)).clip(-TOP_SPEED, TOP_SPEED)
    return np.stack([state[:, 0] + PERIOD * speed, speed], axis=1)


def margin(state):
    return 1.0 - np.abs(state[:, 0])


def can_stay_inside(state):
    """Return by simulation whether braking as hard as possible, the best there is, keeps |position| below 1."""
    safe = margin(state) >= 0.0
    for _ in range(30):
        state = drive(state, -state[:, 1] / PERIOD)
        safe &= margin(state) >= 0.0
    return safe
