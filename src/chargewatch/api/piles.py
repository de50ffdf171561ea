"""Piles: the triage list and everything about one connector."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query
from sqlalchemy.ext.asyncio import AsyncConnection

from chargewatch.api.addresses import NameInPath
from chargewatch.api.answers import JsonAnswer, rows_of
from chargewatch.api.context import ServiceOf, Viewer
from chargewatch.api.errors import ApiError, not_found
from chargewatch.api.models import ERRORS, Changes, History, PileDetail, Piles, Readings, Sessions
from chargewatch.api.signed import with_signed_checks
from chargewatch.domain.reason import decode, in_english
from chargewatch.domain.times import EPOCH
from chargewatch.domain.verdict import Tier
from chargewatch.storage.pages import city as city_rows
from chargewatch.storage.pages import pile as pile_rows
from chargewatch.storage.pages import piles as pile_list_rows
from chargewatch.storage.pages.city import Scope
from chargewatch.storage.pages.piles import PileFilter
from chargewatch.storage.pile_index import SORTS

router = APIRouter(tags=["piles"])

MAX_READINGS = 20_000
MAX_OFFSET = 1_000_000

TIER_NAMES = frozenset(tier.value for tier in Tier)
Limit = Annotated[int, Query(ge=1, le=500)]
Offset = Annotated[int, Query(ge=0, le=MAX_OFFSET)]
BeforeId = Annotated[int | None, Query(ge=1, le=2**63 - 1)]
EARLIEST = EPOCH
LATEST = datetime(2200, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class PileKey:
    """Which connector is asked for; station and operator pick one of several that claim a name."""

    connector: str
    station_id: str | None
    operator_id: str | None


def pile_key(
    connector: NameInPath,
    station_id: Annotated[str | None, Query(max_length=64)] = None,
    operator_id: Annotated[str | None, Query(max_length=64)] = None,
) -> PileKey:
    """Return which connector an address names."""
    return PileKey(connector, station_id or None, operator_id or None)


Key = Annotated[PileKey, Depends(pile_key)]


def pile_filter(
    tier: Annotated[list[str] | None, Query(description="red, orange, yellow, grey, green")] = None,
    operator: Annotated[str, Query(max_length=64)] = "",
    station: Annotated[str, Query(max_length=64)] = "",
    district: Annotated[str, Query(max_length=12)] = "",
    signal: Annotated[str, Query(max_length=64, description="code of an open signal")] = "",
    q: Annotated[str, Query(max_length=64, description="beginning of a name, or station")] = "",
    sort: Annotated[str, Query(description=", ".join(SORTS))] = ("priority"),
) -> PileFilter:
    """Return the filter that a query string asks for.

    Raises: ApiError 422 that lists the known words.
    """
    wanted = tuple(sorted({name for part in tier or () for name in part.split(",") if name}))
    unknown = set(wanted) - TIER_NAMES
    if unknown:
        names = ", ".join(item.value for item in Tier)
        raise ApiError(422, "unknown_tier", f"no tier {sorted(unknown)[0]!r}; known: {names}")
    if sort not in SORTS:
        raise ApiError(422, "unknown_sort", f"no sort {sort!r}; known: {', '.join(SORTS)}")
    return PileFilter(
        tiers=wanted,
        operator_id=operator,
        station_id=station,
        district=district,
        signal=signal,
        text=q.strip(),
        sort=sort,
    )


async def find_pile(
    connection: AsyncConnection, key: PileKey, *, scope: Scope
) -> Mapping[Any, Any]:
    """Return a connector's row.

    Raises: ApiError 404 also when it is somebody else's.
    """
    row = await pile_rows.pile(
        connection,
        key.connector,
        scope=scope,
        station_id=key.station_id,
        operator_id=key.operator_id,
    )
    if row is None:
        raise not_found("pile", key.connector)
    return row


@router.get("/piles", response_class=JsonAnswer, responses={200: {"model": Piles}, **ERRORS})
async def list_piles(
    service: ServiceOf,
    viewer: Viewer,
    tier: Annotated[list[str] | None, Query(description="red, orange, yellow, grey, green")] = None,
    operator: Annotated[str, Query(max_length=64)] = "",
    station: Annotated[str, Query(max_length=64)] = "",
    district: Annotated[str, Query(max_length=12)] = "",
    signal: Annotated[str, Query(max_length=64, description="code of an open signal")] = "",
    q: Annotated[str, Query(max_length=64, description="beginning of a name, or station")] = "",
    sort: Annotated[str, Query(description=", ".join(SORTS))] = ("priority"),
    limit: Limit = 50,
    offset: Offset = 0,
) -> JsonAnswer:
    """Answer one page of the triage list of the newest finished run."""
    wanted = pile_filter(tier, operator, station, district, signal, q, sort)
    async with service.database.connect() as connection:
        run = await city_rows.newest_run(connection)
        run_id = None if run is None else run["run_id"]
        page = await pile_list_rows.piles(
            connection, wanted, run_id=run_id, scope=viewer.scope, limit=limit, offset=offset
        )
    return JsonAnswer(
        {
            "run_id": run_id,
            "as_of": None if run is None else run["as_of"],
            "total": page.total,
            "limit": limit,
            "offset": offset,
            "piles": rows_of(page.rows),
        }
    )


@router.get(
    "/piles/{connector}",
    response_class=JsonAnswer,
    responses={200: {"model": PileDetail}, **ERRORS},
)
async def show_pile(service: ServiceOf, viewer: Viewer, key: Key) -> JsonAnswer:
    """Answer registry data, the newest assessment with its budget, verifications and signals."""
    async with service.database.connect() as connection:
        row = await find_pile(connection, key, scope=viewer.scope)
        run = await city_rows.newest_run(connection)
        assessment = None
        if run is not None:
            assessment = await pile_rows.assessment_of(
                connection, row["connector_id"], run_id=run["run_id"]
            )
        verifications = await pile_rows.verifications(connection, row["connector_id"])
        signals = await pile_rows.signals_of_pile(
            connection,
            key.connector,
            operator_id=row["operator_id"],
            station_id=row["station_id"],
        )
        sessions = await pile_rows.session_count(connection, row["connector_id"])
    return JsonAnswer(
        {
            "registry": {k: v for k, v in row.items() if k != "connector_id"},
            "assessment": None
            if assessment is None
            else {k: v for k, v in assessment.items() if k != "connector_id"}
            | {"reason": in_english(decode(assessment["reason"]))},
            "verifications": rows_of(verifications),
            "signals": rows_of(signals),
            "n_sessions_stored": sessions,
        }
    )


@router.get(
    "/piles/{connector}/history",
    response_class=JsonAnswer,
    responses={200: {"model": History}, **ERRORS},
)
async def show_history(
    service: ServiceOf,
    viewer: Viewer,
    key: Key,
    limit: Annotated[int, Query(ge=1, le=2000)] = 400,
) -> JsonAnswer:
    """Answer what the finished runs said of a connector, oldest first."""
    async with service.database.connect() as connection:
        row = await find_pile(connection, key, scope=viewer.scope)
        rows = await pile_rows.history(connection, row["connector_id"], limit=limit)
    return JsonAnswer({"connector": key.connector, "history": rows_of(rows)})


@router.get(
    "/piles/{connector}/sessions",
    response_class=JsonAnswer,
    responses={200: {"model": Sessions}, **ERRORS},
)
async def show_sessions(
    service: ServiceOf,
    viewer: Viewer,
    key: Key,
    limit: Limit = 50,
    offset: Offset = 0,
) -> JsonAnswer:
    """Answer one page of a connector's sessions, newest first."""
    async with service.database.connect() as connection:
        row = await find_pile(connection, key, scope=viewer.scope)
        total = await pile_rows.session_count(connection, row["connector_id"])
        rows = await pile_rows.sessions(connection, row["connector_id"], limit=limit, offset=offset)
    return JsonAnswer(
        {
            "connector": key.connector,
            "total": total,
            "limit": limit,
            "offset": offset,
            "sessions": await with_signed_checks(rows_of(rows), row),
        }
    )


@router.get(
    "/piles/{connector}/changes",
    response_class=JsonAnswer,
    responses={200: {"model": Changes}, **ERRORS},
)
async def show_changes(
    service: ServiceOf, viewer: Viewer, key: Key, limit: Limit = 100
) -> JsonAnswer:
    """Answer what was declared to have changed at a connector or its station, newest first."""
    async with service.database.connect() as connection:
        row = await find_pile(connection, key, scope=viewer.scope)
        rows = await pile_rows.declared_changes(
            connection,
            row["connector_id"],
            operator_id=row["operator_id"],
            station_id=row["station_id"],
            limit=limit,
        )
    return JsonAnswer({"connector": key.connector, "changes": rows_of(rows)})


def aware(name: str, time: datetime | None) -> datetime | None:
    """Return a time in UTC.

    Raises: ApiError 422 for one without offset, or outside of what telemetry can hold.
    """
    if time is None:
        return None
    if time.tzinfo is None:
        raise ApiError(422, "naive_time", f"{name} has no UTC offset: write 2026-03-01T08:00+08:00")
    if not EARLIEST <= time <= LATEST:
        raise ApiError(422, "time_out_of_range", f"{name}: use a time from 1970 to 2200")
    return time.astimezone(UTC)


@router.get(
    "/piles/{connector}/readings",
    response_class=JsonAnswer,
    responses={200: {"model": Readings}, **ERRORS},
)
async def show_readings(
    service: ServiceOf,
    viewer: Viewer,
    key: Key,
    since: datetime | None = None,
    until: datetime | None = None,
    limit: Annotated[int, Query(ge=1, le=MAX_READINGS)] = 10_000,
) -> JsonAnswer:
    """Answer raw registers as columns; without times the two days before the newest reading."""
    since, until = aware("since", since), aware("until", until)
    async with service.database.connect() as connection:
        row = await find_pile(connection, key, scope=viewer.scope)
        newest = row["latest_at"] or service.clock()
        until = until or newest + timedelta(seconds=1)
        since = since or until - timedelta(days=2)
        rows = await pile_rows.readings(
            connection, row["connector_id"], since=since, until=until, limit=limit + 1
        )
    columns = {
        name: [reading[name] for reading in rows[:limit]]
        for name in ("at", "energy_wh", "power_w", "voltage_v", "current_a", "soc_pct")
    }
    answer = {
        "connector": key.connector,
        "since": since,
        "until": until,
        "truncated": len(rows) > limit,
        **columns,
    }
    return JsonAnswer(answer)
