"""`chargewatch bench faults`: a city publishes while everything breaks; nothing may be lost."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import time
from collections import Counter
from pathlib import Path
from typing import Any

import click

from chargewatch.benches.faults_city import FaultCity
from chargewatch.benches.faults_site import Site, open_site
from chargewatch.benches.faults_strikes import Planned, schedule, strike_all
from chargewatch.benches.faults_verdict import FaultVerdict, judge
from chargewatch.console import json_option, print_json, run_async, say, settings_of
from chargewatch.errors import ChargewatchError
from chargewatch.local.broker import Program, choose_program
from chargewatch.local.processes import temporary_folder
from chargewatch.logs import TEXT
from chargewatch.storage.database import open_database
from chargewatch.storage.migrate import migrate

RELEASED_SCHEMA = "0005"
"""The run begins with this schema: the first migration happens while gateways publish."""
CATCH_UP_S = 180.0
DISK_MB = 512
DISK_MB_A_MINUTE = 16


class LossError(ChargewatchError):
    """Something was lost, doubled, wrong or left open."""


async def _prepare(site: Site, city: FaultCity) -> None:
    """Let the gateways publish before there is anybody, then migrate and start ingest."""
    async with open_database(site.database.url) as database:
        await migrate(database, revision=RELEASED_SCHEMA)
    city.start()
    await asyncio.sleep(2)
    async with open_database(site.database.url) as database:
        await migrate(database)
    site.ingest.start()


async def _drain(city: FaultCity) -> float:
    """Wait until every message has its receipt; return how long that took."""
    began = time.monotonic()
    while any((await city.backlogs()).values()):
        if time.monotonic() - began > CATCH_UP_S:
            break
        await asyncio.sleep(0.5)
    return time.monotonic() - began


async def _heal(site: Site) -> None:
    for proxy in (site.to_broker, site.to_database, site.for_gateways):
        proxy.delay_s = 0.0
        proxy.cut_swallowed()
    site.ballast.unlink(missing_ok=True)
    await site.restart_database()
    if site.broker.pid is None:
        await site.restart_broker()
    site.ingest.start()


async def _run(
    folder: Path,
    planned: list[Planned],
    *,
    program: Program,
    seconds: float,
    seed: int,
    stations: int,
) -> dict[str, Any]:
    struck: Counter[str] = Counter()
    disk_mb = DISK_MB + round(DISK_MB_A_MINUTE * seconds / 60)
    async with open_site(folder, disk_mb=disk_mb, program=program) as site:
        city = FaultCity(site, stations=stations, processes=min(3, stations - 1), seed=seed)
        began = time.monotonic()
        try:
            await _prepare(site, city)
            watching = [site.ingest.watch(), city.watch(), site.watch_database()]
            watching += [process.watch() for process in city.processes]
            watches = [asyncio.create_task(watch) for watch in watching]
            producing = asyncio.create_task(city.produce())
            striking = asyncio.create_task(
                strike_all(planned, site, city, seed=seed, struck=struck)
            )
            shown = asyncio.create_task(_show(struck, len(planned)))
            try:
                await _until_done(striking, [*watches, producing])
                producing.cancel()
                await _heal(site)
                drain_s = await _drain(city)
                seconds = time.monotonic() - began
            finally:
                for task in (*watches, producing, striking, shown):
                    task.cancel()
                await asyncio.gather(*watches, producing, striking, shown, return_exceptions=True)
        finally:
            await city.end()
        verdict = await judge(site.database.url, city)
        return _figures(site, city, verdict, struck, seconds=seconds, drain_s=drain_s)


async def _until_done(striking: asyncio.Task[None], others: list[asyncio.Task[None]]) -> None:
    """Wait for the faults; raise at once when a watch or the producer fails."""
    while not striking.done():
        done, _ = await asyncio.wait(
            {striking, *others}, return_when=asyncio.FIRST_COMPLETED, timeout=5
        )
        for task in done:
            task.result()


async def _show(struck: Counter[str], planned: int) -> None:
    while True:
        await asyncio.sleep(30)
        say(f"{struck.total()} of {planned} faults")


def _figures(
    site: Site,
    city: FaultCity,
    verdict: FaultVerdict,
    struck: Counter[str],
    *,
    seconds: float,
    drain_s: float,
) -> dict[str, Any]:
    totals = city.totals()
    left_out = sorted(site.left_out)
    if site.broker.program != "mosquitto":
        left_out.append("the broker's own persistence: rumqttd keeps everything in memory")
    disk = "a tmpfs of its own" if site.own_disk else "a limit of the database's file sizes"
    if not struck["fill_database_disk"]:
        disk = "left out"
    return {
        "good": verdict.good,
        "faults": struck.total(),
        "faults_by_kind": dict(sorted(struck.items())),
        **verdict.figures(),
        "resent_by_gateways_here": totals["resent"],
        "connections_of_gateways_here": totals["connections"],
        "foreign_receipts": totals["foreign_receipts"],
        "messages_per_s": round(verdict.messages / seconds, 1),
        "readings_per_s": round(verdict.readings / seconds, 1),
        "ingest_peak_memory_mb": round(site.ingest.peak_mb, 1),
        "ingest_ended_itself": site.ingest.fell,
        "database_ended_itself": site.database_fell,
        "gateways_ended_themselves": sum(process.fell for process in city.processes),
        "seconds": round(seconds, 1),
        "drain_s": round(drain_s, 1),
        "broker": site.broker.program,
        "full_disk_is": disk,
        "left_out": left_out,
    }


async def _with_signals(main: Any) -> dict[str, Any]:
    """Run so that Ctrl-C and SIGTERM clean up."""
    task = asyncio.ensure_future(main)
    loop = asyncio.get_running_loop()

    def end() -> None:
        task.cancel()
        for number in (signal.SIGINT, signal.SIGTERM):
            # A second Ctrl-C must not end the cleaning up.
            loop.add_signal_handler(number, lambda: None)

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, end)
    result: dict[str, Any] = await task
    return result


def _log_to(path: Path) -> None:
    """Keep what the gateways of this process say out of the terminal."""
    logging.basicConfig(filename=path, level=logging.INFO, format=TEXT, force=True)


@click.command("faults")
@click.option("--minutes", default=2.0, show_default=True, help="How long faults strike.")
@click.option("--seed", default=1, show_default=True, help="Repeats the same faults.")
@click.option(
    "--stations",
    default=20,
    show_default=True,
    type=click.IntRange(4, 999),
    help="Size of the city.",
)
@click.option(
    "--keep",
    type=click.Path(path_type=Path, file_okay=False),
    help="Keep logs, spools and records in this folder.",
)
@json_option
@click.pass_context
def command(
    context: click.Context,
    minutes: float,
    seed: int,
    stations: int,
    keep: Path | None,
    as_json: bool,
) -> None:
    """Let a city publish while everything breaks. Fails when anything is lost or doubled.

    Starts its own broker, database and ingest on 127.0.0.1, and ends them.
    """
    planned = schedule(seed=seed, seconds=minutes * 60)
    with contextlib.ExitStack() as stack:
        folder = keep or stack.enter_context(temporary_folder("chargewatch-faults-"))
        folder.mkdir(mode=0o711, parents=True, exist_ok=True)
        _log_to(folder / "gateways.log")
        main = _run(
            folder,
            planned,
            program=choose_program(settings_of(context).broker_program),
            seconds=minutes * 60,
            seed=seed,
            stations=stations,
        )
        try:
            result = run_async(_with_signals(main))
        except asyncio.CancelledError:
            raise click.Abort from None
    if as_json:
        print_json(result)
    else:
        for name, value in result.items():
            say(f"{name}: {value}")
    if not result["good"]:
        raise LossError(
            f"{result['lost']} lost, {result['doubled']} doubled, {result['wrong']} wrong, "
            f"{result['rejected']} rejected, {result['open_gaps']} open gaps, "
            f"{result['receipts_missing']} without receipt: see `examples`"
        )
