"""Which errors are put down to a message, and which never."""

from __future__ import annotations

import asyncpg
import pytest

from chargewatch.errors import DatabaseError
from chargewatch.storage.intake.faults import (
    Blame,
    blame_of,
    is_environment,
    is_mapped,
    kind_of,
    next_step,
)


def of_server(state: str) -> asyncpg.PostgresError:
    return asyncpg.PostgresError.new({"C": state, "M": "no", "S": "ERROR"})


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        RuntimeError("can't start new thread"),
        OSError(28, "No space left on device"),
        TimeoutError(),
        ConnectionResetError(),
        DatabaseError("another replay runs"),
        *map(of_server, ("08006", "25006", "28P01", "3D000", "53100", "53200", "57P01", "58030")),
    ],
    ids=kind_of,
)
def test_the_environment_is_never_put_down_to_a_message(error: Exception) -> None:
    assert is_environment(error)
    assert next_step(error)


@pytest.mark.parametrize(
    ("error", "blame"),
    [
        (RecursionError("maximum recursion depth exceeded"), Blame.CONTENT),
        (UnicodeEncodeError("utf-8", "x", 0, 1, "surrogate"), Blame.CONTENT),
        (OverflowError(), Blame.CONTENT),
        (KeyError("x"), Blame.CONTENT),
        (of_server("22P05"), Blame.CONTENT),
        (of_server("23514"), Blame.CONTENT),
        (of_server("54000"), Blame.CONTENT),
        (asyncpg.InterfaceError("the number of query arguments is too large"), Blame.DOUBTFUL),
        (of_server("42P01"), Blame.DOUBTFUL),
        (of_server("P0001"), Blame.DOUBTFUL),
        (of_server("XX001"), Blame.DOUBTFUL),
        (of_server("53400"), Blame.DOUBTFUL),
        (of_server("40P01"), Blame.PASSING),
        (of_server("55P03"), Blame.PASSING),
        (of_server("57014"), Blame.PASSING),
    ],
    ids=lambda value: kind_of(value) if isinstance(value, Exception) else value.name,
)
def test_other_errors_count_against_a_batch_sooner_or_later(error: Exception, blame: Blame) -> None:
    assert blame_of(error) is blame


@pytest.mark.parametrize("error", [KeyError("x"), TypeError(), RecursionError()], ids=kind_of)
def test_a_fault_of_our_own_is_none_of_database_or_environment(error: Exception) -> None:
    assert not is_mapped(error)
    assert is_mapped(of_server("42P01"))
    assert is_mapped(asyncpg.InterfaceError("connection is closed"))
    assert is_mapped(ConnectionResetError())
