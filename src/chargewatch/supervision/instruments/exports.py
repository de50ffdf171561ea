"""The registry as files: JSON, CSV, XLSX, and the national ledger with its headings."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import orjson

from chargewatch.storage.database import Database
from chargewatch.storage.office.ledger import ledger_rows
from chargewatch.supervision.registry import export_registry
from chargewatch.wire.registry.ledger_columns import LEDGER_NAMES, ledger_columns
from chargewatch.wire.registry.written import csv_table, workbook_of, zip_of_tables

Form = Literal["json", "csv", "xlsx"]
FORMS: Mapping[Form, tuple[str, str]] = {
    "json": ("json", "application/json"),
    "csv": ("zip", "application/zip"),
    "xlsx": ("xlsx", "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet"),
}
"""Forms of the registry: how the file's name ends, and its media type."""
LEDGER_FORMS: Mapping[Form, tuple[str, str]] = {
    "csv": ("csv", "text/csv; charset=utf-8"),
    "xlsx": FORMS["xlsx"],
}


def registry_bytes(document: Mapping[str, Any], form: Form) -> bytes:
    """Return a registry document in a form that an import reads again."""
    if form == "json":
        return orjson.dumps(document, option=orjson.OPT_INDENT_2) + b"\n"
    lists = {name: rows for name, rows in document.items() if name != "version"}
    return zip_of_tables(lists) if form == "csv" else workbook_of(lists)


async def export_file(database: Database, form: Form, *, scope: str | None) -> bytes:
    """Return the registry as a file.

    Args:
        database: with the registry.
        form: json, csv (a zip of CSV files) or xlsx.
        scope: the one operator whose instruments are wanted; None: everybody's.
    """
    document = await export_registry(database, scope=scope)
    return await asyncio.to_thread(registry_bytes, document, form)


def national_row(row: Mapping[Any, Any]) -> dict[str, Any]:
    """Return an instrument as the national ledger has it.

    Where nothing of its own is known, the place is the station's address, the administrative code
    that of its district, and name, item, quantity and purpose are the usual ones.
    """
    known: dict[str, Any] = {"place": row["address"], "place_code": row["district"]}
    told: dict[str, Any] = {}
    for column in ledger_columns():
        value = row[column.key]
        if value is None:
            value = known.get(column.key, column.default.get(row["current"] or ""))
        told[column.heading] = value
    return told | dict(row["extra"] or {})


def ledger_bytes(rows: Sequence[Mapping[Any, Any]], form: Form) -> bytes:
    """Return the national ledger of instruments as CSV or XLSX."""
    told = [national_row(row) for row in rows]
    headings = [column.heading for column in ledger_columns()]
    others = dict.fromkeys(name for row in told for name in row if name not in headings)
    columns = [*headings, *others]
    if form == "xlsx":
        sheet = LEDGER_NAMES[0]
        return workbook_of({sheet: told}, {sheet: dict(zip(columns, columns, strict=True))})
    return csv_table(columns, told)


async def export_ledger(database: Database, form: Form, *, scope: str | None) -> bytes:
    """Return the national ledger of the registered instruments, as `export_file`."""
    async with database.connect() as connection:
        rows = await ledger_rows(connection, scope=scope)
    return await asyncio.to_thread(ledger_bytes, rows, form)
