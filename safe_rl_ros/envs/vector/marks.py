"""Marks in pictures of simulated tasks, for what is not physical."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Mark:
    """An upright disc at x, y in m, with a radius and a height in m, in a colour (red, green, blue, alpha).

    With a ``half_length`` it is a box instead: that long to both sides along its own y axis, ``radius`` along its x
    axis, turned by ``yaw`` (rad).
    """

    x: float
    y: float
    radius: float
    height: float
    colour: tuple[float, float, float, float]
    half_length: float | None = None
    yaw: float = 0.0
