"""Rejected bytes and their reasons."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

import asyncpg

from chargewatch.storage.copy import COMMAND_TIMEOUT_S


@dataclass(frozen=True, slots=True)
class QuarantineRow:
    """One rejected message (item_index None) or one rejected item of it."""

    received_at: datetime
    topic: str
    operator_id: str | None
    station_id: str | None
    seq: int | None
    code: str
    item_index: int | None
    detail: str
    payload: bytes
    content_type: str | None


_COLUMNS = tuple(QuarantineRow.__slots__)


async def store_quarantine(connection: asyncpg.Connection, rows: Sequence[QuarantineRow]) -> None:
    """Keep rejected messages and items."""
    if not rows:
        return
    await connection.copy_records_to_table(
        "quarantine",
        records=[tuple(getattr(row, column) for column in _COLUMNS) for row in rows],
        columns=list(_COLUMNS),
        timeout=COMMAND_TIMEOUT_S,
    )
