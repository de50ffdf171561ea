"""A TCP proxy that spoils its links: cuts, delays, or leaves them half-open."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Self
from urllib.parse import urlsplit, urlunsplit

PUMP_BYTES = 4096


@dataclass(eq=False)
class _Link:
    """One connection from a client through the proxy to its server."""

    client: asyncio.StreamWriter
    server: asyncio.StreamWriter
    swallowed: bool = False

    def abort(self) -> None:
        for writer in (self.client, self.server):
            writer.transport.abort()


class Proxy:
    """Stands between a client and a server; `url` is the server's, by way of the proxy."""

    def __init__(self, url: str) -> None:
        self._parts = urlsplit(url)
        self._links: set[_Link] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._budget: int | None = None
        self.delay_s = 0.0
        self.cuts = 0
        self.url = ""

    @classmethod
    @asynccontextmanager
    async def to(cls, url: str) -> AsyncIterator[Self]:
        """Yield a proxy to a server that need not be there yet."""
        proxy = cls(url)
        server = await asyncio.start_server(proxy._serve, "127.0.0.1", 0)
        user, at, _ = proxy._parts.netloc.rpartition("@")
        port = server.sockets[0].getsockname()[1]
        proxy.url = urlunsplit(proxy._parts._replace(netloc=f"{user}{at}127.0.0.1:{port}"))
        try:
            yield proxy
        finally:
            server.close()
            proxy.cut()
            await asyncio.sleep(0.05)
            for task in proxy._tasks:
                task.cancel()
            await asyncio.gather(*proxy._tasks, return_exceptions=True)

    def cut_after(self, size: int) -> None:
        """Let so many bytes more through, then break every link."""
        self._budget = size

    def cut(self, *, share: float = 1.0, chance: random.Random | None = None) -> None:
        """Break every link, or a share of them."""
        for link in list(self._links):
            if chance is None or chance.random() < share:
                self.cuts += 1
                link.abort()

    def swallow(self) -> None:
        """Make every present link half-open: both ends see it stand, nothing comes through."""
        for link in self._links:
            link.swallowed = True

    def cut_swallowed(self) -> None:
        """Break the links that are half-open still."""
        for link in list(self._links):
            if link.swallowed:
                link.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        if task is not None:
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        try:
            host, port = self._parts.hostname or "", self._parts.port or 0
            server_reader, server_writer = await asyncio.open_connection(host, port)
        except OSError:
            writer.transport.abort()
            return
        link = _Link(writer, server_writer)
        self._links.add(link)
        try:
            await asyncio.gather(
                self._pipe(link, reader, server_writer), self._pipe(link, server_reader, writer)
            )
        finally:
            self._links.discard(link)
            link.abort()

    async def _pipe(
        self, link: _Link, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        with suppress(OSError):
            while data := await reader.read(PUMP_BYTES):
                if self.delay_s:
                    await asyncio.sleep(self.delay_s)
                if link.swallowed:
                    continue
                if self._budget is not None and len(data) >= self._budget:
                    writer.write(data[: self._budget])
                    await writer.drain()
                    self._budget = None
                    self.cut()
                    return
                if self._budget is not None:
                    self._budget -= len(data)
                writer.write(data)
                await writer.drain()
        if link.swallowed:
            # The other end doesn't learn of it: that is what half-open means.
            return
        writer.close()
