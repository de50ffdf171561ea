"""A risk run from ingested messages to exports, on both engines."""

import csv
import io
import json
import math
import zlib
from datetime import datetime, timedelta

import numpy as np
import orjson
import pyarrow.parquet as pq
import pytest
from runs_case import FAULTS, TO, feed, make_test_city, messages_of, register

from chargewatch.domain.reason import encode, reason
from chargewatch.errors import DatabaseError, NotFoundError
from chargewatch.evaluation.compare import evaluation
from chargewatch.runs.assess import run_assessment
from chargewatch.runs.exports import (
    ASSESSMENT_SCHEMA,
    SIGNAL_SCHEMA,
    assessment_rows,
    signal_rows,
)
from chargewatch.settings import load_settings
from chargewatch.simulators.scenario import FaultSpec
from chargewatch.storage.database import open_database
from chargewatch.storage.runs import results as store

ASSESSMENT_COLUMNS = [
    "connector",
    "station_id",
    "operator_id",
    "as_of",
    "relative_error",
    "standard_uncertainty",
    "common_uncertainty",
    "mpe",
    "p_nonconforming",
    "verdict",
    "tier",
    "data_from",
    "data_to",
    "n_intervals",
    "n_sessions",
    "n_vehicles",
    "n_direct",
    "method",
]
LIGHT_COLUMNS = ["relative_error_light", "standard_uncertainty_light"]
MONEY_COLUMNS = [
    "overcharge_error",
    "undercharge_error",
    "overcharge_billing",
    "undercharge_billing",
]
SIGNAL_COLUMNS = [
    "code",
    "severity",
    "connector",
    "station_id",
    "operator_id",
    "first_at",
    "last_at",
    "count",
    "value",
    "limit",
    "detail",
]


async def test_a_city_with_faults_from_messages_to_figures(any_database_url, tmp_path):
    city = make_test_city(*FAULTS)
    async with open_database(any_database_url) as database:
        await register(database, tmp_path, city.registry())
        await feed(any_database_url, messages_of(city))
        truth = city.truth()
        outcome = await run_assessment(database, load_settings({}), as_of=TO, days=30)
        rows, signals = await assessment_rows(database), await signal_rows(database)
        figures = evaluation(truth, rows, signals)
        run = await store.newest_run(database)
    assert outcome.mode == "full"
    assert outcome.connectors == len(rows) == 15
    assert sum(outcome.tiers.values()) == 15
    assert run["run_id"] == outcome.run_id
    assert run["result_digest"] == outcome.result_digest
    assert figures["not_assessed"] == []
    by_code = figures["signals"]["by_code"]
    for code in ("loss_adjusted_billing", "register_decrease", "unregistered_instrument"):
        assert by_code[code]["recall"]["value"] == 1.0, code
    for code in ("verification_expired", "missing_messages"):
        assert by_code[code]["recall"]["value"] == 1.0, code
    for code, found in by_code.items():
        assert found["false"] == [], code
    tier = {row["connector"]: row["tier"] for row in rows}
    for row in truth["connectors"]:
        if "unregistered_instrument" in row["signals"] or "register_decrease" in row["signals"]:
            assert tier[row["connector"]] in {"orange", "red"}


async def test_a_quiet_city_raises_no_signal(any_database_url, tmp_path):
    city = make_test_city(days=5)
    async with open_database(any_database_url) as database:
        await register(database, tmp_path, city.registry())
        await feed(any_database_url, messages_of(city))
        outcome = await run_assessment(database, load_settings({}), as_of=TO, days=30)
    assert outcome.signals == {}
    assert outcome.tiers["red"] == 0
    assert outcome.tiers["orange"] == 0


async def test_an_untold_step_of_a_kilowatt_hour_makes_no_pile_red(database_url, tmp_path):
    step = FaultSpec(fault="coarse_register", count=3, current="AC")
    city = make_test_city(step, days=12)
    coarse = {city.layout.connectors.name[i] for i in city.faults.of_kind("coarse_register")}
    async with open_database(database_url) as database:
        await register(database, tmp_path, city.registry())
        await feed(database_url, messages_of(city))
        await run_assessment(database, load_settings({}), as_of=TO, days=30)
        rows = await assessment_rows(database)
        assert await signal_rows(database) == []
    assert {row["tier"] for row in rows} <= {"green", "yellow", "grey"}
    for row in rows:
        if row["connector"] in coarse and row["relative_error"] is not None:
            (truth,) = [
                c["relative_error"]
                for c in city.truth()["connectors"]
                if c["connector"] == row["connector"]
            ]
            assert abs(row["relative_error"] - truth) < 4 * row["standard_uncertainty"]


async def test_exports_have_the_contracts_columns_in_every_format(
    database_url, tmp_path, run_command
):
    city = make_test_city(FAULTS[1], days=4)
    async with open_database(database_url) as database:
        await register(database, tmp_path, city.registry())
        await feed(database_url, messages_of(city))
    environment = {"CHARGEWATCH_DATABASE_URL": database_url}
    done = run_command("assess", "--as-of", TO.isoformat(), "--json", env=environment)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["connectors"] == 15
    for kind, columns in (("assessments", ASSESSMENT_COLUMNS), ("signals", SIGNAL_COLUMNS)):
        done = run_command(kind, "export", env=environment)
        rows = json.loads(done.stdout)
        assert rows
        assert all(list(row) == columns for row in rows)
        out = tmp_path / f"{kind}.csv"
        run_command(kind, "export", "--format", "csv", "--out", str(out), env=environment)
        table = list(csv.reader(io.StringIO(out.read_text("utf-8"))))
        assert table[0] == columns
        assert len(table) == len(rows) + 1
        out = tmp_path / f"{kind}.parquet"
        run_command(kind, "export", "--format", "parquet", "--out", str(out), env=environment)
        assert pq.read_table(out).to_pylist()[0].keys() == rows[0].keys()
    wide = [*ASSESSMENT_COLUMNS, "priority_money", *LIGHT_COLUMNS, *MONEY_COLUMNS]
    out = tmp_path / "wide.parquet"
    run_command("assessments", "export", "--wide", "--format", "parquet", "--out", str(out),
                env=environment)  # fmt: skip
    assert pq.read_table(out).schema.names == wide
    done = run_command("assessments", "export", env=environment)
    for row in json.loads(done.stdout):
        assert datetime.fromisoformat(row["as_of"]) == TO
        if row["verdict"] == "not_identifiable":
            assert row["relative_error"] is None
        else:
            assert math.isfinite(row["relative_error"])
    truth = tmp_path / "truth.json"
    truth.write_bytes(orjson.dumps(city.truth()))
    done = run_command("evaluate", str(truth), "--json", env=environment)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["errors"]["connectors"] == 15


def test_a_time_without_offset_is_refused(run_command):
    done = run_command("assess", "--as-of", "2026-01-01T00:00:00")
    assert done.returncode == 2
    assert "offset" in done.stderr


async def test_the_same_run_again_gives_the_same_result_to_the_last_bit(database_url, tmp_path):
    city = make_test_city(FAULTS[0], days=6)
    async with open_database(database_url) as database:
        await register(database, tmp_path, city.registry())
        await feed(database_url, messages_of(city))
        settings = load_settings({})
        first = await run_assessment(database, settings, as_of=TO, days=30)
        again = await run_assessment(database, settings, as_of=TO, days=30)
        full = await run_assessment(database, settings, as_of=TO, days=30, full=True)
    assert first.result_digest == again.result_digest == full.result_digest


async def test_reading_the_days_in_blocks_changes_no_estimate(database_url, tmp_path, monkeypatch):
    city = make_test_city(FAULTS[0], FAULTS[4], days=6)
    async with open_database(database_url) as database:
        await register(database, tmp_path, city.registry())
        await feed(database_url, messages_of(city))
        settings = load_settings({})
        at_once = await run_assessment(database, settings, as_of=TO, days=30)
        rows = await assessment_rows(database)
        monkeypatch.setattr("chargewatch.runs.load.BLOCK_CONNECTOR_DAYS", 15)
        in_blocks = await run_assessment(database, settings, as_of=TO, days=30, full=True)
        again = await assessment_rows(database)
    assert at_once.signals == in_blocks.signals
    for one, other in zip(rows, again, strict=True):
        assert one["verdict"] == other["verdict"]
        assert one["relative_error"] == pytest.approx(other["relative_error"], rel=1e-4, abs=1e-7)
        assert one["n_intervals"] == other["n_intervals"]


async def test_data_after_as_of_change_nothing(database_url, tmp_path):
    city = make_test_city(FAULTS[0], days=6)
    as_of = TO - timedelta(days=2, minutes=-7)
    messages = list(messages_of(city))
    early = [(t, p) for t, p in messages if orjson.loads(p).get("sent_at", "") < _text(as_of)]
    assert len(early) < len(messages)
    async with open_database(database_url) as database:
        await register(database, tmp_path, city.registry())
        await feed(database_url, messages)
        late = await run_assessment(database, load_settings({}), as_of=as_of, days=30)
        late_rows = await assessment_rows(database)
        # What was read after as_of goes; a live run at that time would have seen the rest.
        async with database.raw() as connection:
            for table, column in (
                ("register_reading", "at"),
                ("reference_reading", "at"),
                ("charging_session", "ended_at"),
                ("message_ledger", "sent_at"),
            ):
                await connection.execute(f"DELETE FROM {table} WHERE {column} > $1", as_of)
            await connection.execute("TRUNCATE connector_interval, meter_interval")
            await connection.execute(
                "INSERT INTO rollup_pending SELECT 0, connector_id, (at AT TIME ZONE 'UTC')::date "
                "FROM register_reading GROUP BY 1, 2, 3"
            )
            await connection.execute(
                "INSERT INTO rollup_pending SELECT 1, meter_id, (at AT TIME ZONE 'UTC')::date "
                "FROM reference_reading GROUP BY 1, 2, 3"
            )
        live = await run_assessment(database, load_settings({}), as_of=as_of, days=30)
        live_rows = await assessment_rows(database)
    assert late_rows == live_rows
    assert late.result_digest == live.result_digest


def _text(at):
    return at.astimezone(datetime.fromisoformat("2026-01-01T00:00:00+08:00").tzinfo).isoformat()


async def test_nightly_runs_go_on_and_find_the_same_signals(database_url, tmp_path):
    city = make_test_city(*FAULTS)
    async with open_database(database_url) as database:
        await register(database, tmp_path, city.registry())
        await feed(database_url, messages_of(city))
        settings = load_settings({})
        modes = []
        for back in (3, 2, 1, 0):
            outcome = await run_assessment(
                database, settings, as_of=TO - timedelta(days=back), days=30
            )
            modes.append(outcome.mode)
        nightly = await signal_rows(database)
        rows = await assessment_rows(database)
        full = await run_assessment(database, settings, as_of=TO, days=30, full=True)
        whole = await signal_rows(database)
        recomputed = await assessment_rows(database)
    assert modes == ["full", "nightly", "nightly", "nightly"]
    assert full.mode == "full"
    keys = ("code", "connector", "station_id", "count")
    assert [[s[k] for k in keys] for s in nightly] == [[s[k] for k in keys] for s in whole]
    for one, other in zip(rows, recomputed, strict=True):
        assert one["verdict"] == other["verdict"]


async def test_a_state_of_another_version_makes_the_next_run_a_full_one(database_url, tmp_path):
    city = make_test_city(days=4)
    async with open_database(database_url) as database:
        await register(database, tmp_path, city.registry())
        await feed(database_url, messages_of(city))
        settings = load_settings({})
        await run_assessment(database, settings, as_of=TO - timedelta(days=1), days=30)
        old = io.BytesIO()
        np.save(old, np.array([1]))
        async with database.raw() as connection:
            await connection.execute(
                "UPDATE run_state SET content = $1 WHERE name = 'engine/version'",
                zlib.compress(old.getvalue()),
            )
        said = []
        outcome = await run_assessment(database, settings, as_of=TO, days=30, say=said.append)
    assert outcome.mode == "full"
    assert any("another version of the engine" in line for line in said)


async def test_a_signal_closes_when_its_cause_ends(any_database_url, tmp_path):
    city = make_test_city(days=3)
    messages = list(messages_of(city))
    # One message of registers is held back, and comes later.
    held = next(
        k for k, (topic, _) in enumerate(messages) if k > 200 and topic.endswith("/registers")
    )
    async with open_database(any_database_url) as database:
        await register(database, tmp_path, city.registry())
        await feed(any_database_url, [m for k, m in enumerate(messages) if k != held])
        settings = load_settings({})
        await run_assessment(database, settings, as_of=TO, days=30)
        (missing,) = await signal_rows(database)
        assert (missing["code"], missing["count"]) == ("missing_messages", 1)
        await feed(any_database_url, [messages[held]])
        outcome = await run_assessment(database, settings, as_of=TO + timedelta(minutes=1), days=30)
        assert await signal_rows(database) == []
        closed = await signal_rows(database, closed_too=True)
    assert [row["code"] for row in closed] == ["missing_messages"]
    assert outcome.summary["signal_changes"] == {"opened": 0, "kept": 0, "closed": 1}


async def test_a_replay_of_an_earlier_time_leaves_open_signals_alone(database_url, tmp_path):
    city = make_test_city(FAULTS[2], days=5)
    async with open_database(database_url) as database:
        await register(database, tmp_path, city.registry())
        await feed(database_url, messages_of(city))
        await run_assessment(database, load_settings({}), as_of=TO, days=30)
        before = await signal_rows(database)
        await run_assessment(database, load_settings({}), as_of=TO - timedelta(days=3), days=30)
        assert await signal_rows(database) == before
        newest = await store.newest_run(database)
    assert newest["as_of"] == TO
    assert "register_decrease" in {row["code"] for row in before}


async def test_registered_connectors_without_data_are_assessed_grey(any_database_url, tmp_path):
    city = make_test_city(days=3)
    async with open_database(any_database_url) as database:
        await register(database, tmp_path, city.registry())
        outcome = await run_assessment(database, load_settings({}), as_of=TO, days=30)
        rows = await assessment_rows(database)
        async with database.raw() as connection:
            reasons = await connection.fetch("SELECT DISTINCT reason FROM assessment")
            assert [row["reason"] for row in reasons] == [encode((reason("no_data"),))]
    assert outcome.tiers["grey"] == len(rows) == 15


async def test_without_a_finished_run_the_export_says_what_to_do(database_url):
    async with open_database(database_url) as database:
        with pytest.raises(NotFoundError, match="chargewatch assess"):
            await assessment_rows(database)
        assert await signal_rows(database) == []


async def test_a_failed_run_is_marked_and_not_shown(database_url, monkeypatch):
    async def broken(*_args, **_options):
        raise RuntimeError("broken on purpose")

    async with open_database(database_url) as database:
        monkeypatch.setattr("chargewatch.runs.assess.load", broken)
        with pytest.raises(RuntimeError, match="on purpose"):
            await run_assessment(database, load_settings({}), as_of=TO)
        async with database.raw() as connection:
            row = await connection.fetchrow("SELECT state, summary FROM risk_run")
        assert row["state"] == "failed"
        assert "broken on purpose" in row["summary"]
        assert await store.newest_run(database) is None


async def test_two_runs_at_once_are_refused(database_url):
    async with open_database(database_url) as database, store.only_run(database):
        with pytest.raises(DatabaseError, match="another risk run"):
            await run_assessment(database, load_settings({}), as_of=TO)


async def test_a_run_that_died_is_marked_failed_by_the_next(database_url):
    async with open_database(database_url) as database:
        run_id = await store.begin_run(
            database, mode="full", as_of=TO, version="0", configuration={}
        )
        await run_assessment(database, load_settings({}), as_of=TO, days=30)
        async with database.raw() as connection:
            state = await connection.fetchval(
                "SELECT state FROM risk_run WHERE run_id = $1", run_id
            )
    assert state == "failed"


def test_columns_of_the_schemas_are_those_of_the_contract():
    assert ASSESSMENT_SCHEMA.names == ASSESSMENT_COLUMNS
    assert SIGNAL_SCHEMA.names == SIGNAL_COLUMNS
