"""Evidence files: taken by real runs, computed again to the last bit, and proven."""

import json
from datetime import timedelta

import pytest
from runs_case import TO, feed, make_test_city, messages_of, register

from chargewatch.runs.assess import run_assessment
from chargewatch.runs.evidence.packet import read
from chargewatch.runs.evidence.replay import replay
from chargewatch.settings import load_settings
from chargewatch.simulators.scenario import FaultSpec
from chargewatch.storage.database import open_database
from chargewatch.storage.runs import results as store
from chargewatch.supervision import audit
from chargewatch.supervision.evidence.form import unpacked
from chargewatch.supervision.evidence.kept import given_out, one_pile
from chargewatch.tlog.note import VerifierKey

FAULTS = (
    FaultSpec(fault="gain", count=1, parameters={"magnitude_mpe": 4.0}),
    FaultSpec(fault="loss_billing", count=1),
    FaultSpec(fault="step", count=1, parameters={"magnitude_mpe": -4.0, "begin_days": 6.0}),
)


async def all_files(database, names, run_id):
    files = {}
    for name in names:
        pile = await one_pile(database, name, operator_id=None)
        files[name] = unpacked((await given_out(database, pile, run_id=run_id)).content)
    return files


async def test_every_kind_of_pile_is_computed_again_to_the_last_bit_full_and_at_night(
    database_url, tmp_path
):
    city = make_test_city(*FAULTS, days=14)
    names = list(city.layout.connectors.name)
    async with open_database(database_url) as database:
        await register(database, tmp_path, city.registry())
        await feed(database_url, messages_of(city))
        first = await run_assessment(
            database, load_settings({}), as_of=TO - timedelta(days=1), days=30, evidence_of=names
        )
        night = await run_assessment(
            database, load_settings({}), as_of=TO, days=30, evidence_of=names
        )
        assert (first.mode, night.mode) == ("full", "nightly")
        tiers = set()
        for outcome in (first, night):
            files = await all_files(database, names, outcome.run_id)
            rows = {row["connector"]: row for row in await store.assessments(database, outcome.run_id)}
            for name, file in files.items():
                again = replay(file)
                print(name, again.told["tier"], again.told["verdict"], len(str(file.manifest)), sum(a.nbytes for a in file.arrays.values()))
                assert again.differs == ()
                assert again.computed["tier"] == rows[name]["tier"]
                assert again.computed["standard_uncertainty"] == pytest.approx(rows[name]["standard_uncertainty"], abs=0) or again.computed["standard_uncertainty"] is None
                assert file.run["result_digest"] == outcome.result_digest
                tiers.add(again.computed["tier"])
        print(tiers, outcome.seconds)
