"""A risk run from exported days finds what the same run from the database finds."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from runs_case import FAULTS, TO, feed, make_test_city, messages_of, register

from chargewatch.errors import InputFileError
from chargewatch.runs.assess import RunOutcome, run_assessment
from chargewatch.runs.rollups import refresh_rollups
from chargewatch.settings import load_settings
from chargewatch.storage.archive.export import due_days, export_day
from chargewatch.storage.archive.files import path_of
from chargewatch.storage.archive.window import KINDS, SESSION_TABLE
from chargewatch.storage.database import Database, open_database
from running import RunCommand

WINDOW_DAYS = 12
CITY = make_test_city(*FAULTS)
FIRST = (TO - timedelta(days=8)).date()
DAYS = [FIRST + timedelta(days=n) for n in range(8)]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "archive"


async def fill(url: str, database: Database, tmp_path: Path) -> None:
    await register(database, tmp_path, CITY.registry())
    await feed(url, messages_of(CITY))
    await refresh_rollups(database)


async def export(database: Database, folder: Path, days: list[date] | None = None) -> None:
    for day in days or DAYS:
        await export_day(database, day, folder=folder)


async def assess(database: Database, **options: Any) -> RunOutcome:
    options = {"as_of": TO, "days": WINDOW_DAYS, "full": True} | options
    return await run_assessment(database, load_settings({}), **options)


def archive_of(outcome: RunOutcome) -> dict[str, Any]:
    archive: dict[str, Any] = outcome.summary["archive"]
    return archive


async def test_full_and_nightly_runs_from_files_equal_those_from_the_database(
    any_database_url: str, tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_database(any_database_url) as database:
        await fill(any_database_url, database, tmp_path)
        await export(database, folder)
        # Blocks of two days, and blocks that begin in the middle of a day.
        monkeypatch.setattr("chargewatch.runs.load.BLOCK_CONNECTOR_DAYS", 30)
        digests: dict[str, list[str]] = {}
        for name, archive in (("database", None), ("files", folder)):
            before = TO - timedelta(days=2, hours=-5)
            first = await assess(database, as_of=before, archive=archive)
            night = await assess(database, full=False, archive=archive)
            full = await assess(database, archive=archive)
            assert [first.mode, night.mode, full.mode] == ["full", "nightly", "full"]
            digests[name] = [run.result_digest for run in (first, night, full)]
            async with database.raw() as connection:
                await connection.execute("TRUNCATE risk_run, run_state, assessment, signal CASCADE")
    assert digests["files"] == digests["database"]
    days = archive_of(full)["days"]
    assert days == {"charging_session": 8, "connector_interval": 8, "meter_interval": 8}
    assert archive_of(full)["days_only_here"] == dict.fromkeys(days, 0)
    assert any("not in the archive" in note for note in archive_of(full)["notes"])


async def test_files_are_what_is_read(database_url: str, tmp_path: Path, folder: Path) -> None:
    async with open_database(database_url) as database:
        await fill(database_url, database, tmp_path)
        plain = await assess(database)
        await export(database, folder)
        async with database.raw() as connection:
            await connection.execute("TRUNCATE connector_interval, meter_interval")
        assert (await assess(database)).result_digest != plain.result_digest
        from_files = await assess(database, archive=folder)
    assert from_files.result_digest == plain.result_digest


async def test_a_day_changed_after_its_export_comes_from_the_database(
    any_database_url: str, tmp_path: Path, folder: Path
) -> None:
    messages = list(messages_of(CITY))
    held = [
        next(k for k, (t, _) in enumerate(messages) if k > at and t.endswith(topic))
        for at, topic in ((len(messages) // 2, "/registers"), (len(messages) // 2, "/sessions"))
    ]
    async with open_database(any_database_url) as database:
        await register(database, tmp_path, CITY.registry())
        await feed(any_database_url, [m for k, m in enumerate(messages) if k not in held])
        await refresh_rollups(database)
        await export(database, folder)
        due = {"folder": folder, "today": TO.date(), "late_days": 3650}
        assert await due_days(database, **due) == ([], [])
        await feed(any_database_url, [messages[k] for k in held])
        waiting = (await due_days(database, **due))[1]
        assert waiting
        with_files = await assess(database, archive=folder)
        without = await assess(database)
        late, waiting = await due_days(database, **due)
        assert late
        assert waiting == []
        await export(database, folder, late)
        assert await due_days(database, **due) == ([], [])
        again = await assess(database, archive=folder)
    assert with_files.result_digest == without.result_digest == again.result_digest
    notes = "; ".join(archive_of(with_files)["notes"])
    assert "connector_interval" in notes
    assert "charging_session" in notes
    assert "changed in the database since their export" in notes
    assert archive_of(with_files)["days"]["connector_interval"] < 8
    assert archive_of(again)["days"]["connector_interval"] == 8


async def test_days_without_a_file_come_from_the_database(
    database_url: str, tmp_path: Path, folder: Path
) -> None:
    async with open_database(database_url) as database:
        await fill(database_url, database, tmp_path)
        await export(database, folder, [DAYS[1], DAYS[2], DAYS[5]])
        # An export that was cut off leaves a part, and other tables of the day.
        path = path_of(folder, "meter_interval", DAYS[2])
        path.rename(path.with_suffix(".4711.partial"))
        plain = await assess(database)
        mixed = await assess(database, archive=folder)
    assert mixed.result_digest == plain.result_digest
    assert archive_of(mixed)["days"] == {
        "charging_session": 3,
        "connector_interval": 3,
        "meter_interval": 2,
    }


@pytest.mark.parametrize("damage", ["cut", "bit", "other day"])
async def test_a_damaged_file_is_named_with_the_next_step(
    database_url: str, tmp_path: Path, folder: Path, damage: str
) -> None:
    async with open_database(database_url) as database:
        await fill(database_url, database, tmp_path)
        await export(database, folder)
        path = path_of(folder, "connector_interval", DAYS[3])
        content = bytearray(path.read_bytes())
        if damage == "cut":
            del content[-100:]
        elif damage == "bit":
            content[len(content) // 4] ^= 4
        else:
            content = bytearray(path_of(folder, "connector_interval", DAYS[2]).read_bytes())
        path.write_bytes(content)
        with pytest.raises(InputFileError, match=r"connector_interval/day=.* db export --day"):
            await assess(database, archive=folder)
        path.unlink()
        await assess(database, archive=folder)


@pytest.fixture
async def other_url(embedded_server: Any) -> Any:
    url = await embedded_server.clone()
    yield url
    await embedded_server.drop(url)


async def test_days_that_only_the_archive_has_are_found_by_name(
    any_database_url: str, other_url: str, tmp_path: Path, folder: Path
) -> None:
    async with open_database(any_database_url) as database:
        await fill(any_database_url, database, tmp_path)
        await export(database, folder)
        whole = await assess(database)
    # Another server, other numbers: it has only the registry, and a connector less.
    document = CITY.registry()
    gone = document["connectors"].pop(0)["connector"]
    document["verifications"] = [v for v in document["verifications"] if v["connector"] != gone]
    async with open_database(other_url) as database:
        async with database.raw() as connection:
            await connection.execute(
                "INSERT INTO connector (connector, operator_id, station_id) "
                "SELECT 'X' || g, 'OP', 'S' FROM generate_series(1, 7) g"
            )
            await connection.execute("DELETE FROM connector")
        for meter in document["reference_meters"]:
            meter["connectors"] = [c for c in meter.get("connectors", []) if c != gone]
        await register(database, tmp_path, document)
        lines: list[str] = []
        moved = await assess(database, archive=folder, say=lines.append)
        night = await assess(database, as_of=TO + timedelta(hours=1), full=False, archive=folder)
    archive = archive_of(moved)
    assert archive["days_only_here"]["connector_interval"] == 8
    assert archive["days_only_here"]["charging_session"] == 8
    assert any("only the archive has them" in line for line in lines)
    assert any("doesn't know" in line and gone in line for line in lines)
    assert moved.signals["loss_adjusted_billing"] == whole.signals["loss_adjusted_billing"]
    assert night.mode == "nightly"


async def test_files_of_another_database_never_replace_rows(
    database_url: str, other_url: str, tmp_path: Path, folder: Path
) -> None:
    async with open_database(database_url) as database:
        await fill(database_url, database, tmp_path)
        await export(database, folder)
    async with open_database(other_url) as database:
        await register(database, tmp_path, CITY.registry())
        messages = list(messages_of(CITY))
        await feed(other_url, messages[: len(messages) // 2])
        plain = await assess(database, as_of=TO - timedelta(days=5))
        mixed = await assess(database, as_of=TO - timedelta(days=5), archive=folder)
    assert mixed.result_digest == plain.result_digest
    assert any("of another one" in note for note in archive_of(mixed)["notes"])


async def test_rows_past_their_retention_stay_in_the_archive(
    database_url: str, tmp_path: Path, folder: Path
) -> None:
    async with open_database(database_url) as database:
        await fill(database_url, database, tmp_path)
        await export(database, folder)
        plain = await assess(database)
        async with database.raw() as connection:
            limit = datetime.combine(DAYS[2], datetime.min.time(), UTC)
            for table in KINDS.values():
                await connection.execute(f"DELETE FROM {table} WHERE slot_at < $1", limit)
                await connection.execute(
                    "INSERT INTO retention_horizon VALUES ($1, $2)", table, limit
                )
        old = await export_day(database, DAYS[0], folder=folder)
        assert [f.table for f in old.files if f.kept] == list(KINDS.values())
        due = await due_days(database, folder=folder, today=TO.date(), late_days=3650)
        assert due == ([], [])
        assert (await assess(database)).result_digest != plain.result_digest
        from_files = await assess(database, archive=folder)
        path_of(folder, "connector_interval", DAYS[0]).unlink()
        nothing = await export_day(database, DAYS[0], folder=folder)
    assert from_files.result_digest == plain.result_digest
    assert nothing.gone == ("connector_interval",)


@pytest.fixture
def environment(database_url: str) -> Iterator[dict[str, str]]:
    yield {"CHARGEWATCH_DATABASE_URL": database_url}


async def test_commands_export_what_is_due_and_read_it(
    database_url: str,
    environment: dict[str, str],
    tmp_path: Path,
    folder: Path,
    run_command: RunCommand,
) -> None:
    async with open_database(database_url) as database:
        await fill(database_url, database, tmp_path)
    out = ("--out", str(folder))
    done = run_command("db", "export", "--due", *out, "--json", env=environment)
    assert done.returncode == 0, done.stderr
    first = json.loads(done.stdout)
    assert [row["day"] for row in first["days"]][:8] == [str(day) for day in DAYS]
    assert first["waiting"] == []
    assert f"of {len(first['days'])} days)" in done.stderr
    done = run_command("db", "export", "--due", *out, env=environment)
    assert done.returncode == 0
    assert "nothing to export" in done.stderr
    ends = ("--from", str(DAYS[0]), "--to", str(DAYS[1]))
    done = run_command("db", "export", *ends, *out, "--json", env=environment)
    assert len(json.loads(done.stdout)["days"]) == 2
    for wrong in ((), ("--from", "2026-03-01"), ("--due", "--day", "2026-03-01")):
        assert run_command("db", "export", *wrong, *out, env=environment).returncode == 2
    options = ("assess", "--as-of", TO.isoformat(), "--days", "12", "--full", "--json")
    plain = json.loads(run_command(*options, env=environment).stdout)
    files = run_command(*options, env=environment | {"CHARGEWATCH_ASSESS_ARCHIVE": str(folder)})
    assert files.returncode == 0, files.stderr
    outcome = json.loads(files.stdout)
    assert outcome["result_digest"] == plain["result_digest"]
    assert outcome["summary"]["archive"]["days"][SESSION_TABLE] == 9
    rules = outcome["summary"]["rules"]
    assert rules["name"] == "CN-2022"
    assert rules["in_force"] and rules["checked_against_source"]
    early = ("assess", "--as-of", "2021-06-01T00:00:00+08:00", "--days", "1")
    done = run_command(*early, env=environment | {"CHARGEWATCH_MPE_RULES": "OIML-G22-2022"})
    assert done.returncode == 0, done.stderr
    assert "was not in force at the time of this run: it holds from 2022-01-01" in done.stdout
    assert "was not checked against the text of its regulation" in done.stdout
    done = run_command(*options, "--archive", str(tmp_path / "none"), env=environment)
    assert done.returncode == 1
    assert "db export --due" in done.stderr
