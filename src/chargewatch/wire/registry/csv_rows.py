"""Tables of CSV files, whatever their encoding and separator."""

from __future__ import annotations

import csv
import io
import itertools
import re
from collections.abc import Iterator

from chargewatch.errors import RegistryFileError
from chargewatch.wire.registry.encoding import decode
from chargewatch.wire.registry.notes import Notes
from chargewatch.wire.registry.tables import (
    HEADER_WITHIN,
    Table,
    TableLine,
    filled,
    known_columns,
    refuse_too_many,
)

SEPARATORS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "bars"}
_HINT = re.compile(r'"?sep=([,;\t|])"?,*\r?\n', re.IGNORECASE)


def read_csv(name: str, content: bytes, list_name: str, notes: Notes) -> Table:
    """Return the table of a CSV file.

    Raises: RegistryFileError, naming the line, when it can't be read.
    """
    text = decode(name, content, notes)
    hint = _HINT.match(text)
    skipped = 1 if hint else 0
    text = text[hint.end() :] if hint else text
    separator = hint[1] if hint else _separator_of(text, list_name)
    if separator != ",":
        notes.tell(f"{name}: separated by {SEPARATORS.get(separator, repr(separator))}")
    lines = []
    try:
        for number, cells in _lines(text, separator):
            found = filled(cells)
            if found:
                lines.append(TableLine(number + skipped, found))
                refuse_too_many(name, len(lines))
    except _BadLineError as exc:
        raise RegistryFileError(f"{name}, line {exc.line + skipped}: {exc}") from exc
    return Table(list_name, name, lines)


class _BadLineError(Exception):
    def __init__(self, line: int, reason: str) -> None:
        super().__init__(reason)
        self.line = line


def _lines(text: str, separator: str) -> Iterator[tuple[int, list[str]]]:
    """Yield lines of cells with the number on which each begins."""
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
    number = 1
    try:
        for cells in reader:
            yield number, cells
            number = reader.line_num + 1
    except csv.Error as exc:
        raise _BadLineError(max(number, 1), str(exc)) from exc


def _separator_of(text: str, list_name: str) -> str:
    """Return the separator with which one of the first lines names most columns."""

    def named(separator: str) -> int:
        best = 0
        try:
            for _, cells in itertools.islice(_lines(text, separator), 3 * HEADER_WITHIN):
                best = max(best, known_columns(list_name, dict(enumerate(cells))))
        except _BadLineError:
            # What stands before it counts; the reading with the chosen separator tells the error.
            return best
        return best

    return max(SEPARATORS, key=named)
