"""Counting what became of flags, and the figures of it.

Precision: of the flags that a verification decided, how many were right. It holds for what was
inspected, and who inspects goes where flags are. Recall: of what verifications found nonconforming,
how much stood flagged before. Only the uniform part of inspection draws is a random sample of the
piles, so only its recall holds for the city; the others find what was suspected.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, time, timedelta
from typing import Any
from zoneinfo import ZoneInfo

from sqlalchemy.ext.asyncio import AsyncConnection

from chargewatch.storage.office import outcomes as rows
from chargewatch.supervision.outcomes.figures import CountedShare, Delay, delay_of, share_of

MOST_FLAGS = 100_000
"""Flags whose delays are read; the newest."""
OUTCOMES = ("hit", "miss", "undecided")
UNIFORM = "uniform"


@dataclass(frozen=True, kw_only=True)
class Figures:
    """How good flags are.

    Attributes:
        flags: how many there are by outcome.
        precision: by tier, "all" among them.
        recall: of all verifications that found nonconforming; uniform_recall: of those that the
            uniform part of draws found.
        detection: from the dated day of a change to the flag; waiting are those that verifications
            found without one.
        verification: from the flag to its verification; waiting are flags that nobody verified.
    """

    flags: Mapping[str, int]
    precision: Mapping[str, CountedShare]
    recall: CountedShare
    uniform_recall: CountedShare
    detection: Delay
    verification: Delay


async def count_outcomes(
    connection: AsyncConnection, *, zone: ZoneInfo, connector_id: int | None = None
) -> int:
    """Make the outcomes of all flags anew, or of one connector's; return how many flags there are.

    From runs and verifications alone: counted again it is the same.
    """
    return await rows.count(connection, zone=zone.key, connector_id=connector_id)


def precision_of(counts: Iterable[Mapping[Any, Any]]) -> dict[str, CountedShare]:
    """Return the precision of red, orange and all flags, from rows of tier, outcome and flags."""
    sums = {tier: dict.fromkeys(OUTCOMES, 0) for tier in ("all", "red", "orange")}
    for row in counts:
        for tier in ("all", row["tier"]):
            sums[tier][row["outcome"]] += row["flags"]
    return {tier: share_of(of["hit"], of["hit"] + of["miss"]) for tier, of in sums.items()}


def recall_of(found: Sequence[Mapping[Any, Any]], *, part: str | None = None) -> CountedShare:
    """Return how much of what was nonconforming stood flagged, in one part of draws or in all."""
    mine = [row for row in found if part is None or row["part"] == part]
    return share_of(sum(bool(row["flagged"]) for row in mine), len(mine))


def _days(later: datetime, earlier: datetime) -> float:
    return max(0.0, (later - earlier) / timedelta(days=1))


def detection_of(
    flags: Sequence[Mapping[Any, Any]], found: Sequence[Mapping[Any, Any]], *, zone: ZoneInfo
) -> Delay:
    """Return the delay from the dated day of a change to its flag.

    Over: of flags that were right. Not over: of verifications that found a pile nonconforming whose
    change a run had dated, and that no flag stood for.
    """
    days = [row["delay_days"] for row in flags if row["outcome"] == "hit"]
    times = [day for day in days if day is not None]
    over = [True] * len(times)
    for row in found:
        if not row["flagged"] and row["changed_at"] is not None:
            on = datetime.combine(row["verified_on"], time(), zone)
            times.append(_days(on, row["changed_at"]))
            over.append(False)
    return delay_of(times, over)


def verification_of(flags: Sequence[Mapping[Any, Any]], *, zone: ZoneInfo, now: datetime) -> Delay:
    """Return the delay from a flag to its verification."""
    times, over = [], []
    for row in flags:
        on = row["verified_on"]
        end = now if on is None else datetime.combine(on, time(), zone)
        times.append(_days(end, row["flagged_at"]))
        over.append(on is not None)
    return delay_of(times, over)


async def read_figures(
    connection: AsyncConnection, *, scope: str | None, zone: ZoneInfo, now: datetime
) -> Figures:
    """Return the figures of all flags, or of one operator's."""
    counts = await rows.figures(connection, scope=scope)
    found = await rows.found_nonconforming(connection, zone=zone.key, scope=scope)
    flags = await rows.waited(connection, scope=scope, limit=MOST_FLAGS)
    by_outcome = dict.fromkeys(OUTCOMES, 0)
    for row in counts:
        by_outcome[row["outcome"]] += row["flags"]
    return Figures(
        flags=by_outcome,
        precision=precision_of(counts),
        recall=recall_of(found),
        uniform_recall=recall_of(found, part=UNIFORM),
        detection=detection_of(flags, found, zone=zone),
        verification=verification_of(flags, zone=zone, now=now),
    )
