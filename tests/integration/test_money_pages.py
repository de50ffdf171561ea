"""Money owed on pages, in the API and in files: what it says, and to whom."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import AsyncIterator

import pytest

from chargewatch.api import models_money
from running import RunCommand
from web_client import Site, open_site

OF_OP1 = re.compile(r"TJ00(02|03|05|06|08|09|11|12)|OP1\b|津充运营")


@pytest.fixture
async def site(database_url: str) -> AsyncIterator[Site]:
    async with open_site(database_url) as opened:
        yield opened


async def test_sums_and_piles_stand_apart_by_side_and_cause(site: Site) -> None:
    header = await site.token("admin")
    told = (await site.client.get("/api/v1/money", headers=header)).json()
    models_money.Money.model_validate(told)
    assert len(told["months"]) == 2
    everybody = {r["cause"]: r for r in told["totals"] if not r["operator_id"]}
    by_operator = [r for r in told["totals"] if r["operator_id"]]
    for cause in ("error", "billing"):
        for name in ("overcharge_cny", "undercharge_cny", "paid_cny", "sessions"):
            parts = sum(r[name] for r in by_operator if r["cause"] == cause)
            assert parts == pytest.approx(everybody[cause][name])
    assert everybody["error"]["connectors_unknown"] == 12
    await site.log_in("admin")
    for language, words in (("en", "Overcharged by the meter"), ("zh", "计量多收")):
        await site.client.get("/preferences", params={"language": language, "next": "/"})
        for address in ("/", "/money", "/piles/TJ0001-01-1", "/piles/TJ0001-01-1/money"):
            assert words in (await site.client.get(address)).text, address


async def test_every_page_of_a_month_is_reached_and_none_comes_twice(site: Site) -> None:
    header = await site.token("admin")
    for side in ("overcharge", "undercharge"):
        amounts, names, after = [], [], ""
        while True:
            answer = await site.client.get(
                "/api/v1/money/piles",
                params={"side": side, "limit": 7, "after": after},
                headers=header,
            )
            page = answer.json()
            models_money.PilesOwed.model_validate(page)
            amounts += [row[f"{side}_cny"] for row in page["piles"]]
            names += [row["connector"] for row in page["piles"]]
            after = page["next_after"]
            if after is None:
                break
        assert len(names) == len(set(names)) > 20
        assert amounts == sorted(amounts, reverse=True)
        assert min(amounts) >= 0.005


async def test_an_operator_sees_its_own_money_only(site: Site) -> None:
    header = await site.token("op2")
    told = (await site.client.get("/api/v1/money", headers=header)).json()
    assert {row["operator_id"] for row in told["totals"]} == {"OP2"}
    await site.log_in("op2")
    for address in (
        "/money",
        "/money?operator=OP1",
        "/money.csv",
        "/api/v1/money/piles?operator=OP1",
        "/api/v1/money/piles?limit=500",
    ):
        headers = header if address.startswith("/api") else {}
        answer = await site.client.get(address, headers=headers)
        assert answer.status_code == 200, address
        # The form says again what was asked for.
        found = OF_OP1.sub("", answer.text) if "=OP1" in address else answer.text
        assert not OF_OP1.search(found), address
    for address in ("/api/v1/piles/TJ0002-01-1/money", "/api/v1/piles/TJ0002-01-1/money/sessions"):
        assert (await site.client.get(address, headers=header)).status_code == 404


@pytest.mark.parametrize(
    ("question", "status"),
    [
        ("month=2026-13", 422),
        ("month=2026", 422),
        ("month=%D9%A2%D9%A0%D9%A2%D9%A6-11", 422),
        ("month=1999-01", 404),
        ("cause=tax", 422),
        ("side=left", 422),
        ("after=nan:1", 422),
        ("after=1", 422),
        ("after=1:-1", 422),
        ("after=1:99999999999", 422),
    ],
)
async def test_what_can_not_be_asked_is_said(site: Site, question: str, status: int) -> None:
    header = await site.token("admin")
    answer = await site.client.get(f"/api/v1/money/piles?{question}", headers=header)
    assert answer.status_code == status, answer.text
    assert answer.json()["error"]["message"]


async def test_sessions_say_what_they_should_have_been(site: Site) -> None:
    header = await site.token("admin")
    told = (
        await site.client.get("/api/v1/piles/TJ0001-01-1/money/sessions?show=all", headers=header)
    ).json()
    models_money.SessionsOwed.model_validate(told)
    assert told["total"] > 0
    for row in told["sessions"]:
        # 12.345 kWh by the register, 12.777 charged for.
        assert row["metered_wh"] == pytest.approx(12_345)
        if row["counted"]:
            both = row["bill_difference"] + row["error_difference"]
            assert row["difference"] == pytest.approx(both)
            assert row["should_have_been"] == pytest.approx(row["paid"] - both)
        else:
            assert {"no_money", "no_energy", "no_error"} & set(row["why"])
    months = (await site.client.get("/api/v1/piles/TJ0001-01-1/money", headers=header)).json()
    models_money.PileMoney.model_validate(months)
    assert {row["cause"] for row in months["months"]} == {"error", "billing"}


async def test_files_hold_every_pile_and_nothing_is_not_known_as_nothing(
    site: Site, database_url: str, run_command: RunCommand
) -> None:
    await site.log_in("admin")
    text = (await site.client.get("/money.csv")).content.decode("utf-8-sig")
    page = list(csv.DictReader(io.StringIO(text)))
    environment = {"CHARGEWATCH_DATABASE_URL": database_url}
    done = run_command("money", "export", env=environment)
    assert done.returncode == 0, done.stderr
    rows = json.loads(done.stdout)
    assert len(rows) == len(page) == 2 * (120 + 10)
    for one, other in zip(page, rows, strict=True):
        assert one["connector"] == other["connector"]
        amount = other["overcharge_cny"]
        assert one["overcharge_cny"] == ("" if amount is None else str(amount))
    assert sum(row["overcharge_cny"] is None for row in rows) == 24
    month = rows[-1]["month"]
    done = run_command("money", "export", "--month", month, "--format", "csv", env=environment)
    assert len(done.stdout.splitlines()) == 1 + 130
    done = run_command("money", "export", "--month", "1999-01", env=environment)
    assert done.returncode == 1
    assert month in done.stderr
    done = run_command("money", "export", "--month", "soon", env=environment)
    assert done.returncode == 2
