"""Who has an account, and what an administrator does with them."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request
from fastapi.responses import RedirectResponse, Response

from chargewatch.api.accounts import disable_other, refusals
from chargewatch.api.context import permitted, require_visitor, service_of
from chargewatch.api.errors import ApiError
from chargewatch.storage import users as user_rows
from chargewatch.supervision import accounts, second_factor
from chargewatch.supervision.accounts import Account
from chargewatch.supervision.permissions import Permission, Role
from chargewatch.web.render import render
from chargewatch.web.security import read_own_form

router = APIRouter()

Reader = Annotated[Account, Depends(permitted(Permission.SEE_USERS, require_visitor))]
Manager = Annotated[Account, Depends(permitted(Permission.MANAGE_USERS, require_visitor))]


async def _page(request: Request, account: Account, *, status: int = 200, **told: Any) -> Response:
    async with service_of(request).database.connect() as connection:
        rows = await user_rows.all_users(connection)
    values = {"problem": "", "made": "", "password": ""} | told
    page = render(
        request,
        "users.html",
        account=account,
        status=status,
        rows=rows,
        manages=account.may(Permission.MANAGE_USERS),
        roles=[role.value for role in Role],
        **values,
    )
    page.headers["cache-control"] = "no-store"
    return page


@router.get("/users")
async def list_users(request: Request, account: Reader) -> Response:
    """Show all users."""
    return await _page(request, account)


@router.post("/users")
async def make_user(request: Request, account: Manager) -> Response:
    """Make a user and show the generated password, only now."""
    form = await read_own_form(request)
    username, role = form.get("username", "").strip()[:64], form.get("role", "")
    password = accounts.generate_password()
    try:
        if role not in set(Role):
            raise ApiError(422, "refused", f"no role {role!r}")
        with refusals():
            await accounts.add_user(
                service_of(request).database,
                username,
                role=Role(role),
                operator_id=form.get("operator_id", "").strip()[:64] or None,
                password=password,
                actor=account.actor,
            )
    except ApiError as exc:
        return await _page(request, account, status=exc.status, problem=str(exc))
    return await _page(request, account, made=username, password=password)


@router.post("/users/{username}/password")
async def reset_password(request: Request, account: Manager, username: str) -> Response:
    """Give a user a generated password and show it, only now."""
    await read_own_form(request)
    password = accounts.generate_password()
    with refusals():
        await accounts.set_password(
            service_of(request).database, username, password=password, actor=account.actor
        )
    return await _page(request, account, made=username, password=password)


@router.post("/users/{username}/disable")
async def disable_user(request: Request, account: Manager, username: str) -> Response:
    """Shut a user out at once."""
    await read_own_form(request)
    await disable_other(service_of(request), account, username)
    return RedirectResponse("/users", status_code=303)


@router.post("/users/{username}/end-second-factor")
async def end_second_factor(request: Request, account: Manager, username: str) -> Response:
    """Take a user's second factor away, as when the telephone is lost."""
    await read_own_form(request)
    service = service_of(request)
    with refusals():
        await second_factor.end(
            service.database, username, actor=account.actor, now=service.clock()
        )
    return RedirectResponse("/users", status_code=303)
