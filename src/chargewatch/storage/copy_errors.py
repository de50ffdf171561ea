"""Which database errors pass by themselves and which are the fault of what was written."""

from __future__ import annotations

import asyncpg

from chargewatch.errors import ChargewatchError

# Class 22: data exception; 23: integrity; 54: program limit (a value too long for an index).
_DATA_CLASSES = ("22", "23", "54")


def is_data_fault(error: Exception) -> bool:
    """Return whether a batch failed because of its content: repeating it would fail again."""
    if isinstance(error, asyncpg.PostgresError):
        return str(error.sqlstate or "")[:2] in _DATA_CLASSES
    # asyncpg's DataError, a value that does not fit its column, is an InterfaceError and a
    # ValueError; other interface errors are about the connection.
    if isinstance(error, asyncpg.InterfaceError):
        return isinstance(error, ValueError)
    return not isinstance(error, OSError | TimeoutError | MemoryError | ChargewatchError)


def is_key_collision(error: BaseException) -> bool:
    """Return whether a row was there already that was expected to be new."""
    return isinstance(error, asyncpg.UniqueViolationError)


def in_words(error: BaseException) -> str:
    """Return an error in one line."""
    return f"{type(error).__name__}: {error}".replace("\n", " ").replace("\0", "")[:300]
