"""How many of a lot to inspect: single sampling by attributes, computed and not looked up."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy import stats

from chargewatch.draws.frame import DrawError

ACCEPTABLE_QUALITY, LIMITING_QUALITY = 0.01, 0.07
"""Shares of nonconforming instruments that a plan must tell apart: a lot with less than the first
is accepted with 95 % probability, one with the second with at most 5 %. Source: Directive
2014/32/EU, annex II, module F, statistical verification."""
PLAN_RISK = 0.05


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Inspect ``size`` of ``lot``; the lot passes with at most ``allowed`` nonconforming ones."""

    lot: int
    size: int
    allowed: int
    producers_risk: float  # that a lot of acceptable quality fails
    consumers_risk: float  # that a lot of limiting quality passes


def at_most(share: float, lot: int) -> int:
    """Return the largest number of a lot that is at most this share of it: 7 % of 100 are 7."""
    return math.floor(share * lot + 1e-9)


def sampling_plan(
    lot: int,
    *,
    acceptable: float = ACCEPTABLE_QUALITY,
    limiting: float = LIMITING_QUALITY,
    risk: float = PLAN_RISK,
) -> Plan:
    """Return the smallest single plan that keeps both risks, hypergeometric and so exact.

    A lot too small for any such plan is inspected whole, with as many allowed as are acceptable.

    Args:
        lot: number of instruments.
        acceptable: share of nonconforming ones of a good lot.
        limiting: share of nonconforming ones of a bad lot.
        risk: of either wrong decision at most.

    Raises: DrawError for a lot of none or shares in the wrong order.
    """
    if lot < 1 or not 0 <= acceptable < limiting <= 1 or not 0 < risk < 1:
        raise DrawError(
            "a plan needs a lot of at least 1, shares 0 <= acceptable < limiting <= 1 and a risk"
        )
    good, bad = at_most(acceptable, lot), lot - at_most(1.0 - limiting, lot)
    for size in range(1, lot + 1):
        allowed = np.arange(min(bad, size) + 1)
        passes = stats.hypergeom.cdf(allowed, lot, bad, size)
        c = int(np.searchsorted(passes, risk, side="right")) - 1
        if c < 0:
            continue
        producers = float(stats.hypergeom.sf(c, lot, good, size))
        if producers <= risk:
            return Plan(
                lot=lot,
                size=size,
                allowed=c,
                producers_risk=producers,
                consumers_risk=float(passes[c]),
            )
    return Plan(lot=lot, size=lot, allowed=good, producers_risk=0.0, consumers_risk=0.0)
