"""`chargewatch migrate`."""

from __future__ import annotations

import click

from chargewatch.console import json_option, print_json, run_async, say, settings_of
from chargewatch.settings import Settings
from chargewatch.storage.database import open_database
from chargewatch.storage.migrate import migrate


async def _migrate(settings: Settings) -> dict[str, str | None]:
    async with open_database(settings.require_database_url()) as database:
        before, after = await migrate(database)
    # Asked again: the first migration may have switched TimescaleDB on.
    async with open_database(settings.require_database_url()) as database:
        return {"engine": database.capabilities.engine, "before": before, "after": after}


@click.command("migrate")
@json_option
@click.pass_context
def command(context: click.Context, as_json: bool) -> None:
    """Bring the database to the newest schema; safe to repeat."""
    result = run_async(_migrate(settings_of(context)))
    if as_json:
        print_json(result)
    elif result["before"] == result["after"]:
        say(f"{result['engine']}: schema {result['after']} is the newest")
    else:
        say(f"{result['engine']}: schema {result['before'] or 'none'} -> {result['after']}")
