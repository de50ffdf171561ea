"""Read a registry file: JSON, a folder or zip of CSV files, or an XLSX workbook.

A bad row is named by file, line and column; then nothing of the file is taken. What was read from
where, and what was understood differently from how it was written, is told.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any
from zoneinfo import ZoneInfo

from pydantic import ValidationError

from chargewatch.errors import RegistryFileError
from chargewatch.wire.registry.archive import (
    Member,
    RegistryZip,
    is_left_by_a_system,
    members_of_folder,
    members_of_zip,
    read_file,
)
from chargewatch.wire.registry.csv_rows import read_csv
from chargewatch.wire.registry.json_rows import read_json
from chargewatch.wire.registry.notes import ListSource, Notes, RawRow, readable, refuse
from chargewatch.wire.registry.tables import OTHER, Table, list_named, rows_of_table
from chargewatch.wire.registry.values import CurrentRow, is_blank, shown
from chargewatch.wire.registry.workbook import Workbook, is_workbook
from chargewatch.wire.registry_models import LISTS, Row

__all__ = ["ListSource", "PlacedRow", "RegistryFile", "read_registry_file", "refuse"]

DEFAULT_ZONE = "Asia/Shanghai"

_OLD_OFFICE = bytes.fromhex("d0cf11e0a1b11ae1")
_ENCRYPTED_STREAM = "EncryptedPackage".encode("utf-16-le")
_FORMS = "give a .json, .xlsx or .zip file, or a folder of CSV files"

RawLists = dict[str, list[RawRow]]


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
    """The valid rows of a registry file, by list.

    Attributes:
        sources: how many rows of each list were read from where.
        told: what was understood differently from how it was written.
    """

    source: str
    sha256: str
    rows: dict[str, list[PlacedRow]]
    sources: Sequence[ListSource] = field(default_factory=tuple)
    told: Sequence[str] = field(default_factory=tuple)


def _read_members(name: str, members: Sequence[Member], notes: Notes) -> tuple[str, RawLists]:
    """Return the digest and the rows of the CSV files of a folder or zip."""
    tables: dict[str, Table] = {}
    contents: dict[str, bytes] = {}
    strangers = []
    for member in members:
        path = PurePosixPath(member.path)
        if is_left_by_a_system(member.path):
            notes.tell(f"{name}: {member.path} was left out")
            continue
        list_name = list_named(path.stem)
        if path.suffix.lower() not in {".csv", ".tsv"} or list_name is None:
            strangers.append(member.path)
            continue
        if list_name in tables:
            notes.wrong(
                f"{member.path}: is a second file of {list_name}, beside {tables[list_name].place}"
            )
            continue
        if path.name != f"{list_name}.csv":
            notes.tell(f"{member.path}: read as the list {list_name}")
        content = contents[member.path] = member.read()
        tables[list_name] = read_csv(member.path, content, list_name, notes)
    if not tables:
        wanted = ", ".join(f"{list_name}.csv" for list_name in LISTS)
        held = f"; it holds {', '.join(sorted(strangers)[:10])}" if strangers else ", it is empty"
        raise RegistryFileError(f"{name}: holds none of {wanted}{held}")
    for stranger in sorted(strangers):
        notes.wrong(f"{name}: {stranger} is not a CSV file named after a list; take it out")
    digest = hashlib.sha256(b"".join(contents[path] for path in sorted(contents)))
    return digest.hexdigest(), _rows_of(name, list(tables.values()), notes)


def _rows_of(name: str, tables: Sequence[Table], notes: Notes) -> RawLists:
    if not any(table.lines for table in tables):
        raise RegistryFileError(f"{name}: is empty; {_FORMS}")
    return {table.list: rows_of_table(table, notes) for table in tables}


def _read_archive(path: Path, content: bytes, notes: Notes) -> RawLists:
    suffix = path.suffix.lower()
    if not content.startswith(b"PK") and suffix in {".xlsx", ".xlsm"}:
        raise RegistryFileError(f"{path.name}: is not an XLSX workbook; save it as .xlsx again")
    archive = RegistryZip(path.name, content)
    names = {name.casefold() for name in archive.paths}
    if "xl/workbook.bin" in names:
        raise RegistryFileError(f"{path.name}: is a binary workbook (.xlsb); save it as .xlsx")
    if "content.xml" in names and "mimetype" in names:
        raise RegistryFileError(f"{path.name}: is an OpenDocument file; save it as .xlsx")
    if is_workbook(archive) or suffix in {".xlsx", ".xlsm"}:
        tables = Workbook(archive, notes).tables()
        if not tables:
            notes.refuse()
            raise RegistryFileError(f"{path.name}: holds no sheet named {', '.join(LISTS)}")
        return _rows_of(path.name, tables, notes)
    return _read_members(path.name, members_of_zip(archive), notes)[1]


def _read_raw(path: Path, notes: Notes) -> tuple[str, RawLists]:
    if path.is_dir():
        return _read_members(path.name or str(path), members_of_folder(path), notes)
    content = read_file(path)
    digest, suffix = hashlib.sha256(content).hexdigest(), path.suffix.lower()
    if not content.strip():
        raise RegistryFileError(f"{path.name}: is empty; {_FORMS}")
    if content.startswith(_OLD_OFFICE):
        if _ENCRYPTED_STREAM in content:
            raise RegistryFileError(f"{path.name}: is protected by a password; save it without")
        raise RegistryFileError(f"{path.name}: is an old Excel file (.xls); save it as .xlsx")
    if content.startswith(b"PK") or suffix in {".zip", ".xlsx", ".xlsm"}:
        return digest, _read_archive(path, content, notes)
    if suffix == ".json":
        return digest, read_json(path.name, content, notes)
    name = list_named(path.stem)
    if suffix in {".csv", ".tsv"} and name is not None:
        return digest, _rows_of(path.name, [read_csv(path.name, content, name, notes)], notes)
    if suffix == ".csv":
        raise RegistryFileError(f"{path.name}: is not named after a list: {', '.join(LISTS)}")
    if suffix == ".xls":
        raise RegistryFileError(f"{path.name}: is no workbook, whatever its name; save it as .xlsx")
    raise RegistryFileError(f"{path.name}: {_FORMS}")


def _validate(raw: RawRow, model: type[Row], reading: CurrentRow) -> PlacedRow | None:
    """Return the valid row; what is wrong with it is noted."""
    values = {
        key: value
        for key, value in raw.values.items()
        if not is_blank(value) and not key.startswith(OTHER)
    }
    others = {
        key.removeprefix(OTHER): value for key, value in raw.values.items() if key.startswith(OTHER)
    }
    if others:
        values["extra"] = {**others, **_given_others(values.get("extra"))}
    try:
        return PlacedRow(raw.file, raw.line, model.model_validate(values, context=reading))
    except ValidationError as exc:
        for error in exc.errors(include_url=False):
            column, message, given = _told_error(dict(error))
            reading.notes.wrong(f"{raw.file}, line {raw.line}, column {column}: {message}{given}")
        return None


def _given_others(value: object) -> dict[str, object]:
    return value if isinstance(value, dict) else {}


def _told_error(error: dict[str, Any]) -> tuple[str, str, str]:
    """Return column, message and what was given, of one of pydantic's errors."""
    message = error["msg"].removeprefix("Value error, ")
    if error["type"] == "missing":
        message = "is missing"
    place = [str(part + 1) if isinstance(part, int) else str(part) for part in error["loc"]]
    if not place:
        column, _, message = message.partition(": ")
        return column, message, ""
    given = "" if error["type"] == "missing" else f" (given: {shown(error['input'])})"
    if len(place) > 1:
        message = f"{' '.join(place[1:])}: {message}"
    return place[0], message, given


def _refuse_duplicates(rows: Sequence[PlacedRow], notes: Notes) -> None:
    first: dict[tuple[Any, ...], PlacedRow] = {}
    for placed in rows:
        earlier = first.setdefault(placed.row.key, placed)
        if earlier is not placed:
            notes.wrong(
                placed.error(placed.row.key_columns[0], f"stands already in line {earlier.line}")
            )


def one_row(
    name: str, values: dict[str, object], *, place: str, zone: str = DEFAULT_ZONE
) -> RegistryFile:
    """Return a file of one row of a list, read by the rules of all files; None is not given.

    Args:
        name: of the list.
        values: by column, as a file or a form has them.
        place: what a message calls it.
        zone: time zone of times that have no offset.

    Raises: RegistryFileError, naming the columns.
    """
    notes = Notes()
    reading = CurrentRow(place, 1, notes, ZoneInfo(zone))
    placed = _validate(RawRow(place, 1, values), LISTS[name], reading)
    notes.refuse()
    rows: dict[str, list[PlacedRow]] = {other: [] for other in LISTS}
    rows[name] = [] if placed is None else [placed]
    return RegistryFile(place, "", rows, told=tuple(notes.told()))


def read_registry_file(
    path: Path,
    *,
    zone: str = DEFAULT_ZONE,
    on_source: Callable[[ListSource], None] = lambda _: None,
) -> RegistryFile:
    """Return the valid rows of a registry file.

    Args:
        path: the file or folder.
        zone: time zone of times that have no offset.
        on_source: is told what was read from where, also when something of it is wrong.

    Raises: RegistryFileError, naming file, line and column of every bad row (up to 100).
    """
    notes = Notes()
    try:
        digest, raw = _read_raw(path, notes)
    except OSError as exc:
        raise RegistryFileError(f"{path}: can't be read: {exc.strerror}") from exc
    notes.sources.sort(key=lambda source: list(LISTS).index(source.list))
    for source in notes.sources:
        on_source(source)
    rows: dict[str, list[PlacedRow]] = {}
    for name, model in LISTS.items():
        found = (
            _validate(raw_row, model, CurrentRow(raw_row.file, raw_row.line, notes, ZoneInfo(zone)))
            for raw_row in raw.get(name, [])
        )
        rows[name] = [placed for placed in found if placed is not None]
        _refuse_duplicates(rows[name], notes)
    notes.refuse()
    return RegistryFile(
        readable(path.name or str(path)), digest, rows, tuple(notes.sources), tuple(notes.told())
    )
