"""What the office holds of the two operators of the shared names, a row of each table for each."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
from sqlalchemy import insert, select
from sqlalchemy.ext.asyncio import AsyncConnection

from chargewatch.storage import tables
from chargewatch.storage.database import Database
from chargewatch.supervision.evidence.form import made, packed
from shared_names_city import CONNECTORS, OPERATORS, STATIONS, mark, number

DRAW_ID = "2026-12"
BOTH = "-".join(mark(name) for name in OPERATORS)
"""Stands in what no operator's user may see at all."""


async def _seed_draw(connection: AsyncConnection, now: datetime) -> None:
    await connection.execute(
        insert(tables.inspector).values(name="wang", recused_operators=list(OPERATORS))
    )
    await connection.execute(
        insert(tables.inspection_draw).values(
            draw_id=DRAW_ID,
            state="drawn",
            list_text=f"{BOTH}-list",
            list_sha256="0" * 64,
            piles=2,
            lots=dict.fromkeys(OPERATORS, 1),
            excluded={},
            weights_rule=f"{BOTH}-rule",
            size=2,
            uniform_share=0.5,
            crew=1,
            due_days=30,
            frozen_at=now,
            made_by=f"{BOTH}-user",
            published_at=now,
            drawn_at=now,
            bundle=f'{{"told": "{BOTH}-bundle"}}',
            opens_on=now.date(),
        )
    )
    await connection.execute(
        insert(tables.draw_recusal).values(
            draw_id=DRAW_ID,
            inspector="wang",
            operator_id="OP1",
            why=f"{BOTH}-recusal",
            at=now,
            entered_by="admin",
        )
    )


async def _seed_verification(
    connection: AsyncConnection, claim: Mapping[Any, Any], now: datetime
) -> int:
    """Enter a verification with what was measured and a file; return its number."""
    told, count = mark(claim["operator_id"]), number(claim["operator_id"])
    content = f"{told}-protocol".encode()
    file_id = await connection.scalar(
        insert(tables.office_file)
        .values(
            name=f"{told}-protocol.txt",
            media_type="text/plain",
            size=len(content),
            sha256="0" * 64,
            content=content,
            added_by="admin",
        )
        .returning(tables.office_file.c.file_id)
    )
    found = await connection.scalar(
        insert(tables.verification)
        .values(
            connector_id=claim["connector_id"],
            verified_on=now.date() - timedelta(days=350),
            valid_until=now.date() + timedelta(days=10),
            result="pass",
            relative_error=count / 1e8,
            expanded_uncertainty=0.001,
            coverage_factor=2.0,
            certificate=f"{told}-entered",
            institute=f"{told}-institute",
            kind="inspection",
            rule_set="CN",
            decision_rule="shared_risk",
            reference=f"{told}-reference",
            note=f"{told}-note",
            file_id=file_id,
            entered_at=now,
            entered_by=f"{told}-inspector",
        )
        .returning(tables.verification.c.verification_id)
    )
    verification_id = int(found or 0)
    await connection.execute(
        insert(tables.verification_point).values(
            verification_id=verification_id,
            place=1,
            load=f"{told}-load",
            current_a=float(count),
            relative_error=count / 1e8,
            expanded_uncertainty=0.001,
            coverage_factor=2.0,
            limit=0.01,
            verdict="pass",
            clause=f"{told}-clause",
            detail={},
        )
    )
    return verification_id


async def _seed_inspection(
    connection: AsyncConnection, claim: Mapping[Any, Any], verification_id: int, now: datetime
) -> None:
    told = mark(claim["operator_id"])
    drawn = {"draw_id": DRAW_ID, "rank": claim["connector_id"], "ticket": f"{told}-ticket"}
    by_case = {"part": "case"}
    for state, result in (("done", "pass"), ("planned", None), ("cancelled", None)):
        came = drawn | {"part": "weighted"} if claim["registered"] and result else by_case
        await connection.execute(
            insert(tables.inspection).values(
                **came,
                connector=claim["connector"],
                station_id=claim["station_id"],
                operator_id=claim["operator_id"],
                inspector=f"{told}-inspector",
                crew=[f"{told}-inspector"],
                planned_at=now,
                due_on=now.date(),
                state=state,
                verification_id=verification_id if result else None,
                result=result,
                done_on=now.date() if result else None,
                cancelled_why=f"{told}-cancelled" if state == "cancelled" else "",
            )
        )


async def _seed_evidence(
    connection: AsyncConnection, claim: Mapping[Any, Any], now: datetime
) -> None:
    told = mark(claim["operator_id"])
    name = {part: claim[part] for part in ("connector", "station_id", "operator_id")}
    run = {"run_id": 1, "as_of": now.isoformat(), "result_digest": "", "version": "0"}
    more: dict[str, Any] = {"row": {}, "values": {}, "signals": [], "made_with": {}}
    file = made({"pile": name, "run": run, **more}, {"at": np.zeros(1)})
    content = packed(file)
    await connection.execute(
        insert(tables.evidence_file).values(
            **name,
            run_id=1,
            tier="red",
            made_at=now,
            digest=f"{told}-digest",
            size=len(content),
            content=content,
        )
    )


async def _seed_claim_rows(
    connection: AsyncConnection, claim: Mapping[Any, Any], now: datetime
) -> None:
    told, count = mark(claim["operator_id"]), number(claim["operator_id"])
    connector_id = claim["connector_id"]
    verification_id = await _seed_verification(connection, claim, now)
    await _seed_inspection(connection, claim, verification_id, now)
    await _seed_evidence(connection, claim, now)
    await connection.execute(
        insert(tables.flag_outcome).values(
            connector_id=connector_id,
            flagged_at=now - timedelta(days=3),
            tier="red",
            verification_id=verification_id,
            outcome="hit",
            changed_at=now - timedelta(days=9),
            delay_days=float(count),
        )
    )
    await connection.execute(
        insert(tables.ledger_entry).values(
            connector_id=connector_id, place=f"{told}-place", extra={"more": f"{told}-extra"}
        )
    )
    await connection.execute(
        insert(tables.due_step).values(
            connector_id=connector_id,
            cycle=verification_id,
            step="booked",
            done_on=now.date(),
            note=f"{told}-booked",
            actor=f"{told}-booker",
        )
    )
    for minute, origin in enumerate(("topic", "operator", "office")):
        await connection.execute(
            insert(tables.instrument_event).values(
                operator_id=claim["operator_id"],
                station_id=claim["station_id"],
                connector_id=connector_id,
                meter_id=0,
                kind="connector_replaced",
                at=now - timedelta(days=2, minutes=minute),
                detail=f"{told}-change",
                serial=f"{told}-changed",
                received_at=now,
                origin=origin,
                declared_by=f"{told}-declarer",
            )
        )


def _of(operator_id: str) -> dict[str, Any]:
    told, place = mark(operator_id), OPERATORS.index(operator_id)
    return {
        "operator_id": operator_id,
        "station_id": STATIONS[place],
        "name": f"{told}-station",
        "address": f"{told}-address",
        "model": f"{told}-model",
        "certificate": f"{told}-certificate",
        "place": f"{told}-place",
    }


async def _seed_history(connection: AsyncConnection) -> None:
    """What is registered to one of them was the other's before."""
    for place, operator_id in enumerate(OPERATORS):
        now, before = _of(operator_id), _of(OPERATORS[1 - place])
        steps = (
            (None, before),
            (before, before | {"model": f"{before['model']}-2"}),
            (before, now),
            (now, now | {"model": f"{now['model']}-2"}),
        )
        for old, new in steps:
            for kind, identifier in (
                ("connectors", CONNECTORS[place]),
                ("stations", STATIONS[place]),
                ("reference_meters", f"M-{place}"),
            ):
                await connection.execute(
                    insert(tables.registry_history).values(
                        kind=kind,
                        identifier=identifier,
                        before=old,
                        after=new,
                        actor=f"{BOTH}-actor",
                        why=f"{BOTH}-why",
                    )
                )
            if old is None:
                # A line of the ledger does not say whose it is.
                await connection.execute(
                    insert(tables.registry_history).values(
                        kind="ledger",
                        identifier=CONNECTORS[place],
                        after={"place": new["place"]},
                    )
                )


async def _seed_registry_rows(connection: AsyncConnection) -> None:
    """Tariffs and an import."""
    await connection.execute(
        insert(tables.registry_import).values(
            source=f"{BOTH}-file", sha256="0" * 64, row_counts={}, actor=f"{BOTH}-actor"
        )
    )
    for station_id, operator_id in zip(STATIONS, OPERATORS, strict=True):
        price = f"{number(operator_id) / 1e6:.6f}"
        period = {"from": "00:00", "to": "24:00", "energy_price": price, "service_price": "0"}
        for place in ("", station_id):
            await connection.execute(
                insert(tables.tariff).values(
                    operator_id=operator_id,
                    station_id=place,
                    valid_from=datetime(2026, 1, 1, tzinfo=UTC),
                    periods=[period],
                )
            )


async def _seed_people(connection: AsyncConnection, now: datetime) -> None:
    """Notices and jobs; users are named like their operators."""
    detail = {"number": "2026-000001", "author": "admin"}
    for operator_id in OPERATORS:
        told = mark(operator_id)
        await connection.execute(
            insert(tables.notice).values(
                username=operator_id.lower(),
                kind="case_mentioned",
                key=f"{told}-key",
                path=f"/cases/{told}",
                detail={**detail, "thing": f"{told}-notice"},
                made_at=now,
            )
        )
    await connection.execute(
        insert(tables.notice).values(
            username="admin",
            kind="case_mentioned",
            key=BOTH,
            path="/cases",
            detail={**detail, "thing": f"{BOTH}-notice"},
            made_at=now,
        )
    )
    await connection.execute(
        insert(tables.webhook).values(
            label=f"{BOTH}-webhook",
            address="https://programs.example/",
            secret=f"{BOTH}-secret",
            kinds=["newly_red"],
            made_by="admin",
        )
    )
    await connection.execute(
        insert(tables.job).values(
            kind="outcomes",
            arguments={"told": f"{BOTH}-arguments"},
            wanted_by="admin",
            state="done",
            progress=f"{BOTH}-progress",
            finished_at=now,
            result={"told": f"{BOTH}-result"},
        )
    )
    await connection.execute(
        insert(tables.complaint_contact),
        [
            {"complaint_id": place, "contact": f"{mark(operator_id)}-contact"}
            for place, operator_id in enumerate(OPERATORS, 1)
        ],
    )


async def seed_shared_office(database: Database) -> None:
    """Add what the office holds to the city of the shared names."""
    now = datetime.now(UTC)
    async with database.begin() as connection:
        claims = (
            await connection.execute(
                select(tables.connector).order_by(tables.connector.c.connector_id)
            )
        ).mappings()
        await _seed_draw(connection, now)
        for claim in claims.all():
            await _seed_claim_rows(connection, claim, now)
        await _seed_registry_rows(connection)
        await _seed_history(connection)
        await _seed_people(connection, now)
