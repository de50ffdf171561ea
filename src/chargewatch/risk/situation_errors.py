"""From conditional errors to errors inside and outside a situation, and over all energy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from chargewatch.domain.arrays import Floats
from chargewatch.risk.decision import p_outside
from chargewatch.risk.situation_odds import Conditional
from chargewatch.risk.situations import LOAD_EDGES

LEAST_FADED_SHARE = 0.1


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


def _sides(
    one: Conditional,
) -> tuple[tuple[float, float], tuple[float, float] | None, Floats]:
    """Return limits of a window, of what is not in it, and which bins are in it, shape (s,).

    A window that fades with load is told as what is below some load, such that a tenth of the
    energy lies there.
    """
    window = one.window
    if not window.grades:
        return window.limits, window.complement, one.grades
    below = np.cumsum(one.shares)[:-1] >= LEAST_FADED_SHARE
    place = int(np.argmax(below)) if below.any() else len(LOAD_EDGES) - 1
    edge = LOAD_EDGES[place]
    inside = (np.arange(len(one.shares)) <= place).astype(np.float64)
    return (0.0, edge), (edge, float(np.inf)), inside


def _side(
    one: Conditional, shares: Floats, *, error: float, u: float
) -> tuple[float, float, float]:
    """Return error, its u and share of the energy of some bins, given their shares, (s,)."""
    share = float(shares.sum())
    if share <= 0:
        return error, u, 0.0
    true = float(shares @ np.exp(-one.difference * one.grades)) * one.level
    grade = float(shares @ one.grades) / share - one.energy_share
    told = (1.0 + float(error)) * share / true - 1.0
    return told, float(np.hypot(u, grade * one.u)), share


def situation_errors(
    found: Sequence[Conditional], error: Floats, u: Floats, mpe: Floats
) -> tuple[SituationError, ...]:
    """Return the errors in each situation; connectors whose error is not known are left out.

    Args:
        found: conditional errors.
        error: relative errors over all energy, shape (n,); NaN: not known.
        u: their standard uncertainties, shape (n,).
        mpe: shape (n,).

    Equation: with d the difference of ln(1 + error), g_k by how much a bin of the window's family
    is in it, s_k its share of the energy and c `Conditional.level`: 1 + e_k = (1 + e) exp(d g_k) /
    c. Over several bins the energies that were told are over the true ones; the variance is u^2 +
    ((g - w) u_d)^2, g and w the means of g_k over these bins and over all. A situation found has no
    population to shrink to: it was found against one already.
    """
    errors = []
    for one in found:
        k = one.connector
        if not np.isfinite(error[k]):
            continue
        limits, other, inside = _sides(one)
        shares = np.array(one.shares)
        told = [_side(one, part * shares, error=error[k], u=u[k]) for part in (inside, 1 - inside)]
        real = 1.0 / (1.0 + float(np.exp(-one.log_odds)))
        beyond = max(float(p_outside(e, mpe[k], standard_uncertainty=s)) for e, s, _ in told)
        # What is told is the side that is off, and the other one as the usual.
        if other is not None and abs(told[0][0]) < abs(told[1][0]):
            limits, told = other, told[::-1]
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
