"""`chargewatch complaints`: what the public complains of, and the office's steps."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Any
from zoneinfo import ZoneInfo

import click
from sqlalchemy.ext.asyncio import AsyncConnection

from chargewatch.console import json_option, print_json, run_async, say, settings_of
from chargewatch.errors import NotFoundError
from chargewatch.settings import Settings
from chargewatch.storage.migrate import open_migrated
from chargewatch.storage.office import complaints as rows
from chargewatch.supervision.audit import command_line
from chargewatch.supervision.complaints import triage
from chargewatch.supervision.complaints.near import near_complaint

Step = Callable[[AsyncConnection, datetime, ZoneInfo], Awaitable[None]]


@click.group("complaints")
def command() -> None:
    """List, show and answer complaints of the public."""


def _dates(row: Any) -> str:
    due = {"received": "accept_by", "accepted": "end_by", "answered": "end_by"}
    if row["notified_at"] is not None:
        return "done"
    return f"by {row[due.get(row['state'], 'notify_by')]}{' OVERDUE' if row['overdue'] else ''}"


@command.command("list")
@click.option(
    "--state",
    type=click.Choice(["open", "overdue", "all", *triage.COMPLAINT_STATES]),
    default="open",
    show_default=True,
    help="Which ones; open: something is left to do.",
)
@click.option("--connector", default="", help="Only of this connector.")
@click.option(
    "--limit", type=click.IntRange(1, 10_000), default=200, show_default=True, help="At most."
)
@json_option
@click.pass_context
def list_complaints(
    context: click.Context, state: str, connector: str, limit: int, as_json: bool
) -> None:
    """List complaints with their next clock, the newest first."""
    settings = settings_of(context)

    async def load() -> list[dict[str, Any]]:
        today = datetime.now(settings.zone).date()
        async with (
            open_migrated(settings.require_database_url()) as database,
            database.connect() as connection,
        ):
            found = await rows.complaints(
                connection,
                scope=None,
                today=today,
                limit=limit,
                state=state,
                connector=connector,
            )
        return [dict(row) for row in found]

    found = run_async(load())
    if as_json:
        print_json(found)
        return
    for row in found:
        cells = (row["complaint_id"], row["reference"], row["connector"], row["kind"], row["state"])
        click.echo("\t".join((*map(str, cells), _dates(row))))
    if not found:
        say("no such complaints: the form is behind the QR code of every pile")


@command.command("show")
@click.argument("number", type=click.IntRange(1))
@json_option
@click.pass_context
def show(context: click.Context, number: int, as_json: bool) -> None:
    """Show a complaint, and sessions and signals near it."""
    settings = settings_of(context)

    async def load() -> dict[str, Any]:
        today = datetime.now(settings.zone).date()
        async with (
            open_migrated(settings.require_database_url()) as database,
            database.connect() as connection,
        ):
            row = await rows.complaint_of(connection, number, scope=None, today=today)
            if row is None:
                raise NotFoundError(
                    f"no complaint {number}: `chargewatch complaints list --state all`"
                )
            near = await near_complaint(connection, row)
            return {
                **row,
                "contact": await rows.contact_of(connection, number),
                "sessions": list(near.sessions),
                "signals": [dict(signal) for signal in near.signals],
            }

    found = run_async(load())
    if as_json:
        amounts = [found, *found["sessions"]]
        for one in amounts:
            for name in ("bill_cny", "total_fee"):
                if one.get(name) is not None:
                    one[name] = str(one[name])
        print_json(found)
        return
    for name in ("reference", "connector", "kind", "state", "received_at", "contact", "text"):
        click.echo(f"{name}: {found[name] if found[name] is not None else '-'}")
    click.echo(f"next: {_dates(found)}")
    for row in found["sessions"]:
        fits = f" ({row['fits']} as told)" if row["fits"] else ""
        click.echo(f"session {row['session']} ended {row['ended_at']}{fits}")
    for row in found["signals"]:
        click.echo(f"signal {row['code']}: {row['detail']}")


def _take(context: click.Context, step: Step) -> None:
    settings = settings_of(context)

    async def run(settings: Settings) -> None:
        zone = settings.zone
        async with (
            open_migrated(settings.require_database_url()) as database,
            database.begin() as connection,
        ):
            await step(connection, datetime.now(UTC), zone)

    run_async(run(settings))


@command.command("accept")
@click.argument("number", type=click.IntRange(1))
@click.pass_context
def accept(context: click.Context, number: int) -> None:
    """Accept a complaint; the clock of its end begins."""
    _take(
        context,
        lambda connection, now, zone: triage.accept(
            connection, command_line(), number, now=now, zone=zone
        ),
    )
    say(f"complaint {number} is accepted")


@command.command("refuse")
@click.argument("number", type=click.IntRange(1))
@click.option("--text", required=True, help="The reason, which the complainer reads.")
@click.pass_context
def refuse(context: click.Context, number: int, text: str) -> None:
    """Refuse a complaint with a reason."""
    _take(
        context,
        lambda connection, now, _: triage.refuse(
            connection, command_line(), number, reason=text, now=now
        ),
    )
    say(f"complaint {number} is refused: tell its complainer")


@command.command("answer")
@click.argument("number", type=click.IntRange(1))
@click.option("--text", required=True, help="The answer, which the complainer reads.")
@click.option("--end", "ends", is_flag=True, help="End the complaint with it.")
@click.pass_context
def answer(context: click.Context, number: int, text: str, ends: bool) -> None:
    """Answer an accepted complaint, and end it where that is all."""

    async def step(connection: AsyncConnection, now: datetime, zone: ZoneInfo) -> None:
        actor = command_line()
        await triage.answer(connection, actor, number, text=text, now=now)
        if ends:
            await triage.end(connection, actor, number, now=now, zone=zone)

    _take(context, step)
    say(f"complaint {number} is {'ended: tell its complainer' if ends else 'answered'}")


@command.command("told")
@click.argument("number", type=click.IntRange(1))
@click.pass_context
def told(context: click.Context, number: int) -> None:
    """Note that the complainer was told how it ended."""
    _take(
        context,
        lambda connection, now, _: triage.note_told(connection, command_line(), number, now=now),
    )
    say(f"complaint {number}: nothing is left to do")
