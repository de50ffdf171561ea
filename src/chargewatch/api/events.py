"""Live values as server-sent events, read from the latest readings at a steady pace."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, suppress
from datetime import timedelta
from typing import Annotated, Any

import orjson
from fastapi import APIRouter, Query
from fastapi.responses import StreamingResponse

from chargewatch.api.context import Service, ServiceOf, Viewer
from chargewatch.api.live import DATABASE_AWAY, PERIOD_S, LiveFilter
from chargewatch.api.models import ERRORS
from chargewatch.api.slots import SlottedStream
from chargewatch.storage.pages import city as city_rows
from chargewatch.storage.pages.city import Scope

router = APIRouter(tags=["live values"])

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
            return await city_rows.arrival(connection, recently=recently, scope=scope)

    found: dict[str, Any] = await service.figures.get(
        ("arrival", scope), load, lifetime_s=PERIOD_S - 1
    )
    return found


async def _stream(service: Service, wanted: LiveFilter) -> AsyncIterator[bytes]:
    loop = asyncio.get_running_loop()
    ends = loop.time() + LIFETIME_S
    yield b"retry: 5000\n\n"
    async with AsyncExitStack() as stack:
        readings = None
        if wanted.connector or wanted.station_id:
            readings = await stack.enter_async_context(service.live.subscribe(wanted))
        while loop.time() < ends:
            # While the database is away the stream stays: a browser never comes back after a 503.
            with suppress(*DATABASE_AWAY):
                yield _event("arrival", await arrival(service, wanted.scope))
            next_at = loop.time() + PERIOD_S
            while (remaining := next_at - loop.time()) > 0:
                if readings is None:
                    await asyncio.sleep(remaining)
                    continue
                try:
                    async with asyncio.timeout(remaining):
                        reading = await readings.get()
                except TimeoutError:
                    continue
                yield _event("reading", reading)


@router.get(
    "/events",
    response_class=StreamingResponse,
    responses={
        200: {"description": "server-sent events", "content": {"text/event-stream": {}}},
        **ERRORS,
    },
)
async def live_events(
    service: ServiceOf,
    viewer: Viewer,
    connector: Annotated[str, Query(max_length=64)] = "",
    station: Annotated[str, Query(max_length=64)] = "",
    operator: Annotated[str, Query(max_length=64)] = "",
) -> StreamingResponse:
    """Stream `arrival` every 5 s, and `reading` of the connector or station asked for."""
    wanted = LiveFilter(
        scope=viewer.scope, connector=connector, station_id=station, operator_id=operator
    )
    return SlottedStream(
        _stream(service, wanted),
        slots=service.streams,
        user_id=viewer.user_id,
        media_type="text/event-stream",
        headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"},
    )
