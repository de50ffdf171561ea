"""Readings out of order because their clock was set back: no register fell or jumped there."""

from __future__ import annotations

import numpy as np

from chargewatch.domain.arrays import Bools, Floats, Ints
from chargewatch.signals.rule import SIMULATED, Limit

SET_BACK_S = Limit(180.0, "s", "how far a clock is set back at once", SIMULATED)
UNEVEN = 1.5
"""How much longer than those around it a span between readings put in order may be."""


def out_of_order(
    connector: Ints, at_s: Floats, energy_wh: Floats, *, fall: Bools, rated_w: Floats
) -> Bools:
    """Return pairs among readings that a clock set back once has mixed; shape (k,).

    Put in the order of their registers, such readings have even spans but one, which goes back by
    at most 180 s, and the register around them grows by no more than rated power gives. A value
    that somebody changed leaves a gap in the order instead.
    """
    mixed = np.zeros(fall.size, bool)
    done = -1
    for k in np.flatnonzero(fall & np.isfinite(rated_w)).tolist():
        if k <= done:
            continue
        inside = np.arange(max(k - 64, 0), min(k + 65, connector.size))
        inside = inside[connector[inside] == connector[k]]
        inside = inside[np.abs(at_s[inside] - at_s[k]) <= 2 * SET_BACK_S.value]
        falls = inside[:-1][fall[inside[:-1]]]
        if not falls.size or falls[-1] < k:
            continue
        last = int(falls[-1]) + 1
        least, most = energy_wh[k + 1 : last + 1].min(), energy_wh[k : last + 1].max()
        lower = inside[(inside <= k) & (energy_wh[inside] <= least)]
        upper = inside[(inside >= last) & (energy_wh[inside] >= most)]
        done = last
        first, end = int(inside[0]), int(inside[-1])
        # A charge that begins (or ends) among them: the readings before (after) are far away.
        begins = first == 0 or connector[first - 1] != connector[k] or energy_wh[first - 1] <= least
        after = end + 1
        ends = after == connector.size or connector[after] != connector[k]
        ends = ends or energy_wh[after] >= most
        if not (lower.size or begins) or not (upper.size or ends):
            continue
        low = int(lower[-1]) if lower.size else first
        high = int(upper[0]) if upper.size else end
        beside = [inside[inside <= low], inside[inside >= high]]
        around = np.concatenate([np.diff(at_s[rows]) for rows in beside])
        # The last reading before may be of an earlier charge, after a pause.
        for start in (low, low + 1)[: 2 if lower.size and low < k else 1]:
            part = np.arange(start, high + 1)
            if _is_set_back(at_s[part], energy_wh[part], around, rated_w=float(rated_w[k])):
                mixed[part[:-1]] = True
                break
    return mixed


def _is_set_back(at_s: Floats, energy_wh: Floats, around_s: Floats, *, rated_w: float) -> bool:
    if around_s.size < 2:
        return False
    for order in (np.lexsort((at_s, energy_wh)), np.lexsort((-at_s, energy_wh))):
        span = np.diff(at_s[order])
        back = span < 0
        forward = span[~back]
        even = bool((forward <= UNEVEN * np.median(around_s)).all())
        most = 1.1 * rated_w * (at_s[-1] - at_s[0] + SET_BACK_S.value) / 3600
        fits = float(energy_wh[-1] - energy_wh[0]) <= most
        if back.sum() == 1 and -span.min() <= SET_BACK_S.value and even and fits:
            return True
    return False
