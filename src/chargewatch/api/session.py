"""Log-in and log-out of the API; the pages' log-in form uses the same check."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import APIRouter, Request
from pydantic import BaseModel, Field
from sqlalchemy import RowMapping

from chargewatch.api.answers import JsonAnswer
from chargewatch.api.context import Own, Service, ServiceOf, Somebody, bearer_token, client_address
from chargewatch.api.errors import ApiError
from chargewatch.api.models import ERRORS, Me, Token
from chargewatch.api.throttle import ThrottledError, Try
from chargewatch.domain.identity import is_identity
from chargewatch.supervision import accounts, second_factor
from chargewatch.supervision.accounts import LogIn

router = APIRouter(tags=["log-in"])


class Credentials(BaseModel):
    """A user's name and password."""

    username: str = Field(max_length=64)
    password: str = Field(max_length=1000)
    code: str = Field(default="", max_length=20, description="of the second factor, if any")


@asynccontextmanager
async def password_turn(service: Service, username: str, address: str) -> AsyncIterator[Try]:
    """Wait for the turn of a name from an address to try a password, and count how it ends.

    Raises: ApiError 429 when too many tries wait already.
    """
    try:
        async with service.throttle.turn(username, address) as attempt:
            yield attempt
    except ThrottledError as exc:
        seconds = math.ceil(exc.wait_s)
        raise ApiError(
            429,
            "too_many_log_ins",
            f"too many failed log-ins of this name from this address: try again in {seconds} s",
            headers={"Retry-After": str(seconds)},
        ) from exc


async def check_log_in(
    service: Service, username: str, *, password: str, code: str, address: str
) -> LogIn:
    """Return a fresh session.

    Raises: ApiError 401 for a wrong name, password or code, or a code that is missing; 429 when
        too many tries wait already.
    """
    # No user has another name: it is looked up as nobody's, which takes as long.
    known = username if is_identity(username) else ""
    try:
        user = await _checked(service, known, password=password, code=code, address=address)
    except ApiError as exc:
        if exc.status == 401 and service.refused.may(known):
            await accounts.tell_refused(
                service.database, known, why=exc.code, address=address, now=service.clock()
            )
        raise
    return await accounts.open_session(service.database, user, now=service.clock())


async def _checked(
    service: Service, username: str, *, password: str, code: str, address: str
) -> RowMapping:
    """Return the user whose password, and code where it has a second factor, are right.

    Raises: ApiError 401, 429.
    """
    async with password_turn(service, username, address) as attempt:
        user = await accounts.checked_password(service.database, username, password=password)
        if user is not None and user["totp_confirmed_at"] is not None:
            await _check_code(service, user, code)
        if user is not None:
            attempt.succeeded()
    if user is None:
        raise ApiError(
            401,
            "wrong_credentials",
            "name and password don't belong together, or the user is disabled",
        )
    return user


async def _check_code(service: Service, user: RowMapping, code: str) -> None:
    """Check the code of a user whose password was right; wherever from, tries of one go slower.

    Raises: ApiError 401.
    """
    if not code.strip():
        raise ApiError(
            401, "second_factor_needed", "send the code of your authenticator app as `code`, too"
        )
    async with password_turn(service, f"{user['username']} code", "anywhere") as attempt:
        if await second_factor.is_right(service.database, user, code, now=service.clock()):
            attempt.succeeded()
            return
    raise ApiError(
        401, "wrong_code", "the code is wrong or was used already: wait for the next one"
    )


@router.post(
    "/login",
    response_class=JsonAnswer,
    responses={200: {"model": Token}, **ERRORS},
    summary="Log in",
)
async def log_in(request: Request, service: ServiceOf, credentials: Credentials) -> JsonAnswer:
    """Answer with a token for the Authorization header (`Bearer ...`)."""
    address = client_address(request)
    found = await check_log_in(
        service,
        credentials.username,
        password=credentials.password,
        code=credentials.code,
        address=address,
    )
    return JsonAnswer(
        {
            "token": found.token,
            "expires_at": found.expires_at,
            "username": found.username,
            "role": found.role.value,
            "operator_id": found.operator_id,
        },
        headers={"Cache-Control": "no-store"},
    )


@router.post("/logout", status_code=204, responses={**ERRORS}, summary="End the token's session")
async def log_out(request: Request, service: ServiceOf, viewer: Own) -> None:
    """End the session of the bearer token."""
    token = bearer_token(request)
    if token is None:
        raise ApiError(400, "no_token", "send the token to end in the Authorization header")
    await accounts.log_out(service.database, token)


@router.get("/me", response_class=JsonAnswer, responses={200: {"model": Me}, **ERRORS})
async def me(viewer: Somebody) -> JsonAnswer:
    """Answer who is logged in, with which role."""
    return JsonAnswer(
        {"username": viewer.username, "role": viewer.role.value, "operator_id": viewer.operator_id}
    )
