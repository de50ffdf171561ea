"""The audit trail: written with every change, and no change of it goes unnoticed."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from chargewatch.errors import SettingError
from chargewatch.storage.database import Database, open_database
from chargewatch.supervision import accounts, audit
from chargewatch.supervision.audit import Action, Actor, AuditError
from chargewatch.supervision.permissions import Role
from web_client import PASSWORD

ME = Actor(name="test", role="administrator")


@pytest.fixture
async def database(any_database_url: str) -> AsyncIterator[Database]:
    async with open_database(any_database_url) as opened:
        yield opened


async def recorded(database: Database, count: int) -> None:
    for k in range(count):
        async with database.begin() as connection:
            await audit.record(connection, ME, Action.USER_ADDED, f"thing:{k}", number=k)


async def behind_its_back(database: Database, *statements: str) -> None:
    """Change what triggers guard, as somebody can who owns the tables."""
    async with database.begin() as connection:
        for table in ("audit_entry", "audit_checkpoint"):
            await connection.execute(text(f"ALTER TABLE {table} DISABLE TRIGGER USER"))
        for statement in statements:
            await connection.exec_driver_sql(statement)
        for table in ("audit_entry", "audit_checkpoint"):
            await connection.execute(text(f"ALTER TABLE {table} ENABLE TRIGGER USER"))


async def test_every_change_of_a_user_is_an_entry_with_who_did_it(database: Database) -> None:
    await accounts.add_user(database, "wang", role=Role.INSPECTOR, password=PASSWORD, actor=ME)
    now = datetime(2026, 12, 1, 8, tzinfo=UTC)
    user = await accounts.checked_password(database, "wang", password=PASSWORD)
    assert user is not None
    await accounts.open_session(database, user, now=now)
    await accounts.set_password(database, "wang", password=PASSWORD, actor=ME)
    await accounts.disable_user(database, "wang", actor=ME)
    with pytest.raises(accounts.AccountError):
        await accounts.add_user(database, "wang", role=Role.INSPECTOR, password=PASSWORD, actor=ME)
    async with database.connect() as connection:
        found = [json.loads(row["content"]) for row in await audit.rows.newest(connection, limit=9)]
    assert [(one["actor"], one["action"]) for one in reversed(found)] == [
        ("test", "user_added"),
        ("wang", "session_opened"),
        ("test", "user_password_changed"),
        ("test", "user_disabled"),
    ]
    assert found[2]["at"] == "2026-12-01T08:00:00.000Z"
    assert all(PASSWORD not in json.dumps(one) for one in found)


async def test_entries_written_at_once_are_one_chain(database: Database) -> None:
    await asyncio.gather(*(recorded(database, 5) for _ in range(8)))
    found = await audit.verify_database(database)
    assert (found.holds, found.entries) == (True, 40)


async def test_what_is_rolled_back_leaves_no_entry_and_no_hole(database: Database) -> None:
    await recorded(database, 1)
    with pytest.raises(ZeroDivisionError):
        async with database.begin() as connection:
            await audit.record(connection, ME, Action.USER_ADDED, "thing:never")
            raise ZeroDivisionError
    await recorded(database, 1)
    assert (await audit.verify_database(database)).entries == 2


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE audit_entry SET content = content WHERE entry = 0",
        "DELETE FROM audit_entry WHERE entry = 1",
        "TRUNCATE audit_entry",
        "INSERT INTO audit_entry (entry, content, chain) VALUES (9, '{}', sha256(''))",
        "INSERT INTO audit_entry (entry, content, chain) VALUES (2, '{}', sha256(''))",
    ],
)
async def test_the_database_itself_refuses_what_is_no_next_entry(
    database: Database, statement: str
) -> None:
    await recorded(database, 2)
    with pytest.raises(DBAPIError, match="audit"):
        async with database.begin() as connection:
            await connection.execute(text(statement))
    assert (await audit.verify_database(database)).holds


async def test_one_byte_changed_behind_its_back_is_named(database: Database) -> None:
    await recorded(database, 7)
    await behind_its_back(
        database,
        "UPDATE audit_entry SET content = replace(content, 'thing:3', 'thing:8') WHERE entry = 3",
    )
    found = await audit.verify_database(database)
    assert (found.holds, found.broken) == (False, 3)
    assert "entry 3 was changed" in found.fault


async def test_an_entry_taken_out_is_named(database: Database) -> None:
    await recorded(database, 7)
    await behind_its_back(database, "DELETE FROM audit_entry WHERE entry = 4")
    found = await audit.verify_database(database)
    assert found.broken == 4
    assert "entry 4 is missing" in found.fault


async def chain_made_anew(database: Database, *, entry: int) -> None:
    """Change an entry and make all chain values after it anew, as a clever insider would."""
    async with database.connect() as connection:
        rows = (
            await connection.execute(text("SELECT entry, content FROM audit_entry ORDER BY entry"))
        ).all()
    before, statements = bytes(32), []
    for number, content in rows:
        changed = content.replace("thing:", "think:") if number == entry else content
        before = audit.chained(before, changed)
        statements.append(
            f"UPDATE audit_entry SET content = '{changed}', "
            f"chain = decode('{before.hex()}', 'hex') WHERE entry = {number}"
        )
    await behind_its_back(database, *statements)


async def test_a_chain_made_anew_contradicts_the_checkpoints(database: Database) -> None:
    keys = audit.new_keys("city.example/audit")
    now = datetime(2026, 12, 1, tzinfo=UTC)
    await recorded(database, 4)
    await audit.make_checkpoint(database, keys, now=now)
    await recorded(database, 4)
    await audit.make_checkpoint(database, keys, now=now)
    await recorded(database, 2)
    assert (await audit.verify_database(database, keys=keys.verifiers())).checkpoints == 2
    await chain_made_anew(database, entry=6)
    found = await audit.verify_database(database)
    assert not found.holds
    assert found.broken == 4
    assert "the first 8 entries are not those that were signed" in found.fault
    assert "up to 4 are as they were signed" in found.fault
    with pytest.raises(AuditError, match="does not verify"):
        await audit.make_checkpoint(database, keys, now=now)


async def test_entries_cut_off_at_the_end_contradict_the_checkpoint(database: Database) -> None:
    keys = audit.new_keys("city.example/audit")
    await recorded(database, 5)
    await audit.make_checkpoint(database, keys, now=datetime(2026, 12, 1, tzinfo=UTC))
    await behind_its_back(database, "DELETE FROM audit_entry WHERE entry >= 3")
    found = await audit.verify_database(database)
    assert (found.holds, found.broken) == (False, 3)
    assert "signed with 5 entries" in found.fault


async def test_a_checkpoint_of_another_key_is_no_checkpoint(database: Database) -> None:
    await recorded(database, 3)
    stranger = audit.new_keys("city.example/audit")
    await audit.make_checkpoint(database, stranger, now=datetime(2026, 12, 1, tzinfo=UTC))
    mine = audit.new_keys("city.example/audit").verifiers()
    assert not (await audit.verify_database(database, keys=mine)).holds


async def test_an_entry_too_long_for_the_log_is_refused(database: Database) -> None:
    with pytest.raises(AuditError, match="longer than"):
        async with database.begin() as connection:
            await audit.record(connection, ME, Action.USER_ADDED, "thing:1", note="x" * 70_000)


def chargewatch(url: str, *arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "chargewatch", *arguments],
        env={**os.environ, "CHARGEWATCH_DATABASE_URL": url, **more},
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_commands_sign_export_and_verify_offline(database_url: str, tmp_path: Path) -> None:
    secret, folder = tmp_path / "audit.key", tmp_path / "log"
    assert chargewatch(database_url, "user", "add", "wang", "--role", "inspector").returncode == 0
    unsigned = chargewatch(database_url, "audit", "checkpoint")
    assert unsigned.returncode == 1
    assert "chargewatch audit key" in unsigned.stderr
    made = chargewatch(
        database_url, "audit", "key", "--origin", "city.example/audit", "--out", str(secret)
    )
    assert made.returncode == 0, made.stderr
    assert secret.stat().st_mode & 0o777 == 0o600
    public = made.stdout.split()
    assert len(public) == 2
    again = chargewatch(
        database_url, "audit", "key", "--origin", "city.example/audit", "--out", str(secret)
    )
    assert "exists already" in again.stderr
    key = {"CHARGEWATCH_AUDIT_KEY_FILE": str(secret)}
    signed = chargewatch(
        database_url, "audit", "checkpoint", "--export", str(folder), "--json", **key
    )
    assert signed.returncode == 0, signed.stderr
    assert json.loads(signed.stdout)["checkpoint"].startswith("city.example/audit\n1\n")
    shown = chargewatch(database_url, "settings", **key)
    assert secret.read_text().split('"')[7] not in shown.stdout + shown.stderr

    given = [part for one in public for part in ("--key", one)]
    for arguments in ((), (str(folder),)):
        found = (
            chargewatch("", "audit", "verify", *arguments, *given)
            if arguments
            else (chargewatch(database_url, "audit", "verify", *given))
        )
        assert found.returncode == 0, found.stdout + found.stderr
        assert "holds: 1 entries, 1 checkpoints" in found.stdout
    listed = chargewatch(database_url, "audit", "list", "--subject", "user:wang", "--json")
    assert json.loads(listed.stdout)[0]["action"] == "user_added"

    bundle = folder / "tile/entries/000.p/1"
    bundle.write_bytes(bundle.read_bytes().replace(b"wang", b"weng"))
    broken = chargewatch("", "audit", "verify", str(folder), *given, "--json")
    assert broken.returncode == 1
    assert json.loads(broken.stdout)["broken"] == 0
    other = audit.new_keys("city.example/audit").verifiers()[0].text()
    assert chargewatch("", "audit", "verify", str(folder), "--key", other).returncode == 1
    assert chargewatch("", "audit", "verify", str(folder), "--key", "x").returncode == 1


@pytest.mark.parametrize("secret", ["x", "{}", '{"origin": "o", "ed25519": "AA==", "mldsa44": ""}'])
def test_a_key_that_is_none_is_refused_without_telling_it(secret: str) -> None:
    with pytest.raises(SettingError, match="audit key") as caught:
        audit.read_keys(secret)
    assert "AA==" not in str(caught.value)


async def test_one_entry_is_proved_to_whom_it_concerns_and_witnesses_sign_beside(
    database_url: str, tmp_path: Path
) -> None:
    city, witness = tmp_path / "city.key", tmp_path / "witness.key"
    folder, proof = tmp_path / "log", tmp_path / "2.tlog-proof"
    public = []
    for origin, path in (("city.example/audit", city), ("province.example", witness)):
        made = chargewatch("", "audit", "key", "--origin", origin, "--out", str(path))
        public.append([part for one in made.stdout.split() for part in ("--key", one)])
    key = {"CHARGEWATCH_AUDIT_KEY_FILE": str(city)}
    async with open_database(database_url) as database:
        await recorded(database, 5)
    early = chargewatch(database_url, "audit", "proof", "2", "--out", str(proof))
    assert "no checkpoint holds entry 2" in early.stderr
    for _ in range(2):
        signed = chargewatch(database_url, "audit", "checkpoint", "--export", str(folder), **key)
        assert signed.returncode == 0, signed.stderr
    assert chargewatch(database_url, "audit", "proof", "2", "--out", str(proof)).returncode == 0
    found = chargewatch("", "audit", "verify", str(proof), *public[0], "--json")
    assert json.loads(found.stdout)["entry"]["subject"] == "thing:2"
    proof.write_text(proof.read_text().replace("index 2", "index 3"))
    assert "not number 3" in chargewatch("", "audit", "verify", str(proof), *public[0]).stderr
    assert "key was not given" in chargewatch("", "audit", "verify", str(proof)).stderr

    earlier = tmp_path / "earlier"
    first = chargewatch("", "audit", "cosign", str(folder), *public[0],
                        "--witness-key", str(witness))  # fmt: skip
    earlier.write_text(first.stdout)
    assert first.stdout.count("province.example") == 1
    (folder / "checkpoint").write_text(first.stdout)
    assert chargewatch("", "audit", "verify", str(folder), *public[1]).returncode == 0
    # A city that rewrites its log, key and all, meets the checkpoint that the witness kept.
    async with open_database(database_url) as database:
        await chain_made_anew(database, entry=1)
        await behind_its_back(database, "DELETE FROM audit_checkpoint")
    other = tmp_path / "other"
    assert chargewatch(database_url, "audit", "checkpoint", "--export", str(other),
                       **key).returncode == 0  # fmt: skip
    rewritten = chargewatch("", "audit", "cosign", str(other), *public[0],
                            "--witness-key", str(witness), "--earlier", str(earlier))  # fmt: skip
    assert rewritten.returncode == 1
    assert "does not hold the 5 entries" in rewritten.stderr
