"""Open data: every pile once, the same as CSV and JSON, to be kept by caches, in stable columns."""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import AsyncIterator
from datetime import date
from typing import Any

import pytest
from sqlalchemy import insert, update

from chargewatch.api.models_public import (
    PublicDistricts,
    PublicPileDetail,
    PublicPiles,
    PublicStations,
)
from chargewatch.storage import tables
from chargewatch.supervision.public import DISTRICT_COLUMNS, PILE_COLUMNS, STATION_COLUMNS
from documents import code, rows, section
from web_client import Site, open_site

PUBLIC = "/api/v1/public"
STATUSES = ("verified", "expired", "undated", "failed", "never")


@pytest.fixture
async def site(database_url: str) -> AsyncIterator[Site]:
    async with open_site(database_url) as opened:
        yield opened


async def all_piles(site: Site, limit: int = 7) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    url = f"{PUBLIC}/piles?limit={limit}"
    while url:
        answer = await site.client.get(url)
        assert answer.status_code == 200
        told = PublicPiles.model_validate(answer.json())
        found += answer.json()["piles"]
        url = answer.links.get("next", {}).get("url", "")
        assert bool(url) == (told.next_after is not None)
    return found


def as_rows(text: str) -> list[dict[str, str]]:
    assert text.startswith("\ufeff")
    return list(csv.DictReader(io.StringIO(text.removeprefix("\ufeff"))))


async def test_pages_hold_every_registered_pile_once_in_order(site: Site) -> None:
    async with site.database.begin() as connection:
        await connection.execute(
            insert(tables.connector).values(
                connector="A-CLAIM", operator_id="OP1", station_id="TJ0002", registered=False
            )
        )
    names = [row["connector"] for row in await all_piles(site)]
    assert len(names) == 120
    assert names == sorted(names)
    assert len(set(names)) == 120


async def test_csv_and_json_say_the_same(site: Site) -> None:
    piles = await all_piles(site)
    answer = await site.client.get(f"{PUBLIC}/piles.csv")
    assert answer.headers["content-type"] == "text/csv; charset=utf-8"
    table = as_rows(answer.text)
    assert list(table[0]) == list(PILE_COLUMNS)
    assert table == [{k: "" if v is None else str(v) for k, v in row.items()} for row in piles]


async def test_sums_of_stations_and_districts_are_those_of_the_piles(site: Site) -> None:
    async with site.database.begin() as connection:
        for number, result, until in ((10, "fail", None), (20, "pass", None)):
            await connection.execute(
                insert(tables.verification).values(
                    connector_id=number, verified_on=date(2026, 1, 1), result=result,
                    valid_until=until,
                )
            )  # fmt: skip
        await connection.execute(
            update(tables.station)
            .where(tables.station.c.station_id == "TJ0012")
            .values(district=None)
        )
    piles = await all_piles(site)
    by_status = Counter(row["status"] for row in piles)
    assert set(by_status) == set(STATUSES)
    stations = PublicStations.model_validate((await site.client.get(f"{PUBLIC}/stations")).json())
    districts = PublicDistricts.model_validate(
        (await site.client.get(f"{PUBLIC}/districts")).json()
    )
    for found, key in ((stations.stations, "station_id"), (districts.districts, "district")):
        own: dict[Any, Counter[str]] = {}
        for row in piles:
            own.setdefault(row[key], Counter())[row["status"]] += 1
        assert {getattr(one, key) for one in found} == set(own)
        for one in found:
            counts = own[getattr(one, key)]
            assert one.piles == counts.total()
            assert {name: getattr(one, name) for name in STATUSES} == {
                name: counts[name] for name in STATUSES
            }
    for path, columns in (("stations", STATION_COLUMNS), ("districts", DISTRICT_COLUMNS)):
        table = as_rows((await site.client.get(f"{PUBLIC}/{path}.csv")).text)
        assert list(table[0]) == list(columns)


async def test_filters_narrow(site: Site) -> None:
    piles = await all_piles(site)
    for question, column, value in (
        ("station=TJ0003", "station_id", "TJ0003"),
        ("operator=OP2", "operator_id", "OP2"),
        ("district=120116", "district", "120116"),
    ):
        answer = await site.client.get(f"{PUBLIC}/piles?limit=1000&{question}")
        assert answer.json()["piles"] == [row for row in piles if row[column] == value]
        assert answer.json()["piles"], question
    for question in ("station=NOPE", "operator=' OR 1=1", "after=~", "district=x"):
        assert (await site.client.get(f"{PUBLIC}/piles?{question}")).json()["piles"] == []
    for question in ("limit=0", "limit=1001", "limit=x", "after=" + "x" * 65, "station=%00"):
        assert (await site.client.get(f"{PUBLIC}/piles?{question}")).status_code == 422
    pages = (await site.client.get(f"{PUBLIC}/stations?limit=5&after=TJ0010")).json()
    assert [row["station_id"] for row in pages["stations"]] == ["TJ0011", "TJ0012"]
    first = (await site.client.get(f"{PUBLIC}/stations?limit=5")).json()
    assert (len(first["stations"]), first["next_after"]) == (5, "TJ0005")


async def test_answers_can_be_kept_and_asked_for_again(site: Site) -> None:
    now = site.app.state.service.clock()
    site.app.state.service.clock = lambda: now
    for path in ("piles", "piles.csv", "stations.csv", "districts", "piles/TJ0001-01-1"):
        first = await site.client.get(f"{PUBLIC}/{path}")
        assert first.headers["cache-control"] == "public, max-age=300"
        assert first.headers["access-control-allow-origin"] == "*"
        assert "set-cookie" not in first.headers
        tag = first.headers["etag"]
        for known in (tag, f'"other", W/{tag}', "*"):
            again = await site.client.get(f"{PUBLIC}/{path}", headers={"if-none-match": known})
            assert (again.status_code, again.content) == (304, b"")
        other = await site.client.get(f"{PUBLIC}/{path}", headers={"if-none-match": '"x"'})
        assert other.status_code == 200
    before = (await site.client.get(f"{PUBLIC}/piles")).headers["etag"]
    async with site.database.begin() as connection:
        await connection.execute(update(tables.station).values(name="Renamed"))
    assert (await site.client.get(f"{PUBLIC}/piles")).headers["etag"] != before


async def test_the_licence_and_the_day_are_told(site: Site) -> None:
    for path in ("piles", "stations", "districts", "piles/TJ0001-01-1"):
        told = (await site.client.get(f"{PUBLIC}/{path}")).json()
        assert told["licence"] == "CC-BY-4.0"
        assert told["as_of"] == str(date.fromisoformat(told["as_of"]))
    PublicPileDetail.model_validate(told)


async def test_no_cell_is_a_formula(site: Site) -> None:
    async with site.database.begin() as connection:
        await connection.execute(update(tables.station).values(address='=HYPERLINK("evil")'))
    table = as_rows((await site.client.get(f"{PUBLIC}/piles.csv")).text)
    assert {row["address"] for row in table} == {'\'=HYPERLINK("evil")'}


def test_the_columns_are_the_documented_ones() -> None:
    table = {code(row[0])[0]: code(row[2]) for row in rows(section("public.md", "Open data"))}
    for path, columns in (
        ("piles", PILE_COLUMNS), ("stations", STATION_COLUMNS), ("districts", DISTRICT_COLUMNS),
    ):  # fmt: skip
        documented = table[f"GET /api/v1/public/{path}"]
        told = [name for name in columns if name not in STATUSES or path == "piles"]
        assert documented[: len(told)] == told, path


async def test_the_document_of_the_api_declares_it(site: Site) -> None:
    document = (await site.client.get("/api/v1/openapi.json")).json()
    for path in ("piles", "piles.csv", "stations", "districts.csv", "piles/{connector}"):
        operation = document["paths"][f"{PUBLIC}/{path}"]["get"]
        assert operation["tags"] == ["open data"]
        assert "429" in operation["responses"]
