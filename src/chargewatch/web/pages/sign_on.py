"""Log-in by the office's identity provider: the way there, and back."""

from __future__ import annotations

import logging
from typing import Annotated

from fastapi import APIRouter, Query, Request
from fastapi.responses import RedirectResponse, Response

from chargewatch.api.context import COOKIE, service_of
from chargewatch.api.errors import ApiError
from chargewatch.supervision import accounts
from chargewatch.supervision.accounts import SESSION_LIFETIME
from chargewatch.supervision.single_sign_on import (
    ProviderAwayError,
    SignOnError,
    new_pending,
    read_pending,
    user_of,
)
from chargewatch.web.pages.session import log_in_form, set_cookie
from chargewatch.web.security import local_path

log = logging.getLogger(__name__)
router = APIRouter()

PENDING_COOKIE = "chargewatch_pending"
PENDING_S = 600
BACK = "/login/provider/back"
Text = Annotated[str, Query(max_length=4000)]


def _redirect_uri(request: Request) -> str:
    known = service_of(request).settings.public_url
    return (known or str(request.base_url)).rstrip("/") + BACK


@router.get("/login/provider")
async def go(
    request: Request, target: Annotated[str, Query(alias="next", max_length=2000)] = "/"
) -> Response:
    """Send a browser to the provider."""
    service, pending = service_of(request), new_pending()
    if not service.provider.is_set:
        raise ApiError(404, "no_provider", "no identity provider is set: log in by password")
    try:
        address = await service.provider.begin(pending, redirect_uri=_redirect_uri(request))
    except (SignOnError, ProviderAwayError) as exc:
        log.warning("sign_on_failed error=%s", exc)
        return log_in_form(request, target=target, status=502, problem="provider_away")
    response = RedirectResponse(address, status_code=303)
    kept = f"{pending.text()} {local_path(target)}"
    set_cookie(service, response, PENDING_COOKIE, kept, PENDING_S)
    return response


@router.get(BACK)
async def back(request: Request, code: Text = "", state: Text = "", error: Text = "") -> Response:
    """Open a session for who comes back from the provider."""
    service = service_of(request)
    kept, _, target = request.cookies.get(PENDING_COOKIE, "").partition(" ")
    target = local_path(target or "/")
    try:
        if error or not code:
            raise SignOnError(f"the provider refuses the log-in: {error or 'no code'}")
        shown = await service.provider.finish(
            read_pending(kept),
            state=state,
            code=code,
            redirect_uri=_redirect_uri(request),
            now_s=service.clock().timestamp(),
        )
        user = await user_of(service.database, shown)
    except ProviderAwayError as exc:
        log.warning("sign_on_failed error=%s", exc)
        return log_in_form(request, target=target, status=502, problem="provider_away")
    except SignOnError as exc:
        log.warning("sign_on_refused error=%s", exc)
        return log_in_form(request, target=target, status=401, problem=str(exc))
    found = await accounts.open_session(
        service.database, user, now=service.clock(), by="identity provider", strong=shown.strong
    )
    response = RedirectResponse(target, status_code=303)
    set_cookie(service, response, COOKIE, found.token, int(SESSION_LIFETIME.total_seconds()))
    response.delete_cookie(PENDING_COOKIE, path="/")
    return response
