"""Real sessions of a real station, through the real broker, exactly in the database."""

import csv
import json
from datetime import UTC, datetime
from importlib.resources import files
from zoneinfo import ZoneInfo

import asyncpg

CONNECTORS = {"CCS1": "EPFL-L3-01-1", "CCS2": "EPFL-L3-01-2"}


def rows_of_the_file():
    path = files("chargewatch.simulators").joinpath("data", "desl_epfl_dc_sessions.csv")
    with path.open("r", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def utc(text):
    local = datetime.fromisoformat(text).replace(tzinfo=ZoneInfo("Europe/Zurich"))
    return local.astimezone(UTC)


async def test_all_real_sessions_are_found_exactly_in_the_database(
    database_url, broker_url, run_command, tmp_path
):
    environment = {
        "CHARGEWATCH_DATABASE_URL": database_url,
        "CHARGEWATCH_MQTT_URL": broker_url,
        "CHARGEWATCH_MAX_AGE_DAYS": "100000",
    }

    def run(*arguments):
        result = run_command(*arguments, env=environment, timeout=120)
        assert result.returncode == 0, result.stderr
        return result.stdout

    out = tmp_path / "real"
    written = json.loads(run("simulate", "real-sessions", "--out", str(out), "--json"))
    run("registry", "import", str(out / "registry.json"))
    run("ingest", "--until-idle", "1")  # from now on the broker keeps what is published
    published = json.loads(run("replay", str(out / "messages.jsonl"), "--json"))["published"]
    assert published == written["messages"] == 3 * 1878
    run("ingest", "--until-idle", "3")

    connection = await asyncpg.connect(database_url, timeout=30)
    try:
        stored = await connection.fetch(
            "SELECT s.*, c.connector FROM charging_session s JOIN connector c USING (connector_id)"
        )
        readings = await connection.fetch(
            "SELECT c.connector, r.at, r.energy_wh, r.soc_pct FROM register_reading r"
            " JOIN connector c USING (connector_id) ORDER BY c.connector, r.at"
        )
        quarantined = await connection.fetchval("SELECT count(*) FROM quarantine")
    finally:
        await connection.close()
    real = rows_of_the_file()
    assert quarantined == 0
    assert {
        (
            row["session"],
            row["connector"],
            row["started_at"],
            row["ended_at"],
            round(row["billed_wh"], 3),
            round(row["stop_wh"] - row["start_wh"], 3),
            round(row["soc_start_pct"], 3),
            round(row["soc_stop_pct"], 3),
        )
        for row in stored
    } == {
        (
            f"DESL-{row['session']}",
            CONNECTORS[row["connector"]],
            utc(row["arrival"]),
            utc(row["departure"]),
            round(float(row["energy_wh"]), 3),
            round(float(row["energy_wh"]), 3),
            round(float(row["soc_arrival_pct"]), 3),
            round(float(row["soc_departure_pct"]), 3),
        )
        for row in real
    }
    assert len(stored) == len(real) == 1878

    assert len(readings) == 2 * 1878
    for code, name in CONNECTORS.items():
        mine = [row["energy_wh"] for row in readings if row["connector"] == name]
        total = sum(float(row["energy_wh"]) for row in real if row["connector"] == code)
        assert mine == sorted(mine)
        assert abs(mine[-1] - mine[0] - total) < 0.01
