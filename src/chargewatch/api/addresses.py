"""Addresses of requests: names with a slash in them, and text that no table can hold."""

from __future__ import annotations

from typing import Annotated
from urllib.parse import quote, unquote

from fastapi import Path, Request
from pydantic import BeforeValidator
from starlette.types import ASGIApp, Receive, Scope, Send

from chargewatch.api.errors import ApiError

# Stands for a slash inside of a name while routes are matched: servers decode %2F to the slash that
# parts a path. No decoded text has a lone surrogate, so it can't be taken for anything else.
_SLASH = "\udcaf"


class EncodedSlashes:
    """Keeps a slash that was sent as %2F inside its part of the path."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on."""
        raw = scope.get("raw_path") or b""
        if scope["type"] == "http" and b"%2f" in raw.lower():
            parts = raw.decode("latin-1").split("/")
            path = "/".join(unquote(part).replace("/", _SLASH) for part in parts)
            scope = {**scope, "path": path}
        await self.app(scope, receive, send)


def _restored(text: str) -> str:
    return text.replace(_SLASH, "/")


NameInPath = Annotated[str, Path(), BeforeValidator(_restored)]
"""A name as one part of the path; it may hold any character, each encoded where it must be."""


def asked_path(request: Request) -> str:
    """Return the path that was asked for, encoded as it was sent."""
    raw = request.scope.get("raw_path")
    return raw.decode("latin-1") if raw else quote(request.url.path, errors="replace")


def asked_address(request: Request) -> str:
    """Return path and query that were asked for, encoded as they were sent."""
    return asked_path(request) + (f"?{request.url.query}" if request.url.query else "")


def refuse_nul(request: Request) -> None:
    """Let pass a request without NUL in its path and query: PostgreSQL has no such text.

    Raises: ApiError 422 that names the parameter.
    """
    given = [*request.path_params.items(), *request.query_params.multi_items()]
    for name, value in given:
        if "\x00" in name or "\x00" in str(value):
            known = name.replace("\x00", "\\0")
            raise ApiError(422, "invalid_request", f"{known}: NUL (%00) is no part of any name")
