"""Risk runs on what is told late: sessions, resets and replaced meters."""

from datetime import timedelta

import orjson
import pytest
from runs_case import FAULTS, TO, feed, make_test_city, messages_of, register

from chargewatch.runs.assess import run_assessment
from chargewatch.runs.exports import assessment_rows, signal_rows
from chargewatch.runs.plan import first_unjudged_day
from chargewatch.runs.rollups import refresh_rollups
from chargewatch.settings import load_settings
from chargewatch.storage.database import open_database
from chargewatch.storage.runs.inputs import declared_errors


async def test_energy_whose_sessions_are_told_late_is_no_finding_any_more(database_url, tmp_path):
    city = make_test_city(days=5)
    messages = [(topic, orjson.loads(body)) for topic, body in messages_of(city)]
    (first, *_) = [topic for topic, _ in messages if topic.endswith("/sessions")]
    station = first.split("/")[3]
    # Readings that name no session, and no record of one.
    for topic, body in messages:
        if topic.split("/")[3] == station and "readings" in body:
            body["readings"] = [
                {key: value for key, value in reading.items() if key != "session"}
                for reading in body["readings"]
            ]
    told = [(topic, orjson.dumps(body)) for topic, body in messages]
    async with open_database(database_url) as database:
        await register(database, tmp_path, city.registry())
        await feed(database_url, [m for m in told if m[0] != first])
        settings = load_settings({})
        await run_assessment(database, settings, as_of=TO, days=30)
        idle = [r for r in await signal_rows(database) if r["code"] == "idle_consumption"]
        assert {row["station_id"] for row in idle} == {station}
        assert min(row["first_at"] for row in idle) < TO - timedelta(days=3)
        await feed(database_url, [m for m in told if m[0] == first])
        later = TO + timedelta(days=2)
        outcome = await run_assessment(database, settings, as_of=later, days=30)
        codes = {row["code"] for row in await signal_rows(database)}
    assert outcome.mode == "nightly"
    assert "idle_consumption" not in codes


async def test_a_fall_that_is_declared_late_is_no_finding_any_more(
    database_url, tmp_path, monkeypatch
):
    city = make_test_city(FAULTS[2], days=5)
    async with open_database(database_url) as database:
        await register(database, tmp_path, city.registry())
        await feed(database_url, messages_of(city))
        settings = load_settings({})
        await run_assessment(database, settings, as_of=TO, days=30)
        (fall,) = [r for r in await signal_rows(database) if r["code"] == "register_decrease"]
        message = {
            "seq": 1,
            "sent_at": TO.isoformat(),
            "events": [
                {
                    "connector": fall["connector"],
                    "at": fall["last_at"].isoformat(),
                    "kind": "register_reset",
                }
            ],
        }
        topic = f"cw/v1/{fall['operator_id']}/{fall['station_id']}/events"

        async def refreshed(database, **options):
            # It comes at the worst time: when the run has begun already.
            await feed(database_url, [(topic, orjson.dumps(message))])
            return await refresh_rollups(database, **options)

        monkeypatch.setattr("chargewatch.runs.assess.refresh_rollups", refreshed)
        await run_assessment(database, settings, as_of=TO + timedelta(minutes=1), days=30)
        codes = [row["code"] for row in await signal_rows(database)]
    assert "register_decrease" not in codes


async def test_a_run_knows_which_meters_were_declared_to_be_replaced(database_url, tmp_path):
    city = make_test_city(FAULTS[2], days=5)
    async with open_database(database_url) as database:
        await register(database, tmp_path, city.registry())
        await feed(database_url, messages_of(city))
        settings = load_settings({})
        await run_assessment(database, settings, as_of=TO, days=30)
        first = await assessment_rows(database)
        one = next(row for row in first if "verification" in row["method"])
        place = {"connector": one["connector"], "at": (TO - timedelta(days=3)).isoformat()}
        message = {
            "seq": 1,
            "sent_at": TO.isoformat(),
            "events": [
                place | {"kind": "meter_replaced"},
                {"at": place["at"], "kind": "metering_firmware"},
                {"at": (TO + timedelta(days=9)).isoformat(), "kind": "seal_opened"},
            ],
        }
        topic = f"cw/v1/{one['operator_id']}/{one['station_id']}/events"
        await feed(database_url, [(topic, orjson.dumps(message))])
        async with database.raw() as connection:
            declared = await declared_errors(connection, as_of=TO)
        await run_assessment(database, settings, as_of=TO + timedelta(minutes=1), days=30)
        rows = {row["connector"]: row for row in await assessment_rows(database)}
    station = [row for row in first if row["station_id"] == one["station_id"]]
    assert declared["replaced"].sum() == 1
    assert declared.size == 1 + len(station)
    new = rows[one["connector"]]
    assert "verification" not in new["method"]
    assert new["standard_uncertainty"] != one["standard_uncertainty"]


async def test_what_came_late_is_judged_though_rollups_were_refreshed_before(
    database_url, tmp_path, monkeypatch
):
    city = make_test_city(FAULTS[2], days=5)
    first, second = TO + timedelta(days=2), TO + timedelta(days=2, minutes=1)
    async with open_database(database_url) as database:
        await register(database, tmp_path, city.registry())
        await feed(database_url, messages_of(city))
        settings = load_settings({})
        await run_assessment(database, settings, as_of=first, days=30)
        (fall,) = [r for r in await signal_rows(database) if r["code"] == "register_decrease"]
        assert fall["last_at"] < first - timedelta(days=2)
        event = {
            "connector": fall["connector"],
            "at": fall["last_at"].isoformat(),
            "kind": "register_reset",
        }
        message = {"seq": 1, "sent_at": TO.isoformat(), "events": [event]}
        topic = f"cw/v1/{fall['operator_id']}/{fall['station_id']}/events"
        await feed(database_url, [(topic, orjson.dumps(message))])
        refreshed = await refresh_rollups(database, since=await first_unjudged_day(database))
        assert refreshed.waiting > 0
        # A run that fails has taken the rollups over; the next one must know of them all the same.
        with monkeypatch.context() as broken:
            broken.setattr("chargewatch.runs.assess.load", failing)
            with pytest.raises(OSError, match="on purpose"):
                await run_assessment(database, settings, as_of=second, days=30)
        await run_assessment(database, settings, as_of=second, days=30)
        codes = [row["code"] for row in await signal_rows(database)]
    assert "register_decrease" not in codes


async def failing(*_args, **_options):
    raise OSError("failed on purpose")
