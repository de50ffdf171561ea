"""A proxy between ingest and a real broker that plays a broker with ways of its own."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from urllib.parse import urlsplit

from chargewatch.ingest.packets import PacketSplitter

Rule = Callable[[int, bytes], "bytes | None"]
"""Takes a packet (first byte, body) and returns what goes on; None cuts the connection."""


def encoded(first: int, body: bytes) -> bytes:
    """Return a packet as bytes."""
    size, length = len(body), bytearray()
    while size > 0x7F:
        length.append(size & 0x7F | 0x80)
        size >>= 7
    length.append(size)
    return bytes([first]) + bytes(length) + body


class PacketProxy:
    """Passes packets on, each way through a rule that a test sets."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._target = parts.hostname or "", parts.port or 0
        self.from_client: Rule = encoded
        self.from_broker: Rule = encoded
        self.connections = 0
        self.url = ""

    @classmethod
    @asynccontextmanager
    async def to(cls, url: str) -> AsyncIterator[PacketProxy]:
        proxy = cls(url)
        server = await asyncio.start_server(proxy._serve, "127.0.0.1", 0)
        proxy.url = f"mqtt://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        try:
            yield proxy
        finally:
            server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            there_reader, there_writer = await asyncio.open_connection(*self._target)
        except OSError:
            writer.transport.abort()
            return
        await asyncio.gather(
            self._pipe(reader, there_writer, lambda *packet: self.from_client(*packet)),
            self._pipe(there_reader, writer, lambda *packet: self.from_broker(*packet)),
        )

    async def _pipe(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, rule: Rule
    ) -> None:
        cut = False

        def take(first: int, body: bytes) -> None:
            nonlocal cut
            if not cut:
                passed = rule(first, body)
                cut = passed is None
                writer.write(passed or b"")

        splitter = PacketSplitter(take)
        try:
            while not cut and (data := await reader.read(1 << 16)):
                splitter.feed(data)
                await writer.drain()
        except OSError:
            pass
        finally:
            writer.close()
