"""Log-in, log-out, and how a visitor likes the pages: language and theme."""

from __future__ import annotations

import re
import secrets
from typing import Annotated
from urllib.parse import urlencode, urlsplit

from fastapi import APIRouter, Depends, Query, Request
from fastapi.responses import RedirectResponse, Response

from chargewatch.api.addresses import asked_address
from chargewatch.api.context import (
    COOKIE,
    Service,
    client_address,
    find_account,
    permitted,
    require_visitor,
    service_of,
)
from chargewatch.api.errors import ApiError
from chargewatch.api.session import check_log_in
from chargewatch.supervision import accounts
from chargewatch.supervision.accounts import SESSION_LIFETIME, Account
from chargewatch.supervision.permissions import Permission
from chargewatch.web.language import LANGUAGES
from chargewatch.web.render import LANGUAGE_COOKIE, THEME_COOKIE, THEMES, render
from chargewatch.web.security import check_form, form_token, local_path, read_form

router = APIRouter()

FORM_COOKIE = "chargewatch_form"
FORM_SECRET = re.compile(r"[A-Za-z0-9_-]{22}")
KEPT_FOR_S = 31_536_000
"""How long a browser keeps the choice of language and theme, and files that never change."""


def redirect_to_log_in(request: Request) -> Response:
    """Return the way to the log-in form and back to the page that was asked for."""
    here = asked_address(request)
    target = "/login" + ("" if here == "/" else "?" + urlencode({"next": here}))
    if request.headers.get("hx-request"):
        # A fragment can't show a log-in form: htmx goes to the whole page.
        return Response(status_code=204, headers={"HX-Redirect": target})
    return RedirectResponse(target, status_code=303)


Visitor = Annotated[Account, Depends(permitted(Permission.SEE, require_visitor))]
"""Who looks at a page; a 401 is answered with the log-in form."""


def set_cookie(service: Service, response: Response, name: str, value: str, age_s: int) -> None:
    """Let a browser keep something that scripts and other sites can't read."""
    response.set_cookie(
        name,
        value,
        max_age=age_s,
        httponly=True,
        samesite="lax",
        secure=service.settings.secure_cookies,
        path="/",
    )


def log_in_form(
    request: Request, *, target: str, status: int = 200, problem: str = "", username: str = ""
) -> Response:
    """Return the log-in form, with what was wrong the last time."""
    secret = request.cookies.get(FORM_COOKIE, "")
    if not FORM_SECRET.fullmatch(secret):
        secret = secrets.token_urlsafe(16)
    page = render(
        request,
        "login.html",
        account=None,
        status=status,
        target=local_path(target),
        problem=problem,
        username=username,
        token=form_token(secret),
        by_provider=urlsplit(service_of(request).settings.oidc_issuer).hostname or "",
    )
    set_cookie(service_of(request), page, FORM_COOKIE, secret, 3600)
    return page


@router.get("/login")
async def show_form(
    request: Request, target: Annotated[str, Query(alias="next", max_length=2000)] = "/"
) -> Response:
    """Show the log-in form."""
    if await find_account(request) is not None:
        return RedirectResponse(local_path(target), status_code=303)
    return log_in_form(request, target=target)


@router.post("/login")
async def log_in(request: Request) -> Response:
    """Check name and password, and go to the page that was asked for."""
    service = service_of(request)
    form = await read_form(request)
    target = local_path(form.get("next", "/"))
    username = form.get("username", "")[:64]
    try:
        check_form(request, form, secret=request.cookies.get(FORM_COOKIE))
        address = client_address(request)
        found = await check_log_in(
            service,
            username,
            password=form.get("password", "")[:1000],
            code=form.get("code", "")[:20],
            address=address,
        )
    except ApiError as exc:
        return log_in_form(
            request, target=target, status=exc.status, problem=exc.code, username=username
        )
    response = RedirectResponse(target, status_code=303)
    set_cookie(service, response, COOKIE, found.token, int(SESSION_LIFETIME.total_seconds()))
    response.delete_cookie(FORM_COOKIE, path="/")
    return response


@router.post("/logout")
async def log_out(request: Request) -> Response:
    """End the session and show the log-in form."""
    token = request.cookies.get(COOKIE)
    form = await read_form(request)
    if token:
        check_form(request, form, secret=token)
        await accounts.log_out(service_of(request).database, token)
    response = RedirectResponse("/login", status_code=303)
    response.delete_cookie(COOKIE, path="/")
    return response


@router.get("/preferences")
async def prefer(
    request: Request,
    language: Annotated[str, Query(max_length=10)] = "",
    theme: Annotated[str, Query(max_length=10)] = "",
    target: Annotated[str, Query(alias="next", max_length=2000)] = "/",
) -> Response:
    """Remember language or theme in this browser and go back."""
    service = service_of(request)
    response = RedirectResponse(local_path(target), status_code=303)
    if language in LANGUAGES:
        set_cookie(service, response, LANGUAGE_COOKIE, language, KEPT_FOR_S)
    if theme in THEMES:
        set_cookie(service, response, THEME_COOKIE, theme, KEPT_FOR_S)
    return response
