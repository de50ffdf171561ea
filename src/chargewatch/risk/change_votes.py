"""What meters and vehicles say of connectors in time, side by side, and changes in it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from chargewatch.domain.arrays import Bools, Floats, Ints

PULLED_IN = 2.5
STEP, DRIFT = 0, 1


@dataclass(frozen=True, kw_only=True)
class SessionVotes:
    """What vehicles say at times, sorted by connector; shape (s,)."""

    connector: Ints
    at: Floats  # days since the begin of the history
    value: Floats
    variance: Floats
    near: Floats  # pulled in towards the votes around
    weight: Floats  # by which it counts in an estimate that knows of no change

    def of(self, rows: Ints | Bools) -> SessionVotes:
        """Return some of them."""
        return SessionVotes(**{name: values[rows] for name, values in vars(self).items()})


@dataclass(frozen=True, kw_only=True)
class VoteHistory:
    """The votes of n connectors on d successive days."""

    metered: Floats  # (n, d)
    metered_precision: Floats  # (n, d), 0 without data
    metered_near: Floats  # (n, d), pulled in towards the days around
    day_weight: Floats  # (d,), by which a day counts in an estimate that knows of no change
    sessions: SessionVotes

    @property
    def days(self) -> int:
        """Number of days d."""
        return int(self.metered.shape[1])

    def of(self, rows: Ints) -> VoteHistory:
        """Return the history of some connectors, ascending, as connectors 0, 1, ..."""
        number = np.full(self.metered.shape[0], -1, dtype=np.int64)
        number[rows] = np.arange(rows.size)
        mine = self.sessions.of(number[self.sessions.connector] >= 0)
        return VoteHistory(
            metered=self.metered[rows],
            metered_precision=self.metered_precision[rows],
            metered_near=self.metered_near[rows],
            day_weight=self.day_weight,
            sessions=replace(mine, connector=number[mine.connector]),
        )


@dataclass(frozen=True, kw_only=True)
class Taken:
    """The changes that are taken in; shape (n, k); begin -1 for none."""

    begin: Ints
    shape: Ints

    def of(self, rows: Ints) -> Taken:
        """Return those of some rows."""
        return Taken(begin=self.begin[rows], shape=self.shape[rows])

    def used(self) -> Taken:
        """Return the columns in which any row has a change."""
        there = (self.begin >= 0).any(axis=0)
        return Taken(begin=self.begin[:, there], shape=self.shape[:, there])

    def without(self, column: Ints) -> Taken:
        """Return them without the one in a column of each row."""
        begin = self.begin.copy()
        begin[np.arange(column.size), column] = -1
        return Taken(begin=begin, shape=self.shape)


@dataclass(frozen=True, kw_only=True)
class VoteTable:
    """All votes of some connectors side by side, meters' days and then sessions; shape (n, t)."""

    value: Floats
    variance: Floats
    known: Bools
    at: Floats
    witness: Ints  # (t,)
    weight: Floats


def shape_of(at: Any, begin: Ints | Floats, *, days: int, shape: Ints) -> Floats:
    """Return f_c at times; all broadcast."""
    risen = np.maximum(at - begin, 0.0) / np.maximum(days - np.asarray(begin), 1)
    return np.asarray(np.where(shape == DRIFT, risen, at >= begin), dtype=np.float64)


def pulled_in(estimate: Floats, precision: Floats) -> Floats:
    """Return daily estimates pulled in to 2.5 standard deviations from those around, (n, d).

    What is around is the median of the five days with data nearest in order, itself among them: the
    days of a new level have each other beside them, whatever was before.
    """
    n, days = estimate.shape
    if days == 0:
        return estimate
    seen = precision > 0
    order = np.argsort(~seen, axis=1, kind="stable")
    packed = np.take_along_axis(estimate, order, axis=1)
    last = np.maximum(seen.sum(axis=1)[:, None] - 1, 0)
    first = np.clip(np.arange(days) - 2, 0, np.maximum(last - 4, 0))
    around = [np.take_along_axis(packed, np.minimum(first + k, last), axis=1) for k in range(5)]
    centre = np.empty((n, days))
    np.put_along_axis(centre, order, _median_of_five(around), axis=1)
    far = PULLED_IN / np.sqrt(np.where(seen, precision, 1.0))
    return np.clip(estimate, centre - far, centre + far)


def _median_of_five(values: Sequence[Floats]) -> Floats:
    a, b, c, d, e = values
    # Neither the smallest nor the largest of four is the median of five.
    low = np.maximum(np.minimum(a, b), np.minimum(c, d))
    high = np.minimum(np.maximum(a, b), np.maximum(c, d))
    return np.asarray(np.maximum(np.minimum(low, high), np.minimum(np.maximum(low, high), e)))


def table_of(history: VoteHistory) -> VoteTable:
    """Return the votes of a history side by side."""
    n, days = history.metered.shape
    sessions = history.sessions
    count = np.bincount(sessions.connector, minlength=n)
    begin = np.concatenate([[0], np.cumsum(count)[:-1]]).astype(np.int64)
    width = int(count.max(initial=0))
    place = np.minimum(begin[:, None] + np.arange(width), max(sessions.at.size - 1, 0))
    there = np.arange(width) < count[:, None]
    seen = history.metered_precision > 0
    metered_v = 1.0 / np.where(seen, history.metered_precision, 1.0)

    def both(metered: Floats, own: Floats, fill: float) -> Floats:
        told = np.where(there, own[place], fill) if own.size else np.full(there.shape, fill)
        return np.concatenate([metered, told], axis=1)

    value = both(np.where(seen, history.metered, 0.0), sessions.value, 0.0)
    variance = both(metered_v, sessions.variance, 1.0)
    middle = np.broadcast_to(np.arange(days) + 0.5, (n, days))
    weight = both(
        history.metered_precision * history.day_weight, sessions.weight / sessions.variance, 0.0
    )
    return VoteTable(
        value=value,
        variance=variance,
        known=np.concatenate([seen, there], axis=1),
        at=both(middle, sessions.at, 0.0),
        witness=np.repeat([0, 1], [days, width]),
        weight=weight,
    )


def design_of(table: VoteTable, rows: Ints, begin: Ints, shape: Ints, *, days: int) -> Floats:
    """Return the columns of models: a level a witness, then changes (m, k); shape (m, 2 + k, t)."""
    at = table.at[rows]
    columns = [np.broadcast_to(table.witness == w, at.shape).astype(np.float64) for w in (0, 1)]
    for k in range(begin.shape[1]):
        first, kind = begin[:, k, None], shape[:, k, None]
        column = shape_of(at, np.maximum(first, 0), days=days, shape=kind)
        columns.append(np.where(first >= 0, column, 0.0))
    return np.stack(columns, axis=1)


def less(history: VoteHistory, taken: Taken, size: Floats) -> VoteHistory:
    """Return the history with changes of given sizes (n, k) taken off what is near."""
    days, sessions = history.days, history.sessions
    near, told = history.metered_near.copy(), sessions.near.copy()
    for k in range(taken.begin.shape[1]):
        begin, shape = np.maximum(taken.begin[:, k], 0), taken.shape[:, k]
        moved = np.where(taken.begin[:, k] >= 0, size[:, k], 0.0)
        middle = np.arange(days) + 0.5
        near -= moved[:, None] * shape_of(middle, begin[:, None], days=days, shape=shape[:, None])
        who = sessions.connector
        told -= moved[who] * shape_of(sessions.at, begin[who], days=days, shape=shape[who])
    return replace(history, metered_near=near, sessions=replace(sessions, near=told))
