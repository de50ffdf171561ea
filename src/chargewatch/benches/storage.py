"""`chargewatch bench storage`: writing, size, bulk reading and pages, on a synthetic city."""

from __future__ import annotations

import asyncio
import multiprocessing
import platform
import resource
import time
import uuid
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import asynccontextmanager, contextmanager
from dataclasses import asdict
from datetime import timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import asyncpg
import click

from chargewatch.benches.storage_city import (
    END,
    CitySize,
    reading_batches,
    write_registry,
    write_rollups,
)
from chargewatch.console import json_option, print_json, run_async, say, settings_of
from chargewatch.domain.mpe import rule_set
from chargewatch.local.postgres import EmbeddedPostgres
from chargewatch.runs.load import blocks, load, read_block
from chargewatch.runs.rollups import refresh_rollups, rollup_kinds
from chargewatch.settings import Settings
from chargewatch.storage.archive.export import export_day
from chargewatch.storage.archive.window import open_archive
from chargewatch.storage.bulk import copy_records_in
from chargewatch.storage.database import Database, open_database
from chargewatch.storage.intake.connection import open_ingest_connection
from chargewatch.storage.intake.readings import (
    REGISTERS,
    load_newest,
    mark_pending,
    newest_rows,
    pending_days,
    store_readings,
    update_latest,
)
from chargewatch.storage.migrate import migrate
from chargewatch.storage.pages.statements import time_pages

PAGE_LIMIT_S = 0.030


@contextmanager
def _server(settings: Settings) -> Iterator[str]:
    """Yield the address of a server: the one of the settings, or an embedded one."""
    if settings.database_url:
        yield settings.database_url
        return
    with TemporaryDirectory(prefix="chargewatch-bench-") as folder:
        path = Path(folder)
        path.chmod(0o755)
        with EmbeddedPostgres(path / "postgres") as server:
            yield server.url_of("postgres")


async def _execute(url: str, statement: str) -> None:
    connection = await asyncpg.connect(url, timeout=30)
    try:
        await connection.execute(statement, timeout=600)
    finally:
        await connection.close(timeout=10)


@asynccontextmanager
async def _fresh_database(url: str) -> AsyncIterator[Database]:
    """Yield a migrated database of our own on a server; it is dropped afterwards."""
    admin = "postgresql://" + url.partition("://")[2]
    name = f"chargewatch_bench_{uuid.uuid4().hex[:8]}"
    await _execute(admin, f"CREATE DATABASE {name}")
    try:
        own = urlunsplit(urlsplit(admin)._replace(path=f"/{name}"))
        async with open_database(own) as database:
            await migrate(database)
        # Again: the migration may have made the extension.
        async with open_database(own) as database:
            yield database
    finally:
        await _execute(admin, f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")


async def _write_batch_path(database: Database, size: CitySize, *, batch: int) -> dict[str, Any]:
    """Write readings the way ingest does, a transaction a batch."""
    rows = 0
    parts = dict.fromkeys(("readings", "latest", "pending", "commit"), 0.0)
    # Newer than every latest reading, as most readings are.
    batches = list(reading_batches(size, REGISTERS.row, batch=batch, begin=END))
    connection = await open_ingest_connection(database.raw_dsn, on_registry_change=lambda: None)
    try:
        newest = await load_newest(connection)
        begun = time.perf_counter()
        for records in batches:
            marks = [time.perf_counter()]
            async with connection.transaction():
                await store_readings(connection, REGISTERS, records, newest=newest)
                marks.append(time.perf_counter())
                latest = newest_rows(REGISTERS, records)
                await update_latest(connection, latest, received_us=0)
                marks.append(time.perf_counter())
                await mark_pending(connection, pending_days(REGISTERS, records))
                marks.append(time.perf_counter())
            marks.append(time.perf_counter())
            for part, first, last in zip(parts, marks[:-1], marks[1:], strict=True):
                parts[part] += last - first
            newest.advance(records["connector_id"], records["at"].view("i8"))
            rows += len(records)
        seconds = time.perf_counter() - begun
    finally:
        await connection.close(timeout=10)
    return {
        "rows": rows,
        "seconds": seconds,
        "rows_per_s": rows / seconds,
        "seconds_by_part": parts,
    }


async def _write_plain(database: Database, size: CitySize, *, batch: int) -> dict[str, Any]:
    """Write as many readings of other connectors by nothing but COPY, a transaction a batch."""
    rows = 0
    other = reading_batches(
        size, REGISTERS.row, batch=batch, first_connector=size.connectors + 1, begin=END
    )
    batches = list(other)
    async with database.raw() as connection:
        begun = time.perf_counter()
        for records in batches:
            await copy_records_in(connection, REGISTERS.name, records)
            rows += len(records)
        seconds = time.perf_counter() - begun
    return {"rows": rows, "seconds": seconds, "rows_per_s": rows / seconds}


async def _size_of(connection: asyncpg.Connection, table: str, *, hypertable: bool) -> int:
    function = "hypertable_size" if hypertable else "pg_total_relation_size"
    return int(await connection.fetchval(f"SELECT {function}($1::regclass)", table))


async def _bytes_per_reading(database: Database) -> dict[str, Any]:
    """Return bytes a raw reading takes with its key, and compressed where the edition can."""
    hypertable = database.capabilities.hypertables
    async with database.raw() as connection:
        rows = int(await connection.fetchval("SELECT count(*) FROM register_reading"))
        raw = await _size_of(connection, "register_reading", hypertable=hypertable)
        result: dict[str, Any] = {"raw": raw / rows, "compressed": None}
        if database.capabilities.columnstore:
            await connection.execute(
                "ALTER TABLE register_reading SET (timescaledb.compress, "
                "timescaledb.compress_segmentby = 'connector_id', "
                "timescaledb.compress_orderby = 'at')"
            )
            await connection.execute(
                "SELECT compress_chunk(c) FROM show_chunks('register_reading') c", timeout=3600
            )
            packed = await _size_of(connection, "register_reading", hypertable=True)
            result["compressed"] = packed / rows
    return result


def _peak_memory_bytes() -> int:
    """Return the largest resident memory of this process so far."""
    status = Path("/proc/self/status")
    if status.exists():
        # Unlike getrusage, this doesn't count the process that this one was forked from.
        line = next(row for row in status.read_text().splitlines() if row.startswith("VmHWM"))
        return int(line.split()[1]) * 1024
    # macOS tells bytes, others kilobytes.
    unit = 1 if platform.system() == "Darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


async def _load(dsn: str, settings: Settings, days: int, folder: Path | None) -> dict[str, Any]:
    """Read what a run with a window of `days` reads before it checks anything, block by block.

    From the exported days of `folder` where there is one, else all from the database.
    """
    before = _peak_memory_bytes()
    first = END - timedelta(days=days)
    rows = 0
    connection = await asyncpg.connect(dsn, timeout=30)
    try:
        begun = time.perf_counter()
        archive = None
        if folder is not None:
            archive = await open_archive(connection, folder, first=first, last=END)
        opened = time.perf_counter() - begun
        loaded = await load(
            connection,
            first=first,
            as_of=END,
            rules=rule_set(settings.mpe_rules),
            zone=settings.zone,
            archive=archive,
        )
        parts = blocks(first, END, connectors=loaded.inputs.fleet.size)
        for begin, end in parts:
            block = await read_block(connection, loaded, first=begin, last=end)
            rows += block.connector_intervals.slot.size + block.meter_intervals.slot.size
        seconds = time.perf_counter() - begun
    finally:
        await connection.close(timeout=10)
    return {
        "days": days,
        "blocks": len(parts),
        "rows": rows,
        "seconds": seconds,
        "rows_per_s": rows / seconds,
        "peak_memory_bytes": _peak_memory_bytes(),
        "memory_before_bytes": before,
        **(
            {}
            if archive is None
            else {"seconds_to_compare": opened, "days_from_files": archive.summary()["days"]}
        ),
    }


def _load_in_process(
    dsn: str, settings: Settings, days: int, folder: Path | None
) -> dict[str, Any]:
    return asyncio.run(_load(dsn, settings, days, folder))


async def _measure_load(
    database: Database, settings: Settings, days: int, *, folder: Path | None = None
) -> dict[str, Any]:
    """Load a window in a process of its own, so that its peak memory is that of the load."""
    context = multiprocessing.get_context("spawn")
    loop = asyncio.get_running_loop()
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        return await loop.run_in_executor(
            pool, _load_in_process, database.raw_dsn, settings, days, folder
        )


async def _measure_archive(database: Database, settings: Settings, days: int) -> dict[str, Any]:
    """Export days to a temporary folder and load the same window from there."""
    with TemporaryDirectory(prefix="chargewatch-bench-") as name:
        folder = Path(name)
        begun = time.perf_counter()
        size = 0
        for number in range(days):
            day = (END - timedelta(days=days - number)).date()
            size += sum(
                file.bytes for file in (await export_day(database, day, folder=folder)).files
            )
        exported = time.perf_counter() - begun
        found = await _measure_load(database, settings, days, folder=folder)
    return {**found, "export_seconds": exported, "bytes": size}


async def _pages(database: Database, *, runs: int) -> dict[str, Any]:
    timings = await time_pages(database, runs=runs)
    return {
        "limit_s": PAGE_LIMIT_S,
        "worst_p95_s": max(timing.p95_s for timing in timings),
        "over_limit": [timing.name for timing in timings if timing.p95_s > PAGE_LIMIT_S],
        "queries": [asdict(timing) for timing in timings],
    }


async def _measure(
    database: Database, settings: Settings, size: CitySize, *, batch: int, runs: int
) -> dict[str, Any]:
    result: dict[str, Any] = {"engine": database.capabilities.engine, "size": asdict(size)}
    say(f"{database.capabilities.engine}: writing {size.connectors} connectors")
    async with database.raw() as connection:
        await write_registry(connection, size)
        begun = time.perf_counter()
        rows = await write_rollups(connection, size, kinds=rollup_kinds())
        result["write_rollups"] = {"rows": rows, "seconds": time.perf_counter() - begun}
        say(f"{rows} rollups written in {result['write_rollups']['seconds']:.0f} s")
    result["batch_path"] = await _write_batch_path(database, size, batch=batch)
    result["plain_copy"] = await _write_plain(database, size, batch=batch)
    ratio = result["batch_path"]["rows_per_s"] / result["plain_copy"]["rows_per_s"]
    result["batch_path_to_plain_copy"] = ratio
    say(f"batch path {result['batch_path']['rows_per_s']:.0f} rows/s, {ratio:.2f} of plain COPY")
    result["refresh"] = asdict(await refresh_rollups(database))
    say(f"rollups refreshed in {result['refresh']['seconds']:.1f} s")
    async with database.raw() as connection:
        await connection.execute("VACUUM ANALYZE", timeout=3600)
    result["bytes_per_reading"] = await _bytes_per_reading(database)
    result["load"] = [
        await _measure_load(database, settings, days) for days in sorted({1, size.days})
    ]
    for part in result["load"]:
        say(
            f"{part['days']} days: {part['rows']} rows, {part['rows_per_s']:.0f} rows/s, "
            f"peak {part['peak_memory_bytes'] / 1e9:.2f} GB"
        )
    archive = result["load_archive"] = await _measure_archive(database, settings, size.days)
    say(
        f"{archive['days']} days from Parquet: {archive['rows']} rows, "
        f"{archive['rows_per_s']:.0f} rows/s, peak {archive['peak_memory_bytes'] / 1e9:.2f} GB, "
        f"exported in {archive['export_seconds']:.0f} s"
    )
    result["pages"] = await _pages(database, runs=runs)
    say(f"slowest page p95 {result['pages']['worst_p95_s'] * 1000:.1f} ms")
    return result


@click.command("storage")
@click.option("--connectors", default=100_000, show_default=True, help="Size of the city.")
@click.option("--days", default=30, show_default=True, help="Days of rollups.")
@click.option(
    "--readings", default=2_000_000, show_default=True, help="Raw readings written on each road."
)
@click.option("--batch", default=20_000, show_default=True, help="Readings a transaction.")
@click.option("--runs", default=40, show_default=True, help="Times that each page is asked.")
@json_option
@click.pass_context
def command(
    context: click.Context,
    connectors: int,
    days: int,
    readings: int,
    batch: int,
    runs: int,
    as_json: bool,
) -> None:
    """Measure storage in a database of its own. On the configured server, or an embedded one."""
    size = CitySize(connectors=connectors, days=days, readings_a_day=max(1, readings // connectors))

    settings = settings_of(context)

    async def measure(url: str) -> dict[str, Any]:
        async with _fresh_database(url) as database:
            return await _measure(database, settings, size, batch=batch, runs=runs)

    with _server(settings) as url:
        result = run_async(measure(url))
    if as_json:
        print_json(result)
        return
    for name in ("batch_path_to_plain_copy", "bytes_per_reading"):
        say(f"{name}: {result[name]}")
    for query in result["pages"]["queries"]:
        say(f"{query['name']}: p50 {query['p50_s'] * 1e3:.1f} ms, p95 {query['p95_s'] * 1e3:.1f}")
