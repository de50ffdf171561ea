"""The road of an unregistered instrument: claim, assessment, signal, registration, next run."""

import asyncio
import copy
import json
from collections.abc import AsyncIterator
from datetime import timedelta

import pytest
from roles_site import Site, open_roles
from runs_case import TO, feed, make_test_city, messages_of, register

from chargewatch.runs.assess import run_assessment
from chargewatch.runs.exports import assessment_rows, signal_rows
from chargewatch.settings import load_settings
from chargewatch.storage.database import open_database


def without(document, connector, meter):
    """Return the registry file without a connector and without a meter."""
    partial = copy.deepcopy(document)
    for name in ("connectors", "verifications"):
        partial[name] = [row for row in partial[name] if row["connector"] != connector]
    partial["reference_meters"] = [
        row for row in partial["reference_meters"] if row["meter"] != meter
    ]
    for row in partial["reference_meters"]:
        row["connectors"] = [name for name in row["connectors"] if name != connector]
    return partial


def at_another_station(document, connector, meter):
    """Return the registry file with a connector and a meter entered at a wrong station."""
    wrong = without(document, connector, meter)
    for name, key, value in (
        ("connectors", "connector", connector),
        ("reference_meters", "meter", meter),
    ):
        row = copy.deepcopy(next(row for row in document[name] if row[key] == value))
        row["station_id"] = next(
            other["station_id"]
            for other in document["stations"]
            if other["station_id"] != row["station_id"]
        )
        if name == "reference_meters":
            row["connectors"] = []
        wrong[name].append(row)
    return wrong


async def rollups(database):
    """Return all rollups by the name of their registered instrument."""
    async with database.raw() as connection:
        return await connection.fetch(
            "SELECT connector AS name, slot_at, energy_wh, u_wh, quality "
            "FROM connector_interval JOIN connector USING (connector_id) WHERE registered "
            "UNION ALL SELECT meter, slot_at, energy_wh, u_wh, quality "
            "FROM meter_interval JOIN reference_meter USING (meter_id) WHERE registered "
            "ORDER BY name, slot_at"
        )


async def rollups_if_registered_at_once(server, tmp_path, city):
    """Return the rollups of a database whose registry was complete from the beginning."""
    url = await server.clone()
    async with open_database(url) as database:
        await register(database, tmp_path, city.registry())
        await feed(url, messages_of(city))
        await run_assessment(database, load_settings({}), as_of=TO, days=30)
        rows = await rollups(database)
    await server.drop(url)
    return rows


@pytest.fixture
async def site(any_database_url: str) -> AsyncIterator[Site]:
    async with open_roles(any_database_url) as opened:
        yield opened


@pytest.mark.parametrize("entered_wrong_first", [False, True], ids=["new", "moved"])
async def test_an_unregistered_instrument_from_its_claim_to_its_registration(
    site: Site,
    any_server,
    run_command,
    tmp_path,
    entered_wrong_first,
):
    city = make_test_city(days=4)
    document = json.loads(json.dumps(city.registry(), default=str))
    meter = document["reference_meters"][0]
    connector = next(
        row["connector"]
        for row in document["connectors"]
        if row["station_id"] == meter["station_id"]
    )
    file = tmp_path / "serve.json"
    settings = load_settings({})

    async def import_as_serve(content):
        file.write_text(json.dumps(content))
        done = await asyncio.to_thread(
            run_command,
            "registry",
            "import",
            str(file),
            env={"CHARGEWATCH_DATABASE_URL": site.url_of("serve")},
        )
        assert done.returncode == 0, done.stderr

    async with open_database(site.url) as database:
        await register(database, tmp_path, without(document, connector, meter["meter"]))
        await feed(site.url, messages_of(city))
        await run_assessment(database, settings, as_of=TO - timedelta(days=1), days=30)
        before = await assessment_rows(database)
        named = [
            row
            for row in await signal_rows(database)
            if row["code"] == "unregistered_instrument" and row["connector"] == connector
        ]
        assert len(named) == 1

        if entered_wrong_first:
            await import_as_serve(at_another_station(document, connector, meter["meter"]))
        await import_as_serve(document)
        await run_assessment(database, settings, as_of=TO, days=30)
        rows = await assessment_rows(database)
        nightly_signals = await signal_rows(database)
        full = await run_assessment(database, settings, as_of=TO, days=30, full=True)
        recomputed = await assessment_rows(database)
        moved = await rollups(database)
        async with database.raw() as connection:
            strays = await connection.fetch(
                "SELECT 'slot' FROM connector_interval "
                "LEFT JOIN connector USING (connector_id) WHERE registered IS NOT TRUE "
                "UNION ALL SELECT 'meter slot' FROM meter_interval "
                "LEFT JOIN reference_meter USING (meter_id) WHERE registered IS NOT TRUE "
                "UNION ALL SELECT 'session' FROM charging_session "
                "LEFT JOIN connector USING (connector_id) WHERE registered IS NOT TRUE "
                "UNION ALL SELECT 'due' FROM rollup_pending"
            )
            assessed = await connection.fetchval(
                "SELECT count(*) FROM assessment JOIN connector USING (connector_id) "
                "WHERE connector = $1 AND registered",
                connector,
            )
    assert moved == await rollups_if_registered_at_once(any_server, tmp_path, city)
    assert strays == []
    assert assessed == 3
    assert "unregistered_instrument" not in {row["code"] for row in nightly_signals}
    assert "unregistered_instrument" not in full.signals
    for exported in (before, rows, recomputed):
        assert [row["connector"] for row in exported].count(connector) == 1
    for exported in (rows, recomputed):
        (row,) = (row for row in exported if row["connector"] == connector)
        assert row["station_id"] == meter["station_id"]
        assert row["n_intervals"] > 0
