"""What was paid too much and too little at each connector in each month that is open."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import date, datetime, time, timedelta
from zoneinfo import ZoneInfo

import numpy as np

from chargewatch.domain.arrays import Bools, Floats, Ints, sum_by_row
from chargewatch.domain.times import DAY_S
from chargewatch.risk.money import NAMES, Undelivered, parted, undelivered
from chargewatch.risk.results import RunResult
from chargewatch.runs.load import Loaded
from chargewatch.signals.billing import Billing
from chargewatch.signals.bills import Terms, charged, differences, plain_terms
from chargewatch.signals.sessions import BilledSessions
from chargewatch.storage.bulk import Records, seconds_of

MONEY_VERSION = 1
"""Of the rules by which money is counted; a run does not go on from one of another version."""
CLOSES_AFTER = timedelta(days=14)
"""A month stays open for so long after its end: then the days in which changes are dated
(`EngineConfig.drift_days`) still hold the whole month."""
RECENT_DAYS = 30.0
CONTEXT_DAYS = 7.0
"""Sessions of so many days before tell where the register of the first one stood."""

ODD_BILL = np.dtype(
    [("session_id", "i8"), *((field.name, "f8") for field in fields(Terms))],
)
"""Terms of sessions whose money is not as their bill's energy and total make it; by session_id."""


@dataclass(frozen=True, kw_only=True)
class Span:
    """A month of the city, or its part that is counted."""

    month: date
    from_s: float
    to_s: float


def local_months(first: datetime, as_of: datetime, zone: ZoneInfo) -> list[Span]:
    """Return the months of a zone that touch [first, as_of), as far as they lie in it."""
    found: list[Span] = []
    month = first.astimezone(zone).date().replace(day=1)
    while True:
        begin = datetime.combine(month, time(), zone)
        if begin >= as_of:
            return found
        following = (month + timedelta(days=32)).replace(day=1)
        end = datetime.combine(following, time(), zone)
        found.append(
            Span(
                month=month,
                from_s=max(begin, first).timestamp(),
                to_s=min(end, as_of).timestamp(),
            )
        )
        month = following


def open_months(
    first: datetime, as_of: datetime, zone: ZoneInfo, counted: Mapping[date, datetime]
) -> list[Span]:
    """Return what a run counts: months that are open, and those that nobody has counted yet.

    Where: counted: from when on each month was counted before. One that began earlier than the
        window was counted from further back then, and stays.
    """
    found = []
    for span in local_months(first, as_of, zone):
        before = counted.get(span.month)
        following = (span.month + timedelta(days=32)).replace(day=1)
        is_open = as_of < datetime.combine(following, time(), zone) + CLOSES_AFTER
        if before is None or (is_open and span.from_s <= before.timestamp()):
            found.append(span)
    return found


@dataclass(frozen=True, kw_only=True)
class SessionMoney:
    """Sessions with their differences, shape (s,); NaN: not known."""

    connector: Ints
    ended_s: Floats
    asked: Floats  # before discounts
    bill: Floats  # charged too much (positive) by the bill
    rightful: Floats  # rightful price of the energy by the register
    metered_wh: Floats


def session_money(loaded: Loaded, rows: Ints, odd: Records) -> SessionMoney:
    """Return the differences of some sessions' bills.

    Args:
        loaded: what the run works on.
        rows: of Loaded.sessions, by (connector, started_s).
        odd: dtype ODD_BILL, ascending.
    """
    records, fleet = loaded.sessions, loaded.inputs.fleet

    def column(name: str) -> Floats:
        # A column at a time: rows of sessions are wide.
        return np.asarray(records[name][rows], float)

    connector = loaded.registry.connector_rows(records["connector_id"][rows])
    sessions = BilledSessions(
        name=records["session_id"][rows],
        connector=connector,
        started_s=seconds_of(records["started_at"][rows]),
        ended_s=seconds_of(records["ended_at"][rows]),
        start_wh=column("start_wh"),
        stop_wh=column("stop_wh"),
        billed_wh=column("billed_wh"),
    )
    billing = Billing(
        sessions=sessions,
        resolution_wh=fleet.resolution_wh[connector],
        rated_w=fleet.rated_power_w[connector],
    )
    zero = billing.from_zero
    asked = charged(
        energy_fee=column("energy_fee"),
        service_fee=column("service_fee"),
        other_fee=column("other_fee"),
        discount=column("discount"),
        total_fee=column("total_fee"),
    )
    found = differences(
        _with_odd(plain_terms(sessions.billed_wh, asked), sessions.name, odd),
        np.where(zero.is_so, zero.grew_wh, billing.metered_wh),
        tolerance_wh=billing.tolerance_wh,
    )
    return SessionMoney(
        connector=connector,
        ended_s=sessions.ended_s,
        asked=asked,
        bill=found.bill,
        rightful=found.rightful,
        metered_wh=found.metered_wh,
    )


def _with_odd(plain: Terms, session_id: Ints, odd: Records) -> Terms:
    """Return terms with those of odd bills in their places."""
    place = np.minimum(np.searchsorted(odd["session_id"], session_id), max(odd.size - 1, 0))
    if odd.size == 0:
        return plain
    is_odd = odd["session_id"][place] == session_id
    return Terms(
        **{
            field.name: np.where(is_odd, odd[field.name][place], getattr(plain, field.name))
            for field in fields(Terms)
        }
    )


@dataclass(frozen=True, kw_only=True)
class Shares:
    """What connectors did not deliver of what they indicated, over time; shape (n,)."""

    now: Undelivered
    before: Undelivered  # the change; NaN without one
    changed_s: Floats  # -inf without a change
    settled_s: Floats  # when it had come to an end: a step at once, a drift now
    replaced_s: Floats  # nothing is known before

    def part_of_now(self, connector: Ints, at_s: Floats) -> Floats:
        """Return how far each connector's error was the present one at a time, 0 to 1."""
        changed, settled = self.changed_s[connector], self.settled_s[connector]
        with np.errstate(invalid="ignore", divide="ignore"):
            part = np.clip((at_s - changed) / (settled - changed), 0.0, 1.0)
        return np.where(settled > changed, part, (at_s >= changed).astype(float))


def shares_of(result: RunResult, mpe: Floats) -> Shares:
    """Return the posterior shares of all connectors, by a run's result."""
    population, past = result.population, result.past
    now = undelivered(
        result.relative_error, result.standard_uncertainty, mpe=mpe, population=population
    )
    if result.situations:
        _part_situations(now, result, mpe)
    has_past = np.isfinite(past.error) & np.isfinite(result.drift_changed_s)
    before = undelivered(past.error, past.standard_uncertainty, mpe=mpe, population=population)
    changed = np.where(has_past, result.drift_changed_s, -np.inf)
    return Shares(
        now=now,
        before=before,
        changed_s=changed,
        settled_s=np.where(has_past & past.goes_on, result.as_of_s, changed),
        replaced_s=past.replaced_s,
    )


def _part_situations(now: Undelivered, result: RunResult, mpe: Floats) -> None:
    """Part the energy of connectors that err otherwise in a situation."""
    rows = np.array([one.connector for one in result.situations], np.int64)
    sides = [
        undelivered(
            np.array([getattr(one, error) for one in result.situations]),
            np.array([getattr(one, u) for one in result.situations]),
            mpe=mpe[rows],
            population=result.population,
        )
        for error, u in (("error", "u"), ("error_otherwise", "u_otherwise"))
    ]
    share = np.array([one.energy_share for one in result.situations])
    both = parted(sides[0], sides[1], share)
    known = np.isfinite(both.mean)
    now.put(rows[known], Undelivered(**{name: getattr(both, name)[known] for name in NAMES}))


@dataclass(frozen=True, kw_only=True)
class Amounts:
    """Money of connectors in one span, shape (n,); NaN: nothing of it is known."""

    net: Floats
    over: Floats
    over_low: Floats
    over_high: Floats
    under: Floats
    under_low: Floats
    under_high: Floats
    variance: Floats
    variance_over: Floats
    variance_under: Floats
    sessions: Ints
    unknown: Ints  # of the sessions
    energy_wh: Floats
    paid: Floats


def by_error(money: SessionMoney, inside: Bools, shares: Shares) -> Amounts:
    """Return what the meters' errors came to in some sessions, by connector."""
    size = shares.now.mean.size
    here = np.flatnonzero(inside)
    who, at_s = money.connector[here], money.ended_s[here]
    rightful = np.maximum(money.rightful[here], 0.0)
    part = shares.part_of_now(who, at_s)
    known = np.isfinite(rightful) & np.isfinite(shares.now.mean[who])
    known &= at_s >= shares.replaced_s[who]
    known &= (part > 0) | np.isfinite(shares.before.mean[who])
    paid = np.where(known, rightful, 0.0)
    present = sum_by_row(who, paid * part, size=size)
    past = sum_by_row(who, paid * (1.0 - part), size=size)
    sessions = np.bincount(who, minlength=size)
    unknown = np.bincount(who[~known], minlength=size)
    nothing = (sessions > 0) & (unknown == sessions)

    def of(name: str) -> Floats:
        before = np.where(past > 0, past * getattr(shares.before, name), 0.0)
        now = np.where(present > 0, present * getattr(shares.now, name), 0.0)
        return np.where(nothing, np.nan, now + before)

    def square(name: str) -> Floats:
        before = np.where(past > 0, past * np.sqrt(getattr(shares.before, name)), 0.0)
        now = np.where(present > 0, present * np.sqrt(getattr(shares.now, name)), 0.0)
        return np.where(nothing, np.nan, (now + before) ** 2)

    return Amounts(
        net=of("mean"),
        **{
            name: square(name) if name.startswith("variance") else of(name)
            for name in NAMES
            if name != "mean"
        },
        sessions=sessions,
        unknown=unknown,
        energy_wh=_known_sum(who, np.where(known, money.metered_wh[here], np.nan), size),
        paid=_known_sum(who, np.where(known, money.asked[here], np.nan), size),
    )


def by_billing(money: SessionMoney, inside: Bools, *, size: int) -> Amounts:
    """Return what bills came to in some sessions, by connector; they are known to the cent.

    Sessions, energy and money paid are those of the bills that differ.
    """
    here = np.flatnonzero(inside)
    who, bill = money.connector[here], money.bill[here]
    known, differs = np.isfinite(bill), np.isfinite(bill) & (bill != 0)
    every = np.bincount(who, minlength=size)
    unknown = np.bincount(who[~known], minlength=size)
    nothing = (every > 0) & (unknown == every)
    over, under = (
        np.where(nothing, np.nan, sum_by_row(who, np.maximum(np.nan_to_num(x), 0.0), size=size))
        for x in (bill, -bill)
    )
    none = np.where(nothing, np.nan, 0.0)
    return Amounts(
        net=over - under,
        over=over,
        over_low=over,
        over_high=over,
        under=under,
        under_low=under,
        under_high=under,
        variance=none,
        variance_over=none,
        variance_under=none,
        sessions=np.bincount(who[differs], minlength=size),
        unknown=unknown,
        energy_wh=_known_sum(who, np.where(differs, money.metered_wh[here], np.nan), size),
        paid=_known_sum(who, np.where(differs, money.asked[here], np.nan), size),
    )


def _known_sum(row: Ints, values: Floats, size: int) -> Floats:
    return sum_by_row(row, np.nan_to_num(values), size=size)


@dataclass(frozen=True, kw_only=True)
class MonthOwed:
    """One month: by error, by bills, of every connector; and in how far they had sessions."""

    span: Span
    error: Amounts
    billing: Amounts


@dataclass(frozen=True, kw_only=True)
class Owed:
    """What a run says of money."""

    months: Sequence[MonthOwed]
    recent_error: Amounts  # of the last 30 days
    recent_billing: Amounts
    shares: Shares


def money_owed(
    loaded: Loaded,
    result: RunResult,
    *,
    billed_rows: Ints,
    odd: Records,
    spans: Sequence[Span],
) -> Owed:
    """Return what was paid too much and too little in some months, and in the last 30 days.

    Args:
        loaded: what the run works on.
        result: of the engine.
        billed_rows: rows of Loaded.sessions by (connector, started_s).
        odd: terms of odd bills, dtype ODD_BILL, ascending.
        spans: the months.
    """
    recent_s = result.as_of_s - RECENT_DAYS * DAY_S
    begin_s = min([recent_s, *(span.from_s for span in spans)]) - CONTEXT_DAYS * DAY_S
    # Sessions stand in the order of their end.
    first = int(np.searchsorted(seconds_of(loaded.sessions["ended_at"]), begin_s, side="left"))
    money = session_money(loaded, billed_rows[billed_rows >= first], odd)
    shares = shares_of(result, loaded.inputs.fleet.mpe)
    size = loaded.inputs.fleet.size
    months = []
    for span in spans:
        inside = (money.ended_s >= span.from_s) & (money.ended_s < span.to_s)
        months.append(
            MonthOwed(
                span=span,
                error=by_error(money, inside, shares),
                billing=by_billing(money, inside, size=size),
            )
        )
    recent = money.ended_s > recent_s
    return Owed(
        months=months,
        recent_error=by_error(money, recent, shares),
        recent_billing=by_billing(money, recent, size=size),
        shares=shares,
    )
