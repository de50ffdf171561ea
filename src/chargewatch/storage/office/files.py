"""Statements on the files that people handed in."""

from __future__ import annotations

from sqlalchemy import RowMapping
from sqlalchemy.ext.asyncio import AsyncConnection

from chargewatch.storage import sql

ADD_FILE = sql.statement(
    "files: add",
    "INSERT INTO office_file (name, media_type, size, sha256, content, added_by) "
    "VALUES (:name, :media_type, :size, :sha256, :content, :added_by) RETURNING file_id",
)
FILE = sql.statement(
    "files: one",
    "SELECT file_id, name, media_type, size, sha256, content, added_at, added_by "
    "FROM office_file WHERE file_id = :file_id",
)


async def add_file(
    connection: AsyncConnection,
    *,
    name: str,
    media_type: str,
    sha256: str,
    content: bytes,
    added_by: str,
) -> int:
    """Keep a file and return its file_id."""
    return int(
        await sql.value(
            connection,
            ADD_FILE,
            name=name,
            media_type=media_type,
            size=len(content),
            sha256=sha256,
            content=content,
            added_by=added_by,
        )
    )


async def file(connection: AsyncConnection, file_id: int) -> RowMapping | None:
    """Return a file with its content; None when there is none of this number.

    Whoever answers with it has found out first that the visitor may see what it belongs to.
    """
    return await sql.row(connection, FILE, file_id=file_id)
