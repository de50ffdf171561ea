"""What is due: verifications that end or are over, and the steps to the next one.

The steps are those of the national flow: filed, booked, accepted, verified on site, certificate.
They belong to the verification that ends; a new valid one takes the instrument off the list.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from functools import cache
from importlib.resources import files
from typing import Any

from sqlalchemy.ext.asyncio import AsyncConnection

from chargewatch.domain.working_days import ONE_DAY, Calendar, calendars
from chargewatch.errors import ChargewatchError, NotFoundError
from chargewatch.storage.database import Database
from chargewatch.storage.office import due as rows
from chargewatch.storage.office.instruments import InstrumentFilter
from chargewatch.supervision.audit import Action, Actor, record

DUE_DAYS = 60
"""A verification that ends within so many days is due, where nothing else is asked for."""
MOST_DUE_DAYS = 1_100
"""Verifications hold three years."""
MOST_NOTE = 500
EARLIEST_STEP = date(2000, 1, 1)


class DueError(ChargewatchError):
    """A step can't be taken as asked."""


@dataclass(frozen=True)
class DueRule:
    """By when an appointment should be made.

    Attributes:
        working_days_before: the end of the verification.
        calendar: that counts them.
        valid_from: first day of the end of verifications that it is for; None: always.
        valid_until: last such day.
        what: in words.
        source: who says so.
        certainty: S1 (original seen), S2 (told by others), M (from memory).
    """

    name: str
    working_days_before: int
    calendar: str
    valid_from: date | None
    valid_until: date | None
    what: str
    source: str
    certainty: str

    def holds(self, day: date) -> bool:
        """Return whether the rule is for a verification that ends on a day."""
        return (self.valid_from is None or self.valid_from <= day) and (
            self.valid_until is None or day <= self.valid_until
        )


def read_due_rules(told: Mapping[str, Any]) -> Sequence[DueRule]:
    """Return the rules of a document like due_rules.json."""

    def day(text: str | None) -> date | None:
        return None if text is None else date.fromisoformat(text)

    return tuple(
        DueRule(
            **row | {"valid_from": day(row["valid_from"]), "valid_until": day(row["valid_until"])}
        )
        for row in told["rules"]
    )


@cache
def due_rules() -> Sequence[DueRule]:
    """Return the rules that come with chargewatch."""
    text = (
        files("chargewatch.supervision.instruments").joinpath("due_rules.json").read_text("utf-8")
    )
    return read_due_rules(json.loads(text))


def rule_for(until: date, rules: Sequence[DueRule]) -> DueRule | None:
    """Return the rule for a verification that ends on a day."""
    return next((rule for rule in rules if rule.holds(until)), None)


def working_days_back(calendar: Calendar, day: date, count: int) -> date:
    """Return the working day that is `count` of them before a day, which itself isn't counted."""
    while count:
        day -= ONE_DAY
        count -= calendar.is_worked(day)
    return day


def book_by(until: date | None, rules: Sequence[DueRule]) -> date | None:
    """Return the last day on which the next verification should be booked; None: no rule."""
    rule = None if until is None else rule_for(until, rules)
    if until is None or rule is None:
        return None
    return working_days_back(calendars()[rule.calendar], until, rule.working_days_before)


@dataclass(frozen=True, kw_only=True)
class TakenDueStep:
    """A step that was taken: when, told by whom and when."""

    step: str
    done_on: date
    note: str
    at: datetime
    actor: str


@dataclass(frozen=True, kw_only=True)
class DueRow:
    """An instrument whose verification ends or is over.

    Attributes:
        instrument: connector, station, district, operator and model of it.
        until: last day of its verification; None: it never had one that tells an end.
        failed: whether a failed verification ended it.
        days_left: until that day, negative when it is over.
        book_by: last day on which the next one should be booked, by the rule.
        is_late: whether that day is past and no appointment was made.
        steps: those that were taken since the verification that ends, by name.
    """

    instrument: Mapping[str, Any]
    until: date | None
    failed: bool
    days_left: int | None
    book_by: date | None
    is_late: bool
    steps: Mapping[str, TakenDueStep] = field(default_factory=dict)

    @property
    def next_step(self) -> str:
        """The first step that was not taken, "" when all were."""
        return next((step for step in rows.STEPS if step not in self.steps), "")


def due_row(
    row: Mapping[Any, Any],
    steps: Mapping[str, TakenDueStep],
    *,
    today: date,
    rules: Sequence[DueRule],
) -> DueRow:
    """Return a row of the list with what is to be known of it on a day."""
    until = row["until"]
    booked = any(step in steps for step in rows.STEPS[1:])
    by = book_by(until, rules)
    return DueRow(
        instrument=dict(row),
        until=until,
        failed=row["failed"],
        days_left=None if until is None else (until - today).days,
        book_by=by,
        is_late=not booked and (until is None or (by is not None and by < today)),
        steps=steps,
    )


async def steps_of(
    connection: AsyncConnection, found: Sequence[Mapping[Any, Any]]
) -> dict[int, dict[str, TakenDueStep]]:
    """Return the steps of instruments since the verification that ends, by connector_id."""
    cycles = {row["connector_id"]: row["cycle"] for row in found}
    taken: dict[int, dict[str, TakenDueStep]] = {connector_id: {} for connector_id in cycles}
    for row in await rows.steps(connection, connector_ids=sorted(cycles)):
        if row["cycle"] == cycles[row["connector_id"]]:
            taken[row["connector_id"]][row["step"]] = TakenDueStep(
                step=row["step"],
                done_on=row["done_on"],
                note=row["note"],
                at=row["at"],
                actor=row["actor"],
            )
    return taken


async def due_list(
    connection: AsyncConnection,
    *,
    wanted: InstrumentFilter,
    scope: str | None,
    days: int,
    lacks: str = "",
    after: tuple[date | None, int] | None = None,
    limit: int,
    rules: Sequence[DueRule] | None = None,
) -> list[DueRow]:
    """Return instruments whose verification ends within some days or is over, the earliest first.

    Args:
        connection: to the registry.
        wanted: narrows; `today` of it is the day. With state `never`, those that had none.
        scope: the one operator whose instruments may be seen; None: everybody's.
        days: from today on.
        lacks: a step that was not taken yet, or "".
        after: `until` and connector_id of the last row before this page.
        limit: rows.
        rules: default those that come with chargewatch.
    """
    found = await rows.due(
        connection,
        wanted=wanted,
        scope=scope,
        before=wanted.today + timedelta(days=days + 1),
        lacks=lacks,
        after=after,
        limit=limit,
    )
    steps = await steps_of(connection, found)
    known = due_rules() if rules is None else rules
    return [
        due_row(row, steps[row["connector_id"]], today=wanted.today, rules=known) for row in found
    ]


async def take_due_step(
    database: Database,
    connector: str,
    step: str,
    *,
    done_on: date,
    note: str,
    actor: Actor,
    now: datetime,
    today: date,
) -> None:
    """Keep that a step was taken on the way to an instrument's next verification.

    Raises: NotFoundError for a connector that isn't registered; DueError for a step that isn't one,
        a day in the future or long past, a note that is too long.
    """
    if step not in rows.STEPS:
        raise DueError(f"no step {step!r}: one of {', '.join(rows.STEPS)}")
    if not EARLIEST_STEP <= done_on <= today:
        raise DueError(f"{done_on} can't be: a step is told on its day or later")
    if len(note) > MOST_NOTE:
        raise DueError(f"the note is longer than {MOST_NOTE} characters: shorten it")
    async with database.begin() as connection:
        found = await _cycle(connection, connector)
        await rows.put_step(
            connection,
            connector_id=found["connector_id"],
            cycle=found["cycle"],
            step=step,
            done_on=done_on,
            note=note.strip(),
            at=now,
            actor=actor.name,
        )
        await record(
            connection,
            actor,
            Action.DUE_STEP_TAKEN,
            f"connector:{connector}",
            at=now,
            why=note.strip(),
            step=step,
            done_on=done_on.isoformat(),
        )


async def take_back_step(
    database: Database, connector: str, step: str, *, why: str, actor: Actor, now: datetime
) -> None:
    """Take back a step that was told by mistake.

    Raises: NotFoundError for a connector or step that isn't there; DueError without a reason.
    """
    if not why.strip():
        raise DueError("say why the step is taken back")
    async with database.begin() as connection:
        found = await _cycle(connection, connector)
        gone = await rows.take_step(
            connection, connector_id=found["connector_id"], cycle=found["cycle"], step=step
        )
        if not gone:
            raise NotFoundError(f"{connector} has no step {step!r} to take back")
        await record(
            connection,
            actor,
            Action.DUE_STEP_TAKEN_BACK,
            f"connector:{connector}",
            at=now,
            why=why.strip()[:MOST_NOTE],
            step=step,
        )


async def _cycle(connection: AsyncConnection, connector: str) -> Mapping[Any, Any]:
    found = await rows.cycle(connection, connector)
    if found is None:
        raise NotFoundError(f"no registered connector {connector!r}: search the registry")
    return found
