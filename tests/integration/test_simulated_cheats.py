"""Meters that are wrong only in a situation, through the real road."""

from runs_case import TO, feed, messages_of, register

from chargewatch.runs.assess import run_assessment
from chargewatch.runs.exports import signal_rows
from chargewatch.settings import load_settings
from chargewatch.simulators.city import make_city
from chargewatch.simulators.faults import FAULTS
from chargewatch.simulators.scenario import FaultSpec, load_scenario, with_faults
from chargewatch.storage.database import open_database


async def test_their_sessions_bills_and_registers_contradict_each_other_nowhere(
    database_url, tmp_path
):
    cheats = [FaultSpec(fault=name, count=1) for name in FAULTS if name.startswith("cheat_")]
    scenario = load_scenario("cheats", stations=6, connectors_per_station=6, days=5)
    city = make_city(with_faults(scenario, *cheats), seed=5, to=TO)
    async with open_database(database_url) as database:
        await register(database, tmp_path, city.registry())
        await feed(database_url, messages_of(city))
        assert len(city.faults.all) == len(cheats) == 10
        await run_assessment(database, load_settings({}), as_of=TO, days=30)
        assert await signal_rows(database) == []
