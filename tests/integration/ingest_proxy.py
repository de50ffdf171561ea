"""A TCP proxy that cuts a link after so many bytes, or delays it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from urllib.parse import urlsplit, urlunsplit


class Proxy:
    """Stands between ingest and a server."""

    def __init__(self, host: str, port: int) -> None:
        self._target = host, port
        self._links: set[asyncio.StreamWriter] = set()
        self._budget: int | None = None
        self.delay_s = 0.0
        self.cuts = 0
        self.url = ""

    @classmethod
    @asynccontextmanager
    async def to(cls, url: str) -> AsyncIterator[Proxy]:
        parts = urlsplit(url)
        proxy = cls(parts.hostname or "", parts.port or 0)
        server = await asyncio.start_server(proxy._serve, "127.0.0.1", 0)
        user, at, _ = parts.netloc.rpartition("@")
        port = server.sockets[0].getsockname()[1]
        proxy.url = urlunsplit(parts._replace(netloc=f"{user}{at}127.0.0.1:{port}"))
        try:
            yield proxy
        finally:
            server.close()
            proxy._cut()
            await asyncio.sleep(0.05)

    def cut_after(self, size: int) -> None:
        """Let so many bytes more through, then break every link."""
        self._budget = size

    def _cut(self) -> None:
        for writer in list(self._links):
            writer.transport.abort()
        self._links.clear()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            server_reader, server_writer = await asyncio.open_connection(*self._target)
        except OSError:
            writer.transport.abort()
            return
        self._links |= {writer, server_writer}
        await asyncio.gather(self._pipe(reader, server_writer), self._pipe(server_reader, writer))
        self._links -= {writer, server_writer}

    async def _pipe(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(4096):
                if self.delay_s:
                    await asyncio.sleep(self.delay_s)
                if self._budget is not None and len(data) >= self._budget:
                    writer.write(data[: self._budget])
                    await writer.drain()
                    self._budget = None
                    self.cuts += 1
                    self._cut()
                    return
                if self._budget is not None:
                    self._budget -= len(data)
                writer.write(data)
                await writer.drain()
        except OSError:
            pass
        finally:
            writer.close()
