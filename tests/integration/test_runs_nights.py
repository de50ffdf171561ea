"""A chain of nights on late data, outages and registry changes says what a full run says."""

from runs_case import TO

from chargewatch.benches.nights import compare_nights, nights_of
from chargewatch.settings import load_settings
from chargewatch.simulators.city import make_city
from chargewatch.simulators.scenario import load_scenario


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
