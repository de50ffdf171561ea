"""The message ledger and the quarantine, as ingest left them."""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

from fastapi import APIRouter, Query

from chargewatch.api.answers import JsonAnswer, rows_of
from chargewatch.api.context import ServiceOf, Viewer
from chargewatch.api.errors import ApiError
from chargewatch.api.models import ERRORS
from chargewatch.api.models_ingest import Ledger, Quarantine
from chargewatch.api.piles import BeforeId, Limit
from chargewatch.domain.identity import StreamKey
from chargewatch.storage.pages import messages as message_rows

router = APIRouter(prefix="/ingest", tags=["ingest"])

PREVIEW_BYTES = 4096


def preview(row: Mapping[Any, Any]) -> str:
    """Return the readable beginning of quarantined bytes; gzip is opened, never beyond 4 KiB."""
    payload = bytes(row["payload"])
    if row["content_type"] == "application/json+gzip" or payload[:2] == b"\x1f\x8b":
        try:
            payload = zlib.decompressobj(wbits=31).decompress(payload, PREVIEW_BYTES)
        except zlib.error:
            return payload[:PREVIEW_BYTES].hex(" ")
    return payload[:PREVIEW_BYTES].decode("utf-8", "backslashreplace").replace("\x00", "\\x00")


def quarantined_item(row: Mapping[Any, Any]) -> dict[str, Any]:
    """Return a rejected message with a readable beginning instead of its bytes."""
    item = {str(key): value for key, value in row.items() if key != "payload"}
    return {**item, "preview": preview(row)}


def stream_key(after: str) -> StreamKey | None:
    """Return the stream that `operator/station/topic` names; None for an empty text.

    Raises: ApiError 422 for another form.
    """
    if not after:
        return None
    parts = after.split("/")
    if len(parts) != 3:
        raise ApiError(
            422, "bad_after", "after is next_after of the page before: OPERATOR/STATION/TOPIC"
        )
    return parts[0], parts[1], parts[2]


def next_after(streams: Sequence[Mapping[Any, Any]], *, limit: int) -> str | None:
    """Return what the next page of streams begins after; None when this one is the last."""
    if len(streams) < limit:
        return None
    last = streams[-1]
    return f"{last['operator_id']}/{last['station_id']}/{last['topic']}"


@router.get("/ledger", response_class=JsonAnswer, responses={200: {"model": Ledger}, **ERRORS})
async def show_ledger(
    service: ServiceOf,
    viewer: Viewer,
    station: Annotated[str, Query(max_length=64)] = "",
    operator: Annotated[str, Query(max_length=64)] = "",
    gaps: Annotated[bool, Query(description="only streams with an open gap")] = False,
    unbalanced: Annotated[bool, Query(description="only streams that don't balance")] = False,
    limit: Limit = 100,
    after: Annotated[str, Query(max_length=200)] = "",
) -> JsonAnswer:
    """Answer what became of every message, per station and topic, and the open gaps."""
    async with service.database.connect() as connection:
        streams = await message_rows.ledger(
            connection,
            scope=viewer.scope,
            limit=limit,
            after=stream_key(after),
            station_id=station,
            operator_id=operator,
            only_gaps=gaps,
            only_unbalanced=unbalanced,
        )
        open_gaps = await message_rows.open_gaps(
            connection, scope=viewer.scope, limit=limit, station_id=station, operator_id=operator
        )
        totals = await message_rows.ledger_totals(
            connection, scope=viewer.scope, station_id=station, operator_id=operator
        )
    return JsonAnswer(
        {
            "balanced": all(row["unbalanced"] == 0 for row in totals),
            "totals": rows_of(totals),
            "streams": rows_of(streams),
            "open_gaps": rows_of(open_gaps),
            "next_after": next_after(streams, limit=limit),
        }
    )


@router.get(
    "/quarantine", response_class=JsonAnswer, responses={200: {"model": Quarantine}, **ERRORS}
)
async def show_quarantine(
    service: ServiceOf,
    viewer: Viewer,
    code: Annotated[str, Query(max_length=64)] = "",
    station: Annotated[str, Query(max_length=64)] = "",
    before: BeforeId = None,
    limit: Limit = 50,
) -> JsonAnswer:
    """Answer rejected messages, newest first, with their reasons and how their bytes begin."""
    async with service.database.connect() as connection:
        rows = await message_rows.quarantined(
            connection,
            scope=viewer.scope,
            limit=limit,
            before_id=before,
            code=code,
            station_id=station,
        )
        codes = await message_rows.quarantine_codes(connection, scope=viewer.scope)
        waiting = await message_rows.quarantine_waiting(connection, scope=viewer.scope)
        beyond = await message_rows.beyond_quota(
            connection, scope=viewer.scope, limit=limit, station_id=station
        )
    return JsonAnswer(
        {
            "codes": rows_of(codes),
            "waiting": waiting,
            "items": [quarantined_item(row) for row in rows],
            "beyond_quota": rows_of(beyond),
            "next_before": rows[-1]["quarantine_id"] if len(rows) == limit else None,
        }
    )
