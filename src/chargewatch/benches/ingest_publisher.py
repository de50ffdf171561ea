"""Load for `chargewatch bench ingest`: gateways' messages over one raw MQTT connection at QoS 1.

A process of its own, so that its processor time is told apart. Reads from stdin how many messages
may be out in all (one number a line), so that the broker's queue stays short; ends at end of file.
"""

from __future__ import annotations

import argparse
import os
import selectors
import socket
import struct
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from urllib.parse import unquote, urlsplit

WINDOW = 500
"""Messages that may be without PUBACK."""

STEP_S = 15


@dataclass(frozen=True, kw_only=True)
class Load:
    """A fleet and its messages: every station sends its connectors' readings every 15 s of them."""

    stations: int
    connectors: int
    readings: int
    begin: datetime

    @property
    def instants(self) -> int:
        """Instants in one message."""
        return max(1, self.readings // self.connectors)

    def station_id(self, station: int) -> str:
        """Return a station's id."""
        return f"BN{station:05d}"

    def connector(self, station: int, place: int) -> str:
        """Return a connector's id."""
        return f"BN{station:05d}-{place // 2 + 1:02d}-{place % 2 + 1}"

    def places(self, message: int) -> range:
        """Return the connectors that the n-th message of a station tells about."""
        if self.readings >= self.connectors:
            return range(self.connectors)
        first = message * self.readings % self.connectors
        return range(first, min(first + self.readings, self.connectors))

    def payload(self, station: int, message: int) -> bytes:
        """Return the n-th message (from 0) of a station: all fields of the contract's example."""
        places = self.places(message)
        if self.readings < self.connectors:
            base = message * self.readings // self.connectors
        else:
            base = message * self.instants
        values: list[object] = [message + 1]
        at = b""
        for instant in range(base, base + self.instants):
            at = (self.begin + timedelta(seconds=STEP_S * instant)).isoformat().encode()
            energy_wh = 1_000_000 + instant * 29
            for place in places:
                values += (at, energy_wh + place, instant // 240)
        values.insert(1, at)
        return _template(self, station, places) % tuple(values)


@lru_cache(maxsize=50_000)
def _template(load: Load, station: int, places: range) -> bytes:
    reading = ",".join(
        f'{{"connector":"{load.connector(station, place)}","at":"%b+08:00","energy_wh":%d,'
        '"power_w":6980.0,"voltage_v":231.2,"current_a":30.2,"soc_pct":54,'
        f'"session":"S-{station:05d}-{place:02d}-%d","context":"Sample.Periodic"}}'
        for place in places
    )
    readings = ",".join([reading] * load.instants)
    return f'{{"seq":%d,"sent_at":"%b.120+08:00","readings":[{readings}]}}'.encode()


def _length(value: int) -> bytes:
    result = bytearray()
    while True:
        value, digit = divmod(value, 128)
        result.append(digit | (0x80 if value else 0))
        if not value:
            return bytes(result)


def _text(value: str) -> bytes:
    encoded = value.encode()
    return struct.pack("!H", len(encoded)) + encoded


def connect(url: str) -> socket.socket:
    """Return an MQTT 3.1.1 connection."""
    parts = urlsplit(url)
    sock = socket.create_connection((parts.hostname, parts.port or 1883), timeout=10)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    flags, login = 0x02, b""
    if parts.username:
        flags |= 0xC0
        login = _text(unquote(parts.username)) + _text(unquote(parts.password or ""))
    body = _text("MQTT") + bytes([4, flags]) + struct.pack("!H", 0)
    body += _text("chargewatch-bench") + login
    sock.sendall(b"\x10" + _length(len(body)) + body)
    answer = sock.recv(4)
    if len(answer) < 4 or answer[3] != 0:
        raise SystemExit(f"the broker refuses the publisher: {answer.hex()}")
    return sock


def packets(load: Load) -> Iterator[bytes]:
    """Yield PUBLISH packets for ever, station after station."""
    count = message = 0
    while True:
        for station in range(load.stations):
            count += 1
            body = (
                _text(f"cw/v1/BENCH/{load.station_id(station)}/registers")
                + struct.pack("!H", count % 65_535 + 1)
                + load.payload(station, message)
            )
            yield b"\x32" + _length(len(body)) + body
        message += 1


class PacketPublisher:
    """Sends packets as the limit, the rate and the broker's acknowledgements allow."""

    def __init__(self, sock: socket.socket, load: Load, rate: float) -> None:
        self._sock = sock
        self._packets = packets(load)
        self._rate = rate
        self._acknowledged = 0
        self._received = 0
        self._lines = b""
        self.sent = 0
        self._limit = 0

    def run(self) -> None:
        """Publish until stdin ends."""
        self._sock.setblocking(False)
        selector = selectors.DefaultSelector()
        selector.register(self._sock, selectors.EVENT_READ)
        selector.register(0, selectors.EVENT_READ)
        buffer, begun = b"", time.monotonic()
        while True:
            allowed = min(self._limit, self._acknowledged + WINDOW)
            if self._rate:
                allowed = min(allowed, int((time.monotonic() - begun) * self._rate) + 1)
            while not buffer and self.sent < allowed:
                buffer = next(self._packets)
                self.sent += 1
                buffer = self._send(buffer)
            if buffer:
                buffer = self._send(buffer)
            for key, _ in selector.select(0.001 if buffer or self._rate else 0.02):
                if key.fileobj is self._sock:
                    self._receive()
                elif not self._read_limit():
                    return

    def _send(self, buffer: bytes) -> bytes:
        try:
            return buffer[self._sock.send(buffer) :]
        except BlockingIOError:
            return buffer

    def _receive(self) -> None:
        data = self._sock.recv(65_536)
        if not data:
            raise SystemExit("the broker closed the publisher's connection")
        # Nothing but PUBACKs of 4 bytes comes here.
        self._received += len(data)
        self._acknowledged = self._received // 4

    def _read_limit(self) -> bool:
        data = os.read(0, 65_536)
        if not data:
            return False
        *lines, self._lines = (self._lines + data).split(b"\n")
        if lines:
            self._limit = int(lines[-1])
        return True


def main() -> None:
    """Run as `python -m chargewatch.benches.ingest_publisher`."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--stations", type=int, required=True)
    parser.add_argument("--connectors", type=int, required=True)
    parser.add_argument("--readings", type=int, required=True)
    parser.add_argument("--begin", required=True)
    parser.add_argument("--rate", type=float, default=0.0, help="messages/s; 0: no limit")
    arguments = parser.parse_args()
    load = Load(
        stations=arguments.stations,
        connectors=arguments.connectors,
        readings=arguments.readings,
        begin=datetime.fromisoformat(arguments.begin),
    )
    # The address holds a password: not on the command line, where everybody sees it.
    PacketPublisher(connect(os.environ["CHARGEWATCH_MQTT_URL"]), load, arguments.rate).run()


def default_begin() -> datetime:
    """Return where the load's time begins: yesterday, in the offset that the messages say."""
    return (datetime.now(UTC) + timedelta(hours=8) - timedelta(hours=20)).replace(
        tzinfo=None, microsecond=0
    )


if __name__ == "__main__":
    main()
