"""One step for many cases, many cases for many things: each with an audit entry of its own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime

from sqlalchemy.ext.asyncio import AsyncConnection

from chargewatch.storage.office import cases as rows
from chargewatch.supervision.audit import Actor
from chargewatch.supervision.cases.entries import tell
from chargewatch.supervision.cases.model import Case, CaseError, case_of
from chargewatch.supervision.cases.opening import Wanted, open_wanted
from chargewatch.supervision.cases.steps import StepName
from chargewatch.supervision.cases.working import StepRequest, take_step

MOST_AT_ONCE = 100
BULK_STEPS = (StepName.ASSIGN, StepName.DEADLINE)
"""Steps that can be taken for many cases: each outcome is somebody's own decision."""


@dataclass(kw_only=True)
class BulkResult:
    """What became of each: the cases that were changed, and why others were not."""

    done: list[Case] = field(default_factory=list)
    refused: dict[str, str] = field(default_factory=dict)


def _check_count(count: int) -> None:
    if not count:
        raise CaseError("nothing is chosen: tick what you mean")
    if count > MOST_AT_ONCE:
        raise CaseError(f"{count} are chosen: {MOST_AT_ONCE} at once are the most")


async def step_many(
    connection: AsyncConnection,
    actor: Actor,
    numbers: Sequence[str],
    wanted: StepRequest,
    *,
    now: datetime,
) -> BulkResult:
    """Take a step for each of several cases; what one refuses the others don't feel.

    Raises: CaseError for nothing, for too many, or a step that is taken one by one only.
    """
    numbers = list(dict.fromkeys(numbers))
    _check_count(len(numbers))
    if wanted.step not in BULK_STEPS:
        raise CaseError(f"{wanted.step} is taken case by case; at once: {', '.join(BULK_STEPS)}")
    result = BulkResult()
    told = []
    held = {row["number"]: case_of(row) for row in await rows.hold_cases(connection, numbers)}
    for number in numbers:
        case = held.get(number)
        if case is None:
            result.refused[number] = f"no case {number!r}"
            continue
        try:
            written, more = await take_step(connection, case, actor, wanted, now=now)
        except CaseError as exc:
            # Whatever it refuses, it refuses before it writes.
            result.refused[number] = str(exc)
            continue
        result.done.append(written.case)
        told.append(more)
    await tell(connection, actor, told, now=now)
    return result


async def open_many(
    connection: AsyncConnection, actor: Actor, wanted: Sequence[Wanted], *, now: datetime
) -> list[Case]:
    """Open a case for each of several things, or find the open one; return them in order.

    Raises: CaseError for nothing or too many, or for what is wrong with one of them.
    """
    _check_count(len(wanted))
    cases, told = await open_wanted(connection, actor, wanted, now=now)
    await tell(connection, actor, told, now=now)
    return cases
