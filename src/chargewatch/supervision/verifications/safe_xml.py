"""Reading XML that somebody hands in: no document type, no entities, nothing from elsewhere.

A document type is what external entities, entities that grow by a thousand million and files of
this machine come in by, and no certificate needs one. Read by expat, which the standard library
ships; size, depth and number of elements are bounded.
"""

from __future__ import annotations

from typing import NoReturn
from xml.etree.ElementTree import Element, TreeBuilder
from xml.parsers import expat

from chargewatch.errors import ChargewatchError

MOST_XML_BYTES = 10_000_000
MOST_DEPTH = 100
MOST_ELEMENTS = 200_000


class XmlError(ChargewatchError):
    """A document is no XML that can be read safely."""


class _Reader:
    """What expat calls back: builds the tree, and stops at what is refused."""

    def __init__(self) -> None:
        self.builder = TreeBuilder()
        self.depth = self.elements = 0

    def start(self, name: str, attributes: dict[str, str]) -> None:
        self.depth += 1
        self.elements += 1
        if self.depth > MOST_DEPTH:
            raise XmlError(f"XML nested more than {MOST_DEPTH} deep is refused")
        if self.elements > MOST_ELEMENTS:
            raise XmlError(f"XML of more than {MOST_ELEMENTS} elements is refused")
        self.builder.start(_tag(name), {_tag(key): value for key, value in attributes.items()})

    def end(self, name: str) -> None:
        self.depth -= 1
        self.builder.end(_tag(name))

    def document_type(self, *_: object) -> NoReturn:
        raise XmlError("XML with a document type is refused: certificates have none")

    def entity(self, *_: object) -> NoReturn:
        raise XmlError("XML with entities is refused: certificates have none")


def _tag(name: str) -> str:
    return "{" + name if "}" in name else name


def read_xml(content: bytes) -> Element:
    """Return the root of an XML document.

    Raises: XmlError for what is no XML, too large, too deep, or has a document type or entities.
    """
    if len(content) > MOST_XML_BYTES:
        raise XmlError(f"XML of more than {MOST_XML_BYTES // 1_000_000} MB is refused")
    reader = _Reader()
    parser = expat.ParserCreate(namespace_separator="}")
    parser.buffer_text = True
    parser.StartElementHandler = reader.start
    parser.EndElementHandler = reader.end
    parser.CharacterDataHandler = reader.builder.data
    parser.StartDoctypeDeclHandler = reader.document_type
    parser.EntityDeclHandler = reader.entity
    parser.UnparsedEntityDeclHandler = reader.entity
    parser.ExternalEntityRefHandler = reader.entity
    parser.SetParamEntityParsing(expat.XML_PARAM_ENTITY_PARSING_NEVER)
    try:
        parser.Parse(content, True)
        return reader.builder.close()
    except expat.ExpatError as exc:
        raise XmlError(f"no XML: {exc}") from exc
    except (ValueError, LookupError, AssertionError) as exc:
        raise XmlError(f"no XML that can be read: {exc}") from exc
