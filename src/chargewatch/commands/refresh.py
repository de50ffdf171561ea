"""`chargewatch refresh`: brings the rollups up to date."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import click

from chargewatch.console import json_option, print_json, run_async, say, settings_of
from chargewatch.runs.plan import first_unjudged_day
from chargewatch.runs.rollups import refresh_rollups
from chargewatch.settings import Settings
from chargewatch.storage.migrate import open_migrated


async def _refresh(settings: Settings, *, recompute_all: bool) -> dict[str, Any]:
    async with open_migrated(settings.require_database_url()) as database:
        since = None if recompute_all else await first_unjudged_day(database)
        return asdict(await refresh_rollups(database, since=since, recompute_all=recompute_all))


@click.command("refresh")
@click.option("--all", "recompute_all", is_flag=True, help="Recompute every day with readings.")
@json_option
@click.pass_context
def command(context: click.Context, recompute_all: bool, as_json: bool) -> None:
    """Bring the 15-minute rollups up to date; for an hourly timer."""
    report = run_async(_refresh(settings_of(context), recompute_all=recompute_all))
    if as_json:
        print_json(report)
        return
    say(
        f"{report['pairs']} instrument-days from {report['readings']} readings: "
        f"{report['rows_written']} rows written, {report['rows_removed']} removed "
        f"in {report['seconds']:.1f} s"
    )
    for kind, number in report["failed"]:
        say(f"{kind} {number}: the platform failed on its readings; see the log, and report it")
    if report["waiting"]:
        say(f"{report['waiting']} instrument-days wait for the next refresh or risk run")
