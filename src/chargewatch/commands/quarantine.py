"""`chargewatch quarantine`: look at rejected messages, and read them again."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import click

from chargewatch.api.ledger import quarantined_item
from chargewatch.console import json_option, print_json, run_async, say, settings_of
from chargewatch.ingest.replay import ReplayReport, replay_quarantine
from chargewatch.settings import Settings
from chargewatch.storage.migrate import open_migrated
from chargewatch.storage.pages import messages as message_rows
from chargewatch.wire.rejection import CODES, INTERNAL_ERROR

code_choice = click.Choice(CODES)


@click.group("quarantine")
def command() -> None:
    """Look at rejected messages, and read them again. Their bytes, and why."""


async def _list(
    settings: Settings, *, code: str, station: str, limit: int, before: int | None
) -> dict[str, Any]:
    async with (
        open_migrated(settings.require_database_url()) as database,
        database.connect() as connection,
    ):
        rows = await message_rows.quarantined(
            connection,
            scope=None,
            limit=limit,
            before_id=before,
            code=code,
            station_id=station,
        )
        codes = await message_rows.quarantine_codes(connection, scope=None)
        waiting = await message_rows.quarantine_waiting(connection, scope=None)
        beyond = await message_rows.beyond_quota(
            connection, scope=None, limit=limit, station_id=station
        )
    return {
        "codes": [dict(row) for row in codes],
        "waiting": waiting,
        "items": [quarantined_item(row) for row in rows],
        "beyond_quota": [dict(row) for row in beyond],
        "next_before": rows[-1]["quarantine_id"] if len(rows) == limit else None,
    }


def _line(item: dict[str, Any]) -> str:
    reason = item["errors"][0]["detail"] if item["errors"] else ""
    more = f" (and {item['rejected'] - 1} more items)" if item["rejected"] > 1 else ""
    again = ""
    if item["replayed_at"]:
        again = (
            f" [read again: {item['replay_stored']} stored, "
            f"{item['replay_duplicate']} duplicate, {item['replay_rejected']} rejected]"
        )
    seq = "-" if item["seq"] is None else item["seq"]
    return (
        f"{item['quarantine_id']}  {item['received_at']:%Y-%m-%d %H:%M:%S%z}  {item['topic']}  "
        f"seq {seq}  {', '.join(item['codes'])}: {reason}{more}{again}"
    )


@command.command("list")
@click.option("--code", type=code_choice, help="Only messages with this reason.")
@click.option("--station", default="", help="Only messages of this station.")
@click.option(
    "--limit",
    default=50,
    show_default=True,
    type=click.IntRange(1, 10_000),
    help="Messages at most.",
)
@click.option("--before", type=int, help="Go on after the last quarantine_id of the page before.")
@json_option
@click.pass_context
def list_command(
    context: click.Context,
    code: str | None,
    station: str,
    limit: int,
    before: int | None,
    as_json: bool,
) -> None:
    """List rejected messages, newest first. Each with its first reason."""
    found = run_async(
        _list(settings_of(context), code=code or "", station=station, limit=limit, before=before)
    )
    if as_json:
        print_json(found)
        return
    for item in found["items"]:
        click.echo(_line(item))
    for row in found["beyond_quota"]:
        place = row["station_id"] or "unregistered stations"
        click.echo(
            f"{row['day']}  {row['operator_id']} {place}: {row['more']} messages more than the "
            f"quota, with {row['more_rejected']} rejected items, were only counted"
        )
    if found["next_before"]:
        say(f"more with --before {found['next_before']}")
    if found["waiting"]:
        say(f"{found['waiting']} wait for `chargewatch quarantine replay --code {INTERNAL_ERROR}`")


def _say(report: ReplayReport, code: str) -> None:
    word = "would be read" if report.dry_run else "read"
    say(
        f"{report.messages} messages with {code} {word} again: {report.stored} items stored, "
        f"{report.duplicate} duplicate, {report.rejected} rejected"
    )
    if report.codes:
        say("now: " + ", ".join(f"{count} {name}" for name, count in sorted(report.codes.items())))
    if report.unchanged:
        say(f"{report.unchanged} are rejected as before and stay as they are")


@command.command("replay")
@click.option(
    "--code",
    type=code_choice,
    default=INTERNAL_ERROR,
    show_default=True,
    help="Only messages with this reason.",
)
@click.option("--station", default="", help="Only messages of this station.")
@click.option("--dry-run", is_flag=True, help="Only tell what would become of them.")
@json_option
@click.pass_context
def replay_command(
    context: click.Context, code: str, station: str, dry_run: bool, as_json: bool
) -> None:
    """Read messages again that were rejected whole. After an upgrade, for example.

    They go the same road as from the broker, with the time of their first arrival; the ledger
    moves their items from rejected to what they are now. It may be interrupted and repeated, and
    runs beside ingest.
    """
    report = run_async(
        replay_quarantine(settings_of(context), code=code, station_id=station, dry_run=dry_run)
    )
    if as_json:
        print_json({"code": code, "station": station, **asdict(report)})
    else:
        _say(report, code)
