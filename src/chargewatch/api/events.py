"""Live values as server-sent events, read from the latest readings at a steady pace."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import datetime, timedelta
from typing import Annotated, Any

import orjson
from fastapi import APIRouter, Query, Request
from fastapi.responses import StreamingResponse

from chargewatch.api.context import Service, ServiceOf, Viewer
from chargewatch.api.errors import ApiError
from chargewatch.api.models import ERRORS
from chargewatch.storage import queries, queries_ingest
from chargewatch.storage.queries import Scope

router = APIRouter(tags=["live values"])

MAX_STREAMS = 200
PERIOD_S = 5.0
RECENT = timedelta(minutes=15)
# A browser opens the stream again by itself; by then an ended log-in is noticed.
LIFETIME_S = 600.0


def _event(name: str, content: dict[str, Any]) -> bytes:
    return b"event: " + name.encode() + b"\ndata: " + orjson.dumps(content) + b"\n\n"


async def arrival(service: Service, scope: Scope) -> dict[str, Any]:
    """Return what has arrived and from how many stations lately; a few seconds old at most."""

    async def load() -> dict[str, Any]:
        recently = service.clock() - RECENT
        async with service.database.connect() as connection:
            return await queries.arrival(connection, recently=recently, scope=scope)

    found: dict[str, Any] = await service.figures.get(
        ("arrival", scope), load, lifetime_s=PERIOD_S - 1
    )
    return found


async def _stream(
    service: Service, *, scope: Scope, connector: str, station_id: str
) -> AsyncIterator[bytes]:
    loop = asyncio.get_running_loop()
    ends = loop.time() + LIFETIME_S
    since: datetime = service.clock() - timedelta(seconds=PERIOD_S)
    service.event_streams += 1
    try:
        yield b"retry: 5000\n\n"
        while loop.time() < ends:
            yield _event("arrival", await arrival(service, scope))
            if connector or station_id:
                async with service.database.connect() as connection:
                    rows = await queries_ingest.live_readings(
                        connection,
                        scope=scope,
                        since=since,
                        connector=connector,
                        station_id=station_id,
                    )
                for row in rows:
                    yield _event("reading", dict(row))
                    since = max(since, row["received_at"])
            await asyncio.sleep(PERIOD_S)
    finally:
        service.event_streams -= 1


@router.get(
    "/events",
    response_class=StreamingResponse,
    responses={
        200: {"description": "server-sent events", "content": {"text/event-stream": {}}},
        **ERRORS,
    },
)
async def live_events(
    request: Request,
    service: ServiceOf,
    viewer: Viewer,
    connector: Annotated[str, Query(max_length=64)] = "",
    station: Annotated[str, Query(max_length=64)] = "",
) -> StreamingResponse:
    """Stream `arrival` every 5 s, and `reading` of the connector or station asked for."""
    if service.event_streams >= MAX_STREAMS:
        raise ApiError(
            503, "too_many_streams", "too many live views are open: reload in a minute",
            headers={"Retry-After": "60"},
        )  # fmt: skip
    content = _stream(service, scope=viewer.scope, connector=connector, station_id=station)
    headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
    return StreamingResponse(content, media_type="text/event-stream", headers=headers)
