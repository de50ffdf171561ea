"""Read a registry file: JSON, a folder or zip of CSV files, or an XLSX workbook.

A bad row is named by file, line and column; then nothing of the file is taken.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import date, datetime
from datetime import time as clock_time
from json.decoder import scanstring  # type: ignore[attr-defined]
from pathlib import Path
from typing import Any

import openpyxl
from openpyxl.utils.exceptions import InvalidFileException
from pydantic import ValidationError

from chargewatch.errors import RegistryFileError
from chargewatch.wire.registry_models import LISTS, Row

MAX_ERRORS_SHOWN = 20
MAX_FILE_BYTES = 512 * 1024 * 1024


@dataclass(frozen=True)
class RawRow:
    """A row as it stands in the file, and where."""

    file: str
    line: int
    values: dict[str, Any]


@dataclass(frozen=True)
class PlacedRow:
    """A valid row, and where it stands."""

    file: str
    line: int
    row: Row

    def error(self, column: str, message: str) -> str:
        """Return the sentence that names this row and one of its columns."""
        return f"{self.file}, line {self.line}, column {column}: {message}"


@dataclass(frozen=True)
class RegistryFile:
    """The valid rows of a registry file, by list."""

    source: str
    sha256: str
    rows: dict[str, list[PlacedRow]]
    unknown_columns: dict[str, list[str]] = field(default_factory=dict)


def _skip_blank(text: str, position: int) -> int:
    while position < len(text) and text[position] in " \t\r\n":
        position += 1
    return position


def _members(text: str, position: int) -> Iterator[tuple[str, int]]:
    """Yield the keys of the JSON object at a position, with where their values begin."""
    decoder = json.JSONDecoder()
    position = _skip_blank(text, position + 1)
    while text[position] != "}":
        key, position = scanstring(text, position + 1)
        position = _skip_blank(text, _skip_blank(text, position) + 1)
        yield key, position
        _, position = decoder.raw_decode(text, position)
        position = _skip_blank(text, position)
        if text[position] == ",":
            position = _skip_blank(text, position + 1)


def _items(text: str, position: int) -> Iterator[tuple[Any, int]]:
    """Yield the items of the JSON array at a position, with where they begin."""
    decoder = json.JSONDecoder()
    position = _skip_blank(text, position + 1)
    while text[position] != "]":
        item, end = decoder.raw_decode(text, position)
        yield item, position
        position = _skip_blank(text, end)
        if text[position] == ",":
            position = _skip_blank(text, position + 1)


def _read_json(name: str, content: bytes) -> dict[str, list[RawRow]]:
    try:
        text = content.decode("utf-8-sig")
        document = json.loads(text)
    except UnicodeDecodeError as exc:
        raise RegistryFileError(f"{name}: is not UTF-8 at byte {exc.start}") from exc
    except json.JSONDecodeError as exc:
        raise RegistryFileError(
            f"{name}, line {exc.lineno}, column {exc.colno}: is not JSON: {exc.msg}"
        ) from exc
    except RecursionError as exc:
        raise RegistryFileError(f"{name}: is nested too deeply") from exc
    if not isinstance(document, dict):
        raise RegistryFileError(f"{name}, line 1: a registry file is a JSON object")
    if document.get("version") != 1:
        raise RegistryFileError(
            f"{name}, column version: is {document.get('version')!r}; this chargewatch reads 1"
        )
    found: dict[str, list[RawRow]] = {}
    for key, start in _members(text, _skip_blank(text, 0)):
        if key not in LISTS:
            continue
        if text[start] != "[":
            raise RegistryFileError(f"{name}, column {key}: is not a list")
        rows = found[key] = []
        line, counted = text.count("\n", 0, start) + 1, start
        for item, position in _items(text, start):
            line, counted = line + text.count("\n", counted, position), position
            if not isinstance(item, dict):
                raise RegistryFileError(f"{name}, line {line}: {key} holds something not an object")
            rows.append(RawRow(f"{name}: {key}", line, item))
    return found


def _read_csv(name: str, content: bytes) -> list[RawRow]:
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as exc:
        raise RegistryFileError(f"{name}: is not UTF-8 at byte {exc.start}; save it so") from exc
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    rows = []
    try:
        header = [column.strip() for column in next(reader, [])]
        for cells in reader:
            if not any(cell.strip() for cell in cells):
                continue
            if len(cells) > len(header):
                raise RegistryFileError(
                    f"{name}, line {reader.line_num}, column {len(header) + 1}: "
                    f"the row has {len(cells)} cells, the header {len(header)}"
                )
            values = {
                column: cell for column, cell in zip(header, cells, strict=False) if cell.strip()
            }
            rows.append(RawRow(name, reader.line_num, values))
    except csv.Error as exc:
        raise RegistryFileError(f"{name}, line {reader.line_num}: {exc}") from exc
    return rows


def _cell(value: Any) -> Any:
    if isinstance(value, datetime):
        # A date cell of a workbook is a midnight.
        return value.date() if value.time() == clock_time(0) else value.isoformat()
    return value.isoformat() if isinstance(value, date) else value


def _read_workbook(name: str, content: bytes) -> dict[str, list[RawRow]]:
    try:
        workbook = openpyxl.load_workbook(io.BytesIO(content), read_only=True, data_only=True)
    except (InvalidFileException, zipfile.BadZipFile, KeyError, ValueError) as exc:
        raise RegistryFileError(f"{name}: is not an XLSX workbook: {exc}") from exc
    found: dict[str, list[RawRow]] = {}
    try:
        for sheet in workbook.worksheets:
            if sheet.title not in LISTS:
                continue
            lines = sheet.iter_rows(values_only=True)
            header = [str(cell).strip() if cell is not None else "" for cell in next(lines, ())]
            rows = found[sheet.title] = []
            for line, cells in enumerate(lines, start=2):
                values = {
                    column: _cell(cell)
                    for column, cell in zip(header, cells, strict=False)
                    if column and cell is not None
                }
                if values:
                    rows.append(RawRow(f"{name}: sheet {sheet.title}", line, values))
    finally:
        workbook.close()
    return found


def _tables_of_folder(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.glob("*.csv"))}


def _tables_of_zip(name: str, content: bytes) -> dict[str, bytes]:
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            members = [info for info in archive.infolist() if info.filename.endswith(".csv")]
            if sum(info.file_size for info in members) > MAX_FILE_BYTES:
                raise RegistryFileError(f"{name}: unpacks to more than 512 MiB")
            return {Path(info.filename).name: archive.read(info) for info in members}
    except zipfile.BadZipFile as exc:
        raise RegistryFileError(f"{name}: is not a zip file: {exc}") from exc


def _read_raw(path: Path) -> tuple[str, dict[str, list[RawRow]]]:
    if path.is_dir():
        tables = _tables_of_folder(path)
        digest = hashlib.sha256(b"".join(tables[name] for name in sorted(tables))).hexdigest()
    else:
        content = path.read_bytes()
        digest = hashlib.sha256(content).hexdigest()
        suffix = path.suffix.lower()
        if suffix == ".json":
            return digest, _read_json(path.name, content)
        if suffix == ".xlsx":
            return digest, _read_workbook(path.name, content)
        if suffix != ".zip":
            raise RegistryFileError(
                f"{path.name}: give a .json, .xlsx or .zip file, or a folder of CSV files"
            )
        tables = _tables_of_zip(path.name, content)
    found = {
        name.removesuffix(".csv"): _read_csv(name, content)
        for name, content in tables.items()
        if name.removesuffix(".csv") in LISTS
    }
    if not found:
        wanted = ", ".join(f"{name}.csv" for name in LISTS)
        raise RegistryFileError(f"{path.name}: holds none of {wanted}")
    return digest, found


def _validate(raw: RawRow, model: type[Row]) -> tuple[PlacedRow | None, list[str]]:
    values = {key: value for key, value in raw.values.items() if value is not None}
    try:
        return PlacedRow(raw.file, raw.line, model.model_validate(values)), []
    except ValidationError as exc:
        problems = []
        for error in exc.errors(include_url=False):
            column = ".".join(str(part) for part in error["loc"][:1]) or error["msg"].split(":")[0]
            column = column.removeprefix("Value error, ")
            message = error["msg"].removeprefix("Value error, ")
            given = "" if error["type"] == "missing" else f" (given: {str(error['input'])[:60]!r})"
            problems.append(f"{raw.file}, line {raw.line}, column {column}: {message}{given}")
        return None, problems


def _duplicates(rows: list[PlacedRow]) -> list[str]:
    first: dict[tuple[Any, ...], PlacedRow] = {}
    problems = []
    for placed in rows:
        earlier = first.setdefault(placed.row.key, placed)
        if earlier is not placed:
            problems.append(
                placed.error(placed.row.key_columns[0], f"stands already in line {earlier.line}")
            )
    return problems


def refuse(problems: list[str]) -> None:
    """Raise RegistryFileError that lists the problems; return when there is none."""
    if not problems:
        return
    shown = problems[:MAX_ERRORS_SHOWN]
    more = len(problems) - len(shown)
    tail = [f"... and {more} more"] if more else []
    raise RegistryFileError(
        "\n  ".join(["nothing was taken, mend these and import again:", *shown, *tail])
    )


def read_registry_file(path: Path) -> RegistryFile:
    """Return the valid rows of a registry file.

    Raises: RegistryFileError, naming file, line and column of every bad row (up to 20).
    """
    try:
        digest, raw = _read_raw(path)
    except OSError as exc:
        raise RegistryFileError(f"{path}: can't be read: {exc.strerror}") from exc
    rows: dict[str, list[PlacedRow]] = {}
    unknown: dict[str, list[str]] = {}
    problems: list[str] = []
    for name, model in LISTS.items():
        rows[name] = []
        columns: set[str] = set()
        for raw_row in raw.get(name, []):
            columns.update(raw_row.values)
            placed, errors = _validate(raw_row, model)
            problems += errors
            if placed is not None:
                rows[name].append(placed)
        problems += _duplicates(rows[name])
        extra = sorted(columns - set(model.model_fields))
        if extra:
            unknown[name] = extra
    refuse(problems)
    return RegistryFile(path.name, digest, rows, unknown)
