"""`chargewatch replay`."""

from __future__ import annotations

import asyncio
import sys
from dataclasses import asdict
from pathlib import Path

import click

from chargewatch.console import (
    FiniteRange,
    json_option,
    print_json,
    run_async,
    say,
    settings_of,
)
from chargewatch.mqtt.address import broker_address
from chargewatch.settings import Settings
from chargewatch.simulators.message_file import check_readable, read_messages
from chargewatch.simulators.publisher import Gateway, Published, Publisher
from chargewatch.simulators.receipts import ReceiptBook


async def show_progress(progress: Published, *, every_s: float = 2.0) -> None:
    """Print the count of acknowledged messages now and then, on a terminal only."""
    while sys.stderr.isatty():
        await asyncio.sleep(every_s)
        say(f"{progress.messages:,} messages acknowledged")


receipts_option = click.option(
    "--receipts",
    is_flag=True,
    help="Keep each message until its receipt, send again what has none; needs a running ingest.",
)


async def _replay(
    settings: Settings, path: Path, *, rate: float | None, receipts: bool
) -> Published:
    check_readable(path)
    book = ReceiptBook() if receipts else None
    publisher = Publisher(broker_address(settings), gateway=Gateway(), book=book)
    shown = asyncio.create_task(show_progress(publisher.progress))
    try:
        await publisher.publish_all(read_messages(path), rate=rate)
    finally:
        shown.cancel()
    return publisher.progress


@click.command("replay")
@click.argument("file", type=click.Path(path_type=Path))
@click.option(
    "--rate",
    type=FiniteRange(min=0, min_open=True),
    default=None,
    help="Messages per second (default: as fast as the broker takes them).",
)
@receipts_option
@json_option
@click.pass_context
def command(
    context: click.Context, file: Path, rate: float | None, receipts: bool, as_json: bool
) -> None:
    """Publish a messages.jsonl. Plain or gzip, at QoS 1, in file order."""
    done = run_async(_replay(settings_of(context), file, rate=rate, receipts=receipts))
    if as_json:
        print_json({"published": done.messages, **asdict(done)})
    else:
        say(f"{done.messages:,} messages acknowledged in {done.seconds:.1f} s")
