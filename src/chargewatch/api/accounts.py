"""Users, their second factors and tokens, and the audit trail."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request

from chargewatch.api.answers import JsonAnswer, rows_of
from chargewatch.api.context import Own, ServiceOf, client_address, permitted
from chargewatch.api.errors import ApiError, answered
from chargewatch.api.models import ERRORS
from chargewatch.api.models_accounts import (
    ApiTokens,
    AuditEntries,
    IssuedToken,
    MadeUser,
    NewApiToken,
    NewPassword,
    NewUser,
    SecondFactorCode,
    SecondFactorSecret,
    Users,
)
from chargewatch.api.piles import BeforeId, Limit
from chargewatch.api.session import password_turn
from chargewatch.storage import audit as audit_rows
from chargewatch.storage import users as user_rows
from chargewatch.supervision import accounts, second_factor, tokens
from chargewatch.supervision.accounts import Account, AccountError
from chargewatch.supervision.permissions import Permission

router = APIRouter(tags=["accounts"])

Manager = Annotated[Account, Depends(permitted(Permission.MANAGE_USERS))]
UserReader = Annotated[Account, Depends(permitted(Permission.SEE_USERS))]
AuditReader = Annotated[Account, Depends(permitted(Permission.SEE_AUDIT))]
NO_STORE = {"Cache-Control": "no-store"}


def refusals() -> AbstractContextManager[None]:
    """Turn what an account's service refuses into answers with its words."""
    return answered({AccountError: (422, "refused")})


@router.post("/me/password", status_code=204, responses={**ERRORS}, summary="Change the password")
async def change_password(
    request: Request, service: ServiceOf, viewer: Own, wanted: NewPassword
) -> None:
    """Change one's own password; ends all sessions and tokens."""
    await change_own_password(
        service,
        viewer,
        old=wanted.old_password,
        new=wanted.new_password,
        address=client_address(request),
    )


async def change_own_password(
    service: ServiceOf, viewer: Account, *, old: str, new: str, address: str
) -> None:
    """Change a password after the old one was shown; wrong ones count as failed log-ins.

    Raises: ApiError 422 for a wrong old one or a new one that is too short, 429.
    """
    async with password_turn(service, viewer.username, address) as attempt:
        known = await accounts.checked_password(service.database, viewer.username, password=old)
        if known is not None:
            attempt.succeeded()
    if known is None:
        raise ApiError(422, "wrong_password", "the old password is wrong")
    with refusals():
        await accounts.set_password(
            service.database, viewer.username, password=new, actor=viewer.actor
        )


@router.post(
    "/me/second-factor",
    response_class=JsonAnswer,
    responses={200: {"model": SecondFactorSecret}, **ERRORS},
    summary="Begin a second factor",
)
async def begin_second_factor(service: ServiceOf, viewer: Own) -> JsonAnswer:
    """Answer with a fresh secret; it counts once a code of it was confirmed."""
    with refusals():
        secret, address = await second_factor.begin(service.database, viewer)
    return JsonAnswer({"secret": secret, "address": address}, headers=NO_STORE)


@router.post(
    "/me/second-factor/confirm", status_code=204, responses={**ERRORS}, summary="Confirm it"
)
async def confirm_second_factor(service: ServiceOf, viewer: Own, wanted: SecondFactorCode) -> None:
    """Make the second factor that was begun count."""
    with refusals():
        await second_factor.confirm(service.database, viewer, wanted.code, now=service.clock())


@router.get(
    "/me/tokens", response_class=JsonAnswer, responses={200: {"model": ApiTokens}, **ERRORS}
)
async def list_tokens(service: ServiceOf, viewer: Own) -> JsonAnswer:
    """Answer one's own tokens."""
    async with service.database.connect() as connection:
        found = await user_rows.api_tokens(connection, viewer.user_id)
    return JsonAnswer({"tokens": rows_of(found)})


@router.post(
    "/me/tokens", response_class=JsonAnswer, responses={200: {"model": IssuedToken}, **ERRORS}
)
async def issue_token(service: ServiceOf, viewer: Own, wanted: NewApiToken) -> JsonAnswer:
    """Answer with a new token of one's own, which is shown only now."""
    with refusals():
        token_id, token = await tokens.issue_api_token(
            service.database,
            viewer,
            label=wanted.label,
            scope=wanted.scope,
            days=wanted.days,
            now=service.clock(),
        )
    return JsonAnswer({"token_id": token_id, "token": token}, headers=NO_STORE)


@router.delete("/me/tokens/{token_id}", status_code=204, responses={**ERRORS})
async def revoke_token(service: ServiceOf, viewer: Own, token_id: int) -> None:
    """Revoke one of one's own tokens."""
    with refusals():
        await tokens.revoke_api_token(service.database, viewer, token_id, now=service.clock())


@router.get("/users", response_class=JsonAnswer, responses={200: {"model": Users}, **ERRORS})
async def list_users(service: ServiceOf, viewer: UserReader) -> JsonAnswer:
    """Answer all users."""
    async with service.database.connect() as connection:
        return JsonAnswer({"users": rows_of(await user_rows.all_users(connection))})


@router.post("/users", response_class=JsonAnswer, responses={200: {"model": MadeUser}, **ERRORS})
async def make_user(service: ServiceOf, viewer: Manager, wanted: NewUser) -> JsonAnswer:
    """Make a user with a generated password, which is shown only now."""
    password = accounts.generate_password()
    with refusals():
        await accounts.add_user(
            service.database,
            wanted.username,
            role=wanted.role,
            operator_id=wanted.operator_id,
            password=password,
            actor=viewer.actor,
        )
    return JsonAnswer({"username": wanted.username, "password": password}, headers=NO_STORE)


@router.post("/users/{username}/disable", status_code=204, responses={**ERRORS})
async def disable_user(service: ServiceOf, viewer: Manager, username: str) -> None:
    """Shut a user out at once."""
    await disable_other(service, viewer, username)


async def disable_other(service: ServiceOf, viewer: Account, username: str) -> None:
    """Shut another user out.

    Raises: ApiError 422 for oneself: the last administrator would be gone; 404 for nobody.
    """
    if username == viewer.username:
        raise ApiError(422, "refused", "nobody disables itself: ask another administrator")
    with refusals():
        await accounts.disable_user(service.database, username, actor=viewer.actor)


@router.post(
    "/users/{username}/password",
    response_class=JsonAnswer,
    responses={200: {"model": MadeUser}, **ERRORS},
)
async def reset_password(service: ServiceOf, viewer: Manager, username: str) -> JsonAnswer:
    """Give a user a generated password and enable it; ends its sessions and tokens."""
    password = accounts.generate_password()
    with refusals():
        await accounts.set_password(
            service.database, username, password=password, actor=viewer.actor
        )
    return JsonAnswer({"username": username, "password": password}, headers=NO_STORE)


@router.delete("/users/{username}/second-factor", status_code=204, responses={**ERRORS})
async def end_second_factor(service: ServiceOf, viewer: Manager, username: str) -> None:
    """Take a user's second factor away, as when the telephone is lost."""
    with refusals():
        await second_factor.end(service.database, username, actor=viewer.actor, now=service.clock())


def audit_entry(row: Mapping[Any, Any]) -> dict[str, Any]:
    """Return an entry of the trail as the API tells it."""
    told = json.loads(row["content"])
    keys = ("at", "actor", "role", "action", "subject", "why", "detail")
    return {"entry": row["entry"]} | {key: told.get(key) for key in keys}


@router.get("/audit", response_class=JsonAnswer, responses={200: {"model": AuditEntries}, **ERRORS})
async def list_audit(
    service: ServiceOf,
    viewer: AuditReader,
    subject: Annotated[str, Query(max_length=200, description="as `user:wang`")] = "",
    actor: Annotated[str, Query(max_length=200)] = "",
    before: BeforeId = None,
    limit: Limit = 100,
) -> JsonAnswer:
    """Answer who changed what and who logged in, the newest first."""
    async with service.database.connect() as connection:
        found = await audit_rows.newest(
            connection, limit=limit, before=before, subject=subject, actor=actor
        )
    return JsonAnswer(
        {
            "entries": [audit_entry(row) for row in found],
            "next_before": found[-1]["entry"] if len(found) == limit else None,
        }
    )
