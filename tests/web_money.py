"""Money owed of the small city whose pages are tested."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from chargewatch.storage import tables


def _owed(over: float, under: float, width: float = 0.0) -> dict[str, Any]:
    return {
        "overcharge_cny": over,
        "overcharge_low_cny": max(over - width, 0.0),
        "overcharge_high_cny": over + width,
        "undercharge_cny": under,
        "undercharge_low_cny": max(under - width, 0.0),
        "undercharge_high_cny": under + width,
        "energy_wh": 740_700.0,
        "paid_cny": 1_100.0,
    }


async def seed_money(
    connection: AsyncConnection, now: datetime, run_id: int, errors: list[float]
) -> None:
    """Two months: every pile by its error, one in twelve by its bills too, some not known."""
    this = now.date().replace(day=1)
    for month in (this, (this - timedelta(days=1)).replace(day=1)):
        begin = datetime(month.year, month.month, 1, tzinfo=UTC) - timedelta(hours=8)
        counted = {"counted_from": begin, "counted_to": min(begin + timedelta(days=28), now)}
        told = {"month": month, "run_id": run_id}
        await connection.execute(insert(tables.money_month).values(**told, **counted))
        rows, totals = [], dict[tuple[str, str], list[dict[str, Any]]]()
        for number, error in enumerate(errors):
            s = number // 10
            place = {
                "connector_id": number + 1,
                "operator_id": "OP1" if s % 3 else "OP2",
                "station_id": f"TJ{s + 1:04d}",
            }
            amounts = _owed(max(error, 0.0) * 1e4, max(-error, 0.0) * 1e4, 12.5)
            if math.isnan(error):
                amounts |= {name: math.nan for name in amounts if name.endswith("charge_cny")}
            share = error / (1 + error)
            by_error = {"cause": "error", "sessions": 60, "undelivered_share": share, **amounts}
            unknown = 60 if math.isnan(error) else 0
            rows.append({**told, **place, **by_error, "sessions_unknown": unknown})
            if number % 12 == 0:
                by_bills = {"cause": "billing", "sessions": 9, **_owed(31.5, 0.75)}
                rows.append(
                    {
                        **told,
                        **place,
                        **by_bills,
                        "sessions_unknown": 1,
                        "undelivered_share": math.nan,
                    }
                )
        for row in rows:
            for operator_id in (row["operator_id"], ""):
                totals.setdefault((operator_id, row["cause"]), []).append(row)
        await connection.execute(insert(tables.money_owed), rows)
        names = [*_owed(0, 0), "sessions", "sessions_unknown"]
        for (operator_id, cause), found in totals.items():
            sums = {name: sum(r[name] for r in found if r[name] == r[name]) for name in names}
            net = sums["overcharge_cny"] - sums["undercharge_cny"]
            await connection.execute(
                insert(tables.money_total).values(
                    **told,
                    **sums,
                    operator_id=operator_id,
                    cause=cause,
                    net_cny=net,
                    net_low_cny=net - 90,
                    net_high_cny=net + 90,
                    connectors=len(found),
                    connectors_unknown=sum(r["sessions_unknown"] > 0 for r in found),
                )
            )
