"""What was measured near a complaint: sessions and signals of its pile around its time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy.ext.asyncio import AsyncConnection

from chargewatch.storage.office import complaints as rows

BEFORE_CHARGE = timedelta(hours=12)
AFTER_CHARGE = timedelta(hours=24)
"""Around the time of the charge that the complainer told."""
BEFORE_COMPLAINT = timedelta(days=3)
"""Where no time was told: so long before the complaint came."""
SIGNAL_MARGIN = timedelta(days=7)


@dataclass(frozen=True, kw_only=True)
class Near:
    """Sessions and signals of the pile of a complaint, in a span of time.

    Of each session `fits` says what the complainer told of it: its name, or what was paid.
    """

    since: datetime
    until: datetime
    sessions: Sequence[dict[str, Any]]
    signals: Sequence[Mapping[Any, Any]]


def span_of(complaint: Mapping[Any, Any]) -> tuple[datetime, datetime]:
    """Return the time in which the charge that is complained of ended."""
    told = complaint["session_at"]
    if told is not None:
        return told - BEFORE_CHARGE, told + AFTER_CHARGE
    return complaint["received_at"] - BEFORE_COMPLAINT, complaint["received_at"]


def _fits(session: Mapping[Any, Any], complaint: Mapping[Any, Any]) -> str:
    if complaint["session_text"] and session["session"] == complaint["session_text"].strip():
        return "session"
    paid = complaint["bill_cny"]
    return "bill" if paid is not None and session["total_fee"] == paid else ""


async def near_complaint(connection: AsyncConnection, complaint: Mapping[Any, Any]) -> Near:
    """Return what was measured near a complaint; nothing where its pile isn't registered."""
    since, until = span_of(complaint)
    known = await rows.registered(connection, complaint["connector"])
    owner = {name: complaint[name] for name in ("operator_id", "station_id")}
    if known is None or any(known[name] != value for name, value in owner.items()):
        return Near(since=since, until=until, sessions=(), signals=())
    sessions = list(
        await rows.sessions_near(connection, known["connector_id"], since=since, until=until)
    )
    if complaint["session_text"]:
        named = await rows.named_session(
            connection,
            known["connector_id"],
            session=complaint["session_text"].strip(),
            **owner,
        )
        if named is not None and all(row["session"] != named["session"] for row in sessions):
            sessions.insert(0, named)
    signals = await rows.signals_near(
        connection,
        complaint["connector"],
        since=since - SIGNAL_MARGIN,
        until=until + SIGNAL_MARGIN,
        **owner,
    )
    return Near(
        since=since,
        until=until,
        sessions=[{**row, "fits": _fits(row, complaint)} for row in sessions],
        signals=signals,
    )
