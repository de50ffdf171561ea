"""One operator's odd data stop no risk run, and change nothing that is found of the others."""

from datetime import UTC, datetime, timedelta

import numpy as np
import orjson
import pytest
from runs_case import feed, messages_of, register

from chargewatch.errors import DatabaseError
from chargewatch.ingest.intake import Intake
from chargewatch.runs import estimate, plan
from chargewatch.runs.assess import run_assessment
from chargewatch.runs.exports import assessment_rows, signal_rows
from chargewatch.settings import load_settings
from chargewatch.simulators.city import make_city
from chargewatch.simulators.scenario import FaultSpec, load_scenario, with_faults
from chargewatch.storage.database import open_database
from chargewatch.storage.pile_index import read_index

TO = datetime(2026, 11, 20, tzinfo=UTC)
ODD = "ODDITIES"
FAULTS = (
    FaultSpec(fault="gain", count=1, parameters={"magnitude_mpe": 3.0}),
    FaultSpec(fault="loss_billing", count=1),
    FaultSpec(fault="reset", count=1, parameters={"begin_days": 2.0}),
)


def at(days, seconds=0):
    return (TO - timedelta(days=days) + timedelta(seconds=seconds)).isoformat()


def odd_registry(document):
    """Return a registry with one more operator, whose verification is valid for ever."""
    station = {"station_id": ODD, "operator_id": ODD, "name": "odd", "district": "120104"}
    connectors = [
        {
            "connector": f"{ODD}-{k}",
            "pile": f"{ODD}-{k}",
            "station_id": ODD,
            "current": "AC",
            "accuracy_class": "2",
        }
        for k in range(3)
    ]
    verification = {
        "connector": f"{ODD}-0",
        "verified_on": "2026-01-01",
        "valid_until": "9999-12-31",
        "result": "pass",
        "relative_error": 0.0,
        "expanded_uncertainty": 0.002,
        "coverage_factor": 2,
    }
    return {
        **document,
        "operators": [*document["operators"], {"operator_id": ODD, "name": "odd"}],
        "stations": [*document["stations"], station],
        "connectors": [*document["connectors"], *connectors],
        "verifications": [*document["verifications"], verification],
    }


def session(number, began, ended, start_wh, stop_wh, **more):
    return {
        "session": number,
        "connector": f"{ODD}-0",
        "started_at": began,
        "ended_at": ended,
        "start_wh": start_wh,
        "stop_wh": stop_wh,
        "billed_wh": stop_wh - start_wh,
        **more,
    }


def odd_messages():
    """Yield what gateways of odd firmware sent."""

    def message(kind, seq, **content):
        return f"cw/v1/{ODD}/{ODD}/{kind}", orjson.dumps({"seq": seq, "sent_at": at(1), **content})

    huge = [
        {"connector": f"{ODD}-{k}", "at": at(3, 60 * n), "energy_wh": value, "power_w": -7e3}
        for k, values in enumerate(([0, 9e15, 1, 8e15], [1e-3, 2e15, 0, 0], [5, 5e4, 1e5, 2e5]))
        for n, value in enumerate(values)
    ]
    yield message("registers", 1, readings=huge)
    yield message("registers", 1_760_000_000_000, readings=[])
    yield message(
        "sessions",
        9_007_199_254_740_991,
        sessions=[
            session("1", "1970-01-01T00:01:49+00:00", at(2), 0, 9e15),
            session("2", "0001-01-01T00:00:00+00:00", at(2, 60), 5, 5),
            session("3", at(2, 120), at(2, 120), 1e15, 2, total_fee="99999999999999999.99"),
            session("4", at(2, 180), at(2, 240), 0, 1e-3, battery_capacity_wh=1e-300),
        ],
    )


async def run(url, tmp_path, city, messages):
    """Return assessments and signals of a full and a nightly run over the city and more."""
    async with open_database(url) as database:
        await register(database, tmp_path, odd_registry(city.registry()))
        await feed(url, messages_of(city))
        await feed(url, messages)
        outcomes = [
            await run_assessment(database, load_settings({}), as_of=moment, days=30)
            for moment in (TO - timedelta(hours=12), TO)
        ]
        return outcomes, await assessment_rows(database), await signal_rows(database)


def city_of_three():
    scenario = load_scenario("quiet-city", stations=3, connectors_per_station=5, days=8)
    return make_city(with_faults(scenario, *FAULTS), seed=5, to=TO)


def others(rows):
    return [row for row in rows if row["operator_id"] != ODD]


@pytest.fixture(scope="module")
def city():
    return city_of_three()


async def test_odd_data_of_one_operator_change_nothing_of_the_others(
    embedded_server, tmp_path, city
):
    results = []
    for messages in ([], list(odd_messages())):
        url = await embedded_server.clone()
        try:
            results.append(await run(url, tmp_path, city, messages))
        finally:
            await embedded_server.drop(url)
    (_, alone, signals_alone), (outcomes, rows, signals) = results
    assert [outcome.mode for outcome in outcomes] == ["full", "nightly"]
    assert len(signals_alone) >= 2
    assert others(signals) == others(signals_alone)
    assert others(rows) == others(alone)
    found = {signal["code"]: signal for signal in signals if signal["operator_id"] == ODD}
    assert found["clock_skew"]["connector"] == f"{ODD}-0"
    assert "missing_messages" in found
    assert "not_judged" not in found


async def test_a_station_that_the_engine_fails_on_is_told_and_the_city_judged(
    embedded_server, tmp_path, city, monkeypatch
):
    real = {name: getattr(estimate, name) for name in ("advance", "assessed")}
    broken = city.registry()["stations"][0]["station_id"]

    def failing(name):
        def step(inputs, **options):
            names = [inputs.fleet.connector[k] for k in np.unique(inputs.sessions.connector)]
            if any(connector.startswith(broken) for connector in names):
                raise FloatingPointError("a value that nobody thought of")
            return real[name](inputs, **options)

        return step

    for name in real:
        monkeypatch.setattr(estimate, name, failing(name))
    url = await embedded_server.clone()
    try:
        _, rows, signals = await run(url, tmp_path, city, [])
    finally:
        await embedded_server.drop(url)
    (told,) = [signal for signal in signals if signal["code"] == "not_judged"]
    assert told["station_id"] == broken
    assert "estimate" in told["detail"]
    judged = {row["verdict"] for row in rows if not row["connector"].startswith((broken, ODD))}
    assert judged & {"conforming", "nonconforming"}
    assert {row["tier"] for row in rows if row["station_id"] == broken} <= {"yellow", "orange"}


async def test_a_night_that_fails_on_what_was_kept_is_computed_in_full(
    embedded_server, tmp_path, city, monkeypatch
):
    url = await embedded_server.clone()
    real = plan.unpack_state

    def unpack(*arguments):
        real(*arguments)
        raise KeyError("a state that can't be read")

    monkeypatch.setattr(plan, "unpack_state", unpack)
    try:
        outcomes, rows, _ = await run(url, tmp_path, city, [])
    finally:
        await embedded_server.drop(url)
    assert [outcome.mode for outcome in outcomes] == ["full", "full"]
    assert rows


async def test_a_run_from_when_the_clock_was_wrong_hides_nothing(database_url):
    settings = load_settings({"CHARGEWATCH_DATABASE_URL": database_url})
    now = datetime.now(UTC)
    reading = {"connector": "C1", "at": now.isoformat(), "energy_wh": 1}
    payload = orjson.dumps({"seq": 1, "sent_at": now.isoformat(), "readings": [reading]})
    async with Intake(settings) as intake:
        await intake.submit("registers", "OP1", "ST1", payload)
    async with open_database(database_url) as database:
        with pytest.raises(DatabaseError, match="would hide all others"):
            await run_assessment(database, settings, as_of=now + timedelta(days=2))
        ahead = await run_assessment(database, settings)
        async with database.raw() as connection:
            await connection.execute("UPDATE risk_run SET as_of = '2099-01-01Z'")
            await connection.execute("UPDATE signal SET closed_run = last_run")
            await connection.execute("DELETE FROM assessment")
        outcome = await run_assessment(database, settings)
        assert outcome.run_id > ahead.run_id
        assert [row["connector"] for row in await assessment_rows(database)] == ["C1"]
        codes = {row["code"] for row in await signal_rows(database)}
        assert "unregistered_instrument" in codes
        async with database.engine.connect() as connection:
            assert (await read_index(connection)).run_id == outcome.run_id


@pytest.mark.parametrize("odd", ["0001-01-01T00:00:00Z", "9999-12-31T23:59:59-14:00"])
def test_a_time_of_no_calendar_is_wrong_usage(run_command, odd):
    told = run_command("assess", "--as-of", odd)
    assert told.returncode == 2
    assert "not within the years" in told.stderr
