"""What others' software fell over in the field, sent through the real broker: judged by name.

After every odd message good ones of another station are committed, and the books balance.
"""

from __future__ import annotations

import gzip
from collections.abc import AsyncIterator
from typing import Any

import orjson
import pytest
from tests.integration.ingest_gateway import Gateway
from tests.integration.poison_city import (
    City,
    balanced,
    iso,
    nested,
    running_city,
    until_subscribed,
)


@pytest.fixture
async def city(broker_url: str, database_url: str) -> AsyncIterator[City]:
    async with running_city(broker_url, database_url) as running:
        yield running


VIN = "LSVAA4182E2123456"
SENT = f'"seq":1,"sent_at":"{iso()}"'


def registers(value: str = "1", **changes: str) -> bytes:
    """Return a message of one good reading and one that is changed; values are JSON texts."""
    odd = {"connector": '"B1"', "at": f'"{iso(1)}"', "energy_wh": value} | changes
    item = ",".join(f'"{key}":{text}' for key, text in odd.items())
    good = f'{{"connector":"B0","at":"{iso()}","energy_wh":5}}'
    return f'{{{SENT},"readings":[{good},{{{item}}}]}}'.encode()


def session(**changes: Any) -> bytes:
    item = {
        "session": "S1",
        "connector": "B1",
        "started_at": iso(),
        "ended_at": iso(60),
        "start_wh": 1,
        "stop_wh": 2,
        "billed_wh": 1,
    }
    items = [item, item | {"session": "S2"} | changes]
    return orjson.dumps({"seq": 1, "sent_at": iso(), "sessions": items})


WHOLE, ITEM, READ = (None, 0, 1), (1, 1, 1), (1, 2, 0)
"""seq, stored and rejected: nothing could be read; one of two items is refused; none is."""

CASES = [
    ("NUL behind", registers() + b"\0", READ, ""),
    ("NULs and blanks", registers() + b"\0 \r\n\0", READ, ""),
    ("BOM", b"\xef\xbb\xbf" + registers(), READ, ""),
    ("gzip without its type", gzip.compress(registers()), READ, ""),
    ("gzip and zero bytes", gzip.compress(registers()) + bytes(512), READ, ""),
    ("16 MiB unpacked", gzip.compress(registers() + b" " * (15 << 20)), READ, ""),
    ("blank and small z", registers(at='"' + iso(1)[:19].replace("T", " ") + 'z"'), READ, ""),
    ("7 digits", registers(at='"' + iso(1)[:19] + '.1234567Z"'), READ, ""),
    ("binary arithmetic", registers("65.9999999998035"), READ, ""),
    ("negative zero", registers("-0.0"), READ, ""),
    ("nulls", registers(power_w="null", session="null", context="null", x="null"), READ, ""),
    ("given twice", registers('-1,"energy_wh":2'), READ, ""),
    ("NaN", registers("NaN"), WHOLE, "malformed"),
    ("Infinity", registers("-Infinity"), WHOLE, "malformed"),
    ("cut off", registers()[:-1], WHOLE, "malformed"),
    ("not UTF-8", registers(x='"\xff"').decode().encode("latin-1"), WHOLE, "malformed"),
    ("UTF-16", registers().decode().encode("utf-16"), WHOLE, "malformed"),
    ("100,000 deep", nested(100_000), WHOLE, "malformed"),
    ("two members", gzip.compress(registers()) * 2, WHOLE, "malformed"),
    ("50,000 members", gzip.compress(b"") * 50_000, WHOLE, "malformed"),
    ("bomb", gzip.compress(b" " * (17 << 20)), WHOLE, "malformed"),
    ("crowd", gzip.compress(b"[" + b"{}," * 600_000 + b"{}]"), WHOLE, "malformed"),
    ("a text", b'"text"', WHOLE, "malformed"),
    ("deep in an item", registers(x=nested(40).decode()), (1, 0, 2), "malformed"),
    ("huge seq", registers().replace(b'"seq":1', b'"seq":1e19'), (None, 0, 2), "invalid_field"),
    ("seq in quotes", registers().replace(b'"seq":1', b'"seq":"1"'), (None, 0, 2), "invalid_field"),
    ("seq as float", registers().replace(b'"seq":1', b'"seq":1.0'), (None, 0, 2), "invalid_field"),
    ("beyond a double", registers("1e999"), ITEM, "invalid_field"),
    ("beyond int64", registers("9223372036854775808"), ITEM, "invalid_field"),
    ("5,000 digits", registers("9" * 5000), ITEM, "invalid_field"),
    ("half a pair", registers(connector='"\\ud800"'), ITEM, "invalid_field"),
    ("unavailable", registers('"unavailable"'), ITEM, "invalid_field"),
    ("true", registers("true"), ITEM, "invalid_field"),
    ("a list", registers("[[1]]"), ITEM, "invalid_field"),
    ("no energy", registers("null"), ITEM, "invalid_field"),
    ("blanks around", registers(connector='" B1 "'), ITEM, "invalid_field"),
    ("full width", registers(connector='"\\uff22\\uff11"'), ITEM, "invalid_field"),
    ("a tab", registers(connector='"B1\\t"'), ITEM, "invalid_field"),
    ("NUL in a name", registers(connector='"B\\u00001"'), ITEM, "invalid_field"),
    ("no offset", registers(at='"2026-11-26T12:11:32"'), ITEM, "naive_time"),
    ("year 9999", registers(at='"9999-12-31T23:59:59-12:00"'), ITEM, "in_future"),
    ("year 1", registers(at='"0001-01-01T00:00:00+12:00"'), ITEM, "too_old"),
    ("before boot", registers(at='"1970-01-01T00:01:49+00:00"'), ITEM, "too_old"),
    (
        "a session in the year 9999",
        session(ended_at="9999-12-31T23:59:59-12:00"),
        ITEM,
        "in_future",
    ),
    ("a VIN", session(vehicle=VIN), ITEM, "personal_data"),
    ("a small VIN with blanks", session(vehicle=f" {VIN.lower()} "), ITEM, "personal_data"),
    ("a VIN in a list", session(vehicle=[VIN]), ITEM, "invalid_field"),
    (
        "a VIN in a key given twice",
        session(vehicle="v-1", start_wh=-1).replace(
            b'"vehicle"', b'"v\\u0065hicle":"%s","vehicle"' % VIN.encode()
        ),
        ITEM,
        "invalid_field",
    ),
]


async def test_every_odd_message_is_judged_and_the_others_are_stored(
    city: City,
) -> None:
    async with Gateway(city.url, "OP1", "GOOD") as good, city.ingest():
        await until_subscribed(city, good)
        for number, (name, payload, (seq, stored, rejected), code) in enumerate(CASES):
            kind = "sessions" if b'"sessions"' in payload else "registers"
            async with Gateway(city.url, "OP1", f"BAD{number}") as bad:
                await bad.send_bytes(kind, payload)
            await city.send_good(good)
            receipt = await city.receipt(f"BAD{number}", seq)
            got = receipt["seq"], receipt["stored"], receipt["duplicate"], receipt["rejected"]
            assert got == (seq, stored, 0, rejected), (name, receipt)
            assert {error["code"] for error in receipt["errors"]} == ({code} - {""}), name
            assert VIN.lower() not in str(receipt).lower()
        books = await balanced(city.database)
    assert books["messages"] == len(CASES) + city.good
    assert books["stored"] == city.good + sum(case[2][1] for case in CASES)
    assert await city.database.fetchval("SELECT sum(rounded) FROM ledger_stream") == 1
    kept = await city.database.fetch("SELECT payload, errors::text FROM quarantine")
    assert kept
    assert not any(VIN.lower().encode() in row["payload"].lower() for row in kept)
    assert not any(VIN.lower() in row["errors"].lower() for row in kept)
