"""What the database takes at most: the same rows by binary COPY through a staging table."""

from __future__ import annotations

import time
from datetime import UTC
from typing import Any

import numpy as np

from chargewatch.benches.ingest_publisher import STEP_S, Load
from chargewatch.benches.scratch import scratch_connection, staged_copy
from chargewatch.storage.bulk import Records, encode_records
from chargewatch.storage.intake.readings import REGISTERS


def _rows(load: Load, ids: np.ndarray[Any, np.dtype[np.int32]], round_number: int) -> Records:
    """Return the readings of one round of messages of all stations, in order of publication."""
    instants = load.instants
    step = np.tile(np.repeat(np.arange(instants), load.connectors), load.stations)
    instant = round_number * instants + step
    place = np.tile(np.arange(load.connectors), load.stations * instants)
    station = np.repeat(np.arange(load.stations), instants * load.connectors)
    rows = np.zeros(len(step), dtype=REGISTERS.row)
    begin_us = int(load.begin.replace(tzinfo=UTC).timestamp()) * 1_000_000 - 28_800_000_000
    rows["at"] = (begin_us + instant * STEP_S * 1_000_000).astype("M8[us]")
    rows["connector_id"] = ids[station * load.connectors + place]
    rows["energy_wh"] = 1_000_000 + instant * 29 + place
    rows["power_w"], rows["voltage_v"], rows["current_a"] = 6980.0, 231.2, 30.2
    rows["soc_pct"] = 54
    rows["session_key"] = station * 1_000_003 + place
    return rows


async def copy_limit(url: str, load: Load, *, seconds: float, batch: int) -> dict[str, Any]:
    """Return the rate of staged binary COPY, readings/s; encoding is not in its time."""
    ids = np.arange(1, load.stations * load.connectors + 1, dtype=np.int32)
    connection = await scratch_connection(url)
    stored, busy_s, round_number, first = 0, 0.0, 0, True
    try:
        while busy_s < seconds:
            rows = _rows(load, ids, round_number)
            round_number += 1
            for start in range(0, len(rows), batch):
                content = encode_records(rows[start : start + batch])
                begun = time.monotonic()
                await staged_copy(connection, content, create=first)
                busy_s += time.monotonic() - begun
                stored += min(batch, len(rows) - start)
                first = False
    finally:
        await connection.close(timeout=10)
    return {"readings_per_s": round(stored / busy_s), "batch": batch, "seconds": round(busy_s, 1)}
