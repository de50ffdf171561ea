"""Rollups and sessions of exported days, for a risk run: from their files instead of the database.

A file is used in two cases only. Either the database has the same stamp for that table and day:
it holds, or held until retention, the very same rows, whose numbers mean the same. Or the database
has no row of that day: only the archive knows it, and instruments are found by their names. In all
other cases the database's rows are taken, and it is said why.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from itertools import groupby
from pathlib import Path
from typing import Any

import asyncpg
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from chargewatch.domain.columns import Form
from chargewatch.domain.session import SESSION_COLUMNS
from chargewatch.errors import InputFileError
from chargewatch.storage import sql
from chargewatch.storage.archive.export import (
    NO_SESSIONS,
    PARQUET_TYPES,
    SESSION_ROWS,
    SOURCES,
    Stamps,
    instrument_names,
    read_stamps,
)
from chargewatch.storage.archive.files import FileHead, damaged, path_of, read_head
from chargewatch.storage.bulk import Records, copy_arrays, copy_chunks
from chargewatch.storage.runs import inputs as store
from chargewatch.storage.runs.rollups import INTERVAL, day_bounds

SESSION_TABLE = "charging_session"
KINDS = {"connector": "connector_interval", "meter": "meter_interval"}
_REGISTRIES = {source.table: source for source in SOURCES}
_MICROSECOND = timedelta(microseconds=1)
_SHOWN = 3

_PERIODS_OF_TEXTS = store.PERIODS_OF.filled(
    source="unnest(CAST(:session_ids AS bigint[]), CAST(:periods AS jsonb[])) "
    "AS s(session_id, periods)"
)
_HAS_ROWS = sql.statement(
    "window: has rows",
    "SELECT EXISTS (SELECT FROM {table} WHERE slot_at >= :begin AND slot_at < :end)",
)

# Files of earlier versions don't have them.
_LATER = {c.name: PARQUET_TYPES[c.kind.form] for c in SESSION_COLUMNS if c.later}

Key = tuple[str, date]
Name = tuple[str, str, str]
"""Name, operator_id and station_id of an instrument."""


@dataclass(frozen=True, kw_only=True)
class Archive:
    """Which days of a window come from which files; see `open_archive`."""

    folder: Path
    same: frozenset[Key]  # the file holds what the database holds
    only: frozenset[Key]  # the database has nothing of it
    ids: Mapping[str, Mapping[Name, int]]  # instruments of the database, by table
    notes: tuple[str, ...]
    unknown: set[Name] = field(default_factory=set)  # instruments of files, not in the registry

    def has(self, table: str, day: date) -> bool:
        """Return whether the rows of a table and day come from a file."""
        return (table, day) in self.same or (table, day) in self.only

    def summary(self) -> dict[str, Any]:
        """Return what came from where, for the run's record."""
        tables = sorted({table for table, _ in self.same | self.only})
        return {
            "days": {t: sum(key[0] == t for key in self.same | self.only) for t in tables},
            "days_only_here": {t: sum(key[0] == t for key in self.only) for t in tables},
            "notes": [*self.notes, *self.remarks()],
        }

    def remarks(self) -> list[str]:
        """Return what reading has shown: instruments that the registry doesn't know."""
        if not self.unknown:
            return []
        names = ["/".join(name) for name in sorted(self.unknown)]
        more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
        return [
            f"the archive has rows of {len(names)} instruments that the registry doesn't know "
            f"({', '.join(names[:_SHOWN])}{more}): left out; "
            "`chargewatch registry import` adds them"
        ]


def _days(first: datetime, last: datetime) -> list[date]:
    """Return the UTC days that [first, last] touches."""
    begin, end = (moment.astimezone(UTC).date() for moment in (first, last))
    return [begin + timedelta(days=n) for n in range((end - begin).days + 1)]


def _spans(days: Iterable[date]) -> str:
    """Return days as text, runs of them as one."""
    runs: list[list[date]] = []
    for day in sorted(days):
        if runs and day - runs[-1][-1] == timedelta(days=1):
            runs[-1].append(day)
        else:
            runs.append([day])
    return ", ".join(str(run[0]) if len(run) == 1 else f"{run[0]} to {run[-1]}" for run in runs)


async def _is_empty(connection: asyncpg.Connection, table: str, day: date) -> bool:
    begin, end = day_bounds(day)
    return not await sql.value(
        connection, _HAS_ROWS.filled(table=table), begin=begin, end=end, timeout_s=3600
    )


async def _reason(
    connection: asyncpg.Connection, key: Key, head: FileHead, stamps: Stamps
) -> tuple[str, bool]:
    """Return why a file isn't simply used ("": it is), and whether only the archive has the day."""
    table, day = key
    sessions = table == SESSION_TABLE
    stamp = stamps.get(key, NO_SESSIONS if sessions else "")
    if not head.stamp:
        return "written by an earlier version, without a stamp: export again", False
    if head.stamp == stamp:
        return "", False
    empty = stamp == NO_SESSIONS if sessions else await _is_empty(connection, table, day)
    if not empty:
        if not stamp:
            return "of another database", False
        return "changed in the database since their export, or of another one: export again", False
    if stamp and not sessions:
        return "changed after their export and deleted since: only the older rows are left", True
    return "not in the database: only the archive has them", True


async def open_archive(
    connection: asyncpg.Connection, folder: Path, *, first: datetime, last: datetime
) -> Archive:
    """Return which rows of the window [first, last] are taken from a folder of exported days.

    `connection` is the snapshot that the run reads: what the files are compared with.
    Raises: InputFileError when the folder is missing or a file is damaged.
    """
    if not await asyncio.to_thread(folder.is_dir):
        raise InputFileError(
            f"{folder} is not a folder of exported days: "
            f"`chargewatch db export --due --out {folder}` makes one"
        )
    days = _days(first, last)
    stamps = await read_stamps(connection, first=days[0], last=days[-1])
    same, only = set(), set()
    said: dict[tuple[str, str], list[date]] = {}
    for table in (*KINDS.values(), SESSION_TABLE):
        for day in days:
            key = table, day
            head = await asyncio.to_thread(read_head, folder, table, day)
            if head is None:
                said.setdefault((table, "not in the archive: from the database"), []).append(day)
                continue
            reason, lonely = await _reason(connection, key, head, stamps)
            if not reason:
                same.add(key)
                continue
            if lonely:
                only.add(key)
            else:
                reason += "; from the database"
            said.setdefault((table, reason), []).append(day)
    return Archive(
        folder=folder,
        same=frozenset(same),
        only=frozenset(only),
        ids=await _instruments(connection) if only else {},
        notes=tuple(
            f"{table} of {_spans(listed)}: {reason}" for (table, reason), listed in said.items()
        ),
    )


async def _instruments(connection: asyncpg.Connection) -> dict[str, dict[Name, int]]:
    found = {}
    for table in KINDS.values():
        source = _REGISTRIES[table]
        names = await instrument_names(connection, source)
        found[table] = {name: number for number, name in names.items()}
    found[SESSION_TABLE] = found[KINDS["connector"]]
    return found


def _known_ids(
    archive: Archive, table: str, ids: np.ndarray[Any, Any], names: Sequence[Any]
) -> np.ndarray[Any, Any]:
    """Return the database's numbers of a file's instruments; -1: not in the registry.

    names: Arrow columns of name, operator_id and station_id beside `ids`.
    """
    unique, place, inverse = np.unique(ids, return_index=True, return_inverse=True)
    texts = [column.take(pa.array(place)).to_pylist() for column in names]
    known = np.full(unique.size, -1, ids.dtype)
    for number, name in enumerate(zip(*texts, strict=True)):
        # Without a name the file's own database no longer knew the instrument either.
        if name[0] is None:
            continue
        known[number] = archive.ids[table].get(name, -1)
        if known[number] < 0:
            archive.unknown.add(name)
    return known[inverse]


def _intervals_of(archive: Archive, key: Key, *, first: datetime, last: datetime) -> list[Records]:
    """Return the rows of slots in [first, last) of a file, dtype INTERVAL."""
    table, day = key
    source = _REGISTRIES[table]
    lonely = key in archive.only
    names = [source.name, "operator_id", "station_id"]
    begin, end = (np.datetime64(at.astimezone(UTC).replace(tzinfo=None)) for at in (first, last))
    found = []
    try:
        with pq.ParquetFile(
            path_of(archive.folder, table, day),
            page_checksum_verification=True,
            read_dictionary=names,
        ) as file:
            columns = [source.identifier, "slot_at", "energy_wh", "u_wh", "quality"]
            columns += names if lonely else []
            for group in range(file.num_row_groups):
                part = file.read_row_group(group, columns=columns)
                records = np.empty(part.num_rows, dtype=INTERVAL)
                for name in INTERVAL.names or ():
                    column = part[source.identifier if name == "instrument" else name]
                    records[name] = column.to_numpy()
                keep = (records["slot_at"] >= begin) & (records["slot_at"] < end)
                if lonely:
                    records["instrument"] = _known_ids(
                        archive, table, records["instrument"], [part[name] for name in names]
                    )
                    keep &= records["instrument"] >= 0
                found.append(records if keep.all() else records[keep])
    except (OSError, KeyError, pa.ArrowException) as exc:
        raise damaged(archive.folder, table, day, str(exc)) from exc
    return found


async def read_intervals(
    connection: asyncpg.Connection,
    archive: Archive | None,
    kind: str,
    *,
    first: datetime,
    last: datetime,
    consume: Callable[[Records], None],
    ids: Sequence[int] | None = None,
) -> None:
    """Hand the rollups of slots that begin in [first, last) to `consume`, in pieces, in no order.

    Where:
        archive: None: all of them come from the database.
        kind: connector or meter.
        ids: what the database is asked for, which is quicker when they are few; None: all. Files
            are read whole.

    Raises: InputFileError that names a damaged file.
    """
    table = KINDS[kind]
    some = {} if ids is None else {"ids": list(ids)}
    days = [] if archive is None else _days(first, last - _MICROSECOND)

    def is_filed(day: date) -> bool:
        return archive is not None and archive.has(table, day)

    if archive is None or not any(map(is_filed, days)):
        await copy_chunks(
            connection,
            store.interval_query(kind, some=ids is not None),
            INTERVAL,
            consume=consume,
            values={"first": first, "last": last, **some},
        )
        return
    for filed, run in groupby(days, key=is_filed):
        listed = list(run)
        if filed:
            for day in listed:
                for chunk in await asyncio.to_thread(
                    _intervals_of, archive, (table, day), first=first, last=last
                ):
                    consume(chunk)
            continue
        await copy_chunks(
            connection,
            store.interval_query(kind, some=ids is not None),
            INTERVAL,
            consume=consume,
            values={
                "first": max(first, day_bounds(listed[0])[0]),
                "last": min(last, day_bounds(listed[-1])[1]),
                **some,
            },
        )


def _session_file(archive: Archive, day: date, columns: Sequence[str]) -> Any:
    path = path_of(archive.folder, SESSION_TABLE, day)
    try:
        absent = set(columns) & _LATER.keys() - set(pq.read_schema(path).names)
        table = pq.read_table(
            path,
            columns=[name for name in columns if name not in absent],
            partitioning=None,
            page_checksum_verification=True,
        )
        for name in sorted(absent):
            table = table.append_column(name, pa.nulls(table.num_rows, _LATER[name]))
        return table
    except (OSError, KeyError, pa.ArrowException) as exc:
        raise damaged(archive.folder, SESSION_TABLE, day, str(exc)) from exc


def _own_ids(table: Any) -> np.ndarray[Any, Any]:
    """Return numbers of sessions that only the archive has: the same in every run, below zero.

    A session's id is unique at its connector: both make the number.
    """
    names = table["connector"].combine_chunks().dictionary_encode()
    hashes = np.array([_name_hash(name) for name in names.dictionary.to_pylist()] + [0], np.int64)
    place = pc.fill_null(names.indices, len(hashes) - 1).to_numpy()
    keys = table["session_key"].to_numpy() ^ hashes[place]
    return np.asarray(-(keys & np.int64(2**62 - 1)) - 1)


def _name_hash(name: str) -> int:
    digest = hashlib.blake2b(name.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big", signed=True)


def _sessions_of(archive: Archive, day: date, *, first: datetime, last: datetime) -> Records:
    """Return the sessions of a file that ended in (first, last], as `store.sessions` does."""
    lonely = (SESSION_TABLE, day) in archive.only
    names = ("connector", "operator_id", "station_id")
    own = ("session_id", "connector_id", "received_at", "signed")
    columns = [
        *(*own, "session_key", "vehicle_key", "stop_reason"),
        *(column.name for column in store.RUN_COLUMNS),
        *(names if lonely else ()),
    ]
    table = _session_file(archive, day, columns)
    records = np.empty(table.num_rows, dtype=store.SESSION)
    for name in own:
        records[name] = table[name].to_numpy()
    for column in store.RUN_COLUMNS:
        values = table[column.name]
        if column.kind.form == Form.DECIMAL:
            # Both this cast and the server's give the number nearest to the decimal text.
            values = values.cast(pa.float64())
        if column.optional:
            values = pc.fill_null(values, float("nan"))  # not told
        records[column.name] = values.to_numpy()
    records["vehicle"] = table["vehicle_key"].to_numpy()
    records["order_key"] = table["session_key"].to_numpy()
    reasons = pa.array(store.INTERRUPTIONS)
    records["interrupted"] = pc.is_in(table["stop_reason"], value_set=reasons).to_numpy()
    begin, end = (np.datetime64(at.astimezone(UTC).replace(tzinfo=None)) for at in (first, last))
    keep = (records["ended_at"] > begin) & (records["ended_at"] <= end)
    if lonely:
        records["session_id"] = _own_ids(table)
        records["connector_id"] = _known_ids(
            archive, SESSION_TABLE, records["connector_id"], [table[name] for name in names]
        )
        keep &= records["connector_id"] >= 0
    return records[keep]


async def sessions(
    connection: asyncpg.Connection, archive: Archive | None, *, first: datetime, last: datetime
) -> Records:
    """Return the sessions that ended in (first, last], in the order of their end."""
    if archive is None:
        return await store.sessions(connection, first=first, last=last)
    parts = []
    for filed, run in groupby(_days(first, last), key=lambda day: archive.has(SESSION_TABLE, day)):
        listed = list(run)
        if filed:
            parts += [
                await asyncio.to_thread(_sessions_of, archive, day, first=first, last=last)
                for day in listed
            ]
            continue
        # A day's sessions end at its midnight or later; the query leaves its begin out.
        begin = max(first, day_bounds(listed[0])[0] - _MICROSECOND)
        end = min(last, day_bounds(listed[-1])[1] - _MICROSECOND)
        parts.append(await store.sessions(connection, first=begin, last=end))
    return await asyncio.to_thread(store.by_end, np.concatenate(parts))


def _only_rows(
    archive: Archive | None, columns: Sequence[str], ids: Sequence[int]
) -> list[dict[str, Any]]:
    """Return columns of those of the sessions that only the archive has, by session_id."""
    wanted = np.array([i for i in ids if i < 0], np.int64)
    if archive is None or not wanted.size:
        return []
    found: list[dict[str, Any]] = []
    for table, day in sorted(archive.only):
        if table != SESSION_TABLE:
            continue
        rows = _session_file(archive, day, ["session_key", "connector", *columns])
        own = _own_ids(rows)
        keep = np.flatnonzero(np.isin(own, wanted))
        kept = rows.select(list(columns)).take(pa.array(keep)).to_pylist()
        found += [{"session_id": i, **row} for i, row in zip(own[keep].tolist(), kept, strict=True)]
    return sorted(found, key=lambda row: row["session_id"])


async def periods(
    connection: asyncpg.Connection,
    archive: Archive | None,
    *,
    first: datetime,
    last: datetime,
    session_ids: Sequence[int] | None,
    known: np.ndarray[Any, Any],
) -> Records:
    """Return the priced periods of sessions that ended in (first, last]; None: of all of them.

    Where: known: session_id of all sessions that `sessions` returned, ascending.
    """
    stored = await store.periods(connection, first=first, last=last, session_ids=session_ids)
    ids = known[known < 0].tolist() if session_ids is None else session_ids
    rows = await asyncio.to_thread(_only_rows, archive, ["periods"], ids)
    rows = [row for row in rows if row["periods"] is not None]
    parts = []
    for start in range(0, len(rows), SESSION_ROWS):
        block = rows[start : start + SESSION_ROWS]
        # The server reads the texts, as it reads those of its own.
        values = {
            "session_ids": [row["session_id"] for row in block],
            "periods": [row["periods"] for row in block],
        }
        parts.append(await copy_arrays(connection, _PERIODS_OF_TEXTS, store.PERIOD, values=values))
    return np.concatenate([*parts, stored]) if parts else stored


async def signed_rows(
    connection: asyncpg.Connection, archive: Archive | None, ids: Sequence[int]
) -> list[dict[str, Any]]:
    """Return the signed records of sessions (ids ascending), in the order of the ids."""
    columns = ["signed_format", "signed_data", "signed_public_key"]
    own = await asyncio.to_thread(_only_rows, archive, columns, ids)
    return own + await store.rows(connection, store.SIGNED, session_ids=[i for i in ids if i >= 0])


async def session_names(
    connection: asyncpg.Connection, archive: Archive | None, ids: Sequence[int]
) -> dict[int, str]:
    """Return the text of each session by its number."""
    own = await asyncio.to_thread(_only_rows, archive, ["session"], ids)
    rows = own + await store.rows(
        connection, store.SESSION_NAMES, session_ids=[i for i in ids if i >= 0]
    )
    return {row["session_id"]: row["session"] for row in rows}
