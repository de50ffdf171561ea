"""Log-in and log-out of the API; the pages' log-in form uses the same check."""

from __future__ import annotations

import math

from fastapi import APIRouter, Request
from pydantic import BaseModel, Field

from chargewatch.api.answers import JsonAnswer
from chargewatch.api.context import Service, ServiceOf, Viewer, bearer_token
from chargewatch.api.errors import ApiError
from chargewatch.api.models import ERRORS, Me, Token
from chargewatch.api.throttle import ThrottledError
from chargewatch.domain.identity import is_identity
from chargewatch.supervision import accounts
from chargewatch.supervision.accounts import LogIn

router = APIRouter(tags=["log-in"])


class Credentials(BaseModel):
    """A user's name and password."""

    username: str = Field(max_length=64)
    password: str = Field(max_length=1000)


async def check_log_in(service: Service, username: str, *, password: str, address: str) -> LogIn:
    """Return a fresh session.

    Raises: ApiError 401 for a wrong name or password, 429 when too many tries wait already.
    """
    # No user has another name: it is looked up as nobody's, which takes as long.
    known = username if is_identity(username) else ""
    try:
        async with service.throttle.turn(known, address) as attempt:
            log_in = await accounts.log_in(
                service.database, known, password=password, now=service.clock()
            )
            if log_in is not None:
                attempt.succeeded()
    except ThrottledError as exc:
        seconds = math.ceil(exc.wait_s)
        raise ApiError(
            429,
            "too_many_log_ins",
            f"too many failed log-ins of this name from this address: try again in {seconds} s",
            headers={"Retry-After": str(seconds)},
        ) from exc
    if log_in is None:
        raise ApiError(
            401,
            "wrong_credentials",
            "name and password don't belong together, or the user is disabled",
        )
    return log_in


@router.post(
    "/login",
    response_class=JsonAnswer,
    responses={200: {"model": Token}, **ERRORS},
    summary="Log in",
)
async def log_in(request: Request, service: ServiceOf, credentials: Credentials) -> JsonAnswer:
    """Answer with a token for the Authorization header (`Bearer ...`)."""
    address = request.client.host if request.client else "unknown"
    found = await check_log_in(
        service, credentials.username, password=credentials.password, address=address
    )
    return JsonAnswer(
        {
            "token": found.token,
            "expires_at": found.expires_at,
            "username": found.account.username,
            "role": found.account.role.value,
            "operator_id": found.account.operator_id,
        },
        headers={"Cache-Control": "no-store"},
    )


@router.post("/logout", status_code=204, responses={**ERRORS}, summary="End the token's session")
async def log_out(request: Request, service: ServiceOf, viewer: Viewer) -> None:
    """End the session of the bearer token."""
    token = bearer_token(request)
    if token is None:
        raise ApiError(400, "no_token", "send the token to end in the Authorization header")
    await accounts.log_out(service.database, token)


@router.get("/me", response_class=JsonAnswer, responses={200: {"model": Me}, **ERRORS})
async def me(viewer: Viewer) -> JsonAnswer:
    """Answer who is logged in, with which role."""
    return JsonAnswer(
        {"username": viewer.username, "role": viewer.role.value, "operator_id": viewer.operator_id}
    )
