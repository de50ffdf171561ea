"""What anybody may know of an operator: its published grade and its published commitments."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy.ext.asyncio import AsyncConnection

from chargewatch.storage.office import credit as rows

_GRADE = ("month", "grade", "score", "revision", "rule_version")
_COMMITMENT = ("text", "made_on", "until", "kept", "decided_on", "why")


async def public_page(
    connection: AsyncConnection, *, after: str, limit: int
) -> tuple[list[dict[str, Any]], str | None]:
    """Return operators with grade and commitments, and the identifier to go on after, if any.

    Args:
        connection: with the tables.
        after: "" or the last identifier of the page before.
        limit: operators at most.
    """
    found = await rows.public_operators(connection, after=after, limit=limit + 1)
    shown = found[:limit]
    told = await _told(connection, shown)
    return told, shown[-1]["operator_id"] if len(found) > limit else None


async def public_grade(connection: AsyncConnection, operator_id: str) -> dict[str, Any] | None:
    """Return what the public page of a pile says of its operator; None for one nobody knows.

    `grade` is None before the first month is published, `grade["grade"]` where too little is known.
    """
    operator = await rows.operator_row(connection, operator_id)
    if operator is None:
        return None
    newest = await rows.published(connection, operator_id)
    row: dict[str, Any] = {"operator_id": operator_id, "name": operator["name"]}
    for name in _GRADE:
        row[name] = None if newest is None or name == "rule_version" else newest[name]
    if newest is not None:
        row["rule_version"] = newest["arithmetic"]["rules"]["version"]
    return (await _told(connection, [row]))[0]


async def _told(
    connection: AsyncConnection, found: Sequence[Mapping[Any, Any]]
) -> list[dict[str, Any]]:
    promised = await rows.public_commitments(connection, [row["operator_id"] for row in found])
    return [
        {
            "operator_id": row["operator_id"],
            "name": row["name"],
            "grade": None
            if row["month"] is None
            else {name: row[name] for name in _GRADE}
            | {
                "month": f"{row['month']:%Y-%m}",
                "score": None if row["score"] is None else str(row["score"]),
            },
            "commitments": [
                {name: one[name] for name in _COMMITMENT}
                for one in promised
                if one["operator_id"] == row["operator_id"]
            ],
        }
        for row in found
    ]
