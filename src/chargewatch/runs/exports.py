"""Assessments and signals as JSON, CSV or Parquet, in the columns and order of the contract."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.parquet as pq

from chargewatch.domain.assessment import ASSESSMENT_COLUMNS
from chargewatch.domain.columns import Form
from chargewatch.domain.csv_cell import csv_cell
from chargewatch.errors import NotFoundError
from chargewatch.storage.database import Database
from chargewatch.storage.office.money import EXPORTED
from chargewatch.storage.runs import results as store
from chargewatch.storage.runs import signals as signal_records

_TEXT, _NUMBER, _COUNT, _TIME = pa.string(), pa.float64(), pa.int64(), pa.timestamp("us", tz="UTC")

_TYPES = {Form.TEXT: _TEXT, Form.REAL: _NUMBER, Form.COUNT: _COUNT, Form.TIME: _TIME}

ASSESSMENT_SCHEMA = pa.schema(
    [
        ("connector", _TEXT),
        ("station_id", _TEXT),
        ("operator_id", _TEXT),
        ("as_of", _TIME),
        *((c.name, _TYPES[c.kind.form]) for c in ASSESSMENT_COLUMNS if c.in_export),
    ]
)
WIDE_ASSESSMENT_SCHEMA = pa.schema(
    [
        *ASSESSMENT_SCHEMA,
        *(
            (c.name, _TYPES[c.kind.form])
            for c in ASSESSMENT_COLUMNS
            if c.in_list and not c.in_export
        ),
    ]
)
"""What the list of piles shows besides comes after the contract's columns."""
SIGNAL_SCHEMA = pa.schema(
    [
        ("code", _TEXT),
        ("severity", _TEXT),
        ("connector", _TEXT),
        ("station_id", _TEXT),
        ("operator_id", _TEXT),
        ("first_at", _TIME),
        ("last_at", _TIME),
        ("count", _COUNT),
        ("value", _NUMBER),
        ("limit", _NUMBER),
        ("detail", _TEXT),
    ]
)


_OF_MONEY = {"sessions": _COUNT, "sessions_unknown": _COUNT} | dict.fromkeys(
    ("counted_from", "counted_to"), _TIME
)
MONEY_SCHEMA = pa.schema(
    [
        (name, _OF_MONEY.get(name, _NUMBER if name.endswith(("_cny", "_wh")) else _TEXT))
        for name in EXPORTED
    ]
)
"""Of what is owed at connectors, by month and cause."""


def _plain(value: Any) -> Any:
    """Return a value as exports hold it: NaN is None, times are in UTC."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, datetime):
        return value.astimezone(UTC)
    return value


def export_rows(rows: Sequence[Mapping[str, Any]], schema: Any) -> list[dict[str, Any]]:
    """Return rows with a schema's columns only, in its order."""
    return [{name: _plain(row[name]) for name in schema.names} for row in rows]


def as_json(rows: list[dict[str, Any]], schema: Any) -> bytes:
    """Return one JSON array; NaN is null, times are RFC 3339 with offset."""
    del schema
    return orjson.dumps(rows, option=orjson.OPT_APPEND_NEWLINE)


def as_csv(rows: list[dict[str, Any]], schema: Any) -> bytes:
    """Return CSV (RFC 4180, UTF-8) with a header; what is not known is empty."""
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(schema.names)
    for row in rows:
        writer.writerow([csv_cell(value) for value in row.values()])
    return text.getvalue().encode("utf-8")


def as_parquet(rows: list[dict[str, Any]], schema: Any) -> bytes:
    """Return a Parquet file; what is not known is null."""
    buffer = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows, schema=schema), buffer, compression="zstd")
    return buffer.getvalue()


FORMATS: Mapping[str, Callable[[list[dict[str, Any]], Any], bytes]] = {
    "json": as_json,
    "csv": as_csv,
    "parquet": as_parquet,
}


async def assessment_rows(
    database: Database, *, run_id: int | None = None, schema: Any = ASSESSMENT_SCHEMA
) -> list[dict[str, Any]]:
    """Return the assessments of the newest finished run (or of one run), in a schema's columns.

    Raises: NotFoundError when there is no such run.
    """
    run = await store.newest_run(database, run_id=run_id)
    if run is None:
        which = "no risk run has finished yet" if run_id is None else f"no finished run {run_id}"
        raise NotFoundError(f"{which}: run `chargewatch assess`")
    return export_rows(await store.assessments(database, run["run_id"]), schema)


async def signal_rows(database: Database, *, closed_too: bool = False) -> list[dict[str, Any]]:
    """Return the open signals (and the closed ones), in the contract's columns."""
    rows = await signal_records.signals(database, closed_too=closed_too)
    return export_rows(rows, SIGNAL_SCHEMA)
