"""A chain of nights on late data, outages and registry changes says what a full run says."""

from datetime import timedelta

from runs_case import TO, feed, make_test_city, messages_of, register

from chargewatch.benches.nights import compare_nights, nights_of
from chargewatch.runs.assess import run_assessment
from chargewatch.runs.exports import assessment_rows
from chargewatch.runs.plan import mark_late
from chargewatch.runs.rollups import FirstDays, rollup_kinds
from chargewatch.settings import load_settings
from chargewatch.simulators.city import make_city
from chargewatch.simulators.scenario import load_scenario
from chargewatch.storage.database import open_database
from chargewatch.storage.runs import results as store


async def test_a_chain_of_nights_says_what_a_full_run_says(database_url):
    scenario = load_scenario("quiet-city", stations=5, connectors_per_station=3, days=12)
    city = make_city(scenario, seed=3, to=TO)
    told = []
    found = await compare_nights(
        database_url, load_settings({}), nights_of(city, nights=11), days=90.0, say=told.append
    )
    assert found.verdicts == []
    assert found.largest_u < 0.05
    assert found.largest_u_ratio < 0.05
    assert found.modes == ["full", *["nightly"] * 10]
    again = [line for line in told if line.startswith("adding the window again")]
    for cause in ("late readings", "late sessions", "the registry says something else"):
        assert any(cause in line for line in again), cause


async def test_a_night_is_computed_in_full_when_most_of_its_state_is_out_of_date(
    database_url, tmp_path, monkeypatch
):
    city = make_test_city(days=5)
    document = city.registry()
    settings, told = load_settings({}), []
    async with open_database(database_url) as database:
        await register(database, tmp_path, document)
        await feed(database_url, messages_of(city))
        await run_assessment(database, settings, as_of=TO - timedelta(days=1), days=30)
        for row in document["connectors"]:
            row["rated_power_w"] = 2 * row["rated_power_w"]
        await register(database, tmp_path, document)
        monkeypatch.setattr("chargewatch.runs.renewal.LEAST_FOR_FULL", 10)
        outcome = await run_assessment(database, settings, as_of=TO, days=30, say=told.append)
        run = await store.newest_run(database)
        rows = await assessment_rows(database)
        await run_assessment(database, settings, as_of=TO, days=30, full=True)
        assert rows == await assessment_rows(database)
    assert outcome.mode == run["mode"] == "full"
    assert any("the registry says something else of 15" in line for line in told)


async def test_days_that_a_failed_run_knew_to_be_late_are_late_for_the_next(database_url):
    connectors, meters = rollup_kinds()
    async with open_database(database_url) as database:
        await mark_late(database, FirstDays(connectors={7: 20_000}, meters={3: 20_001}))
        async with database.raw() as connection:
            rows = await connection.fetch(
                "SELECT kind, instrument_id, day - date '1970-01-01' AS day FROM rollup_pending"
            )
    assert sorted(tuple(row.values()) for row in rows) == [
        (connectors.number, 7, 20_000),
        (meters.number, 3, 20_001),
    ]
