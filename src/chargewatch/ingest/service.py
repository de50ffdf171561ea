"""The ingest service: source, batches, commits, acknowledgements."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass

from chargewatch.errors import BrokerError, DatabaseError
from chargewatch.ingest.broker import end_session, shown_id
from chargewatch.ingest.broker_figures import watch_broker_queue
from chargewatch.ingest.contents.assembly import TimeLimits
from chargewatch.ingest.health import IngestHealth, Look
from chargewatch.ingest.inbox import BATCH_BYTES, Inbox
from chargewatch.ingest.message import Arrival, Fate, Message, read_some
from chargewatch.ingest.metrics import IngestMetrics
from chargewatch.ingest.receipts import receipt_messages
from chargewatch.ingest.shards import Shard
from chargewatch.ingest.source import MqttSource, SourceOptions
from chargewatch.ingest.writer import BatchWriter, Hook, SessionInUseError
from chargewatch.mqtt.address import broker_address
from chargewatch.settings import Settings
from chargewatch.storage.intake import faults
from chargewatch.storage.intake.broker_sessions import (
    LeftSession,
    forget_session,
    left_sessions,
    name_holder,
    note_subscribed,
    renew_session,
)
from chargewatch.wire.topics import filters

log = logging.getLogger("chargewatch.ingest")

DRAIN_S = 15.0
PREDECESSOR_S = 10.0
LEFT_SESSIONS_S = 60.0
RENEW_S = 3600.0
LEFT_IDLE_S = 2.0


@dataclass
class IngestTotals:
    """What a run of the service did."""

    messages: int = 0
    stored: int = 0
    duplicate: int = 0
    rejected: int = 0
    commits: int = 0

    def add(self, messages: Sequence[Message], fates: Sequence[Fate]) -> None:
        """Count a committed batch."""
        self.commits += 1
        self.messages += len(messages)
        self.stored += sum(fate.stored for fate in fates)
        self.duplicate += sum(fate.duplicate for fate in fates)
        self.rejected += sum(fate.rejected for fate in fates)


def back_off_s(attempt: int) -> float:
    """Return how long to wait before an attempt is repeated, s."""
    return random.uniform(0.05, min(5.0, 0.1 * 2 ** min(attempt, 10)))  # noqa: S311


_Work = tuple[list[Arrival], list[Message]]
"""A batch as it arrived, and those of its messages that this worker takes."""


async def _no_hook(point: str) -> None:
    del point


class IngestService:
    """Runs until stopped; nothing is acknowledged before it is committed."""

    def __init__(
        self,
        settings: Settings,
        *,
        shard: Shard = Shard(),  # noqa: B008 - frozen
        leaving: LeftSession | None = None,
        hook: Hook = _no_hook,
    ) -> None:
        """Take a shard's messages; with `leaving`, what that session still holds."""
        self._shard = shard
        self._leaving = leaving
        self._emptying = False
        self._sessions_minded = leaving is not None
        self._mind_now = asyncio.Event()
        self._renewed = -math.inf
        self.settings = settings
        self.metrics = IngestMetrics()
        self.totals = IngestTotals()
        self._hook = hook
        self._inbox = Inbox(
            batch_readings=settings.batch_readings,
            batch_messages=max(1, settings.receive_maximum // 2),
        )
        self._ready: asyncio.Queue[_Work] = asyncio.Queue(maxsize=1)
        self._in_work = 0
        self._finished = 0
        self._slot = shard.slot(settings.mqtt_client_id)
        self._address = broker_address(settings)
        self._source = MqttSource(
            self._address,
            SourceOptions(
                client_id=leaving.client_id if leaving else "",  # else known when the name is held
                filters=filters(),
                receive_maximum=settings.receive_maximum,
                session_expiry_s=settings.mqtt_session_expiry_s,
                owns=shard.owns,
                leaving=leaving is not None,
            ),
            deliver=self._inbox.put,
            drop=self._inbox.clear,
            count_receipts=self.metrics.count_receipts,
            contested=None if leaving else self._contested,
        )
        self._dsn = "postgresql://" + settings.require_database_url().partition("://")[2]
        self._writer = BatchWriter(
            self._dsn,
            limits=TimeLimits(settings.max_future_s, settings.max_age_days),
            quarantine_a_day=settings.quarantine_rows_a_day,
            only_one=leaving.hold if leaving else self._slot.name,
            hook=hook,
        )
        self._database_away = ""
        self._not_written = ""
        self.health = IngestHealth(
            self._look, limit_s=settings.stalled_s, tell=self.metrics.stalled.set
        )
        self._stop = asyncio.Event()

    def stop(self) -> None:
        """Ask the service to commit what it has and end."""
        self._stop.set()

    async def run(self, *, until_idle_s: float | None = None) -> IngestTotals:
        """Serve until `stop`, or until no message came for `until_idle_s`.

        Raises: BrokerError when the broker refuses the service.
        """
        async with self._writer:
            await self._open_writer()
            work = [
                asyncio.create_task(self._source.run(), name="source"),
                asyncio.create_task(self._read(), name="read"),
                asyncio.create_task(self._store(), name="store"),
            ]
            if not self._leaving:
                work.append(asyncio.create_task(self._mind_sessions(), name="sessions"))
            side = [
                asyncio.create_task(self._watch_figures(), name="figures"),
                asyncio.create_task(self.health.watch(), name="health"),
            ]
            ends = [asyncio.create_task(self._stopped(), name="stop")]
            if until_idle_s is not None:
                ends.append(asyncio.create_task(self._idle(until_idle_s), name="idle"))
            try:
                done, _ = await asyncio.wait({*work, *ends}, return_when=asyncio.FIRST_COMPLETED)
                for task in done & set(work):
                    task.result()
                await self._drain(work)
            finally:
                for task in (*ends, *side, *work):
                    task.cancel()
                await asyncio.gather(*ends, *side, *work, return_exceptions=True)
        return self.totals

    async def _watch_figures(self) -> None:
        try:
            await watch_broker_queue(self._address, self._source, self.metrics.broker_queue.set)
        except Exception:
            # Nothing about a luxury may end the service.
            log.exception("broker_figures_failed")

    async def _open_writer(self) -> None:
        """Connect to the database before the broker; wait a little for a predecessor to leave."""
        deadline = time.monotonic() + PREDECESSOR_S
        while True:
            try:
                await self._writer.connect()
                if not self._leaving:
                    self._source.client_id = await self._writer.open_session(self._slot)
                return
            except SessionInUseError:
                if time.monotonic() > deadline:
                    raise
            except Exception as exc:
                if faults.is_data_fault(exc) or time.monotonic() > deadline:
                    raise
                self._note_away(exc)
                await self._writer.disconnect()
            await asyncio.sleep(0.3)

    async def _drain(self, work: Sequence[asyncio.Task[None]]) -> None:
        """Commit what has arrived; what arrives meanwhile stays with the broker."""
        deadline = time.monotonic() + DRAIN_S
        while (self._in_work or len(self._inbox)) and time.monotonic() < deadline:
            if self._nothing_written or any(task.done() for task in work):
                break
            await asyncio.sleep(0.02)
        while self._source.unsent and time.monotonic() < deadline:  # noqa: ASYNC110
            await asyncio.sleep(0.02)

    async def _mind_sessions(self) -> None:
        """Tell the other workers that this one is subscribed; as the first, end what is left."""
        pause_s = 1.0
        while True:
            await self._source.subscribed.wait()
            try:
                left_any = await self._mind_sessions_once()
                pause_s = min(15.0, 2 * pause_s) if left_any else LEFT_SESSIONS_S
            except Exception as exc:
                # Tried again: a worker of the old number may still run, or an engine be away.
                if not isinstance(exc, BrokerError | DatabaseError) and faults.is_data_fault(exc):
                    raise
                log.warning("session_left error=%s", faults.in_words(exc))
                pause_s = LEFT_SESSIONS_S
            finally:
                self._emptying = False
            self._sessions_minded = True
            self._mind_now.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause_s):
                    await self._mind_now.wait()

    async def _mind_sessions_once(self) -> bool:
        """Return whether a session is left that has to wait for the other workers."""
        await note_subscribed(self._dsn, self._source.client_id)
        if self._shard.index != 0:
            return False
        fresh_s = self.settings.mqtt_session_expiry_s / 2
        left = await left_sessions(self._dsn, self._slot, fresh_s=fresh_s)
        if not left.all_subscribed:
            return bool(left.sessions)
        for session in left.sessions:
            self._emptying = True
            await self._empty(session)
        return False

    async def _empty(self, session: LeftSession) -> None:
        shown = shown_id(session.client_id)
        log.info("session_left client_id=%s: taking what it holds", shown)
        messages, more = 0, True
        while more:
            # Until a connection brings nothing: a broker that pauses is not an empty one.
            service = IngestService(self.settings, leaving=session)
            more = (await service.run(until_idle_s=LEFT_IDLE_S)).messages > 0
            messages += service.totals.messages
        await end_session(self._address, session.client_id)
        await forget_session(self._dsn, session.client_id)
        log.info("session_emptied client_id=%s messages=%d", shown, messages)

    async def _contested(self, client_id: str) -> str:
        """Return the client id to go on with when somebody else seems to use it.

        Raises: SessionInUseError when it is another ingest of this database.
        """
        try:
            holder = await name_holder(self._dsn, self._slot.name)
            if holder is not None and holder not in self._writer.server_pids:
                raise SessionInUseError(
                    f"another ingest service with the client id {self._slot.name!r} took over; "
                    "end one of them, or give each its --shard"
                )
            if time.monotonic() - self._renewed < RENEW_S:
                return client_id
            self._renewed = time.monotonic()
            renewed = await renew_session(self._dsn, self._slot)
        except SessionInUseError:
            raise
        except Exception as exc:
            if faults.is_data_fault(exc):
                raise
            log.warning("session_not_renewed error=%s", faults.in_words(exc))
            return client_id
        log.warning(
            "session_renewed client_id=%s: goes on as %s; who else knows the old one? Keep client "
            "ids out of what operators can read",
            shown_id(client_id),
            shown_id(renewed),
        )
        self._mind_now.set()
        return renewed

    async def _stopped(self) -> None:
        await self._stop.wait()

    async def _idle(self, idle_s: float) -> None:
        """Return when nothing came and nothing was in work for a while."""
        begun = self._source.subscribed if self._leaving else self._source.connected
        await begun.wait()
        quiet_since = time.monotonic()
        while time.monotonic() - max(quiet_since, self._inbox.last_arrival) < idle_s:
            await asyncio.sleep(min(0.05, idle_s / 4))
            if (
                self._emptying
                or not self._sessions_minded
                or self._in_work
                or len(self._inbox)
                or not self._source.connected.is_set()
            ):
                quiet_since = time.monotonic()

    async def _read(self) -> None:
        linger_s = self.settings.batch_ms / 1000.0
        while True:
            await self._inbox.wait(linger_s)
            arrivals = self._inbox.take()
            while arrivals:
                self._in_work += 1
                count, messages = await self._messages_of(arrivals)
                taken, arrivals = arrivals[:count], arrivals[count:]
                await self._ready.put((taken, messages))

    async def _messages_of(self, arrivals: Sequence[Arrival]) -> tuple[int, list[Message]]:
        """Read as many messages as fill a batch, however long the environment does not let us."""
        most = self.settings.batch_readings
        attempt = 0
        while True:
            try:
                return await asyncio.to_thread(
                    read_some, arrivals, most_items=most, most_bytes=BATCH_BYTES
                )
            except Exception as exc:
                self._note_away(exc)
            attempt += 1
            await asyncio.sleep(back_off_s(attempt))

    async def _store(self) -> None:
        while True:
            arrivals, messages = await self._ready.get()
            if messages:
                await self._commit(arrivals, messages)
            else:
                self._finish(arrivals, ())
            self._in_work -= 1
            self.metrics.unacknowledged.set(self._source.unacknowledged)
            self.metrics.generation.set(self._source.generation)

    def _finish(self, arrivals: Sequence[Arrival], receipts: Sequence[tuple[str, bytes]]) -> None:
        self._source.finish(arrivals, receipts)
        self._finished += 1

    def _look(self) -> Look:
        """Return what health is judged by."""
        return Look(
            connected=self._source.connected.is_set(),
            subscribed=self._source.subscribed.is_set(),
            waiting=max(self._source.unacknowledged, self._in_work),
            finished=self._finished,
            nothing_written=self._nothing_written,
        )

    async def _commit(self, arrivals: Sequence[Arrival], messages: list[Message]) -> None:
        """Write one batch, however long it takes; then receipts, then acknowledgements."""
        attempt = 0
        while True:
            if not any(self._source.is_current(message.arrival) for message in messages):
                return  # the broker sends all of them again
            try:
                fates = await self._writer.write(messages)
                break
            except Exception as exc:
                self._note_away(exc)
                await self._writer.disconnect()
            attempt += 1
            await asyncio.sleep(back_off_s(attempt))
        self._note_back()
        await self._hook("before_acknowledge")
        self._finish(arrivals, self._receipts(messages, fates))
        self.totals.add(messages, fates)
        try:
            self.metrics.count(
                messages, fates, now_us=time.time_ns() // 1000, commit_s=self._writer.commit_s
            )
        except Exception:
            log.exception("not_counted messages=%d", len(messages))

    def _receipts(
        self, messages: Sequence[Message], fates: Sequence[Fate]
    ) -> list[tuple[str, bytes]]:
        """Return the receipts; one that can't be written keeps neither others nor us from going on.

        Its gateway sends the message again, and it is a duplicate then.
        """
        try:
            return receipt_messages(
                messages, fates, which=self.settings.receipts, max_packet=self._source.max_packet
            )
        except Exception:
            log.exception("receipt_failed topic=%s", messages[0].arrival.topic)
        if len(messages) == 1:
            return []
        pairs = zip(messages, fates, strict=True)
        return [receipt for one, fate in pairs for receipt in self._receipts([one], [fate])]

    @property
    def _nothing_written(self) -> str:
        """Why nothing is written at present; empty when it is."""
        return self._database_away or self._not_written

    def _note_away(self, error: Exception) -> None:
        """Tell why everything waits; what is no error of the environment stays what it is."""
        words = faults.in_words(error)
        self.metrics.failed_attempts.inc()
        if not faults.is_mapped(error):
            if words != self._not_written:
                log.error("not_written error=%s; messages wait", words, exc_info=error)
            self._not_written = words
            return
        if not self._database_away:
            step = faults.next_step(error)
            log.warning("database_away error=%s; messages wait with the broker; %s", words, step)
        self._database_away = words
        self.metrics.database_up.set(0)

    def _note_back(self) -> None:
        if self._database_away:
            log.warning("database_back after=%s", self._database_away)
        if self._not_written:
            log.warning("written_again after=%s", self._not_written)
        self._database_away = self._not_written = ""
        self.metrics.database_up.set(1)
