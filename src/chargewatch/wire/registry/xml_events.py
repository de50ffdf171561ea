"""XML read as a stream, without document types: no entities, so nothing to blow up."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import IO, Protocol
from xml.parsers import expat

from chargewatch.errors import RegistryFileError

Attributes = Mapping[str, str]


class Handler(Protocol):
    """What reads a document; names come without prefixes."""

    def start(self, name: str, attributes: Attributes) -> None:
        """An element begins."""

    def end(self, name: str) -> None:
        """An element ends."""

    def text(self, text: str) -> None:
        """Text, in pieces."""


def read_xml(where: str, stream: IO[bytes], handler: Handler) -> None:
    """Read a document to its end.

    Raises: RegistryFileError when it is damaged or declares a document type.
    """
    parser = expat.ParserCreate()
    local = _local_names()

    def doctype(*_: object) -> None:
        raise RegistryFileError(
            f"{where}: declares a document type, as no spreadsheet does; it is not read"
        )

    def start(name: str, attributes: dict[str, str]) -> None:
        handler.start(local(name), attributes)

    parser.StartDoctypeDeclHandler = doctype
    parser.StartElementHandler = start
    parser.EndElementHandler = lambda name: handler.end(local(name))
    parser.CharacterDataHandler = handler.text
    parser.buffer_text = True
    try:
        parser.ParseFile(stream)
    except (expat.ExpatError, LookupError, ValueError) as exc:
        raise RegistryFileError(f"{where}: is damaged: {exc}") from exc


def _local_names() -> Callable[[str], str]:
    """Return a function that strips prefixes, and remembers the few names that there are."""
    known: dict[str, str] = {}

    def local(name: str) -> str:
        found = known.get(name)
        if found is None:
            found = name.rpartition(":")[2]
            if len(known) < 1000:
                known[name] = found
        return found

    return local


def attribute(attributes: Attributes, name: str) -> str | None:
    """Return an attribute's value, whatever its prefix."""
    for key, value in attributes.items():
        if key.rpartition(":")[2] == name:
            return value
    return None
