"""The registry in the database: import, update with history, export, adoption of claims."""

import copy
import json

import pytest
from registry_case import REGISTRY, fetch
from sqlalchemy import text

from chargewatch.storage.database import open_database


@pytest.fixture
def imported(any_database_url, run_command, tmp_path):
    """Import a registry through the real command; return the result."""

    def run(document, *more):
        path = tmp_path / "registry.json"
        path.write_text(json.dumps(document))
        return run_command(
            "registry",
            "import",
            str(path),
            *more,
            env={"CHARGEWATCH_DATABASE_URL": any_database_url},
        )

    run.url = any_database_url
    return run


def test_export_gives_back_what_was_imported(imported, run_command):
    assert imported(REGISTRY).returncode == 0
    result = run_command("registry", "export", "-", env={"CHARGEWATCH_DATABASE_URL": imported.url})
    assert json.loads(result.stdout) == REGISTRY


async def test_changed_row_keeps_its_history(imported):
    imported(REGISTRY)
    again = json.loads(imported(REGISTRY, "--json").stdout)
    assert (again["new"], again["changed"]) == ({}, {})
    changed = copy.deepcopy(REGISTRY)
    changed["connectors"][0]["model"] = "m2"
    assert json.loads(imported(changed, "--json").stdout)["changed"] == {"connectors": 1}
    history = await fetch(
        imported.url,
        "SELECT before ->> 'model' AS before, after ->> 'model' AS after FROM registry_history "
        "WHERE kind = 'connectors' ORDER BY history_id",
    )
    assert history == [{"before": None, "after": "m"}, {"before": "m", "after": "m2"}]


async def test_bad_reference_takes_nothing_of_the_file(imported):
    document = copy.deepcopy(REGISTRY)
    document["verifications"][0]["connector"] = "nobody"
    result = imported(document)
    assert result.returncode == 1
    assert "column connector: 'nobody' is not registered" in result.stderr
    assert await fetch(imported.url, "SELECT * FROM operator") == []


async def test_claim_of_an_unregistered_connector_is_adopted_with_its_readings(imported):
    async with open_database(imported.url) as database, database.begin() as connection:
        await connection.execute(
            text(
                "INSERT INTO connector (connector, operator_id, station_id) "
                "VALUES ('TJ0001-03-1', 'OP1', 'TJ0001'), ('TJ0001-03-1', 'OP2', 'XX')"
            )
        )
    imported(REGISTRY)
    rows = await fetch(
        imported.url, "SELECT operator_id, registered FROM connector ORDER BY connector_id"
    )
    assert rows == [
        {"operator_id": "OP1", "registered": True},
        {"operator_id": "OP2", "registered": False},
    ]


async def test_connector_that_moves_takes_the_readings_of_its_claim_along(imported):
    imported(REGISTRY)
    async with open_database(imported.url) as database, database.begin() as connection:
        await connection.execute(
            text(
                "INSERT INTO connector (connector, operator_id, station_id) "
                "VALUES ('TJ0001-03-1', 'OP1', 'TJ0002')"
            )
        )
        await connection.execute(
            text(
                "INSERT INTO register_reading SELECT '2026-03-01T00:00Z', connector_id, 5, 'NaN', "
                "'NaN', 'NaN', 'NaN', 0, 0 FROM connector WHERE NOT registered"
            )
        )
    moved = copy.deepcopy(REGISTRY)
    moved["stations"].append({"station_id": "TJ0002", "operator_id": "OP1"})
    moved["connectors"][0]["station_id"] = "TJ0002"
    moved["reference_meters"] = []
    assert imported(moved).returncode == 0
    assert await fetch(
        imported.url,
        "SELECT c.station_id, r.energy_wh FROM connector c JOIN register_reading r "
        "USING (connector_id)",
    ) == [{"station_id": "TJ0002", "energy_wh": 5.0}]


async def test_sold_station_gives_its_instruments_the_new_operator(imported):
    imported(REGISTRY)
    sold = {
        "version": 1,
        "operators": [{"operator_id": "OP9"}],
        "stations": [{"station_id": "TJ0001", "operator_id": "OP9"}],
    }
    assert imported(sold).returncode == 0
    assert await fetch(imported.url, "SELECT operator_id FROM connector") == [
        {"operator_id": "OP9"}
    ]


SOLD = {
    "version": 1,
    "operators": [{"operator_id": "OP9"}],
    "stations": [{"station_id": "TJ0001", "operator_id": "OP9"}],
}


async def claim_with_history(url, operator_id):
    """Store a claim of a connector and of a meter with readings, rollups and an assessment."""
    async with open_database(url) as database, database.raw() as connection:
        claim = await connection.fetchval(
            "INSERT INTO connector (connector, operator_id, station_id) "
            "VALUES ('TJ0001-03-1', $1, 'TJ0001') RETURNING connector_id",
            operator_id,
        )
        meter = await connection.fetchval(
            "INSERT INTO reference_meter (meter, operator_id, station_id) "
            "VALUES ('TJ0001-M1', $1, 'TJ0001') RETURNING meter_id",
            operator_id,
        )
        await connection.execute(
            "INSERT INTO register_reading SELECT t, $1, 5, 'NaN', 'NaN', 'NaN', 'NaN', 0, 0 "
            "FROM unnest(ARRAY['2026-03-01T00:00Z', '2026-03-02T00:00Z']::timestamptz[]) t",
            claim,
        )
        await connection.execute(
            "INSERT INTO latest_reading VALUES ($1, '2026-03-02T00:00Z', 5, 'NaN', now())", claim
        )
        await connection.execute(
            "INSERT INTO reference_reading VALUES ('2026-03-03T00:00Z', $1, 7)", meter
        )
        # The readings of February are no longer kept, their rollups are.
        await connection.execute(
            "INSERT INTO connector_interval VALUES ('2026-02-01T00:00Z', $1, 3, 0, 0)", claim
        )
        await connection.execute(
            "INSERT INTO meter_interval VALUES ('2026-02-01T00:00Z', $1, 3, 0, 0)", meter
        )
        registered = await connection.fetchval(
            "SELECT connector_id FROM connector WHERE registered"
        )
        for tested in ([claim], [claim, registered]):
            run = await connection.fetchval(
                "INSERT INTO risk_run (state, mode, as_of, started_at, version, configuration) "
                "VALUES ('finished', 'full', now(), now(), '0', '{}') RETURNING run_id"
            )
            for number in tested:
                await connection.execute(
                    "INSERT INTO assessment VALUES ($1, $2, 0, 0, 0, 0.02, 0, 'conforming', $3, 0, "
                    "NULL, NULL, 0, 0, 0, 0, 'm', '', '[]', NULL)",
                    run,
                    number,
                    "red" if number == claim else "green",
                )


async def test_station_sold_to_an_operator_that_claims_its_instruments(imported):
    imported(REGISTRY)
    await claim_with_history(imported.url, "OP9")
    result = imported(SOLD)
    assert result.returncode == 0, result.stderr
    for table in ("connector", "reference_meter"):
        assert await fetch(imported.url, f"SELECT operator_id, registered FROM {table}") == [
            {"operator_id": "OP9", "registered": True}
        ]


async def test_merged_claim_leaves_its_history_to_the_registered_instrument(imported):
    imported(REGISTRY)
    await claim_with_history(imported.url, "OP9")
    assert imported(SOLD).returncode == 0
    # Where a run assessed both, the instrument's own assessment stays.
    assert await fetch(
        imported.url,
        "SELECT tier FROM assessment JOIN connector USING (connector_id) "
        "WHERE registered ORDER BY run_id",
    ) == [{"tier": "red"}, {"tier": "green"}]
    for table, registry in (
        ("connector_interval", "connector"),
        ("meter_interval", "reference_meter"),
    ):
        identifier = "connector_id" if registry == "connector" else "meter_id"
        assert await fetch(
            imported.url,
            f"SELECT energy_wh, registered FROM {table} LEFT JOIN {registry} USING ({identifier})",
        ) == [{"energy_wh": 3.0, "registered": True}]
    assert await fetch(
        imported.url,
        "SELECT energy_wh FROM latest_reading JOIN connector USING (connector_id)",
    ) == [{"energy_wh": 5.0}]
    assert await fetch(
        imported.url,
        "SELECT kind, day::text FROM rollup_pending LEFT JOIN connector ON kind = 0 "
        "AND connector_id = instrument_id LEFT JOIN reference_meter ON kind = 1 "
        "AND meter_id = instrument_id "
        "WHERE connector.registered OR reference_meter.registered ORDER BY 1, 2",
    ) == [
        {"kind": 0, "day": "2026-03-01"},
        {"kind": 0, "day": "2026-03-02"},
        {"kind": 1, "day": "2026-03-03"},
    ]
    assert await fetch(
        imported.url, "SELECT kind, day::text FROM rollup_version ORDER BY 1, 2"
    ) == [
        {"kind": 0, "day": "2026-02-01"},
        {"kind": 0, "day": "2026-03-01"},
        {"kind": 0, "day": "2026-03-02"},
        {"kind": 1, "day": "2026-02-01"},
        {"kind": 1, "day": "2026-03-03"},
    ]
