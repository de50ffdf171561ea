"""The office at work on the seeded city: of all that it keeps a row with every column filled."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import insert, literal, select, update

from chargewatch.storage import tables
from chargewatch.storage.database import Database

FAILED, WITHDRAWN = 900_002, 900_001
"""Numbers of two verifications that were entered by hand."""
LATER = ("refused_at", "answered_at", "ended_at", "notified_at", "answer", "case_id")
"""What is not told of a complaint that was accepted."""
PLACE = {"connector": "TJ0001-01-1", "station_id": "TJ0001", "operator_id": "OP2"}


async def fill_office(database: Database) -> None:
    """Add jobs, notices, a webhook, complaints, verifications, outcomes and evidence of TJ0001."""
    now = datetime.now(UTC)
    async with database.begin() as connection:
        for statement in (
            *_jobs(now),
            *_notices(now),
            *_complaints(now),
            *_verifications(now),
            *_of_the_pile(now),
            *_of_the_registry(now),
        ):
            await connection.execute(statement)


def _jobs(now: datetime) -> list[Any]:
    return [
        insert(tables.job).values(
            kind="draft grades", arguments={"month": "2026-01"}, wanted_by="admin", key=key,
            state="failed", tries=3, worker="office-1", alive_at=now, progress="2 of 3",
            finished_at=now, result={"operators": 2}, error="no space left",
        )
        for key in ("first", "second")
    ]  # fmt: skip


def _notices(now: datetime) -> list[Any]:
    notices = [
        insert(tables.notice).values(
            username="admin", kind="job_failed", key=f"job:{number}", path="/jobs",
            detail={"job": number}, read_at=now,
        )
        for number in (1, 2)
    ]  # fmt: skip
    admin = select(tables.app_user.c.user_id).where(tables.app_user.c.username == "admin")
    mine = {"user_id": admin.scalar_subquery()}
    return [
        *notices,
        insert(tables.notice_wish).values(
            **mine, mail="admin@city.example", language="zh", mail_kinds=["job_failed"]
        ),
        # Before the first run: all that is red is news.
        insert(tables.brief_seen).values(**mine, seen_at=now - timedelta(days=400)),
        insert(tables.webhook).values(
            label="portal", address="https://portal.example/in", secret="-",
            kinds=["job_failed"], made_by="admin", ended_at=now,
        ),
    ]  # fmt: skip


def _complaints(now: datetime) -> list[Any]:
    told = {
        **PLACE, "received_at": now, "kind": "energy", "text": "20 kWh billed, 15 charged",
        "session_text": "S-0001", "session_at": now - timedelta(hours=8), "bill_cny": "15.33",
        "language": "zh", "clocks": "CN-2020", "accept_by": now.date(), "end_by": now.date(),
        "notify_by": now.date(), "accepted_at": now, "refused_at": now, "answered_at": now,
        "ended_at": now, "notified_at": now, "answer": "the meter reads high", "case_id": 1,
    }  # fmt: skip
    return [
        insert(tables.complaint).values(reference="00000-00000-00001", state="ended", **told),
        *(
            insert(tables.complaint).values(
                **told | dict.fromkeys(LATER), reference=f"00000-00000-0000{n}", state="accepted"
            )
            for n in (2, 3)
        ),
        insert(tables.complaint_contact).values(complaint_id=1, contact="137", ended_at=now),
    ]  # fmt: skip


def _verifications(now: datetime) -> list[Any]:
    """Return one that failed before those of the registry file, one withdrawn, and a flag of it."""
    day = (now - timedelta(days=10)).date()
    told = {
        "connector_id": 1, "verified_on": day, "valid_until": day, "result": "fail",
        "relative_error": 0.031, "expanded_uncertainty": 0.004, "coverage_factor": 2.0,
        "institute": "Tianjin Institute of Metrology", "kind": "inspection",
        "rule_set": "CN-2022", "decision_rule": "simple", "reference": "a meter of class 0.05",
        "note": "rain", "file_id": 1, "inspection_id": 1, "case_id": 1, "entered_at": now,
        "entered_by": "admin",
    }  # fmt: skip
    return [
        insert(tables.verification).values(
            **told, verification_id=WITHDRAWN, certificate="H-1", withdrawn_at=now,
            withdrawn_by="admin", withdrawn_why="of another pile",
        ),
        insert(tables.verification).values(**told, verification_id=FAILED, certificate="H-2"),
        insert(tables.verification_point).values(
            verification_id=WITHDRAWN, place=0, load="100 %", current_a=32.0, power_w=7_000.0,
            relative_error=0.031, expanded_uncertainty=0.004, coverage_factor=2.0, limit=0.02,
            basis="JJG 1148-2022", clause="6.2", verdict="fail", detail={"runs": 3},
        ),
        # It waited longer than all others, so that every quantile is known.
        insert(tables.flag_outcome).values(
            connector_id=1, flagged_at=now - timedelta(days=60), ended_at=now - timedelta(days=5),
            tier="red", verification_id=FAILED, outcome="hit", changed_at=now - timedelta(days=70),
            delay_days=10.0,
        ),
    ]  # fmt: skip


def _of_the_pile(now: datetime) -> list[Any]:
    """Return a declared change that was withdrawn, an error that changed, a file of evidence."""
    owed = tables.money_owed
    newest = select(tables.risk_run.c.run_id).where(tables.risk_run.c.state == "finished").limit(1)
    place = {name: PLACE[name] for name in ("station_id", "operator_id")}
    return [
        insert(tables.instrument_event).values(
            **place, connector_id=1, meter_id=0, kind="seal_opened", at=now, detail="by mistake",
            serial="B-78", start_wh=0.0, stop_wh=1.0, received_at=now, origin="office",
            declared_by="admin", withdrawn_at=now, withdrawn_by="admin", withdrawn_why="not here",
        ),
        update(owed).where(owed.c.connector_id == 1, owed.c.cause == "error").values(
            undelivered_share_before=0.001, changed_at=now - timedelta(days=9),
            settled_at=now - timedelta(days=8),
        ),
        insert(tables.evidence_file).values(
            **PLACE, run_id=newest.scalar_subquery(), tier="red", made_at=now, digest="0" * 64,
            size=3, content=b"PK\x03",
        ),
    ]  # fmt: skip


def _of_the_registry(now: datetime) -> list[Any]:
    """Return inspectors, a step to the next verification of what is over, changes of a station."""
    over = tables.instrument_validity
    ended = (
        select(over.c.connector_id, over.c.verification_id)
        .where(over.c.until < now.date())
        .order_by(over.c.until)
        .limit(1)
        .subquery()
    )
    columns = ("connector_id", "cycle", "step", "done_on", "note", "at", "actor")
    step = select(
        ended.c.connector_id,
        ended.c.verification_id,
        *(literal(told) for told in ("booked", now.date(), "by telephone", now, "admin")),
    )
    changed = {"kind": "stations", "identifier": PLACE["station_id"], "actor": "admin"}
    return [
        *(insert(tables.inspector).values(name=name) for name in ("wang", "chen")),
        insert(tables.due_step).from_select(columns, step),
        *(
            insert(tables.registry_history).values(
                **changed, why="a new sign", before={"name": before}, after={"name": after}
            )
            for before, after in (("A", "B"), ("B", "C"))
        ),
    ]
