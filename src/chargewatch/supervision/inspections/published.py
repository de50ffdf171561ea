"""What everybody may see of a draw, and when: the hash first, the throws next, the list last."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date
from typing import Any

from sqlalchemy.ext.asyncio import AsyncConnection

from chargewatch.errors import NotFoundError
from chargewatch.storage.office import draws as rows
from chargewatch.storage.office import inspections as inspection_rows
from chargewatch.supervision.inspections.draw_state import is_open

_TOLD = (
    "draw_id",
    "state",
    "list_sha256",
    "piles",
    "size",
    "crew",
    "published_at",
    "beacon_source",
    "drawn_at",
    "opens_on",
    "withdrawn_at",
    "withdrawn_why",
)


def told_draw(draw: Mapping[Any, Any], today: date) -> dict[str, Any]:
    """Return what of a draw's row is public."""
    return {
        **{name: draw[name] for name in _TOLD},
        "uniform_share": float(draw["uniform_share"]),
        "time_stamped": draw["timestamp_token"] is not None,
        "open": is_open(draw, today),
    }


async def public_draws(
    connection: AsyncConnection, *, today: date, limit: int
) -> list[dict[str, Any]]:
    """Return the newest draws whose hash was published, with how many passed and failed."""
    return [
        told_draw(row, today) | {name: row[name] for name in ("inspections", "passed", "failed")}
        for row in await rows.draws(connection, limit=limit, public=True)
    ]


async def public_row(connection: AsyncConnection, draw_id: str) -> Mapping[Any, Any]:
    """Return a draw whose hash was published.

    Raises: NotFoundError for all others, whether there are any or not.
    """
    found = await rows.draw(connection, draw_id)
    if found is None or found["published_at"] is None:
        raise NotFoundError(f"no published draw {draw_id!r}: see the list of draws")
    return found


async def told_throws(connection: AsyncConnection, draw: Mapping[Any, Any]) -> list[dict[str, Any]]:
    """Return who has thrown, and what, once the draw is drawn: nobody sees a throw before."""
    drawn = draw["drawn_at"] is not None
    return [
        {
            "witness": one["witness"],
            "at": one["at"],
            "dice": len(one["digits"]),
            "digits": one["digits"] if drawn else None,
        }
        for one in await rows.throws(connection, draw["draw_id"])
    ]


async def public_results(
    connection: AsyncConnection, draw_id: str, *, limit: int, after: int = 0
) -> list[dict[str, Any]]:
    """Return the inspections of a draw that were made, by their rank, and nothing of the others."""
    names = ("rank", "connector", "station_id", "operator_id", "crew", "done_on", "result")
    found = await inspection_rows.of_draw(
        connection, draw_id, limit=limit, after=after, done_only=True
    )
    return [{name: row[name] for name in names} for row in found]


def public_operators(sums: Sequence[Mapping[Any, Any]], *, whole: bool) -> list[dict[str, Any]]:
    """Return results by operator; those of whom nothing was inspected yet only in a whole draw."""
    return [
        {
            "operator_id": row["operator_id"],
            "name": row["name"],
            "inspected": row["passed"] + row["failed"],
            "passed": row["passed"],
            "failed": row["failed"],
        }
        for row in sums
        if whole or row["passed"] + row["failed"]
    ]
