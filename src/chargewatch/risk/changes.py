"""Changes of connectors' errors, from daily estimates by meters and sessions together."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from chargewatch.domain.arrays import Bools, Floats, Ints, sum_by_row
from chargewatch.domain.times import DAY_S
from chargewatch.risk.change_noise import metered_noise, session_noise
from chargewatch.risk.change_posterior import ChangePosterior, Possible, change_posterior
from chargewatch.risk.change_votes import (
    DRIFT,
    PULLED_IN,
    STEP,
    SessionVotes,
    VoteHistory,
    pulled_in,
)
from chargewatch.risk.memory import CityStatistics
from chargewatch.risk.priors import DECLARED_CHANCE, ROBUST_PULL
from chargewatch.risk.results import EngineConfig
from chargewatch.risk.run_inputs import RunInputs
from chargewatch.risk.spreads import SessionsInTime
from chargewatch.risk.vehicles import local_centres, tail_weights

SMALLEST_CHANGE_MPE = 0.25
"""A change of the error below this is no drift to report, in MPE: temperature and season move every
meter a little."""
YEAR_DAYS = 365.25


@dataclass(frozen=True, kw_only=True)
class Changes:
    """Changes found and what the meters say since; shape (n,); days since 1970, -1 for none."""

    taken: Bools  # only what came since the change is of the present error
    alarm: Bools  # and nobody declared it
    statistic: Floats  # log of the odds that there was a change; NaN where none could be seen
    changed: Ints
    low: Ints
    high: Ints
    z: Floats  # by feeder or in-series meter since the change; only where alarmed
    z_precision: Floats  # 0 without
    size: Floats  # of the change, 0 without
    shift: Floats  # by how much the last change found moved ln(1 + error), 0 without
    shift_variance: Floats  # 0 without
    possible: Possible  # a change that is not taken in
    slope: Floats  # of a drift that goes on, a day; 0 for a step
    slope_variance: Floats  # 0 for a step
    last_day: int  # the drift is followed to its end
    replaced_s: Floats  # when the meter was replaced last, as declared; -inf where it was not
    session_weight: Floats  # (s,), robust, beside the change; NaN where there is none

    def ahead(self, connector: Ints, at_s: Floats) -> Floats:
        """Return for how many days of the drift a connector has gone on since a time."""
        begin = self.changed[connector]
        gone = risen(float(self.last_day + 1), begin) - risen(at_s / DAY_S, begin)
        return np.where(self.slope_variance[connector] > 0, gone, 0.0)

    @property
    def step_s(self) -> Floats:
        """Time before which sessions and verifications are of another error, -inf for none, (n,).

        Along a drift they are brought to the present instead.
        """
        steps = self.alarm & (self.slope_variance <= 0)
        return np.maximum(np.where(steps, self.changed * DAY_S, -np.inf), self.replaced_s)

    @property
    def likely(self) -> Bools:
        """Possible changes that rather were than not: the estimate shown is the mean over both."""
        return self.possible.chance >= 0.5

    @property
    def doubt(self) -> Floats:
        """Variance of the present error from a change that may have been, fraction^2."""
        may = self.possible
        around_mean = may.chance * ((1.0 - may.chance) * may.shift**2 + may.variance)
        return np.where(self.likely, around_mean, may.chance * may.shift**2)

    @property
    def mean_shift(self) -> Floats:
        """By how much a possible change moves the estimate shown, fraction."""
        return np.where(self.likely, self.possible.chance * self.possible.shift, 0.0)


def risen(days: ArrayLike, begin: Ints) -> Floats:
    """Return for how many days a drift that began with column ``begin`` has gone on at a time."""
    return np.maximum(np.asarray(days, dtype=np.float64) - begin, 0.0)


def replaced_s(inputs: RunInputs) -> Floats:
    """Return when each connector's meter was replaced last, as declared, -inf for never, (n,)."""
    declared = inputs.declared
    use = declared.replaced & (declared.at_s <= inputs.as_of_s)
    out = np.full(inputs.fleet.size, -np.inf)
    np.maximum.at(out, declared.connector[use], declared.at_s[use])
    return out


def no_changes(inputs: RunInputs, sessions: int) -> Changes:
    """Return what is known of changes before any were looked for: what was declared."""
    n = inputs.fleet.size
    none = np.full(n, -1, dtype=np.int64)
    zero = np.zeros(n)
    return Changes(
        taken=none >= 0,
        alarm=none >= 0,
        statistic=np.full(n, np.nan),
        changed=none,
        low=none,
        high=none,
        z=zero,
        z_precision=zero,
        size=zero,
        shift=zero,
        shift_variance=zero,
        possible=Possible(chance=zero, shift=zero, variance=zero),
        slope=zero,
        slope_variance=zero,
        last_day=0,
        replaced_s=replaced_s(inputs),
        session_weight=np.full(sessions, np.nan),
    )


def metered_series(statistics: CityStatistics, days: Ints) -> tuple[Floats, Floats]:
    """Return daily estimates of z by meters and their precision on given days, shapes (n, d)."""
    n = statistics.metered.shape[0]
    estimate, precision = np.zeros((n, days.size)), np.zeros((n, days.size))
    place = statistics.days - days[0]
    use = (place >= 0) & (place < days.size)
    estimate[:, place[use]] = statistics.metered[:, use]
    precision[:, place[use]] = statistics.metered_precision[:, use]
    return estimate, precision


def _days(statistics: CityStatistics, as_of_s: float, keep: int) -> Ints:
    session_days = np.floor(statistics.sessions.ended_s / DAY_S).astype(np.int64)
    last = int(np.ceil(as_of_s / DAY_S)) - 1
    known = np.concatenate([statistics.days, session_days])
    known = known[(known > last - keep) & (known <= last)]
    return np.arange(known.min(), last + 1) if known.size else known


def _history(
    statistics: CityStatistics,
    days: Ints,
    *,
    is_dc: Bools,
    in_time: SessionsInTime,
    mpe: Floats,
    config: EngineConfig,
) -> tuple[VoteHistory, Ints]:
    """Return the votes of all connectors, and the rows of the sessions among them."""
    estimate, precision = metered_series(statistics, days)
    precision = metered_noise(estimate, precision, is_dc=is_dc, mpe=mpe)
    rows = statistics.sessions
    at = rows.ended_s / DAY_S - days[0]
    inside = np.flatnonzero((at >= 0) & (at < days.size))
    order = inside[np.lexsort((rows.ended_s[inside], rows.connector[inside]))]
    who, at, value = rows.connector[order], at[order], in_time.own[order]
    variance = session_noise(who, value, in_time.variance[order], side=rows.side[order])
    centre, far = local_centres(who, at, value), PULLED_IN * np.sqrt(variance)

    def kept(age: Floats) -> Floats:
        return np.asarray(2.0 ** (-age / config.half_life_days))

    return VoteHistory(
        metered=estimate,
        metered_precision=precision,
        metered_near=pulled_in(estimate, precision),
        day_weight=kept(days[-1] - days.astype(np.float64)),
        sessions=SessionVotes(
            connector=who,
            at=at,
            value=value,
            variance=variance,
            near=np.clip(value, centre - far, centre + far),
            weight=kept(days.size - at),
        ),
    ), order


def changes_of_city(
    inputs: RunInputs,
    statistics: CityStatistics,
    *,
    in_time: SessionsInTime,
    mpe: Floats,
    config: EngineConfig,
) -> Changes:
    """Return the last change of each connector within the days that are kept.

    Args:
        inputs: for the time and the fleet.
        statistics: with the daily series and the sessions.
        in_time: what the sessions say at their time.
        mpe: shape (n,).
        config: rate of changes, limit of the alarm, days kept.
    """
    days = _days(statistics, inputs.as_of_s, config.drift_days)
    if days.size == 0:
        return no_changes(inputs, in_time.own.size)
    history, order = _history(
        statistics, days, is_dc=inputs.fleet.is_dc, in_time=in_time, mpe=mpe, config=config
    )
    new_s = replaced_s(inputs)
    # The day of the event has both errors in it.
    given = np.where(new_s >= days[0] * DAY_S, np.floor(new_s / DAY_S) + 1.0 - days[0], -1.0)
    given = np.minimum(given, days.size).astype(np.int64)
    found = change_posterior(
        history,
        mpe=mpe,
        smallest=SMALLEST_CHANGE_MPE * mpe,
        prior=_prior(inputs, days, given, rate=config.changes_per_year / YEAR_DAYS),
        given=given,
    )
    alarm = (found.chance >= config.drift_probability) & (found.begin >= 0)
    # What happened to the old meter is past.
    alarm &= found.begin > given
    weight = np.full(in_time.own.size, np.nan)
    sessions = history.sessions
    fitted = np.flatnonzero(alarm[sessions.connector] & np.isfinite(found.session_fit))
    place = order[fitted]
    weight[place] = tail_weights(
        in_time.own[place] - found.session_fit[fitted], in_time.variance[place]
    )
    return _followed(history, found, alarm, days, given, session_weight=weight, new_s=new_s)


def _prior(inputs: RunInputs, days: Ints, given: Ints, *, rate: float) -> Floats:
    """Return the odds that a step and that a drift begins with each day, shape (n, d, 2).

    A declared work on a pile may have changed its error with that day or the next one. No line is
    followed from an old meter to a new one.
    """
    prior = np.full((inputs.fleet.size, days.size, 2), 0.5 * rate)
    declared = inputs.declared
    day = np.floor(declared.at_s / DAY_S).astype(np.int64) - days[0]
    for later in (0, 1):
        use = ~declared.replaced & (day + later >= 0) & (day + later < days.size)
        use &= declared.at_s <= inputs.as_of_s
        prior[declared.connector[use], day[use] + later, STEP] = 0.5 * DECLARED_CHANCE
    prior[..., DRIFT][np.arange(days.size) < given[:, None]] = 0.0
    return prior


def _followed(
    history: VoteHistory,
    found: ChangePosterior,
    alarm: Bools,
    days: Ints,
    given: Ints,
    *,
    session_weight: Floats,
    new_s: Floats,
) -> Changes:
    """Return the changes found and declared, and what the meters say since."""
    n = alarm.size
    taken = alarm | (given >= 0)
    rows = np.flatnonzero(taken)
    begin = np.where(alarm, found.begin, given)
    slope, slope_variance, z, z_precision = (np.zeros(n) for _ in range(4))
    drifting = np.flatnonzero(alarm & found.is_drift)
    gone = float(days.size) - found.begin[drifting]
    slope[drifting] = found.size[drifting] / gone
    slope_variance[drifting] = found.variance[drifting] / gone**2
    # Meters and sessions are both brought to the present with one slope; twice its variance in
    # each is once in their mean.
    told = np.bincount(history.sessions.connector, minlength=n) > 0
    both = (history.metered_precision > 0).any(axis=1) & told
    slope_variance[both] *= 2.0
    precision = history.metered_precision[rows]
    away = np.nan_to_num(history.metered[rows] - found.metered_fit[rows])
    precision = precision * tail_weights(away, 1.0 / np.where(precision > 0, precision, 1.0))
    column, new = np.arange(days.size), given[rows, None]
    level, variance = present_level(
        history.metered[rows],
        np.where(column >= new, precision, 0.0),
        begin=begin[rows],
        slope=slope[rows],
        slope_variance=slope_variance[rows],
    )
    old = np.where(column < new, precision, 0.0)
    there = old.sum(axis=1)
    before = (old * history.metered[rows]).sum(axis=1) / np.where(there > 0, there, 1.0)
    size = np.where(alarm, np.abs(found.size), 0.0)
    told = (there > 0) & np.isfinite(variance)
    size[rows] = np.where(told, np.maximum(size[rows], np.abs(level - before)), size[rows])
    variance = variance + (ROBUST_PULL * size[rows]) ** 2
    z[rows] = np.where(np.isfinite(variance), level, 0.0)
    z_precision[rows] = np.where(np.isfinite(variance), 1.0 / variance, 0.0)

    def day(column: Ints) -> Ints:
        return np.where(alarm, days[np.maximum(column, 0)], -1)

    possible = Possible(
        **{
            name: np.where(alarm, vars(found.further)[name], first)
            for name, first in vars(found.first).items()
        }
    )
    return Changes(
        taken=taken,
        alarm=alarm,
        statistic=np.where(np.isfinite(found.log_odds), found.log_odds, np.nan),
        changed=day(found.begin),
        low=day(found.low),
        high=day(found.high),
        z=z,
        z_precision=z_precision,
        size=size,
        shift=np.where(alarm, found.size, 0.0),
        shift_variance=np.where(alarm, found.variance, 0.0),
        possible=possible,
        slope=slope,
        slope_variance=slope_variance,
        last_day=int(days[-1]),
        replaced_s=new_s,
        session_weight=session_weight,
    )


def present_level(
    estimate: Floats, precision: Floats, *, begin: Ints, slope: Floats, slope_variance: Floats
) -> tuple[Floats, Floats]:
    """Return the level at the end of the last day and its variance, shapes (n,).

    Args:
        estimate: daily estimates, shape (n, d).
        precision: 1 / variance, 0 without data.
        begin: first column after a step or of a drift, shape (n,).
        slope: of the drift, a day, 0 after a step.
        slope_variance: of the slope, 0 after a step.

    Equation: after a step the mean of the days since; along a drift the mean of all days plus
    slope x (R - r), R the days the drift has gone on, r their mean; u^2 = 1 / sum p + (R - r)^2
    u^2(slope). Variance infinite without data.
    """
    days = estimate.shape[1]
    column = np.arange(days)
    drifts = slope_variance > 0
    p = np.where(drifts[:, None] | (column >= begin[:, None]), precision, 0.0)
    total = p.sum(axis=1)
    safe = np.where(total > 0, total, 1.0)
    mean = (p * estimate).sum(axis=1) / safe
    ahead = risen(float(days), begin) - (p * risen(column + 0.5, begin[:, None])).sum(axis=1) / safe
    variance = np.where(total > 0, 1.0 / safe + ahead**2 * slope_variance, np.inf)
    return mean + slope * ahead, variance


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
    use = (total > 0) & ~changes.taken & np.isfinite(z)
    weight = np.where(use, np.minimum(total, 0.001**-2), 0.0)
    kinds = int(kind.max(initial=0)) + 1
    away = sum_by_row(kind, weight * np.where(use, mean - z, 0.0), size=kinds)
    weights = sum_by_row(kind, weight, size=kinds)
    return np.asarray((away / np.where(weights > 0, weights, 1.0))[kind])
