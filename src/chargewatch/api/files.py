"""Files over HTTP: bodies with a limit on the way in, downloads on the way out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

from fastapi import Request
from fastapi.responses import Response

from chargewatch.api.errors import ApiError


async def read_body(request: Request, *, most_bytes: int) -> bytes:
    """Return a request's body.

    Raises: ApiError 413 when it is larger.
    """
    body = bytearray()
    async for part in request.stream():
        body += part
        if len(body) > most_bytes:
            megabytes = most_bytes / 1_000_000
            raise ApiError(413, "too_large", f"that is more than {megabytes:.3g} MB: send less")
    return bytes(body)


def file_answer(row: Mapping[Any, Any]) -> Response:
    """Return a file of `office_file` as a download that no browser shows or guesses about.

    Source: RFC 6266, RFC 8187.
    """
    name = str(row["name"])
    plain = "".join(c if (c.isascii() and c.isalnum()) or c in "._-" else "_" for c in name)
    return Response(
        bytes(row["content"]),
        media_type=row["media_type"],
        headers={
            "content-disposition": (
                f"attachment; filename=\"{plain}\"; filename*=UTF-8''{quote(name, safe='')}"
            ),
            "x-content-type-options": "nosniff",
            "content-security-policy": "default-src 'none'; sandbox",
        },
    )
