"""What the office does with a complaint, one step after the other, each in the audit trail.

received -> accepted -> answered -> ended, or received -> refused; then the complainer is told.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

from sqlalchemy.ext.asyncio import AsyncConnection

from chargewatch.errors import ChargewatchError, NotFoundError
from chargewatch.storage import sql
from chargewatch.storage.office import complaints as rows
from chargewatch.supervision.audit import Action, Actor, record
from chargewatch.supervision.cases.entries import tell
from chargewatch.supervision.cases.model import Origin
from chargewatch.supervision.cases.opening import Wanted, flagged_since, open_wanted
from chargewatch.supervision.complaints.clocks import clocks_named
from chargewatch.supervision.complaints.filing import MOST_TEXT, plain_words
from chargewatch.supervision.complaints.privacy import without_contacts

COMPLAINT_STATES = ("received", "accepted", "answered", "ended", "refused")
_OVER = frozenset({"ended", "refused"})


class ComplaintError(ChargewatchError):
    """A step is not open to a complaint as it is."""


async def _in_state(
    transaction: AsyncConnection, complaint_id: int, *states: str
) -> Mapping[Any, Any]:
    """Return a complaint in one of some states, locked."""
    row = await rows.locked(transaction, complaint_id)
    if row is None:
        raise NotFoundError(f"no complaint {complaint_id}: look for its number in the list")
    if row["state"] not in states:
        raise ComplaintError(
            f"complaint {complaint_id} is {row['state']}; this step is for one that is "
            f"{' or '.join(states)}"
        )
    return row


def _words(text: str, what: str) -> str:
    plain = plain_words(text)
    if not plain:
        raise ComplaintError(f"write {what}: the complainer reads it")
    if len(plain) > MOST_TEXT:
        raise ComplaintError(f"{what} has {len(plain)} letters, at most {MOST_TEXT} are kept")
    return plain


def _subject(complaint_id: int) -> str:
    return f"complaint:{complaint_id}"


async def accept(
    transaction: AsyncConnection, actor: Actor, complaint_id: int, *, now: datetime, zone: ZoneInfo
) -> None:
    """Accept a complaint; the clock of its end begins.

    Raises: NotFoundError, ComplaintError when it is not just received.
    """
    row = await _in_state(transaction, complaint_id, "received")
    end_by = clocks_named(row["clocks"]).end_by(now.astimezone(zone).date())
    await sql.run(transaction, rows.ACCEPT, complaint_id=complaint_id, now=now, end_by=end_by)
    await record(
        transaction, actor, Action.COMPLAINT_ACCEPTED, _subject(complaint_id), at=now,
        end_by=str(end_by),
    )  # fmt: skip


async def refuse(
    transaction: AsyncConnection, actor: Actor, complaint_id: int, *, reason: str, now: datetime
) -> None:
    """Refuse a complaint, with the reason that its complainer reads.

    Raises: NotFoundError, ComplaintError when it is not just received or no reason is given.
    """
    reason = _words(reason, "the reason")
    await _in_state(transaction, complaint_id, "received")
    await sql.run(transaction, rows.REFUSE, complaint_id=complaint_id, now=now, answer=reason)
    await _is_over(transaction, complaint_id, now=now)
    await record(
        transaction, actor, Action.COMPLAINT_REFUSED, _subject(complaint_id), at=now, why=reason
    )


async def answer(
    transaction: AsyncConnection, actor: Actor, complaint_id: int, *, text: str, now: datetime
) -> None:
    """Answer an accepted complaint, or put another answer in place of the first.

    Raises: NotFoundError, ComplaintError when it is not accepted or there is no text.
    """
    text = _words(text, "the answer")
    await _in_state(transaction, complaint_id, "accepted", "answered")
    await sql.run(transaction, rows.ANSWER, complaint_id=complaint_id, now=now, answer=text)
    await record(
        transaction, actor, Action.COMPLAINT_ANSWERED, _subject(complaint_id), at=now, answer=text
    )


async def end(
    transaction: AsyncConnection, actor: Actor, complaint_id: int, *, now: datetime, zone: ZoneInfo
) -> None:
    """End an answered complaint; the clock for telling the complainer begins.

    Raises: NotFoundError, ComplaintError when it has no answer yet.
    """
    row = await _in_state(transaction, complaint_id, "answered")
    notify_by = clocks_named(row["clocks"]).notify_by(now.astimezone(zone).date())
    await sql.run(transaction, rows.END, complaint_id=complaint_id, now=now, notify_by=notify_by)
    await _is_over(transaction, complaint_id, now=now)
    await record(
        transaction, actor, Action.COMPLAINT_ENDED, _subject(complaint_id), at=now,
        notify_by=str(notify_by),
    )  # fmt: skip


async def _is_over(transaction: AsyncConnection, complaint_id: int, *, now: datetime) -> None:
    """Begin the time of stay of whom to tell; where there is nobody the status page has told it."""
    if not await sql.run(transaction, rows.CONTACT_ENDS, complaint_id=complaint_id, now=now):
        await sql.run(transaction, rows.TELL, complaint_id=complaint_id, now=now)


async def note_told(
    transaction: AsyncConnection, actor: Actor, complaint_id: int, *, now: datetime
) -> None:
    """Note that the complainer was told how it ended.

    Raises: NotFoundError, ComplaintError when it is not over, or was told.
    """
    row = await _in_state(transaction, complaint_id, *sorted(_OVER))
    if row["notified_at"] is not None:
        raise ComplaintError(f"complaint {complaint_id}: that it was told is noted already")
    await sql.run(transaction, rows.TELL, complaint_id=complaint_id, now=now)
    await record(transaction, actor, Action.COMPLAINT_TOLD, _subject(complaint_id), at=now)


async def open_case(
    transaction: AsyncConnection, actor: Actor, complaint_id: int, *, now: datetime, zone: ZoneInfo
) -> str:
    """Open a case of an accepted complaint's pile, or add to the open one; return its number.

    Raises: NotFoundError, ComplaintError when it is not accepted or nobody's pile, CaseError.
    """
    row = await _in_state(transaction, complaint_id, "accepted", "answered")
    if row["operator_id"] is None:
        raise ComplaintError(
            f"complaint {complaint_id} is about {row['connector']}, which is not in the register: "
            "register it first"
        )
    local = now.astimezone(zone)
    pile = await rows.registered(transaction, row["connector"])
    wanted = Wanted(
        operator_id=row["operator_id"],
        station_id=row["station_id"],
        connector=row["connector"],
        subject=f"connector:{row['connector']}",
        origin=Origin.COMPLAINT,
        origin_key=str(complaint_id),
        title=f"Complaint {complaint_id}: {row['kind']}",
        deadline=row["end_by"] if row["end_by"] >= local.date() else None,
        flagged_at=None if pile is None else await flagged_since(transaction, pile["connector_id"]),
    )
    (case,), told = await open_wanted(transaction, actor, [wanted], now=local)
    await sql.run(transaction, rows.LINK_CASE, complaint_id=complaint_id, case_id=case.case_id)
    await tell(transaction, actor, told, now=now)
    await record(
        transaction, actor, Action.COMPLAINT_CASE_OPENED, _subject(complaint_id), at=now,
        case=case.number,
    )  # fmt: skip
    return case.number


async def erase_contact(
    transaction: AsyncConnection, actor: Actor, complaint_id: int, *, now: datetime
) -> None:
    """Delete whom to tell, and every address and number in the complaint's own words.

    Raises: NotFoundError, ComplaintError when there is nothing to delete.
    """
    row = await _in_state(transaction, complaint_id, *COMPLAINT_STATES)
    gone = await sql.run(transaction, rows.ERASE_CONTACT, complaint_id=complaint_id)
    words = {name: without_contacts(row[name]) for name in ("text", "session_text")}
    changed = any(words[name] != row[name] for name in words)
    if not gone and not changed:
        raise ComplaintError(f"complaint {complaint_id} holds no contact data any more")
    if changed:
        await sql.run(
            transaction,
            rows.REPLACE_WORDS,
            complaint_id=complaint_id,
            text=words["text"],
            session_text=words["session_text"],
        )
    if row["state"] in _OVER and row["notified_at"] is None:
        await sql.run(transaction, rows.TELL, complaint_id=complaint_id, now=now)
    await record(
        transaction, actor, Action.COMPLAINT_CONTACT_ERASED, _subject(complaint_id), at=now
    )
