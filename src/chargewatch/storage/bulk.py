"""Rows of fixed width between the database and numpy, without a Python object per value.

PostgreSQL's binary COPY sends a row as a count of fields (int16) and, per field, its length
(int32) and its bytes, all big-endian. With fixed-width types and no NULL every row has the same
layout, so a whole buffer of rows is one structured array; the counts and lengths are checked for
every row. Source: PostgreSQL documentation, COPY, "Binary Format".

numpy types and what they stand for in the database:

======== =====================  ==========================================================
dtype    PostgreSQL             note
======== =====================  ==========================================================
i2 i4 i8 smallint integer bigint
f4 f8    real double precision  NaN is "not known": write COALESCE(x, 'NaN') for a nullable
?        boolean
M8[us]   timestamptz timestamp  microseconds since 1970-01-01T00:00Z
M8[D]    date
Sn       bytea text char        values of exactly n bytes (digests, fixed codes)
======== =====================  ==========================================================

Text of varying length has no fixed layout: send a 64-bit key of it (`text_key`) and read the
dictionary apart when the words themselves are needed.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from types import MappingProxyType
from typing import Any

import asyncpg
import numpy as np
from numpy.typing import NDArray

from chargewatch.errors import DatabaseError
from chargewatch.storage.sql import Statement

Records = NDArray[np.void]

SIGNATURE = b"PGCOPY\n\xff\r\n\0"
HEADER = SIGNATURE + bytes(8)  # flags 0, header extension of length 0
TRAILER = b"\xff\xff"

CHUNK_BYTES = 8 << 20
_EPOCH_US = 946_684_800_000_000  # PostgreSQL counts from 2000-01-01
_EPOCH_DAYS = 10_957

_TYPES = {
    "i2": {"int2"},
    "i4": {"int4"},
    "i8": {"int8"},
    "f4": {"float4"},
    "f8": {"float8"},
    "b1": {"bool"},
    "M8[us]": {"timestamptz", "timestamp"},
    "M8[D]": {"date"},
    "S": {"bytea", "text", "bpchar", "varchar"},
}


class BulkFormatError(DatabaseError):
    """A query's rows don't have the fixed layout that was asked for."""


@dataclass(frozen=True)
class _Column:
    name: str
    kind: str
    width: int
    shift: int


@dataclass(frozen=True)
class _Layout:
    """One row on the wire, and the same row in memory."""

    columns: tuple[_Column, ...]
    memory: np.dtype[np.void]
    wire: np.dtype[np.void]


def _kind_of(dtype: np.dtype[Any], name: str) -> str:
    kind = "S" if dtype.kind == "S" else dtype.str[1:]
    if kind not in _TYPES:
        raise BulkFormatError(
            f"column {name!r}: numpy type {dtype} has no fixed-width PostgreSQL type; "
            f"use one of {', '.join(sorted(_TYPES))}"
        )
    return kind


@lru_cache(maxsize=256)
def _layout_of(dtype: np.dtype[np.void]) -> _Layout:
    if not dtype.names:
        raise BulkFormatError(f"a structured dtype is needed, not {dtype}")
    columns, fields = [], [("fields", ">i2")]
    for name in dtype.names:
        field = dtype[name]
        kind = _kind_of(field, name)
        shift = {"M8[us]": _EPOCH_US, "M8[D]": _EPOCH_DAYS}.get(kind, 0)
        columns.append(_Column(name, kind, field.itemsize if kind != "M8[D]" else 4, shift))
        stored = {"M8[us]": ">i8", "M8[D]": ">i4", "b1": "u1"}.get(kind)
        fields.append((f"length {name}", ">i4"))
        fields.append((name, stored or (field.str if kind == "S" else f">{kind}")))
    return _Layout(tuple(columns), dtype, np.dtype(fields))


def _first_fault(row: bytes, layout: _Layout) -> str:
    """Return what is wrong with the first row of a buffer that has not the layout."""
    count = int.from_bytes(row[:2], "big", signed=True)
    if count != len(layout.columns):
        return f"has {count} columns, {len(layout.columns)} were asked for"
    position = 2
    for column in layout.columns:
        length = int.from_bytes(row[position : position + 4], "big", signed=True)
        if length == -1:
            return (
                f"has NULL in column {column.name!r}: select only rows without it, "
                "or COALESCE it (to 'NaN' when it is a number)"
            )
        if length != column.width:
            return f"has {length} bytes in column {column.name!r}, {column.width} were asked for"
        position += 4 + length
    return "has not the layout that was asked for"


def _decode(buffer: bytes | memoryview, layout: _Layout, first_row: int) -> Records:
    """Return the rows of a buffer that holds whole rows only."""
    rows = np.frombuffer(buffer, dtype=layout.wire)
    good = rows["fields"] == len(layout.columns)
    for column in layout.columns:
        good &= rows[f"length {column.name}"] == column.width
    if not good.all():
        at = int(np.argmin(good))
        # The row before may be the shorter one whose NULL shifted this one; the first that is bad
        # starts at the right byte, because all before it have the layout.
        start = at * layout.wire.itemsize
        fault = _first_fault(bytes(buffer[start : start + layout.wire.itemsize]), layout)
        raise BulkFormatError(f"row {first_row + at} {fault}")
    records = np.empty(rows.shape, dtype=layout.memory)
    for column in layout.columns:
        values = rows[column.name]
        if column.shift:
            records[column.name] = (values.astype(np.int64) + column.shift).view(
                f"M8[{'us' if column.kind == 'M8[us]' else 'D'}]"
            )
        else:
            records[column.name] = values
    return records


class _Decoder:
    """Turns the buffers of one COPY into arrays of whole rows."""

    def __init__(self, layout: _Layout, consume: Callable[[Records], None]) -> None:
        self.layout = layout
        self.consume = consume
        self.rows = 0
        self._pending = bytearray()
        self._in_header = True
        self._ended = False

    async def feed(self, data: bytes) -> None:
        self._pending += data
        if self._in_header:
            if len(self._pending) < len(HEADER):
                return
            if not self._pending.startswith(SIGNATURE):
                raise BulkFormatError("the server did not send a binary COPY")
            extension = int.from_bytes(self._pending[15:19], "big")
            del self._pending[: len(HEADER) + extension]
            self._in_header = False
        if len(self._pending) >= CHUNK_BYTES:
            self._drain()

    def finish(self) -> None:
        if not self._pending.endswith(TRAILER):
            raise BulkFormatError("the COPY ended in the middle of a row")
        del self._pending[-2:]
        self._drain()
        if self._pending:
            raise BulkFormatError(
                f"row {self.rows} {_first_fault(bytes(self._pending), self.layout)}"
            )

    def _drain(self) -> None:
        width = self.layout.wire.itemsize
        count = len(self._pending) // width
        if not count:
            return
        whole = bytes(memoryview(self._pending)[: count * width])
        del self._pending[: count * width]
        self.consume(_decode(whole, self.layout, self.rows))
        self.rows += count


async def _check_types(connection: asyncpg.Connection, query: Statement, layout: _Layout) -> None:
    """Raise BulkFormatError when a column's type is not the one asked for (float8 is not int8)."""
    attributes = (await connection.prepare(query.numbered)).get_attributes()
    if len(attributes) != len(layout.columns):
        raise BulkFormatError(
            f"the query has {len(attributes)} columns, {len(layout.columns)} were asked for"
        )
    for attribute, column in zip(attributes, layout.columns, strict=True):
        if attribute.type.name not in _TYPES[column.kind]:
            raise BulkFormatError(
                f"column {column.name!r} is {attribute.type.name} in the query, "
                f"{column.kind} was asked for: cast one of them"
            )


async def copy_chunks(
    connection: asyncpg.Connection,
    query: Statement,
    dtype: np.dtype[Any],
    *,
    consume: Callable[[Records], None],
    values: Mapping[str, Any] = MappingProxyType({}),
    timeout_s: float = 3600.0,
) -> int:
    """Read a query's rows in arrays of about 8 MB, hand each to ``consume``; return the number.

    Columns are matched by position; `dtype` names them.
    Raises: BulkFormatError that names the row and column when a value is NULL or of another type.
    """
    layout = _layout_of(np.dtype(dtype))
    decoder = _Decoder(layout, consume)
    await _check_types(connection, query, layout)
    await connection.copy_from_query(
        query.numbered,
        *query.arguments(values),
        output=decoder.feed,
        format="binary",
        timeout=timeout_s,
    )
    decoder.finish()
    return decoder.rows


async def copy_arrays(
    connection: asyncpg.Connection,
    query: Statement,
    dtype: np.dtype[Any],
    *,
    values: Mapping[str, Any] = MappingProxyType({}),
    timeout_s: float = 3600.0,
) -> Records:
    """Return a query's rows as one structured array of `dtype` (fields by position).

    Peak memory is twice the result; `copy_chunks` needs less.
    Raises: BulkFormatError that names the row and column when a value is NULL or of another type.
    """
    chunks: list[Records] = []
    await copy_chunks(
        connection,
        query,
        dtype,
        consume=chunks.append,
        values=values,
        timeout_s=timeout_s,
    )
    if len(chunks) == 1:
        return chunks[0]
    return np.concatenate(chunks) if chunks else np.empty(0, dtype=dtype)


def encode_rows(records: Records) -> bytes:
    """Return records as rows of a binary COPY, without header and trailer."""
    layout = _layout_of(records.dtype)
    rows = np.empty(records.shape, dtype=layout.wire)
    rows["fields"] = len(layout.columns)
    for column in layout.columns:
        rows[f"length {column.name}"] = column.width
        values = records[column.name]
        rows[column.name] = values.astype(np.int64) - column.shift if column.shift else values
    return rows.tobytes()


def encode_records(records: Records) -> bytes:
    """Return records as one complete binary COPY."""
    return HEADER + encode_rows(records) + TRAILER


async def _encoded(records: Records) -> AsyncIterator[bytes]:
    step = max(1, CHUNK_BYTES // _layout_of(records.dtype).wire.itemsize)
    yield HEADER
    for first in range(0, len(records), step):
        yield encode_rows(records[first : first + step])
    yield TRAILER


async def copy_records_in(
    connection: asyncpg.Connection,
    table: str,
    records: Records,
    *,
    columns: Sequence[str] | None = None,
    timeout_s: float = 600.0,
) -> int:
    """Write records to a table by binary COPY; return their number.

    Columns default to the names of the records' fields; types must match exactly (see above).
    """
    names = list(columns or records.dtype.names or ())
    await connection.copy_to_table(
        table, source=_encoded(records), columns=names, format="binary", timeout=timeout_s
    )
    return len(records)


def text_key(expression: str) -> str:
    """Return SQL for a 64-bit key of a text: equal texts, equal keys.

    Two of n texts share a key with probability of about n^2 / 2^65: 3e-8 for a million.
    """
    return f"hashtextextended({expression}, 0)"


def seconds_of(times: NDArray[np.datetime64]) -> NDArray[np.float64]:
    """Return times of type M8[us] as seconds since 1970-01-01T00:00Z."""
    return times.view(np.int64) / 1e6
