"""The index of piles answers what a plain computation over all rows answers."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from typing import Any

import numpy as np
import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from chargewatch.domain.mpe import rule_set
from chargewatch.runs.assess import run_assessment
from chargewatch.settings import load_settings
from chargewatch.storage import pile_index
from chargewatch.storage.database import Database, open_database
from chargewatch.storage.migrate import migrate
from chargewatch.storage.pages import city as city_rows
from chargewatch.storage.pages import messages as message_rows
from chargewatch.storage.pages import piles as pile_list_rows
from chargewatch.storage.pages.piles import PileFilter, PilePage
from chargewatch.storage.pile_index import SORTS, TIERS, driver_of, rebuild
from chargewatch.supervision.audit import Actor
from chargewatch.supervision.registry import import_registry
from chargewatch.wire.registry_file import read_registry_file

TODAY = date(2026, 4, 1)

CITY = """
INSERT INTO operator (operator_id, name) VALUES ('OP0', 'a'), ('OP1', 'b'), ('OP2', 'c');
INSERT INTO station (station_id, operator_id, name, district)
SELECT 'ST' || g, 'OP' || g % 3,
  (ARRAY['南开大学', 'East 100%', 'Straße', 'east', 'a_b'])[1 + g % 5],
  (ARRAY['120101', '120102', NULL])[1 + g % 3] FROM generate_series(0, 11) g;
INSERT INTO ledger_stream (operator_id, station_id, topic, messages, received, stored, duplicate,
  rejected, last_received_at)
SELECT operator_id, station_id, topic, 7, 50, 40, 5, CASE WHEN topic = 'status' THEN 4 ELSE 5 END,
  timestamptz '2026-04-01Z' - length(name) * interval '1 h'
FROM station, unnest(ARRAY['registers', 'reference', 'status']) topic;
INSERT INTO risk_run (state, mode, as_of, started_at, version, configuration) VALUES
  ('finished', 'full', '2026-03-30Z', '2026-03-30Z', '0', '{}'),
  ('finished', 'full', '2026-03-31Z', '2026-03-31Z', '0', '{}'),
  ('running', 'full', '2026-04-01Z', '2026-04-01Z', '0', '{}')
"""
NAN_LAST = "NULLIF(a.{}, 'NaN'::double precision)"
RANK = "array_position(ARRAY['red', 'orange', 'yellow', 'grey', 'green'], a.tier)"
ORDERS = {
    "priority": f"{RANK}, {NAN_LAST.format('priority_money')} DESC NULLS LAST, a.connector_id",
    "money": f"{NAN_LAST.format('priority_money')} DESC NULLS LAST, a.connector_id",
    **{
        side: f"coalesce({NAN_LAST.format(f'{side}_error')} + "
        f"coalesce({NAN_LAST.format(f'{side}_billing')}, 0), "
        f"{NAN_LAST.format(f'{side}_billing')}) DESC NULLS LAST, a.connector_id"
        for side in ("overcharge", "undercharge")
    },
    "error": f"abs({NAN_LAST.format('relative_error')}) DESC NULLS LAST, a.connector_id",
    "probability": f"{NAN_LAST.format('p_nonconforming')} DESC NULLS LAST, a.connector_id",
    "connector": "c.connector, c.operator_id, c.station_id",
}


async def fill(connection: AsyncConnection, *, connectors: int = 400) -> None:
    """Write a city of chance: ties, unknowns, claims, connectors that no run has seen."""
    random = np.random.default_rng(7)
    driver = await driver_of(connection)
    for statement in CITY.split(";\n"):
        await connection.execute(text(statement))
    rows, verifications, assessments, signals = [], [], [], []
    for k in range(connectors):
        station = int(random.integers(0, 13))
        registered = bool(random.random() < 0.9)
        # Several stations may claim a name that nobody registered.
        name = f"tj{k:03d}-{'äß中'[k % 3]}" if registered else f"TJ-{k % 20}"
        operator_id = f"OP{(station + (not registered)) % 3}"
        rows.append((k + 1, name, operator_id, f"ST{station}", registered))
        for year in random.integers(2023, 2028, int(random.integers(0, 3))).tolist():
            until = None if random.random() < 0.1 else date(year, 1 + k % 12, 1 + k % 28)
            result = "pass" if random.random() < 0.8 else "fail"
            verifications.append((k + 1, date(year - 3, 1, 1), until, result, str(len(rows))))
        for run_id in (1, 2):
            if random.random() < 0.1:
                continue
            values = [
                float(v) if random.random() < 0.8 else math.nan for v in random.normal(0, 1, 3)
            ]
            values = [round(v, 1) for v in values]
            tier = TIERS[int(random.integers(0, 5))]
            assessments.append(
                (run_id, k + 1, *values, 1, 1, 1, "undecided", tier, 1, 1, 1, 1, "m", "[]")
            )
        for code in ("fee_mismatch", "silence", "clock_skew"):
            if random.random() < 0.1:
                closed = 2 if random.random() < 0.3 else None
                at = (timedelta(0) + TODAY, TODAY)
                signals.append(
                    (code, "mild", f"{k}", name, f"ST{station}", operator_id, *at, closed)
                )
    await driver.executemany(
        "INSERT INTO connector (connector_id, connector, operator_id, station_id, registered) "
        "OVERRIDING SYSTEM VALUE VALUES ($1, $2, $3, $4, $5) ON CONFLICT DO NOTHING",
        rows,
    )
    stored = {row[0] for row in await driver.fetch("SELECT connector_id FROM connector")}
    await driver.executemany(
        "INSERT INTO verification (connector_id, verified_on, valid_until, result, certificate) "
        "VALUES ($1, $2, $3, $4, $5) ON CONFLICT DO NOTHING",
        [row for row in verifications if row[0] in stored],
    )
    await driver.executemany(
        "INSERT INTO assessment (run_id, connector_id, relative_error, priority_money, "
        "p_nonconforming, standard_uncertainty, common_uncertainty, mpe, verdict, tier, "
        "n_intervals, n_sessions, n_vehicles, n_direct, method, budget) VALUES "
        "($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16)",
        [row for row in assessments if row[1] in stored],
    )
    await driver.executemany(
        "INSERT INTO signal (code, severity, subject, connector, station_id, operator_id, "
        'first_at, last_at, count, value, "limit", detail, evidence, rule_version, opened_run, '
        "last_run, closed_run) VALUES "
        "($1, $2, $3, $4, $5, $6, $7, $8, 1, 1, 1, '', '{}', 1, 1, 1, $9)",
        signals,
    )


@pytest.fixture
async def city(any_database_url: str) -> AsyncIterator[Database]:
    async with open_database(any_database_url) as database:
        async with database.begin() as connection:
            await fill(connection)
            driver = await driver_of(connection)
            await driver.execute(
                "UPDATE assessment SET overcharge_error = round(random()), "
                "undercharge_error = connector_id % 3, undercharge_billing = 1 "
                "WHERE connector_id % 4 > 0"
            )
            await driver.execute(
                "UPDATE assessment SET overcharge_billing = connector_id % 5 "
                "WHERE connector_id % 3 > 0"
            )
            await rebuild(driver)
        yield database


async def plain_list(
    connection: AsyncConnection, wanted: PileFilter, *, run_id: int, scope: str | None
) -> list[int]:
    """Return the connectors of a list by one statement over all rows."""
    query = (
        "SELECT a.connector_id FROM assessment a JOIN connector c USING (connector_id) "
        "LEFT JOIN station s USING (station_id, operator_id) WHERE a.run_id = :run_id "
        "AND (CAST(:scope AS text) IS NULL OR c.operator_id = :scope) "
        "AND (cardinality(CAST(:tiers AS text[])) = 0 OR a.tier = ANY(:tiers)) "
        "AND (:operator_id = '' OR c.operator_id = :operator_id) "
        "AND (:station_id = '' OR c.station_id = :station_id) "
        "AND (:district = '' OR s.district = :district) "
        "AND (:signal = '' OR (c.connector, c.operator_id, c.station_id) IN "
        "(SELECT connector, operator_id, station_id FROM signal "
        "WHERE closed_run IS NULL AND code = :signal)) "
        "AND (:text = '' OR starts_with(upper(c.connector), upper(:text)) "
        "OR strpos(lower(s.name), lower(:text)) > 0) "
        f"ORDER BY {ORDERS[wanted.sort]}"
    )
    values = {**vars(wanted), "tiers": list(wanted.tiers), "run_id": run_id, "scope": scope}
    del values["sort"]
    return list((await connection.execute(text(query), values)).scalars())


FILTERS = (
    PileFilter(),
    PileFilter(tiers=("grey", "red")),
    PileFilter(operator_id="OP1"),
    PileFilter(operator_id="nobody"),
    PileFilter(station_id="ST3"),
    PileFilter(station_id="nowhere"),
    PileFilter(district="120102"),
    PileFilter(district="nowhere"),
    PileFilter(signal="silence"),
    PileFilter(signal="no_such_code"),
    PileFilter(text="TJ0"),
    PileFilter(text="tj12"),
    PileFilter(text="EAST"),
    PileFilter(text="%"),
    PileFilter(text="_"),
    PileFilter(text="南开"),
    PileFilter(text="zzz"),
    PileFilter(operator_id="OP2", tiers=("green", "orange")),
    PileFilter(district="120101", signal="fee_mismatch"),
    PileFilter(operator_id="OP0", district="120101", tiers=("grey", "green"), text="tj"),
)


@pytest.mark.parametrize("run_id", [1, 2])
@pytest.mark.parametrize("scope", [None, "OP1", "nobody"])
async def test_every_list_is_that_of_a_plain_statement(
    city: Database, run_id: int, scope: str | None
) -> None:
    async with city.connect() as connection:
        ids = {
            (row.connector, row.operator_id, row.station_id): row.connector_id
            for row in await connection.execute(text("SELECT * FROM connector"))
        }

        def keys_of(page: PilePage) -> list[int]:
            return [
                ids[row["connector"], row["operator_id"], row["station_id"]] for row in page.rows
            ]

        seen = 0
        for wanted in FILTERS:
            for sort in SORTS:
                question = replace(wanted, sort=sort)
                expected = await plain_list(connection, question, run_id=run_id, scope=scope)
                page = await pile_list_rows.piles(
                    connection, question, run_id=run_id, scope=scope, limit=1_000, offset=0
                )
                assert keys_of(page) == expected, question
                assert page.total == len(expected)
                seen += page.total
                some = await pile_list_rows.piles(
                    connection, question, run_id=run_id, scope=scope, limit=7, offset=11
                )
                assert keys_of(some) == expected[11:18]
        assert (seen > 0) == (scope != "nobody")


@pytest.mark.parametrize("run_id", [1, 2])
@pytest.mark.parametrize("scope", [None, "OP1"])
async def test_sums_are_those_of_plain_statements(
    city: Database, run_id: int, scope: str | None
) -> None:
    own = "(CAST(:scope AS text) IS NULL OR c.operator_id = :scope)"
    values: dict[str, Any] = {"run_id": run_id, "scope": scope, "today": TODAY}
    values |= {"soon": TODAY + timedelta(days=90)}
    async with city.connect() as connection:
        grouped = await connection.execute(
            text(
                "SELECT coalesce(s.district, ''), a.tier, count(*), "
                "coalesce(sum(NULLIF(a.priority_money, 'NaN'::double precision)), 0) "
                "FROM assessment a JOIN connector c USING (connector_id) "
                "LEFT JOIN station s USING (station_id, operator_id) "
                f"WHERE a.run_id = :run_id AND {own} GROUP BY 1, 2"
            ),
            {name: values[name] for name in ("run_id", "scope")},
        )
        plain = [tuple(row) for row in grouped]
        found = await city_rows.tiers_by_district(connection, run_id, scope=scope)
        assert sorted((row.district, row.tier, row.connectors) for row in found) == sorted(
            (row[0], row[1], row[2]) for row in plain
        )
        money = {(row[0], row[1]): row[3] for row in plain}
        assert {(row.district, row.tier): row.money for row in found} == pytest.approx(money)
        valid = (
            await connection.execute(
                text(
                    "SELECT count(*) AS connectors, "
                    "count(*) FILTER (WHERE until >= :today) AS valid, "
                    "count(*) FILTER (WHERE until >= :today AND until < :soon) AS due_soon, "
                    "count(*) FILTER (WHERE until < :today) AS expired, "
                    "count(*) FILTER (WHERE until IS NULL) AS never FROM (SELECT "
                    "coalesce((SELECT max(valid_until) FROM verification v "
                    "WHERE v.result = 'pass' AND v.connector_id = c.connector_id "
                    "AND NOT EXISTS (SELECT FROM verification f WHERE f.result = 'fail' "
                    "AND f.connector_id = c.connector_id AND f.verified_on >= v.verified_on)), "
                    "(SELECT max(verified_on) - 1 FROM verification f WHERE f.result = 'fail' "
                    "AND f.connector_id = c.connector_id)) AS until FROM connector c "
                    f"WHERE c.registered AND {own}) x"
                ),
                {name: values[name] for name in ("today", "soon", "scope")},
            )
        ).mappings()
        coverage = await city_rows.verification_coverage(
            connection, today=TODAY, soon=values["soon"], scope=scope
        )
        assert coverage == dict(valid.one())
        assert all(coverage.values())


@pytest.mark.parametrize("scope", [None, "OP1"])
async def test_newest_red_are_those_of_a_plain_statement(city: Database, scope: str | None) -> None:
    async with city.connect() as connection:
        for run_id, previous in ((1, None), (2, 1)):
            rows = await connection.execute(
                text(
                    "SELECT c.connector, c.station_id, b.tier IS DISTINCT FROM 'red' "
                    "FROM assessment a JOIN connector c USING (connector_id) "
                    "LEFT JOIN assessment b ON b.connector_id = a.connector_id "
                    "AND b.run_id = CAST(:previous AS bigint) "
                    "WHERE a.run_id = :run_id AND a.tier = 'red' "
                    "AND (CAST(:scope AS text) IS NULL OR c.operator_id = :scope) "
                    "ORDER BY 3 DESC, NULLIF(a.priority_money, 'NaN'::double precision) "
                    "DESC NULLS LAST, c.connector, c.operator_id, c.station_id"
                ),
                {"run_id": run_id, "previous": previous, "scope": scope},
            )
            expected = [tuple(row) for row in rows]
            for limit in (5, 1_000):
                found = await city_rows.newest_red(connection, run_id, scope=scope, limit=limit)
                assert [
                    (row["connector"], row["station_id"], row["newly_red"]) for row in found
                ] == expected[:limit]


async def test_ledger_sums_are_those_of_plain_statements(city: Database) -> None:
    async with city.connect() as connection:
        recently = await connection.scalar(text("SELECT timestamptz '2026-03-31T20:00Z'"))
        for scope in (None, "OP1", "nobody"):
            own = "(CAST(:scope AS text) IS NULL OR operator_id = :scope)"
            plain = await connection.execute(
                text(
                    "SELECT count(DISTINCT station_id) AS stations, count(DISTINCT station_id) "
                    "FILTER (WHERE last_received_at > :recently) AS stations_recent, "
                    "max(last_received_at) AS last_received_at, "
                    "coalesce(sum(messages), 0)::bigint AS messages, coalesce(sum(received) "
                    "FILTER (WHERE topic IN ('registers', 'reference')), 0)::bigint AS readings "
                    f"FROM ledger_stream WHERE {own}"
                ),
                {"recently": recently, "scope": scope},
            )
            arrival = await city_rows.arrival(connection, recently=recently, scope=scope)
            assert arrival == dict(plain.mappings().one())
        for station_id, operator_id, scope, streams in (
            ("", "", None, 12),
            ("ST1", "", None, 1),
            ("", "OP1", None, 4),
            ("ST1", "OP1", "OP1", 1),
            ("ST1", "", "OP0", 0),
            ("", "OP1", "OP0", 0),
        ):
            totals = await message_rows.ledger_totals(
                connection, scope=scope, station_id=station_id, operator_id=operator_id
            )
            assert [row["streams"] for row in totals] == ([streams] * 3 if streams else [])
            assert [row["unbalanced"] for row in totals] == ([0, 0, streams] if streams else [])


async def test_before_the_first_run_the_list_is_the_registry_by_name(
    any_database_url: str,
) -> None:
    async with open_database(any_database_url) as database, database.begin() as connection:
        await fill(connection, connectors=60)
        await connection.execute(text("DELETE FROM assessment"))
        await connection.execute(text("UPDATE risk_run SET state = 'failed'"))
        await rebuild(await driver_of(connection))
        expected = await connection.execute(
            text(
                "SELECT connector FROM connector WHERE operator_id = 'OP1' "
                "ORDER BY connector, operator_id, station_id"
            )
        )
        page = await pile_list_rows.piles(
            connection,
            PileFilter(operator_id="OP1"),
            run_id=None,
            scope=None,
            limit=500,
            offset=0,
        )
        assert [row["connector"] for row in page.rows] == list(expected.scalars())
        assert {row["tier"] for row in page.rows} == {None}
        tiers = PileFilter(tiers=("red",))
        none = await pile_list_rows.piles(
            connection, tiers, run_id=None, scope=None, limit=500, offset=0
        )
        assert (none.rows, none.total) == ([], 0)


async def test_an_empty_database_has_an_empty_list(any_database_url: str) -> None:
    async with open_database(any_database_url) as database, database.connect() as connection:
        for wanted in (PileFilter(), PileFilter(text="x", signal="silence", district="y")):
            page = await pile_list_rows.piles(
                connection, wanted, run_id=None, scope="OP1", limit=50, offset=0
            )
            assert (page.rows, page.total) == ([], 0)
        coverage = await city_rows.verification_coverage(
            connection, today=TODAY, soon=TODAY, scope=None
        )
        assert set(coverage.values()) == {0}


async def test_sold_station_is_its_new_operators_from_the_import_on(
    city: Database, tmp_path: Any
) -> None:
    path = tmp_path / "registry.json"
    path.write_text(
        '{"version": 1, "stations": [{"station_id": "ST1", "operator_id": "OP2", '
        '"district": "120116"}]}'
    )
    rules = rule_set("CN-2022")
    await import_registry(city, read_registry_file(path), actor=Actor(name="test"), rules=rules)
    at_station = PileFilter(station_id="ST1")
    async with city.connect() as connection:
        for scope, operator_id in (("OP1", ""), ("OP2", ""), (None, "OP2"), (None, "")):
            wanted = replace(at_station, operator_id=operator_id)
            expected = await plain_list(connection, wanted, run_id=2, scope=scope)
            page = await pile_list_rows.piles(
                connection, wanted, run_id=2, scope=scope, limit=500, offset=0
            )
            assert page.total == len(expected)
            assert all(row["operator_id"] == (scope or row["operator_id"]) for row in page.rows)
        found = await city_rows.tiers_by_district(connection, 2, scope=None)
        assert "120116" in {row.district for row in found}


async def test_a_run_makes_the_index_and_a_replay_leaves_that_of_the_newest(
    city: Database,
) -> None:
    async def stored() -> tuple[dict[str, bytes], dict[str, bytes]]:
        async with city.raw() as connection:
            rows = await connection.fetch("SELECT name, content FROM pile_index")
            return dict(rows), await pile_index.build(connection)

    settings = load_settings({})
    newest = await run_assessment(city, settings, as_of=datetime(2026, 4, 2, tzinfo=UTC))
    found, expected = await stored()
    assert found == expected
    assert pile_index.PileIndex.of(found).run_id == newest.run_id
    await run_assessment(city, settings, as_of=datetime(2026, 4, 1, tzinfo=UTC))
    found, expected = await stored()
    assert found == expected
    assert pile_index.PileIndex.of(found).run_id == newest.run_id


async def test_stored_index_is_read_and_that_of_another_run_is_built(
    city: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    built = []
    plain_build = pile_index.build

    async def counted(*arguments: Any, **options: Any) -> Any:
        built.append(options.get("run_id"))
        return await plain_build(*arguments, **options)

    monkeypatch.setattr(pile_index, "build", counted)
    async with city.connect() as connection:
        for run_id in (2, 1, 2):
            await city_rows.newest_red(connection, run_id, scope=None, limit=5)
    assert built == [1]


async def test_migration_of_a_filled_database_makes_the_index(empty_database_url: str) -> None:
    async with open_database(empty_database_url) as database:
        await migrate(database, revision="0001")
        async with database.begin() as connection:
            await fill(connection, connectors=50)
        await migrate(database)
        async with database.raw() as connection:
            stored = dict(await connection.fetch("SELECT name, content FROM pile_index"))
            assert stored == await pile_index.build(connection)
            assert pile_index.PileIndex.of(stored).run_id == 2


async def test_of_two_rebuilds_at_once_the_later_sees_what_the_earlier_changed(
    city: Database,
) -> None:
    async with city.raw() as first, city.raw() as second:
        begun = first.transaction()
        await begun.start()
        await first.execute("UPDATE connector SET operator_id = 'OP9' WHERE connector_id = 1")
        await rebuild(first)

        async def other() -> None:
            async with second.transaction():
                await second.execute(
                    "UPDATE connector SET operator_id = 'OP8' WHERE connector_id = 2"
                )
                await rebuild(second)

        task = asyncio.create_task(other())
        await asyncio.sleep(0.2)
        assert not task.done()
        await begun.commit()
        await asyncio.wait_for(task, 30)
        stored = dict(await first.fetch("SELECT name, content FROM pile_index"))
        assert {"OP8", "OP9"} <= set(pile_index.PileIndex.of(stored).operators)
        assert stored == await pile_index.build(first)
