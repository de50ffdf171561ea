"""`chargewatch work`: does the jobs."""

from __future__ import annotations

import asyncio
import signal

import click

from chargewatch import logs
from chargewatch.console import run_async, say, settings_of
from chargewatch.settings import Settings
from chargewatch.storage.migrate import open_migrated
from chargewatch.supervision.jobs.worker import Worker
from chargewatch.web.mails import ALL_JOBS


async def _work(settings: Settings, *, until_idle: bool) -> int:
    async with open_migrated(settings.require_database_url()) as database:
        worker = Worker(database, settings, ALL_JOBS)
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, worker.stop)
        return await worker.run(until_idle=until_idle)


@click.command("work")
@click.option("--until-idle", is_flag=True, help="End when no job is due (for batch work).")
@click.pass_context
def command(context: click.Context, until_idle: bool) -> None:
    """Do the jobs that pages and timers ask for. Until told to stop.

    Several may run; each job is done by one of them. A job whose worker dies is done by another.
    """
    settings = settings_of(context)
    logs.configure(settings)
    tried = run_async(_work(settings, until_idle=until_idle))
    say(f"{tried} jobs tried")
