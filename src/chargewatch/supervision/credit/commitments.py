"""What operators promise of themselves: recorded, published, and held to."""

from __future__ import annotations

from datetime import date, datetime, timedelta
from zoneinfo import ZoneInfo

from chargewatch.errors import NotFoundError
from chargewatch.storage.database import Database
from chargewatch.storage.office import credit as rows
from chargewatch.supervision.audit import Action, Actor, record
from chargewatch.supervision.credit.rules import CreditError

LONGEST_TEXT = 1_000
_LONGEST = timedelta(days=5 * 366)


def _text(told: str, what: str) -> str:
    """Return a text for people.

    Raises: CreditError when it is empty, too long, or holds what no table can.
    """
    text = told.strip()
    if not text or len(text) > LONGEST_TEXT:
        raise CreditError(f"{what}: write 1 to {LONGEST_TEXT} characters")
    if any(ord(mark) < 32 and mark not in "\r\n\t" for mark in text):
        raise CreditError(f"{what}: it holds a control character")
    return text


async def commit(
    database: Database,
    operator_id: str,
    *,
    text: str,
    until: date,
    actor: Actor,
    now: datetime,
    zone: ZoneInfo,
) -> int:
    """Record what an operator promises, and return its number.

    Args:
        database: with the registry.
        operator_id: who promises.
        text: what.
        until: the last day on which it can be kept.
        actor: who records it, of the operator or of the office.
        now: the present time.
        zone: the office's.

    Raises: NotFoundError for an operator nobody knows; CreditError for a text or day that is none.
    """
    text = _text(text, "the commitment")
    today = now.astimezone(zone).date()
    if not today <= until <= today + _LONGEST:
        raise CreditError(
            f"until {until}: a commitment ends between today, {today}, and in five years"
        )
    async with database.begin() as connection:
        if await rows.operator_row(connection, operator_id) is None:
            raise NotFoundError(f"no operator {operator_id!r} in the registry")
        commitment_id = await rows.add_commitment(
            connection,
            {
                "operator_id": operator_id,
                "text": text,
                "made_on": today,
                "until": until,
                "made_by": actor.name,
            },
        )
        await record(
            connection,
            actor,
            Action.COMMITMENT_MADE,
            f"operator:{operator_id}",
            at=now,
            commitment=commitment_id,
            until=until.isoformat(),
        )
    return commitment_id


async def publish(
    database: Database, operator_id: str, commitment_id: int, *, actor: Actor, now: datetime
) -> None:
    """Show a commitment to the public, from now on; again changes nothing.

    Raises: NotFoundError when the operator has none of that number.
    """
    async with database.begin() as connection:
        found = await rows.lock_commitment(connection, operator_id, commitment_id)
        if found is None:
            raise _unknown(operator_id, commitment_id)
        if found["published"]:
            return
        await rows.publish_commitment(connection, commitment_id)
        await record(
            connection,
            actor,
            Action.COMMITMENT_PUBLISHED,
            f"operator:{operator_id}",
            at=now,
            commitment=commitment_id,
        )


async def decide(
    database: Database,
    operator_id: str,
    commitment_id: int,
    *,
    kept: bool,
    why: str,
    actor: Actor,
    now: datetime,
    zone: ZoneInfo,
) -> None:
    """Say that a commitment was kept or broken, and why; once.

    Raises: NotFoundError when the operator has none of that number; CreditError when it was
        decided before, or no reason is given.
    """
    why = _text(why, "the reason")
    today = now.astimezone(zone).date()
    async with database.begin() as connection:
        found = await rows.lock_commitment(connection, operator_id, commitment_id)
        if found is None:
            raise _unknown(operator_id, commitment_id)
        if found["kept"] is not None:
            raise CreditError(
                f"commitment {commitment_id} was decided on {found['decided_on']}: "
                "that is never changed"
            )
        await rows.decide_commitment(
            connection, commitment_id, kept=kept, day=today, actor=actor.name, why=why
        )
        await record(
            connection,
            actor,
            Action.COMMITMENT_DECIDED,
            f"operator:{operator_id}",
            at=now,
            why=why,
            commitment=commitment_id,
            kept=kept,
        )


def _unknown(operator_id: str, commitment_id: int) -> NotFoundError:
    return NotFoundError(f"operator {operator_id!r} has no commitment {commitment_id}")
