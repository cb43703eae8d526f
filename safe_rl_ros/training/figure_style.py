"""How figures of many algorithms look: one fixed colour, dash and marker per algorithm, readable by the colour-blind.

No palette has thirteen colours that everyone can tell apart, so two families of algorithms share the colours of Okabe
and Ito (2008) and differ in dash and marker; algorithms without a constraint are black and grey.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

BLUE, VERMILLION, GREEN, ORANGE, SKY, PURPLE = "#0072B2", "#D55E00", "#009E73", "#E69F00", "#56B4E9", "#CC79A7"
BLACK, GREY = "#000000", "#7F7F7F"


Dash: TypeAlias = str | tuple[float, tuple[float, ...]]
SOLID = "solid"
DASHED = (0.0, (4.0, 1.6))
DASH_DOT = (0.0, (7.0, 1.5, 1.5, 1.5))
DOTTED = (0.0, (1.2, 1.2))
CSS_LINES: dict[Dash, str] = {SOLID: "solid", DASHED: "dashed", DASH_DOT: "double", DOTTED: "dotted"}


@dataclass(frozen=True)
class Style:
    """Colour, line style and marker of one algorithm, in matplotlib's notation."""

    colour: str
    dash: Dash
    marker: str

    @property
    def css(self) -> str:
        """Return the name of the border style nearest to the line style."""
        return CSS_LINES[self.dash]


STYLES = {
    # CVaR and expected-cost constraints
    "offtrc": Style(VERMILLION, SOLID, "o"),
    "trc": Style(BLUE, SOLID, "o"),
    "offcpo": Style(ORANGE, SOLID, "o"),
    "cpo": Style(SKY, SOLID, "o"),
    "cppo": Style(GREEN, SOLID, "o"),
    "wcsac": Style(PURPLE, SOLID, "o"),
    # safety critics and recovery
    "csc": Style(BLUE, DASHED, "^"),
    "q_ensembles": Style(VERMILLION, DASHED, "^"),
    "sqrl": Style(GREEN, DASHED, "^"),
    "recovery_rl": Style(ORANGE, DASHED, "^"),
    "reachability": Style(PURPLE, DASHED, "^"),
    # no constraint
    "trpo": Style(BLACK, DASH_DOT, "s"),
    "sac": Style(GREY, DASH_DOT, "s"),
}
SPARE = [
    Style(colour, dash, marker)
    for dash, marker in ((DOTTED, "D"), (SOLID, "X"), (DASHED, "v"))
    for colour in (BLUE, VERMILLION, GREEN, ORANGE, PURPLE, SKY, BLACK)
]


def styles_of(labels: Sequence[str]) -> dict[str, Style]:
    """Return each label's style: a known algorithm's own, else the spare ones in the order of the sorted labels."""
    others = sorted(set(labels) - set(STYLES))
    spare = {label: SPARE[index % len(SPARE)] for index, label in enumerate(others)}
    return {label: STYLES.get(label) or spare[label] for label in labels}


def family_order(algorithm: str, label: str) -> tuple[int, str]:
    """Return the key that sorts labels by family, as :data:`STYLES` lists them; unknown algorithms come last."""
    known = list(STYLES)
    return (known.index(algorithm) if algorithm in STYLES else len(known), label)
