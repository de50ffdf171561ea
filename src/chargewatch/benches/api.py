"""`chargewatch bench api`: how long each page and endpoint takes, asked over HTTP."""

from __future__ import annotations

import asyncio
import http.client
import json
import platform
import re
import secrets
import statistics
import sys
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, closing
from typing import Any
from urllib.parse import quote, urlsplit

import click

from chargewatch import __version__
from chargewatch.console import json_option, print_json, run_async, say, settings_of
from chargewatch.errors import BenchError
from chargewatch.settings import Settings
from chargewatch.storage.database import Database, open_database
from chargewatch.storage.migrate import require_newest_schema
from chargewatch.storage.pages import city as city_rows
from chargewatch.storage.pages import piles as pile_list_rows
from chargewatch.storage.pages.piles import PileFilter
from chargewatch.supervision import accounts
from chargewatch.supervision.audit import Actor
from chargewatch.supervision.permissions import Role
from chargewatch.web.site import PAGES

START_TIMEOUT_S = 60.0
ASK_TIMEOUT_S = 60.0


@asynccontextmanager
async def _user(database: Database) -> AsyncIterator[tuple[str, str]]:
    """Yield name and password of an inspector that is disabled afterwards."""
    name, password = f"bench-{secrets.token_hex(4)}", accounts.generate_password()
    await accounts.add_user(
        database, name, role=Role.INSPECTOR, password=password, actor=Actor(name="bench")
    )
    try:
        yield name, password
    finally:
        await accounts.disable_user(database, name, actor=Actor(name="bench"))


async def _address_told(stream: asyncio.StreamReader) -> str:
    while line := (await stream.readline()).decode():
        found = re.search(r"http://\S+", line)
        if found is not None:
            return found[0]
    raise BenchError("the server ended before it served: run `chargewatch serve` to see why")


async def _read_away(stream: asyncio.StreamReader) -> None:
    while await stream.readline():
        pass


@asynccontextmanager
async def _server() -> AsyncIterator[str]:
    """Yield the address of a server process of our own on a free port."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "chargewatch", "serve", "--host", "127.0.0.1", "--port", "0"),
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
    )
    if process.stderr is None:
        raise BenchError("the server's output can't be read")
    try:
        async with asyncio.timeout(START_TIMEOUT_S):
            address = await _address_told(process.stderr)
        reading = asyncio.create_task(_read_away(process.stderr))
        yield address
    finally:
        if process.returncode is None:
            process.terminate()
        await asyncio.wait_for(process.wait(), 30)
    await reading


def _connection(address: str) -> http.client.HTTPConnection:
    parts = urlsplit(address)
    return http.client.HTTPConnection(str(parts.hostname), parts.port, timeout=ASK_TIMEOUT_S)


def _log_in(address: str, name: str, password: str) -> dict[str, str]:
    with closing(_connection(address)) as connection:
        body = json.dumps({"username": name, "password": password})
        connection.request("POST", "/api/v1/login", body, {"content-type": "application/json"})
        answer = connection.getresponse()
        content = answer.read()
        if answer.status != 200:
            raise BenchError(f"log-in failed with status {answer.status}")
    return {"authorization": f"Bearer {json.loads(content)['token']}"}


def _ask(address: str, path: str, *, headers: Mapping[str, str], count: int) -> Iterator[float]:
    """Yield the seconds of each request over one kept connection."""
    with closing(_connection(address)) as connection:
        for _ in range(count):
            started = time.perf_counter()
            connection.request("GET", path, headers=dict(headers))
            answer = connection.getresponse()
            answer.read()
            if answer.status != 200:
                raise BenchError(f"{path} answered with status {answer.status}")
            yield time.perf_counter() - started


def _figures(seconds: list[float]) -> dict[str, float]:
    """Return p50, p95 and the largest of the times, ms."""
    cuts = statistics.quantiles(seconds, n=20, method="inclusive")
    return {
        "p50_ms": round(cuts[9] * 1e3, 2),
        "p95_ms": round(cuts[18] * 1e3, 2),
        "max_ms": round(max(seconds) * 1e3, 2),
    }


async def _targets(database: Database) -> dict[str, str]:
    """Return what is asked for, by name; a pile and a station of the newest run among them."""
    async with database.connect() as connection:
        run = await city_rows.newest_run(connection)
        page = await pile_list_rows.piles(
            connection,
            PileFilter(),
            run_id=None if run is None else run["run_id"],
            scope=None,
            limit=1,
            offset=0,
        )
        operators = await city_rows.operators(connection, scope=None)
    if not page.rows or not operators:
        raise BenchError("the database has no connectors: import a registry or run the demo first")
    connector, station_id = page.rows[0]["connector"], page.rows[0]["station_id"]
    pile, station = quote(connector), quote(station_id)
    operator = quote(operators[0]["operator_id"])
    api = "/api/v1"
    return {
        **{
            f"page {page.name}": page.address(connector=connector, station_id=station_id)
            for page in PAGES
            if page.whole and not page.public
        },
        "page piles, red": "/piles?tier=red",
        "page piles, operator by error": f"/piles?operator={operator}&sort=error",
        "api piles": f"{api}/piles",
        "api piles, page 21": f"{api}/piles?offset=1000",
        "api piles, by error": f"{api}/piles?sort=error",
        "api piles, by name": f"{api}/piles?sort=connector",
        "api piles, search": f"{api}/piles?q={pile[:8]}",
        "api pile": f"{api}/piles/{pile}",
        "api history": f"{api}/piles/{pile}/history",
        "api sessions": f"{api}/piles/{pile}/sessions",
        "api readings": f"{api}/piles/{pile}/readings",
        "api stations": f"{api}/stations",
        "api station": f"{api}/stations/{station}",
        "api signals": f"{api}/signals?open=true",
        "api runs": f"{api}/runs",
        "api ledger": f"{api}/ingest/ledger",
        "api quarantine": f"{api}/ingest/quarantine",
        "api health": f"{api}/health",
    }


def _many_at_once(
    address: str, path: str, *, headers: Mapping[str, str], count: int, clients: int
) -> dict[str, float]:
    """Return requests per second and times of several clients that ask without a pause."""
    with ThreadPoolExecutor(clients) as pool:
        started = time.perf_counter()
        futures = [
            pool.submit(lambda: list(_ask(address, path, headers=headers, count=count)))
            for _ in range(clients)
        ]
        seconds = [second for future in futures for second in future.result()]
        elapsed = time.perf_counter() - started
    return {"requests_per_s": round(len(seconds) / elapsed, 1), **_figures(seconds)}


async def _run(settings: Settings, *, count: int, clients: int) -> dict[str, Any]:
    times: dict[str, dict[str, float]] = {}
    url = settings.require_database_url()
    async with open_database(url) as database:
        await require_newest_schema(database)
        targets = await _targets(database)
        engine = database.capabilities.engine
        async with database.connect() as connection:
            run = await city_rows.newest_run(connection)
            page = await pile_list_rows.piles(
                connection,
                PileFilter(),
                run_id=None if run is None else run["run_id"],
                scope=None,
                limit=1,
                offset=0,
            )
        async with _user(database) as (name, password), _server() as address:
            headers = await asyncio.to_thread(_log_in, address, name, password)
            for target, path in targets.items():

                def ask(path: str = path) -> list[float]:
                    return list(_ask(address, path, headers=headers, count=count + 2))

                seconds = await asyncio.to_thread(ask)
                # The first two pay for connections and prepared statements.
                times[target] = {**_figures(seconds[2:]), "first_ms": round(seconds[0] * 1e3, 2)}
                say(f"{target}: p50 {times[target]['p50_ms']} ms, p95 {times[target]['p95_ms']} ms")
            load = await asyncio.to_thread(
                _many_at_once,
                address,
                targets["page piles"],
                headers=headers,
                count=max(count // 2, 2),
                clients=clients,
            )
    return {
        "version": __version__,
        "engine": engine,
        "machine": platform.machine(),
        "connectors": page.total,
        "requests_each": count,
        "times": times,
        "piles_page_under_load": {"clients": clients, **load},
    }


@click.command("api")
@click.option(
    "--requests",
    "count",
    type=click.IntRange(2),
    default=50,
    show_default=True,
    help="Times that each is asked.",
)
@click.option(
    "--clients",
    type=click.IntRange(1, 64),
    default=8,
    show_default=True,
    help="Clients that ask at once.",
)
@json_option
@click.pass_context
def command(context: click.Context, count: int, clients: int, as_json: bool) -> None:
    """Measure every page and endpoint. On the database of the settings."""
    result = run_async(_run(settings_of(context), count=count, clients=clients))
    if as_json:
        print_json(result)
        return
    for target, figures in result["times"].items():
        click.echo(f"{target:32} p50 {figures['p50_ms']:8.2f} ms   p95 {figures['p95_ms']:8.2f} ms")
    load = result["piles_page_under_load"]
    click.echo(f"{load['clients']} clients: {load['requests_per_s']} piles pages/s")
