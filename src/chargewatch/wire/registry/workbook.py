"""Workbooks (XLSX): their parts, and the sheets in them.

Read here and not by a library, because a register of instruments needs what libraries leave out:
the digits as they stand in the file, whether a cell holds a formula, what is hidden or merged; and
nothing that the file says about itself (its dimension, its styles) may cost a row.
Source: ECMA-376, part 1 (SpreadsheetML) and part 2 (packages).
"""

from __future__ import annotations

import posixpath
import re
from dataclasses import dataclass, field
from typing import Literal

from chargewatch.errors import RegistryFileError
from chargewatch.wire.registry.archive import RegistryZip
from chargewatch.wire.registry.notes import Notes
from chargewatch.wire.registry.sheet import CellFormats, Sheet, SheetReader, unescape
from chargewatch.wire.registry.tables import Table, list_named
from chargewatch.wire.registry.xml_events import Attributes, attribute, read_xml

Kind = Literal["plain", "date", "percent"]

_DATE_FORMATS = {*range(14, 23), *range(27, 37), *range(45, 48), *range(50, 59)}
_PERCENT_FORMATS = {9, 10}
_LITERALS = re.compile(r'"[^"]*"|\\.|_.|\*.|\[(?![hms]+\])[^\]]*\]', re.IGNORECASE)


@dataclass
class _Relations:
    """Where the parts are that a part refers to."""

    found: dict[str, tuple[str, str]] = field(default_factory=dict)

    def start(self, name: str, attributes: Attributes) -> None:
        if name == "Relationship":
            kind = attributes.get("Type", "").rpartition("/")[2]
            self.found[attributes.get("Id", "")] = (kind, attributes.get("Target", ""))

    def end(self, name: str) -> None:
        pass

    def text(self, text: str) -> None:
        pass


@dataclass
class _Index:
    """The workbook's own part: names of the sheets, and its system of dates."""

    is_1904: bool = False
    sheets: list[tuple[str, str, str]] = field(default_factory=list)

    def start(self, name: str, attributes: Attributes) -> None:
        if name == "workbookPr":
            self.is_1904 = attributes.get("date1904") in {"1", "true", "on"}
        elif name == "sheet":
            self.sheets.append(
                (
                    attributes.get("name", ""),
                    attribute(attributes, "id") or "",
                    attributes.get("state", "visible"),
                )
            )

    def end(self, name: str) -> None:
        pass

    def text(self, text: str) -> None:
        pass


@dataclass
class _Strings:
    """The texts that cells share; phonetic readings beside them are no part of them."""

    texts: list[str] = field(default_factory=list)
    _pieces: list[str] = field(default_factory=list)
    _in_text: bool = False
    _phonetic: bool = False

    def start(self, name: str, attributes: Attributes) -> None:
        if name == "si":
            self._pieces = []
        elif name == "rPh":
            self._phonetic = True
        elif name == "t":
            self._in_text = not self._phonetic

    def end(self, name: str) -> None:
        if name == "si":
            self.texts.append(unescape("".join(self._pieces)))
        elif name == "rPh":
            self._phonetic = False
        elif name == "t":
            self._in_text = False

    def text(self, text: str) -> None:
        if self._in_text:
            self._pieces.append(text)


@dataclass
class _Styles:
    """Which style shows a number as a date, a percentage or with leading zeros."""

    codes: dict[int, str] = field(default_factory=dict)
    formats: list[int] = field(default_factory=list)
    _in_cells: bool = False

    def start(self, name: str, attributes: Attributes) -> None:
        if name == "cellXfs":
            self._in_cells = True
        elif name == "numFmt":
            self.codes[_number(attributes.get("numFmtId"))] = attributes.get("formatCode", "")
        elif name == "xf" and self._in_cells:
            self.formats.append(_number(attributes.get("numFmtId")))

    def end(self, name: str) -> None:
        if name == "cellXfs":
            self._in_cells = False

    def text(self, text: str) -> None:
        pass

    def kinds(self) -> list[tuple[Kind, int]]:
        return [self._kind(number) for number in self.formats]

    def _kind(self, number: int) -> tuple[Kind, int]:
        code = self.codes.get(number)
        if code is None:
            kind: Kind = "plain"
            if number in _DATE_FORMATS:
                kind = "date"
            elif number in _PERCENT_FORMATS:
                kind = "percent"
            return kind, 0
        if re.fullmatch(r"0{2,}", code):
            return "plain", len(code)
        bare = _LITERALS.sub("", code).casefold()
        if "%" in bare:
            return "percent", 0
        return ("date" if re.search(r"[ymdhs]", bare) and "general" not in bare else "plain"), 0


def _number(text: str | None) -> int:
    return int(text) if text is not None and re.fullmatch(r"\d{1,9}", text) else 0


class Workbook:
    """An open workbook."""

    def __init__(self, archive: RegistryZip, notes: Notes) -> None:
        self.archive = archive
        self.notes = notes
        # Some writers differ in case between a reference and the part's name.
        self._paths = {path.casefold().lstrip("/"): path for path in archive.paths}
        self.part = self._main_part()
        self.relations = self._relations_of(self.part)
        self.index = _Index()
        self._read(self.part, self.index)

    def _read(self, part: str, handler: object) -> None:
        path = self._paths.get(part.casefold())
        if path is None:
            raise RegistryFileError(
                f"{self.archive.name}: is not an XLSX workbook: its part {part[:80]} is missing"
            )
        with self.archive.open(path) as stream:
            read_xml(f"{self.archive.name}: {part}", stream, handler)  # type: ignore[arg-type]

    def _relations_of(self, part: str) -> dict[str, tuple[str, str]]:
        folder, name = posixpath.split(part)
        path = posixpath.join(folder, "_rels", f"{name}.rels")
        relations = _Relations()
        if path.casefold() in self._paths:
            self._read(path, relations)
        return {
            key: (kind, posixpath.normpath(posixpath.join("/", folder, target)).lstrip("/"))
            for key, (kind, target) in relations.found.items()
        }

    def _main_part(self) -> str:
        for kind, target in self._relations_of("").values():
            if kind == "officeDocument":
                return target
        return "xl/workbook.xml"

    def _part_of(self, kind: str) -> str | None:
        for found, target in self.relations.values():
            if found == kind and target.casefold() in self._paths:
                return target
        return None

    def formats(self) -> CellFormats:
        """Return what cells refer to: shared texts, styles, the system of dates."""
        strings, styles = _Strings(), _Styles()
        if (part := self._part_of("sharedStrings")) is not None:
            self._read(part, strings)
        if (part := self._part_of("styles")) is not None:
            self._read(part, styles)
        return CellFormats(strings.texts, styles.kinds(), self.index.is_1904)

    def tables(self) -> list[Table]:
        """Return the tables of the sheets that are named after lists; the others are noted."""
        formats = self.formats()
        tables: dict[str, Table] = {}
        for title, relation, state in self.index.sheets:
            kind, part = self.relations.get(relation, ("", ""))
            if kind not in {"worksheet", ""} and list_named(title) is None:
                self.notes.tell(f"{self.archive.name}: sheet {title} is a {kind}, not read")
                continue
            reader = SheetReader(f"{self.archive.name}: sheet {title}", formats)
            self._read(part, reader)
            table = self._table(title, state, reader.sheet)
            if table is None:
                continue
            if table.list in tables:
                self.notes.wrong(
                    f"{table.place}: is a second sheet of {table.list}, beside "
                    f"{tables[table.list].place}"
                )
                continue
            tables[table.list] = table
        return list(tables.values())

    def _table(self, title: str, state: str, sheet: Sheet) -> Table | None:
        name, place = list_named(title), f"{self.archive.name}: sheet {title}"
        if name is None:
            if sheet.lines:
                self.notes.wrong(f"{place}: is not named after a list of a registry file")
            else:
                self.notes.tell(f"{place}: is empty, and no list")
            return None
        if title != name:
            self.notes.tell(f"{place}: read as the list {name}")
        if state != "visible":
            self.notes.tell(f"{place}: is hidden, and was read")
        if sheet.hidden_lines:
            self.notes.tell(f"{place}: {sheet.hidden_lines} hidden rows were read")
        if sheet.hidden_columns:
            self.notes.tell(f"{place}: hidden columns were read")
        return Table(name, place, sheet.lines, sheet.merged)


def is_workbook(archive: RegistryZip) -> bool:
    """Whether a zip holds a workbook."""
    return any(path.casefold().endswith("xl/workbook.xml") for path in archive.paths) or (
        "[content_types].xml" in {path.casefold() for path in archive.paths}
    )
