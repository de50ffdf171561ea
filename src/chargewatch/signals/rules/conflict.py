"""The same key came with two values."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from chargewatch.domain.conflict import EVENT_STORED, READING_STORED, SESSION_STORED
from chargewatch.domain.signal import Severity
from chargewatch.domain.times import DAY_S, time_text
from chargewatch.signals.findings import MOST_RECORDS, Finding
from chargewatch.signals.rule import Check, Rule
from chargewatch.signals.stations import Conflicts

CODE = "conflict"


def find(conflicts: Conflicts) -> list[Finding]:
    """Return one finding an instrument and day with keys that came with two values."""
    groups: dict[tuple[str, int, int], list[Mapping[str, Any]]] = {}
    for conflict in conflicts.rows:
        key = (str(conflict["kind"]), int(conflict["row"]), int(conflict["at_s"] // DAY_S))
        groups.setdefault(key, []).append(conflict)
    return [
        Finding(
            code=CODE,
            kind=kind,
            row=row,
            day=day,
            first_s=min(float(item["at_s"]) for item in group),
            last_s=max(float(item["at_s"]) for item in group),
            count=len(group),
            value=float(len(group)),
            limit=0.0,
            detail=str(group[0]["detail"]),
            records=[
                {"quarantine_id": item["id"], "at": time_text(item["at_s"])}
                for item in group[:MOST_RECORDS]
            ],
        )
        for (kind, row, day), group in groups.items()
    ]


RULE = Rule(
    code=CODE,
    severity=Severity.MILD,
    title="Conflicting values",
    raised="the same key came with two values (from quarantine)",
    sentences=(READING_STORED, SESSION_STORED, EVENT_STORED),
    checks=(Check(Conflicts, find),),
)
