"""The HTTP door takes the messages of the telemetry contract through ingest's own code."""

from __future__ import annotations

import gzip
import json
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from sqlalchemy import func, select

from chargewatch.errors import DatabaseError
from chargewatch.ingest.intake import Intake
from chargewatch.settings import load_settings
from chargewatch.storage.tables import ledger_stream, quarantine, register_reading
from chargewatch.supervision import tokens
from chargewatch.supervision.audit import Actor
from web_client import Site, open_site


@pytest.fixture
async def site(any_database_url: str) -> AsyncIterator[Site]:
    settings = replace(load_settings({}), database_url=any_database_url)
    async with Intake(settings) as intake, open_site(any_database_url, intake=intake) as opened:
        token = await tokens.issue_operator_token(
            opened.database, "OP1", label="test", actor=Actor(name="test")
        )
        opened.client.headers["authorization"] = f"Bearer {token}"
        yield opened


def message(seq: int = 1, energy_wh: float = 5.0, connector: str = "TJ0006-01-1") -> bytes:
    now = datetime.now(UTC).replace(microsecond=0).isoformat()
    reading = {"connector": connector, "at": now, "energy_wh": energy_wh}
    return json.dumps({"seq": seq, "sent_at": now, "readings": [reading]}).encode()


async def send(site: Site, content: bytes, kind: str = "registers", **headers: str) -> Any:
    return await site.client.post(
        f"/api/v1/telemetry/{kind}",
        params={"station_id": "TJ0006"},
        content=content,
        headers={"content-type": "application/json", **headers},
    )


async def stored(site: Site) -> int:
    statement = select(func.count()).select_from(register_reading)
    async with site.database.connect() as connection:
        return int((await connection.execute(statement)).scalar_one())


async def test_message_is_stored_once_and_answered_with_its_receipt(site: Site) -> None:
    before = await stored(site)
    content = message()
    first, again = await send(site, content), await send(site, content)
    assert first.status_code == again.status_code == 200, first.text
    assert (first.json()["topic"], first.json()["seq"]) == ("registers", 1)
    assert (first.json()["stored"], first.json()["duplicate"]) == (1, 0)
    assert (again.json()["stored"], again.json()["duplicate"]) == (0, 1)
    assert await stored(site) == before + 1


async def test_declared_changes_and_rounded_energies_are_taken(site: Site) -> None:
    now = datetime.now(UTC).replace(microsecond=0).isoformat()
    event = {"connector": "TJ0006-01-1", "at": now, "kind": "meter_replaced", "start_wh": 0.00049}
    content = json.dumps({"seq": 1, "sent_at": now, "events": [event]}).encode()
    first, again = await send(site, content, "events"), await send(site, content, "events")
    assert (first.json()["topic"], first.json()["stored"]) == ("events", 1), first.text
    assert again.json()["duplicate"] == 1
    other = json.dumps({"seq": 2, "sent_at": now, "events": [event | {"detail": "x"}]}).encode()
    errors = (await send(site, other, "events")).json()["errors"]
    assert [(error["index"], error["code"]) for error in errors] == [(0, "conflict")]
    await send(site, message(1, 65.9999999998035))
    query = select(ledger_stream.c.topic, ledger_stream.c.rounded).where(
        ledger_stream.c.station_id == "TJ0006", ledger_stream.c.rounded > 0
    )
    async with site.database.connect() as connection:
        assert dict(tuple(row) for row in await connection.execute(query)) == {
            "events": 3,
            "registers": 1,
        }


async def test_gzip_is_taken(site: Site) -> None:
    headers = {"content-type": "application/json+gzip"}
    answer = await send(site, gzip.compress(message(seq=2)), **headers)
    assert answer.json()["stored"] == 1


async def test_what_is_rejected_is_in_quarantine_with_its_code(site: Site) -> None:
    answer = await send(site, message(seq=3, connector="TJ0001-01-1"))
    assert answer.status_code == 200
    assert answer.json()["rejected"] == 1
    assert answer.json()["errors"][0]["code"] == "foreign_identity"
    garbage = await send(site, b"\xff{")
    assert (garbage.json()["seq"], garbage.json()["rejected"]) == (None, 1)
    async with site.database.connect() as connection:
        codes = (await connection.execute(select(quarantine.c.code))).scalars().all()
    assert {"foreign_identity", "malformed"} <= set(codes)


async def test_only_an_operators_token_opens_the_door(site: Site) -> None:
    for value in ("", "Bearer nonsense", (await site.token("admin"))["authorization"]):
        answer = await send(site, message(), authorization=value)
        assert answer.status_code == 401
        assert "chargewatch user token" in answer.json()["error"]["message"]


async def test_an_operators_token_opens_nothing_else(site: Site) -> None:
    assert (await site.client.get("/api/v1/piles")).status_code == 401


async def test_payload_beyond_1_mib_is_refused_whole(site: Site) -> None:
    answer = await send(site, b" " * (1024 * 1024 + 1))
    assert answer.status_code == 413
    assert answer.json()["error"]["code"] == "malformed"


async def test_payload_that_says_it_is_too_large_is_not_waited_for(site: Site) -> None:
    answer = await send(site, b"{", **{"content-length": "1000000000000"})
    assert answer.status_code == 413


async def test_unknown_kind_and_bad_station_are_refused(site: Site) -> None:
    assert (await send(site, message(), kind="receipt")).status_code == 422
    answer = await site.client.post(
        "/api/v1/telemetry/registers", params={"station_id": "a/b"}, content=message()
    )
    assert answer.status_code == 422


async def test_closed_door_and_lost_database_say_send_it_again(site: Site) -> None:
    class Lost:
        async def submit(self, **_: Any) -> dict[str, Any]:
            raise DatabaseError("gone")

    service = site.app.state.service
    service.intake = Lost()
    answer = await send(site, message())
    assert answer.status_code == 503
    assert answer.json()["error"]["code"] == "not_committed"
    assert answer.headers["retry-after"] == "30"
    service.intake = None
    assert (await send(site, message())).json()["error"]["code"] == "door_closed"


async def test_an_operator_that_floods_the_door_leaves_it_open_for_others(site: Site) -> None:
    other = await tokens.issue_operator_token(
        site.database, "OP2", label="test", actor=Actor(name="test")
    )
    slots = site.app.state.service.messages
    for _ in range(16):
        slots.take("OP1")
    refused = await send(site, message(seq=9))
    assert (refused.status_code, refused.headers["retry-after"]) == (429, "5")
    taken = await send(site, message(seq=9), authorization=f"Bearer {other}")
    assert taken.status_code == 200
    slots.release("OP1")
    assert (await send(site, message(seq=9))).status_code == 200
    assert slots.taken == 15


async def test_a_fault_of_the_platform_is_told_in_the_receipt_and_lack_of_memory_to_come_again(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(error: Exception) -> Any:
        def decode(*_: Any) -> Any:
            raise error

        return decode

    with monkeypatch.context() as patch:
        patch.setattr("chargewatch.ingest.message.decode", failing(RecursionError("ours")))
        answer = await send(site, message(seq=4))
        patch.setattr("chargewatch.ingest.message.decode", failing(MemoryError()))
        later = await send(site, message(seq=5))
    assert answer.status_code == 200, answer.text
    receipt = answer.json()
    assert (receipt["seq"], receipt["stored"], receipt["rejected"]) == (4, 0, 1)
    assert receipt["errors"][0]["code"] == "internal_error"
    assert (later.status_code, later.json()["error"]["code"]) == (503, "not_committed")
