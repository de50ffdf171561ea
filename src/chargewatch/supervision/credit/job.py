"""Grading as a job of the background."""

from __future__ import annotations

from datetime import date
from typing import Any
from zoneinfo import ZoneInfo

from chargewatch.supervision.credit import grading
from chargewatch.supervision.credit.grading import Graded
from chargewatch.supervision.credit.rules import CreditError, rule_sets
from chargewatch.supervision.jobs.kinds import Work


async def grade_operators(work: Work) -> list[dict[str, Any]]:
    """Draft, publish or recount a month; without one draft the running one and the one before.

    Raises: CreditError for what can't be graded so.
    """
    zone = work.settings.zone
    told = work.arguments.get("month")
    if told is None:
        running = grading.month_now(work.now, zone)
        # The one before may still wait for its publication.
        before = grading.months_later(running, -1)
        months = [month for month in (before, running) if month >= rule_sets()[0].valid_from]
    else:
        months = [grading.month_of(str(told))]
    return [await _graded(work, month, zone) for month in months]


async def _graded(work: Work, month: date, zone: ZoneInfo) -> dict[str, Any]:
    action = str(work.arguments.get("action", "draft"))
    database, now = work.database, work.now
    if action == "draft":
        done = await grading.draft_month(database, month, now=now, zone=zone)
    elif action == "publish":
        done = await grading.publish_month(database, month, actor=work.actor, now=now, zone=zone)
    elif action == "recount":
        why = str(work.arguments.get("why", ""))
        done = await grading.recount_month(
            database, month, why, actor=work.actor, now=now, zone=zone
        )
    else:
        raise CreditError(f"action {action!r} is none: draft, publish or recount")
    return told_of(done)


def told_of(done: Graded) -> dict[str, Any]:
    """Return what grading a month did, as JSON."""
    return {
        "month": f"{done.month:%Y-%m}",
        "closed": done.closed,
        "grades": {grade or "-": count for grade, count in sorted(done.grades.items(), key=str)},
        "published": done.published,
        "unchanged": done.unchanged,
        "days_summed": done.days_summed,
    }
