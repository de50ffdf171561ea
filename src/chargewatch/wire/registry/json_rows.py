"""Rows of a registry file in JSON, with the lines on which they begin."""

from __future__ import annotations

import json
from collections.abc import Callable
from json.decoder import scanstring  # type: ignore[attr-defined]

from chargewatch.errors import RegistryFileError
from chargewatch.wire.registry.encoding import decode
from chargewatch.wire.registry.json_text import JsonTextError, decoder
from chargewatch.wire.registry.notes import ListSource, Notes, RawRow, readable
from chargewatch.wire.registry.tables import LIMITS, TableColumns, list_named
from chargewatch.wire.registry_models import LISTS


class _Document:
    """One walk through the text, which keeps the rows and nothing else."""

    def __init__(self, name: str, text: str, notes: Notes) -> None:
        self.name = name
        self.text = text
        self.notes = notes
        self.decoder = decoder()
        self.rows: dict[str, list[RawRow]] = {}
        self.version: object = None
        self.seen: set[str] = set()
        self._line, self._counted = 1, 0

    def line(self, position: int) -> int:
        """Return the line of a position; positions only grow."""
        self._line += self.text.count("\n", self._counted, position)
        self._counted = position
        return self._line

    def skip(self, position: int) -> int:
        while position < len(self.text) and self.text[position] in " \t\r\n":
            position += 1
        return position

    def expect(self, characters: str, position: int) -> str:
        found = self.text[position : position + 1]
        if not found or found not in characters:
            wanted = " or ".join(repr(character) for character in characters)
            raise json.JSONDecodeError(f"expected {wanted}", self.text, position)
        return found

    def sequence(self, position: int, ends: str, item: Callable[[int], int]) -> int:
        """Walk an object or array from its opening bracket; return where it has ended."""
        position = self.skip(position + 1)
        if self.text[position : position + 1] == ends:
            return position + 1
        while True:
            position = self.skip(item(position))
            if self.expect("," + ends, position) == ends:
                return position + 1
            position = self.skip(position + 1)

    def value(self, where: str, position: int) -> tuple[object, int]:
        try:
            return self.decoder.raw_decode(self.text, position)
        except JsonTextError as exc:
            raise RegistryFileError(f"{where}, line {self.line(position)}: {exc}") from exc

    def member(self, position: int) -> int:
        self.expect('"', position)
        key, end = scanstring(self.text, position + 1)
        if key in self.seen:
            raise RegistryFileError(
                f"{self.name}, line {self.line(position)}: the key {key[:60]!r} stands there twice"
            )
        self.seen.add(key)
        end = self.skip(end)
        self.expect(":", end)
        start = self.skip(end + 1)
        if key == "version":
            self.version, end = self.value(f"{self.name}: version", start)
            return end
        name = list_named(key)
        if name is None:
            self.notes.wrong(
                f"{self.name}, line {self.line(start)}, column {key[:60]}: is not a list of a "
                f"registry file; known: {', '.join(LISTS)}"
            )
            _, end = self.value(f"{self.name}: {key[:60]}", start)
            return end
        return self.list_of(key, name, start)

    def list_of(self, key: str, name: str, start: int) -> int:
        if self.text[start : start + 1] != "[":
            raise RegistryFileError(
                f"{self.name}, line {self.line(start)}, column {key}: is not a list"
            )
        if name in self.rows:
            raise RegistryFileError(
                f"{self.name}, line {self.line(start)}: the list {name} stands there twice"
            )
        if key != name:
            self.notes.tell(f"{self.name}: the list {key!r} was read as {name}")
        place = readable(f"{self.name}: {key}")
        rows = self.rows[name] = []
        columns = TableColumns(name, place, self.notes)

        def item(position: int) -> int:
            value, end = self.value(place, position)
            line = self.line(position)
            if not isinstance(value, dict):
                raise RegistryFileError(
                    f"{self.name}, line {line}: {key} holds something not an object"
                )
            if len(rows) >= LIMITS.rows:
                raise RegistryFileError(f"{place}: has more than {LIMITS.rows:,} rows")
            rows.append(RawRow(place, line, columns.of_object(value, line)))
            return end

        end = self.sequence(start, "]", item)
        self.notes.sources.append(ListSource(name, place, len(rows)))
        return end

    def read(self) -> dict[str, list[RawRow]]:
        start = self.skip(0)
        if self.text[start : start + 1] == "[":
            raise RegistryFileError(f"{self.name}, line 1: a registry file is a JSON object")
        self.expect("{", start)
        end = self.skip(self.sequence(start, "}", self.member))
        if end != len(self.text):
            raise json.JSONDecodeError("more after the document's end", self.text, end)
        if self.version != 1 or isinstance(self.version, bool):
            raise RegistryFileError(
                f"{self.name}, column version: is {repr(self.version)[:60]}; "
                "this chargewatch reads 1"
            )
        if not self.rows:
            self.notes.refuse()
            raise RegistryFileError(f"{self.name}: holds none of the lists {', '.join(LISTS)}")
        return self.rows


def read_json(name: str, content: bytes, notes: Notes) -> dict[str, list[RawRow]]:
    """Return the rows of a registry file in JSON, by list.

    Raises: RegistryFileError, naming line and column, when it is not one.
    """
    try:
        return _Document(name, decode(name, content, notes), notes).read()
    except json.JSONDecodeError as exc:
        comment = (
            exc.doc[exc.pos : exc.pos + 2] in {"//", "/*"} or exc.doc[exc.pos : exc.pos + 1] == "#"
        )
        reason = "JSON has no comments" if comment else exc.msg
        raise RegistryFileError(
            f"{name}, line {exc.lineno}, column {exc.colno}: is not JSON: {reason}"
        ) from exc
    except RecursionError as exc:
        raise RegistryFileError(f"{name}: is nested too deeply") from exc
