"""`chargewatch db`: roles, retention, rollups, export, plans."""

from __future__ import annotations

import math
from dataclasses import asdict
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import click

from chargewatch.commands import refresh
from chargewatch.console import json_option, print_json, run_async, say, settings_of
from chargewatch.errors import DatabaseError
from chargewatch.settings import Settings
from chargewatch.storage.archive.export import ExportedDay, due_days, export_day
from chargewatch.storage.intake.ledger_days import unbalanced
from chargewatch.storage.migrate import open_migrated
from chargewatch.storage.pages.statements import QueryPlan, explain_pages
from chargewatch.storage.retention import apply_policies, apply_retention
from chargewatch.storage.roles import RoleReport, make_roles, passwords_from


@click.group("db")
def command() -> None:
    """Look after the database. Roles, retention, rollups, balance, export, plans."""


command.add_command(refresh.command, "rollups")


async def _retention(settings: Settings, *, dry_run: bool) -> dict[str, Any]:
    async with open_migrated(settings.require_database_url()) as database:
        rules = {
            "raw_days": settings.raw_retention_days,
            "rollup_days": settings.rollup_retention_days,
        }
        policies = [] if dry_run else await apply_policies(database, **rules)
        removals = await apply_retention(
            database,
            quarantine_days=settings.quarantine_retention_days,
            ledger_days=settings.ledger_retention_days,
            contact_days=settings.contact_retention_days,
            now=datetime.now(UTC),
            dry_run=dry_run,
            **rules,
        )
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
    """Delete rows past their time. The settings ..._RETENTION_DAYS say it; run it daily."""
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


async def _balance(settings: Settings) -> list[dict[str, Any]]:
    async with (
        open_migrated(settings.require_database_url()) as database,
        database.begin() as connection,
    ):
        return [dict(row) for row in await unbalanced(connection)]


@command.command("balance")
@json_option
@click.pass_context
def balance_command(context: click.Context, as_json: bool) -> None:
    """Compare the ledger's totals with its messages. Single ones and sums a day, by stream."""
    rows = run_async(_balance(settings_of(context)))
    if as_json:
        print_json({"balanced": not rows, "streams": rows})
    elif not rows:
        say("the ledger balances")
    if rows:
        names = [f"{r['operator_id']}/{r['station_id']}/{r['topic']}" for r in rows[:10]]
        raise DatabaseError(
            f"the totals of {len(rows)} streams are not the sums of their messages: "
            f"{', '.join(names)}; rows were changed by hand, or restored in part"
        )


async def _roles(
    settings: Settings, *, prefix: str, passwords: dict[str, str] | None, rotate: bool
) -> RoleReport:
    async with open_migrated(settings.require_database_url()) as database:
        return await make_roles(database, prefix=prefix, passwords=passwords, rotate=rotate)


@command.command("roles")
@click.option(
    "--prefix", default="chargewatch", show_default=True, help="What the roles' names begin with."
)
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
    """Make one database role for each duty. Repeat it after every `chargewatch migrate`."""
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


def _listed(first: date, last: date) -> list[date]:
    return [first + timedelta(days=n) for n in range((last - first).days + 1)]


async def _export(
    settings: Settings, *, days: list[date] | None, folder: Path
) -> tuple[list[ExportedDay], list[date]]:
    """Export days (None: those that are due); return them, and days that wait."""
    async with open_migrated(settings.require_database_url()) as database:
        waiting: list[date] = []
        if days is None:
            days, waiting = await due_days(
                database,
                folder=folder,
                today=datetime.now(UTC).date(),
                late_days=math.ceil(settings.max_age_days) + 1,
            )
        done = []
        for number, day in enumerate(days, start=1):
            done.append(await export_day(database, day, folder=folder))
            rows = sum(file.rows for file in done[-1].files)
            size = sum(file.bytes for file in done[-1].files)
            say(f"{day}: {rows} rows, {size} bytes ({number} of {len(days)} days)")
            for file in done[-1].files:
                if file.kept:
                    say(f"  {file.path} stays: the database no longer has all of it")
            for table in done[-1].gone:
                say(f"  {table}: no longer in the database, no file written")
    return done, waiting


_DAY = click.DateTime(["%Y-%m-%d"])


@command.command("export")
@click.option("--day", type=_DAY, help="One UTC day, 2026-03-01.")
@click.option("--from", "first", type=_DAY, help="First UTC day of several.")
@click.option("--to", "last", type=_DAY, help="Last one, included.")
@click.option(
    "--due", is_flag=True, help="Every closed day that the folder lacks or that has changed since."
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
def export_command(
    context: click.Context,
    day: datetime | None,
    first: datetime | None,
    last: datetime | None,
    due: bool,
    folder: Path,
    as_json: bool,
) -> None:
    """Write UTC days to Parquet. Rollups, readings, sessions of --day, --from/--to or --due."""
    if (first is None) != (last is None):
        raise click.UsageError("--from and --to go together")
    if (day is not None) + (first is not None) + due != 1:
        raise click.UsageError("say which days: --day, --from and --to, or --due")
    days = None
    if day is not None:
        days = [day.date()]
    elif first is not None and last is not None:
        if first > last:
            raise click.UsageError("--from is after --to")
        days = _listed(first.date(), last.date())
    done, waiting = run_async(_export(settings_of(context), days=days, folder=folder))
    if waiting:
        say(f"{len(waiting)} days wait for `chargewatch db rollups`, {min(waiting)} the first")
    if due and not done:
        say("nothing to export: the folder is current")
    if as_json:
        print_json(
            {
                "days": [
                    {
                        "day": one.day,
                        "files": [{**asdict(f), "path": str(f.path)} for f in one.files],
                        "gone": one.gone,
                    }
                    for one in done
                ],
                "waiting": waiting,
            }
        )


async def _plans(settings: Settings) -> list[QueryPlan]:
    async with open_migrated(settings.require_database_url()) as database:
        return await explain_pages(database)


@command.command("plans")
@json_option
@click.pass_context
def plans_command(context: click.Context, as_json: bool) -> None:
    """Show how the database answers each page. Fails if one reads a whole hypertable."""
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
