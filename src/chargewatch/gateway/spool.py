"""The spool: messages on disk from before their input is let go until their receipt has come.

SQLite in WAL mode with synchronous=FULL: what was committed survives a kill and a power cut. A
message gets its seq in the transaction that writes its bytes, so a seq never has two contents.
"""

from __future__ import annotations

import contextlib
import fcntl
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import IO, Any

import orjson

from chargewatch.errors import ChargewatchError
from chargewatch.gateway.intake import Position
from chargewatch.gateway.lines import MAX_ITEM_BYTES, Item
from chargewatch.wire.envelope import MAX_ITEMS
from chargewatch.wire.kinds import Kind, items_of

DEAD_LETTERS_SHARE = 10
"""Dead letters take at most a tenth of the spool; the oldest go first."""

KEPT_STATUSES = 10
PAGE_BYTES = 4096
PAGES_TO_SETTLE = 1024
"""More pages than the dead letters of one message take until the oldest are gone."""

SCHEMA = """
CREATE TABLE IF NOT EXISTS meta (name TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS counter (kind TEXT PRIMARY KEY, seq INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS message (
  id INTEGER PRIMARY KEY AUTOINCREMENT, kind TEXT NOT NULL, seq INTEGER NOT NULL,
  items INTEGER NOT NULL, payload BLOB NOT NULL, UNIQUE (kind, seq));
CREATE TABLE IF NOT EXISTS status (seq INTEGER PRIMARY KEY, payload BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS position (
  source TEXT PRIMARY KEY, fingerprint BLOB NOT NULL, offset INTEGER NOT NULL,
  line INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS dead_letter (
  id INTEGER PRIMARY KEY AUTOINCREMENT, at TEXT NOT NULL, line INTEGER, kind TEXT, seq INTEGER,
  item INTEGER, code TEXT NOT NULL, detail TEXT NOT NULL, content BLOB NOT NULL);
"""


class SpoolError(ChargewatchError):
    """The spool can't be opened or belongs to somebody else."""


class SpoolFullError(ChargewatchError):
    """The spool can't take more now: the disk or the spool's own limit is full, or the disk fails.

    Nothing of what was asked has been done.
    """


@dataclass(frozen=True, slots=True)
class Spooled:
    """A message as it is sent, every time with the same bytes."""

    id: int
    kind: str
    seq: int
    payload: bytes


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """What will not be sent (again), and why."""

    code: str
    detail: str
    content: bytes
    line: int | None = None
    kind: str | None = None
    seq: int | None = None
    item: int | None = None


@dataclass(slots=True)
class Settled:
    """What receipts did: the messages that are gone, and what became of their items."""

    ids: list[int]
    stored: int = 0
    duplicate: int = 0
    rejected: int = 0
    foreign: int = 0
    """Receipts whose counts don't fit the message: of another gateway with the same client id."""


class Spool:
    """The spool of one station, in one file; use it from one thread at a time."""

    def __init__(
        self,
        path: Path,
        *,
        operator_id: str,
        station_id: str,
        max_bytes: int,
        batch_items: int,
        clock: Callable[[], datetime],
    ) -> None:
        self._path, self._clock, self._batch_items = path, clock, min(batch_items, MAX_ITEMS)
        self._max_dead_bytes = max_bytes // DEAD_LETTERS_SHARE
        self._max_pages = max(64, max_bytes // PAGE_BYTES)
        self._lock = _take_lock(path)
        # Transactions are begun here, one by one.
        self._connection = sqlite3.connect(
            path, isolation_level=None, check_same_thread=False, timeout=10
        )
        try:
            self._prepare(f"{operator_id}:{station_id}")
        except sqlite3.Error as exc:
            self.close()
            raise SpoolError(
                f"can't use the spool {path}: {exc}; give another file with --spool, or free the "
                "disk"
            ) from exc
        except SpoolError:
            self.close()
            raise

    def _prepare(self, owner: str) -> None:
        run = self._connection.execute
        run(f"PRAGMA page_size = {PAGE_BYTES}")
        run("PRAGMA journal_mode = WAL")
        run("PRAGMA synchronous = FULL")
        self._limit_pages(self._max_pages)
        self._connection.executescript(SCHEMA)
        run("INSERT OR IGNORE INTO meta VALUES ('owner', ?)", (owner,))
        (found,) = run("SELECT value FROM meta WHERE name = 'owner'").fetchone()
        if found != owner:
            raise SpoolError(f"the spool {self._path} is of {found}, not of {owner}: give another")

    def _limit_pages(self, pages: int) -> None:
        self._connection.execute(f"PRAGMA max_page_count = {pages}")

    def close(self) -> None:
        """Close the file and let another process have it."""
        self._connection.close()
        self._lock.close()

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[Callable[..., sqlite3.Cursor]]:
        """Yield what executes; commit, or undo everything. SpoolFullError when the disk says no."""
        try:
            self._connection.execute("BEGIN IMMEDIATE")
            yield self._connection.execute
            self._connection.execute("COMMIT")
        except sqlite3.OperationalError as exc:
            self._undo()
            raise SpoolFullError(f"the spool {self._path} takes no more: {exc}") from exc
        except BaseException:
            self._undo()
            raise

    def _undo(self) -> None:
        if self._connection.in_transaction:
            with contextlib.suppress(sqlite3.OperationalError):
                self._connection.execute("ROLLBACK")

    def add(
        self,
        items: Sequence[Item],
        *,
        dead: Sequence[DeadLetter] = (),
        status: Mapping[str, Any] | None = None,
        position: Position | None = None,
    ) -> int:
        """Write items as messages, together with the place in the input behind them.

        Returns: how many messages were made.
        Raises: SpoolFullError; then nothing was written.
        """
        made = 0
        with self._transaction() as run:
            for kind, bodies in _messages(items, self._batch_items):
                seq = self._next_seq(run, kind)
                run(
                    "INSERT INTO message (kind, seq, items, payload) VALUES (?, ?, ?, ?)",
                    (kind, seq, len(bodies), self._payload(kind, seq, bodies)),
                )
                made += 1
            self._bury(run, dead)
            if status is not None:
                run("REPLACE INTO meta VALUES ('status', ?)", (orjson.dumps(status).decode(),))
            if position is not None:
                run(
                    "REPLACE INTO position VALUES (?, ?, ?, ?)",
                    (position.source, position.fingerprint, position.offset, position.line),
                )
        return made

    def _payload(self, kind: Kind, seq: int, bodies: Sequence[bytes]) -> bytes:
        head = f'{{"seq":{seq},"sent_at":"{self.now()}","{kind.facts.list_key}":['
        return head.encode() + b",".join(bodies) + b"]}"

    def now(self) -> str:
        """Return the clock's time as the contract writes it."""
        return self._clock().isoformat(timespec="milliseconds")

    @staticmethod
    def _next_seq(run: Callable[..., sqlite3.Cursor], kind: str) -> int:
        row = run(
            "INSERT INTO counter VALUES (?, 1) "
            "ON CONFLICT (kind) DO UPDATE SET seq = seq + 1 RETURNING seq",
            (kind,),
        ).fetchone()
        return int(row[0])

    def add_status(self, *, online: bool) -> bytes:
        """Return the next status; it and a few before it are kept, since none gets a receipt."""
        with self._transaction() as run:
            seq = self._next_seq(run, Kind.STATUS)
            status = {
                **self.told_status(),
                "seq": seq,
                "sent_at": self.now(),
                "online": online,
                "backlog": self.backlog(),
            }
            payload = orjson.dumps(status)
            run("INSERT INTO status VALUES (?, ?)", (seq, payload))
            run("DELETE FROM status WHERE seq <= ?", (seq - KEPT_STATUSES,))
        return payload

    def recent_statuses(self) -> list[bytes]:
        """Return the newest statuses, oldest first."""
        rows = self._connection.execute("SELECT payload FROM status ORDER BY seq")
        return [bytes(row[0]) for row in rows]

    def told_status(self) -> dict[str, Any]:
        """Return what the input said about the station's status last."""
        row = self._connection.execute("SELECT value FROM meta WHERE name = 'status'").fetchone()
        return dict(orjson.loads(row[0])) if row else {}

    def position(self, source: str) -> Position | None:
        """Return how far a file was taken, None when it never was."""
        row = self._connection.execute(
            "SELECT source, fingerprint, offset, line FROM position WHERE source = ?", (source,)
        ).fetchone()
        return Position(*row) if row else None

    def after(self, message_id: int, *, limit: int, max_bytes: int = 4 << 20) -> list[Spooled]:
        """Return the messages behind one, oldest first, as many as fit (at least one)."""
        found: list[Spooled] = []
        size = 0
        for row in self._connection.execute(
            "SELECT id, kind, seq, payload FROM message WHERE id > ? ORDER BY id LIMIT ?",
            (message_id, limit),
        ):
            size += len(row[3])
            if found and size > max_bytes:
                break
            found.append(Spooled(*row))
        return found

    def get(self, message_id: int) -> Spooled | None:
        """Return a message, None when its receipt has come."""
        found = self.after(message_id - 1, limit=1)
        return found[0] if found and found[0].id == message_id else None

    def backlog(self) -> int:
        """Return how many messages have no receipt."""
        return int(self._connection.execute("SELECT count(*) FROM message").fetchone()[0])

    def settle(self, receipts: Iterable[Mapping[str, Any]]) -> Settled:
        """Delete what receipts tell about; keep what was rejected as dead letters.

        Raises: SpoolFullError; then nothing was deleted.
        """
        settled = Settled([])
        # Dead letters need room before their messages leave theirs: a full spool would stay full.
        self._limit_pages(2 * self._max_pages + PAGES_TO_SETTLE)
        try:
            with self._transaction() as run:
                for receipt in receipts:
                    self._settle(run, receipt, settled)
        finally:
            self._limit_pages(self._max_pages)
        return settled

    def _settle(
        self, run: Callable[..., sqlite3.Cursor], receipt: Mapping[str, Any], settled: Settled
    ) -> None:
        kind, seq = receipt.get("topic"), receipt.get("seq")
        counts = [receipt.get(name) for name in ("stored", "duplicate", "rejected")]
        if not isinstance(kind, str) or type(seq) is not int:
            return
        row = run(
            "SELECT id, items, payload FROM message WHERE kind = ? AND seq = ?", (kind, seq)
        ).fetchone()
        if row is None:
            return
        message_id, items, payload = row
        stored, duplicate, rejected = (n if type(n) is int else 0 for n in counts)
        listed = receipt.get("errors")
        errors = [e for e in listed if isinstance(e, dict)] if isinstance(listed, list) else []
        # A message that is refused whole may be counted as one; then no item of it is named.
        whole = rejected == 1 and not stored + duplicate
        whole &= all(error.get("index") is None for error in errors)
        if stored + duplicate + rejected != items and not whole:
            settled.foreign += 1
            return
        if rejected:
            self._bury(run, _rejected(kind, seq, payload, errors, rejected))
        run("DELETE FROM message WHERE id = ?", (message_id,))
        settled.ids.append(message_id)
        settled.stored += stored
        settled.duplicate += duplicate
        settled.rejected += rejected

    def _bury(self, run: Callable[..., sqlite3.Cursor], letters: Sequence[DeadLetter]) -> None:
        if not letters:
            return
        at = self.now()
        for x in letters:
            run(
                "INSERT INTO dead_letter (at, line, kind, seq, item, code, detail, content) "
                "VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                (at, x.line, x.kind, x.seq, x.item, x.code, x.detail, x.content),
            )
        run(
            "DELETE FROM dead_letter WHERE id IN (SELECT id FROM (SELECT id, "
            "sum(length(content)) OVER (ORDER BY id DESC) AS size FROM dead_letter) "
            "WHERE size > ?)",
            (self._max_dead_bytes,),
        )

    def dead_letters(self) -> Iterator[dict[str, Any]]:
        """Yield the dead letters, oldest first."""
        names = ("at", "line", "kind", "seq", "item", "code", "detail", "content")
        for row in self._connection.execute(
            f"SELECT {', '.join(names)} FROM dead_letter ORDER BY id"  # noqa: S608 - fixed names
        ):
            letter = dict(zip(names, row, strict=True))
            letter["content"] = bytes(letter["content"]).decode("utf-8", "backslashreplace")
            yield letter


def look_into_spool(path: Path, source: str) -> tuple[int, int]:
    """Return how many messages wait, and how far a file was taken, while a gateway may run."""
    with contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as connection:
        (backlog,) = connection.execute("SELECT count(*) FROM message").fetchone()
        row = connection.execute(
            "SELECT offset FROM position WHERE source = ?", (source,)
        ).fetchone()
    return int(backlog), int(row[0]) if row else 0


def copy_spool(path: Path, target: Path) -> None:
    """Copy a spool as it stands, while a gateway may run."""
    with (
        contextlib.closing(sqlite3.connect(path)) as source,
        contextlib.closing(sqlite3.connect(target)) as copy,
    ):
        source.backup(copy)


def _take_lock(path: Path) -> IO[bytes]:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.with_name(path.name + ".lock").open("ab")
    except OSError as exc:
        raise SpoolError(f"can't write beside the spool {path}: {exc.strerror or exc}") from exc
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as exc:
        file.close()
        raise SpoolError(f"the spool {path} is in use by another gateway: end that one") from exc
    return file


def _messages(items: Sequence[Item], batch_items: int) -> Iterator[tuple[Kind, list[bytes]]]:
    """Yield the items of each topic in messages within the contract's limits."""
    by_kind: dict[Kind, list[bytes]] = {}
    for item in items:
        by_kind.setdefault(item.kind, []).append(item.body)
    for kind, bodies in by_kind.items():
        batch: list[bytes] = []
        size = 0
        for body in bodies:
            if batch and (size + len(body) + 1 > MAX_ITEM_BYTES or len(batch) >= batch_items):
                yield kind, batch
                batch, size = [], 0
            batch.append(body)
            size += len(body) + 1
        yield kind, batch


def _rejected(
    kind: str, seq: int, payload: bytes, errors: Sequence[Mapping[str, Any]], rejected: int
) -> list[DeadLetter]:
    """Return a dead letter for each error; the whole message too when items are not named."""
    listed: Any = items_of(orjson.loads(payload)) or []
    letters = []
    for error in errors:
        index = error.get("index")
        inside = type(index) is int and 0 <= index < len(listed)
        letters.append(
            DeadLetter(
                code=str(error.get("code")),
                detail=str(error.get("detail")),
                content=orjson.dumps(listed[index]) if inside else payload,
                kind=kind,
                seq=seq,
                item=index if inside else None,
            )
        )
    if len(errors) < rejected and all(letter.item is not None for letter in letters):
        detail = f"the receipt names {len(errors)} of {rejected} rejected items"
        letters.append(DeadLetter("rejected", detail, payload, kind=kind, seq=seq))
    return letters
