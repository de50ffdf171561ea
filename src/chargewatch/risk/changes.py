"""Changes of connectors' errors, from daily estimates by meters and by vehicles together."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from chargewatch.domain.arrays import Bools, Floats, Ints, sum_by_row
from chargewatch.domain.times import DAY_S
from chargewatch.risk.drift import (
    DriftFindings,
    Suspicions,
    day_to_day_variance,
    find_changes,
    find_drifts,
    level_change,
    no_suspicions,
    present_level,
    risen,
    with_variance,
)
from chargewatch.risk.memory import CityStatistics
from chargewatch.risk.priors import DAY_WANDER_MPE, ROBUST_PULL
from chargewatch.risk.results import EngineConfig
from chargewatch.risk.run_inputs import RunInputs

SMALLEST_CHANGE_MPE = 0.25
"""A change of the error below this is no drift to report, in MPE."""


@dataclass(frozen=True, kw_only=True)
class Changes:
    """Changes found and what the meters say since; shape (n,); days since 1970, -1 for none."""

    alarm: Bools
    statistic: Floats
    changed: Ints
    low: Ints
    high: Ints
    z: Floats  # by feeder or in-series meter since the change; only where alarmed
    z_precision: Floats  # 0 without
    size: Floats  # of the change, 0 without
    suspicions: Suspicions
    slope: Floats  # of a drift that goes on, a day; 0 for a step
    slope_variance: Floats  # 0 for a step
    last_day: int  # the drift is followed to its end

    def ahead(self, connector: Ints, at_s: Floats) -> Floats:
        """Return for how many days of the drift a connector has gone on since a time."""
        begin = self.changed[connector]
        gone = risen(float(self.last_day + 1), begin) - risen(at_s / DAY_S, begin)
        return np.where(self.slope_variance[connector] > 0, gone, 0.0)


def no_changes(n: int) -> Changes:
    """Return what is known of changes before any were looked for."""
    none = np.full(n, -1, dtype=np.int64)
    zero = np.zeros(n)
    return Changes(
        alarm=none >= 0,
        statistic=zero,
        changed=none,
        low=none,
        high=none,
        z=zero,
        z_precision=zero,
        size=zero,
        suspicions=no_suspicions(n),
        slope=zero,
        slope_variance=zero,
        last_day=0,
    )


def session_series(
    statistics: CityStatistics,
    days: Ints,
    *,
    connectors: int,
    residual: Floats,
    information: Floats,
) -> tuple[Floats, Floats]:
    """Return daily estimates of gamma by sessions and their precision, shapes (n, d).

    Args:
        statistics: with the session rows, shape (s,).
        days: successive days since 1970, shape (d,).
        connectors: n.
        residual: each session's own gamma, y - c_k - c_v, shape (s,).
        information: 1 / its variance, shape (s,).
    """
    rows = statistics.sessions
    column = np.floor(rows.ended_s / DAY_S).astype(np.int64) - int(days[0])
    inside = (column >= 0) & (column < days.size)
    place = rows.connector[inside] * days.size + column[inside]
    weight = information[inside]
    size = connectors * days.size
    precision = sum_by_row(place, weight, size=size)
    total = sum_by_row(place, weight * residual[inside], size=size)
    estimate = np.where(precision > 0, total / np.where(precision > 0, precision, 1.0), 0.0)
    return estimate.reshape(connectors, -1), precision.reshape(connectors, -1)


def metered_series(statistics: CityStatistics, days: Ints) -> tuple[Floats, Floats]:
    """Return daily estimates of z by meters and their precision on given days, shapes (n, d)."""
    n = statistics.metered.shape[0]
    estimate, precision = np.zeros((n, days.size)), np.zeros((n, days.size))
    place = statistics.days - days[0]
    use = (place >= 0) & (place < days.size)
    estimate[:, place[use]] = statistics.metered[:, use]
    precision[:, place[use]] = statistics.metered_precision[:, use]
    return estimate, precision


def _centred(estimate: Floats, precision: Floats) -> Floats:
    total = precision.sum(axis=1)
    mean = (precision * estimate).sum(axis=1) / np.where(total > 0, total, 1.0)
    return np.where(precision > 0, estimate - mean[:, None], 0.0)


def _days(statistics: CityStatistics, as_of_s: float, keep: int) -> Ints:
    session_days = np.floor(statistics.sessions.ended_s / DAY_S).astype(np.int64)
    last = int(np.ceil(as_of_s / DAY_S)) - 1
    known = np.concatenate([statistics.days, session_days])
    known = known[(known > last - keep) & (known <= last)]
    return np.arange(known.min(), last + 1) if known.size else known


@dataclass(frozen=True, kw_only=True)
class _Series:
    """Daily estimates and their precisions by what they come from, shape (n, days)."""

    metered: Floats
    metered_p: Floats
    session: Floats
    session_p: Floats

    def joined(self) -> tuple[Floats, Floats]:
        """Return the estimates joined by their precisions, each from its own mean."""
        precision = self.metered_p + self.session_p
        metered = self.metered_p * _centred(self.metered, self.metered_p)
        estimate = metered + self.session_p * _centred(self.session, self.session_p)
        return estimate / np.where(precision > 0, precision, 1.0), precision


def _daily_series(
    statistics: CityStatistics,
    days: Ints,
    *,
    is_dc: Bools,
    residual: Floats,
    information: Floats,
    mpe: Floats,
) -> _Series:
    """Return the daily series with the variance between days added to each."""
    metered, metered_p = metered_series(statistics, days)
    session, session_p = session_series(
        statistics, days, connectors=mpe.size, residual=residual, information=information
    )
    for kind in (False, True):
        mine = is_dc == kind
        extra = day_to_day_variance(metered[mine], metered_p[mine])
        own = np.maximum(extra, (DAY_WANDER_MPE * mpe[mine]) ** 2)
        metered_p[mine] = with_variance(metered_p[mine], own[:, None])
    session_p = with_variance(session_p, day_to_day_variance(session, session_p))
    return _Series(metered=metered, metered_p=metered_p, session=session, session_p=session_p)


def changes_of_city(
    inputs: RunInputs,
    statistics: CityStatistics,
    *,
    residual: Floats,
    information: Floats,
    mpe: Floats,
    config: EngineConfig,
) -> Changes:
    """Return the last change of each connector within the days that are kept.

    Meters and vehicles each have a level of their own, so each series is taken from its mean;
    then they are joined by their precisions. To each comes the variance between days that its kind
    of connector shows, and to metered ones at least 0.1 MPE.

    Args:
        inputs: for the time and the fleet.
        statistics: with the daily series and the sessions.
        residual: each session's own gamma, shape (s,).
        information: 1 / its variance, shape (s,).
        mpe: shape (n,).
        config: k, h and days of the CUSUM.
    """
    days = _days(statistics, inputs.as_of_s, config.drift_days)
    if days.size == 0:
        return no_changes(mpe.size)
    series = _daily_series(
        statistics,
        days,
        is_dc=inputs.fleet.is_dc,
        residual=residual,
        information=information,
        mpe=mpe,
    )
    estimate, precision = series.joined()
    found = find_changes(
        estimate,
        precision,
        smallest=SMALLEST_CHANGE_MPE * mpe,
        reference=config.drift_reference,
        limit=config.drift_limit,
    )
    return _followed(series, found, days, estimate=estimate, precision=precision)


def _followed(
    series: _Series, found: DriftFindings, days: Ints, *, estimate: Floats, precision: Floats
) -> Changes:
    """Return the changes found, drifts told from steps, and what the meters say since."""
    rows = np.flatnonzero(found.alarm)
    drifts = find_drifts(estimate[rows], precision[rows])
    changed, low, high = found.changed.copy(), found.low.copy(), found.high.copy()
    drifting = rows[drifts.is_drift]
    changed[drifting] = drifts.begin[drifts.is_drift]
    low[drifting], high[drifting] = drifts.low[drifts.is_drift], drifts.high[drifts.is_drift]
    size, slope, slope_variance, z, z_precision = (np.zeros(found.alarm.size) for _ in range(5))
    slope[drifting] = drifts.slope[drifts.is_drift]
    slope_variance[drifting] = drifts.variance[drifts.is_drift]
    size[rows] = np.abs(level_change(estimate[rows], precision[rows], changed[rows]))
    size[drifting] = np.abs(slope[drifting]) * risen(float(days.size), changed[drifting])
    # Meters and sessions are both brought to the present with one slope; twice its variance in
    # each is once in their mean.
    both = (series.metered_p > 0).any(axis=1) & (series.session_p > 0).any(axis=1)
    slope_variance[both] *= 2.0
    level, variance = present_level(
        series.metered[rows],
        series.metered_p[rows],
        begin=changed[rows],
        slope=slope[rows],
        slope_variance=slope_variance[rows],
    )
    variance = variance + (ROBUST_PULL * size[rows]) ** 2
    z[rows] = np.where(np.isfinite(variance), level, 0.0)
    z_precision[rows] = np.where(np.isfinite(variance), 1.0 / variance, 0.0)

    def day(column: Ints) -> Ints:
        return np.where(column >= 0, days[np.maximum(column, 0)], -1)

    return Changes(
        alarm=found.alarm,
        statistic=found.statistic,
        changed=day(changed),
        low=day(low),
        high=day(high),
        z=z,
        z_precision=z_precision,
        size=size,
        suspicions=found.suspicions,
        slope=slope,
        slope_variance=slope_variance,
        last_day=int(days[-1]),
    )


def daily_offset(statistics: CityStatistics, changes: Changes, z: Floats, *, kind: Ints) -> Floats:
    """Return by how much daily estimates of z differ from the joint ones, shape (n,).

    A day alone holds the converters' losses at their prior means, the joint estimate has learnt
    them. The difference is that of the unchanged connectors of a kind, weighted by precision.

    Args:
        statistics: with the daily series.
        changes: the changed ones are left out.
        z: joint estimates, shape (n,), NaN under no feeder.
        kind: connectors that share an offset (feeder, AC or DC), shape (n,).
    """
    precision = statistics.metered_precision
    total = precision.sum(axis=1)
    mean = (precision * statistics.metered).sum(axis=1) / np.where(total > 0, total, 1.0)
    use = (total > 0) & ~changes.alarm & np.isfinite(z)
    weight = np.where(use, np.minimum(total, 0.001**-2), 0.0)
    kinds = int(kind.max(initial=0)) + 1
    away = sum_by_row(kind, weight * np.where(use, mean - z, 0.0), size=kinds)
    weights = sum_by_row(kind, weight, size=kinds)
    return np.asarray((away / np.where(weights > 0, weights, 1.0))[kind])
