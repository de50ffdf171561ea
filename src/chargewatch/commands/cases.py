"""`chargewatch cases`: what became of flags, signals and complaints."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

import click

from chargewatch.console import json_option, print_json, read_file, run_async, say, settings_of
from chargewatch.errors import NotFoundError
from chargewatch.settings import Settings
from chargewatch.storage.database import Database
from chargewatch.storage.migrate import open_migrated
from chargewatch.storage.office import cases as rows
from chargewatch.storage.office.cases import SORTS, CaseFilter
from chargewatch.supervision.audit import command_line
from chargewatch.supervision.cases import bulk, opening, working
from chargewatch.supervision.cases.model import Case, CaseOutcome, CaseState, Origin, case_of
from chargewatch.supervision.cases.working import CaseChange
from chargewatch.supervision.files import check_file

MOST_LISTED = 500


def _now(settings: Settings) -> datetime:
    return datetime.now(settings.zone)


def _told(case: Case | Mapping[Any, Any]) -> dict[str, Any]:
    row = case if isinstance(case, Mapping) else vars(case)
    return {str(key): value for key, value in row.items() if key != "case_id"}


async def _case(database: Database, number: str) -> Case:
    async with database.connect() as connection:
        row = await rows.case_by_number(connection, number, scope=None)
    if row is None:
        raise NotFoundError(f"no case {number!r}: see `chargewatch cases list --state all`")
    return case_of(row)


@click.group("cases")
def command() -> None:
    """List, show, open, close and comment cases."""


@command.command("list")
@click.option(
    "--state",
    type=click.Choice(["all", *(state.value for state in CaseState)]),
    help="Default: all that are not closed.",
)
@click.option("--owner", default="", help="A user's name; - for those that nobody owns.")
@click.option("--operator", "operator_id", default="", help="Of one operator.")
@click.option("--overdue", is_flag=True, help="Only those whose deadline is past.")
@click.option("--sort", type=click.Choice(list(SORTS)), default="newest", help="Order of the list.")
@json_option
@click.pass_context
def list_cases(
    context: click.Context,
    /,
    state: str | None,
    owner: str,
    operator_id: str,
    overdue: bool,
    sort: str,
    as_json: bool,
) -> None:
    """List the first 500 cases."""
    settings = settings_of(context)
    wanted = CaseFilter(
        state=state or "", owner=owner, operator_id=operator_id, overdue=overdue, sort=sort
    )

    async def run() -> list[dict[str, Any]]:
        async with (
            open_migrated(settings.require_database_url()) as database,
            database.connect() as connection,
        ):
            found = await rows.cases(
                connection,
                wanted,
                scope=None,
                today=_now(settings).date(),
                limit=MOST_LISTED,
                after=None,
            )
        return [_told(row) for row in found]

    found = run_async(run())
    if as_json:
        print_json(found)
        return
    for row in found:
        parts = (row["number"], row["state"], row["outcome"] or row["owner"] or "-",
                 row["deadline"] or "-", row["subject"], row["title"])  # fmt: skip
        click.echo("\t".join(str(part) for part in parts))
    if not found:
        say("no such cases: `chargewatch cases open --pile NAME` opens one")


@command.command("show")
@click.argument("number")
@json_option
@click.pass_context
def show(context: click.Context, number: str, as_json: bool) -> None:
    """Show a case with what was done and said in it."""
    settings = settings_of(context)

    async def run() -> tuple[Case, list[dict[str, Any]]]:
        async with open_migrated(settings.require_database_url()) as database:
            case = await _case(database, number)
            async with database.connect() as connection:
                found = await rows.entries(connection, case.case_id, only_shown=False)
        return case, [{str(key): value for key, value in row.items()} for row in found]

    case, entries = run_async(run())
    if as_json:
        print_json({"case": _told(case), "entries": entries})
        return
    outcome = f": {case.outcome}" if case.outcome else ""
    click.echo(f"{case.number}\t{case.state}{outcome}\t{case.subject}\t{case.title}")
    for row in entries:
        at = row["at"].astimezone(settings.zone).strftime("%Y-%m-%d %H:%M")
        click.echo(f"{at}\t{row['author']}\t{row['kind']}\t{row['file_name'] or row['text']}")


@command.command("open")
@click.option("--pile", "connector", help="Name of a connector.")
@click.option("--signal", "signal_id", type=click.IntRange(1), help="Number of a signal.")
@click.option("--station", "station_id", help="A station, or where one of several claims stands.")
@click.option("--operator", "operator_id", help="Whose; needed for a station.")
@click.option("--title", default="", help="In a line; the operator may read it.")
@click.option("--deadline", type=click.DateTime(["%Y-%m-%d"]), help="Day, as 2026-03-31.")
@json_option
@click.pass_context
def open_one(
    context: click.Context,
    /,
    connector: str | None,
    signal_id: int | None,
    station_id: str | None,
    operator_id: str | None,
    title: str,
    deadline: datetime | None,
    as_json: bool,
) -> None:
    """Open a case, or add to the open one of the same thing."""
    if (connector is not None) + (signal_id is not None) > 1:
        raise click.UsageError("--pile or --signal: a case is about one thing")
    if connector is None and signal_id is None and not (station_id and operator_id):
        raise click.UsageError(
            "say what it is about: --pile, --signal, or --station and --operator"
        )
    settings = settings_of(context)
    day = None if deadline is None else deadline.date()

    async def run() -> tuple[Case, bool]:
        now = _now(settings)
        async with (
            open_migrated(settings.require_database_url()) as database,
            database.begin() as connection,
        ):
            if signal_id is not None:
                wanted = await opening.wanted_of_signal(
                    connection, signal_id, title=title, deadline=day
                )
            elif connector is not None:
                wanted = await opening.wanted_of_pile(
                    connection, connector, station_id=station_id, operator_id=operator_id,
                    origin=Origin.HAND, title=title, deadline=day,
                )  # fmt: skip
            else:
                wanted = await opening.wanted_of_station(
                    connection, station_id or "", operator_id=operator_id or "", title=title,
                    deadline=day,
                )  # fmt: skip
            cases = await bulk.open_many(connection, command_line(), [wanted], now=now)
        return cases[0], cases[0].opened_at == now

    case, is_new = run_async(run())
    if as_json:
        print_json(_told(case))
        return
    say(f"case {case.number} " + ("is open" if is_new else "was open already, and was added to"))
    click.echo(case.number)


@command.command("close")
@click.argument("number")
@click.option(
    "--outcome",
    type=click.Choice([one.value for one in CaseOutcome]),
    required=True,
    help="What was found.",
)
@click.option("--why", required=True, help="The reason, which is kept.")
@click.option("--keep-from-operator", is_flag=True, help="The operator is not told.")
@json_option
@click.pass_context
def close(
    context: click.Context,
    number: str,
    outcome: str,
    why: str,
    keep_from_operator: bool,
    as_json: bool,
) -> None:
    """Close a case with what was found."""
    settings = settings_of(context)

    async def run() -> Case:
        async with open_migrated(settings.require_database_url()) as database:
            case = await _case(database, number)
            async with database.begin() as connection:
                return await working.close_case(
                    connection, command_line(), case.case_id, outcome, why, _now(settings),
                    for_operator=not keep_from_operator,
                )  # fmt: skip

    case = run_async(run())
    if as_json:
        print_json(_told(case))
        return
    say(f"case {case.number} is closed: {case.outcome}")


@command.command("comment")
@click.argument("number")
@click.argument("text", default="")
@click.option(
    "--file",
    "paths",
    multiple=True,
    type=click.Path(dir_okay=False, path_type=Path),
    help="File to attach; several times for several.",
)
@click.option("--for-operator", is_flag=True, help="The operator reads it, too.")
@json_option
@click.pass_context
def comment(
    context: click.Context,
    number: str,
    text: str,
    paths: tuple[Path, ...],
    for_operator: bool,
    as_json: bool,
) -> None:
    """Write into a case.

    A text, files, or both; @name mentions a user.
    """
    settings = settings_of(context)

    async def run() -> CaseChange:
        files = [await check_file(path.name, read_file(path)) for path in paths]
        async with open_migrated(settings.require_database_url()) as database:
            case = await _case(database, number)
            async with database.begin() as connection:
                return await working.write_comment(
                    connection, command_line(), case.case_id, text=text, files=files,
                    for_operator=for_operator, now=_now(settings),
                )  # fmt: skip

    written = run_async(run())
    for name in written.unknown_mentions:
        say(f"nobody who may read it is called @{name}")
    if as_json:
        print_json(_told(written.case))
