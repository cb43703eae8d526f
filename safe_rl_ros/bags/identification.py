"""System identification: the parameters under which the twin moves as the robot did in recorded drives.

Least squares on the velocities of whole drives, open loop from the recorded commands. Delay, gains and lag are fitted
on the twin's motion (see :mod:`.base_model`), which is simulated again with what was found until nothing changes.
Friction and mass are tried on a grid in the twin, the others fitted anew at each point, for what they change is not
smooth: a skid steer rocks, and a wheel slips or does not. What the drives do not tell stays neutral and is said to; the
intervals of the others span what they are at every friction and mass that the drives allow.

Actuation and observation delay shift the motion alike: only their sum is found.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from safe_rl_ros.bags.base_model import TwinResponse, relagged
from safe_rl_ros.bags.drive_log import Drive
from safe_rl_ros.bags.drive_samples import Samples
from safe_rl_ros.bags.fitting import Blocks, Errors, Unknown, half_widths, lowest, solve, stands_out
from safe_rl_ros.envs.twin_parameters import NEUTRAL, TwinParameters
from safe_rl_ros.types import FloatArray

DELAY = "delay_s"
LEAST_SIGMA = 1e-3
"""Errors below this part of the greatest command count as this much."""
ROUNDS = 4
"""The twin is simulated anew with what was found at most so often."""
FITTED = {
    DELAY: Unknown(0.0, 0.8, 0.002, 0.05),
    "gain_linear": Unknown(0.3, 3.0, 0.005, 0.1),
    "gain_angular": Unknown(0.3, 3.0, 0.005, 0.1),
    "lag_s": Unknown(0.0, 0.5, 0.002, 0.05),
}
TRIED = {
    "friction_scale": ((0.3, 0.42, 0.6, 0.85, 1.2, 1.7, 2.4), math.log(1.5)),
    "mass_scale": ((0.5, 0.7, 1.0, 1.4, 2.0), math.log(1.3)),
}
"""Grid of each, and half the widest interval of its logarithm that still says something."""
ALLOWED = (0.6, 1.7)
"""Of frictions and masses that the drives do not tell, these are thought possible."""
CLOSE = np.linspace(-0.35, 0.35, 8)
"""Logarithms, around the best point of the grid, at which a parabola is laid through the costs."""
LAGS_S = np.linspace(-0.04, 0.03, 8)
"""Around the lag that was fitted: at these the twin is simulated."""
RESOLUTION = {DELAY: 0.006, "gain_linear": 0.005, "gain_angular": 0.01, "lag_s": 0.01}
RESOLUTION |= {"friction_scale": 0.15, "mass_scale": 0.25}
"""No interval is narrower than so much to either side (of the logarithm, where it is tried): the method's own error."""
POOR, MOVED = 0.15, 0.05
"""A fit that leaves more than this part of a motion on the held-out blocks misses something. An axis whose motion is
below this part of its greatest command has none.
"""
Values = dict[str, float]
NEUTRAL_VALUES: Values = {name: float(getattr(NEUTRAL, name, 0.0)) for name in (*FITTED, *TRIED)}
"""The twin as it is: there is no such parameter as the whole delay, which is 0."""


@dataclass(frozen=True)
class Estimate:
    """A parameter's value with its 95 % interval; all None, and why, where the drives do not tell."""

    name: str
    value: float | None
    low: float | None = None
    high: float | None = None
    why_not: str = ""


@dataclass(frozen=True)
class Identification:
    """What was found. Errors are root mean squares over held-out blocks: speed (m/s) and turn rate (rad/s), (2,).

    ``error_before`` is that of the neutral twin. ``noise`` (2,) is the standard deviation of what is left on the blocks
    that were fitted. ``unexplained`` (2,) is ``error_after`` as a part of the motion, NaN of an axis that did not move.
    """

    estimates: dict[str, Estimate]
    error_before: FloatArray
    error_after: FloatArray
    unexplained: FloatArray
    noise: FloatArray
    drives: int
    fitted_s: float
    held_out_s: float

    @property
    def poor(self) -> bool:
        """Return True if the twin does not move as the robot did, whatever its parameters."""
        return bool((self.unexplained > POOR).any())


class Identifier:
    """Fits the twin's parameters to drives."""

    def __init__(self, response: TwinResponse, drives: Sequence[Drive], greatest: FloatArray) -> None:
        """Take the twin under the drives' commands and the greatest commands (2,), which scale errors."""
        self._response, self._samples, self._greatest = response, Samples(drives), greatest
        self._sigma = greatest.copy()
        self._body = dict(NEUTRAL_VALUES)
        """What the twin is simulated with."""
        self._rivals: dict[str, list[Values]] = {}
        """Fits at other frictions and masses that are no worse than chance makes them."""
        self._blocks: Blocks = np.repeat(self._samples.block[self._samples.fitted], 2)

    def run(self) -> Identification:
        """Fit.

        Raises:
            BackendError: the twin's physics diverged.
        """
        values = self._grid()
        self._weigh(values)
        values, active, why_not = self._settle(values)
        values = self._again(values, active)
        spread: dict[str, tuple[float, float]] = {}
        for name, (grid, widest) in TRIED.items():
            best, half = self._try(name, grid, values, active)
            if half <= widest:  # once more: the others were fitted without it, and shape what it does
                values = self._again({**values, name: math.exp(best)}, active)
                best, half = self._try(name, (values[name],), values, active)
            if half > widest:
                values = self._again({**values, name: NEUTRAL_VALUES[name]}, active)
                why_not[name] = "the motion does not depend on it, or not more than on chance"
                continue
            spread[name] = best, half
            values = self._again({**values, name: math.exp(best)}, active)
        values, lag_half = self._simulate_lags(values, active) if "lag_s" in active else (values, 0.0)
        halves = self._halves(values, active)
        if "lag_s" in halves:
            halves["lag_s"] = max(halves["lag_s"], lag_half)
        rivals = [rival for fits in self._rivals.values() for rival in fits]
        spans = {name: [values[name], *(rival[name] for rival in rivals)] for name in FITTED}
        estimates = {name: _fitted(name, values[name], spans[name], halves.get(name), why_not) for name in FITTED}
        estimates |= {name: _tried(name, spread.get(name), why_not) for name in TRIED}
        return self._report(estimates, values)

    def _motion(self, body: Values) -> list[FloatArray]:
        return self._response.motion(TwinParameters.model_validate({key: body[key] for key in body if key != DELAY}))

    def _predict(self, values: Values) -> FloatArray:
        """Return what would be measured (N, 2), by linear operations on the twin's motion."""
        dt, body = self._response.substep_s, self._body
        gains = np.array([values[name] / body[name] for name in ("gain_linear", "gain_angular")])
        motions = [gains * relagged(motion, dt, body["lag_s"], values["lag_s"]) for motion in self._motion(body)]
        return self._samples.rows(motions, dt, values[DELAY])

    def _errors(self, values: Values, active: list[str]) -> Errors:
        """Return the weighted errors (2 F,) on the fitted blocks as a function of the active parameters' point."""
        samples = self._samples

        def errors(point: FloatArray) -> FloatArray:
            left = self._predict({**values, **dict(zip(active, point.tolist(), strict=True))}) - samples.motion
            return np.asarray((left[samples.fitted] / self._sigma).ravel(), dtype=np.float64)

        return errors

    def _grid(self) -> Values:
        """Return the best of a grid of delays and lags, each with the gains that suit it best."""
        fit, best, found = self._samples.fitted, math.inf, dict(NEUTRAL_VALUES)
        measured = self._samples.motion[fit] / self._greatest
        for delay, lag in itertools.product(np.arange(0.0, 0.61, 0.02), (0.0, 0.03, 0.06, 0.12, 0.25)):
            values = {**NEUTRAL_VALUES, DELAY: float(delay), "lag_s": lag}
            told = self._predict(values)[fit] / self._greatest
            power = (told * told).sum(axis=0)
            gains = np.where(power > 1e-9, (told * measured).sum(axis=0) / np.maximum(power, 1e-9), 1.0)
            gains = np.clip(gains, 0.5, 2.0)
            error = float(((told * gains - measured) ** 2).sum())
            if error < best:
                best, found = error, {**values, "gain_linear": float(gains[0]), "gain_angular": float(gains[1])}
        return found

    def _weigh(self, values: Values) -> None:
        """Weigh the two axes by what a prediction leaves over."""
        left = (self._predict(values) - self._samples.motion)[self._samples.fitted]
        self._sigma = np.maximum(np.sqrt((left * left).mean(axis=0)), LEAST_SIGMA * self._greatest)

    def _fit(self, values: Values, active: list[str]) -> Values:
        """Return the values with the active ones at their least squares."""
        if not active:
            return values
        unknowns = [FITTED[name] for name in active]
        point = solve(self._errors(values, active), _pack(values, active), unknowns)
        return {**values, **dict(zip(active, point.tolist(), strict=True))}

    def _halves(self, values: Values, active: list[str]) -> dict[str, float]:
        """Return half the interval of each active parameter."""
        if not active:
            return {}
        unknowns = [FITTED[name] for name in active]
        half = half_widths(self._errors(values, active), _pack(values, active), unknowns, self._blocks)
        return dict(zip(active, half.tolist(), strict=True))

    def _settle(self, values: Values) -> tuple[Values, list[str], dict[str, str]]:
        """Fit what the drives tell; return the values, the names of those, and why the others are not told."""
        active, why_not = list(FITTED), {}
        while active:
            half = self._halves(values, active)
            worst = max(active, key=lambda name: half[name] / FITTED[name].widest)
            if half[worst] <= FITTED[worst].widest:
                values = self._fit(values, active)
                self._weigh(values)
                half = self._halves(values, active)
                worst = max(active, key=lambda name: half[name] / FITTED[name].widest)
                if half[worst] <= FITTED[worst].widest:
                    break
            wide = f"its 95 % interval would be +-{half[worst]:.2g}"
            why_not[worst] = wide if math.isfinite(half[worst]) else "the motion does not depend on it"
            active.remove(worst)
            values = {**values, worst: NEUTRAL_VALUES[worst]}
        return values, active, why_not

    def _again(self, values: Values, active: list[str]) -> Values:
        """Simulate the twin with what was found and fit again, until nothing changes."""
        for _ in range(ROUNDS):
            before, self._body = values, values
            values = self._fit(values, active)
            self._weigh(values)
            if all(abs(values[name] - before[name]) <= 0.02 * FITTED[name].widest for name in active):
                break
        self._body = values
        return values

    def _costs(self, body: Values, active: list[str]) -> tuple[Values, FloatArray]:
        """Simulate the twin with a body and fit the active parameters; return them and each block's squared error."""
        self._body = body
        fitted = self._fit(body, active)
        squares = self._errors(fitted, [])(np.empty(0)) ** 2
        return fitted, np.asarray(np.bincount(self._blocks, weights=squares), dtype=np.float64)

    def _simulate_lags(self, values: Values, active: list[str]) -> tuple[Values, float]:
        """Return the values with the lag at which the twin itself fits best, and half its interval.

        Taking lag out of a simulated motion roughens it, so that a lag that is too long is hardly ever left again.
        """
        others = [name for name in active if name != "lag_s"]
        points = np.unique(np.maximum(values["lag_s"] + LAGS_S, 0.0))
        best, half = lowest(
            points, np.array([self._costs({**values, "lag_s": lag}, others)[1] for lag in points.tolist()])
        )
        return self._again({**values, "lag_s": best}, others), half if math.isfinite(half) else 0.0

    def _try(self, name: str, grid: Sequence[float], values: Values, active: list[str]) -> tuple[float, float]:
        """Return the logarithm at which a parameter fits best, and half its 95 % interval."""
        fits: list[tuple[Values, FloatArray]] = []

        def costs(value: float) -> FloatArray:
            fits.append(self._costs({**values, name: value}, active))
            return fits[-1][1]

        nearest = min(grid, key=lambda value: float(costs(value).sum()))
        points = math.log(nearest) + CLOSE
        found = lowest(points, np.column_stack([costs(math.exp(point)) for point in points]).T)
        floor = np.mean(sorted((cost for _, cost in fits), key=np.sum)[:3], axis=0)
        self._rivals[name] = [
            fit for fit, cost in fits if ALLOWED[0] <= fit[name] <= ALLOWED[1] and not stands_out(cost - floor)
        ]
        self._body = values
        return found

    def _report(self, estimates: dict[str, Estimate], values: Values) -> Identification:
        samples, dt = self._samples, self._response.substep_s
        before = samples.rows(self._motion(NEUTRAL_VALUES), dt, 0.0) - samples.motion
        after = samples.rows(self._motion(values), dt, values[DELAY]) - samples.motion
        fit, held = samples.fitted, ~samples.fitted
        total_s = sum(drive.length_s for drive in samples.drives)
        error, motion = (np.sqrt((rows[held] ** 2).mean(axis=0)) for rows in (after, samples.motion))
        found = Identification(
            estimates=estimates,
            error_before=np.sqrt((before[held] ** 2).mean(axis=0)),
            error_after=error,
            unexplained=error / np.where(motion > MOVED * self._greatest, motion, np.nan),
            noise=after[fit].std(axis=0),
            drives=len(samples.drives),
            fitted_s=total_s * float(fit.mean()),
            held_out_s=total_s * float(held.mean()),
        )
        if not found.poor:
            return found
        part = f"the fit leaves {np.nanmax(found.unexplained):.0%} of the motion unexplained, too much to tell it"
        untold = {name: Estimate(name, None, why_not=part) for name in TRIED if estimates[name].value is not None}
        return replace(found, estimates=estimates | untold)


def _pack(values: Values, names: Sequence[str]) -> FloatArray:
    return np.array([values[name] for name in names])


def _fitted(name: str, value: float, span: list[float], half: float | None, why_not: dict[str, str]) -> Estimate:
    if half is None:
        return Estimate(name, None, why_not=why_not[name])
    half, bounds = max(half, RESOLUTION[name]), FITTED[name]
    return Estimate(name, value, max(min(span) - half, bounds.lower), min(max(span) + half, bounds.upper))


def _tried(name: str, found: tuple[float, float] | None, why_not: dict[str, str]) -> Estimate:
    if found is None:
        return Estimate(name, None, why_not=why_not[name])
    best, half = found[0], max(found[1], RESOLUTION[name])
    return Estimate(name, math.exp(best), math.exp(best - half), math.exp(best + half))
