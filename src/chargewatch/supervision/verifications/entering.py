"""Entering and withdrawing verifications; one that was entered is never changed."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import date, datetime
from typing import Any
from zoneinfo import ZoneInfo

from sqlalchemy.ext.asyncio import AsyncConnection

from chargewatch.domain.mpe import RuleSet
from chargewatch.errors import ChargewatchError, NotFoundError
from chargewatch.storage.office import verifications as rows
from chargewatch.storage.office.inspections import inspection_of
from chargewatch.storage.pages import pile as pile_rows
from chargewatch.storage.pile_index import driver_of, rebuild
from chargewatch.supervision.audit import Action, Actor, record
from chargewatch.supervision.cases.entries import write_entry
from chargewatch.supervision.cases.model import EntryKind
from chargewatch.supervision.cases.working import held_case
from chargewatch.supervision.inspections.results import record_result
from chargewatch.supervision.outcomes.count import count_outcomes
from chargewatch.supervision.verifications.decision import RULE, VerificationResult
from chargewatch.supervision.verifications.judge import (
    Judged,
    JudgedPoint,
    NewVerification,
    judge,
)

EARLIEST_DAY = date(2000, 1, 1)
LEAST_WHY, MOST_WHY = 3, 1000
LONGEST_FIELD = 200


class VerificationError(ChargewatchError):
    """A verification can't be entered or withdrawn as asked."""


@dataclass(frozen=True, kw_only=True)
class Place:
    """Which connector is meant, where several operators or stations claim its name."""

    connector: str
    station_id: str | None = None
    operator_id: str | None = None


async def instrument_of(connection: AsyncConnection, place: Place) -> Mapping[Any, Any]:
    """Return the registered connector of a name.

    Raises: NotFoundError; VerificationError when nobody registered it.
    """
    found = await pile_rows.pile(
        connection,
        place.connector,
        scope=None,
        station_id=place.station_id,
        operator_id=place.operator_id,
    )
    if found is None:
        raise NotFoundError(f"no connector {place.connector!r}: look at its plate again")
    if not found["registered"]:
        raise VerificationError(
            f"{place.connector} is not registered: enter it in the registry, then its verification"
        )
    return dict(found)


def require_text(name: str, text: str) -> None:
    """Refuse text that no database keeps.

    Raises: VerificationError that names it.
    """
    if any(c == "\0" or "\ud800" <= c <= "\udfff" for c in text):
        raise VerificationError(f"{name} has a character that is none: NUL or half of one")


def _check_texts(place: Place, new: NewVerification) -> None:
    texts = {name: getattr(new, name) for name in ("certificate", "institute", "note")}
    texts |= {name: value or "" for name, value in vars(place).items()}
    texts |= {f"load {k}": point.load for k, point in enumerate(new.points, start=1)}
    texts["the reference's name"] = "" if new.reference is None else new.reference.name
    for name, told in texts.items():
        require_text(name, told)
    for name in ("certificate", "institute"):
        if len(getattr(new, name)) > LONGEST_FIELD:
            raise VerificationError(f"{name} has more than {LONGEST_FIELD} characters")
    if len(new.note) > MOST_WHY:
        raise VerificationError(f"note has more than {MOST_WHY} characters")
    if new.reference is not None and len(new.reference.name) > LONGEST_FIELD:
        raise VerificationError(f"the reference's name has more than {LONGEST_FIELD} characters")


async def _check_links(
    connection: AsyncConnection, instrument: Mapping[Any, Any], new: NewVerification
) -> None:
    if new.inspection_id is not None:
        found = await inspection_of(connection, new.inspection_id)
        if found is None:
            raise VerificationError(f"no inspection {new.inspection_id}")
        if (found["connector"], found["operator_id"]) != (
            instrument["connector"],
            instrument["operator_id"],
        ):
            raise VerificationError(
                f"inspection {new.inspection_id} is of {found['connector']}, not of "
                f"{instrument['connector']}"
            )
        if found["state"] != "planned":
            raise VerificationError(f"inspection {new.inspection_id} is {found['state']} already")
    if new.case_id is not None:
        case = await rows.case(connection, new.case_id)
        if case is None:
            raise VerificationError(f"no case {new.case_id}")
        if case["operator_id"] != instrument["operator_id"] or case["connector"] not in (
            None,
            instrument["connector"],
        ):
            raise VerificationError(f"case {case['number']} is not about {instrument['connector']}")


def _point_row(point: JudgedPoint, new: NewVerification) -> dict[str, Any]:
    result, limit = point.result, point.limit
    detail: dict[str, Any] = {
        "repetitions": [[r.indicated_wh, r.reference_wh] for r in point.point.repetitions],
        "budget": [
            asdict(each)
            | {
                "degrees_of_freedom": each.degrees_of_freedom
                if math.isfinite(each.degrees_of_freedom)
                else None
            }
            for each in result.components
        ],
        "degrees_of_freedom": result.degrees_of_freedom
        if math.isfinite(result.degrees_of_freedom)
        else None,
        "no_limit": point.no_limit,
    }
    if new.reference is not None and point.point.repetitions:
        detail["reference"] = asdict(new.reference)
    return {
        "load": point.point.load,
        "current_a": point.point.current_a,
        "power_w": point.point.power_w,
        "relative_error": result.relative_error,
        "expanded_uncertainty": result.expanded_uncertainty,
        "coverage_factor": result.coverage_factor,
        "limit": None if limit is None else limit.limit,
        "basis": None if limit is None else limit.basis,
        "clause": None if limit is None else limit.clause,
        "verdict": point.verdict.value,
        "detail": json.dumps(detail),
    }


def _row(
    instrument: Mapping[Any, Any],
    new: NewVerification,
    judged: Judged,
    *,
    rules: RuleSet,
    actor: Actor,
    now: datetime,
) -> dict[str, Any]:
    anchor = judged.anchor
    return {
        "connector_id": instrument["connector_id"],
        "verified_on": new.verified_on,
        "valid_until": judged.valid_until,
        "result": judged.result.value,
        "relative_error": None if anchor is None else anchor.relative_error,
        "expanded_uncertainty": None if anchor is None else anchor.expanded_uncertainty,
        "coverage_factor": None if anchor is None else anchor.coverage_factor,
        "certificate": new.certificate,
        "institute": new.institute or None,
        "kind": new.kind,
        "rule_set": rules.name,
        "decision_rule": RULE,
        "reference": None if new.reference is None else new.reference.name,
        "note": new.note or None,
        "file_id": new.file_id,
        "inspection_id": new.inspection_id,
        "case_id": new.case_id,
        "entered_at": now,
        "entered_by": actor.name,
    }


async def enter_verification(
    connection: AsyncConnection,
    actor: Actor,
    place: Place,
    new: NewVerification,
    *,
    rules: RuleSet,
    now: datetime,
    zone: ZoneInfo,
) -> int:
    """Judge a verification and keep it; return its verification_id.

    In the caller's transaction, as its last step. It is an anchor from the next run on, decides
    flags that stood before it, and ends the inspection that it was made for.

    Raises: NotFoundError, VerificationError, MeasurementError: each says what to do.
    """
    _check_texts(place, new)
    instrument = await instrument_of(connection, place)
    today = now.astimezone(zone).date()
    if not EARLIEST_DAY <= new.verified_on <= today:
        raise VerificationError(
            f"verified_on {new.verified_on}: a day from {EARLIEST_DAY} to today, {today}"
        )
    judged = judge(new, instrument, rules)
    await _check_links(connection, instrument, new)
    connector_id = instrument["connector_id"]
    there = await rows.standing(
        connection, connector_id, verified_on=new.verified_on, certificate=new.certificate
    )
    if there is not None:
        raise VerificationError(
            f"{place.connector} has a verification of {new.verified_on} with this certificate "
            f"already, number {there}: withdraw it first if it is wrong, or tell another "
            "certificate"
        )
    verification_id = await rows.add_verification(
        connection,
        _row(instrument, new, judged, rules=rules, actor=actor, now=now),
        [_point_row(point, new) for point in judged.points],
    )
    if new.case_id is not None:
        await write_entry(
            connection,
            await held_case(connection, new.case_id),
            actor,
            EntryKind.COMMENT,
            now=now,
            text=f"/verifications/{verification_id}: {judged.result.value}",
            verification_id=verification_id,
        )
    await count_outcomes(connection, zone=zone, connector_id=connector_id)
    await rebuild(await driver_of(connection))
    if new.inspection_id is not None and judged.result is not VerificationResult.UNDECIDED:
        await record_result(
            connection, actor, new.inspection_id, verification_id, judged.result.value, now
        )
    links = {
        name: value
        for name in ("file_id", "inspection_id", "case_id")
        if (value := getattr(new, name)) is not None
    }
    await record(
        connection,
        actor,
        Action.VERIFICATION_ENTERED,
        f"connector:{place.connector}",
        at=now,
        verification_id=verification_id,
        operator_id=instrument["operator_id"],
        verified_on=new.verified_on.isoformat(),
        result=judged.result.value,
        certificate=new.certificate,
        loads=[point.verdict.value for point in judged.points],
        **links,
    )
    return verification_id


async def withdraw_verification(
    connection: AsyncConnection,
    actor: Actor,
    verification_id: int,
    *,
    why: str,
    now: datetime,
    zone: ZoneInfo,
) -> None:
    """Withdraw a verification that is wrong: it stays to be read, and is no anchor any more.

    Raises: NotFoundError; VerificationError when it was withdrawn before or no reason is told.
    """
    why = why.strip()
    require_text("why", why)
    if not LEAST_WHY <= len(why) <= MOST_WHY:
        raise VerificationError(f"say why it is withdrawn, in {LEAST_WHY} to {MOST_WHY} characters")
    found = await rows.verification(connection, verification_id, scope=None)
    if found is None:
        raise NotFoundError(f"no verification {verification_id}")
    if not await rows.withdraw(connection, verification_id, at=now, by=actor.name, why=why):
        raise VerificationError(f"verification {verification_id} was withdrawn before")
    await count_outcomes(connection, zone=zone, connector_id=found["connector_id"])
    await rebuild(await driver_of(connection))
    await record(
        connection,
        actor,
        Action.VERIFICATION_WITHDRAWN,
        f"connector:{found['connector']}",
        at=now,
        why=why,
        verification_id=verification_id,
        operator_id=found["operator_id"],
        verified_on=found["verified_on"].isoformat(),
    )
