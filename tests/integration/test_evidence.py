"""Evidence files: taken by real runs, computed again to the last bit, and proven."""

import json
import zipfile
from datetime import UTC, datetime, timedelta

import orjson
import pytest
from runs_case import TO, feed, make_test_city, messages_of, register

from chargewatch.errors import NotFoundError
from chargewatch.runs.assess import run_assessment
from chargewatch.runs.evidence.replay import replay
from chargewatch.settings import load_settings
from chargewatch.simulators.scenario import FaultSpec
from chargewatch.storage import audit as audit_rows
from chargewatch.storage.database import open_database
from chargewatch.storage.runs import results as store
from chargewatch.supervision import audit
from chargewatch.supervision.evidence.form import unpacked
from chargewatch.supervision.evidence.kept import PileName, ask_for, given_out, one_pile, verified
from chargewatch.tlog.merkle import LogError

FAULTS = (
    FaultSpec(fault="gain", count=1, parameters={"magnitude_mpe": 4.0}),
    FaultSpec(fault="loss_billing", count=1),
    FaultSpec(fault="step", count=1, parameters={"magnitude_mpe": -4.0, "begin_days": 6.0}),
)
FIGURES = ("relative_error", "standard_uncertainty", "p_nonconforming", "verdict", "tier")


async def city_in(database, url, tmp_path, *faults):
    city = make_test_city(*faults, days=14)
    await register(database, tmp_path, city.registry())
    await feed(url, messages_of(city))
    return list(city.layout.connectors.name)


async def files_of(database, run_id, names):
    files = {}
    for name in names:
        pile = await one_pile(database, name, operator_id=None)
        files[name] = unpacked((await given_out(database, pile, run_id=run_id)).content)
    return files


async def told_actions(database):
    return [
        orjson.loads(row["content"])
        async for row in audit_rows.entries(database)
        if orjson.loads(row["content"])["actor"] == "platform"
    ]


async def test_every_pile_is_computed_again_to_the_last_bit_in_a_full_run_and_at_night(
    database_url, tmp_path
):
    tiers = set()
    async with open_database(database_url) as database:
        names = await city_in(database, database_url, tmp_path, *FAULTS)
        for as_of, mode in ((TO - timedelta(days=1), "full"), (TO, "nightly")):
            outcome = await run_assessment(
                database, load_settings({}), as_of=as_of, days=30, evidence_of=names
            )
            assert outcome.mode == mode
            rows = await store.assessments(database, outcome.run_id)
            by_name = {row["connector"]: row for row in rows}
            for name, file in (await files_of(database, outcome.run_id, names)).items():
                again = replay(file)
                assert again.differs == ()
                assert again.holds
                assert [again.computed[key] for key in FIGURES] == [
                    by_name[name][key] for key in FIGURES
                ]
                assert file.run["result_digest"] == outcome.result_digest
                tiers.add(again.computed["tier"])
    assert {"red", "orange", "yellow", "green"} <= tiers


async def test_new_flags_get_one_file_each_whose_digest_is_proven_and_replayed_by_commands(
    database_url, tmp_path, run_command
):
    keys = audit.new_keys("metrology.example/audit")
    environment = {"CHARGEWATCH_DATABASE_URL": database_url}
    out = tmp_path / "flag.evidence.zip"
    async with open_database(database_url) as database:
        await city_in(database, database_url, tmp_path, *FAULTS)
        settings = load_settings({})
        first = await run_assessment(database, settings, as_of=TO - timedelta(days=1), days=30)
        flags = first.tiers["red"] + first.tiers["orange"]
        entries = await told_actions(database)
        made = [entry for entry in entries if entry["action"] == "evidence_made"]
        (finished,) = [entry for entry in entries if entry["action"] == "run_finished"]
        assert finished["detail"]["result_digest"] == first.result_digest
        assert finished["subject"] == f"run:{first.run_id}"
        assert len(made) == flags > 0
        await run_assessment(database, settings, as_of=TO, days=30)
        later = [e for e in await told_actions(database) if e["action"] == "evidence_made"]
        subjects = [entry["subject"] for entry in later]
        assert len(set(subjects)) == len(subjects)
        connector = made[0]["subject"].removeprefix("connector:")

        bare = await given_out(database, await one_pile(database, connector, operator_id=None))
        assert not bare.is_proven
        await audit.make_checkpoint(database, keys, now=datetime.now(UTC))
        assert (await audit.verify_database(database, keys=keys.verifiers())).holds
    done = run_command(
        "evidence", "export", connector, "--out", str(out), "--json", env=environment
    )
    assert json.loads(done.stdout)["is_proven"], done.stderr

    key = keys.verifiers()[0].text()
    done = run_command("evidence", "replay", str(out), "--json", env={})
    found = json.loads(done.stdout)
    assert done.returncode == 0, done.stderr
    assert found["equal"]
    assert found["computed"]["verdict"] == found["told"]["verdict"]
    assert found["proof"]["entry"]["detail"]["sha256"] == found["digest"]
    done = run_command("evidence", "verify", str(out), "--key", key, env={})
    assert done.returncode == 0, done.stderr
    assert found["digest"] in done.stdout
    forge(out, tmp_path / "forged.zip")
    done = run_command("evidence", "replay", str(tmp_path / "forged.zip"), env={})
    assert done.returncode == 1
    assert "the proof is of another file" in done.stdout
    with pytest.raises(LogError, match="was changed since it was made"):
        verified(unpacked((tmp_path / "forged.zip").read_bytes()), keys.verifiers())
    other = audit.new_keys("metrology.example/audit").verifiers()
    with pytest.raises(LogError):
        verified(unpacked(out.read_bytes()), other)


def forge(path, to):
    """Write a file with another verdict and all its hashes right."""
    with zipfile.ZipFile(path) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    manifest = parts["manifest.json"]
    parts["manifest.json"] = manifest.replace(b'"tier":"red"', b'"tier":"green"').replace(
        b'"tier":"orange"', b'"tier":"green"'
    )
    assert parts["manifest.json"] != manifest
    with zipfile.ZipFile(to, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in parts.items():
            archive.writestr(name, content)


async def test_what_was_asked_for_is_taken_by_the_next_run_and_no_file_is_made_of_others(
    database_url, tmp_path
):
    async with open_database(database_url) as database:
        names = await city_in(database, database_url, tmp_path)
        settings = load_settings({"CHARGEWATCH_EVIDENCE_FILES": "0"})
        with pytest.raises(NotFoundError, match="no run has taken evidence"):
            await one_pile(database, names[0], operator_id=None)
        async with database.connect() as connection:
            row = (
                (
                    await connection.exec_driver_sql(
                        f"SELECT operator_id, station_id, connector FROM connector "
                        f"WHERE connector = '{names[0]}'"
                    )
                )
                .mappings()
                .one()
            )
        pile, actor = PileName(**row), audit.Actor(name="wang", role="supervisor")
        assert await ask_for(database, pile, actor, now=TO)
        assert not await ask_for(database, pile, actor, now=TO)
        outcome = await run_assessment(database, settings, as_of=TO, days=30)
        given = await given_out(database, pile, run_id=outcome.run_id)
        assert replay(unpacked(given.content)).holds
        with pytest.raises(NotFoundError, match="no run has taken evidence"):
            await one_pile(database, names[1], operator_id=None)
        # The wish is done with.
        assert await ask_for(database, pile, actor, now=TO)
