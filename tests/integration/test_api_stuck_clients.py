"""Clients that ask and don't read take nothing from those that do."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager, closing
from typing import Any

import httpx
import pytest
from sqlalchemy import text

from chargewatch.storage import users
from chargewatch.storage.pages import piles as pile_list_rows
from chargewatch.supervision import accounts
from chargewatch.supervision.audit import Actor
from chargewatch.supervision.permissions import Role
from chargewatch.web import server as web_server
from chargewatch.web.server import listen, make_server
from web_client import PASSWORD, Site, open_site

STUCK = 30

# Names that are long, so that an export is larger than what kernel and server keep on the way.
MANY = """
INSERT INTO connector (connector, operator_id, station_id)
SELECT 'X' || g || repeat('-long', 200), 'OP1', 'TJ0002' FROM generate_series(1, 20000) g
"""
NO_RUN = "UPDATE risk_run SET state = 'failed'"


@pytest.fixture
async def site(database_url: str) -> AsyncIterator[Site]:
    async with open_site(database_url) as opened:
        yield opened


@asynccontextmanager
async def running(site: Site) -> AsyncIterator[tuple[str, int]]:
    """Yield host and port of a real server."""
    server = make_server(site.app)
    with closing(listen("127.0.0.1", 0)) as listener:
        serving = asyncio.create_task(server.serve(sockets=[listener]))
        yield listener.getsockname()[:2]
        server.should_exit = True
        async with asyncio.timeout(30):
            await serving


async def ask(
    stack: AsyncExitStack, place: tuple[str, int], path: str, headers: dict[str, str]
) -> socket.socket:
    """Send a request over a socket with a small window, and read nothing of the answer."""
    loop = asyncio.get_running_loop()
    client = stack.enter_context(socket.socket())
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    client.setblocking(False)
    await loop.sock_connect(client, place)
    lines = [f"GET {path} HTTP/1.1", "host: test", *(f"{k}: {v}" for k, v in headers.items())]
    await loop.sock_sendall(client, "\r\n".join([*lines, "", ""]).encode())
    return client


async def status_of(client: socket.socket) -> int:
    """Read so much of an answer that its status is known."""
    async with asyncio.timeout(60):
        line = await asyncio.get_running_loop().sock_recv(client, 12)
    return int(line.split()[1])


async def until(happened: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not happened():  # noqa: ASYNC110 - what is waited for tells nobody
            await asyncio.sleep(0.05)


async def supervisors(site: Site, count: int) -> list[dict[str, str]]:
    for number in range(count):
        await accounts.add_user(
            site.database,
            f"s{number}",
            role=Role.SUPERVISOR,
            password=PASSWORD,
            actor=Actor(name="test"),
        )
    return [await site.token(f"s{number}") for number in range(count)]


async def test_stuck_exports_and_streams_leave_everybody_else_alone(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(web_server, "WRITE_TIMEOUT_S", 20.0)
    async with site.database.begin() as connection:
        # Without a run the list is that of all connectors.
        await connection.execute(text(NO_RUN))
        await connection.execute(text(MANY))
        await connection.execute(text("DELETE FROM pile_index"))
    headers = await supervisors(site, 6)
    service = site.app.state.service
    async with AsyncExitStack() as stack:
        place = await stack.enter_async_context(running(site))
        async with httpx.AsyncClient(
            base_url=f"http://{place[0]}:{place[1]}", headers=headers[-1], timeout=60
        ) as client:
            exports = [await ask(stack, place, "/piles.csv", headers[k % 5]) for k in range(STUCK)]
            statuses = [await status_of(client) for client in exports]
            for k in range(STUCK):
                await ask(stack, place, "/api/v1/events?station=TJ0001", headers[k % 5])
            await until(lambda: service.streams.taken == STUCK)
            # 3 of each user, 12 in all.
            assert set(statuses) == {200, 429, 503}
            # On a slow machine the first are cut off before the last have asked.
            assert statuses.count(200) >= 12 >= service.exports.taken
            begun = time.monotonic()
            for path in ("/api/v1/health", "/api/v1/piles", "/piles", "/api/v1/stations", "/"):
                assert (await client.get(path)).status_code == 200, path
            assert time.monotonic() - begun < 60
            assert site.database.engine.pool.checkedout() == 0  # type: ignore[attr-defined]
            # The time is up for those that don't read: their exports end and count no more.
            await until(lambda: service.exports.taken == 0)
            async with client.stream("GET", "/piles.csv") as again:
                assert again.status_code == 200
                size = sum([len(part) async for part in again.aiter_bytes()])
            assert size > 20_000 * 1_000


async def test_an_export_reads_every_piece_on_a_connection_of_its_own(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pile_list_rows, "STREAM_ROWS", 7)
    pool: Any = site.database.engine.pool
    wanted = pile_list_rows.PileFilter()
    async with site.database.connect() as connection:
        run = await connection.scalar(text("SELECT max(run_id) FROM risk_run"))
        assert await users.user_by_name(connection, "admin") is not None
    seen = 0
    async for rows in pile_list_rows.stream_piles(
        site.database, wanted, run_id=run - 1, scope=None
    ):
        assert pool.checkedout() == 0
        seen += len(rows)
    assert seen == 120


async def test_the_head_of_an_answer_comes_without_its_body(site: Site) -> None:
    header = await site.token("admin")
    async with running(site) as place:
        async with httpx.AsyncClient(
            base_url=f"http://{place[0]}:{place[1]}", headers=header, timeout=30
        ) as client:
            for path in ("/", "/piles.csv", "/api/v1/health", "/api/v1/events", "/static/app.css"):
                answer = await client.head(path)
                assert (answer.status_code, answer.content) == (200, b""), path
                assert (await client.options(path)).status_code == 405, path
            assert (await client.head("/nothing")).status_code == 404
            # A header larger than 64 KiB is refused, not kept.
            answer = await client.get("/api/v1/health", headers={"x-large": "x" * 200_000})
            assert answer.status_code == 400
        assert site.app.state.service.streams.taken == 0


async def test_a_client_that_goes_away_while_it_sends_is_no_fault_of_ours(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    loop = asyncio.get_running_loop()
    async with running(site) as place:
        for path in ("/api/v1/login", "/login"):
            with closing(socket.socket()) as client:
                client.setblocking(False)
                await loop.sock_connect(client, place)
                head = f"POST {path} HTTP/1.1\r\nhost: test\r\ncontent-length: 1000\r\n\r\n("
                await loop.sock_sendall(client, head.encode())
        await until(lambda: "client_gone path=/login" in caplog.messages)
    assert not [record for record in caplog.records if record.levelname == "ERROR"]
