"""`chargewatch doctor` says what works, what doesn't, and what to do."""

from __future__ import annotations

import json

from chargewatch.local.processes import free_port
from running import RunCommand


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
    assert found["database"] == found["schema"] == found["broker"] == "ok"


def test_edition_and_features_are_named(timescale_url: str, run_command: RunCommand) -> None:
    done = run_command("doctor", env={"CHARGEWATCH_DATABASE_URL": timescale_url})
    assert "Apache edition" in done.stdout
    assert "hypertables: yes, columnstore: no" in done.stdout


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
