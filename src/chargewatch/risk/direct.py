"""Evidence A and D: reference meters in series with a connector, and verifications."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from chargewatch.domain.arrays import Floats, Ints, sum_by_row
from chargewatch.risk.feeders.blocks import YEAR_S, FeederLayout
from chargewatch.risk.feeders.day import too_much
from chargewatch.risk.priors import CLOCK_OFFSET_U_S, UNKNOWN_STEP_WH
from chargewatch.risk.registers import Quality
from chargewatch.risk.run_inputs import Anchors, Fleet, Intervals, References

LEAST_WH = 200.0
UNUSABLE = int(Quality.RESET | Quality.FAULT | Quality.GAP)


@dataclass(frozen=True, kw_only=True)
class DirectDay:
    """What in-series meters say of one day; shape (n,), NaN and 0 without."""

    estimate: Floats  # ln(E_indicated / E_reference)
    precision: Floats
    rows: Ints


def direct_day(
    fleet: Fleet,
    references: References,
    *,
    layout: FeederLayout,
    connector_day: Intervals,
    meter_day: Intervals,
) -> DirectDay:
    """Return one day's comparison of connectors with the meters in series with them.

    Energies are summed over the slots where both are good. Equation: gamma = ln(sum E_i / sum
    E_r); u^2 = [(d_i^2 + d_r^2) / 6 + (u_t P)^2] / E^2: resolution at both ends of the sum, and the
    clocks' offset at the mean power of the active slots. The reference's own error is left out
    here: it is the same every day.
    """
    n = fleet.size
    size = max(references.size, 1)
    meter_key = meter_day.slot * size + meter_day.instrument
    good_meter = (meter_day.quality & UNUSABLE) == 0
    order = np.argsort(meter_key[good_meter], kind="stable")
    keys = meter_key[good_meter][order]
    energies = meter_day.energy_wh[good_meter][order]
    instrument = connector_day.instrument
    meter = layout.direct_meter[instrument]
    mine = (meter >= 0) & ((connector_day.quality & UNUSABLE) == 0)
    mine &= ~too_much(connector_day, fleet)
    instrument, meter = instrument[mine], meter[mine]
    key = connector_day.slot[mine] * size + meter
    place = np.minimum(np.searchsorted(keys, key), max(keys.size - 1, 0))
    found = (keys[place] == key) if keys.size else np.zeros(key.size, dtype=bool)
    instrument = instrument[found]
    own = sum_by_row(instrument, connector_day.energy_wh[mine][found], size=n)
    reference_wh = energies[place[found]] if keys.size else np.zeros(0)
    other = sum_by_row(instrument, reference_wh, size=n)
    rows = np.bincount(instrument, minlength=n)
    usable = (own > LEAST_WH) & (other > LEAST_WH)
    safe_own, safe_other = np.where(usable, own, 1.0), np.where(usable, other, 1.0)
    reference = np.maximum(layout.direct_meter, 0)
    step = np.nan_to_num(fleet.resolution_wh, nan=UNKNOWN_STEP_WH) ** 2
    if references.size:
        step = step + np.nan_to_num(references.resolution_wh[reference], nan=UNKNOWN_STEP_WH) ** 2
    power = safe_other / np.maximum(rows, 1) * 4.0
    variance = (step / 6.0 + (CLOCK_OFFSET_U_S * power / 3600.0) ** 2) / safe_other**2
    return DirectDay(
        estimate=np.where(usable, np.log(safe_own / safe_other), np.nan),
        precision=np.where(usable, 1.0 / variance, 0.0),
        rows=np.where(usable, rows, 0),
    )


def since_verified(anchors: Anchors, *, as_of_s: float) -> Floats:
    """Return by what an error's wander since its verification grows, 1 after a year, shape (a,).

    Equation: t (1 + t) / 2, t in years: half of it a random walk, half an ageing at a rate of the
    meter's own, because it is not known which of them meters do.
    """
    years = np.maximum(as_of_s - anchors.verified_s, 0.0) / YEAR_S
    return np.asarray(0.5 * years * (1.0 + years))
