"""Whether, when and by how much connectors' errors changed: one posterior over the kept history.

Two witnesses of a connector, its meters day by day and its vehicles session by session, tell of one
error, each from a level a_k of its own:

    x_j = a_k + s f_c(t_j) + n_j,    n_j: Student with nu = 5, or, seldom, anything

with f_c(t) = [t >= c] after a step and max(0, t - c) / (D - c) along a drift, so that s is what has
changed by the end. The levels are free, s is N(0, (2 MPE)^2), and each day has the same small
chance that a step or a drift began with it. So a witness that was there on one side of c only says
nothing of s by itself, and what is wild votes once and not more.

Every connector is looked through with normal noise, what is far from its neighbours in time pulled
in to 2.5 standard deviations (closed form). Where that leaves any doubt, the Student likelihood is
integrated by Laplace's method, for the days that come into question. A further change is looked for
beside those that are likely.

Source: Fearnhead, Stat. Comput. 16 (2006); Fearnhead, Rigaill, JASA 114 (2019) for bounded votes;
Lange, Little, Taylor, JASA 84 (1989) for the Student likelihood by reweighting.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from scipy.special import expit, ndtr

from chargewatch.domain.arrays import Bools, Floats, Ints, sum_by_row
from chargewatch.risk.change_fits import Fits, likeliest, weighed
from chargewatch.risk.change_likelihood import evidence
from chargewatch.risk.change_votes import DRIFT, Taken, VoteHistory, less, table_of
from chargewatch.risk.parallel import in_threads
from chargewatch.risk.priors import CHANGE_SIZE_MPE

MOST_CHANGES = 4
LIKELY = 0.5
"""Probability from which a change is taken in before a further one is looked for."""
CONNECTORS_AT_ONCE = 2_000


@dataclass(frozen=True, kw_only=True)
class Possible:
    """A change that may have been; shape (n,)."""

    chance: Floats
    shift: Floats  # by which it takes the present error away from the estimate without it
    variance: Floats


@dataclass(frozen=True, kw_only=True)
class ChangePosterior:
    """What is known of changes; shape (n,)."""

    log_odds: Floats  # of any change against none; -inf where none could be seen
    chance: Floats  # of a change that is not small
    begin: Ints  # of the last likely change: first day of the new error; -1 without
    low: Ints
    high: Ints  # 95 % interval of it
    is_drift: Bools
    size: Floats  # present error less that before the last likely change
    variance: Floats  # of the size
    first: Possible  # the change against none
    further: Possible  # one more than the likely ones, where there are such
    metered_fit: Floats  # (n, d), what likely changes make of the daily estimates; NaN without
    session_fit: Floats  # (s,), likewise of the sessions


def _possible(fits: Fits) -> Possible:
    """Return the change as a whole: mean and variance of the shift over all days and shapes."""
    n = fits.log_odds.size
    shift = sum_by_row(fits.row, fits.share * fits.shift, size=n)
    second = sum_by_row(fits.row, fits.share * (fits.shift**2 + fits.variance), size=n)
    asked = np.bincount(fits.row, minlength=n) > 0
    return Possible(
        chance=np.where(asked, expit(fits.log_odds), 0.0),
        shift=shift,
        variance=np.maximum(second - shift**2, 0.0),
    )


def _not_small(fits: Fits, smallest: Floats) -> Floats:
    """Return the probability that a change is at least of a size (n,), given there is one, (n,)."""
    u, least = np.sqrt(fits.variance), smallest[fits.row]
    beyond = ndtr((fits.size - least) / u) + ndtr((-fits.size - least) / u)
    return sum_by_row(fits.row, fits.share * beyond, size=smallest.size)


def _dated(fits: Fits, *, days: int) -> tuple[Ints, Ints]:
    """Return the central 95 % interval of the day of each row's change, shapes (n,)."""
    n = fits.log_odds.size
    by_day = sum_by_row(fits.row * days + fits.begin, fits.share, size=n * days).reshape(n, days)
    sums = np.cumsum(by_day, axis=1)
    low = np.argmax(sums > 0.025, axis=1)
    return low, np.argmax(sums >= 0.975 - 1e-12, axis=1)


def _with_given(given: Ints) -> Taken:
    """Return room for changes that are found, and the step that is known in the last column."""
    begin = np.full((given.size, MOST_CHANGES + 1), -1, dtype=np.int64)
    begin[:, -1] = given
    return Taken(begin=begin, shape=np.zeros_like(begin))


def _one_by_one(
    history: VoteHistory, fits: Fits, given: Ints, *, spread: Floats, prior: Floats
) -> tuple[Taken, Possible]:
    """Return the changes that are likely, found one after the other, and a further one."""
    n = spread.size
    taken = _with_given(given)
    further = Possible(chance=np.zeros(n), shift=np.zeros(n), variance=np.zeros(n))
    rows = np.arange(n)
    for turn in range(MOST_CHANGES):
        best = likeliest(fits, size=rows.size)
        likely = (fits.log_odds > np.log(LIKELY / (1.0 - LIKELY))) & (best >= 0)
        rows, best = rows[likely], best[likely]
        if rows.size == 0:
            break
        taken.begin[rows, turn], taken.shape[rows, turn] = fits.begin[best], fits.shape[best]
        fits = weighed(history.of(rows), taken.of(rows), spread=spread[rows], prior=prior[rows])
        for name, values in vars(_possible(fits)).items():
            getattr(further, name)[rows] = values
    several = np.flatnonzero(taken.begin[:, 1] >= 0)
    # With others beside it, a change found early may be of another day.
    for turn in range(MOST_CHANGES if several.size else 0):
        fits = weighed(
            history.of(several),
            taken.of(several).without(np.full(several.size, turn)),
            spread=spread[several],
            prior=prior[several],
        )
        best = likeliest(fits, size=several.size)
        here = (best >= 0) & (taken.begin[several, turn] >= 0)
        rows, best = several[here], best[here]
        taken.begin[rows, turn], taken.shape[rows, turn] = fits.begin[best], fits.shape[best]
    return taken, further


def _log_posterior(history: VoteHistory, taken: Taken, *, spread: Floats, prior: Floats) -> Floats:
    """Return the log evidence of the changes taken in, their prior odds with it, shape (n,)."""
    rows = np.arange(spread.size)
    log = evidence(table_of(history), rows, taken, spread=spread, days=history.days)[0]
    for k in range(taken.begin.shape[1]):
        begin, shape = taken.begin[:, k], taken.shape[:, k]
        log += np.where(begin >= 0, prior[rows, np.maximum(begin, 0), shape], 0.0)
    return log


def _with_likely(
    history: VoteHistory, first: Fits, given: Ints, *, spread: Floats, prior: Floats
) -> tuple[Taken, Possible]:
    """Return the likely changes of connectors that have one, and a further one that is not.

    A drift may stand for several steps: where there is one, steps alone are tried as well.
    """
    taken, further = _one_by_one(history, first, given, spread=spread, prior=prior)
    rows = np.flatnonzero(((taken.begin >= 0) & (taken.shape == DRIFT)).any(axis=1))
    if rows.size == 0:
        return taken, further
    mine, own = history.of(rows), spread[rows]
    steps = prior[rows].copy()
    steps[..., DRIFT] = -np.inf
    none = _with_given(given[rows])
    other, more = _one_by_one(
        mine,
        weighed(mine, none, spread=own, prior=steps),
        given[rows],
        spread=own,
        prior=steps,
    )
    gain = _log_posterior(mine, other, spread=own, prior=prior[rows])
    gain -= _log_posterior(mine, taken.of(rows), spread=own, prior=prior[rows])
    better = gain > 0
    taken.begin[rows[better]] = other.begin[better]
    taken.shape[rows[better]] = other.shape[better]
    for name, values in vars(more).items():
        getattr(further, name)[rows[better]] = values[better]
    return taken, further


def _fit_of(history: VoteHistory, taken: Taken, *, spread: Floats) -> tuple[Floats, Floats]:
    """Return the fit of changes to daily estimates (n, d) and to sessions (s,)."""
    days, who = history.days, history.sessions.connector
    rows = np.arange(spread.size)
    mode = evidence(table_of(history), rows, taken, spread=spread, days=days)[1]
    level = np.repeat(mode[:, :1], days, axis=1)
    bare = replace(
        history,
        metered_near=level,
        sessions=replace(history.sessions, near=mode[who, 1]),
    )
    fit = less(bare, taken, -mode[:, 2:])
    return fit.metered_near, fit.sessions.near


def _of_chunk(
    history: VoteHistory, given: Ints, *, spread: Floats, smallest: Floats, prior: Floats
) -> ChangePosterior:
    n, days = history.metered.shape
    first = weighed(history, _with_given(given), spread=spread, prior=prior)
    start = _possible(first)
    mine = np.flatnonzero(first.log_odds > np.log(LIKELY / (1.0 - LIKELY)))
    out = ChangePosterior(
        log_odds=first.log_odds,
        chance=start.chance * _not_small(first, smallest),
        begin=np.full(n, -1, dtype=np.int64),
        low=np.full(n, -1, dtype=np.int64),
        high=np.full(n, -1, dtype=np.int64),
        is_drift=np.zeros(n, dtype=bool),
        size=np.zeros(n),
        variance=np.zeros(n),
        first=start,
        further=Possible(chance=np.zeros(n), shift=np.zeros(n), variance=np.zeros(n)),
        metered_fit=np.full((n, days), np.nan),
        session_fit=np.full(history.sessions.at.size, np.nan),
    )
    if mine.size:
        _describe(out, history, mine, first.of(mine), given[mine], spread=spread, prior=prior)
    return out


def _describe(
    out: ChangePosterior,
    history: VoteHistory,
    rows: Ints,
    first: Fits,
    given: Ints,
    *,
    spread: Floats,
    prior: Floats,
) -> None:
    """Put the likely changes of some connectors into the posterior."""
    told = np.isin(history.sessions.connector, rows)
    history, spread, prior = history.of(rows), spread[rows], prior[rows]
    taken, further = _with_likely(history, first, given, spread=spread, prior=prior)
    for name, values in vars(further).items():
        getattr(out.further, name)[rows] = values
    out.metered_fit[rows], out.session_fit[told] = _fit_of(history, taken, spread=spread)
    last = np.argmax(taken.begin[:, :MOST_CHANGES], axis=1)
    fits = weighed(history, taken.without(last), spread=spread, prior=prior)
    best = likeliest(fits, size=rows.size)
    out.low[rows], out.high[rows] = _dated(fits, days=history.days)
    out.begin[rows] = fits.begin[best]
    out.is_drift[rows] = fits.shape[best] == DRIFT
    # The day is not known for certain either: mean and variance over all days of the shape.
    share = fits.share * (fits.shape == fits.shape[best][fits.row])
    whole = sum_by_row(fits.row, share, size=rows.size)
    mean = sum_by_row(fits.row, share * fits.size, size=rows.size) / whole
    second = sum_by_row(fits.row, share * (fits.size**2 + fits.variance), size=rows.size) / whole
    out.size[rows], out.variance[rows] = mean, np.maximum(second - mean**2, fits.variance[best])


def change_posterior(
    history: VoteHistory,
    *,
    mpe: Floats,
    smallest: Floats,
    prior: Floats,
    given: Ints | None = None,
) -> ChangePosterior:
    """Return what is known of changes of each connector's error.

    Args:
        history: of n connectors on d days.
        mpe: shape (n,).
        smallest: changes below are small, fraction, shape (n,).
        prior: odds that a step and that a drift begins with a day, before any data, (n, d, 2).
        given: first day of a new error that is known to have begun, -1 for none, shape (n,). What
            is returned is of changes beside it.
    """
    n, days = history.metered.shape
    if given is None:
        given = np.full(n, -1, dtype=np.int64)
    with np.errstate(divide="ignore"):
        log = np.log(prior)
    bounds = np.searchsorted(
        history.sessions.connector, np.arange(0, n + CONNECTORS_AT_ONCE, CONNECTORS_AT_ONCE)
    )

    def part(k: int) -> ChangePosterior:
        rows = slice(k * CONNECTORS_AT_ONCE, min((k + 1) * CONNECTORS_AT_ONCE, n))
        sessions = history.sessions.of(np.arange(bounds[k], bounds[k + 1]))
        mine = VoteHistory(
            metered=history.metered[rows],
            metered_precision=history.metered_precision[rows],
            metered_near=history.metered_near[rows],
            day_weight=history.day_weight,
            sessions=replace(sessions, connector=sessions.connector - rows.start),
        )
        return _of_chunk(
            mine,
            given[rows],
            spread=CHANGE_SIZE_MPE * mpe[rows],
            smallest=smallest[rows],
            prior=log[rows],
        )

    if n == 0 or days == 0:
        return _of_chunk(history, given, spread=CHANGE_SIZE_MPE * mpe, smallest=smallest, prior=log)
    return _joined(in_threads(part, range(len(bounds) - 1)))


def _joined(parts: Sequence[ChangePosterior]) -> ChangePosterior:
    def whole(values: Sequence[Any]) -> Any:
        if isinstance(values[0], Possible):
            names = vars(values[0])
            return Possible(**{k: np.concatenate([vars(v)[k] for v in values]) for k in names})
        return np.concatenate(values)

    return ChangePosterior(
        **{name: whole([vars(one)[name] for one in parts]) for name in vars(parts[0])}
    )
