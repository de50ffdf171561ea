"""`chargewatch registry show`, `edit`, `due` and `coverage`: the office's work, for scripts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, date, datetime, timedelta
from typing import Any

import click

from chargewatch.console import json_option, print_json, run_async, say, settings_of
from chargewatch.domain.districts import district_name
from chargewatch.errors import ChargewatchError, RegistryFileError
from chargewatch.settings import Settings
from chargewatch.storage.database import Database, open_database
from chargewatch.storage.migrate import require_newest_schema
from chargewatch.storage.office.coverage import By
from chargewatch.storage.office.due import STEPS
from chargewatch.storage.office.instruments import InstrumentFilter
from chargewatch.supervision.audit import command_line
from chargewatch.supervision.instruments.coverage import VerifiedShare, city_of, coverage
from chargewatch.supervision.instruments.due import (
    DUE_DAYS,
    MOST_DUE_DAYS,
    DueRow,
    due_list,
    take_due_step,
)
from chargewatch.supervision.instruments.editing import (
    Edited,
    EditError,
    add_row,
    edit_row,
    field_problem,
)
from chargewatch.supervision.instruments.rows import (
    FieldChange,
    RegistryRow,
    find_row,
    whole_history,
)
from chargewatch.wire.registry.written import cell_text
from chargewatch.wire.registry_models import LISTS

LIST = click.Choice(list(LISTS))
MOST_HISTORY = 1_000
ALL_ROWS = 1_000_000


def _today(settings: Settings) -> date:
    return datetime.now(settings.zone).date()


async def _open(database: Database) -> Database:
    await require_newest_schema(database)
    return database


@click.command("show")
@click.argument("list_name", metavar="LIST", type=LIST)
@click.argument("name")
@click.option("--history", is_flag=True, help="Show every change of its fields, too.")
@json_option
@click.pass_context
def show(context: click.Context, list_name: str, name: str, history: bool, as_json: bool) -> None:
    """Show one row of a list, with its history on request."""

    async def look() -> tuple[RegistryRow, Sequence[FieldChange]]:
        async with open_database(settings_of(context).require_database_url()) as database:
            await _open(database)
            async with database.connect() as connection:
                row = await find_row(connection, list_name, name, scope=None)
                if not history:
                    return row, []
                return row, await whole_history(connection, row, scope=None, limit=MOST_HISTORY)

    row, changes = run_async(look())
    if as_json:
        told = {"list": row.kind, "identifier": row.identifier, "version": row.version}
        print_json(told | {"values": row.values, "history": [asdict(change) for change in changes]})
        return
    for column, value in row.values.items():
        click.echo(f"{column}: {cell_text(value)}")
    click.echo(f"version: {row.version}")
    for change in changes:
        why = f" ({change.why})" if change.why else ""
        source = f" from {change.source}" if change.source else ""
        click.echo(f"{change.at.isoformat(timespec='seconds')} {change.actor}{source}{why}")
        for column, (old, new) in change.fields.items():
            before = "" if change.is_new else f"{cell_text(old)} -> "
            click.echo(f"  {change.kind} {change.identifier}, {column}: {before}{cell_text(new)}")


def _given(pairs: Sequence[str]) -> dict[str, str]:
    values = {}
    for pair in pairs:
        column, equals, value = pair.partition("=")
        if not equals:
            raise click.BadParameter(f"{pair!r}: write FIELD=VALUE", param_hint="--set")
        values[column.strip()] = value
    return values


@click.command("edit")
@click.argument("list_name", metavar="LIST", type=LIST)
@click.argument("name")
@click.option(
    "--set", "pairs", multiple=True, required=True, metavar="FIELD=VALUE",
    help="A new value; empty erases. May be repeated.",
)  # fmt: skip
@click.option("--why", required=True, help="The reason, for history and audit trail.")
@click.option("--version", type=click.IntRange(min=0), help="Refuse when the row has another one.")
@click.option("--new", "is_new", is_flag=True, help="Register the row; NAME is its first field.")
@json_option
@click.pass_context
def edit(
    context: click.Context,
    list_name: str,
    name: str,
    pairs: tuple[str, ...],
    why: str,
    version: int | None,
    is_new: bool,
    as_json: bool,
) -> None:
    """Change fields of one row, by the rules of registry files."""
    settings, values = settings_of(context), _given(pairs)
    more: dict[str, Any] = {"why": why, "actor": command_line(), "zone": settings.time_zone}

    async def change() -> Edited:
        async with open_database(settings.require_database_url()) as database:
            await _open(database)
            if is_new:
                key = LISTS[list_name].key_columns[0]
                return await add_row(database, list_name, {key: name, **values}, **more)
            return await edit_row(database, list_name, name, values, version=version, **more)

    try:
        edited = run_async(change())
    except RegistryFileError as exc:
        raise EditError(f"nothing was changed: {field_problem(exc)}") from exc
    if as_json:
        print_json(edited)
        return
    for column, (old, new) in edited.fields.items():
        click.echo(f"{column}: {cell_text(old)} -> {cell_text(new)}")
    for line in edited.told:
        say(f"note: {line}")
    say(f"{list_name} {edited.identifier} is version {edited.version} now")


@click.command("due")
@click.option(
    "--days", type=click.IntRange(0, MOST_DUE_DAYS), default=DUE_DAYS, show_default=True,
    help="Verifications that end within so many days, and those that are over.",
)  # fmt: skip
@click.option("--never", is_flag=True, help="Those that never had one instead.")
@click.option("--operator", default="", help="Of one operator.")
@click.option("--district", default="", help="Of one district, by its code.")
@click.option("--lacks", type=click.Choice(STEPS), help="Without a step.")
@click.option("--step", type=click.Choice(STEPS), help="Tell that a step was taken.")
@click.option("--connector", help="Whose step.")
@click.option("--on", "done_on", type=click.DateTime(["%Y-%m-%d"]), help="Its day; default today.")
@click.option("--note", default="", help="What else is to be known of it.")
@json_option
@click.pass_context
def due(context: click.Context, /, as_json: bool, **options: Any) -> None:
    """List verifications that end or are over; tell a step."""
    settings = settings_of(context)
    if (options["step"] is None) != (options["connector"] is None):
        raise click.UsageError("--step and --connector go together")
    if options["step"] is not None:
        run_async(_take_step(settings, options))
        say(f"{options['connector']}: {options['step']} was noted")
        return
    rows = run_async(_due(settings, options))
    if as_json:
        print_json([asdict(row) for row in rows])
        return
    for row in rows:
        taken = ", ".join(f"{step.step} {step.done_on}" for step in row.steps.values())
        told = ("never verified" if row.until is None else str(row.until)) + (
            ", failed" if row.failed else ""
        )
        late = " LATE" if row.is_late else ""
        book = f" book by {row.book_by}" if row.book_by else ""
        click.echo(
            f"{row.instrument['connector']} {told}{book}{late}{': ' if taken else ''}{taken} "
            f"({row.instrument['operator_id']}, {row.instrument['station_id']})"
        )
    say(f"{len(rows)} instruments")


async def _due(settings: Settings, options: Mapping[str, Any]) -> list[DueRow]:
    today = _today(settings)
    wanted = InstrumentFilter(
        operator_id=options["operator"],
        district=options["district"],
        state="never" if options["never"] else "",
        today=today,
        soon=today + timedelta(days=options["days"] + 1),
    )
    async with open_database(settings.require_database_url()) as database:
        await _open(database)
        async with database.connect() as connection:
            return await due_list(
                connection,
                wanted=wanted,
                scope=None,
                days=options["days"],
                lacks=options["lacks"] or "",
                limit=ALL_ROWS,
            )


async def _take_step(settings: Settings, options: Mapping[str, Any]) -> None:
    today = _today(settings)
    done_on = options["done_on"].date() if options["done_on"] else today
    async with open_database(settings.require_database_url()) as database:
        await _open(database)
        await take_due_step(
            database,
            options["connector"],
            options["step"],
            done_on=done_on,
            note=options["note"],
            actor=command_line(),
            now=datetime.now(UTC),
            today=today,
        )


@click.command("coverage")
@click.option(
    "--by", type=click.Choice(["district", "operator", "city"]), default="district",
    show_default=True, help="What a line is of.",
)  # fmt: skip
@click.option("--on", type=click.DateTime(["%Y-%m-%d"]), help="A day; default today.")
@json_option
@click.pass_context
def show_share(context: click.Context, by: By, on: datetime | None, as_json: bool) -> None:
    """Show the share of instruments with a valid verification."""
    settings = settings_of(context)
    today = _today(settings)
    day = on.date() if on is not None else today

    async def look() -> Sequence[VerifiedShare]:
        async with open_database(settings.require_database_url()) as database:
            await _open(database)
            async with database.connect() as connection:
                return await coverage(connection, day, by, today=today)

    rows = run_async(look())
    if not rows:
        raise ChargewatchError("the registry is empty: `chargewatch registry import FILE` first")
    if as_json:
        told = [asdict(row) | {"share": row.share} for row in rows]
        print_json({"on": day, "by": by, "rows": told})
        return
    for row in [*rows, city_of(rows)] if by != "city" else rows:
        name = district_name(row.name) if by == "district" else row.name
        share = "-" if row.share is None else f"{row.share:.1%}"
        click.echo(
            f"{name or 'all'}: {share} of {row.instruments} valid; {row.expired} over "
            f"(failed: {row.failed}), {row.never} never verified"
        )
