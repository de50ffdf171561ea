"""`chargewatch db`: roles, retention, rollups, export, plans."""

from __future__ import annotations

from dataclasses import asdict
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import click

from chargewatch.commands.common import json_option, print_json, run_async, say, settings_of
from chargewatch.errors import DatabaseError
from chargewatch.runs.rollups import refresh_rollups
from chargewatch.settings import Settings
from chargewatch.storage.database import open_database
from chargewatch.storage.migrate import require_newest_schema
from chargewatch.storage.parquet import ExportedTable, export_day
from chargewatch.storage.plans import Plan, explain_pages
from chargewatch.storage.retention import apply_policies, apply_retention
from chargewatch.storage.roles import RoleReport, make_roles, passwords_from


@click.group("db")
def command() -> None:
    """Look after the database: roles, retention, rollups, export, plans."""


async def _rollups(settings: Settings, *, recompute_all: bool) -> dict[str, Any]:
    async with open_database(settings.require_database_url()) as database:
        await require_newest_schema(database)
        return asdict(await refresh_rollups(database, recompute_all=recompute_all))


@command.command("rollups")
@click.option("--all", "recompute_all", is_flag=True, help="Recompute every day with readings.")
@json_option
@click.pass_context
def rollups_command(context: click.Context, recompute_all: bool, as_json: bool) -> None:
    """Bring the 15-minute rollups up to date."""
    report = run_async(_rollups(settings_of(context), recompute_all=recompute_all))
    if as_json:
        print_json(report)
        return
    say(
        f"{report['pairs']} instrument-days from {report['readings']} readings: "
        f"{report['rows_written']} rows written, {report['rows_removed']} removed "
        f"in {report['seconds']:.1f} s"
    )
    if report["waiting"]:
        say(f"{report['waiting']} instrument-days wait for the next refresh")


async def _retention(settings: Settings, *, dry_run: bool) -> dict[str, Any]:
    async with open_database(settings.require_database_url()) as database:
        await require_newest_schema(database)
        rules = {
            "raw_days": settings.raw_retention_days,
            "rollup_days": settings.rollup_retention_days,
        }
        policies = [] if dry_run else await apply_policies(database, **rules)
        removals = await apply_retention(database, now=datetime.now(UTC), dry_run=dry_run, **rules)
        return {
            "engine": database.capabilities.engine,
            "dry_run": dry_run,
            "policies": policies,
            "tables": [asdict(removal) for removal in removals],
        }


@command.command("retention")
@click.option("--dry-run", is_flag=True, help="Only tell what would be deleted.")
@json_option
@click.pass_context
def retention_command(context: click.Context, dry_run: bool, as_json: bool) -> None:
    """Delete rows past their time (settings RAW_ and ROLLUP_RETENTION_DAYS); run it daily."""
    result = run_async(_retention(settings_of(context), dry_run=dry_run))
    if as_json:
        print_json(result)
        return
    say(result["engine"])
    if result["policies"]:
        say(f"policies set on {', '.join(result['policies'])}")
    word = "would be deleted" if dry_run else "deleted"
    for table in result["tables"]:
        amount = f"{table['chunks']} chunks, {table['rows']} rows {word}"
        say(f"{table['table']}: kept from {table['kept_from']:%Y-%m-%d}; {amount}")
        if table["held_back_by"]:
            say(f"  held back: {table['held_back_by']:%Y-%m-%d} waits for `chargewatch db rollups`")


async def _roles(
    settings: Settings, *, prefix: str, passwords: dict[str, str] | None, rotate: bool
) -> RoleReport:
    async with open_database(settings.require_database_url()) as database:
        await require_newest_schema(database)
        return await make_roles(database, prefix=prefix, passwords=passwords, rotate=rotate)


@command.command("roles")
@click.option("--prefix", default="chargewatch", show_default=True, help="Begin of role names.")
@click.option(
    "--passwords-from",
    "passwords_from_",
    type=click.Choice(["env"]),
    help="Take passwords from CHARGEWATCH_MIGRATE_PASSWORD, _INGEST_, _ASSESS_ and _SERVE_.",
)
@click.option("--rotate", is_flag=True, help="Give new passwords to roles that exist.")
@json_option
@click.pass_context
def roles_command(
    context: click.Context, prefix: str, passwords_from_: str | None, rotate: bool, as_json: bool
) -> None:
    """Make one database role for each duty; repeat it after `chargewatch migrate`."""
    passwords = passwords_from() if passwords_from_ else None
    report = run_async(
        _roles(settings_of(context), prefix=prefix, passwords=passwords, rotate=rotate)
    )
    if as_json:
        print_json(asdict(report))
    else:
        for role, password in report.passwords.items():
            click.echo(f"{role} {password}")
        say(f"roles with their rights: {', '.join(report.roles)}")
        if report.passwords:
            say("the passwords above are shown once; only their SCRAM verifiers are kept")
    if report.tables_without_rights:
        say(f"tables open to their owner only: {', '.join(report.tables_without_rights)}")


async def _export(settings: Settings, *, day: date, folder: Path) -> list[ExportedTable]:
    async with open_database(settings.require_database_url()) as database:
        await require_newest_schema(database)
        return await export_day(database, day, folder=folder)


@command.command("export")
@click.option(
    "--day", required=True, type=click.DateTime(["%Y-%m-%d"]), help="UTC day, 2026-03-01."
)
@click.option(
    "--out",
    "folder",
    required=True,
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder that the files go into.",
)
@json_option
@click.pass_context
def export_command(context: click.Context, day: datetime, folder: Path, as_json: bool) -> None:
    """Write rollups, readings and sessions of one UTC day to Parquet."""
    files = run_async(_export(settings_of(context), day=day.date(), folder=folder))
    rows = [{**asdict(file), "path": str(file.path)} for file in files]
    if as_json:
        print_json({"day": day.date(), "files": rows})
        return
    for row in rows:
        say(f"{row['path']}: {row['rows']} rows, {row['bytes']} bytes")


async def _plans(settings: Settings) -> list[Plan]:
    async with open_database(settings.require_database_url()) as database:
        await require_newest_schema(database)
        return await explain_pages(database)


@command.command("plans")
@json_option
@click.pass_context
def plans_command(context: click.Context, as_json: bool) -> None:
    """Show how the database answers each page; fail if one reads a whole hypertable."""
    plans = run_async(_plans(settings_of(context)))
    faults = [plan for plan in plans if plan.faults]
    if as_json:
        print_json([{**asdict(plan), "faults": plan.faults} for plan in plans])
    else:
        for plan in plans:
            scanned = f"reads all of {', '.join(plan.scanned)}" if plan.scanned else "by index"
            say(f"{plan.name}: cost {plan.cost:.0f}, {plan.chunks} chunks, {scanned}")
    if faults:
        raise DatabaseError(
            "hypertables are read from begin to end by "
            + "; ".join(f"{plan.name} ({', '.join(plan.faults)})" for plan in faults)
        )
