"""The small picture of an error with its interval against the MPE."""

from __future__ import annotations

import math
from dataclasses import dataclass

WIDTH = 160.0
HEIGHT = 18.0
SPAN_MPE = 3.0
"""The picture reaches from -3 MPE to +3 MPE; what lies beyond is drawn at the edge."""


@dataclass(frozen=True)
class IntervalBar:
    """Positions in a picture of WIDTH x HEIGHT; beyond: the error lies outside of it."""

    centre: float
    mpe_low: float
    mpe_high: float
    low: float
    high: float
    error: float
    beyond: int
    width: float = WIDTH
    height: float = HEIGHT


def interval_bar(
    error: float | None, standard_uncertainty: float | None, mpe: float | None
) -> IntervalBar | None:
    """Return where error +- 2 u and the MPE lie in the picture; None when one isn't known."""
    if error is None or standard_uncertainty is None or mpe is None:
        return None
    if not all(math.isfinite(value) for value in (error, standard_uncertainty, mpe)) or mpe <= 0:
        return None
    margin = 6.0

    def x(value: float) -> float:
        inside = max(-SPAN_MPE, min(SPAN_MPE, value / mpe))
        position = margin + (inside + SPAN_MPE) / (2 * SPAN_MPE) * (WIDTH - 2 * margin)
        return round(position, 1)

    beyond = 0
    if abs(error) > SPAN_MPE * mpe:
        beyond = 1 if error > 0 else -1
    return IntervalBar(
        centre=x(0),
        mpe_low=x(-mpe),
        mpe_high=x(mpe),
        low=x(error - 2 * standard_uncertainty),
        high=x(error + 2 * standard_uncertainty),
        error=x(error),
        beyond=beyond,
    )
