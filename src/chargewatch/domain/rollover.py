"""A register whose digits ran out: the one rule by which rollups and signals know it."""

from __future__ import annotations

import numpy as np

from chargewatch.domain.arrays import Floats

LEAST_TOP_WH = 1e5
"""No register has fewer digits than five."""
END_SHARE = 0.1
"""Before it rolls over a register is in the last tenth below a power of ten, then in the first."""
MARGIN = 1.1
"""The most power over rated power."""
SLACK_S = 902.0
"""The longest refresh of a register, and times that are rounded to the second."""
SLACK_WH = 2_000.0
"""Two steps of the coarsest register."""
UNKNOWN_W = 2.0e6
"""More power than this isn't believed where rated power isn't known."""


def rollover_energy(
    before_wh: Floats, after_wh: Floats, *, span_s: Floats, rated_w: Floats
) -> Floats:
    """Return the energy of spans in which a register passed a power of ten, NaN for the others.

    Args:
        before_wh: register before, Wh, shape (k,).
        after_wh: register after, Wh, shape (k,).
        span_s: time between the two, s, shape (k,).
        rated_w: rated power, W, shape (k,) or (); NaN: not known.

    Equation: E = 10^d - before + after, with 0.9 10^d <= before < 10^d, after < 0.1 10^d, d >= 5
    and E <= 1.1 P (t + 902 s) + 2 kWh.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        top = 10.0 ** (np.floor(np.log10(np.maximum(before_wh, 1.0))) + 1.0)
    energy = top - before_wh + after_wh
    power = np.where(np.isnan(rated_w), UNKNOWN_W, MARGIN * rated_w)
    rolled = (
        (after_wh < before_wh)
        & (top >= LEAST_TOP_WH)
        & (before_wh >= (1.0 - END_SHARE) * top)
        & (after_wh < END_SHARE * top)
        & (energy <= power * (span_s + SLACK_S) / 3600.0 + SLACK_WH)
    )
    return np.where(rolled, energy, np.nan)


def metered_energy(start_wh: Floats, stop_wh: Floats, *, span_s: Floats, rated_w: Floats) -> Floats:
    """Return the energy between two registers, Wh, counted through where the register rolled over.

    Shapes and units as in `rollover_energy`.
    """
    rolled = rollover_energy(start_wh, stop_wh, span_s=span_s, rated_w=rated_w)
    return np.where(np.isnan(rolled), stop_wh - start_wh, rolled)
