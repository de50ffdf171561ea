"""`chargewatch doctor` says what works, what doesn't, and what to do."""

from __future__ import annotations

import json

import pytest

from chargewatch.commands import doctor
from chargewatch.local.broker import EmbeddedBroker
from chargewatch.local.processes import free_port, temporary_folder
from chargewatch.storage.capabilities import Capabilities
from running import RunCommand


def checks(stdout: str) -> dict[str, dict[str, str]]:
    return {check["name"]: check for check in json.loads(stdout)["checks"]}


def states(stdout: str) -> dict[str, str]:
    document = json.loads(stdout)
    return {check["name"]: check["state"] for check in document["checks"]}


def test_all_is_well_with_a_migrated_database_and_a_broker(
    any_database_url: str, broker_url: str, run_command: RunCommand
) -> None:
    environment = {"CHARGEWATCH_DATABASE_URL": any_database_url, "CHARGEWATCH_MQTT_URL": broker_url}
    done = run_command("doctor", "--json", env=environment)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["ok"] is True
    found = states(done.stdout)
    assert found["database"] == found["schema"] == found["broker"] == found["rules"] == "ok"
    assert "mosquitto version 2" in checks(done.stdout)["broker"]["found"]


def test_rules_that_nobody_checked_are_named(run_command: RunCommand) -> None:
    done = run_command("doctor", "--json", env={"CHARGEWATCH_MPE_RULES": "OIML-G22-2022"})
    rules = checks(done.stdout)["rules"]
    assert rules["state"] == "note"
    assert "OIML G 22:2022" in rules["found"]
    assert "not checked" in rules["found"]


def test_edition_and_features_are_named(timescale_url: str, run_command: RunCommand) -> None:
    done = run_command("doctor", env={"CHARGEWATCH_DATABASE_URL": timescale_url})
    assert "Apache edition" in done.stdout
    assert "hypertables: yes, columnstore: no" in done.stdout
    assert "lost: compression and retention policies" in done.stdout


def test_compression_that_loses_rows_is_a_failure_with_the_next_step() -> None:
    check = doctor.features_check(Capabilities("17.5", "2.17.2", "timescale"))
    assert check.state == "failed"
    assert "silently loses late readings" in check.found
    assert "upgrade TimescaleDB" in check.next_step
    assert doctor.features_check(Capabilities("17.5", "2.18.1", "timescale")).state == "ok"


def test_broker_without_a_name_is_reported_with_what_is_lost(run_command: RunCommand) -> None:
    with temporary_folder() as folder, EmbeddedBroker(folder, program="rumqttd") as rumqttd:
        done = run_command("doctor", "--json", env={"CHARGEWATCH_MQTT_URL": rumqttd.url})
    assert done.returncode == 0, done.stderr
    found = checks(done.stdout)["broker"]
    assert "doesn't tell its name" in found["found"]
    assert "what waits at the broker" in found["lost"]


@pytest.mark.parametrize(
    ("wanted", "lost"), [("rumqttd", "in memory only"), ("mosquitto", "in a crash")]
)
def test_demo_broker_follows_the_setting(wanted: str, lost: str, run_command: RunCommand) -> None:
    done = run_command("doctor", "--json", env={"CHARGEWATCH_BROKER_PROGRAM": wanted})
    found = checks(done.stdout)["demo broker"]
    assert wanted in found["found"].lower()
    assert lost in found["lost"] or found["state"] == "failed"


def test_missing_schema_fails_with_the_next_step(
    empty_database_url: str, run_command: RunCommand
) -> None:
    done = run_command("doctor", env={"CHARGEWATCH_DATABASE_URL": empty_database_url})
    assert done.returncode == 1
    assert "run `chargewatch migrate`" in done.stdout
    assert "schema: not working" in done.stderr


def test_unreachable_engines_fail_and_passwords_stay_hidden(run_command: RunCommand) -> None:
    port = free_port()
    environment = {
        "CHARGEWATCH_DATABASE_URL": f"postgresql://someone:topsecret@127.0.0.1:{port}/nothing",
        "CHARGEWATCH_MQTT_URL": f"mqtt://someone:topsecret@127.0.0.1:{port}",
    }
    done = run_command("doctor", "--json", env=environment)
    assert done.returncode == 1
    found = states(done.stdout)
    assert found["database"] == found["broker"] == "failed"
    assert "topsecret" not in done.stdout + done.stderr
    assert f"127.0.0.1:{port}" in done.stdout


def test_nothing_configured_is_no_failure(run_command: RunCommand) -> None:
    done = run_command("doctor", "--json")
    assert done.returncode == 0
    found = states(done.stdout)
    assert found["database"] == found["broker"] == "note"
    assert found["demo database"] == "ok"


def test_address_that_is_no_broker_is_refused(database_url: str, run_command: RunCommand) -> None:
    done = run_command("doctor", env={"CHARGEWATCH_MQTT_URL": database_url})
    assert done.returncode == 1
    assert "use mqtt://" in done.stdout
    http = run_command("doctor", env={"CHARGEWATCH_DATABASE_URL": "http://127.0.0.1/"})
    assert http.returncode == 1
    assert "not a PostgreSQL address" in http.stdout
