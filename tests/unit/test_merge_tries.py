"""A step of a merge that the database ended for a deadlock is done again, and nothing else is."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import Any

import pytest
from sqlalchemy.exc import DBAPIError

from chargewatch.storage import registry as sql
from chargewatch.storage import tables
from chargewatch.supervision.registry import MERGE_TRIES, _merged_some


class Connection:
    def __init__(self) -> None:
        self.begun = 0

    @asynccontextmanager
    async def begin(self) -> Any:
        self.begun += 1
        yield self


def ended(state: str) -> DBAPIError:
    """Return the error of a statement that the database ended with a state."""
    cause = Exception("ended")
    cause.sqlstate = state  # type: ignore[attr-defined]
    return DBAPIError("SELECT 1", {}, cause)


@pytest.mark.parametrize(
    ("state", "failures", "begun"),
    [("40P01", 2, 3), ("40P01", MERGE_TRIES, MERGE_TRIES), ("57014", 1, 1)],
)
async def test_only_a_deadlock_is_tried_again(
    monkeypatch: pytest.MonkeyPatch, state: str, failures: int, begun: int
) -> None:
    connection, left = Connection(), failures

    async def merge_some(*_: Any, **__: Any) -> bool:
        nonlocal left
        left -= 1
        if left >= 0:
            raise ended(state)
        return True

    monkeypatch.setattr(sql, "merge_some", merge_some)
    step = _merged_some(connection, tables.connector, claim=1, into=2)  # type: ignore[arg-type]
    if begun > failures:
        assert await step is True
    else:
        with pytest.raises(DBAPIError):
            await step
    assert connection.begun == begun
