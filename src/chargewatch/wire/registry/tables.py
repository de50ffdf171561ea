"""Tables of cells, as CSV files and sheets hold them: header, columns and rows."""

from __future__ import annotations

import difflib
import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from chargewatch.errors import RegistryFileError
from chargewatch.wire.registry.ledger_columns import LEDGER_NAMES
from chargewatch.wire.registry.notes import ListSource, Notes, RawRow, readable
from chargewatch.wire.registry.values import is_blank, shown, strip
from chargewatch.wire.registry_models import LISTS

HEADER_WITHIN = 20
"""Filled lines from the top, one of which must be the header."""


@dataclass
class FileLimits:
    """What a file may hold at most, so that a small one can't fill the memory."""

    unpacked_bytes: int = 512 * 1024 * 1024
    rows: int = 1_000_000
    cells: int = 10_000_000
    members: int = 10_000


LIMITS = FileLimits()


@dataclass(frozen=True)
class TableLine:
    """A line of a table that holds something: its number and its filled cells by column."""

    number: int
    cells: Mapping[int, object]


@dataclass(frozen=True)
class Table:
    """A list's table as it stands in the file.

    Attributes:
        merged: first line, last line and reference of merged cells.
    """

    list: str
    place: str
    lines: Sequence[TableLine]
    merged: Sequence[tuple[int, int, str]] = ()


def compact(text: str) -> str:
    """Return a name without case, width, blanks and marks: "Station ID*" is "stationid"."""
    folded = unicodedata.normalize("NFKC", text).casefold()
    return "".join(character for character in folded if character.isalnum())


_LIST_OF = {compact(name): name for name in LISTS}
_LIST_OF |= {compact(name): "ledger" for name in LEDGER_NAMES}
_COLUMNS_OF = {
    name: {compact(column): column for column in model.model_fields}
    | {compact(other): column for column, others in model.headings.items() for other in others}
    for name, model in LISTS.items()
}
OTHER = "extra: "
"""How a column begins that nobody knows, of a list that keeps such."""


def list_named(text: str) -> str | None:
    """Return the list that a sheet, file or key is named after, whatever its case."""
    return _LIST_OF.get(compact(text))


def known_columns(name: str, cells: Mapping[int, object]) -> int:
    """Return how many cells name a column of a list."""
    columns = _COLUMNS_OF[name]
    return sum(isinstance(cell, str) and compact(cell) in columns for cell in cells.values())


def letters(column: int) -> str:
    """Return a sheet's name of a column, counted from 0."""
    name = ""
    column += 1
    while column:
        column, rest = divmod(column - 1, 26)
        name = chr(ord("A") + rest) + name
    return name


class TableColumns:
    """Names of a list's columns, as a file writes them."""

    def __init__(self, name: str, place: str, notes: Notes) -> None:
        self.known = _COLUMNS_OF[name]
        self.list = name
        self.place = place
        self.notes = notes
        self._seen: dict[str, str | None] = {}

    def named(self, text: str, line: int) -> str | None:
        """Return the column of a name; None, noted once, when there is none."""
        if text not in self._seen:
            column = self._seen[text] = self.known.get(compact(text))
            if column is None and LISTS[self.list].keeps_others:
                column = self._seen[text] = OTHER + strip(text)[:100]
                self.notes.tell(f"{self.place}: column {text[:60]!r} is kept as it is")
            elif column is None:
                self.notes.wrong(self._unknown(text, line))
            elif strip(text) != column:
                self.notes.tell(f"{self.place}: column {text[:60]!r} was read as {column}")
        return self._seen[text]

    def _unknown(self, text: str, line: int) -> str:
        known = list(dict.fromkeys(self.known.values()))
        close = difflib.get_close_matches(text[:60], known, n=1)
        guess = f" (meant {close[0]}?)" if close else ""
        return (
            f"{self.place}, line {line}, column {strip(text)[:60]}: is not a column of "
            f"{self.list}{guess}; known: {', '.join(known)}"
        )

    def of_object(self, values: Mapping[str, object], line: int) -> dict[str, object]:
        """Return a JSON object's values by column."""
        found: dict[str, object] = {}
        for key, value in values.items():
            column = self.named(key, line)
            if column in found:
                self.notes.wrong(f"{self.place}, line {line}, column {column}: stands there twice")
            elif column is not None:
                found[column] = value
        return found


def rows_of_table(table: Table, notes: Notes) -> list[RawRow]:
    """Return a table's rows; what is wrong with its header is noted."""
    at = _header_index(table, notes)
    if at is None:
        notes.sources.append(ListSource(table.list, readable(table.place), 0))
        return []
    header = table.lines[at]
    columns = _columns_of(table, header, notes)
    rows = []
    for line in table.lines[at + 1 :]:
        values = {}
        for index, cell in line.cells.items():
            column = columns.get(index, "")
            if column == "":
                notes.wrong(
                    f"{table.place}, line {line.number}, column {letters(index)}: holds "
                    f"{shown(cell)}, and the header (line {header.number}) has no name there"
                )
            elif column is not None:
                values[column] = cell
        if line.cells == header.cells:
            notes.wrong(f"{table.place}, line {line.number}: repeats the header")
        rows.append(RawRow(table.place, line.number, values))
    _refuse_merged(table, header, notes)
    notes.sources.append(ListSource(table.list, readable(table.place), len(rows)))
    return rows if _has_required(table, header, columns, notes) else []


def _header_index(table: Table, notes: Notes) -> int | None:
    counts = [known_columns(table.list, line.cells) for line in table.lines[:HEADER_WITHIN]]
    if not counts:
        notes.tell(f"{table.place}: is empty")
        return None
    at = counts.index(max(counts))
    if counts[at] == 0:
        first = table.lines[0]
        found = ", ".join(shown(cell) for cell in list(first.cells.values())[:20])
        notes.wrong(
            f"{table.place}, line {first.number}: no header was found; the first line holds "
            f"{found}, known columns: {', '.join(LISTS[table.list].model_fields)}"
        )
        return None
    for line in table.lines[:at]:
        if len(line.cells) == 1:
            title = shown(next(iter(line.cells.values())))
            notes.tell(f"{table.place}, line {line.number}: a title above the header: {title}")
        else:
            notes.wrong(
                f"{table.place}, line {line.number}: stands above the header (line "
                f"{table.lines[at].number}) and is no title; take it out or put it below"
            )
    return at


def _columns_of(table: Table, header: TableLine, notes: Notes) -> dict[int, str | None]:
    names = TableColumns(table.list, table.place, notes)
    columns: dict[int, str | None] = {}
    for index, cell in header.cells.items():
        text = cell if isinstance(cell, str) else str(cell)
        column = names.named(text, header.number)
        if column is not None and column in columns.values():
            notes.wrong(
                f"{table.place}, line {header.number}, column {letters(index)}: {column} stands "
                "in the header twice"
            )
            column = None
        columns[index] = column
    return columns


def _has_required(
    table: Table, header: TableLine, columns: Mapping[int, str | None], notes: Notes
) -> bool:
    missing = [name for name in LISTS[table.list].required() if name not in columns.values()]
    for name in missing:
        notes.wrong(f"{table.place}, line {header.number}, column {name}: is missing in the header")
    return not missing


def _refuse_merged(table: Table, header: TableLine, notes: Notes) -> None:
    """A merged cell has a value in its first cell only: the others would be empty."""
    filled = {line.number: line.cells for line in table.lines}
    for first, last, reference in table.merged:
        column = re.match(r"[A-Z]+", reference)
        index = column_index(column[0]) if column else 0
        if last >= header.number and index in filled.get(first, {}):
            notes.wrong(
                f"{table.place}, line {first}, column {letters(index)}: the cells {reference} "
                "are merged; split them and fill each"
            )


def column_index(name: str) -> int:
    """Return a column's number, counted from 0, of a sheet's letters."""
    index = 0
    for letter in name:
        index = 26 * index + ord(letter) - ord("A") + 1
    return index - 1


def filled(cells: Sequence[object]) -> dict[int, object]:
    """Return the cells that hold something, by column."""
    return {index: cell for index, cell in enumerate(cells) if not is_blank(cell)}


def refuse_too_many(place: str, rows: int) -> None:
    """Raise RegistryFileError when a table has more rows than are read."""
    if rows > LIMITS.rows:
        raise RegistryFileError(f"{place}: has more than {LIMITS.rows:,} rows; split the file")
