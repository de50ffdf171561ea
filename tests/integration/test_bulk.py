"""Binary COPY between the database and numpy."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import asyncpg
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from chargewatch.storage import bulk
from chargewatch.storage.bulk import (
    BulkFormatError,
    copy_arrays,
    copy_chunks,
    copy_records_in,
    encode_records,
    seconds_of,
    text_key,
)
from chargewatch.storage.sql import Statement

ALL_TYPES = np.dtype(
    [
        ("at", "M8[us]"),
        ("day", "M8[D]"),
        ("small", "i2"),
        ("middle", "i4"),
        ("large", "i8"),
        ("single", "f4"),
        ("double", "f8"),
        ("flag", "?"),
        ("digest", "S3"),
    ]
)
CREATE = (
    "CREATE TEMP TABLE sample (at timestamptz, day date, small int2, middle int4, large int8, "
    "single real, double double precision, flag bool, digest bytea)"
)
SAMPLE = st.lists(
    st.tuples(
        # PostgreSQL's own range of times begins and ends far outside any reading.
        st.integers(-(10**16), 10**16),
        st.integers(-100_000, 100_000),
        st.integers(-(2**15), 2**15 - 1),
        st.integers(-(2**31), 2**31 - 1),
        st.integers(-(2**63), 2**63 - 1),
        st.floats(width=32),
        st.floats(),
        st.booleans(),
        st.binary(min_size=3, max_size=3).filter(lambda value: not value.endswith(b"\0")),
    ),
    max_size=50,
)


def _records(rows: list[tuple[Any, ...]]) -> np.ndarray:
    records = np.empty(len(rows), dtype=ALL_TYPES)
    for index, name in enumerate(ALL_TYPES.names):
        kind = {"at": "i8", "day": "i8"}.get(name, ALL_TYPES[name])
        column = np.array([row[index] for row in rows], dtype=kind)
        records[name] = column.view(ALL_TYPES[name]) if name in {"at", "day"} else column
    return records


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(rows=SAMPLE)
def test_rows_come_back_bit_for_bit(database_url_sync: str, rows: list[tuple[Any, ...]]) -> None:
    records = _records(rows)

    async def there_and_back() -> np.ndarray:
        connection = await asyncpg.connect(database_url_sync)
        try:
            await connection.execute(CREATE)
            assert await copy_records_in(connection, "sample", records) == len(records)
            return await copy_arrays(
                connection, Statement("sample", "SELECT * FROM sample"), ALL_TYPES
            )
        finally:
            await connection.close()

    back = asyncio.run(there_and_back())
    assert back.dtype == ALL_TYPES
    assert back.tobytes() == records.tobytes()


@pytest.fixture
def database_url_sync(embedded_server: Any) -> Any:
    url = asyncio.run(embedded_server.clone())
    yield url
    asyncio.run(embedded_server.drop(url))


async def _refusal(database_url: str, query: str, dtype: list[tuple[str, str]]) -> str:
    connection = await asyncpg.connect(database_url)
    try:
        with pytest.raises(BulkFormatError) as caught:
            await copy_arrays(connection, Statement("refused", query), np.dtype(dtype))
        # The connection is good for the next question.
        assert await connection.fetchval("SELECT 1") == 1
    finally:
        await connection.close()
    return str(caught.value)


async def test_null_is_refused_by_row_and_column(database_url: str) -> None:
    message = await _refusal(
        database_url,
        "SELECT g, CASE WHEN g = 7 THEN NULL ELSE g END FROM generate_series(0, 20) g",
        [("first", "i4"), ("second", "i4")],
    )
    assert "row 7" in message
    assert "NULL in column 'second'" in message


async def test_null_in_the_last_row_is_refused(database_url: str) -> None:
    message = await _refusal(
        database_url,
        "SELECT CASE WHEN g = 20 THEN NULL ELSE g END FROM generate_series(0, 20) g",
        [("only", "i4")],
    )
    assert "row 20 has NULL in column 'only'" in message


async def test_type_of_the_same_width_is_refused(database_url: str) -> None:
    message = await _refusal(database_url, "SELECT 1.5::float8", [("energy_wh", "i8")])
    assert "'energy_wh' is float8" in message


async def test_number_of_columns_must_match(database_url: str) -> None:
    message = await _refusal(database_url, "SELECT 1, 2", [("only", "i4")])
    assert "2 columns" in message


async def test_text_of_another_length_is_refused(database_url: str) -> None:
    message = await _refusal(database_url, "SELECT 'abcd'::text", [("code", "S3")])
    assert "4 bytes in column 'code'" in message


async def test_type_without_fixed_width_is_refused(database_url: str) -> None:
    message = await _refusal(database_url, "SELECT 1", [("only", "O")])
    assert "no fixed-width PostgreSQL type" in message


async def test_empty_result_is_an_empty_array(database_url: str) -> None:
    connection = await asyncpg.connect(database_url)
    try:
        query = Statement("empty", "SELECT g FROM generate_series(1, 0) g")
        back = await copy_arrays(connection, query, np.dtype([("only", "i4")]))
    finally:
        await connection.close()
    assert back.shape == (0,)


async def test_large_result_comes_in_bounded_chunks(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bulk, "CHUNK_BYTES", 100_000)
    connection = await asyncpg.connect(database_url)
    chunks: list[np.ndarray] = []
    consume: Callable[[np.ndarray], None] = chunks.append
    try:
        rows = await copy_chunks(
            connection,
            Statement(
                "large", "SELECT g, g / 2.0::float8 FROM generate_series(1, CAST(:last AS int)) g"
            ),
            np.dtype([("number", "i4"), ("half", "f8")]),
            consume=consume,
            values={"last": 200_000},
        )
    finally:
        await connection.close()
    assert rows == 200_000
    assert len(chunks) > 10
    together = np.concatenate(chunks)
    assert (together["number"] == np.arange(1, 200_001)).all()
    assert (together["half"] == together["number"] / 2).all()


async def test_text_key_tells_texts_apart(database_url: str) -> None:
    connection = await asyncpg.connect(database_url)
    try:
        keys = await copy_arrays(
            connection,
            Statement(
                "keys", f"SELECT {text_key('v')} FROM unnest(ARRAY['a', 'b', 'a', '车', '']) v"
            ),
            np.dtype([("key", "i8")]),
        )
    finally:
        await connection.close()
    assert keys["key"][0] == keys["key"][2]
    assert len(set(keys["key"].tolist())) == 4


def test_header_and_trailer_surround_the_rows() -> None:
    encoded = encode_records(np.zeros(2, dtype=[("a", "i4")]))
    assert encoded.startswith(b"PGCOPY\n\xff\r\n\0")
    assert encoded.endswith(b"\xff\xff")
    assert len(encoded) == 19 + 2 * (2 + 4 + 4) + 2


def test_times_become_seconds() -> None:
    times = np.array(["1970-01-01", "2023-11-14T22:13:20.25", "1969-12-31T23:59:56.5"], "M8[us]")
    assert seconds_of(times).tolist() == [0.0, 1.7e9 + 0.25, -3.5]
