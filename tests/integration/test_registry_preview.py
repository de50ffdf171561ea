"""`registry import --dry-run`: what would be taken, before anything is; and what is told."""

import copy
import json
import os

import pytest
from registry_case import REGISTRY, fetch
from sqlalchemy import text

from chargewatch.storage.database import open_database

TABLES = ("operator", "station", "connector", "verification", "tariff", "registry_import")


async def counts(url):
    async with open_database(url) as database, database.connect() as connection:
        return [
            (await connection.execute(text(f"SELECT count(*) FROM {table}"))).scalar_one()
            for table in TABLES
        ]


@pytest.fixture
def run(database_url, run_command, tmp_path):
    """Import a registry through the real command; return its result."""

    def run_import(document, *more):
        path = tmp_path / "registry.json"
        path.write_text(json.dumps(document, ensure_ascii=False))
        return run_command(
            "registry", "import", str(path), *more, env={"CHARGEWATCH_DATABASE_URL": database_url}
        )

    run_import.url = database_url
    return run_import


def changed_registry():
    """Return a registry with one new row, one changed row or more of every list."""
    document = copy.deepcopy(REGISTRY)
    document["operators"].append({"operator_id": "OP2", "name": "乙"})
    document["stations"][0] |= {"district": "120105", "operator_id": "OP2"}
    document["connectors"][0] |= {"model": "m2", "rated_power_w": None}
    document["connectors"].append(
        {"connector": "C2", "station_id": "TJ0001", "current": "DC", "accuracy_class": "2级"}
    )
    document["reference_meters"][0] |= {"scope": "station", "connectors": []}
    document["verifications"][0]["result"] = "fail"
    document["verifications"].append(
        {"connector": "C2", "verified_on": "2026-01-02", "result": "pass"}
    )
    document["tariffs"][0]["periods"][0]["energy_price"] = "0.3600"
    return document


async def test_preview_says_what_the_import_then_does_and_takes_nothing(run):
    preview = run(REGISTRY, "--dry-run", "--json")
    assert preview.returncode == 0, preview.stderr
    assert json.loads(preview.stdout)["new"] == dict.fromkeys(REGISTRY.keys() - {"version"}, 1)
    assert await counts(run.url) == [0] * len(TABLES)
    assert run(REGISTRY).returncode == 0
    before = await counts(run.url)
    document = changed_registry()
    preview = json.loads(run(document, "--dry-run", "--json").stdout)
    assert await counts(run.url) == before
    assert preview["dry_run"] is True
    report = json.loads(run(document, "--json").stdout)
    for kind in ("rows", "new", "sources", "told", "notices"):
        assert preview[kind] == report[kind], kind
    history = await fetch(
        run.url,
        "SELECT kind, before, after FROM registry_history WHERE jsonb_typeof(before) = 'object' "
        "AND import_id = (SELECT max(import_id) FROM registry_import)",
    )
    done = {}
    for row in history:
        fields = {
            column: {"before": row["before"][column], "after": value}
            for column, value in row["after"].items()
            if row["before"][column] != value and column != "connector_id"
        }
        done.setdefault(row["kind"].removesuffix("_connectors"), {}).update(fields)
    # The stations' operator is given to instruments before they are compared.
    seen = {
        change["list"]: {
            column: values
            for column, values in change["fields"].items()
            if change["list"] == "stations" or column != "operator_id"
        }
        for change in preview["changes"]
    }
    done["reference_meters"] |= done.pop("reference_meter", {})
    assert seen == done
    assert preview["added"] == {
        "operators": ["OP2"],
        "connectors": ["C2"],
        "verifications": ["C2 2026-01-02"],
    }
    again = json.loads(run(document, "--dry-run", "--json").stdout)
    assert (again["new"], again["changed"], again["changes"]) == ({}, {}, [])
    assert again["unchanged"] == {name: count for name, count in again["rows"].items() if count}


def test_preview_is_lines_for_people(run):
    assert run(REGISTRY).returncode == 0
    result = run(changed_registry(), "--dry-run")
    lines = result.stdout.splitlines()
    assert "new: connectors C2" in lines
    assert 'changed: connectors TJ0001-03-1, model: "m" -> "m2"' in lines
    assert "changed: connectors TJ0001-03-1, rated_power_w: 7000.0 -> null" in lines
    assert 'changed: stations TJ0001, district: "120104" -> "120105"' in lines
    assert "read connectors: 2 rows from registry.json: connectors" in result.stderr
    assert "connectors: 2 read, 1 new, 1 changed, 0 left alone" in result.stderr
    assert "column accuracy_class: accuracy class read in line 1 ('2级' -> 2)" in result.stderr
    assert "nothing was taken: import without --dry-run" in result.stderr


def test_preview_refuses_what_the_import_would(run):
    document = copy.deepcopy(REGISTRY)
    document["stations"][0]["operator_id"] = "OP9"
    document["verifications"][0]["connector"] = "nobody"
    for more in (("--dry-run",), ("--dry-run", "--json"), ()):
        result = run(document, *more)
        assert result.returncode == 1
        assert "read stations: 1 row from registry.json: stations" in result.stderr
        assert "column operator_id: 'OP9' stands neither" in result.stderr
        assert "column connector: 'nobody' is not registered" in result.stderr
        assert "2 errors" in result.stderr
        assert "unexpected" not in result.stderr + result.stdout


def test_names_that_are_no_text_are_told_as_such(run, tmp_path, run_command):
    folder = tmp_path / os.fsdecode(b"lists-\xff")
    folder.mkdir()
    (folder / "operators.csv").write_text("operator_id\nOP1\n")
    (folder / os.fsdecode(b".\xff")).write_text("left by an editor")
    env = {"CHARGEWATCH_DATABASE_URL": run.url}
    result = run_command("registry", "import", str(folder), "--json", env=env)
    assert result.returncode == 0, result.stderr
    assert any(".? was left out" in told for told in json.loads(result.stdout)["told"])


def test_import_tells_its_sources_in_json_too(run):
    result = run(REGISTRY, "--json")
    assert json.loads(result.stdout)["sources"][0] == {
        "list": "operators",
        "source": "registry.json: operators",
        "rows": 1,
    }


def test_signing_key_is_stored_in_one_form_whatever_it_was_written_in(run, run_command):
    key = (
        "0426EFCEBD0EE9E34A669187E18B3A9122B2F733945B649CC9F9F921E9F9DAD812"
        "90238BDE9CC7BB330D150C67704DD25AE7055205744B6F31BF4070745872D0E6"
    )
    head = "3059301306072A8648CE3D020106082A8648CE3D030107034200"
    document = copy.deepcopy(REGISTRY)
    document["connectors"][0]["signing_key"] = key[2:].lower()
    told = json.loads(run(document, "--json").stdout)["told"]
    assert any("a bare point was read as a key on secp256r1" in line for line in told)
    document["connectors"][0]["signing_key"] = head + key
    assert json.loads(run(document, "--json").stdout)["changed"] == {}
    env = {"CHARGEWATCH_DATABASE_URL": run.url}
    exported = json.loads(run_command("registry", "export", "-", env=env).stdout)
    assert exported == document
    document["connectors"][0]["signing_key"] = key[:-1] + "7"
    result = run(document)
    assert "column signing_key: is a bare point that lies on none" in result.stderr
