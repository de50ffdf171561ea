"""Works on a pile that a person declares: beside what gateways send on the topic `events`.

The same table and the same weight in a run. The office declares for every pile, an operator for its
own; who did is told with the change. A change that was wrong is withdrawn with a reason: a run no
longer knows of it, people still do.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy.ext.asyncio import AsyncConnection

from chargewatch.errors import ChargewatchError, NotFoundError
from chargewatch.storage.office import declared as rows
from chargewatch.storage.pages import pile as pile_rows
from chargewatch.supervision.audit import Action, Actor, record
from chargewatch.supervision.verifications.entering import (
    LEAST_WHY,
    MOST_WHY,
    Place,
    require_text,
)
from chargewatch.wire.events import MAX_DETAIL
from chargewatch.wire.fields import MAX_TEXT
from chargewatch.wire.payloads import EVENT_KINDS
from chargewatch.wire.personal import without_vin

LONGEST_AGO = timedelta(days=3660)
LARGEST_WH = 2.0**53
OFFICE, OPERATOR = "office", "operator"
CHANGE_KINDS = tuple(EVENT_KINDS)
"""What a person may declare: the same as a gateway."""


class DeclarationError(ChargewatchError):
    """A change can't be declared or withdrawn as asked."""


@dataclass(frozen=True, kw_only=True)
class NewChange:
    """A work on a connector.

    serial: of the new meter; start_wh, stop_wh: the new register's first reading and the old one's
    last.
    """

    kind: str
    at: datetime
    detail: str = ""
    serial: str = ""
    start_wh: float | None = None
    stop_wh: float | None = None


def _check(new: NewChange, now: datetime) -> None:
    if new.kind not in CHANGE_KINDS:
        raise DeclarationError(f"kind {new.kind!r}: use {', '.join(CHANGE_KINDS)}")
    if new.at.tzinfo is None:
        raise DeclarationError("at needs its offset, as 2026-11-27T10:00:00+08:00")
    if not now - LONGEST_AGO <= new.at <= now:
        raise DeclarationError(
            "at lies in the future: declare a work once it is done"
            if new.at > now
            else "at lies more than ten years back"
        )
    if len(new.detail) > MAX_DETAIL or len(new.serial) > MAX_TEXT:
        raise DeclarationError(f"detail has at most {MAX_DETAIL} characters, serial {MAX_TEXT}")
    for name, told in (("detail", new.detail), ("serial", new.serial)):
        require_text(name, told)
    for name, value in (("start_wh", new.start_wh), ("stop_wh", new.stop_wh)):
        if value is not None and not (math.isfinite(value) and 0 <= value <= LARGEST_WH):
            raise DeclarationError(f"{name} must be an energy of 0 or more, Wh")


async def declare_change(
    connection: AsyncConnection,
    actor: Actor,
    place: Place,
    new: NewChange,
    *,
    scope: str | None,
    now: datetime,
) -> int:
    """Keep a change that a person declares of a connector and return its event_id.

    `scope` is the operator whose user declares; None: the office.

    Raises: NotFoundError; DeclarationError that says what can't be.
    """
    _check(new, now)
    found = await pile_rows.pile(
        connection,
        place.connector,
        scope=scope,
        station_id=place.station_id,
        operator_id=place.operator_id,
    )
    if found is None:
        raise NotFoundError(f"no connector {place.connector!r}: look at its plate again")
    origin = OFFICE if scope is None else OPERATOR
    event_id = await rows.add_change(
        connection,
        {
            "operator_id": found["operator_id"],
            "station_id": found["station_id"],
            "connector_id": found["connector_id"],
            "kind": new.kind,
            "at": new.at,
            "detail": without_vin(new.detail) or None,
            "serial": new.serial or None,
            "start_wh": new.start_wh,
            "stop_wh": new.stop_wh,
            "received_at": now,
            "origin": origin,
            "declared_by": actor.name,
        },
    )
    if event_id is None:
        raise DeclarationError(
            f"{new.kind} of {place.connector} at this time was declared before: withdraw that one "
            "if it is wrong"
        )
    await rows.make_due(connection, found["connector_id"], kind=new.kind, at=new.at)
    await record(
        connection,
        actor,
        Action.CHANGE_DECLARED,
        f"connector:{place.connector}",
        at=now,
        event_id=event_id,
        operator_id=found["operator_id"],
        kind=new.kind,
        changed_at=new.at.isoformat(),
        origin=origin,
    )
    return event_id


async def withdraw_change(
    connection: AsyncConnection,
    actor: Actor,
    event_id: int,
    *,
    scope: str | None,
    why: str,
    now: datetime,
) -> str:
    """Withdraw a change that a person declared; return the connector's name.

    An operator's user withdraws what its operator declared, not what the office did.

    Raises: NotFoundError; DeclarationError.
    """
    why = why.strip()
    require_text("why", why)
    if not LEAST_WHY <= len(why) <= MOST_WHY:
        raise DeclarationError(f"say why it is withdrawn, in {LEAST_WHY} to {MOST_WHY} characters")
    found = await rows.change(connection, event_id, scope=scope)
    if found is None:
        raise NotFoundError(f"no declared change {event_id}")
    if found["origin"] not in ((OPERATOR,) if scope is not None else (OFFICE, OPERATOR)):
        raise DeclarationError(
            f"change {event_id} came from the "
            + ("gateway" if found["origin"] == "topic" else "office")
            + ", which alone can correct it"
        )
    if not await rows.withdraw_change(connection, event_id, at=now, by=actor.name, why=why):
        raise DeclarationError(f"change {event_id} was withdrawn before")
    await rows.make_due(connection, found["connector_id"], kind=found["kind"], at=found["at"])
    await record(
        connection,
        actor,
        Action.CHANGE_WITHDRAWN,
        f"connector:{found['connector']}",
        at=now,
        why=why,
        event_id=event_id,
        operator_id=found["operator_id"],
        kind=found["kind"],
    )
    return str(found["connector"])
