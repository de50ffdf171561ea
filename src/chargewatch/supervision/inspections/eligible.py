"""The list of a draw, from the registry: which piles, with which weights, and which inspectors."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any

from chargewatch.draws.frame import DrawError, Frame, Inspector, Pile, listed_name, told_name
from chargewatch.storage.database import Database
from chargewatch.storage.office import draws as rows
from chargewatch.storage.pages.city import newest_run
from chargewatch.supervision.inspections.weights import ALIKE, Facts, rule_on, weigh

LATELY_VERIFIED_DAYS = 90
"""Whoever passed so lately is left out, unless another number is asked for."""
MONTH_DAYS = 30.4375


@dataclass(frozen=True, kw_only=True)
class DrawWanted:
    """What is asked of a draw when its list is frozen."""

    draw_id: str
    size: int
    uniform: Decimal
    crew: int
    due_days: int
    lot: Mapping[str, str] = field(default_factory=dict)
    lately_days: int = LATELY_VERIFIED_DAYS

    @property
    def alike(self) -> bool:
        """Whether weights bear on nothing of the draw: then the list tells none."""
        return self.uniform == 1


@dataclass(frozen=True, kw_only=True)
class Listed:
    """A list that was made, and what was left out of it."""

    frame: Frame
    lots: Mapping[str, int]  # piles by operator
    excluded: Mapping[str, int]  # left out, by reason
    weights_rule: str


@dataclass(frozen=True, kw_only=True)
class _Found:
    piles: Sequence[Any]
    claims: int
    grades: Mapping[str, str | None]
    inspectors: Sequence[Any]


async def _find(database: Database, wanted: DrawWanted, *, now: datetime, months: int) -> _Found:
    async with (
        database.raw() as connection,
        connection.transaction(isolation="repeatable_read", readonly=True),
    ):
        run = await newest_run(connection)
        return _Found(
            piles=await rows.eligible(
                connection,
                wanted.lot,
                run_id=-1 if run is None else run["run_id"],
                today=now.astimezone(UTC).date(),
                complaints_since=now - timedelta(days=months * MONTH_DAYS),
            ),
            claims=await rows.claims(connection, wanted.lot),
            grades=await rows.newest_grades(connection),
            inspectors=await rows.active_inspectors(connection),
        )


async def listed(database: Database, wanted: DrawWanted, *, today: date, now: datetime) -> Listed:
    """Return the list of a draw as the registry stands.

    Args:
        database: with the registry, the newest run, verifications, grades and complaints.
        wanted: what is asked.
        today: the day, in the platform's time zone.
        now: the time of freezing.

    Raises: DrawError when it can't be drawn from: no piles, too few, or too few inspectors.
    """
    rule = rule_on(today)
    found = await _find(database, wanted, now=now, months=rule.complaint_months)
    excluded: Counter[str] = Counter()
    if found.claims:
        excluded["not_registered"] = found.claims
    earliest = today - timedelta(days=wanted.lately_days)
    piles = []
    for row in found.piles:
        if row["open_inspection"]:
            excluded["open_inspection"] += 1
            continue
        if row["verified_on"] is not None and row["verified_on"] > earliest:
            excluded["verified_lately"] += 1
            continue
        weight, why = Decimal(1), ""
        if not wanted.alike:
            facts = Facts(
                tier=row["tier"],
                grade=found.grades.get(row["operator_id"]),
                verified_on=row["verified_on"],
                complaints=row["complaints"],
            )
            weight, why = weigh(rule, facts, today)
        piles.append(
            Pile(
                name=listed_name(row["connector"]),
                weight=weight,
                operator=row["operator_id"],
                station=row["station_id"],
                why=why,
            )
        )
    frame = Frame(
        draw=wanted.draw_id,
        frozen_at=now.replace(microsecond=0),
        crew=wanted.crew,
        uniform=wanted.uniform,
        piles=tuple(piles),
        inspectors=tuple(
            Inspector(
                name=listed_name(one["name"]), recused=frozenset(one["recused_operators"] or ())
            )
            for one in found.inspectors
        ),
    )
    lots = Counter(one.operator for one in piles)
    require_drawable(frame, wanted.size)
    return Listed(
        frame=frame,
        lots=dict(sorted(lots.items())),
        excluded=dict(excluded),
        weights_rule=ALIKE if wanted.alike else rule.name,
    )


def require_drawable(frame: Frame, size: int) -> None:
    """Let pass a list that so many piles can be drawn of, each with its inspectors.

    Raises: DrawError that names what is missing.
    """
    if not frame.piles:
        raise DrawError(
            "no pile can be drawn: all are left out, or none is registered in this lot; "
            "`chargewatch draw lots` lists the lots"
        )
    if not 1 <= size <= len(frame.piles):
        raise DrawError(f"{size} piles can't be drawn: 1 to {len(frame.piles)} are in the list")
    if not 0 <= frame.uniform <= 1:
        raise DrawError(f"the uniform share must be from 0 to 1, it is {frame.uniform}")
    if frame.crew < 1:
        raise DrawError("a draw needs at least one inspector a pile")
    for operator in sorted({one.operator for one in frame.piles}):
        able = inspectors_for(frame.inspectors, operator)
        if len(able) < frame.crew:
            raise DrawError(
                f"piles of {operator} need {frame.crew} inspectors, and only {len(able)} may "
                "inspect them: add inspectors to the registry, or take recusals back"
            )


def inspectors_for(inspectors: Iterable[Inspector], operator: str) -> list[str]:
    """Return the names of who may inspect an operator's piles."""
    return [told_name(one.name) for one in inspectors if operator not in one.recused]
