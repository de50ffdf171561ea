"""What keeps the pages safe: headers, form tokens, local redirects, bounded forms."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
from collections.abc import Callable, MutableMapping
from urllib.parse import parse_qs

from fastapi import Request
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from chargewatch.api.context import COOKIE
from chargewatch.api.errors import ApiError, error_answer

MAX_FORM_BYTES = 16_384
MAX_FORM_FIELDS = 150
"""A page of a list with a box in each row, and what else the form asks."""
MAX_BODY_BYTES = 65_536

# No inline script and no inline style anywhere: charts read JSON endpoints and data attributes.
CONTENT_SECURITY_POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self' data:",
        "font-src 'self'",
        "connect-src 'self'",
        "form-action 'self'",
        "frame-ancestors 'none'",
        "base-uri 'none'",
    )
)

HEADERS = {
    "content-security-policy": CONTENT_SECURITY_POLICY,
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=(), payment=()",
}


class SecurityHeaders:
    """Adds the security headers to every answer; pages and API answers aren't kept by caches."""

    def __init__(self, app: ASGIApp, *, secure: bool) -> None:
        self.app = app
        self._headers = dict(HEADERS)
        if secure:
            self._headers["strict-transport-security"] = "max-age=31536000"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on and add headers to its answer."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in self._headers.items():
                    headers.setdefault(name, value)
                headers.setdefault("cache-control", "no-store")
            await send(message)

        await self.app(scope, receive, send_with_headers)


class HeadRequests:
    """Answers HEAD wherever GET is answered, with the same headers and no body."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a HEAD request on as GET; what streams ends at its first piece."""
        if scope["type"] != "http" or scope["method"] != "HEAD":
            await self.app(scope, receive, send)
            return
        ended = asyncio.Event()

        async def send_headers_only(message: Message) -> None:
            if message["type"] == "http.response.start":
                await send(message)
            elif not ended.is_set():
                ended.set()
                await send({"type": "http.response.body", "body": b"", "more_body": False})

        asked = False

        async def receive_until_ended() -> Message:
            nonlocal asked
            if not asked:
                asked = True
                return {"type": "http.request", "body": b"", "more_body": False}
            await ended.wait()
            return {"type": "http.disconnect"}

        await self.app({**scope, "method": "GET"}, receive_until_ended, send_headers_only)


class BodyLimit:
    """Refuses large bodies before anything reads them.

    The telemetry door has its own limit, and so has each address that takes files.
    """

    def __init__(
        self, app: ASGIApp, *, own_limit: str, most_bytes_of: Callable[[str], int | None]
    ) -> None:
        self.app = app
        self._own_limit = own_limit
        self._most_bytes_of = most_bytes_of

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on with a body that can't grow beyond the limit."""
        if scope["type"] != "http" or scope["path"].startswith(self._own_limit):
            await self.app(scope, receive, send)
            return
        most_bytes = self._most_bytes_of(scope["path"]) or MAX_BODY_BYTES
        told = Headers(scope=scope).get("content-length", "0")
        if not (told.isascii() and told.isdigit()) or int(told) > most_bytes:
            answer = error_answer(
                413, "too_large", "the request's body is too large for this address"
            )
            await answer(scope, receive, send)
            return
        received = 0

        async def receive_within_limit() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > most_bytes:
                raise ApiError(413, "too_large", "the request's body is too large for this address")
            return message

        await self.app(scope, receive_within_limit, send)


def form_token(secret: str) -> str:
    """Return the token of a form that belongs to a secret (a session or a log-in form)."""
    return hmac.new(secret.encode(), b"chargewatch form", hashlib.sha256).hexdigest()


def is_foreign(request: Request) -> bool:
    """Return whether a browser says that another site made it send a form."""
    origin = request.headers.get("origin")
    own = f"//{request.headers.get('host', '')}"
    return origin not in (None, "null") and str(origin).partition(":")[2] != own


def check_form(request: Request, form: MutableMapping[str, str], *, secret: str | None) -> None:
    """Let pass a form that this site gave to this very browser.

    Raises: ApiError 403.
    """
    given = form.get("form_token", "").encode()
    if (
        is_foreign(request)
        or not secret
        or not hmac.compare_digest(form_token(secret).encode(), given)
    ):
        raise ApiError(403, "stale_form", "this form is out of date: reload the page and try again")


async def _read_fields(
    request: Request, *, most_bytes: int = MAX_FORM_BYTES
) -> dict[str, list[str]]:
    body = bytearray()
    async for part in request.stream():
        body += part
        if len(body) > most_bytes:
            raise ApiError(413, "too_large", "the form is too large: shorten its fields")
    try:
        return parse_qs(
            body.decode("utf-8"), keep_blank_values=True, max_num_fields=MAX_FORM_FIELDS
        )
    except ValueError as exc:
        raise ApiError(400, "malformed", "the form can't be read: reload the page") from exc


async def read_form(request: Request, *, most_bytes: int = MAX_FORM_BYTES) -> dict[str, str]:
    """Return the fields of a small urlencoded form.

    Raises: ApiError 413 or 400.
    """
    return {
        name: values[-1]
        for name, values in (await _read_fields(request, most_bytes=most_bytes)).items()
    }


async def read_own_form(request: Request, *, most_bytes: int = MAX_FORM_BYTES) -> dict[str, str]:
    """Return the fields of a form that this site gave to this visitor's session.

    Raises: ApiError 403 for any other form, 413 or 400.
    """
    form = await read_form(request, most_bytes=most_bytes)
    check_form(request, form, secret=request.cookies.get(COOKIE))
    return form


async def read_own_choices(request: Request, name: str) -> tuple[dict[str, str], list[str]]:
    """Return the fields of a form of this site, and all values of the boxes that were ticked.

    Raises: ApiError 403 for any other form, 413 or 400.
    """
    fields = await _read_fields(request)
    form = {key: values[-1] for key, values in fields.items()}
    check_form(request, form, secret=request.cookies.get(COOKIE))
    return form, fields.get(name, [])


def local_path(target: str) -> str:
    """Return a path of this site, the start page for anything else; redirects stay here."""
    if not target.startswith("/") or target.startswith("//") or "\\" in target:
        return "/"
    return "/" if any(ord(letter) < 32 for letter in target) else target
