"""One's own account: second factor, password, tokens."""

from __future__ import annotations

from typing import Annotated, Any

import segno
from fastapi import APIRouter, Depends, Request
from fastapi.responses import RedirectResponse, Response

from chargewatch.api.accounts import change_own_password, refusals
from chargewatch.api.context import COOKIE, client_address, permitted, require_visitor, service_of
from chargewatch.api.errors import ApiError
from chargewatch.storage import users as user_rows
from chargewatch.supervision import second_factor, tokens
from chargewatch.supervision.accounts import Account
from chargewatch.supervision.permissions import Permission
from chargewatch.web.render import render
from chargewatch.web.security import read_own_form

router = APIRouter()

Owner = Annotated[Account, Depends(permitted(Permission.OWN_ACCOUNT, require_visitor))]


async def _page(request: Request, account: Account, *, status: int = 200, **told: Any) -> Response:
    async with service_of(request).database.connect() as connection:
        rows = await user_rows.api_tokens(connection, account.user_id)
    values = {"problem": "", "done": "", "issued": "", "secret": "", "picture": ""} | told
    page = render(request, "profile.html", account=account, status=status, tokens=rows, **values)
    page.headers["cache-control"] = "no-store"
    return page


@router.get("/profile")
async def show_profile(request: Request, account: Owner) -> Response:
    """Show one's own account."""
    return await _page(request, account)


@router.post("/profile/second-factor")
async def begin_second_factor(request: Request, account: Owner) -> Response:
    """Show a fresh secret as a picture for an authenticator app."""
    await read_own_form(request)
    try:
        with refusals():
            secret, address = await second_factor.begin(service_of(request).database, account)
    except ApiError as exc:
        return await _page(request, account, status=exc.status, problem=exc.code)
    picture = segno.make(address, error="m").svg_data_uri(scale=5, border=4, light="#fff")
    return await _page(request, account, secret=secret, picture=picture)


@router.post("/profile/second-factor/confirm")
async def confirm_second_factor(request: Request, account: Owner) -> Response:
    """Make the second factor count."""
    form = await read_own_form(request)
    service = service_of(request)
    try:
        with refusals():
            await second_factor.confirm(
                service.database, account, form.get("code", "")[:20], now=service.clock()
            )
    except ApiError as exc:
        return await _page(request, account, status=exc.status, problem="wrong_code")
    return RedirectResponse("/profile", status_code=303)


@router.post("/profile/password")
async def change_password(request: Request, account: Owner) -> Response:
    """Change the password; ends all sessions, this one too."""
    form = await read_own_form(request)
    try:
        await change_own_password(
            service_of(request),
            account,
            old=form.get("old", "")[:1000],
            new=form.get("new", "")[:1000],
            address=client_address(request),
        )
    except ApiError as exc:
        problem = "short_password" if exc.code == "refused" else exc.code
        return await _page(request, account, status=exc.status, problem=problem)
    response = RedirectResponse("/login?next=/profile", status_code=303)
    response.delete_cookie(COOKIE, path="/")
    return response


@router.post("/profile/tokens")
async def issue_token(request: Request, account: Owner) -> Response:
    """Issue a token and show it, only now."""
    form = await read_own_form(request)
    service = service_of(request)
    days = form.get("days", "")
    try:
        with refusals():
            _, token = await tokens.issue_api_token(
                service.database,
                account,
                label=form.get("label", "").strip(),
                scope=form.get("scope", ""),
                days=int(days) if days.isascii() and days.isdigit() and len(days) < 5 else 0,
                now=service.clock(),
            )
    except ApiError as exc:
        return await _page(request, account, status=exc.status, problem="bad_token")
    return await _page(request, account, issued=token)


@router.post("/profile/tokens/{token_id}/revoke")
async def revoke_token(request: Request, account: Owner, token_id: int) -> Response:
    """Revoke a token."""
    await read_own_form(request)
    service = service_of(request)
    with refusals():
        await tokens.revoke_api_token(service.database, account, token_id, now=service.clock())
    return await _page(request, account, done="revoked")
