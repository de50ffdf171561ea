"""`chargewatch bench ingest`: readings a second from publisher to commit, and what bounds them."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
import time
import urllib.request
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import click
import orjson

from chargewatch.benches.ingest_limit import copy_limit
from chargewatch.benches.ingest_publisher import Load, default_begin
from chargewatch.benches.processor_time import listener, peak_memory_mb, processor_s
from chargewatch.benches.scratch import register_fleet, scratch_database
from chargewatch.errors import BenchError
from chargewatch.settings import Settings

BACKLOG_S = 1.2
"""How much work the publisher keeps ahead of ingest in the saturated run, s."""

WARM_UP_S = 5.0


@dataclass(frozen=True)
class IngestCounters:
    """Ingest's own counters at one moment."""

    at_s: float
    messages: float
    readings: float
    lag_buckets: dict[float, float]

    def rate(self, before: IngestCounters) -> float:
        """Return readings committed a second since an earlier moment."""
        return (self.readings - before.readings) / (self.at_s - before.at_s)

    def lag_s(self, quantile: float, before: IngestCounters) -> float:
        """Return a quantile of arrival to commit since an earlier moment, s (interpolated)."""
        counts = {
            edge: count - before.lag_buckets.get(edge, 0.0)
            for edge, count in sorted(self.lag_buckets.items())
        }
        total, low, below = counts.get(float("inf"), 0.0), 0.0, 0.0
        if not total:
            return float("nan")
        for edge, count in counts.items():
            if count >= quantile * total:
                if edge == float("inf"):
                    return low
                return low + (edge - low) * (quantile * total - below) / max(1.0, count - below)
            low, below = edge, count
        return float("nan")


def _scrape(port: int) -> IngestCounters:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as answer:
        text = answer.read().decode()
    messages = readings = 0.0
    buckets: dict[float, float] = {}
    for line in text.splitlines():
        if line.startswith("#"):
            continue
        name, _, value = line.rpartition(" ")
        if name.startswith("chargewatch_ingest_messages_total"):
            messages += float(value)
        elif name.startswith("chargewatch_ingest_items_total") and 'fate="stored"' in name:
            readings += float(value)
        elif name.startswith("chargewatch_ingest_arrival_to_commit_seconds_bucket"):
            buckets[float(name.partition('le="')[2].partition('"')[0])] = float(value)
    return IngestCounters(time.monotonic(), messages, readings, buckets)


@dataclass
class Running:
    """The processes of one measurement."""

    settings: Settings
    database_url: str
    metrics_port: int
    shards: int
    ingests: list[asyncio.subprocess.Process]

    async def figures(self) -> IngestCounters:
        """Return the counters of all ingest processes together."""
        parts = [
            await asyncio.to_thread(_scrape, self.metrics_port + n) for n in range(self.shards)
        ]
        edges = {edge for part in parts for edge in part.lag_buckets}
        return IngestCounters(
            parts[0].at_s,
            sum(part.messages for part in parts),
            sum(part.readings for part in parts),
            {edge: sum(part.lag_buckets.get(edge, 0.0) for part in parts) for edge in edges},
        )

    def processor(self, publisher: asyncio.subprocess.Process) -> dict[str, float]:
        """Return the processor time of each part so far, s; without those that can't be seen."""
        parts = {
            "ingest": sum(processor_s(process.pid) for process in self.ingests),
            "publisher": processor_s(publisher.pid),
        }
        for name, url, port in (
            ("broker", self.settings.mqtt_url, 1883),
            ("database", self.database_url, 5432),
        ):
            server = listener(urlsplit(url).port or port)
            if server is not None:
                parts[name] = processor_s(server)
        return parts


def _free_ports(count: int) -> int:
    import socket

    for first in range(20_000 + os.getpid() % 20_000, 60_000, 16):
        try:
            for port in range(first, first + count):
                with socket.socket() as probe:
                    probe.bind(("127.0.0.1", port))
        except OSError:
            continue
        return first
    raise BenchError("no free ports for the metrics of ingest")


@contextlib.asynccontextmanager
async def _ingest(settings: Settings, database_url: str, shards: int) -> AsyncIterator[Running]:
    """Yield the real command, subscribed and empty; its session is given up afterwards."""
    port = _free_ports(shards)
    client_id = f"chargewatch-bench-{os.getpid()}"
    processes = []
    for shard in range(shards):
        arguments = ["--shard", f"{shard}/{shards}"] if shards > 1 else []
        environment = {
            **os.environ,
            "CHARGEWATCH_DATABASE_URL": database_url,
            "CHARGEWATCH_MQTT_CLIENT_ID": client_id,
            # The session goes with the measurement.
            "CHARGEWATCH_MQTT_SESSION_EXPIRY_S": "30",
            "CHARGEWATCH_METRICS_PORT": str(port + shard),
            "CHARGEWATCH_HTTP_HOST": "127.0.0.1",
            "CHARGEWATCH_LOG_LEVEL": "warning",
        }
        processes.append(
            await asyncio.create_subprocess_exec(
                sys.executable, "-m", "chargewatch", "ingest", *arguments, env=environment
            )
        )
    running = Running(settings, database_url, port, shards, processes)
    try:
        async with asyncio.timeout(30):
            while True:
                if any(process.returncode is not None for process in processes):
                    raise BenchError("ingest ended at once; its message is above")
                with contextlib.suppress(OSError):
                    await running.figures()
                    break
                await asyncio.sleep(0.1)
        await asyncio.sleep(1.0)
        yield running
    finally:
        for process in processes:
            if process.returncode is None:
                process.terminate()
        for process in processes:
            await asyncio.wait_for(process.wait(), 30)


async def _publisher(settings: Settings, load: Load, rate: float) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "chargewatch.benches.ingest_publisher",
        f"--stations={load.stations}",
        f"--connectors={load.connectors}",
        f"--readings={load.readings}",
        f"--begin={load.begin.isoformat()}",
        f"--rate={rate}",
        stdin=asyncio.subprocess.PIPE,
        env={**os.environ, "CHARGEWATCH_MQTT_URL": settings.mqtt_url},
    )


async def _allow(publisher: asyncio.subprocess.Process, messages: float) -> None:
    if publisher.stdin is None or publisher.returncode is not None:
        raise BenchError("the publisher ended; its message is above")
    publisher.stdin.write(f"{int(messages)}\n".encode())
    await publisher.stdin.drain()


async def _measure(running: Running, load: Load, *, seconds: float, rate: float) -> dict[str, Any]:
    """Run one load, saturated (rate 0) or at so many readings/s, and return its figures."""
    publisher = await _publisher(running.settings, load, rate / load.readings)
    try:
        base = last = await running.figures()
        begin, before_s = base, running.processor(publisher)
        started, warm = time.monotonic(), False
        ahead = 4_000.0
        while time.monotonic() - started < seconds + WARM_UP_S:
            await _allow(publisher, last.messages - base.messages + ahead)
            await asyncio.sleep(0.2)
            now = await running.figures()
            if not rate:
                speed = (now.messages - last.messages) / (now.at_s - last.at_s)
                # The window follows the speed: the queue stays some tenths of a second long.
                ahead = max(500.0, 0.8 * ahead + 0.2 * BACKLOG_S * speed)
            else:
                ahead = 1e9
            last = now
            if not warm and time.monotonic() - started > WARM_UP_S:
                warm, begin, before_s = True, now, running.processor(publisher)
        after_s = running.processor(publisher)
        elapsed_s = last.at_s - begin.at_s
    finally:
        if publisher.stdin is not None:
            publisher.stdin.close()
        await asyncio.wait_for(publisher.wait(), 10)
    return {
        "readings_per_message": load.readings,
        "readings_per_s": round(last.rate(begin)),
        "messages_per_s": round((last.messages - begin.messages) / elapsed_s),
        "offered_readings_per_s": round(rate) or None,
        "seconds": round(elapsed_s, 1),
        "p50_s": round(last.lag_s(0.5, begin), 4),
        "p99_s": round(last.lag_s(0.99, begin), 4),
        "cores": {
            name: round((after_s[name] - before_s[name]) / elapsed_s, 3) for name in before_s
        },
        "ingest_peak_memory_mb": round(
            max(peak_memory_mb(process.pid) for process in running.ingests), 1
        ),
    }


async def _run(settings: Settings, load: Load, *, seconds: float, shards: int) -> dict[str, Any]:
    settings.require_mqtt_url()
    stations = [("BENCH", load.station_id(n)) for n in range(load.stations)]
    connectors = [
        (load.connector(n, place), "BENCH", load.station_id(n))
        for n in range(load.stations)
        for place in range(load.connectors)
    ]
    database_url = settings.require_database_url()
    async with scratch_database(database_url, "bench_limit") as url:
        await register_fleet(url, stations, connectors)
        limit = await copy_limit(
            url, load, seconds=min(20.0, seconds), batch=settings.batch_readings
        )
    click.echo(f"COPY limit {limit['readings_per_s']} readings/s", err=True)
    async with scratch_database(database_url, "bench") as url:
        await register_fleet(url, stations, connectors)
        async with _ingest(settings, url, shards) as running:
            full = await _measure(running, load, seconds=seconds, rate=0.0)
    click.echo(f"saturated {full['readings_per_s']} readings/s", err=True)
    async with scratch_database(database_url, "bench") as url:
        await register_fleet(url, stations, connectors)
        async with _ingest(settings, url, shards) as running:
            half = await _measure(
                running, load, seconds=max(10.0, seconds / 2), rate=full["readings_per_s"] / 2
            )
    return {
        "cores": os.cpu_count(),
        "stations": load.stations,
        "connectors": load.stations * load.connectors,
        "shards": shards,
        "limit": limit,
        "saturated": full,
        "half_load": half,
        "ratio": round(full["readings_per_s"] / limit["readings_per_s"], 3),
    }


@click.command("ingest")
@click.option("--seconds", default=60.0, show_default=True, help="Length of the saturated run.")
@click.option("--readings", default=50, show_default=True, help="Readings a message.")
@click.option("--stations", default=2_000, show_default=True, help="Stations that publish.")
@click.option("--connectors", default=10, show_default=True, help="Connectors a station.")
@click.option("--shards", default=1, show_default=True, help="Ingest processes.")
@click.option("--json", "as_json", is_flag=True, help="Print exactly one JSON document on stdout.")
@click.pass_context
def command(
    context: click.Context,
    seconds: float,
    readings: int,
    stations: int,
    connectors: int,
    shards: int,
    as_json: bool,
) -> None:
    """Measure the road from publisher to database. Against plain COPY on the same machine."""
    settings = context.find_root().obj
    if not isinstance(settings, Settings):
        raise TypeError("the root command sets the settings")
    load = Load(stations=stations, connectors=connectors, readings=readings, begin=default_begin())
    result = asyncio.run(_run(settings, load, seconds=seconds, shards=shards))
    option = orjson.OPT_APPEND_NEWLINE | (0 if as_json else orjson.OPT_INDENT_2)
    sys.stdout.buffer.write(orjson.dumps(result, option=option))
