"""Labels with the QR code of piles, to be printed and stuck on them."""

from __future__ import annotations

import io
from typing import Any
from urllib.parse import quote

import segno
from fastapi import APIRouter, Request
from fastapi.responses import Response

from chargewatch.api.addresses import NameInPath
from chargewatch.api.context import Service, service_of
from chargewatch.api.errors import ApiError, not_found
from chargewatch.api.piles import Key, find_pile
from chargewatch.storage.office import public as public_rows
from chargewatch.storage.pages import stations as station_rows
from chargewatch.web.language import LANGUAGES, Translator
from chargewatch.web.pages.session import Visitor
from chargewatch.web.render import render

router = APIRouter()

MOST_LABELS = 200
QUIET_ZONE = 4
"""Modules of white around the code, ISO/IEC 18004."""


def public_address(service: Service, connector: str) -> str:
    """Return the address of a pile's page for the public; "" when the setting is missing."""
    site = service.settings.public_url
    return f"{site}/p/{quote(connector, safe='')}" if site else ""


def _label(service: Service, connector: str, station: str) -> dict[str, Any]:
    address = public_address(service, connector)
    code = segno.make(address, error="m", micro=False) if address else None
    picture = ""
    if code is not None:
        picture = code.svg_data_uri(scale=4, border=QUIET_ZONE, dark="#000", light="#fff")
    return {"connector": connector, "station": station, "address": address, "picture": picture}


def _sheet(request: Request, account: Any, labels: list[dict[str, Any]], **told: Any) -> Response:
    return render(
        request,
        "labels.html",
        account=account,
        labels=labels,
        both={code: Translator(code) for code in LANGUAGES},
        is_set=bool(service_of(request).settings.public_url),
        **told,
    )


@router.get("/piles/{connector}/label")
async def show_label(request: Request, account: Visitor, key: Key) -> Response:
    """Show the label of a registered pile."""
    service = service_of(request)
    async with service.database.connect() as connection:
        row = await find_pile(connection, key, scope=account.scope)
    labels = []
    if row["registered"]:
        labels = [_label(service, row["connector"], row["station_name"] or row["station_id"])]
    return _sheet(request, account, labels, title=row["connector"], more=False)


@router.get("/piles/{connector}/label.svg")
async def send_code(request: Request, account: Visitor, key: Key) -> Response:
    """Send the QR code alone, to be put into one's own design."""
    service = service_of(request)
    async with service.database.connect() as connection:
        row = await find_pile(connection, key, scope=account.scope)
    address = public_address(service, row["connector"])
    if not row["registered"] or not address:
        raise ApiError(
            404,
            "not_found",
            "no code: register the pile, and set CHARGEWATCH_PUBLIC_URL to the address of these "
            "pages for the public",
        )
    picture = io.BytesIO()
    segno.make(address, error="m", micro=False).save(
        picture, kind="svg", scale=4, border=QUIET_ZONE, dark="#000", light="#fff"
    )
    return Response(
        picture.getvalue(),
        media_type="image/svg+xml",
        headers={"Content-Disposition": 'attachment; filename="label.svg"'},
    )


@router.get("/stations/{station_id}/labels")
async def show_labels(request: Request, account: Visitor, station_id: NameInPath) -> Response:
    """Show a sheet with the labels of all registered piles of a station."""
    service = service_of(request)
    async with service.database.connect() as connection:
        station = await station_rows.station(connection, station_id, scope=account.scope)
        if station is None:
            raise not_found("station", station_id)
        found = await public_rows.piles(
            connection,
            today=service.today,
            limit=MOST_LABELS + 1,
            station_id=station_id,
            operator_id=station["operator_id"],
        )
    labels = [_label(service, row["connector"], station["name"]) for row in found[:MOST_LABELS]]
    return _sheet(request, account, labels, title=station["name"], more=len(found) > MOST_LABELS)
