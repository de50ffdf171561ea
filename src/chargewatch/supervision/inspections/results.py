"""What came of inspections: results, cancelled ones, and what they say of an operator's piles."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any

from sqlalchemy import RowMapping
from sqlalchemy.ext.asyncio import AsyncConnection

from chargewatch.draws.frame import DrawError, listed_name
from chargewatch.draws.sequential import CONFORMING_SHARE, Stand, stand
from chargewatch.draws.tickets import uniform_order
from chargewatch.errors import ChargewatchError, NotFoundError
from chargewatch.storage.office import draws as draw_rows
from chargewatch.storage.office import inspections as rows
from chargewatch.supervision.audit import Action, Actor, record


class InspectionError(ChargewatchError):
    """An inspection can't be planned, ended or cancelled as asked."""


@dataclass(frozen=True, kw_only=True)
class OperatorStand:
    """What a draw's results so far say of one operator's piles, or of the whole list."""

    operator_id: str  # "" for the whole list
    lot: int  # its piles in the list
    drawn: int  # of its piles, in the uniform part
    stand: Stand


async def _planned(connection: AsyncConnection, inspection_id: int) -> RowMapping:
    """Return a planned inspection, its draw and itself locked, in this order."""
    known = await rows.inspection_of(connection, inspection_id)
    if known is None:
        raise NotFoundError(f"no inspection {inspection_id}: see the list of inspections")
    if known["draw_id"] is not None:
        await draw_rows.lock_draw(connection, known["draw_id"])
    found = await rows.lock_inspection(connection, inspection_id)
    if found is None or found["state"] != "planned":
        state = "gone" if found is None else found["state"]
        raise InspectionError(f"inspection {inspection_id} is {state} already")
    return found


async def _end_draw(connection: AsyncConnection, draw_id: str | None) -> bool:
    """Note that a draw is done when nothing of it is planned any more; return whether it is."""
    if draw_id is None or await rows.any_planned(connection, draw_id):
        return False
    await draw_rows.update_draw(connection, draw_id, {"state": "done"})
    return True


async def record_result(
    connection: AsyncConnection,
    actor: Actor,
    inspection_id: int,
    verification_id: int,
    result: str,
    now: datetime,
) -> None:
    """Keep what a planned inspection found, as the last thing of a transaction.

    Args:
        connection: in the transaction that enters the verification.
        actor: who enters it.
        inspection_id: a planned inspection.
        verification_id: of the same connector.
        result: "pass" or "fail", as the verification has it.
        now: when it is entered.

    Raises: NotFoundError; InspectionError for one that has ended, or a verification of another
        connector or result.
    """
    wanted = await _planned(connection, inspection_id)
    found = await rows.verification(connection, verification_id)
    if found is None:
        raise NotFoundError(f"no verification {verification_id}")
    same = all(found[key] == wanted[key] for key in ("connector", "operator_id", "station_id"))
    if not same:
        raise InspectionError(
            f"verification {verification_id} is of {found['connector']}, inspection "
            f"{inspection_id} of {wanted['connector']}"
        )
    if found["result"] != result:
        raise InspectionError(
            f"verification {verification_id} says {found['result']}, not {result}"
        )
    await rows.set_result(
        connection,
        inspection_id,
        result=result,
        done_on=found["verified_on"],
        verification_id=verification_id,
    )
    done = await _end_draw(connection, wanted["draw_id"])
    await record(
        connection,
        actor,
        Action.INSPECTION_DONE,
        f"inspection:{inspection_id}",
        at=now,
        draw=wanted["draw_id"],
        connector=wanted["connector"],
        operator_id=wanted["operator_id"],
        result=result,
        verification_id=verification_id,
        draw_done=done,
    )


async def result_of_verification(
    connection: AsyncConnection,
    actor: Actor,
    inspection_id: int,
    verification_id: int,
    now: datetime,
) -> str:
    """Keep a verification that is in the registry as what an inspection found; return its result.

    Raises: as `record_result`; InspectionError also for one from before the inspection was planned.
    """
    found = await rows.verification(connection, verification_id)
    if found is None:
        raise NotFoundError(f"no verification {verification_id}")
    planned = await rows.inspection_of(connection, inspection_id)
    if planned is not None and found["verified_on"] < planned["planned_at"].date():
        raise InspectionError(
            f"verification {verification_id} is of {found['verified_on']}, before inspection "
            f"{inspection_id} was planned"
        )
    result = str(found["result"])
    await record_result(connection, actor, inspection_id, verification_id, result, now)
    return result


async def cancel_inspection(
    connection: AsyncConnection, actor: Actor, inspection_id: int, *, why: str, now: datetime
) -> None:
    """Cancel a planned inspection for a reason, which is public with the draw.

    Raises: NotFoundError; InspectionError for one that has ended, or no reason.
    """
    told = " ".join(why.split())
    if not 0 < len(told) <= 500:
        raise InspectionError("say in 1 to 500 characters why the inspection is cancelled")
    wanted = await _planned(connection, inspection_id)
    await rows.cancel(connection, inspection_id, why=told)
    done = await _end_draw(connection, wanted["draw_id"])
    await record(
        connection,
        actor,
        Action.INSPECTION_CANCELLED,
        f"inspection:{inspection_id}",
        at=now,
        why=told,
        draw=wanted["draw_id"],
        connector=wanted["connector"],
        draw_done=done,
    )


async def plan_inspection(
    connection: AsyncConnection,
    actor: Actor,
    *,
    case_id: int,
    connector: str,
    station_id: str,
    operator_id: str,
    inspectors: Sequence[str],
    due_on: date,
    now: datetime,
) -> int:
    """Plan an inspection for a case and return its number, as the last thing of a transaction.

    Raises: InspectionError for inspectors that there aren't, or that are recused.
    """
    known = {one["name"]: one for one in await draw_rows.active_inspectors(connection)}
    if not inspectors:
        raise InspectionError("an inspection needs at least one inspector")
    for name in inspectors:
        if name not in known:
            raise InspectionError(f"no active inspector {name!r}: add it to the registry first")
        if operator_id in (known[name]["recused_operators"] or ()):
            raise InspectionError(f"{name} is recused from {operator_id}: choose another inspector")
    inspection_id = await rows.insert_inspection(
        connection,
        {
            "case_id": case_id,
            "connector": connector,
            "station_id": station_id,
            "operator_id": operator_id,
            "inspector": inspectors[0],
            "crew": list(inspectors),
            "part": "case",
            "planned_at": now,
            "due_on": due_on,
            "state": "planned",
        },
    )
    await record(
        connection,
        actor,
        Action.INSPECTION_PLANNED,
        f"inspection:{inspection_id}",
        at=now,
        case_id=case_id,
        connector=connector,
        operator_id=operator_id,
        inspectors=list(inspectors),
        due_on=due_on.isoformat(),
    )
    return inspection_id


async def plan_for_case(
    connection: AsyncConnection,
    actor: Actor,
    number: str,
    *,
    inspectors: Sequence[str],
    due_on: date,
    now: datetime,
) -> int:
    """Plan an inspection for an open case about a connector; return the inspection's number.

    Raises: NotFoundError; InspectionError for a case that is closed or about something else, and
        as `plan_inspection`.
    """
    case = await rows.case_by_number(connection, number)
    if case is None:
        raise NotFoundError(f"no case {number!r}: see the list of cases")
    if case["state"] == "closed" or case["connector"] is None:
        what = "closed" if case["state"] == "closed" else "not about one connector"
        raise InspectionError(f"case {number} is {what}: nothing is inspected for it")
    return await plan_inspection(
        connection,
        actor,
        case_id=case["case_id"],
        connector=case["connector"],
        station_id=case["station_id"],
        operator_id=case["operator_id"],
        inspectors=inspectors,
        due_on=due_on,
        now=now,
    )


def _known_results(found: Sequence[Mapping[Any, Any]]) -> list[bool | None]:
    """Return the results that count: in the order of the tickets, up to the first that is open."""
    results: list[bool | None] = []
    for row in sorted(found, key=lambda o: uniform_order(listed_name(o["connector"]), o["ticket"])):
        if row["state"] == "planned":
            break
        results.append(None if row["state"] == "cancelled" else row["result"] == "fail")
    return results


def stands(
    found: Sequence[Mapping[Any, Any]],
    lots: Mapping[str, int],
    *,
    conforming: float = CONFORMING_SHARE,
) -> list[OperatorStand]:
    """Return what the results of a draw say so far: of the whole list first, then by operator.

    An operator's piles in the uniform part, in the order of their tickets, are a simple random
    sample of its piles in the list: the same test holds for it alone. What was cancelled counts
    against either decision.

    Args:
        found: the inspections of the draw's uniform part.
        lots: piles in the list by operator.
        conforming: share that the claim says conforms.

    Raises: DrawError for a share that can't be.
    """
    if not lots:
        raise DrawError("a draw's list has piles")
    whole = OperatorStand(
        operator_id="",
        lot=sum(lots.values()),
        drawn=len(found),
        stand=stand(_known_results(found), lot=sum(lots.values()), conforming=conforming),
    )
    out = [whole]
    for operator_id, lot in lots.items():
        own = [row for row in found if row["operator_id"] == operator_id]
        out.append(
            OperatorStand(
                operator_id=operator_id,
                lot=lot,
                drawn=len(own),
                stand=stand(_known_results(own), lot=lot, conforming=conforming),
            )
        )
    return out
