"""`chargewatch gateway`."""

from __future__ import annotations

import asyncio
import signal
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click
import orjson

from chargewatch import logs
from chargewatch.console import (
    FiniteRange,
    json_option,
    print_json,
    run_async,
    say,
    settings_of,
    write_stdout,
)
from chargewatch.domain.identity import is_identity
from chargewatch.errors import InputFileError
from chargewatch.gateway.intake import FileInput, Input, PipeInput
from chargewatch.gateway.service import GatewayOptions, GatewayService, GatewayTotals, utc_now
from chargewatch.gateway.spool import Spool
from chargewatch.mqtt.address import broker_address
from chargewatch.settings import Settings


def _identity(_: click.Context, parameter: click.Parameter, value: str) -> str:
    if not is_identity(value):
        raise click.BadParameter(f"{parameter.name} is 1 to 64 of A-Z, a-z, 0-9, _ and -")
    return value


def _input(spool: Spool, file: Path | None, *, once: bool) -> Input:
    if file is None or str(file) == "-":
        return PipeInput(sys.stdin.buffer)
    if file.exists() and not file.is_file():
        raise InputFileError(f"{file} is not a file: pipe it in instead")
    return FileInput(file, position=spool.position(str(file)), follow=not once)


def _acknowledge(line: int) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


async def _run(
    settings: Settings,
    spool: Spool,
    options: GatewayOptions,
    *,
    file: Path | None,
    once: bool,
    acknowledge: bool,
) -> GatewayTotals:
    service = GatewayService(
        spool,
        _input(spool, file, once=once),
        broker_address(settings),
        options,
        acknowledge=_acknowledge if acknowledge else lambda line: None,
    )
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, service.stop)
    return await service.run()


def _print_dead_letters(spool: Spool) -> None:
    for letter in spool.dead_letters():
        write_stdout(orjson.dumps(letter, option=orjson.OPT_APPEND_NEWLINE))


@click.command("gateway")
@click.argument("file", required=False, type=click.Path(path_type=Path))
@click.option(
    "--operator", required=True, callback=_identity, help="The operator_id that it speaks for."
)
@click.option(
    "--station", required=True, callback=_identity, help="The station_id that it speaks for."
)
@click.option(
    "--spool",
    "spool_file",
    type=click.Path(path_type=Path, dir_okay=False),
    help="SQLite file that keeps messages until their receipt (default: OPERATOR-STATION.spool).",
)
@click.option("--once", is_flag=True, help="Read FILE to its end, and end when all is received.")
@click.option(
    "--resend-s",
    type=FiniteRange(min=0.1),
    default=600.0,
    show_default=True,
    help="Send a message again when no receipt came for so long.",
)
@click.option(
    "--window",
    type=click.IntRange(1, 10_000),
    default=500,
    show_default=True,
    help="Messages that may be out without a receipt.",
)
@click.option(
    "--batch-items",
    type=click.IntRange(1, 10_000),
    default=1_000,
    show_default=True,
    help="Readings, sessions or events in one message at most.",
)
@click.option(
    "--linger-ms",
    type=click.IntRange(1, 60_000),
    default=500,
    show_default=True,
    help="What comes within this time goes into one message.",
)
@click.option(
    "--spool-mb",
    type=click.IntRange(1, 1_000_000),
    default=1_024,
    show_default=True,
    help="Size of the spool at most; no input is read while it is full.",
)
@click.option(
    "--status-s",
    type=FiniteRange(min=1),
    default=60.0,
    show_default=True,
    help="Tell the station's status this often.",
)
@click.option(
    "--keepalive-s",
    type=click.IntRange(2, 3_600),
    default=30,
    show_default=True,
    help="Notice a dead connection within twice this time.",
)
@click.option(
    "--reconnect-max-s",
    type=FiniteRange(min=0.1),
    default=10.0,
    show_default=True,
    help="Longest pause between two tries to connect.",
)
@click.option(
    "--acknowledge",
    is_flag=True,
    help="Print the number of the last line that is on disk, a line each time.",
)
@click.option("--dead-letters", is_flag=True, help="Print what was rejected, as JSON lines; end.")
@json_option
@click.pass_context
def command(
    context: click.Context,
    /,
    file: Path | None,
    operator: str,
    station: str,
    spool_file: Path | None,
    once: bool,
    dead_letters: bool,
    acknowledge: bool,
    as_json: bool,
    **numbers: Any,
) -> None:
    """Send JSON lines as a station's gateway. From FILE or stdin, each kept until its receipt."""
    if acknowledge and as_json:
        raise click.UsageError("--acknowledge and --json both write to stdout: choose one")
    settings = settings_of(context)
    logs.configure(settings)
    began = time.monotonic()
    spool = Spool(
        spool_file or Path(f"{operator}-{station}.spool"),
        operator_id=operator,
        station_id=station,
        max_bytes=numbers["spool_mb"] << 20,
        batch_items=numbers["batch_items"],
        clock=utc_now,
    )
    try:
        if dead_letters:
            _print_dead_letters(spool)
            return
        options = GatewayOptions(
            operator_id=operator,
            station_id=station,
            window=numbers["window"],
            resend_s=numbers["resend_s"],
            linger_s=numbers["linger_ms"] / 1000,
            status_s=numbers["status_s"],
            keepalive_s=numbers["keepalive_s"],
            reconnect_max_s=numbers["reconnect_max_s"],
        )
        done = run_async(
            _run(settings, spool, options, file=file, once=once, acknowledge=acknowledge)
        )
    finally:
        spool.close()
    if as_json:
        print_json({**asdict(done), "seconds": round(time.monotonic() - began, 3)})
    else:
        say(
            f"{done.lines:,} lines in {done.messages:,} messages; {done.receipts:,} receipts: "
            f"{done.stored:,} stored, {done.duplicate:,} duplicate, {done.rejected:,} rejected; "
            f"{done.bad_lines:,} bad lines; {done.backlog:,} messages wait"
        )
