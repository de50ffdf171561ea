"""Forms with files: multipart, from this site's own pages, within the limit of their address."""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass

from fastapi import Request
from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser

from chargewatch.api.context import COOKIE
from chargewatch.api.errors import ApiError
from chargewatch.api.files import read_body
from chargewatch.supervision.driver_file import MOST_RECORD_BYTES
from chargewatch.supervision.files import MOST_FILE_BYTES
from chargewatch.web.security import MAX_FORM_BYTES, check_form

MOST_FILES = 5
MOST_FIELDS = 80
ENVELOPE_BYTES = 65_536
"""What a form adds to its files: fields, boundaries, names."""

FILE_PATHS: Mapping[str, int] = {
    r"/cases/[^/]+/(entries|reply)": MOST_FILE_BYTES + ENVELOPE_BYTES,
    r"/api/v1/cases/[^/]+/(reply-)?files": MOST_FILE_BYTES,
    r"/check": 2 * MOST_RECORD_BYTES + ENVELOPE_BYTES,
    r"/registry/import": MOST_FILE_BYTES + ENVELOPE_BYTES,
    r"/api/v1/registry/imports": MOST_FILE_BYTES,
    r"/verifications": MOST_FILE_BYTES + ENVELOPE_BYTES,
}
"""Addresses that take more than a small body, as expressions, and how many bytes they take.

Who makes a form with a file adds its address here.
"""

_FILE_PATHS = tuple((re.compile(path), most) for path, most in FILE_PATHS.items())


def most_bytes_of(path: str) -> int | None:
    """Return how large a body an address takes; None: as much as any other."""
    return next((most for known, most in _FILE_PATHS if known.fullmatch(path)), None)


@dataclass(frozen=True)
class Upload:
    """A file of a form, as the browser sent it: neither name nor content are checked."""

    name: str
    content: bytes


async def _pieces(body: bytes) -> AsyncGenerator[bytes, None]:
    yield body


async def read_own_upload(
    request: Request, *, most_bytes: int
) -> tuple[dict[str, str], list[Upload]]:
    """Return fields and files of a form that this site gave to this visitor's session.

    A field for a file in which none was chosen gives no file.

    Args:
        request: with a multipart body; FILE_PATHS lets its address take that much.
        most_bytes: of the whole body.

    Raises: ApiError 403 for any other form, 413 or 400.
    """
    kind = request.headers.get("content-type", "")
    if not kind.lower().startswith("multipart/form-data"):
        raise ApiError(400, "malformed", "send the form as multipart/form-data")
    # Read whole first: what is too large stops before anything of it is put on disk.
    body = await read_body(request, most_bytes=most_bytes)
    parser = MultiPartParser(
        request.headers,
        _pieces(body),
        max_files=MOST_FILES,
        max_fields=MOST_FIELDS,
        max_part_size=MAX_FORM_BYTES,
    )
    try:
        form = await parser.parse()
    except (MultiPartException, UnicodeDecodeError, LookupError, ValueError) as exc:
        words = getattr(exc, "message", "it is damaged")
        raise ApiError(400, "malformed", f"the form can't be read: {words}") from exc
    try:
        fields: dict[str, str] = {}
        files: list[Upload] = []
        for name, value in form.multi_items():
            if isinstance(value, UploadFile):
                content = await value.read()
                if value.filename or content:
                    files.append(Upload(value.filename or "", content))
            else:
                fields[name] = value
    finally:
        await form.close()
    check_form(request, fields, secret=request.cookies.get(COOKIE))
    return fields, files
