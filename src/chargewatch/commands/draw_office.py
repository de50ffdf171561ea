"""`chargewatch draw freeze|publish|throw|run|...`: the steps of a draw, in the database."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any, TypeVar

import click

from chargewatch.console import (
    json_option,
    print_json,
    run_async,
    say,
    settings_of,
    write_text_file,
)
from chargewatch.draws.frame import DrawError
from chargewatch.errors import NotFoundError
from chargewatch.settings import Settings
from chargewatch.storage.database import Database
from chargewatch.storage.migrate import open_migrated
from chargewatch.storage.office import draws as rows
from chargewatch.storage.pages.city import PAGE_ROWS
from chargewatch.supervision.audit import command_line
from chargewatch.supervision.draw_bundle import DrawBundle
from chargewatch.supervision.inspections import draws
from chargewatch.supervision.inspections.draw_state import DrawClock
from chargewatch.supervision.inspections.eligible import LATELY_VERIFIED_DAYS, DrawWanted
from chargewatch.supervision.inspections.lots import LotPlan, lot_plan

T = TypeVar("T")


def clock_of(settings: Settings) -> DrawClock:
    """Return the present time and the platform's time zone."""
    return DrawClock(now=datetime.now(UTC), zone=settings.zone)


def in_database(context: click.Context, work: Callable[[Database], Awaitable[T]]) -> T:
    """Do something with the database that is set, and return what came of it."""

    async def run() -> T:
        settings = settings_of(context)
        async with open_migrated(settings.require_database_url()) as database:
            return await work(database)

    return run_async(run())


def _lot(pairs: tuple[str, ...]) -> dict[str, str]:
    lot: dict[str, str] = {}
    for pair in pairs:
        name, equal, value = pair.partition("=")
        if not equal or name not in rows.LOT_COLUMNS or not value:
            raise click.BadParameter(
                f"{pair!r} must be NAME=VALUE, NAME one of {', '.join(rows.LOT_COLUMNS)}",
                param_hint="--lot",
            )
        lot[name] = value
    return lot


def share(text: str) -> Decimal:
    """Return a share from 0 to 1.

    Raises: DrawError.
    """
    try:
        found = Decimal(text)
    except InvalidOperation as exc:
        raise DrawError(f"the uniform share must be a number, it is {text!r}") from exc
    if not found.is_finite() or not 0 <= found <= 1 or len(text) > 10:
        raise DrawError(f"the uniform share must be from 0 to 1, it is {text!r}")
    return found


lot_option = click.option(
    "--lot",
    "lot",
    multiple=True,
    metavar="NAME=VALUE",
    help=f"Only one lot: {', '.join(rows.LOT_COLUMNS)}; several times for several.",
)


@click.command("freeze")
@click.argument("draw_id", metavar="DRAW")
@click.option("--size", required=True, type=click.IntRange(1), help="Piles to draw.")
@click.option("--uniform", default="0.2", show_default=True, help="Share that nothing weighs in.")
@click.option("--crew", default=2, show_default=True, help="Inspectors a pile.")
@click.option("--due-days", default=30, show_default=True, help="Inspected within so many days.")
@click.option(
    "--not-verified-days",
    "lately_days",
    default=LATELY_VERIFIED_DAYS,
    show_default=True,
    help="Leave out who passed a verification in so many days.",
)
@lot_option
@json_option
@click.pass_context
def freeze(
    context: click.Context,
    draw_id: str,
    size: int,
    uniform: str,
    crew: int,
    due_days: int,
    lately_days: int,
    lot: tuple[str, ...],
    as_json: bool,
) -> None:
    """Freeze the list of a new draw.

    Every registered connector with its weight, but those under inspection or verified lately.
    """
    wanted = DrawWanted(
        draw_id=draw_id,
        size=size,
        uniform=share(uniform),
        crew=crew,
        due_days=due_days,
        lately_days=lately_days,
        lot=_lot(lot),
    )
    clock = clock_of(settings_of(context))
    found = in_database(
        context, lambda db: draws.freeze(db, wanted, actor=command_line(), clock=clock)
    )
    if as_json:
        print_json(_told(found))
        return
    say(f"{found['piles']} piles in the list, left out: {_counts(found['excluded'])}")
    say(f"recusals may be said now; then `chargewatch draw publish {draw_id}`")
    click.echo(found["list_sha256"])


def _counts(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{n} {name.replace('_', ' ')}" for name, n in counts.items()) or "none"


def _told(draw: Mapping[Any, Any]) -> dict[str, Any]:
    hidden = {"timestamp_token", "lots"}
    told = {str(k): v for k, v in draw.items() if k not in hidden}
    told["uniform_share"] = float(draw["uniform_share"])
    return told | {"time_stamped": draw["timestamp_token"] is not None}


@click.command("recuse")
@click.argument("draw_id", metavar="DRAW")
@click.option("--inspector", required=True, help="Name, as the registry has it.")
@click.option("--operator", "operator_id", required=True, help="Whose piles it must not inspect.")
@click.option("--why", required=True, help="The reason.")
@click.pass_context
def recuse(
    context: click.Context, draw_id: str, inspector: str, operator_id: str, why: str
) -> None:
    """Recuse an inspector from an operator's piles in one draw.

    Before its hash is published.
    """
    clock = clock_of(settings_of(context))
    sha256 = in_database(
        context,
        lambda db: draws.recuse(
            db,
            draw_id,
            inspector=inspector,
            operator_id=operator_id,
            why=why,
            actor=command_line(),
            clock=clock,
        ),
    )
    say(f"the list of draw {draw_id} is made anew; its hash:")
    click.echo(sha256)


@click.command("publish")
@click.argument("draw_id", metavar="DRAW")
@click.option("--beacon", default="", help="Public randomness to be added, and of which moment.")
@click.option("--without-timestamp", is_flag=True, help="Ask no time-stamp authority.")
@click.pass_context
def publish(context: click.Context, draw_id: str, beacon: str, without_timestamp: bool) -> None:
    """Make the hash of a frozen list public.

    With a time stamp of the authority in CHARGEWATCH_TSA_URL, where one is set.
    """
    settings = settings_of(context)
    clock = clock_of(settings)
    sha256 = in_database(
        context,
        lambda db: draws.publish(
            db,
            draw_id,
            beacon_source=beacon,
            tsa_url="" if without_timestamp else settings.tsa_url,
            actor=command_line(),
            clock=clock,
        ),
    )
    say(f"published at /published/draws/{draw_id}; two witnesses may throw now")
    click.echo(sha256)


@click.command("throw")
@click.argument("draw_id", metavar="DRAW")
@click.option("--witness", required=True, help="Who threw.")
@click.option("--digits", required=True, help="The ten-sided dice as they lay, at least ten.")
@click.pass_context
def throw(context: click.Context, draw_id: str, witness: str, digits: str) -> None:
    """Enter the dice of one witness.

    Those of the other are entered by somebody else.
    """
    clock = clock_of(settings_of(context))
    missing = in_database(
        context,
        lambda db: draws.throw(
            db, draw_id, witness=witness, digits=digits, actor=command_line(), clock=clock
        ),
    )
    say(
        f"{missing} throw is missing, to be entered by somebody else"
        if missing
        else f"both have thrown: `chargewatch draw run {draw_id}`"
    )


@click.command("run")
@click.argument("draw_id", metavar="DRAW")
@click.option("--beacon", default="", help="Value of the public randomness that was announced.")
@json_option
@click.pass_context
def run(context: click.Context, draw_id: str, beacon: str, as_json: bool) -> None:
    """Draw, and plan the inspections."""
    clock = clock_of(settings_of(context))
    _tell_drawn(
        in_database(
            context,
            lambda db: draws.run(db, draw_id, beacon=beacon, actor=command_line(), clock=clock),
        ),
        as_json=as_json,
    )


@click.command("more")
@click.argument("draw_id", metavar="DRAW")
@click.option("--size", required=True, type=click.IntRange(1), help="Piles in all, from now on.")
@json_option
@click.pass_context
def more(context: click.Context, draw_id: str, size: int, as_json: bool) -> None:
    """Take more piles of a draw; those that were drawn stay."""
    clock = clock_of(settings_of(context))
    _tell_drawn(
        in_database(
            context,
            lambda db: draws.take_more(db, draw_id, size=size, actor=command_line(), clock=clock),
        ),
        as_json=as_json,
    )


def _tell_drawn(bundle: DrawBundle, *, as_json: bool) -> None:
    if as_json:
        print_json({"seed": bundle.seed, "drawn": [one.model_dump() for one in bundle.drawn]})
        return
    for one in bundle.drawn:
        click.echo(f"{one.rank}\t{one.pile}\t{one.part}\t{' '.join(one.inspectors)}")
    say(f"{len(bundle.drawn)} piles drawn by seed {bundle.seed}")


@click.command("open")
@click.argument("draw_id", metavar="DRAW")
@click.pass_context
def open_(context: click.Context, draw_id: str) -> None:
    """Make list, seed and piles of a draw public.

    Once all its inspections have ended.
    """
    clock = clock_of(settings_of(context))
    in_database(context, lambda db: draws.open_draw(db, draw_id, actor=command_line(), clock=clock))
    say(f"all of it is public at /published/draws/{draw_id}")


@click.command("withdraw")
@click.argument("draw_id", metavar="DRAW")
@click.option("--why", required=True, help="The reason, which is public.")
@click.pass_context
def withdraw(context: click.Context, draw_id: str, why: str) -> None:
    """Give a draw up before anybody has thrown for it."""
    clock = clock_of(settings_of(context))
    in_database(
        context, lambda db: draws.withdraw(db, draw_id, why=why, actor=command_line(), clock=clock)
    )
    say(f"draw {draw_id} is withdrawn")


@click.command("list")
@json_option
@click.pass_context
def list_(context: click.Context, as_json: bool) -> None:
    """List the newest draws with how far they are."""

    async def work(database: Database) -> list[dict[str, Any]]:
        async with database.connect() as connection:
            return [_told(row) for row in await rows.draws(connection, limit=PAGE_ROWS)]

    found = in_database(context, work)
    if as_json:
        print_json({"draws": found})
        return
    for one in found:
        click.echo(
            f"{one['draw_id']}\t{one['state']}\t{one['size']} of {one['piles']}\t"
            f"{one['passed']} passed, {one['failed']} failed, {one['planned']} planned\t"
            f"{one['list_sha256']}"
        )


@click.command("export")
@click.argument("draw_id", metavar="DRAW")
@click.option("--list", "as_list", is_flag=True, help="The frozen list instead of the draw's file.")
@click.option(
    "--out",
    required=True,
    type=click.Path(dir_okay=False, path_type=Path),
    help="File to write.",
)
@click.pass_context
def export(context: click.Context, draw_id: str, as_list: bool, out: Path) -> None:
    """Write the draw's file, for `chargewatch draw verify`."""

    async def work(database: Database) -> str | None:
        async with database.connect() as connection:
            if await rows.draw(connection, draw_id) is None:
                raise NotFoundError(f"no draw {draw_id!r}: `chargewatch draw list` lists them")
            if as_list:
                return await rows.list_text(connection, draw_id)
            return await rows.bundle(connection, draw_id)

    text = in_database(context, work)
    if text is None:
        raise NotFoundError(f"draw {draw_id} is not drawn yet: `chargewatch draw run {draw_id}`")
    write_text_file(out, text)
    say(f"{out} is written; `chargewatch draw {'hash' if as_list else 'verify'} {out}` checks it")


@click.command("lots")
@lot_option
@json_option
@click.pass_context
def lots(context: click.Context, lot: tuple[str, ...], as_json: bool) -> None:
    """List the largest lots, or tell the sampling plans of one lot."""
    wanted = _lot(lot)

    async def work(database: Database) -> tuple[list[dict[str, Any]], LotPlan | None]:
        async with database.connect() as connection:
            found = await rows.lots(connection, wanted, limit=PAGE_ROWS)
            plan = await lot_plan(connection, wanted) if wanted else None
        return [dict(row) for row in found], plan

    found, plan = in_database(context, work)
    if as_json:
        print_json({"lots": found, "plan": plan})
        return
    for row in found:
        told = " ".join(f"{name}={row[name]}" for name in rows.LOT_COLUMNS if row[name])
        click.echo(f"{row['instruments']}\t{told}")
    if plan is not None:
        for one in plan.plans:
            click.echo(
                f"{one.name}: inspect {one.size} of {plan.instruments}, at most {one.allowed} may "
                f"fail (a lot with {100 * plan.acceptable:g} % nonconforming fails with "
                f"{one.producers_risk:.3f}, one with {100 * plan.limiting:g} % passes with "
                f"{one.consumers_risk:.3f})"
            )


COMMANDS = (
    freeze,
    recuse,
    publish,
    throw,
    run,
    more,
    open_,
    withdraw,
    list_,
    export,
    lots,
)
