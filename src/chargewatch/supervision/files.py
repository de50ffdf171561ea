"""Files that people hand in: checked by their content, kept as they came."""

from __future__ import annotations

import asyncio
import hashlib
from dataclasses import dataclass

from sqlalchemy.ext.asyncio import AsyncConnection

from chargewatch.storage.office import files as rows
from chargewatch.supervision.audit import Actor
from chargewatch.supervision.file_types import FileError, found_type, plain_name

MOST_FILE_BYTES = 10_000_000


@dataclass(frozen=True, kw_only=True)
class CheckedFile:
    """A file that may be kept."""

    name: str
    media_type: str
    sha256: str
    content: bytes


def _check(name: str, content: bytes) -> CheckedFile:
    plain = plain_name(name)
    if len(content) > MOST_FILE_BYTES:
        raise FileError(f"{plain}: is larger than {MOST_FILE_BYTES // 1_000_000} MB; make it less")
    return CheckedFile(
        name=plain,
        media_type=found_type(plain, content),
        sha256=hashlib.sha256(content).hexdigest(),
        content=content,
    )


async def check_file(name: str, content: bytes) -> CheckedFile:
    """Return a file as it may be kept; reading a large one takes a thread's time.

    Raises: FileError that says what is wrong with it.
    """
    return await asyncio.to_thread(_check, name, content)


async def keep_checked(connection: AsyncConnection, actor: Actor, checked: CheckedFile) -> int:
    """Keep a checked file and return its file_id."""
    return await rows.add_file(
        connection,
        name=checked.name,
        media_type=checked.media_type,
        sha256=checked.sha256,
        content=checked.content,
        added_by=actor.name,
    )


async def keep_file(connection: AsyncConnection, actor: Actor, *, name: str, content: bytes) -> int:
    """Check a file, keep it in the caller's transaction, and return its file_id.

    The audit entry is the caller's, who knows what the file belongs to; it tells file_id and
    sha256.

    Raises: FileError that says what is wrong with it.
    """
    return await keep_checked(connection, actor, await check_file(name, content))
