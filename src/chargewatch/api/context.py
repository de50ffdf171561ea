"""What every endpoint has at hand: settings, database, who asks."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from functools import cached_property
from typing import Annotated, Any, Protocol, cast

from fastapi import Depends, Request

from chargewatch.api.cache import FigureCache
from chargewatch.api.errors import ApiError
from chargewatch.api.live import LiveFeed
from chargewatch.api.public_door import PublicDoor
from chargewatch.api.slots import Slots
from chargewatch.api.throttle import Seldom, Throttle
from chargewatch.settings import Settings
from chargewatch.storage.database import Database
from chargewatch.supervision import accounts
from chargewatch.supervision.accounts import Account
from chargewatch.supervision.permissions import Permission
from chargewatch.supervision.single_sign_on import Provider

COOKIE = "chargewatch_session"


class Intake(Protocol):
    """Takes a message that came over HTTP the way of those that came over MQTT."""

    async def submit(
        self,
        *,
        kind: str,
        operator_id: str,
        station_id: str,
        payload: bytes,
        content_type: str | None,
        received_at: float,
    ) -> dict[str, Any]:
        """Store one message and return its receipt.

        received_at: seconds since 1970.
        Raises: DatabaseError when it can't be committed now.
        """
        ...


def utc_now() -> datetime:
    """Return the present time."""
    return datetime.now(UTC)


@dataclass
class Service:
    """The state of one running application."""

    settings: Settings
    database: Database
    intake: Intake | None = None
    clock: Callable[[], datetime] = utc_now
    figures: FigureCache = field(default_factory=FigureCache)
    throttle: Throttle = field(default_factory=Throttle)
    door: PublicDoor = field(default_factory=PublicDoor)
    exports: Slots = field(
        default_factory=lambda: Slots(a_user=3, in_all=12, what="exports", retry_s=30)
    )
    streams: Slots = field(
        default_factory=lambda: Slots(a_user=20, in_all=200, what="live views", retry_s=60)
    )

    refused: Seldom = field(default_factory=lambda: Seldom(an_hour=20))
    """Refused log-ins of a name that the audit trail tells."""
    messages: Slots = field(
        default_factory=lambda: Slots(a_user=16, in_all=64, what="messages", retry_s=5)
    )

    @property
    def local_now(self) -> datetime:
        """The present time where the office is."""
        return self.clock().astimezone(self.settings.zone)

    @property
    def today(self) -> date:
        """The day where the office is."""
        return self.local_now.date()

    @cached_property
    def provider(self) -> Provider:
        """The identity provider, if one is set."""
        return Provider(self.settings)

    @cached_property
    def live(self) -> LiveFeed:
        """The one look at the newest readings that all live views share."""
        return LiveFeed(self.database, lambda: self.clock())


def service_of(request: Request) -> Service:
    """Return the application's state."""
    return cast("Service", request.app.state.service)


def client_address(request: Request) -> str:
    """Return where a request comes from, for counting failed tries."""
    return request.client.host if request.client else "unknown"


def bearer_token(request: Request) -> str | None:
    """Return the token of the Authorization header."""
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" and token.strip() else None


async def find_account(request: Request) -> Account | None:
    """Return who asks: by bearer token, else by the log-in cookie; None when nobody known."""
    token = bearer_token(request) or request.cookies.get(COOKIE)
    if not token or len(token) > 200:
        return None
    service = service_of(request)
    return await accounts.account_of(
        service.database,
        token,
        now=service.clock(),
        second_factor=service.settings.second_factor,
    )


async def require_account(request: Request) -> Account:
    """Return who asks the API.

    What changes something takes a token only: another site can make a browser send its cookie.

    Raises: ApiError 401 with the next step.
    """
    writes = request.method not in {"GET", "HEAD"}
    account = None if writes and bearer_token(request) is None else await find_account(request)
    if account is None:
        raise ApiError(
            401,
            "not_logged_in",
            "log in first: POST /api/v1/login gives a token for the Authorization header",
            headers={"WWW-Authenticate": "Bearer"},
        )
    return account


async def require_visitor(request: Request) -> Account:
    """Return who looks at a page.

    Raises: ApiError 401, which pages answer with the log-in form.
    """
    account = await find_account(request)
    if account is None:
        raise ApiError(401, "not_logged_in", "log in first")
    return account


def permitted(
    permission: Permission, find: Callable[[Request], Awaitable[Account]] = require_account
) -> Callable[[Request], Awaitable[Account]]:
    """Return a dependency that lets pass who may do something.

    Args:
        permission: a row of the table of permissions.
        find: says who asks; raises ApiError 401.
    """

    async def who(request: Request) -> Account:
        account = await find(request)
        if permission not in account.permissions:
            raise refusal(account, permission)
        return account

    who.permission = permission  # type: ignore[attr-defined]
    return who


def refusal(account: Account, permission: Permission) -> ApiError:
    """Return why an account may not do something, and the next step."""
    if account.lacks_second_factor:
        return ApiError(
            403, "set_up_second_factor", "set up a second factor first, under your profile"
        )
    return ApiError(
        403,
        "not_permitted",
        f"{account.role.value} or this token has no permission {permission.value!r}: ask an "
        "administrator",
    )


ServiceOf = Annotated[Service, Depends(service_of)]
Viewer = Annotated[Account, Depends(permitted(Permission.SEE))]
Own = Annotated[Account, Depends(permitted(Permission.OWN_ACCOUNT))]
Somebody = Annotated[Account, Depends(require_account)]
"""Anybody who is logged in."""
