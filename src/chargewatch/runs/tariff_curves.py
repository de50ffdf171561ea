"""Registered tariffs as curves over the window of a run, one for each operator and station."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import asyncpg
import numpy as np

from chargewatch.domain.arrays import Ints
from chargewatch.domain.times import DAY_S
from chargewatch.runs.load import Loaded
from chargewatch.signals.money import TariffCurve, day_periods, local_midnights, tariff_curve
from chargewatch.storage.runs import inputs as store


async def load_curves(
    connection: asyncpg.Connection,
    loaded: Loaded,
    first: datetime,
    as_of: datetime,
    *,
    zone: ZoneInfo,
) -> tuple[list[TariffCurve], Ints]:
    """Return curves of registered prices, and the curve of each connector (-1: none).

    A station's own tariff goes before its operator's.
    """
    rows = await store.rows(connection, store.TARIFFS, as_of=as_of)
    groups: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for row in rows:
        groups.setdefault((row["operator_id"], row["station_id"]), []).append(
            {
                "valid_from_s": row["valid_from"].astimezone(UTC).timestamp(),
                "periods": day_periods(row["periods"]),
            }
        )
    # A session may have begun days before the window.
    begin = first - timedelta(days=3)
    midnights = local_midnights(begin, as_of + timedelta(days=1), zone)
    numbers = {place: number for number, place in enumerate(sorted(groups))}
    curves = [
        tariff_curve(
            groups[place],
            from_s=begin.timestamp(),
            to_s=as_of.timestamp() + DAY_S,
            midnights_s=midnights,
            zone=zone,
        )
        for place in sorted(groups)
    ]
    curve_of = [
        numbers.get(
            (row["operator_id"], row["station_id"]), numbers.get((row["operator_id"], ""), -1)
        )
        for row in loaded.registry.connectors
    ]
    return curves, np.array(curve_of, np.int64)
