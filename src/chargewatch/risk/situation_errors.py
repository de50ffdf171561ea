"""From conditional errors to errors inside and outside a situation, and over all energy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from chargewatch.domain.arrays import Floats
from chargewatch.risk.conditional import Conditional
from chargewatch.risk.decision import p_outside


@dataclass(frozen=True, kw_only=True)
class SituationError:
    """A connector's errors in a situation and otherwise, fractions; limits as `Window.limits`."""

    connector: int
    code: str
    low: float
    high: float
    error: float
    u: float
    error_otherwise: float
    u_otherwise: float
    energy_share: float
    days: int
    p_nonconforming: float
    """That the error in the situation or otherwise is beyond the MPE."""


def situation_errors(
    found: Sequence[Conditional], error: Floats, u: Floats, mpe: Floats
) -> tuple[SituationError, ...]:
    """Return the errors in each situation; connectors whose error is not known are left out.

    Args:
        found: conditional errors.
        error: relative errors over all energy, shape (n,); NaN: not known.
        u: their standard uncertainties, shape (n,).
        mpe: shape (n,).

    Equation: with d the difference of ln(1 + error), w the window's share of the energy and c
    `Conditional.level`, 1 + e_in = (1 + e) exp(d) / c and 1 + e_out = (1 + e) / c; their variances
    are u^2 + ((1 - w) u_d)^2 and u^2 + (w u_d)^2. A situation found has no population to shrink to:
    it was found against one already.
    """
    errors = []
    for one in found:
        k = one.connector
        if not np.isfinite(error[k]):
            continue
        outside = (1.0 + float(error[k])) / one.level
        inside = outside * float(np.exp(one.difference))
        share = one.energy_share
        told = (
            (inside - 1.0, float(np.hypot(u[k], (1.0 - share) * one.u)), share),
            (outside - 1.0, float(np.hypot(u[k], share * one.u)), 1.0 - share),
        )
        real = 1.0 / (1.0 + float(np.exp(-one.log_odds)))
        beyond = max(float(p_outside(e, mpe[k], standard_uncertainty=s)) for e, s, _ in told)
        limits, other = one.window.limits, one.window.complement
        # What is told is the side that is off, and the other one as the usual.
        if other is not None and abs(told[0][0]) < abs(told[1][0]):
            limits, told = other, (told[1], told[0])
        errors.append(
            SituationError(
                connector=k,
                code=one.window.code,
                low=limits[0],
                high=limits[1],
                error=told[0][0],
                u=told[0][1],
                error_otherwise=told[1][0],
                u_otherwise=told[1][1],
                energy_share=told[0][2],
                days=one.days,
                p_nonconforming=real * beyond,
            )
        )
    return tuple(errors)
