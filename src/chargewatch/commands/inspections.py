"""`chargewatch inspections`: what is due, what was found, and where to go first."""

from __future__ import annotations

from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

import click

from chargewatch.commands.draw_office import in_database
from chargewatch.console import FiniteRange, json_option, print_json, say
from chargewatch.storage.database import Database
from chargewatch.storage.office import inspections as rows
from chargewatch.storage.pages.city import PAGE_ROWS
from chargewatch.supervision.audit import command_line
from chargewatch.supervision.inspections import results
from chargewatch.supervision.inspections.route import (
    FIELD_TEST_U,
    MOST_VISITS,
    TEST_MINUTES,
    TRIP_MINUTES,
    Route,
    route_of,
)


@click.group("inspections")
def command() -> None:
    """List inspections, keep their results, propose a route."""


@command.command("list")
@click.option("--inspector", default="", help="Only those that this inspector has to make.")
@json_option
@click.pass_context
def list_(context: click.Context, inspector: str, as_json: bool) -> None:
    """List what is due, the next first."""

    async def work(database: Database) -> list[dict[str, Any]]:
        async with database.connect() as connection:
            found = await rows.due(connection, limit=10 * PAGE_ROWS, inspector=inspector)
            return [dict(row) for row in found]

    found = in_database(context, work)
    if as_json:
        print_json({"inspections": found})
        return
    for row in found:
        click.echo(
            f"{row['inspection_id']}\t{row['due_on']}\t{row['connector']}\t{row['station_id']}\t"
            f"{row['operator_id']}\t{', '.join(row['crew'])}\t{row['draw_id'] or 'case'}"
        )


@command.command("cancel")
@click.argument("inspection_id", metavar="NUMBER", type=click.IntRange(1))
@click.option("--why", required=True, help="The reason, which is public with the draw.")
@click.pass_context
def cancel(context: click.Context, inspection_id: int, why: str) -> None:
    """Cancel a planned inspection."""

    async def work(database: Database) -> None:
        async with database.begin() as connection:
            await results.cancel_inspection(
                connection, command_line(), inspection_id, why=why, now=datetime.now(UTC)
            )

    in_database(context, work)
    say(f"inspection {inspection_id} is cancelled")


@command.command("result")
@click.argument("inspection_id", metavar="NUMBER", type=click.IntRange(1))
@click.option(
    "--verification",
    "verification_id",
    required=True,
    type=click.IntRange(1),
    help="Number of the verification that it found.",
)
@click.pass_context
def result(context: click.Context, inspection_id: int, verification_id: int) -> None:
    """Keep a verification as what an inspection found."""

    async def work(database: Database) -> str:
        async with database.begin() as connection:
            return await results.result_of_verification(
                connection, command_line(), inspection_id, verification_id, datetime.now(UTC)
            )

    say(f"inspection {inspection_id}: {in_database(context, work)}")


@command.command("route")
@click.option(
    "--visits", default=20, show_default=True, type=click.IntRange(1, MOST_VISITS),
    help="Piles to test at most.",
)  # fmt: skip
@click.option("--operator", "operator_id", default="", help="Only piles of this operator.")
@click.option(
    "--u-ref",
    default=FIELD_TEST_U,
    show_default=True,
    type=FiniteRange(0, 0.1, min_open=True, max_open=True),
    help="Standard uncertainty of a field test, as a fraction.",
)
@click.option(
    "--trip-minutes",
    default=TRIP_MINUTES,
    show_default=True,
    type=FiniteRange(0, 10_000),
    help="Way to a station.",
)
@click.option(
    "--test-minutes",
    default=TEST_MINUTES,
    show_default=True,
    type=FiniteRange(1, 10_000),
    help="Test of one pile.",
)
@json_option
@click.pass_context
def route(
    context: click.Context,
    visits: int,
    operator_id: str,
    u_ref: float,
    trip_minutes: float,
    test_minutes: float,
    as_json: bool,
) -> None:
    """Propose where field tests settle most of the expected harm."""

    async def work(database: Database) -> Route:
        async with database.connect() as connection:
            return await route_of(
                connection,
                visits=visits,
                operator_id=operator_id,
                u_ref=u_ref,
                trip_minutes=trip_minutes,
                test_minutes=test_minutes,
            )

    found = in_database(context, work)
    if as_json:
        print_json(asdict(found))
        return
    for stop in found.stops:
        click.echo(f"{stop.station_id}\t{stop.station_name}\t{stop.minutes:.0f} min")
        for one in stop.visits:
            click.echo(
                f"\t{one.connector}\t{one.tier}\tp {one.p_nonconforming:.3f}\t"
                f"U {100 * one.expanded_now:.2f} -> {100 * one.expanded_after:.2f} %\t"
                f"settles {one.settled:.0f} of {one.money:.0f} a month"
            )
    say(
        f"{sum(len(stop.visits) for stop in found.stops)} piles at {len(found.stops)} stations in "
        f"{found.minutes / 60:.1f} h settle {found.settled:.0f} of {found.undecided_before:.0f} a "
        f"month at {found.looked_at} piles"
    )
