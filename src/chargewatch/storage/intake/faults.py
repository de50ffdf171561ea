"""What an error says: the content is to blame, perhaps it is, or the environment is.

An error of the environment (no memory, no thread, no disk, no database) is never put down to what
was to be written: it is waited out, however long it takes.
"""

from __future__ import annotations

from enum import IntEnum

import asyncpg

from chargewatch.errors import ChargewatchError


class Blame(IntEnum):
    """How often the same error must come on the same messages before they are taken apart."""

    CONTENT = 1
    """Repeating it would fail again."""
    DOUBTFUL = 3
    """A trigger, a right, a schema, a damaged index: it may be one message or everything."""
    PASSING = 8
    """A deadlock, a lock, a statement that took too long: nearly always it passes by itself."""
    ENVIRONMENT = 1 << 30
    """Never."""


# 22: data exception; 23: integrity; 54: program limit (a value too long for an index).
_CONTENT = frozenset({"22", "23", "54"})
# 08: connection; 25: transaction state (a read-only database); 28, 3D: log-in; 53: resources;
# 57: operator intervention (a server that stops); 58: system error, outside of PostgreSQL.
_ENVIRONMENT = frozenset({"08", "25", "28", "3D", "53", "57", "58"})
# 40: serialization, deadlock; 55: object in use, lock not available.
_PASSING = frozenset({"40", "55"})
_QUERY_CANCELED = "57014"
# Of one statement, not of the machine: TimescaleDB's limit on decompressed tuples, a temp file's.
_LIMIT_OF_A_STATEMENT = "53400"

_NO_THREAD = "can't start new thread"
_STEPS = {
    "08": "check that the database runs and can be reached",
    "25": "the database is read-only: point CHARGEWATCH_DATABASE_URL at the primary server",
    "28": "check user and password in CHARGEWATCH_DATABASE_URL",
    "3D": "check the name of the database in CHARGEWATCH_DATABASE_URL",
    "42": "run `chargewatch migrate`, then `chargewatch db roles`",
    "53": "give the database disk, memory or connections",
    "57": "the database stops or starts, or a statement takes too long: look at its log",
    "58": "look at the log and the disk of the database",
}


def blame_of(error: BaseException) -> Blame:
    """Return what an error of reading or writing messages says about them."""
    if isinstance(error, asyncpg.PostgresError):
        state = str(error.sqlstate or "")
        if state == _QUERY_CANCELED or state[:2] in _PASSING:
            return Blame.PASSING
        if state[:2] in _CONTENT:
            return Blame.CONTENT
        if state == _LIMIT_OF_A_STATEMENT:
            return Blame.DOUBTFUL  # half a batch may keep it
        return Blame.ENVIRONMENT if state[:2] in _ENVIRONMENT else Blame.DOUBTFUL
    # A value that does not fit its column is an InterfaceError and a ValueError to asyncpg;
    # others are about the connection, or about too many values.
    if isinstance(error, asyncpg.InterfaceError | asyncpg.InternalClientError):
        return Blame.CONTENT if isinstance(error, ValueError) else Blame.DOUBTFUL
    if isinstance(error, OSError | MemoryError | ChargewatchError):  # TimeoutError is an OSError
        return Blame.ENVIRONMENT
    if isinstance(error, RuntimeError) and _NO_THREAD in str(error):
        return Blame.ENVIRONMENT
    return Blame.CONTENT if isinstance(error, Exception) else Blame.ENVIRONMENT


def is_data_fault(error: BaseException) -> bool:
    """Return whether something failed because of its content: repeating it would fail again."""
    return blame_of(error) is Blame.CONTENT


def is_environment(error: BaseException) -> bool:
    """Return whether an error is never the fault of a message."""
    return blame_of(error) is Blame.ENVIRONMENT


def is_mapped(error: BaseException) -> bool:
    """Return whether it is known what an error says of database and environment.

    Any other is a fault of our own, and stays what it is.
    """
    database = asyncpg.PostgresError | asyncpg.InterfaceError | asyncpg.InternalClientError
    return isinstance(error, database) or is_environment(error)


def is_key_collision(error: BaseException) -> bool:
    """Return whether a row was there already that was expected to be new."""
    return isinstance(error, asyncpg.UniqueViolationError)


def kind_of(error: BaseException) -> str:
    """Return the kind of an error, without anything of what was written."""
    state = getattr(error, "sqlstate", None)
    return f"{type(error).__name__} {state}" if state else type(error).__name__


def in_words(error: BaseException) -> str:
    """Return an error in one line."""
    return f"{type(error).__name__}: {error}".replace("\n", " ").replace("\0", "")[:300]


def next_step(error: BaseException) -> str:
    """Return what can be done about an error of the environment."""
    if isinstance(error, asyncpg.PostgresError):
        state = str(error.sqlstate or "")[:2]
        return _STEPS.get(state, "look at the database's log")
    if isinstance(error, MemoryError) or _NO_THREAD in str(error):
        return "give this machine memory and threads"
    if isinstance(error, OSError | asyncpg.InterfaceError):
        return _STEPS["08"]
    return "nothing else can be written either: look at the log of ingest"
