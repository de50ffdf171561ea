"""One change more, weighed beside those that are known: every day and both shapes."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from chargewatch.domain.arrays import Bools, Floats, Ints, sum_by_row
from chargewatch.risk.change_likelihood import evidence, normal_log_factors
from chargewatch.risk.change_votes import (
    STEP,
    Taken,
    VoteHistory,
    VoteTable,
    less,
    shape_of,
    table_of,
)

LEAST_DAYS = 3
"""Days with votes that there must be on either side: what two days of one feeder have in common may
be a fault in its data."""
TREND_DAYS = 6
"""Days with votes that a drift must have gone on for."""
LOOK_CLOSER = 0.02
"""Probability, by normal noise, from which the Student likelihood is asked."""
NEAR_LOG, NEAR_SHARE = 6.0, 0.05
"""Days are asked whose log odds by normal noise are within so much, or that share, of the best."""
FIRST_LOOK = 4
"""Days and shapes that are asked first, the likeliest by normal noise."""
ASTRAY_LOG = 4.0
"""By how much normal noise may overrate the likeliest days before all days are asked."""


@dataclass(frozen=True, kw_only=True)
class Fits:
    """Changes weighed beside those taken in, sorted by row; shape (m,)."""

    row: Ints
    begin: Ints
    shape: Ints
    share: Floats  # of the posterior of one change more, given there is one
    size: Floats
    variance: Floats
    shift: Floats  # by which it takes the present error away from the estimate without it
    log_odds: Floats  # (n,), of one change more

    def of(self, rows: Ints) -> Fits:
        """Return those of some rows, ascending, as rows 0, 1, ..."""
        number = np.full(self.log_odds.size, -1, dtype=np.int64)
        number[rows] = np.arange(rows.size)
        mine = number[self.row] >= 0
        values = {name: v[mine] for name, v in vars(self).items() if name != "log_odds"}
        return replace(
            self, **{**values, "row": number[self.row[mine]], "log_odds": self.log_odds[rows]}
        )


def screened(history: VoteHistory, *, spread: Floats) -> tuple[Floats, Floats, Ints]:
    """Return `normal_log_factors` of a history, and on how many days there were votes before each.

    The counts have one column more than there are days, shape (n, d + 1).
    """
    n, days = history.metered.shape
    sessions = history.sessions
    day = np.clip(sessions.at.astype(np.int64), 0, days - 1)
    place = sessions.connector * days + day
    information = 1.0 / sessions.variance

    def by_day(values: Floats) -> Floats:
        return sum_by_row(place, values, size=n * days).reshape(n, days)

    p, near = history.metered_precision, history.metered_near
    own = by_day(information)
    scores = [(p, p * near), (own, by_day(information * sessions.near))]
    step, drift = normal_log_factors(scores, spread=spread)
    seen = np.zeros((n, days + 1), dtype=np.int64)
    np.cumsum((p > 0) | (own > 0), axis=1, out=seen[:, 1:])
    return step, drift, seen


def _allowed(seen: Ints, taken: Taken) -> tuple[Bools, Bools]:
    """Return where a step and a drift may begin beside the changes taken in, shapes (n, d)."""
    before, whole = seen[:, :-1], seen[:, -1:]
    good = (before >= LEAST_DAYS) & (whole - before >= LEAST_DAYS)
    for k in range(taken.begin.shape[1]):
        begin = taken.begin[:, k]
        there = seen[np.arange(begin.size), np.maximum(begin, 0)][:, None]
        good &= (begin < 0)[:, None] | (np.abs(before - there) >= LEAST_DAYS)
    return good, good & (whole - before >= TREND_DAYS)


def _log_sum(row: Ints, log: Floats, *, size: int) -> Floats:
    """Return the logarithm of the sums of exp(log) by row, -inf for none, shape (size,)."""
    top = np.full(size, -np.inf)
    np.maximum.at(top, row, log)
    safe = np.where(np.isfinite(top), top, 0.0)
    with np.errstate(divide="ignore"):
        return safe + np.log(sum_by_row(row, np.exp(log - safe[row]), size=size))


def weighed(history: VoteHistory, taken: Taken, *, spread: Floats, prior: Floats) -> Fits:
    """Return one change more than those taken in, weighed by the Student likelihood.

    Args:
        history: of n connectors.
        taken: k changes of each.
        spread: prior standard deviation of sizes, shape (n,).
        prior: log of the odds that a change of each shape begins with a day, shape (n, d, 2).
    """
    n, days = history.metered.shape
    rest = history
    if (taken.begin >= 0).any():
        mode = evidence(table_of(history), np.arange(n), taken, spread=spread, days=days)[1]
        rest = less(history, taken, mode[:, 2:])
    step, drift, seen = screened(rest, spread=spread)
    may_step, may_drift = _allowed(seen, taken)
    log = np.stack([np.where(may_step, step, -np.inf), np.where(may_drift, drift, -np.inf)])
    log += prior.transpose(2, 0, 1)
    best = log.max(axis=(0, 2), initial=-np.inf)
    with np.errstate(divide="ignore"):
        odds = np.where(np.isfinite(best), best, 0.0)
        odds = odds + np.log(np.exp(log - odds[:, None]).sum(axis=(0, 2)))
    asked = np.flatnonzero(odds > np.log(LOOK_CLOSER))
    log, best = log[:, asked].transpose(1, 0, 2), best[asked]
    mine, beside, prior = history.of(asked), taken.of(asked).used(), prior[asked]
    table, spread = table_of(mine), spread[asked]
    bare = evidence(table, np.arange(asked.size), beside, spread=spread, days=days)[0]

    def fits(pairs: Bools) -> tuple[Any, ...]:
        row, shape, begin = np.nonzero(pairs)
        both = Taken(
            begin=np.concatenate([beside.begin[row], begin[:, None]], axis=1),
            shape=np.concatenate([beside.shape[row], shape[:, None]], axis=1),
        )
        found, mode, covariance = evidence(table, row, both, spread=spread, days=days)
        found = found - bare[row] + prior[row, begin, shape]
        return row, shape, begin, found, mode[:, -1], covariance[:, -1, -1]

    # A look at the likeliest days tells how far normal noise is from Student's.
    looked = _first_look(log)
    first = fits(looked)
    normal = np.where(looked, log, -np.inf)
    away = _log_sum(first[0], first[3], size=asked.size)
    away -= _log_sum(first[0], normal[first[0], first[1], first[2]], size=asked.size)
    asked_odds = odds[asked] + away
    least = best - np.maximum(NEAR_LOG, NEAR_SHARE * np.abs(best))
    wanted = (log >= least[:, None, None]) & (asked_odds > np.log(LOOK_CLOSER))[:, None, None]
    # What normal noise takes for a change and Student noise does not, says nothing of the days.
    wanted |= np.isfinite(log) & (away < -ASTRAY_LOG)[:, None, None]
    others = fits(wanted & ~looked)
    joined = [np.concatenate(both) for both in zip(first, others, strict=True)]
    order = np.lexsort((joined[2], joined[1], joined[0]))
    row, shape, begin, found, size, variance = (values[order] for values in joined)
    total = _log_sum(row, found, size=asked.size)
    # Where only the likeliest days were looked at, the others are as far off as they.
    odds[asked] = np.where(wanted.any(axis=(1, 2)), total, asked_odds)
    return Fits(
        row=asked[row],
        begin=begin,
        shape=shape,
        share=np.exp(found - total[row]),
        size=size,
        variance=variance,
        shift=size * (1.0 - _held(table, beside, row, begin, shape, days=days)),
        log_odds=odds,
    )


def _first_look(log: Floats) -> Bools:
    """Return the likeliest few of days and shapes of each row, shape (n, 2, d)."""
    n, shapes, days = log.shape
    flat = log.reshape(n, shapes * days)
    if flat.shape[1] <= FIRST_LOOK:
        return np.isfinite(log)
    place = np.argpartition(-flat, FIRST_LOOK, axis=1)[:, :FIRST_LOOK]
    looked = np.zeros(flat.shape, dtype=bool)
    np.put_along_axis(looked, place, values=True, axis=1)
    return np.asarray(looked.reshape(log.shape) & np.isfinite(log))


def _held(
    table: VoteTable, taken: Taken, row: Ints, begin: Ints, shape: Ints, *, days: int
) -> Floats:
    """Return how much of a change an estimate holds that weighs votes since the last step alike."""
    steps = np.where(taken.shape == STEP, taken.begin, -1).max(axis=1, initial=-1)
    weight = np.where(table.at >= steps[:, None], table.weight, 0.0)[row]
    column = shape_of(table.at[row], begin[:, None], days=days, shape=shape[:, None])
    total = weight.sum(axis=1)
    return np.asarray((weight * column).sum(axis=1) / np.where(total > 0, total, 1.0))


def likeliest(fits: Fits, *, size: int) -> Ints:
    """Return the place of each row's likeliest fit, -1 without, shape (size,)."""
    order = np.lexsort((np.arange(fits.row.size), -fits.share, fits.row))
    first = order[np.diff(fits.row[order], prepend=-1) > 0]
    out = np.full(size, -1, dtype=np.int64)
    out[fits.row[first]] = first
    return out
