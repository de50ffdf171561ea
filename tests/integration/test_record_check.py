"""A driver's own check: what a record proves, and the one word about the stored session."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import func, select, text, update

from chargewatch.simulators.ocmf import Reading, ocmf_record, public_key_hex
from chargewatch.storage import tables
from chargewatch.supervision.driver_file import MOST_RECORD_BYTES
from complaint_forms import with_clock
from web_client import Site, open_site

FOLDER = Path(__file__).resolve().parents[1] / "data" / "ocmf"
AGREEMENTS = {
    "agrees": "agrees with the record", "differs": "differs from the record",
    "not_found": "was not found", "not_asked": "was not compared",
    "no_clock": "the meter&#39;s clock was not set",
}  # fmt: skip


@pytest.fixture
async def site(database_url: str) -> AsyncIterator[Site]:
    async with open_site(database_url) as opened:
        with_clock(opened)
        yield opened


async def check(site: Site, record: str = "", file: bytes = b"", **fields: str) -> Any:
    # Every check at another second: the limits have tests of their own.
    site.app.state.service.door.clock.now_s += 10
    return await site.client.post(
        "/check",
        data={"record": record, **fields},
        files={"file": ("record.xml", file, "application/xml")} if file else None,
    )


def proof_in(page: str) -> str:
    found = re.search(r'<h2 id="answer"><span[^>]*>[^<]*</span> ([^<]+)</h2>', page)
    assert found is not None, page
    return found[1]


def agreement_in(page: str) -> str | None:
    return next((name for name, words in AGREEMENTS.items() if words in page), None)


async def session_row(site: Site, name: str) -> Any:
    async with site.database.connect() as connection:
        query = select(tables.charging_session).where(tables.charging_session.c.session == name)
        return (await connection.execute(query)).mappings().one()


def record_of(row: Any, *, energy_kwh: float, secret: int = 7) -> str:
    """Return a record that the pile's meter signed over a stored session."""

    def reading(moment: Any, kwh: float, kind: str) -> Reading:
        at = moment.strftime("%Y-%m-%dT%H:%M:%S,000+0000")
        return Reading(at=at, energy_kwh=kwh, kind=kind)

    readings = (
        reading(row["started_at"], 1_000.0, "B"),
        reading(row["ended_at"], 1_000.0 + energy_kwh, "E"),
    )
    return ocmf_record("SN00000", readings, page=3, secret=secret)


async def test_a_genuine_record_agrees_with_the_stored_session(site: Site) -> None:
    row = await session_row(site, "S-0001")
    page = await check(site, record_of(row, energy_kwh=12.345), connector="TJ0001-01-1")
    assert page.status_code == 200
    assert proof_in(page.text) == "Genuine"
    assert agreement_in(page.text) == "agrees"
    assert "12.345 kWh" in page.text
    assert "SN00000" in page.text


async def test_a_genuine_record_of_more_or_less_energy_differs(site: Site) -> None:
    row = await session_row(site, "S-0001")
    page = await check(site, record_of(row, energy_kwh=11.0), connector="TJ0001-01-1")
    assert (proof_in(page.text), agreement_in(page.text)) == ("Genuine", "differs")
    # Only one word of the session: nothing that was stored.
    for stored in (row["session"], row["vehicle"], "15.33", "12,777", "12.777", "12.345"):
        assert stored not in page.text


async def test_a_genuine_record_of_another_time_finds_nothing(site: Site) -> None:
    row = dict(await session_row(site, "S-0001"))
    row["started_at"] = row["started_at"].replace(year=2020)
    row["ended_at"] = row["ended_at"].replace(year=2020)
    page = await check(site, record_of(row, energy_kwh=12.345), connector="TJ0001-01-1")
    assert (proof_in(page.text), agreement_in(page.text)) == ("Genuine", "not_found")


async def test_a_made_up_record_learns_nothing_of_the_sessions(site: Site) -> None:
    """Else anybody could find out by trying who charged when, and how much."""
    row = await session_row(site, "S-0001")
    for connector, record in (
        ("TJ0001-01-1", record_of(row, energy_kwh=12.345, secret=8)),
        ("TJ0001-01-1", record_of(row, energy_kwh=12.345).replace("12.345", "12.346")),
        ("TJ0001-02-1", record_of(row, energy_kwh=12.345)),
        ("NOPE", record_of(row, energy_kwh=12.345)),
    ):
        key = public_key_hex(8 if "secret" in record else 7)
        page = await check(site, record, connector=connector, key=key)
        assert agreement_in(page.text) == "not_asked", connector


async def test_a_record_under_another_key_than_the_registered_one(site: Site) -> None:
    row = await session_row(site, "S-0001")
    record = record_of(row, energy_kwh=12.345, secret=8)
    page = await check(site, record, connector="TJ0001-01-1", key=public_key_hex(8))
    assert proof_in(page.text) == "Signed with another key"
    page = await check(site, record, key=public_key_hex(8))
    assert proof_in(page.text) == "Fits the key that came with it"
    page = await check(site, record, connector="TJ0001-02-1")
    assert proof_in(page.text) == "Not checked: no key"
    assert "No key is registered for TJ0001-02-1" in page.text
    page = await check(site, record, connector="NOPE")
    assert "NOPE is not in the register" in page.text


async def test_an_unset_clock_finds_no_session(site: Site) -> None:
    # The last letter says what the clock is worth.
    readings = (
        Reading(at="1970-01-01T00:00:00,000+0000 U", energy_kwh=1.0, kind="B"),
        Reading(at="1970-01-01T01:00:00,000+0000 U", energy_kwh=13.345, kind="E"),
    )
    record = ocmf_record("SN00000", readings, page=3, secret=7)
    page = await check(site, record, connector="TJ0001-01-1")
    assert (proof_in(page.text), agreement_in(page.text)) == ("Genuine", "no_clock")


async def test_files_of_the_transparency_software_can_be_uploaded(site: Site) -> None:
    for name, proof in (
        ("test_ocmf_keba_kcp30", "Fits the key that came with it"),
        ("test_ocmf_keba_kcp30_fail", "Does not fit the key that came with it"),
        ("brainpoolP256r1", "Fits the key that came with it"),
        ("20211007-device-with-evt-ocmf-sss-ses", "Fits the key that came with it"),
    ):
        page = await check(site, file=(FOLDER / f"{name}.xml").read_bytes())
        assert proof_in(page.text) == proof, name
    # Registered with the real meter's key.
    key = re.search(
        r"<publicKey[^>]*>([^<]+)<", (FOLDER / "brainpoolP256r1.xml").read_text("utf-8-sig")
    )
    assert key is not None
    async with site.database.begin() as connection:
        await connection.execute(
            update(tables.connector)
            .where(tables.connector.c.connector == "TJ0002-01-1")
            .values(signing_key=key[1])
        )
    content = (FOLDER / "brainpoolP256r1.xml").read_bytes()
    page = await check(site, file=content, connector="TJ0002-01-1")
    assert (proof_in(page.text), agreement_in(page.text)) == ("Genuine", "not_found")


@pytest.mark.parametrize(
    ("record", "file", "status"),
    [
        ("", b"", 422),
        ("<script>alert(1)</script>", b"", 422),
        ("OCMF|<img src=x>|{}", b"", 422),
        ('OCMF|{"RD":[]}|{"SD":"00"}', b"", 200),
        ("", b"\xff\xfe\xff", 422),
        ("", b'<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/passwd">]><values>&x;</values>', 422),
        ("", b"x" * (MOST_RECORD_BYTES + 1), 422),
        ("x" * (MOST_RECORD_BYTES + 1), b"", 422),
        ("", b"x" * 300_000, 413),
        ("\x00\x01", b"", 422),
    ],
)
async def test_hostile_input_is_answered(site: Site, record: str, file: bytes, status: int) -> None:
    page = await check(site, record, file)
    assert page.status_code == status, page.text
    assert "<script>" not in page.text
    assert "root:" not in page.text


@pytest.mark.parametrize(
    ("content_type", "body", "status"),
    [
        ("text/plain", b"record=x", 422),
        ("multipart/form-data", b"x", 400),
        ("multipart/form-data; boundary=b", b"--b\r\nbroken", 422),
        ("multipart/form-data; boundary=b", b"--b\r\n\r\n" * 50, 400),
        ("application/x-www-form-urlencoded", b"record=OCMF", 422),
        ("application/x-www-form-urlencoded", b"%ff=%ff&record=%00", 422),
    ],
)
async def test_odd_forms_are_answered(
    site: Site, content_type: str, body: bytes, status: int
) -> None:
    page = await site.client.post("/check", content=body, headers={"content-type": content_type})
    assert page.status_code == status, page.text


async def test_a_key_that_cannot_be_read_is_told(site: Site) -> None:
    row = await session_row(site, "S-0001")
    page = await check(site, record_of(row, energy_kwh=1), key="no key <b>")
    assert page.status_code == 422
    assert "The public key can&#39;t be read" in page.text


async def test_nothing_of_it_is_kept(site: Site) -> None:
    async def size() -> int:
        async with site.database.connect() as connection:
            found = await connection.execute(
                text("SELECT relname FROM pg_class WHERE relkind = 'r' AND relnamespace = "
                     "'public'::regnamespace")
            )  # fmt: skip
            counts = [
                await connection.scalar(select(func.count()).select_from(text(f'"{name}"')))
                for (name,) in found.all()
            ]
        return sum(int(count or 0) for count in counts)

    before = await size()
    row = await session_row(site, "S-0001")
    await check(site, record_of(row, energy_kwh=12.345), connector="TJ0001-01-1")
    assert await size() == before


async def test_checks_of_one_address_are_limited(site: Site) -> None:
    answers = [
        (await site.client.post("/check", data={"record": "x"})).status_code for _ in range(22)
    ]
    assert answers == [422] * 20 + [429] * 2
