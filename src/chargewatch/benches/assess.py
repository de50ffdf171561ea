"""`chargewatch bench assess`: nightly and full risk runs on made-up cities of several sizes."""

from __future__ import annotations

import asyncio
import math
import os
import platform
import sys
import time
import uuid
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import asyncpg
import click
import orjson

from chargewatch.benches.assess_city import VEHICLES_A_CONNECTOR, BenchCity, CityWriter
from chargewatch.benches.processor_time import processor_s
from chargewatch.errors import ChargewatchError
from chargewatch.local.postgres import EmbeddedPostgres
from chargewatch.settings import Settings
from chargewatch.storage.database import open_database
from chargewatch.storage.migrate import migrate

RUN_TIMEOUT_S = 3600.0
KINDS_OF_RUN = ("full", "nightly")


@contextmanager
def server_of(settings: Settings) -> Iterator[str]:
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
    connection = await asyncpg.connect("postgresql://" + url.partition("://")[2], timeout=30)
    try:
        await connection.execute(statement, timeout=600)
    finally:
        await connection.close(timeout=10)


@asynccontextmanager
async def _fresh_database(url: str) -> AsyncIterator[str]:
    """Yield the address of a migrated database of our own; it is dropped afterwards."""
    name = f"chargewatch_bench_{uuid.uuid4().hex[:8]}"
    await _execute(url, f"CREATE DATABASE {name}")
    try:
        own = urlunsplit(urlsplit(url)._replace(path=f"/{name}"))
        async with open_database(own) as database:
            await migrate(database)
        yield own
    finally:
        await _execute(url, f"DROP DATABASE {name} WITH (FORCE)")


async def _assess(url: str, as_of: datetime, *, days: int, full: bool) -> dict[str, Any]:
    """Run `chargewatch assess` in a process of its own; return its times and peak memory."""
    command = [sys.executable, "-m", "chargewatch", "assess", "--json", "--days", str(days)]
    command += ["--as-of", as_of.isoformat(), *(["--full"] if full else [])]
    begun = time.monotonic()
    process = await asyncio.create_subprocess_exec(
        *command,
        env={**os.environ, "CHARGEWATCH_DATABASE_URL": url},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    watched = asyncio.create_task(_watched(process.pid))
    async with asyncio.timeout(RUN_TIMEOUT_S):
        out, err = await process.communicate()
    seconds = time.monotonic() - begun
    peak_bytes, used_s = await watched
    if process.returncode:
        raise ChargewatchError(f"the risk run failed: {err.decode(errors='replace').strip()}")
    outcome = orjson.loads(out)
    return {
        "mode": outcome["mode"],
        "seconds": round(seconds, 2),
        "parts": outcome["seconds"],
        "processor_seconds": round(used_s, 1),
        "peak_memory_mb": round(peak_bytes / 1e6, 1),
        "tiers": outcome["tiers"],
        "signals": outcome["signals"],
    }


def _high_water(pid: int) -> int | None:
    """Return a process's peak resident memory so far, bytes (Linux); None when it has ended."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return None
    lines = [line for line in status.splitlines() if line.startswith("VmHWM")]
    return int(lines[0].split()[1]) * 1024 if lines else None


async def _watched(pid: int) -> tuple[int, float]:
    """Return a process's peak resident memory, bytes, and processor time, s, until it ends."""
    peak, processor = 0, 0.0
    while (now := _high_water(pid)) is not None:
        peak, processor = max(peak, now), max(processor, processor_s(pid))
        await asyncio.sleep(0.2)
    return peak, processor


async def _measure(url: str, city: BenchCity) -> dict[str, Any]:
    """Return what the full run of all days but the last took, and the night that adds it."""
    window = city.days + 1
    async with _fresh_database(url) as own:
        connection = await asyncpg.connect("postgresql://" + own.partition("://")[2], timeout=30)
        try:
            writer = CityWriter(city)
            history = await writer.write_history(connection)
            full = await _assess(own, city.end - timedelta(days=1), days=window, full=True)
            last_day = await writer.write_last_day(connection)
            nightly = await _assess(own, city.end, days=window, full=False)
        finally:
            await connection.close(timeout=60)
    return {
        "connectors": city.connectors,
        "vehicles": city.connectors * VEHICLES_A_CONNECTOR,
        "days": city.days,
        "history": history,
        "last_day": last_day,
        "full": full,
        "nightly": nightly,
    }


def growth_exponent(sizes: Sequence[int], seconds: Sequence[float]) -> float | None:
    """Return k of seconds ~ size^k between the two largest sizes; None for fewer than two."""
    pairs = sorted(zip(sizes, seconds, strict=True))[-2:]
    if len(pairs) < 2 or pairs[0][0] == pairs[1][0]:
        return None
    (small, fast), (large, slow) = pairs
    return math.log(slow / fast) / math.log(large / small)


def _growth(results: Sequence[dict[str, Any]]) -> dict[str, float | None]:
    sizes = [row["connectors"] for row in results]
    found = {}
    for kind in KINDS_OF_RUN:
        exponent = growth_exponent(sizes, [row[kind]["seconds"] for row in results])
        found[kind] = None if exponent is None else round(exponent, 2)
    return found


def _lines(row: dict[str, Any]) -> list[str]:
    counts = {**row["history"]}
    for name, count in row["last_day"].items():
        counts[name] = counts.get(name, 0) + count
    lines = [
        f"{row['connectors']} connectors, {row['vehicles']} vehicles, {row['days']} days: "
        + ", ".join(f"{count} {name.replace('_', ' ')}" for name, count in counts.items())
    ]
    for kind in KINDS_OF_RUN:
        run = row[kind]
        laps = ", ".join(f"{name} {seconds:.1f}" for name, seconds in run["parts"].items())
        lines.append(
            f"  {kind:>7}: {run['seconds']:.1f} s, {run['processor_seconds']:.1f} s of processor, "
            f"{run['peak_memory_mb']:.0f} MB; {laps}"
        )
    return lines


@click.command("assess")
@click.option("--sizes", default="1000,10000,100000", show_default=True, help="Connectors.")
@click.option(
    "--days", type=click.IntRange(2, 90), default=30, show_default=True, help="Days of rollups."
)
@click.option(
    "--readings-a-day",
    type=click.IntRange(2, 1440),
    default=24,
    show_default=True,
    help="Raw readings of the last day, per connector.",
)
@click.option("--json", "as_json", is_flag=True, help="Print exactly one JSON document on stdout.")
@click.pass_context
def command(
    context: click.Context, sizes: str, days: int, readings_a_day: int, as_json: bool
) -> None:
    """Measure full and nightly risk runs. From the database, by size of the city."""
    settings: Settings = context.find_root().obj
    try:
        counts = [int(size) for size in sizes.split(",")]
    except ValueError as exc:
        raise click.BadParameter(f"{sizes!r}: write numbers with commas between") from exc
    results = []
    with server_of(settings) as url:
        for count in counts:
            city = BenchCity(connectors=count, days=days, readings_a_day=readings_a_day)
            results.append(asyncio.run(_measure(url, city)))
            for line in _lines(results[-1]):
                click.echo(line, err=as_json)
    growth = _growth(results)
    told = [f"{kind} {value:.2f}" for kind, value in growth.items() if value is not None]
    if told:
        click.echo(f"seconds grow as connectors to the power of: {', '.join(told)}", err=as_json)
    document = {
        "bench": "assess",
        "machine": {"cores": os.cpu_count(), "python": platform.python_version()},
        "note": "seconds are of the whole command, start of Python included; processor time and "
        "peak memory are those of the risk run's process, not of the database; signals and engine "
        "run at once, the lap of the engine is what it takes longer",
        "results": results,
        "growth_exponent": growth,
    }
    if as_json:
        click.echo(orjson.dumps(document).decode())
