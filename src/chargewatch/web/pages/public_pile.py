"""Behind a pile's QR code, for a driver with a telephone: is this pile verified?"""

from __future__ import annotations

from fastapi import APIRouter, Request
from fastapi.responses import Response

from chargewatch.api.addresses import NameInPath
from chargewatch.api.context import service_of
from chargewatch.api.errors import ApiError
from chargewatch.api.public import Counted
from chargewatch.supervision.complaints.filing import is_plausible_name
from chargewatch.supervision.public import public_pile
from chargewatch.web.pages.overview import district_names
from chargewatch.web.render import render

router = APIRouter()


@router.get("/p/{connector}")
async def show_public_pile(request: Request, _: Counted, connector: NameInPath) -> Response:
    """Show what everybody may know of a pile; of one that isn't registered, that it isn't."""
    if not is_plausible_name(connector):
        raise ApiError(404, "not_found", "no pile can have this name: scan its code again")
    service = service_of(request)
    today = service.today
    async with service.database.connect() as connection:
        found = await public_pile(connection, connector, today=today)
    if found is None:
        return render(
            request, "public_unregistered.html", account=None, status=404, connector=connector
        )
    district = found.pile["district"] or ""
    return render(
        request,
        "public_pile.html",
        account=None,
        pile=found.pile,
        district=district_names().get(district, district),
        inspection=found.inspection,
        grade=found.grade,
        today=today,
    )
