"""`chargewatch jobs`: what is done in the background."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import click
import orjson
from sqlalchemy.ext.asyncio import AsyncConnection

from chargewatch.console import json_option, print_json, run_async, say, settings_of
from chargewatch.errors import InputFileError, NotFoundError
from chargewatch.settings import Settings
from chargewatch.storage.migrate import open_migrated
from chargewatch.storage.office import jobs as rows
from chargewatch.supervision import jobs
from chargewatch.supervision.audit import command_line
from chargewatch.supervision.jobs.asking import ask_again, ask_for
from chargewatch.web.mails import ALL_JOBS

state_choice = click.Choice(jobs.STATES)


def _with_database(settings: Settings, use: Callable[[AsyncConnection], Awaitable[Any]]) -> Any:
    async def run() -> Any:
        async with (
            open_migrated(settings.require_database_url()) as database,
            database.begin() as connection,
        ):
            return await use(connection)

    return run_async(run())


@click.group("jobs")
def command() -> None:
    """Look at the jobs, ask for one, try a failed one again."""


@command.command("list")
@click.option("--state", type=state_choice, help="Only jobs in this state.")
@click.option(
    "--limit",
    default=50,
    show_default=True,
    type=click.IntRange(1, 10_000),
    help="Jobs at most.",
)
@json_option
@click.pass_context
def list_command(context: click.Context, state: str | None, limit: int, as_json: bool) -> None:
    """List jobs, the newest first."""
    found = _with_database(
        settings_of(context), lambda c: rows.newest(c, limit=limit, state=state or "")
    )
    if as_json:
        print_json([dict(row) for row in found])
        return
    for row in found:
        told = row["error"] or row["progress"]
        click.echo(
            f"{row['job_id']}  {row['made_at']:%Y-%m-%d %H:%M:%S%z}  {row['kind']}  {row['state']}"
            + (f"  {told}" if told else "")
        )


@command.command("show")
@click.argument("job_id", metavar="JOB", type=int)
@click.pass_context
def show_command(context: click.Context, job_id: int) -> None:
    """Print all of a job as JSON."""
    found = _with_database(settings_of(context), lambda c: rows.one(c, job_id))
    if found is None:
        raise NotFoundError(f"no job {job_id}: see `chargewatch jobs list`")
    print_json(dict(found))


@command.command("kinds")
def kinds_command() -> None:
    """List the kinds of jobs, and when timers ask for them."""
    for kind in ALL_JOBS:
        when = f"daily at {kind.daily_at:%H:%M}" if kind.daily_at else "on demand"
        when = f"every {kind.every_s} s" if kind.every_s else when
        click.echo(f"{kind.name}  {when}: {kind.meaning}")


@command.command("add")
@click.argument("kind", type=click.Choice([kind.name for kind in ALL_JOBS if kind.by_hand]))
@click.argument("arguments", default="{}")
@click.option("--key", help="Done once for a key, however often it is asked for.")
@click.pass_context
def add_command(context: click.Context, kind: str, arguments: str, key: str | None) -> None:
    """Ask for a job. ARGUMENTS is a JSON object; prints the job's number."""
    try:
        wanted = orjson.loads(arguments)
    except orjson.JSONDecodeError as exc:
        raise InputFileError(f"ARGUMENTS is no JSON: {exc}") from exc
    if not isinstance(wanted, dict):
        raise InputFileError("ARGUMENTS must be a JSON object, such as {}")
    settings = settings_of(context)
    click.echo(
        _with_database(settings, lambda c: ask_for(c, kind, wanted, actor=command_line(), key=key))
    )


@command.command("again")
@click.argument("job_id", metavar="JOB", type=int)
@click.pass_context
def again_command(context: click.Context, job_id: int) -> None:
    """Try a failed job again."""
    _with_database(settings_of(context), lambda c: ask_again(c, job_id, actor=command_line()))
    say(f"job {job_id} waits for a worker (`chargewatch work`)")
