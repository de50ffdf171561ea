"""Open data: verification status by pile, station and district, for everybody and any program."""

from __future__ import annotations

import csv
import hashlib
import io
from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Any
from urllib.parse import urlencode

import orjson
from fastapi import APIRouter, Depends, Query, Request
from fastapi.responses import Response

from chargewatch.api.addresses import NameInPath
from chargewatch.api.context import Service, ServiceOf, client_address, service_of
from chargewatch.api.errors import ApiError
from chargewatch.api.models import Error
from chargewatch.api.models_public import (
    PublicDistricts,
    PublicPileDetail,
    PublicPiles,
    PublicStations,
)
from chargewatch.domain.csv_cell import csv_cell
from chargewatch.storage.office import public as rows
from chargewatch.supervision.public import (
    DISTRICT_COLUMNS,
    PILE_COLUMNS,
    STATION_COLUMNS,
    public_pile,
)

router = APIRouter(prefix="/public", tags=["open data"])

KEPT_S = 300
"""How long anybody may keep an answer."""
OPEN_ERRORS: dict[int | str, dict[str, Any]] = {
    429: {"model": Error, "description": "Too many requests from this address"}
}


def counted_read(request: Request) -> None:
    """Count a request of somebody who needs no log-in.

    Raises: ApiError 429.
    """
    service_of(request).door.reads.take(client_address(request))


Counted = Annotated[None, Depends(counted_read)]
PageSize = Annotated[int, Query(ge=1, le=1_000)]
Name = Annotated[str, Query(max_length=64)]
District = Annotated[str, Query(max_length=12)]


def _answer(
    request: Request, body: bytes, media_type: str, *, following: str = "", name: str = ""
) -> Response:
    """Return open data that caches may keep, or that they are as they were."""
    tag = f'"{hashlib.sha256(body).hexdigest()[:32]}"'
    headers = {
        "ETag": tag,
        "Cache-Control": f"public, max-age={KEPT_S}",
        "Access-Control-Allow-Origin": "*",
        "Cross-Origin-Resource-Policy": "cross-origin",
    }
    if following:
        headers["Link"] = f'<{following}>; rel="next"'
    if name:
        headers["Content-Disposition"] = f'attachment; filename="{name}"'
    known = {part.strip().removeprefix("W/") for part in
             request.headers.get("if-none-match", "").split(",")}  # fmt: skip
    if tag in known or "*" in known:
        return Response(status_code=304, headers=headers)
    return Response(body, media_type=media_type, headers=headers)


def _document(service: Service, **content: Any) -> bytes:
    head = {"licence": service.settings.open_data_licence, "as_of": service.today}
    return orjson.dumps({**head, **content})


def _csv(columns: Sequence[str], found: Iterable[Mapping[str, Any]]) -> bytes:
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(columns)
    for row in found:
        writer.writerow([csv_cell(row[name]) for name in columns])
    # The mark lets spreadsheets see that this is UTF-8.
    return b"\xef\xbb\xbf" + text.getvalue().encode()


def _next(
    request: Request, found: Sequence[Mapping[str, Any]], limit: int, key: str
) -> tuple[list[dict[str, Any]], str | None, str]:
    """Return the rows of a page, the name behind which the next one begins, and its address."""
    page = [dict(row) for row in found[:limit]]
    after = page[-1][key] if len(found) > limit else None
    if after is None:
        return page, None, ""
    asked = {k: v for k, v in request.query_params.items() if k != "after"}
    return page, after, f"{request.url.path}?{urlencode({**asked, 'after': after})}"


async def _piles(
    service: Service, *, station: str, district: str, operator: str, after: str, limit: int
) -> list[dict[str, Any]]:
    async with service.database.connect() as connection:
        found = await rows.piles(
            connection,
            today=service.today,
            limit=limit + 1,
            after=after,
            station_id=station,
            district=district,
            operator_id=operator,
        )
    return [{name: row[name] for name in PILE_COLUMNS} for row in found]


@router.get(
    "/piles",
    response_class=Response,
    responses={200: {"model": PublicPiles}, **OPEN_ERRORS},
    summary="Verification status of piles",
)
async def list_piles(
    request: Request,
    service: ServiceOf,
    _: Counted,
    station: Name = "",
    district: District = "",
    operator: Name = "",
    after: Name = "",
    limit: PageSize = 200,
) -> Response:
    """Answer one page of registered piles with their newest verification."""
    found = await _piles(
        service, station=station, district=district, operator=operator, after=after, limit=limit
    )
    page, last, following = _next(request, found, limit, "connector")
    body = _document(service, piles=page, next_after=last)
    return _answer(request, body, "application/json", following=following)


@router.get(
    "/piles.csv",
    response_class=Response,
    responses={200: {"content": {"text/csv": {}}}, **OPEN_ERRORS},
    summary="The same as CSV",
)
async def list_piles_csv(
    request: Request,
    service: ServiceOf,
    _: Counted,
    station: Name = "",
    district: District = "",
    operator: Name = "",
    after: Name = "",
    limit: PageSize = 1_000,
) -> Response:
    """Answer one page of registered piles as CSV; the header `Link` names the next one."""
    found = await _piles(
        service, station=station, district=district, operator=operator, after=after, limit=limit
    )
    page, _last, following = _next(request, found, limit, "connector")
    return _answer(
        request, _csv(PILE_COLUMNS, page), "text/csv; charset=utf-8", following=following,
        name="piles.csv",
    )  # fmt: skip


@router.get(
    "/piles/{connector}",
    response_class=Response,
    responses={
        200: {"model": PublicPileDetail},
        404: {"model": Error, "description": "Not in the register"},
        **OPEN_ERRORS,
    },
    summary="Verification status of one pile",
)
async def show_pile(
    request: Request, service: ServiceOf, _: Counted, connector: NameInPath
) -> Response:
    """Answer a registered pile with its newest verification and published inspection."""
    async with service.database.connect() as connection:
        found = await public_pile(connection, connector, today=service.today)
    if found is None:
        raise ApiError(404, "not_registered", f"{connector!r} is not in the register")
    return _answer(request, _document(service, **found.document()), "application/json")


async def _stations(
    service: Service, *, district: str, after: str, limit: int
) -> list[dict[str, Any]]:
    async with service.database.connect() as connection:
        found = await rows.stations(
            connection, today=service.today, limit=limit + 1, after=after, district=district
        )
    return [{name: row[name] for name in STATION_COLUMNS} for row in found]


@router.get(
    "/stations",
    response_class=Response,
    responses={200: {"model": PublicStations}, **OPEN_ERRORS},
    summary="Verification status by station",
)
async def list_stations(
    request: Request,
    service: ServiceOf,
    _: Counted,
    district: District = "",
    after: Name = "",
    limit: PageSize = 200,
) -> Response:
    """Answer one page of stations with how many of their piles are of which status."""
    found = await _stations(service, district=district, after=after, limit=limit)
    page, last, following = _next(request, found, limit, "station_id")
    body = _document(service, stations=page, next_after=last)
    return _answer(request, body, "application/json", following=following)


@router.get(
    "/stations.csv",
    response_class=Response,
    responses={200: {"content": {"text/csv": {}}}, **OPEN_ERRORS},
    summary="The same as CSV",
)
async def list_stations_csv(
    request: Request,
    service: ServiceOf,
    _: Counted,
    district: District = "",
    after: Name = "",
    limit: PageSize = 1_000,
) -> Response:
    """Answer one page of stations as CSV; the header `Link` names the next one."""
    found = await _stations(service, district=district, after=after, limit=limit)
    page, _last, following = _next(request, found, limit, "station_id")
    return _answer(
        request, _csv(STATION_COLUMNS, page), "text/csv; charset=utf-8", following=following,
        name="stations.csv",
    )  # fmt: skip


async def _districts(service: Service) -> list[dict[str, Any]]:
    """Return all districts; the one figure that looks at every pile is kept for a while."""
    today = service.today

    async def load() -> list[dict[str, Any]]:
        async with service.database.connect() as connection:
            found = await rows.districts(connection, today=today)
        return [{name: row[name] for name in DISTRICT_COLUMNS} for row in found]

    kept: list[dict[str, Any]] = await service.figures.get(
        ("public districts", today), load, lifetime_s=KEPT_S
    )
    return kept


@router.get(
    "/districts",
    response_class=Response,
    responses={200: {"model": PublicDistricts}, **OPEN_ERRORS},
    summary="Verification status by district",
)
async def list_districts(request: Request, service: ServiceOf, _: Counted) -> Response:
    """Answer all districts with how many of their piles are of which status."""
    body = _document(service, districts=await _districts(service))
    return _answer(request, body, "application/json")


@router.get(
    "/districts.csv",
    response_class=Response,
    responses={200: {"content": {"text/csv": {}}}, **OPEN_ERRORS},
    summary="The same as CSV",
)
async def list_districts_csv(request: Request, service: ServiceOf, _: Counted) -> Response:
    """Answer all districts as CSV."""
    body = _csv(DISTRICT_COLUMNS, await _districts(service))
    return _answer(request, body, "text/csv; charset=utf-8", name="districts.csv")
