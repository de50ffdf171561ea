from __future__ import annotations

import csv
import io
from collections.abc import AsyncIterator

import pytest
from sqlalchemy import update

from chargewatch.storage.tables import station
from web_city import PILES_PER_STATION, STATIONS, tier_of
from web_client import Site, open_site

N = STATIONS * PILES_PER_STATION


@pytest.fixture
async def site(any_database_url: str) -> AsyncIterator[Site]:
    async with open_site(any_database_url) as opened:
        opened.client.headers.update(await opened.token("admin"))
        yield opened


async def get(site: Site, path: str, **parameters: object) -> dict:
    answer = await site.client.get("/api/v1" + path, params=parameters)
    assert answer.status_code == 200, answer.text
    return answer.json()


async def test_list_is_in_order_of_urgency_and_complete(site: Site) -> None:
    first = await get(site, "/piles", limit=70)
    second = await get(site, "/piles", limit=70, offset=70)
    rows = first["piles"] + second["piles"]
    assert first["total"] == N == len({row["connector"] for row in rows})
    rank = {"red": 0, "orange": 1, "yellow": 2, "grey": 3, "green": 4}
    keys = [(rank[row["tier"]], -row["priority_money"]) for row in rows]
    assert keys == sorted(keys)


async def test_newest_finished_run_is_shown_not_the_running_one(site: Site) -> None:
    runs = (await get(site, "/runs"))["runs"]
    assert runs[0]["state"] == "running"
    assert (await get(site, "/piles"))["run_id"] == runs[1]["run_id"]


async def test_filters_narrow_the_list(site: Site) -> None:
    red = await get(site, "/piles", tier="red")
    assert red["total"] == len(red["piles"]) == sum(tier_of(n) == "red" for n in range(N))
    both = await get(site, "/piles", tier=["red", "grey"], operator="OP2")
    assert {row["tier"] for row in both["piles"]} == {"red", "grey"}
    assert {row["operator_id"] for row in both["piles"]} == {"OP2"}
    assert both["total"] == len(both["piles"])
    one = await get(site, "/piles", station="TJ0003")
    assert one["total"] == PILES_PER_STATION
    assert (await get(site, "/piles", district="120101"))["total"] == 20
    flagged = await get(site, "/piles", signal="stuck_register")
    assert [row["connector"] for row in flagged["piles"]] == ["TJ0001-02-1"]
    assert flagged["piles"][0]["open_signals"] == ["stuck_register"]


async def test_search_finds_names_and_stations_and_takes_wildcards_literally(site: Site) -> None:
    assert (await get(site, "/piles", q="tj0004-0"))["total"] == 9
    assert (await get(site, "/piles", q="南开"))["total"] == 20
    assert (await get(site, "/piles", q="%"))["total"] == 0
    assert (await get(site, "/piles", q="_"))["total"] == 0
    assert (await get(site, "/piles", q="'; DROP TABLE station; --"))["total"] == 0


async def test_a_page_is_a_slice_of_the_whole_list(site: Site) -> None:
    for question in (
        {"operator": "OP2"},
        {"district": "120101", "sort": "error"},
        {"q": "TJ000", "sort": "connector"},
        {"q": "南开", "tier": "green"},
        {"signal": "clock_skew"},
    ):
        whole = await get(site, "/piles", **question, limit=500)
        assert whole["total"] == len(whole["piles"]) > 0
        page = await get(site, "/piles", **question, limit=3, offset=2)
        assert page["total"] == whole["total"]
        assert page["piles"] == whole["piles"][2:5]
        beyond = await get(site, "/piles", **question, offset=whole["total"])
        assert (beyond["total"], beyond["piles"]) == (whole["total"], [])


async def test_sorts_put_the_unknown_last(site: Site) -> None:
    rows = (await get(site, "/piles", sort="error", limit=500))["piles"]
    sizes = [None if row["relative_error"] is None else abs(row["relative_error"]) for row in rows]
    known = [size for size in sizes if size is not None]
    assert known == sorted(known, reverse=True)
    assert set(sizes[len(known) :]) == {None}
    by_p = [
        row["p_nonconforming"] for row in (await get(site, "/piles", sort="probability"))["piles"]
    ]
    assert by_p == sorted(by_p, reverse=True)
    names = [row["connector"] for row in (await get(site, "/piles", sort="connector"))["piles"]]
    assert names == sorted(names)


@pytest.mark.parametrize(
    ("path", "code"),
    [
        ("/piles?tier=blue", "unknown_tier"),
        ("/piles?sort=colour", "unknown_sort"),
        ("/piles?limit=0", "invalid_request"),
        ("/piles?limit=100000", "invalid_request"),
        ("/piles?offset=-1", "invalid_request"),
        ("/ingest/ledger?after=TJ0001", "bad_after"),
        ("/piles/TJ0001-01-1/readings?since=2026-01-01T00:00:00", "naive_time"),
    ],
)
async def test_bad_questions_are_refused_in_words(site: Site, path: str, code: str) -> None:
    answer = await site.client.get("/api/v1" + path)
    assert answer.status_code == 422
    assert answer.json()["error"]["code"] == code


async def test_pile_shows_assessment_budget_and_evidence(site: Site) -> None:
    pile = await get(site, "/piles/TJ0001-01-1")
    assert pile["assessment"]["tier"] == "red"
    squares = sum(part["standard_uncertainty"] ** 2 for part in pile["assessment"]["budget"])
    assert squares**0.5 == pytest.approx(pile["assessment"]["standard_uncertainty"])
    assert pile["assessment"]["relative_error_light"] == pytest.approx(0.0512)
    assert [row["code"] for row in pile["signals"]][-1] == "register_jump"
    assert pile["verifications"][0]["certificate"] == "V-0"
    assert pile["n_sessions_stored"] == 60


async def test_what_is_not_known_is_null(site: Site) -> None:
    grey = (await get(site, "/piles/TJ0001-05-1"))["assessment"]
    assert grey["verdict"] == "not_identifiable"
    assert grey["relative_error"] is None
    assert grey["relative_error_light"] is None
    assert grey["reason"] == (
        "no reference meter, no verification and 3 of at least 8 sessions with a known vehicle"
    )
    readings = await get(site, "/piles/TJ0001-06-1/readings")
    assert set(readings["power_w"]) == {None}
    assert len(readings["at"]) == len(readings["energy_wh"]) == 192


async def test_history_holds_finished_runs_oldest_first(site: Site) -> None:
    rows = (await get(site, "/piles/TJ0001-01-1/history"))["history"]
    assert len(rows) == 14
    assert [row["as_of"] for row in rows] == sorted(row["as_of"] for row in rows)


async def test_sessions_come_in_pages_without_holes(site: Site) -> None:
    seen = []
    for offset in range(0, 60, 25):
        page = await get(site, "/piles/TJ0001-01-1/sessions", limit=25, offset=offset)
        assert page["total"] == 60
        seen += [row["session"] for row in page["sessions"]]
    assert seen == [f"S-{k:04d}" for k in range(60)]


async def test_declared_changes_of_a_connector_and_its_station(site: Site) -> None:
    changes = (await get(site, "/piles/TJ0001-01-1/changes"))["changes"]
    assert [(row["kind"], row["of_connector"]) for row in changes] == [
        ("meter_replaced", True),
        ("seal_opened", False),
    ]
    assert (changes[0]["stop_wh"], changes[0]["start_wh"]) == (1_254_310, 0)
    assert changes[0]["serial"] == "B-77"
    others = (await get(site, "/piles/TJ0001-02-1/changes"))["changes"]
    assert [row["kind"] for row in others] == ["seal_opened"]


async def test_signed_records_are_judged_check_by_check(site: Site) -> None:
    page = await get(site, "/piles/TJ0001-01-1/sessions", limit=60)
    signed = {row["session"]: row for row in page["sessions"] if row["signed_format"]}
    assert {name: row["signed"] for name, row in signed.items()} == {
        "S-0000": "genuine",
        "S-0009": "forged",
        "S-0018": "mismatch",
        "S-0027": "not_verified",
        "S-0036": "genuine",
        "S-0045": "genuine",
        "S-0054": "genuine",
    }
    checks = {check["check"]: check["state"] for check in signed["S-0018"]["signed_checks"]}
    assert checks == {
        "schema": "ok",
        "signature": "ok",
        "key": "ok",
        "identity": "ok",
        "register": "failed",
        "clock": "ok",
    }
    assert page["sessions"][1]["signed"] is None
    assert "signed_data" not in page["sessions"][0]


async def test_readings_are_bounded_and_say_so(site: Site) -> None:
    answer = await get(site, "/piles/TJ0001-01-1/readings", limit=10)
    assert answer["truncated"] is True
    assert len(answer["at"]) == 10


async def test_station_balance_is_the_sum_of_its_piles(site: Site) -> None:
    detail = await get(site, "/stations/TJ0001")
    steps = detail["balances"][0]["steps"]
    piles = sum(step["piles_wh"] for step in steps)
    assert piles == pytest.approx(9 * 1700 * sum(k % 16 < 9 for k in range(192)))
    assert sum(step["slots"] for step in steps) == 192
    assert len(detail["piles"]) == PILES_PER_STATION
    assert [gap["closed_at"] is None for gap in detail["gaps"]] == [True, False]
    empty = await get(site, "/stations/TJ0009")
    assert empty["balances"][0]["steps"] == []


async def test_stations_count_their_tiers(site: Site) -> None:
    listed = await get(site, "/stations", q="河西")
    assert listed["total"] == 2
    row = listed["stations"][0]
    assert (row["station_id"], row["connectors"], row["red"], row["meters"]) == ("TJ0003", 10, 1, 1)


async def paged(site: Site, path: str, *, rows: str, cursor: str, **parameters: object) -> list:
    """Return all rows of a list that goes by key, read two at a time."""
    found: list = []
    here: dict[str, object] = {}
    while True:
        page = await get(site, path, limit=2, **parameters, **here)
        found += page[rows]
        if page[f"next_{cursor}"] is None:
            return found
        here = {cursor: page[f"next_{cursor}"]}


async def test_lists_by_key_are_complete_page_by_page(site: Site) -> None:
    for path, rows, cursor, questions in (
        ("/ingest/ledger", "streams", "after", ({}, {"operator": "OP1"}, {"gaps": True})),
        ("/signals", "signals", "before", ({}, {"open": True}, {"code": "register_jump"})),
        ("/ingest/quarantine", "items", "before", ({}, {"station": "TJ0001"})),
    ):
        for question in questions:
            whole = (await get(site, path, limit=500, **question))[rows]
            assert whole
            assert await paged(site, path, rows=rows, cursor=cursor, **question) == whole
    streams = (await get(site, "/ingest/ledger", limit=500))["streams"]
    keys = [(row["operator_id"], row["station_id"], row["topic"]) for row in streams]
    assert keys == sorted(keys)


async def test_ledger_balances_and_shows_its_open_gap(site: Site) -> None:
    ledger = await get(site, "/ingest/ledger")
    assert ledger["balanced"] is True
    for row in ledger["streams"]:
        assert row["received"] == row["stored"] + row["duplicate"] + row["rejected"]
    assert [(gap["first_seq"], gap["last_seq"]) for gap in ledger["open_gaps"]] == [(40, 43)]
    with_gaps = (await get(site, "/ingest/ledger", gaps=True))["streams"]
    assert [(row["station_id"], row["missing"]) for row in with_gaps] == [("TJ0001", 4)]
    assert (await get(site, "/ingest/ledger", unbalanced=True))["streams"] == []


async def test_quarantine_is_read_by_code_and_page(site: Site) -> None:
    first = await get(site, "/ingest/quarantine", limit=2)
    rest = await get(site, "/ingest/quarantine", limit=2, before=first["next_before"])
    codes = [row["code"] for row in first["items"] + rest["items"]]
    assert codes == ["conflict", "malformed", "naive_time"]
    bad = (await get(site, "/ingest/quarantine", code="malformed"))["items"][0]
    assert bad["preview"] == "\\xff\\xfe<script>alert(1)</script>"


async def test_signals_are_filtered(site: Site) -> None:
    assert len((await get(site, "/signals"))["signals"]) == 5
    assert len((await get(site, "/signals", open=True, severity="severe"))["signals"]) == 2


async def test_unregistered_claims_of_one_name_are_told_apart(site: Site) -> None:
    from sqlalchemy import insert

    from chargewatch.storage.tables import connector

    async with site.database.begin() as connection:
        await connection.execute(
            insert(connector),
            [
                {"connector": "GHOST-1", "operator_id": "OP1", "station_id": place}
                for place in ("TJ0002", "TJ0003")
            ],
        )
    ghost = await get(site, "/piles/GHOST-1", station_id="TJ0003")
    assert ghost["registry"]["station_id"] == "TJ0003"
    assert ghost["registry"]["registered"] is False
    assert ghost["assessment"] is None


async def test_export_is_the_whole_filtered_list_and_no_formula(site: Site) -> None:
    async with site.database.begin() as connection:
        await connection.execute(
            update(station).where(station.c.station_id == "TJ0001").values(name="=1+1")
        )
    answer = await site.client.get("/piles.csv")
    rows = list(csv.DictReader(io.StringIO(answer.content.decode("utf-8-sig"))))
    assert len(rows) == N
    assert {row["station_name"] for row in rows if row["station_id"] == "TJ0001"} == {"'=1+1"}
    assert rows[0]["tier"] == "red"
    assert float(rows[0]["relative_error"]) > 0.02
    assert {row["relative_error"] for row in rows if row["tier"] == "grey"} == {""}
    assert rows[0]["time_zone"] == "Asia/Shanghai"
    red = await site.client.get("/piles.csv?tier=red")
    assert len(red.content.splitlines()) == 7
