"""What kind of file it is, found from its bytes: the name only has to agree.

A file is kept as it came and given out as a download, never shown; still nothing is taken that a
browser or an office program might run.
"""

from __future__ import annotations

import io
import re
from collections.abc import Mapping
from pathlib import PurePosixPath

import orjson

from chargewatch.errors import ChargewatchError, RegistryFileError
from chargewatch.wire.registry.archive import RegistryZip
from chargewatch.wire.registry.encoding import decode
from chargewatch.wire.registry.notes import Notes
from chargewatch.wire.registry.xml_events import Attributes, read_xml

XLSX = "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet"
ENDINGS: Mapping[str, tuple[str, ...]] = {
    "application/pdf": (".pdf",),
    "image/jpeg": (".jpg", ".jpeg"),
    "image/png": (".png",),
    "application/xml": (".xml",),
    "application/json": (".json",),
    "text/csv": (".csv",),
    "text/plain": (".txt",),
    XLSX: (".xlsx",),
}
"""The kinds of files that are taken, and how their names may end; the first is the usual one."""

MOST_UNPACKED_BYTES = 200 * 1024 * 1024
"""A workbook's sheets; one of 10 MB rarely has more than 100."""
LONGEST_NAME = 120

_PDF = re.compile(rb"%PDF-[12]\.\d")
_PNG = b"\x89PNG\r\n\x1a\n"
_JPEG = b"\xff\xd8\xff"
_ZIP = b"PK\x03\x04"
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0e-\x1f\x7f]")
_SHOWN_AS_PAGES = frozenset({"html", "svg", "script", "stylesheet", "transform"})


class FileError(ChargewatchError):
    """A file is not taken."""


def plain_name(name: str) -> str:
    """Return the last part of a file's name, as browsers of any system send it.

    Raises: FileError when nothing is left of it.
    """
    last = re.split(r"[/\\]", name)[-1]
    last = "".join(letter for letter in last if letter.isprintable()).strip(" .")
    if len(last) > LONGEST_NAME:
        stem, dot, ending = last.rpartition(".")
        last = stem[: LONGEST_NAME - len(ending) - 1] + dot + ending[:LONGEST_NAME] if dot else last
        last = last[:LONGEST_NAME]
    if not last:
        raise FileError(f"a file is called {name[:40]!r}: give it a name like certificate.pdf")
    return last


def found_type(name: str, content: bytes) -> str:
    """Return the media type of a file's content.

    Raises: FileError that says which kinds are taken, or that the name tells another one.
    """
    if not content:
        raise FileError(f"{name}: the file is empty; choose it again")
    try:
        found = _binary_type(name, content) or _text_type(name, content)
    except RegistryFileError as exc:
        raise FileError(f"{exc}. {_taken()}") from exc
    ending = PurePosixPath(name).suffix.lower()
    if found == "text/plain" and ending == ".csv":
        # Comma-separated values are a text that is called so.
        found = "text/csv"
    if ending not in ENDINGS[found]:
        raise FileError(
            f"{name}: its content is {found}, its name tells something else; name it "
            f"{PurePosixPath(name).stem}{ENDINGS[found][0]} if that is what it is. {_taken()}"
        )
    return found


def _taken() -> str:
    names = ", ".join(ending[0].removeprefix(".").upper() for ending in ENDINGS.values())
    return f"Taken are {names}"


def _binary_type(name: str, content: bytes) -> str | None:
    if _PDF.match(content):
        if b"%%EOF" not in content[-1024:]:
            raise FileError(f"{name}: the PDF has no end; it is damaged, or something follows it")
        return "application/pdf"
    if content.startswith(_PNG):
        if not _is_whole_png(content):
            raise FileError(f"{name}: the PNG is damaged, or something follows it")
        return "image/png"
    if content.startswith(_JPEG):
        if not _is_jpeg(content):
            raise FileError(f"{name}: the JPEG is damaged")
        return "image/jpeg"
    if content.startswith(_ZIP):
        _check_workbook(name, content)
        return XLSX
    return None


def _is_whole_png(content: bytes) -> bool:
    """Whether chunks follow each other from IHDR to IEND, and nothing follows that.

    Source: ISO/IEC 15948, 5.3 and 5.6.
    """
    place, first = len(_PNG), True
    while place + 12 <= len(content):
        length = int.from_bytes(content[place : place + 4])
        kind = content[place + 4 : place + 8]
        if first and kind != b"IHDR":
            return False
        first = False
        place += 12 + length
        if kind == b"IEND":
            return place == len(content)
    return False


def _is_jpeg(content: bytes) -> bool:
    """Whether marker segments lead from the start of the image to its first scan.

    Cameras write more behind the image's end. Source: ISO/IEC 10918-1, annex B.
    """
    place = 2
    while place + 4 <= len(content) and content[place] == 0xFF:
        marker = content[place + 1]
        if marker == 0xFF:
            place += 1
            continue
        if marker == 0xDA:
            return b"\xff\xd9" in content[place:]
        length = int.from_bytes(content[place + 2 : place + 4])
        if length < 2 or marker in (0x00, 0xD9):
            return False
        place += 2 + length
    return False


def _check_workbook(name: str, content: bytes) -> None:
    archive = RegistryZip(name, content)
    if not {"[Content_Types].xml", "xl/workbook.xml"} <= set(archive.paths):
        raise FileError(f"{name}: is a zip, and no XLSX workbook. {_taken()}")
    if archive.declared_bytes > MOST_UNPACKED_BYTES:
        raise FileError(f"{name}: unpacks to more than {MOST_UNPACKED_BYTES >> 20} MiB; split it")
    with archive.open("[Content_Types].xml") as stream:
        types = stream.read(1 << 20)
    if b"macroEnabled" in types or any(path.endswith("vbaProject.bin") for path in archive.paths):
        raise FileError(f"{name}: holds macros; save it as XLSX without them")


def _text_type(name: str, content: bytes) -> str:
    try:
        text = decode(name, content, Notes())
    except RegistryFileError:
        text = "\0"
    if _CONTROL.search(text):
        raise FileError(f"{name}: is no text, and no kind of file that is taken. {_taken()}")
    beginning = text.lstrip()[:1]
    if beginning == "<":
        return _xml_type(name, content)
    if beginning in ("{", "["):
        try:
            orjson.loads(text)
        except orjson.JSONDecodeError:
            return "text/plain"
        return "application/json"
    return "text/plain"


class _Root:
    """Notes the outermost element, and one that a browser would show as a page."""

    def __init__(self) -> None:
        self.shown = ""

    def start(self, name: str, attributes: Attributes) -> None:
        """See an element."""
        if name.lower() in _SHOWN_AS_PAGES:
            self.shown = self.shown or name

    def end(self, name: str) -> None:
        """Nothing to do."""

    def text(self, text: str) -> None:
        """Nothing to do."""


def _xml_type(name: str, content: bytes) -> str:
    root = _Root()
    try:
        read_xml(name, io.BytesIO(content.lstrip()), root)
    except RegistryFileError as exc:
        raise FileError(
            f"{name}: looks like a page or damaged XML, which is not taken. {_taken()}"
        ) from exc
    if root.shown:
        raise FileError(f"{name}: holds an element {root.shown!r}, as pages do. {_taken()}")
    return "application/xml"
