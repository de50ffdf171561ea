"""Least privilege: each role can do its duty and nothing else."""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from roles_site import Site, open_roles

from chargewatch.errors import DatabaseError
from chargewatch.storage.database import open_database
from chargewatch.storage.roles import (
    DUTIES,
    RIGHTS,
    make_roles,
    password_variable,
    passwords_from,
    scram_verifier,
)
from chargewatch.storage.tables import metadata

READING = (
    "INSERT INTO register_reading VALUES "
    "('2026-03-01T00:00Z', 1, 0, 'NaN', 'NaN', 'NaN', 'NaN', 0, 0)"
)


@pytest.fixture
async def site(any_database_url: str) -> AsyncIterator[Site]:
    async with open_roles(any_database_url) as opened:
        yield opened


async def test_pages_can_not_write_readings(site: Site) -> None:
    await site.may("serve", "SELECT * FROM register_reading")
    await site.may_not("serve", READING)
    await site.may_not("serve", "DELETE FROM register_reading")
    await site.may_not("serve", "UPDATE charging_session SET billed_wh = 0")
    await site.may_not("serve", "DELETE FROM quarantine")
    await site.may_not("serve", "UPDATE assessment SET tier = 'green'")
    await site.may_not("serve", "UPDATE connector_interval SET energy_wh = 0")


async def test_the_index_of_piles_is_made_by_who_changes_what_it_holds(site: Site) -> None:
    for duty in ("serve", "assess"):
        await site.may(duty, "DELETE FROM pile_index", "INSERT INTO pile_index VALUES ('head', '')")
    await site.may_not("ingest", "SELECT * FROM pile_index")


async def test_only_pages_merge_a_claim_and_nothing_but_a_claim(site: Site) -> None:
    for function in ("merge_connector_claim", "merge_meter_claim"):
        for duty in ("ingest", "assess"):
            await site.may_not(duty, f"SELECT {function}(1, 2, 3)")
        # Neither is known: the call is allowed, the merge isn't.
        with pytest.raises(asyncpg.RaiseError, match="is no claim of registered"):
            await site.may("serve", f"SELECT {function}(1, 2, 3)")


async def test_ingest_can_not_read_users(site: Site) -> None:
    for table in ("app_user", "login_session", "operator_token"):
        await site.may_not("ingest", f"SELECT * FROM {table}")
        await site.may_not("assess", f"SELECT * FROM {table}")
        await site.may("serve", f"SELECT * FROM {table}")


async def test_ingest_stores_readings_and_unregistered_connectors(site: Site) -> None:
    await site.may(
        "ingest",
        # A new chunk, an identity column, a temporary table and the day that is due.
        READING,
        "INSERT INTO connector (connector, operator_id, station_id) VALUES ('C', 'O', 'S')",
        "CREATE TEMP TABLE stage (n int) ON COMMIT DROP",
        "INSERT INTO rollup_pending VALUES (0, 1, '2026-03-01') ON CONFLICT DO NOTHING",
        "NOTIFY anything",
        "INSERT INTO quarantine_day AS d VALUES ('2026-03-01', 'O', 'S', 1, 0, 0) "
        "ON CONFLICT (day, operator_id, station_id) DO UPDATE SET kept = d.kept + 1",
        "WITH q AS (INSERT INTO quarantine (received_at, topic, code, codes, errors, payload) "
        "VALUES (now(), 't', 'malformed', '{malformed}', '[]', '') RETURNING quarantine_id) "
        "INSERT INTO quarantine_replay SELECT quarantine_id, now(), '0', 0, 0, 0, '[]' FROM q",
    )
    await site.may_not("ingest", "DELETE FROM quarantine")
    await site.may_not("ingest", "DELETE FROM register_reading")
    await site.may_not("ingest", "UPDATE register_reading SET energy_wh = 0")
    await site.may_not("ingest", "UPDATE quarantine SET payload = ''")
    await site.may_not("ingest", "UPDATE connector SET registered = true")


async def test_assess_writes_rollups_and_runs_only(site: Site) -> None:
    await site.may(
        "assess",
        "INSERT INTO connector_interval VALUES ('2026-03-01T00:00Z', 1, 0, 0, 0)",
        "INSERT INTO risk_run (state, mode, as_of, started_at, version, configuration) "
        "VALUES ('running', 'full', now(), now(), '0', '{}')",
        "DELETE FROM rollup_pending",
    )
    await site.may("assess", "SELECT * FROM audit_entry")
    await site.may_not("assess", "DELETE FROM audit_entry")
    await site.may_not("assess", READING)
    await site.may_not("assess", "INSERT INTO operator VALUES ('O', 'n')")


async def test_only_migrate_changes_the_schema(site: Site) -> None:
    await site.may(
        "migrate",
        "ALTER TABLE register_reading ADD COLUMN another integer",
        "CREATE TABLE later (n integer)",
    )
    for duty in ("ingest", "assess", "serve"):
        await site.may_not(duty, "CREATE TABLE later (n integer)")
        await site.may_not(duty, "DROP TABLE quarantine")


async def test_repeating_takes_away_what_is_no_longer_granted(site: Site) -> None:
    async with open_database(site.url) as database:
        async with database.raw() as connection:
            await connection.execute(f"GRANT ALL ON app_user TO {site.prefix}_ingest")
        report = await make_roles(database, prefix=site.prefix)
    assert report.passwords == {}
    await site.may_not("ingest", "SELECT * FROM app_user")


async def test_rotation_changes_passwords(site: Site) -> None:
    async with open_database(site.url) as database:
        report = await make_roles(database, prefix=site.prefix, rotate=True)
    with pytest.raises(asyncpg.InvalidPasswordError):
        await site.may("serve", "SELECT 1")
    renewed = Site(site.url, site.prefix, dict(report.passwords))
    await renewed.may("serve", "SELECT 1")


async def test_given_passwords_are_used_and_not_printed(site: Site) -> None:
    given = {duty: f"given by {duty} '\\" for duty in DUTIES}
    async with open_database(site.url) as database:
        report = await make_roles(database, prefix=site.prefix, passwords=given)
        assert report.passwords == {}
    connection = await asyncpg.connect(
        site.url_of("serve"), password=given["serve"], user=f"{site.prefix}_serve"
    )
    await connection.close()


def test_every_table_is_in_the_table_of_rights() -> None:
    assert set(metadata.tables) <= set(RIGHTS)


def test_missing_password_is_named() -> None:
    environ = {password_variable(duty): "x" for duty in DUTIES[1:]}
    with pytest.raises(DatabaseError, match="CHARGEWATCH_MIGRATE_PASSWORD"):
        passwords_from(environ)


def test_password_beyond_ascii_is_refused() -> None:
    with pytest.raises(DatabaseError, match="ASCII"):
        scram_verifier("密码")


def test_verifier_follows_the_standard() -> None:
    # The example of RFC 7677, section 3: user "user", password "pencil".
    salt = b"[m\x99h\x9d\x125\x8e\xec\xa0K\x14\x126\xfa\x81"
    assert scram_verifier("pencil", salt=salt) == (
        "SCRAM-SHA-256$4096:W22ZaJ0SNY7soEsUEjb6gQ==$"
        "WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=:"
        "wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU="
    )


def test_command_prints_new_passwords_once(database_url: str, run_command: Any) -> None:
    environment = {"CHARGEWATCH_DATABASE_URL": database_url}
    prefix = f"t{uuid.uuid4().hex[:10]}"
    first = run_command("db", "roles", "--prefix", prefix, "--json", env=environment)
    assert first.returncode == 0, first.stderr
    assert len(json.loads(first.stdout)["passwords"]) == 4
    second = run_command("db", "roles", "--prefix", prefix, "--json", env=environment)
    assert json.loads(second.stdout)["passwords"] == {}


async def test_each_command_works_with_its_own_role(
    site: Site, run_command: Any, tmp_path: Path
) -> None:
    registry = tmp_path / "registry.json"
    registry.write_text(
        json.dumps({"version": 1, "operators": [{"operator_id": "OP1", "name": "n"}]})
    )

    def done_as(duty: str, *arguments: str) -> None:
        environment = {"CHARGEWATCH_DATABASE_URL": site.url_of(duty)}
        done = run_command(*arguments, env=environment)
        assert done.returncode == 0, (duty, arguments, done.stderr)

    await asyncio.to_thread(done_as, "migrate", "migrate")
    await asyncio.to_thread(done_as, "serve", "registry", "import", str(registry))
    # A reading, so that a chunk exists that its role must be able to drop.
    connection = await asyncpg.connect(site.url_of("ingest"))
    await connection.execute(READING)
    await connection.close()
    await asyncio.to_thread(done_as, "assess", "db", "rollups")
    await asyncio.to_thread(done_as, "assess", "refresh", "--json")
    await asyncio.to_thread(done_as, "assess", "assess")
    await asyncio.to_thread(done_as, "assess", "assessments", "export", "--format", "json")
    await asyncio.to_thread(done_as, "migrate", "db", "retention")
    await asyncio.to_thread(
        done_as, "assess", "db", "export", "--day", "2026-03-01", "--out", str(tmp_path)
    )
