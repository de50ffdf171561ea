"""SQL by name: a statement is declared once, with :name parameters, and sent through this door.

It takes both kinds of connections, SQLAlchemy's and asyncpg's own; docs/decisions/sql-style.md.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any, TypeAlias

import asyncpg
from sqlalchemy import TextClause, text
from sqlalchemy.ext.asyncio import AsyncConnection

Connection: TypeAlias = "AsyncConnection | asyncpg.Connection"
"""`timeout_s` is for asyncpg's own; SQLAlchemy's have none of their own."""

_PARAMETER = re.compile(r"(?<![:\w\\]):(\w+)(?!:)")
"""As SQLAlchemy reads a text: `::` casts, and a colon after a word or a space is none."""
_CAST = re.compile(r"(?<![:\w\\])(:\w+)::\w+")

DECLARED: dict[str, Statement] = {}
"""Every statement of the process by its name."""


@dataclass(frozen=True)
class Statement:
    """One text of SQL with :name parameters, and what it is called."""

    name: str
    sql: str

    @cached_property
    def text(self) -> TextClause:
        """The form that SQLAlchemy sends."""
        return text(self.sql)

    @cached_property
    def parameters(self) -> tuple[str, ...]:
        """The names of the parameters, each once, in the order of their first appearance."""
        return tuple(dict.fromkeys(_PARAMETER.findall(self.sql)))

    @cached_property
    def numbered(self) -> str:
        """The form that asyncpg sends: $1 is the first of `parameters`."""
        number = {name: place for place, name in enumerate(self.parameters, start=1)}
        return _PARAMETER.sub(lambda found: f"${number[found[1]]}", self.sql)

    def arguments(self, values: Mapping[str, Any]) -> list[Any]:
        """Return values in the order of `parameters`.

        Raises: TypeError when one is missing or not a parameter.
        """
        if len(values) != len(self.parameters) or any(p not in values for p in self.parameters):
            raise TypeError(
                f"statement {self.name!r} takes {', '.join(self.parameters) or 'no values'}, "
                f"not {', '.join(values) or 'none'}"
            )
        return [values[name] for name in self.parameters]

    def filled(self, **parts: str) -> Statement:
        """Return the statement with names and conditions, never values, in place of its {parts}."""
        return _filled(self, tuple(parts.items()))


@lru_cache(maxsize=1_024)
def _filled(template: Statement, parts: tuple[tuple[str, str], ...]) -> Statement:
    return Statement(template.name, template.sql.format(**dict(parts)))


def statement(name: str, sql: str) -> Statement:
    """Declare a statement.

    Raises: ValueError when another one has its name, or a parameter is cast by `::`, which would
        not be read as one: write CAST(:name AS type).
    """
    if found := _CAST.search(sql):
        raise ValueError(f"statement {name!r}: write CAST({found[1]} AS ...), not {found[0]}")
    if name in DECLARED:
        raise ValueError(f"two statements are called {name!r}")
    DECLARED[name] = Statement(name, sql)
    return DECLARED[name]


async def rows(
    connection: Connection, wanted: Statement, /, *, timeout_s: float | None = None, **values: Any
) -> Sequence[Any]:
    """Return the rows that a statement finds: SQLAlchemy's RowMapping, or asyncpg's Record."""
    arguments = wanted.arguments(values)
    if isinstance(connection, AsyncConnection):
        return (await connection.execute(wanted.text, values)).mappings().all()
    found: Sequence[Any] = await connection.fetch(wanted.numbered, *arguments, timeout=timeout_s)
    return found


async def row(
    connection: Connection, wanted: Statement, /, *, timeout_s: float | None = None, **values: Any
) -> Any | None:
    """Return the first row that a statement finds, None when it finds none."""
    arguments = wanted.arguments(values)
    if isinstance(connection, AsyncConnection):
        return (await connection.execute(wanted.text, values)).mappings().first()
    return await connection.fetchrow(wanted.numbered, *arguments, timeout=timeout_s)


async def value(
    connection: Connection, wanted: Statement, /, *, timeout_s: float | None = None, **values: Any
) -> Any:
    """Return the first value of the first row that a statement finds, None when it finds none."""
    arguments = wanted.arguments(values)
    if isinstance(connection, AsyncConnection):
        return await connection.scalar(wanted.text, values)
    return await connection.fetchval(wanted.numbered, *arguments, timeout=timeout_s)


async def run(
    connection: Connection, wanted: Statement, /, *, timeout_s: float | None = None, **values: Any
) -> int:
    """Send a statement that changes something; return how many rows it changed, 0 for others."""
    arguments = wanted.arguments(values)
    if isinstance(connection, AsyncConnection):
        return max(0, (await connection.execute(wanted.text, values)).rowcount)
    status = await connection.execute(wanted.numbered, *arguments, timeout=timeout_s)
    count = status.rpartition(" ")[2]
    return int(count) if count.isdecimal() else 0


async def run_each(
    connection: asyncpg.Connection, wanted: Statement, each: Iterable[Mapping[str, Any]], /
) -> None:
    """Send a statement once for each set of values, in one go."""
    await connection.executemany(wanted.numbered, [wanted.arguments(values) for values in each])


async def blocks(
    connection: asyncpg.Connection,
    wanted: Statement,
    /,
    *,
    size: int,
    timeout_s: float,
    **values: Any,
) -> AsyncIterator[Sequence[asyncpg.Record]]:
    """Yield the rows that a statement finds, `size` at a time; in a transaction."""
    cursor = await connection.cursor(wanted.numbered, *wanted.arguments(values))
    while block := await cursor.fetch(size, timeout=timeout_s):
        yield block
