"""Opening cases: never two open ones for one thing, also when two people open at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta

from sqlalchemy.ext.asyncio import AsyncConnection

from chargewatch.domain.verdict import Tier
from chargewatch.errors import NotFoundError
from chargewatch.storage.office import cases as rows
from chargewatch.storage.pages import pile as pile_rows
from chargewatch.storage.pages.city import Scope
from chargewatch.supervision.audit import Action, Actor
from chargewatch.supervision.cases.entries import CaseTold, tell, touch, write_entry
from chargewatch.supervision.cases.model import (
    LONGEST_TITLE,
    Case,
    CaseError,
    CaseRoleError,
    EntryKind,
    Origin,
    case_of,
    required_text,
)
from chargewatch.supervision.cases.steps import WORKERS

FLAGGED = (Tier.RED, Tier.ORANGE, Tier.YELLOW)
"""Tiers that ask for somebody's attention."""
LONGEST_DEADLINE = timedelta(days=3_660)
SUBJECTS = ("connector", "station", "meter", "operator")
"""What a case may be about."""


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """A case that somebody wants to open."""

    operator_id: str
    station_id: str
    connector: str | None
    subject: str
    origin: Origin
    origin_key: str = ""
    title: str
    deadline: date | None = None
    flagged_at: datetime | None = None


def check_deadline(deadline: date | None, *, now: datetime) -> None:
    """Let pass a deadline that is neither past nor a slip of the pen.

    Raises: CaseError.
    """
    if deadline is None:
        return
    today = now.date()
    # A day back: whoever asks may live in a zone in which it is still yesterday.
    if not today - timedelta(days=1) <= deadline <= today + LONGEST_DEADLINE:
        raise CaseError(
            f"deadline {deadline.isoformat()}: use a day from today on, within ten years"
        )


def check_subject(subject: str) -> None:
    """Let pass what a case may be about.

    Raises: CaseError that lists the kinds.
    """
    kind, _, name = subject.partition(":")
    if kind not in SUBJECTS or not name:
        raise CaseError(f"subject {subject!r}: write one of {', '.join(SUBJECTS)}, `:` and a name")


async def open_wanted(
    connection: AsyncConnection, actor: Actor, wanted: Sequence[Wanted], *, now: datetime
) -> tuple[list[Case], list[CaseTold]]:
    """Open cases, or add to those that are open, and return them with what is to be audited.

    The year's row is held first: who opens at the same time waits, and finds the case open.
    Cases that are open already are held in the order of their key.

    Raises: CaseError, CaseRoleError.
    """
    if actor.role and actor.role not in WORKERS:
        raise CaseRoleError(f"{actor.role}: cases are opened by the office")
    last = await rows.hold_year(connection, now.year)
    pairs = [(one.operator_id, one.subject) for one in wanted]
    held = {
        (row["operator_id"], row["subject"]): case_of(row)
        for row in await rows.hold_open_cases(connection, pairs)
    }
    cases: list[Case] = []
    told: list[CaseTold] = []
    for one, pair in zip(wanted, pairs, strict=True):
        check_subject(one.subject)
        check_deadline(one.deadline, now=now)
        title = required_text(one.title, what="title", most=LONGEST_TITLE)
        if pair in held:
            case, more = await _name_again(connection, held[pair], actor, one, title=title, now=now)
        else:
            case, more, last = await _add(connection, actor, one, title=title, last=last, now=now)
        held[pair] = case
        cases.append(case)
        told.append(more)
    return cases, told


async def _name_again(
    connection: AsyncConnection, case: Case, actor: Actor, one: Wanted, *, title: str, now: datetime
) -> tuple[Case, CaseTold]:
    entry_id = await write_entry(
        connection,
        case,
        actor,
        EntryKind.NAMED_AGAIN,
        now=now,
        text=title,
        origin=one.origin.value,
        origin_key=one.origin_key,
    )
    case = await touch(connection, case, now=now)
    detail = {"entry_id": entry_id, "origin": one.origin.value, "origin_key": one.origin_key}
    return case, CaseTold(action=Action.CASE_NAMED_AGAIN, case=case, detail=detail)


async def _add(
    connection: AsyncConnection, actor: Actor, one: Wanted, *, title: str, last: int, now: datetime
) -> tuple[Case, CaseTold, int]:
    values = {
        "operator_id": one.operator_id,
        "station_id": one.station_id,
        "connector": one.connector,
        "subject": one.subject,
        "origin": one.origin.value,
        "origin_key": one.origin_key,
        "title": title,
        "deadline": one.deadline,
        "opened_by": actor.name,
        "flagged_at": one.flagged_at,
        "now": now,
    }
    row = await rows.add_case(connection, year=now.year, last=last, values=values)
    if row is None:
        # Opened at the turn of the year, when each of two held a year of its own.
        found = await rows.open_case_of(
            connection, operator_id=one.operator_id, subject=one.subject
        )
        if found is None:
            raise CaseError(f"{one.subject}: a case of it was opened and closed just now; repeat")
        case, told = await _name_again(connection, case_of(found), actor, one, title=title, now=now)
        return case, told, last
    case = case_of(row)
    await write_entry(
        connection,
        case,
        actor,
        EntryKind.OPENED,
        now=now,
        text=title,
        origin=one.origin.value,
        origin_key=one.origin_key,
        deadline=None if one.deadline is None else one.deadline.isoformat(),
    )
    detail = {
        "about": one.subject,
        "operator_id": one.operator_id,
        "station_id": one.station_id,
        "origin": one.origin.value,
        "origin_key": one.origin_key,
        "deadline": None if one.deadline is None else one.deadline.isoformat(),
    }
    told = CaseTold(action=Action.CASE_OPENED, case=case, why=title, detail=detail)
    return case, told, last + 1


async def open_case(
    connection: AsyncConnection,
    actor: Actor,
    *,
    operator_id: str,
    station_id: str,
    connector: str | None,
    subject: str,
    origin: Origin | str,
    origin_key: str,
    title: str,
    deadline: date | None = None,
    now: datetime,
) -> Case:
    """Open a case, or return the open one of the subject with an entry added.

    Its audit entry is written here: whoever changes more in the transaction does so before.

    Args:
        connection: in a transaction.
        actor: who opens it.
        operator_id: whose thing it is about.
        station_id: where it stands.
        connector: a connector's name; None where it is about something else.
        subject: "connector:<name>", "station:<name>", "meter:<name>" or "operator:<name>".
        origin: flag, signal, complaint or hand.
        origin_key: which signal or complaint, so that it is found again.
        title: in a line; the operator reads it once it is shown the case.
        deadline: day by which something must have been done.
        now: its zone says the year in the case's number.

    Raises: CaseError, CaseRoleError.
    """
    flagged_at = None
    if connector is not None:
        pile = await pile_rows.pile(
            connection, connector, scope=None, station_id=station_id, operator_id=operator_id
        )
        if pile is not None:
            flagged_at = await flagged_since(connection, pile["connector_id"])
    wanted = Wanted(
        operator_id=operator_id,
        station_id=station_id,
        connector=connector,
        subject=subject,
        origin=Origin(origin),
        origin_key=origin_key,
        title=title,
        deadline=deadline,
        flagged_at=flagged_at,
    )
    cases, told = await open_wanted(connection, actor, [wanted], now=now)
    await tell(connection, actor, told, now=now)
    return cases[0]


async def flagged_since(connection: AsyncConnection, connector_id: int) -> datetime | None:
    """Return since when a pile has been flagged; a run without data in between ends no flag."""
    return await rows.flagged_since(
        connection, connector_id, flagged=[tier.value for tier in FLAGGED]
    )


async def wanted_of_pile(
    connection: AsyncConnection,
    connector: str,
    *,
    station_id: str | None = None,
    operator_id: str | None = None,
    scope: Scope = None,
    origin: Origin,
    title: str = "",
    deadline: date | None = None,
) -> Wanted:
    """Return the case of a pile to open.

    Raises: NotFoundError when there is none of this name.
    """
    pile = await pile_rows.pile(
        connection, connector, scope=scope, station_id=station_id, operator_id=operator_id
    )
    if pile is None:
        raise NotFoundError(f"no pile {connector!r}: check the name in the list")
    since = await flagged_since(connection, pile["connector_id"])
    return Wanted(
        operator_id=pile["operator_id"],
        station_id=pile["station_id"],
        connector=connector,
        subject=f"connector:{connector}",
        origin=origin,
        title=title or connector,
        deadline=deadline,
        flagged_at=since,
    )


async def wanted_of_station(
    connection: AsyncConnection,
    station_id: str,
    *,
    operator_id: str,
    title: str = "",
    deadline: date | None = None,
) -> Wanted:
    """Return the case of a station to open by hand.

    Raises: NotFoundError when the registry has none of this name.
    """
    if not await rows.station_exists(connection, station_id, operator_id=operator_id):
        raise NotFoundError(f"no station {station_id!r} of {operator_id!r} in the registry")
    return Wanted(
        operator_id=operator_id,
        station_id=station_id,
        connector=None,
        subject=f"station:{station_id}",
        origin=Origin.HAND,
        title=title or station_id,
        deadline=deadline,
    )


async def wanted_of_signal(
    connection: AsyncConnection, signal_id: int, *, title: str = "", deadline: date | None = None
) -> Wanted:
    """Return the case of what a signal is about.

    Raises: NotFoundError when there is none of this number, CaseError when it names no operator.
    """
    signal = await rows.signal(connection, signal_id)
    if signal is None:
        raise NotFoundError(f"no signal {signal_id}: see the list of signals")
    if not signal["operator_id"] or not signal["station_id"]:
        raise CaseError(f"signal {signal_id} names no operator and station: open a case by hand")
    flagged_at = None
    if signal["connector"]:
        pile = await wanted_of_pile(
            connection,
            signal["connector"],
            station_id=signal["station_id"],
            operator_id=signal["operator_id"],
            origin=Origin.SIGNAL,
        )
        flagged_at = pile.flagged_at
    name = signal["subject"].partition(":")[2]
    return Wanted(
        operator_id=signal["operator_id"],
        station_id=signal["station_id"],
        connector=signal["connector"],
        subject=signal["subject"],
        origin=Origin.SIGNAL,
        origin_key=str(signal_id),
        title=title or f"{name}: {signal['code']}",
        deadline=deadline,
        flagged_at=flagged_at,
    )
