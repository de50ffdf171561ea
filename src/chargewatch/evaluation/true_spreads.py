"""The engine's spreads as they are in a simulated city: what its rounds should find."""

from __future__ import annotations

import numpy as np

from chargewatch.domain.arrays import Floats, Ints, sum_by_row
from chargewatch.evaluation.city_inputs import Known
from chargewatch.risk.direct import since_verified
from chargewatch.risk.feeders.statements import converter_classes
from chargewatch.risk.priors import VERIFIED_AT_MPE, WANDER_RANGE
from chargewatch.risk.rounds_input import known_mpe
from chargewatch.risk.run_inputs import FinishedSessions
from chargewatch.risk.spreads import FIRST_SPREADS, Spreads
from chargewatch.risk.vehicles import PAIR_KINDS, SessionRows, session_rows
from chargewatch.simulators.city import City
from chargewatch.simulators.metering import input_efficiency

USUAL_LOAD = 0.5
LEAST_OF_A_KIND = 20
FLOOR = 1e-4


def true_spreads(city: City, known: Known) -> Spreads:
    """Return the standard deviations that describe the truth in the engine's own model."""
    session, vehicle, site = _of_sessions(city, known)
    return Spreads(
        session=session,
        soc=_soc_factors(city),
        vehicle=vehicle,
        converter=_converter(city, known),
        site=site,
        wander=_wander(city, known),
    )


def _soc_factors(city: City) -> Floats:
    """Return by how much the SOC's variance is above that of whole per cent, by kind (KINDS,)."""
    noise_pct = 100.0 * city.scenario.soc_noise
    by_soc = np.arange(PAIR_KINDS) % 3 > 0
    # A step is rounded uniformly, d^2 / 12; x counts d^2 / 6 for both ends.
    return np.where(by_soc, city.scenario.soc_step_pct**2 + 12.0 * noise_pct**2, 1.0)


def _told(known: Known) -> tuple[SessionRows, Floats]:
    """Return the sessions that are no garbage, and ln(E / B) with the meter's error taken off."""
    inputs, truth = known.inputs, known.sessions
    # A session without a battery energy or vehicle is left out by the engine, too.
    good = np.flatnonzero(~truth.garbage & (truth.relative_error > -0.9))
    sessions = FinishedSessions(**{k: v[good] for k, v in vars(inputs.sessions).items()})
    rows = session_rows(sessions, inputs.fleet, intervals=inputs.connector_intervals)
    key = dict(
        zip(
            zip(sessions.connector.tolist(), sessions.ended_s.tolist(), strict=True),
            np.log1p(truth.relative_error[good]).tolist(),
            strict=True,
        )
    )
    error = [key[one] for one in zip(rows.connector.tolist(), rows.ended_s.tolist(), strict=True)]
    return rows, rows.log_ratio - np.array(error, dtype=np.float64)


def _of_sessions(city: City, known: Known) -> tuple[Floats, Floats, Floats]:
    """Return the spreads of sessions and vehicles by kind (KINDS,), and of sites (2,).

    Equation: what is left when the cable's true loss is taken off has the variance sigma^2 +
    resolution within a vehicle and kind, and sigma_v^2 more between them.
    """
    rows, left = _told(known)
    c = city.layout.connectors
    left = left - rows.load * c.cable_loss[rows.connector]
    session, vehicle = FIRST_SPREADS.session.copy(), FIRST_SPREADS.vehicle.copy()
    for kind, factor in enumerate(_soc_factors(city)):
        mine = np.flatnonzero(rows.kind == kind)
        if mine.size >= LEAST_OF_A_KIND:
            session[kind], vehicle[kind] = _within_and_between(
                left[mine],
                rows.vehicle[mine],
                factor * rows.soc_variance[mine],
                rows.looseness[mine],
            )
    site = FIRST_SPREADS.site.copy()
    load = sum_by_row(rows.connector, rows.load, size=c.size)
    count = sum_by_row(rows.connector, np.ones(rows.load.size), size=c.size)
    for side in range(2):
        mine = (c.is_dc == bool(side)) & (count > 0)
        if mine.any():
            usual = c.cable_loss[mine] - c.cable_loss[mine].mean()
            site[side] = max(float((usual * load[mine] / count[mine]).std()), FLOOR)
    return session, vehicle, site


def _within_and_between(
    left: Floats, vehicle: Ints, resolution: Floats, looseness: Floats
) -> tuple[float, float]:
    """Return the standard deviations within vehicles and between them."""
    node = np.unique(vehicle, return_inverse=True)[1]
    weight = 1.0 / looseness
    total = sum_by_row(node, weight, size=int(node.max()) + 1)
    mean = sum_by_row(node, weight * left, size=total.size) / total
    free = node.size - total.size
    away = float((weight * (left - mean[node]) ** 2).sum())
    within = away / free - float(resolution.mean()) if free > 0 else FIRST_SPREADS.session[0] ** 2
    within = max(within, FLOOR**2)
    noise = (within + float(resolution.mean())) / total
    between = float(np.mean((mean - mean.mean()) ** 2 - noise))
    return float(np.sqrt(within)), float(np.sqrt(max(between, FLOOR**2)))


def _converter(city: City, known: Known) -> float:
    """Return the spread of DC piles' ln eta around the mean of their class, at a usual load."""
    c = city.layout.connectors
    dc = np.flatnonzero(c.is_dc)
    if dc.size < 2:
        return FIRST_SPREADS.converter
    eta = np.log(input_efficiency(city.layout, dc, np.full(dc.size, USUAL_LOAD)))
    of_class = np.unique(converter_classes(known.inputs.fleet)[dc], return_inverse=True)[1]
    count = np.bincount(of_class)
    mean = np.bincount(of_class, weights=eta) / count
    free = max(dc.size - count.size, 1)
    return float(np.sqrt(max(((eta - mean[of_class]) ** 2).sum() / free, FLOOR**2)))


def _wander(city: City, known: Known) -> float:
    """Return by how much errors differ from their verification a year later, certificate apart."""
    anchors = known.inputs.anchors
    touched = {fault.target for fault in city.faults.all if fault.kind.changes_error}
    use = np.isfinite(anchors.relative_error) & ~np.isin(anchors.connector, list(touched))
    if not use.any():
        return FIRST_SPREADS.wander
    away = anchors.relative_error[use] - known.relative_error[anchors.connector[use]]
    grown = since_verified(anchors, as_of_s=known.inputs.as_of_s)[use]
    excess = away**2 - anchors.standard_uncertainty[use] ** 2
    fleet, of = known.inputs.fleet, anchors.connector[use]
    excess -= (VERIFIED_AT_MPE[fleet.is_dc[of].astype(np.int64)] * known_mpe(fleet)[of]) ** 2
    variance = float(excess.sum() / grown.sum())
    return float(np.clip(np.sqrt(max(variance, 0.0)), *WANDER_RANGE))
