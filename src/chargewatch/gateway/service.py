"""The gateway: input to spool, spool to broker, receipts to spool."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, TypeVar

import orjson

from chargewatch.errors import BrokerError
from chargewatch.gateway.intake import Input, Line, LineBlock
from chargewatch.gateway.lines import Item, LineError, read_line
from chargewatch.gateway.link import IN_FLIGHT, Connection, Link, LinkLostError, LinkOptions
from chargewatch.gateway.spool import DeadLetter, Settled, Spool, Spooled, SpoolFullError
from chargewatch.mqtt.address import BrokerAddress
from chargewatch.wire.kinds import Kind
from chargewatch.wire.topics import RECEIPT, topic

log = logging.getLogger("chargewatch.gateway")

T = TypeVar("T")
FULL_RETRY_S = 1.0
REPEATED_STATUSES = 3
"""With so many statuses of a connection the ones before them are sent again."""

STEADY_S = 5.0
"""A connection that held so long was a good one: the next pause is short again."""


def utc_now() -> datetime:
    """Return the system's time."""
    return datetime.now(UTC)


@dataclass(frozen=True, kw_only=True)
class GatewayOptions:
    """How the gateway behaves; the defaults are the contract's."""

    operator_id: str
    station_id: str
    window: int = 500
    """Messages that may be out without a receipt."""
    resend_s: float = 600.0
    linger_s: float = 0.5
    status_s: float = 60.0
    keepalive_s: int = 30
    reconnect_max_s: float = 10.0


@dataclass(kw_only=True)
class GatewayTotals:
    """What a run of the gateway did."""

    lines: int = 0
    bad_lines: int = 0
    items: int = 0
    messages: int = 0
    published: int = 0
    resent: int = 0
    receipts: int = 0
    stored: int = 0
    duplicate: int = 0
    rejected: int = 0
    foreign_receipts: int = 0
    connections: int = 0
    backlog: int = 0


@dataclass
class _Out:
    """Messages that were sent on this connection and have no receipt: id to time of sending."""

    sent: dict[int, float] = field(default_factory=dict)

    def due(self, before: float) -> list[int]:
        """Return what was sent so long ago that its receipt should be here."""
        found = []
        for message_id, at in self.sent.items():
            # In order of sending: what is behind the first young one is young.
            if at > before:
                break
            found.append(message_id)
        return found


class GatewayService:
    """Runs one station's gateway until its input has ended and its spool is empty, or `stop`."""

    def __init__(
        self,
        spool: Spool,
        source: Input,
        address: BrokerAddress,
        options: GatewayOptions,
        *,
        acknowledge: Callable[[int], None] = lambda line: None,
    ) -> None:
        """Take what runs together; `acknowledge` is told the last line that is on disk."""
        self._spool, self._source, self._options = spool, source, options
        self._acknowledge = acknowledge
        self._link = Link(address, self._link_options())
        self._address = address
        self.totals = GatewayTotals()
        self._disk = ThreadPoolExecutor(1, thread_name_prefix="spool")
        self._full = False
        self._input_ended = False
        self._highest_sent = 0
        self._connected_before = False
        self._wake = asyncio.Event()
        self._status_changed = asyncio.Event()
        self._stop = asyncio.Event()
        self._drained = asyncio.Event()

    def _link_options(self) -> LinkOptions:
        options = self._options
        return LinkOptions(
            client_id=f"{options.operator_id}:{options.station_id}",
            username=options.operator_id,
            receipt_topic=self._topic(RECEIPT),
            will_topic=self._topic(Kind.STATUS),
            will_payload=b'{"online": false}',
            keepalive_s=options.keepalive_s,
        )

    def _topic(self, kind: str) -> str:
        return topic(self._options.operator_id, self._options.station_id, kind)

    def stop(self) -> None:
        """Ask the gateway to end; what is spooled is sent by the next run."""
        self._stop.set()

    async def run(self) -> GatewayTotals:
        """Work until the input has ended and everything has its receipt, or until `stop`.

        Raises: BrokerError when the broker refuses the gateway; InputFileError.
        """
        taking = asyncio.create_task(self._take_input(), name="input")
        linked = asyncio.create_task(self._stay_connected(), name="link")
        drained = asyncio.create_task(self._drained.wait())
        tasks = (taking, linked, drained)
        try:
            waiting: set[asyncio.Task[Any]] = set(tasks)
            # Also after `stop` the input task ends by itself, so that no line in hand is lost.
            while not drained.done() and not (taking.done() and self._stop.is_set()):
                done, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    task.result()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            self._source.close()
            self.totals.backlog = await self._on_disk(self._spool.backlog)
            self._disk.shutdown()
        return self.totals

    async def _on_disk(self, function: Callable[..., T], *arguments: Any, **named: Any) -> T:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._disk, lambda: function(*arguments, **named))

    async def _insist(self, function: Callable[..., T], *arguments: Any, **named: Any) -> T:
        """Write to the spool, again and again while it is full: nothing else goes on meanwhile."""
        while True:
            try:
                result = await self._on_disk(function, *arguments, **named)
            except SpoolFullError as exc:
                if not self._full:
                    self._full = True
                    log.warning("spool_full error=%s: no input is read until it has room", exc)
                if self._stop.is_set():
                    raise
                await asyncio.sleep(FULL_RETRY_S)
                continue
            if self._full:
                self._full = False
                log.warning("spool_has_room")
            return result

    async def _take_input(self) -> None:
        while (block := await self._next_block()) is not None:
            if block.lines:
                await self._spool_block(block)
            # What comes within this time goes out in one message.
            await self._stopped_within(self._options.linger_s)
        if self._stop.is_set():
            if left := self._source.leave():
                await self._spool_block(LineBlock(left))
            return
        self._input_ended = True
        log.info("input_ended lines=%d", self.totals.lines)
        self._wake.set()
        await self._check_drained()

    async def _next_block(self) -> LineBlock | None:
        """Return the next block; None at the end of the input or at `stop`."""
        reading = asyncio.create_task(self._source.read())
        stopping = asyncio.create_task(self._stop.wait())
        try:
            await asyncio.wait({reading, stopping}, return_when=asyncio.FIRST_COMPLETED)
            return reading.result() if reading.done() else None
        finally:
            for task in (reading, stopping):
                task.cancel()
            await asyncio.gather(reading, stopping, return_exceptions=True)

    async def _stopped_within(self, time_s: float) -> bool:
        try:
            async with asyncio.timeout(time_s):
                return await self._stop.wait()
        except TimeoutError:
            return False

    async def _spool_block(self, block: LineBlock) -> None:
        items: list[Item] = []
        dead: list[DeadLetter] = []
        status: dict[str, Any] = {}
        for line in block.lines:
            if not line.content.strip():
                continue
            try:
                content = _read(line)
            except LineError as exc:
                log.warning("bad_line line=%d error=%s", line.number, exc)
                dead.append(DeadLetter("bad_line", str(exc), line.content, line=line.number))
                continue
            items += content.items
            status |= content.status or {}
        told = {**await self._on_disk(self._spool.told_status), **status} if status else None
        made = await self._insist(
            self._spool.add, items, dead=dead, status=told, position=block.position
        )
        self.totals.lines += len(block.lines)
        self.totals.bad_lines += len(dead)
        self.totals.items += len(items)
        self.totals.messages += made
        self._acknowledge(block.lines[-1].number)
        self._wake.set()
        if status:
            self._status_changed.set()

    async def _stay_connected(self) -> None:
        attempt = 0
        while True:
            began = time.monotonic()
            error = await self._connection()
            if time.monotonic() - began > STEADY_S:
                attempt = 0
            self._explain(error, first=attempt == 0)
            attempt += 1
            pause_s = min(self._options.reconnect_max_s, 0.2 * 2 ** min(attempt, 16))
            # Full jitter: gateways that lost a broker together do not come back together.
            await asyncio.sleep(random.uniform(0.05, pause_s))  # noqa: S311

    def _explain(self, error: LinkLostError, *, first: bool) -> None:
        """Say once that the broker is away; BrokerError when it refuses who never got in."""
        if error.refused and not self._connected_before:
            raise BrokerError(
                f"the broker at {self._address} refuses {self._options.operator_id}:"
                f"{self._options.station_id}: {error.refused}; check CHARGEWATCH_MQTT_URL"
            ) from error
        if error.taken_over:
            log.warning("client_id_taken: another gateway connects with this station's client id")
        else:
            level = logging.WARNING if first else logging.INFO
            log.log(level, "broker_away address=%s error=%s", self._address, error)

    async def _connection(self) -> LinkLostError:
        """Work on one connection until it breaks; return how."""
        out = _Out()
        try:
            async with self._link.connect() as connection:
                self.totals.connections += 1
                self._connected_before = True
                log.info("broker_connected address=%s", self._address)
                try:
                    await _first_error(
                        self._hear(connection, out),
                        self._send(connection, out),
                        self._tell_status(connection),
                    )
                finally:
                    if self._stop.is_set() or self._drained.is_set():
                        await self._say_goodbye(connection)
        except LinkLostError as exc:
            return exc
        return LinkLostError("the connection was closed")

    async def _hear(self, connection: Connection, out: _Out) -> None:
        """Delete from the spool what receipts tell about, many in one transaction."""
        heard: asyncio.Queue[bytes] = asyncio.Queue()

        async def listen() -> None:
            async for payload in connection.receipts():
                heard.put_nowait(payload)

        async def settle() -> None:
            while True:
                payloads = [await heard.get()]
                while not heard.empty():
                    payloads.append(heard.get_nowait())
                receipts = [receipt for payload in payloads for receipt in _receipts(payload)]
                settled = await self._insist(self._spool.settle, receipts)
                self._count(settled)
                for message_id in settled.ids:
                    out.sent.pop(message_id, None)
                self._wake.set()
                await self._check_drained()

        await _first_error(listen(), settle())

    def _count(self, settled: Settled) -> None:
        totals = self.totals
        totals.receipts += len(settled.ids)
        totals.stored += settled.stored
        totals.duplicate += settled.duplicate
        totals.rejected += settled.rejected
        totals.foreign_receipts += settled.foreign
        if settled.rejected:
            log.warning("rejected items=%d: see --dead-letters", settled.rejected)
        if settled.foreign:
            log.warning(
                "foreign_receipts count=%d: another gateway sends with this station's seq",
                settled.foreign,
            )

    async def _check_drained(self) -> None:
        if self._input_ended and not await self._on_disk(self._spool.backlog):
            self._drained.set()

    async def _send(self, connection: Connection, out: _Out) -> None:
        """Send everything that has no receipt, oldest first, and again what waits too long."""
        try:
            async with asyncio.TaskGroup() as group:
                await self._send_all(connection, out, group)
        except* LinkLostError as failed:
            # All of them tell of the one connection.
            raise LinkLostError(str(failed.exceptions[0])) from failed

    async def _send_all(self, connection: Connection, out: _Out, group: asyncio.TaskGroup) -> None:
        free, after = asyncio.Semaphore(IN_FLIGHT), 0

        async def send(message: Spooled) -> None:
            await free.acquire()
            out.sent.pop(message.id, None)
            out.sent[message.id] = time.monotonic()
            if message.id <= self._highest_sent:
                self.totals.resent += 1
            self._highest_sent = max(self._highest_sent, message.id)
            group.create_task(self._publish(connection, message, free))

        while True:
            self._wake.clear()
            for message_id in out.due(time.monotonic() - self._options.resend_s):
                found = await self._on_disk(self._spool.get, message_id)
                if found is not None:
                    await send(found)
                else:
                    out.sent.pop(message_id, None)
            room = self._options.window - len(out.sent)
            if room > 0:
                for message in await self._on_disk(self._spool.after, after, limit=room):
                    after = message.id
                    await send(message)
            await self._until_woken(out)

    async def _publish(
        self, connection: Connection, message: Spooled, free: asyncio.Semaphore
    ) -> None:
        try:
            await connection.publish(self._topic(message.kind), message.payload)
            self.totals.published += 1
        finally:
            free.release()

    async def _until_woken(self, out: _Out) -> None:
        oldest = next(iter(out.sent.values()), None)
        wait_s = 60.0
        if oldest is not None:
            wait_s = min(wait_s, oldest + self._options.resend_s - time.monotonic())
        try:
            async with asyncio.timeout(max(0.01, wait_s)):
                await self._wake.wait()
        except TimeoutError:
            pass

    async def _tell_status(self, connection: Connection) -> None:
        """Tell the status now and then; at a connection's beginning also what may be lost of it.

        A broker that died has lost the newest ones, and one that came back before the platform
        did has sent the next ones to nobody: without them the platform would see a gap.
        """
        told = 0
        while True:
            if told < REPEATED_STATUSES:
                for payload in await self._on_disk(self._spool.recent_statuses):
                    await connection.publish(self._topic(Kind.STATUS), payload)
            await self._publish_status(connection, online=True)
            told += 1
            self._status_changed.clear()
            try:
                async with asyncio.timeout(self._options.status_s):
                    await self._status_changed.wait()
            except TimeoutError:
                continue

    async def _publish_status(self, connection: Connection, *, online: bool) -> None:
        try:
            payload = await self._on_disk(self._spool.add_status, online=online)
        except SpoolFullError:
            return  # it says so elsewhere, and a status without seq is none
        await connection.publish(self._topic(Kind.STATUS), payload, retain=True)

    async def _say_goodbye(self, connection: Connection) -> None:
        """Tell that the station goes offline: an orderly end discards the last will."""
        try:
            async with asyncio.timeout(5):
                await self._publish_status(connection, online=False)
        except (LinkLostError, TimeoutError) as exc:
            log.info("no_goodbye error=%s", exc)


def _read(line: Line) -> Any:
    if line.too_long:
        raise LineError("longer than 4 MiB; only its beginning is kept")
    return read_line(line.content)


def _receipts(payload: bytes) -> list[dict[str, Any]]:
    """Return the receipts of a payload; what isn't one is said and left."""
    try:
        listed = orjson.loads(payload)["receipts"]
        return [receipt for receipt in listed if isinstance(receipt, dict)]
    except (orjson.JSONDecodeError, KeyError, TypeError) as exc:
        log.warning("bad_receipt error=%s payload=%r", exc, payload[:200])
        return []


async def _first_error(*coroutines: Coroutine[Any, Any, None]) -> None:
    """Run coroutines together; the first that ends with an error ends all, and it is raised."""
    tasks = [asyncio.create_task(coroutine) for coroutine in coroutines]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
        for task in done:
            task.result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
