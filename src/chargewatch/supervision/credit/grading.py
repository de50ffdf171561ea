"""Grades of a month: drafted as often as wanted, published once, counted again with a reason."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from typing import Any
from zoneinfo import ZoneInfo

from sqlalchemy.ext.asyncio import AsyncConnection

from chargewatch.storage.database import Database
from chargewatch.storage.office import credit as rows
from chargewatch.storage.office import credit_facts
from chargewatch.supervision.audit import Action, Actor, record
from chargewatch.supervision.credit.arithmetic import Fact, compute, digest, rounded
from chargewatch.supervision.credit.days import sum_days
from chargewatch.supervision.credit.rules import CreditError, GradeRules, read_rule_set, rules_for

_LONGEST_WHY = 1_000


@dataclass(frozen=True, kw_only=True)
class Graded:
    """What grading a month did.

    grades: how many operators have each grade; None: too little is known.
    published: how many new grades or revisions were published.
    unchanged: how many published ones stay as they are.
    """

    month: date
    closed: bool
    grades: Mapping[str | None, int]
    published: int
    unchanged: int
    days_summed: int


def month_of(told: str) -> date:
    """Return the first day of a month that is written as 2026-11.

    Raises: CreditError for anything else.
    """
    try:
        return datetime.strptime(told, "%Y-%m").replace(tzinfo=UTC).date()
    except ValueError as exc:
        raise CreditError(f"{told!r} is no month: write it as 2026-11") from exc


def month_now(now: datetime, zone: ZoneInfo) -> date:
    """Return the first day of the running month in the office's zone."""
    return now.astimezone(zone).date().replace(day=1)


def months_later(month: date, count: int) -> date:
    """Return the first day of the month `count` later, or before."""
    number = month.year * 12 + month.month - 1 + count
    return date(number // 12, number % 12 + 1, 1)


def _fraction(value: Any) -> Fraction:
    """Return a count, hours or money as graded: to the hundredth."""
    return rounded(Fraction(Decimal(str(value))), 2)


def _fact(row: Mapping[Any, Any]) -> Fact:
    estimate = row.get("estimate")
    most = row.get("most")
    told = all(x is not None and math.isfinite(x) for x in (estimate, most))
    return Fact(
        bad=_fraction(row["bad"]),
        all=_fraction(row["whole"]),
        rows=int(row["found"]),
        estimate=_fraction(estimate) if told else None,
        most=_fraction(most) if told else None,
    )


async def load_facts(
    connection: AsyncConnection, rules: GradeRules, month: date, *, now: datetime, zone: ZoneInfo
) -> dict[str, dict[str, Fact]]:
    """Return what is known of every operator of the registry, by operator and item.

    Args:
        connection: in one transaction.
        rules: in force in the month.
        month: its first day.
        now: the present time: what comes after is not looked at.
        zone: the office's, in which months begin.
    """
    until = months_later(month, 1)
    last = min(until - timedelta(days=1), now.astimezone(zone).date())
    found: dict[str, dict[str, Fact]] = {
        operator: {} for operator in await credit_facts.operators(connection)
    }
    for item in rules.items:
        since = months_later(until, -item.months)
        counted = await credit_facts.counted(
            connection,
            item.item,
            since=since,
            until=until,
            last=last,
            times=(
                *(datetime(d.year, d.month, d.day, tzinfo=zone) for d in (since, until)),
                *(datetime(d.year, d.month, d.day, tzinfo=UTC) for d in (since, until)),
            ),
        )
        for row in counted:
            if row["operator_id"] in found and row["whole"] is not None:
                found[row["operator_id"]][item.item] = _fact(row)
    return found


async def _arithmetic(
    database: Database,
    month: date,
    rules: GradeRules,
    *,
    now: datetime,
    zone: ZoneInfo,
    afresh: bool = False,
) -> tuple[int, dict[str, dict[str, Any]]]:
    """Return how many days were summed, and every operator's arithmetic of a month."""
    until = months_later(month, 1)
    since = months_later(until, -max(item.months for item in rules.items))
    summed = await sum_days(database, since=since, until=until, now=now)
    if afresh:
        summed += await sum_days(database, since=month, until=until, now=now, afresh=True)
    async with database.begin() as connection:
        await credit_facts.allow_long_statements(connection)
        facts = await load_facts(connection, rules, month, now=now, zone=zone)
    return summed, {
        operator_id: compute(rules, known, operator_id=operator_id, month=month)
        for operator_id, known in facts.items()
    }


def _row(told: Mapping[str, Any], month: date, now: datetime) -> dict[str, Any]:
    return {
        "operator_id": told["operator_id"],
        "month": month,
        "grade": told["grade"],
        "score": None if told["score"] is None else Decimal(told["score"]),
        "worst": told["worst"],
        "arithmetic": told,
        "rule_version": told["rules"]["version"],
        "made_at": now,
    }


def _counts(told: Mapping[str, Mapping[str, Any]]) -> dict[str | None, int]:
    counts: dict[str | None, int] = {}
    for one in told.values():
        counts[one["grade"]] = counts.get(one["grade"], 0) + 1
    return counts


def check_month(month: date, *, now: datetime, zone: ZoneInfo, closing: bool) -> None:
    """Refuse what can't be graded yet.

    Raises: CreditError that says from when on it can.
    """
    if month > month_now(now, zone):
        raise CreditError(f"{month:%Y-%m} has not begun: there is nothing to grade")
    rules_for(month)
    if closing and month >= month_now(now, zone):
        raise CreditError(
            f"{month:%Y-%m} is not over: it can be published from {months_later(month, 1)} on; "
            "until then its grades are provisional"
        )


def check_why(why: str) -> str:
    """Return the reason of a recount.

    Raises: CreditError when it is none.
    """
    why = why.strip()
    if not why or len(why) > _LONGEST_WHY:
        raise CreditError(f"say why the month is counted again, in 1 to {_LONGEST_WHY} characters")
    return why


async def draft_month(database: Database, month: date, *, now: datetime, zone: ZoneInfo) -> Graded:
    """Compute the grades of a month as it stands; what is published already stays as it is.

    It may be done as often as wanted: the same facts give the same drafts.

    Raises: CreditError for a month to come, or before the first rules.
    """
    check_month(month, now=now, zone=zone, closing=False)
    async with database.connect() as connection:
        closed = await rows.published_of(connection, month)
    if closed:
        return _closed(month, closed)
    summed, told = await _arithmetic(database, month, rules_for(month), now=now, zone=zone)
    async with database.begin() as connection:
        await rows.grade_alone(connection)
        closed = await rows.published_of(connection, month)
        if not closed:
            drafts = [_row(one, month, now) for one in told.values()]
            await rows.replace_drafts(connection, month, drafts)
    if closed:
        return _closed(month, closed)
    return Graded(
        month=month, closed=False, grades=_counts(told), published=0, unchanged=0,
        days_summed=summed,
    )  # fmt: skip


def _closed(month: date, closed: Mapping[str, Mapping[Any, Any]]) -> Graded:
    """Return what is told of a month that was published before."""
    return Graded(
        month=month, closed=True, grades=_counts(closed), published=0, unchanged=len(closed),
        days_summed=0,
    )  # fmt: skip


async def publish_month(
    database: Database, month: date, *, actor: Actor, now: datetime, zone: ZoneInfo
) -> Graded:
    """Compute the grades of a month that is over and publish them, which closes it.

    Of a month that is closed already nothing changes.

    Raises: CreditError for a month that is not over.
    """
    check_month(month, now=now, zone=zone, closing=True)
    return await _publish(database, month, actor=actor, now=now, zone=zone, why="")


async def recount_month(
    database: Database, month: date, why: str, *, actor: Actor, now: datetime, zone: ZoneInfo
) -> Graded:
    """Compute a published month again: where it differs a new revision is published.

    The revisions before stay as they are.

    Raises: CreditError without a reason, or for a month that was never published.
    """
    why = check_why(why)
    check_month(month, now=now, zone=zone, closing=True)
    async with database.connect() as connection:
        if not await rows.published_of(connection, month):
            raise CreditError(f"{month:%Y-%m} was never published: publish it first")
    return await _publish(database, month, actor=actor, now=now, zone=zone, why=why)


def _rules_of(closed: Mapping[str, Mapping[Any, Any]]) -> GradeRules | None:
    """Return the rules by which a month was graded: it keeps them, whatever came later."""
    first = next(iter(closed.values()), None)
    return None if first is None else read_rule_set(first["arithmetic"]["rules"])


async def _publish(
    database: Database, month: date, *, actor: Actor, now: datetime, zone: ZoneInfo, why: str
) -> Graded:
    async with database.connect() as connection:
        closed = await rows.published_of(connection, month)
    if closed and not why:
        return _closed(month, closed)
    rules = _rules_of(closed) or rules_for(month)
    summed, told = await _arithmetic(database, month, rules, now=now, zone=zone, afresh=bool(why))
    async with database.begin() as connection:
        await rows.grade_alone(connection)
        before = await rows.published_of(connection, month)
        if before and not why:
            return _closed(month, before)
        fresh = [
            _row(one, month, now)
            | {
                "revision": before[operator_id]["revision"] + 1 if operator_id in before else 1,
                "made_by": actor.name,
                "why": why,
            }
            for operator_id, one in told.items()
            if operator_id not in before or digest(before[operator_id]["arithmetic"]) != digest(one)
        ]
        await rows.add_grades(connection, fresh)
        await rows.replace_drafts(connection, month, [])
        if fresh:
            await record(
                connection,
                actor,
                Action.CREDIT_RECOUNTED if why else Action.CREDIT_PUBLISHED,
                f"credit:{month:%Y-%m}",
                at=now,
                why=why,
                grades=len(fresh),
                rules=rules.version,
                sha256=digest({one["operator_id"]: digest(one["arithmetic"]) for one in fresh}),
            )
    return Graded(
        month=month,
        closed=True,
        grades=_counts(told),
        published=len(fresh),
        unchanged=len(told) - len(fresh),
        days_summed=summed,
    )
