"""`chargewatch ingest`."""

from __future__ import annotations

import asyncio
import os
import signal
from dataclasses import asdict

import click

from chargewatch import logs
from chargewatch.console import (
    FiniteRange,
    json_option,
    print_json,
    run_async,
    say,
    settings_of,
)
from chargewatch.ingest.answers import answer_questions
from chargewatch.ingest.service import IngestService, IngestTotals
from chargewatch.ingest.shards import Shard, parse_shard
from chargewatch.ingest.stops import hook_from_environment
from chargewatch.settings import Settings
from chargewatch.storage.database import open_database
from chargewatch.storage.migrate import require_newest_schema


async def _ingest(settings: Settings, shard: Shard, until_idle_s: float | None) -> IngestTotals:
    async with open_database(settings.require_database_url(), pool_size=1) as database:
        await require_newest_schema(database)
    service = IngestService(settings, shard=shard, hook=hook_from_environment(os.environ))
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, service.stop)
    if settings.metrics_port:
        answer_questions(
            settings.http_host,
            settings.metrics_port,
            registry=service.metrics.registry,
            health=service.health,
        )
    return await service.run(until_idle_s=until_idle_s)


@click.command("ingest")
@click.option(
    "--until-idle",
    type=FiniteRange(min=0, min_open=True),
    metavar="SECONDS",
    help="End after this time without a message (for batch work).",
)
@click.option("--shard", default="0/1", metavar="INDEX/COUNT", help="One of several workers.")
@json_option
@click.pass_context
def command(context: click.Context, until_idle: float | None, shard: str, as_json: bool) -> None:
    """Take telemetry from the broker into the database. Until told to stop."""
    settings = settings_of(context)
    logs.configure(settings)
    totals = run_async(_ingest(settings, parse_shard(shard), until_idle))
    if as_json:
        print_json(asdict(totals))
    else:
        say(
            f"{totals.messages} messages: {totals.stored} stored, "
            f"{totals.duplicate} duplicate, {totals.rejected} rejected"
        )
