"""One sheet of a workbook: its filled cells, line by line."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from chargewatch.errors import RegistryFileError
from chargewatch.wire.registry.tables import LIMITS, TableLine, column_index, refuse_too_many
from chargewatch.wire.registry.values import Formula, SheetNumber, is_blank
from chargewatch.wire.registry.xml_events import Attributes

MAX_LINE, MAX_COLUMN = 1_048_576, 16_384

_REFERENCE = re.compile(r"\$?([A-Za-z]{1,3})\$?(\d{1,7})")
_ESCAPE = re.compile(r"_x([0-9A-Fa-f]{4})_")
_TRUE = {"1", "true"}


def unescape(text: str) -> str:
    """Return a text in which _x000D_ stands for a character that XML can't hold."""
    return _ESCAPE.sub(lambda found: chr(int(found[1], 16)), text) if "_x" in text else text


@dataclass(frozen=True)
class CellFormats:
    """What the cells of a workbook refer to."""

    texts: Sequence[str]
    styles: Sequence[tuple[Literal["plain", "date", "percent"], int]]
    is_1904: bool


@dataclass
class Sheet:
    """What a sheet holds."""

    lines: list[TableLine] = field(default_factory=list)
    merged: list[tuple[int, int, str]] = field(default_factory=list)
    hidden_lines: int = 0
    hidden_columns: bool = False


class SheetReader:
    """Reads a sheet's XML; the dimension that it claims is not asked."""

    def __init__(self, place: str, formats: CellFormats) -> None:
        self.place = place
        self.formats = formats
        self.sheet = Sheet()
        self._line = 0
        self._hidden = False
        self._cells: dict[int, object] = {}
        self._column = -1
        self._type = "n"
        self._style = 0
        self._formula: list[str] | None = None
        self._value: list[str] = []
        self._into: list[str] | None = None
        self._phonetic = False
        self._count = 0

    def start(self, name: str, attributes: Attributes) -> None:
        """An element begins."""
        if name == "c":
            self._start_cell(attributes)
        elif name == "v":
            self._into = self._value
        elif name == "t":
            self._into = None if self._phonetic else self._value
        elif name == "f":
            self._into = self._formula = []
        elif name == "rPh":
            self._phonetic = True
        elif name == "row":
            self._start_line(attributes)
        elif name == "mergeCell":
            self._merge(attributes.get("ref", ""))
        elif name == "col" and attributes.get("hidden") in _TRUE:
            self.sheet.hidden_columns = True

    def end(self, name: str) -> None:
        """An element ends."""
        if name in {"v", "t", "f"}:
            self._into = None
        elif name == "c":
            value = self._cell()
            if not is_blank(value):
                self._count += 1
                self._cells[self._column] = value
        elif name == "rPh":
            self._phonetic = False
        elif name == "row":
            self._end_line()
        elif name == "sheetData":
            self.sheet.lines.sort(key=lambda line: line.number)

    def text(self, text: str) -> None:
        """Text, in pieces."""
        if self._into is not None:
            self._into.append(text)

    def _start_line(self, attributes: Attributes) -> None:
        told = attributes.get("r")
        self._line = self._whole(told) if told else self._line + 1
        self._hidden = attributes.get("hidden") in _TRUE
        self._cells = {}
        self._column = -1

    def _whole(self, text: str) -> int:
        if not re.fullmatch(r"\d{1,7}", text) or not 1 <= int(text) <= MAX_LINE:
            raise RegistryFileError(f"{self.place}: is damaged: it has a row {text[:20]!r}")
        return int(text)

    def _end_line(self) -> None:
        if not self._cells:
            return
        self.sheet.lines.append(TableLine(self._line, self._cells))
        self.sheet.hidden_lines += self._hidden
        refuse_too_many(self.place, len(self.sheet.lines))
        if self._count > LIMITS.cells:
            raise RegistryFileError(f"{self.place}: has more than {LIMITS.cells:,} filled cells")

    def _start_cell(self, attributes: Attributes) -> None:
        reference = attributes.get("r")
        if reference is None:
            self._column += 1
        else:
            found = _REFERENCE.fullmatch(reference)
            self._column = column_index(found[1].upper()) if found else MAX_COLUMN
            if self._column >= MAX_COLUMN:
                raise RegistryFileError(
                    f"{self.place}, line {self._line}: is damaged: it has a cell {reference[:20]!r}"
                )
        self._type = attributes.get("t", "n")
        style = attributes.get("s", "0")
        self._style = int(style) if re.fullmatch(r"\d{1,6}", style) else 0
        self._formula, self._value = None, []

    def _cell(self) -> object:
        text = "".join(self._value)
        if self._formula is not None:
            # Its stored value may be missing or stale; nobody typed it.
            return Formula("".join(self._formula)[:60])
        if self._type == "s":
            index = int(text) if re.fullmatch(r"\d{1,9}", text.strip()) else -1
            if not 0 <= index < len(self.formats.texts):
                raise RegistryFileError(
                    f"{self.place}, line {self._line}: is damaged: a cell's text is missing"
                )
            return self.formats.texts[index]
        if self._type in {"str", "inlineStr", "e"}:
            return unescape(text)
        text = text.strip()
        if self._type == "b":
            return {"1": True, "true": True, "0": False, "false": False}.get(text, text)
        if self._type == "d":
            return text
        return self._number(text)

    def _number(self, text: str) -> object:
        if not text:
            return None
        if not re.fullmatch(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d{1,3})?", text) or len(text) > 40:
            return text
        styles = self.formats.styles
        kind, width = styles[self._style] if self._style < len(styles) else ("plain", 0)
        return SheetNumber(text, kind, width, self.formats.is_1904)

    def _merge(self, reference: str) -> None:
        first, _, last = reference.partition(":")
        begin, end = _REFERENCE.fullmatch(first), _REFERENCE.fullmatch(last or first)
        if begin and end:
            self.sheet.merged.append((int(begin[2]), int(end[2]), reference[:20]))
