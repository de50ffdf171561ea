"""One batch, one transaction: readings, sessions, ledger, quarantine, latest values."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Sequence
from typing import Any, Protocol

from chargewatch import __version__
from chargewatch.domain.identity import StreamKey
from chargewatch.errors import DatabaseError
from chargewatch.ingest.batch import (
    Batch,
    assemble,
    refuse_foreign_stations,
    unknown_instruments,
)
from chargewatch.ingest.contents.assembly import SessionKeys, TimeLimits, Writing
from chargewatch.ingest.identities import INSTRUMENT_TABLES, Identities
from chargewatch.ingest.isolation import Isolation, sound_messages
from chargewatch.ingest.message import Fate, Message
from chargewatch.ingest.rejected import ledger_entries, quarantine_rows, replay_rows
from chargewatch.storage.intake import faults
from chargewatch.storage.intake.broker_sessions import Slot, open_session
from chargewatch.storage.intake.connection import hold_name, open_ingest_connection
from chargewatch.storage.intake.identities import (
    claim_instruments,
    claims_stand,
    load_identities,
    registry_mark,
)
from chargewatch.storage.intake.ledger import (
    lock_streams,
    notify_readings,
    record_messages,
)
from chargewatch.storage.intake.quarantine import record_replays, store_quarantine
from chargewatch.storage.intake.readings import NewestReadings, load_newest

log = logging.getLogger("chargewatch.ingest")

REGISTRY_CHECK_S = 30.0


class SessionInUseError(DatabaseError):
    """Another ingest service has the same client id: the broker would serve only one of them."""


class ClaimMergedError(DatabaseError):
    """A claim was merged into a registered instrument; read the registry and write again."""


class Hook(Protocol):
    """Called at named points of a batch; tests stop the process there."""

    def __call__(self, point: str) -> Awaitable[None]:
        """Return when ingest may go on."""
        ...


async def _no_hook(point: str) -> None:
    del point


class BatchWriter:
    """Writes batches through one connection of its own; use as an async context manager."""

    def __init__(
        self,
        dsn: str,
        *,
        limits: TimeLimits,
        quarantine_a_day: int,
        only_one: str = "",
        hook: Hook = _no_hook,
    ) -> None:
        """Remember where to write; of writers with the same `only_one` one at a time may.

        Of a station so many rejected messages are kept a day.
        """
        self._quarantine_a_day = quarantine_a_day
        self._only_one = only_one
        self._dsn = dsn
        self._limits = limits
        self._hook = hook
        self._connection: Any = None
        self.server_pids: set[int] = set()
        """Server processes of the connections so far, whether the server knows that they ended."""
        self._identities: Identities | None = None
        self._registry_mark: tuple[int, ...] = ()
        self._registry_checked = 0.0
        self._registry_changed = False
        self._newest = NewestReadings()
        self._streams: dict[StreamKey, int] = {}
        self._session_keys = SessionKeys()
        self._isolation = Isolation(self._write_once, self._probe)
        self.commit_s = 0.0

    async def __aenter__(self) -> BatchWriter:
        """Return the writer; the first batch connects."""
        return self

    async def __aexit__(self, *_: object) -> None:
        """Close the connection."""
        await self.disconnect()

    async def disconnect(self) -> None:
        """Close the connection without waiting for a server that is gone."""
        connection, self._connection = self._connection, None
        if connection is not None and not connection.is_closed():
            try:
                await connection.close(timeout=2)
            except (OSError, TimeoutError):
                connection.terminate()

    async def connect(self) -> None:
        """Connect if there is no connection, and read what must be known before writing."""
        if self._connection is not None and not self._connection.is_closed():
            return
        self._connection = await open_ingest_connection(
            self._dsn, on_registry_change=self._on_registry_change
        )
        try:
            await self._begin()
        except BaseException:
            # Half begun it would count as a connection: without its name, with stale caches.
            await self.disconnect()
            raise

    async def _begin(self) -> None:
        self.server_pids.add(self._connection.get_server_pid())
        if self._only_one and not await hold_name(self._connection, self._only_one):
            raise SessionInUseError(
                f"another ingest service with the client id {self._only_one!r} writes to this "
                "database; end it, or give each its --shard"
            )
        # Whatever was committed without this process knowing is found again here.
        self._streams.clear()
        self._newest = await load_newest(self._connection)
        await self._load_identities()

    async def open_session(self, slot: Slot) -> str:
        """Return the client id of the session that goes with the name that is held."""
        return await open_session(self._connection, slot)

    def _on_registry_change(self) -> None:
        self._registry_changed = True

    async def _load_identities(self) -> None:
        self._registry_changed = False
        self._registry_mark = await registry_mark(self._connection)
        self._registry_checked = time.monotonic()
        rows = await load_identities(self._connection)
        self._identities = await asyncio.to_thread(Identities, rows)

    async def _current_identities(self) -> Identities:
        overdue = time.monotonic() - self._registry_checked > REGISTRY_CHECK_S
        if overdue and not self._registry_changed:
            self._registry_checked = time.monotonic()
            self._registry_changed = await registry_mark(self._connection) != self._registry_mark
        if self._identities is None or self._registry_changed:
            await self._load_identities()
        if self._identities is None:
            raise TypeError("identities are loaded above")
        return self._identities

    async def write(self, messages: Sequence[Message]) -> list[Fate]:
        """Commit messages and return their fates; put aside the one that spoils the others.

        Raises: errors that pass by themselves. Repeat it then with the same messages: what was
        committed of them is not written again.
        """
        # What goes wrong before anything is written is nobody's message.
        await self.connect()
        await self._current_identities()
        return await self._isolation.write(messages)

    async def _probe(self, suspect: Message) -> None:
        """Write a sound message of each kind and undo it; raise what stands in the way.

        The suspect's stream is locked first: where another transaction holds it for long, the
        suspect is not to blame.
        """
        await self._undone(sound_messages(now_us=time.time_ns() // 1000), [suspect])

    async def try_out(self, messages: Sequence[Message]) -> list[Fate]:
        """Return the fates that messages would have now; nothing is committed.

        Raises: whatever stands in the way.
        """
        return await self._undone(messages, [])

    async def _undone(self, messages: Sequence[Message], suspects: Sequence[Message]) -> list[Fate]:
        await self.connect()
        # What is claimed here is undone too, and must not stay known.
        identities = Identities(await load_identities(self._connection))
        undone = self._connection.transaction()
        await undone.start()
        try:
            for suspect in suspects:
                if suspect.topic is not None:
                    key = (*suspect.owner, suspect.topic.kind)
                    await lock_streams(self._connection, [key], known={})
            refuse_foreign_stations(messages, identities)
            await self._claim(messages, identities)
            batch = assemble(messages, identities, limits=self._limits, session_keys=SessionKeys())
            await self._write_batch(batch, identities, staged_only=True)
            return batch.fates
        finally:
            await undone.rollback()

    async def _write_once(self, messages: Sequence[Message]) -> list[Fate]:
        await self.connect()
        identities = await self._current_identities()
        refuse_foreign_stations(messages, identities)
        await self._claim(messages, identities)
        try:
            return await self._transaction(messages, identities, staged_only=False)
        except ClaimMergedError:
            self._registry_changed = True
            return await self._write_once(messages)
        except Exception as exc:
            if not faults.is_key_collision(exc):
                raise
        return await self._transaction(messages, identities, staged_only=True)

    async def _claim(self, messages: Sequence[Message], identities: Identities) -> None:
        for key, claims in unknown_instruments(messages, identities).items():
            if claims:
                table = INSTRUMENT_TABLES[key]
                rows = await claim_instruments(self._connection, table, sorted(claims))
                identities.of(key).add_claims(rows)
                log.info("instruments_claimed table=%s count=%d", table, len(rows))

    async def _transaction(
        self, messages: Sequence[Message], identities: Identities, *, staged_only: bool
    ) -> list[Fate]:
        started = time.monotonic()
        batch = await asyncio.to_thread(
            assemble,
            messages,
            identities,
            limits=self._limits,
            session_keys=self._session_keys,
        )
        async with self._connection.transaction():
            streams = await self._write_batch(batch, identities, staged_only=staged_only)
            await self._hook("before_commit")
        self._remember(batch, streams, distrust=staged_only)
        self.commit_s = time.monotonic() - started
        return batch.fates

    async def _write_batch(
        self, batch: Batch, identities: Identities, *, staged_only: bool
    ) -> dict[StreamKey, int]:
        connection = self._connection
        keys = [(*m.owner, m.topic.kind) for m in batch.messages if m.topic is not None]
        streams = await lock_streams(connection, keys, known=self._streams)
        await self._require_claims(batch)
        writing = Writing(
            connection,
            batch.messages,
            batch.fates,
            self._limits,
            self._newest,
            batch.session_names,
            staged_only,
        )
        for rows in batch.rows:
            await rows.write(writing)
        await store_quarantine(
            connection, quarantine_rows(batch, identities), rows_a_day=self._quarantine_a_day
        )
        await record_replays(connection, replay_rows(batch), version=__version__)
        await record_messages(connection, ledger_entries(batch), ids=streams)
        await notify_readings(connection)
        return streams

    async def _require_claims(self, batch: Batch) -> None:
        """Raise ClaimMergedError when a claim of the batch is no more; keep the others."""
        if self._identities is None:
            return
        connectors = sorted(batch.ids("connector") & self._identities.connectors.claims)
        meters = sorted(batch.ids("meter") & self._identities.meters.claims)
        if (connectors or meters) and not await claims_stand(
            self._connection, connectors=connectors, meters=meters
        ):
            raise ClaimMergedError("an import has merged a claim since the registry was read")

    def _remember(self, batch: Batch, streams: dict[StreamKey, int], *, distrust: bool) -> None:
        """Take into the caches what the commit made true."""
        self._streams.update(streams)
        self._session_keys.add_stored(list(batch.session_names))
        for rows in batch.rows:
            rows.remember(self._newest, distrust=distrust)
