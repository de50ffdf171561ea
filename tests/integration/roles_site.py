"""A database with roles of its own."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from urllib.parse import urlsplit, urlunsplit

import asyncpg
import pytest

from chargewatch.storage.database import open_database
from chargewatch.storage.roles import (
    DUTIES,
    make_roles,
)


@dataclass(frozen=True)
class Site:
    """A database with roles of its own."""

    url: str
    prefix: str
    passwords: dict[str, str]

    def url_of(self, duty: str) -> str:
        parts = urlsplit(self.url)
        role = f"{self.prefix}_{duty}"
        address = parts.netloc.rpartition("@")[2]
        return urlunsplit(parts._replace(netloc=f"{role}:{self.passwords[role]}@{address}"))

    async def may(self, duty: str, *statements: str) -> None:
        """Run statements as a role and roll them back."""
        connection = await asyncpg.connect(self.url_of(duty))
        try:
            transaction = connection.transaction()
            await transaction.start()
            for statement in statements:
                await connection.execute(statement)
            await transaction.rollback()
        finally:
            await connection.close()

    async def may_not(self, duty: str, statement: str) -> None:
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await self.may(duty, statement)


@asynccontextmanager
async def open_roles(database_url: str) -> AsyncIterator[Site]:
    """Yield a database with its roles, which are dropped at the end."""
    # Roles belong to the whole server: each test has its own names.
    prefix = f"t{uuid.uuid4().hex[:10]}"
    async with open_database(database_url) as database:
        report = await make_roles(database, prefix=prefix)
        assert report.tables_without_rights == ()
        yield Site(database_url, prefix, dict(report.passwords))
        async with database.raw() as connection:
            owner = await connection.fetchval("SELECT current_user")
            for duty in DUTIES:
                await connection.execute(f"REASSIGN OWNED BY {prefix}_{duty} TO {owner}")
                await connection.execute(f"DROP OWNED BY {prefix}_{duty}")
                await connection.execute(f"DROP ROLE {prefix}_{duty}")
