"""The text of a file, whose encoding nobody told."""

from __future__ import annotations

import codecs

from chargewatch.errors import RegistryFileError
from chargewatch.wire.registry.notes import Notes

_MARKS = (
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)


def decode(name: str, content: bytes, notes: Notes) -> str:
    """Return a file's text: UTF-8, UTF-16, or GB18030 (GBK), which is told.

    Raises: RegistryFileError when it is none of them for certain.
    """
    encoding = _told_encoding(content)
    if encoding is not None:
        try:
            text = content.decode(encoding)
        except UnicodeDecodeError as exc:
            raise RegistryFileError(
                f"{name}: begins as {encoding}, and is not at byte {exc.start}; save it as UTF-8"
            ) from exc
        if encoding != "utf-8-sig":
            notes.tell(f"{name}: read as {encoding.upper()}")
        return _without_end_marks(text)
    try:
        return _without_end_marks(content.decode("utf-8"))
    except UnicodeDecodeError as exc:
        chinese = _chinese(content)
        if chinese is None:
            raise RegistryFileError(
                f"{name}: is not UTF-8 at byte {exc.start}, nor GB18030 (GBK); save it as UTF-8"
            ) from exc
        notes.tell(f"{name}: read as GB18030 (GBK)")
        return _without_end_marks(chinese)


def _told_encoding(content: bytes) -> str | None:
    for mark, encoding in _MARKS:
        if content.startswith(mark):
            return encoding
    # A table and a JSON document begin with an ASCII character.
    if len(content) >= 2 and len(content) % 2 == 0:
        if content[0] and not content[1]:
            return "utf-16-le"
        if not content[0] and content[1]:
            return "utf-16-be"
    return None


def _without_end_marks(text: str) -> str:
    # C programs and DOS end a file with NUL or Ctrl-Z.
    return text.rstrip("\x00\x1a")


def _chinese(content: bytes) -> str | None:
    """Return the text of GB18030 bytes; None when they don't read as Chinese."""
    lossy = content.decode("utf-8", "replace")
    broken = lossy.count("\ufffd")
    # Chinese in UTF-8 has three bytes a character; GBK looks so by chance only.
    if sum(character > "\u07ff" for character in lossy) - broken > broken:
        return None
    try:
        text = content.decode("gb18030")
    except UnicodeDecodeError:
        return None
    return text if all(_is_usual(character) for character in set(text)) else None


def _is_usual(character: str) -> bool:
    code = ord(character)
    usual = (
        (0x00, 0x7F),
        (0xA0, 0xFF),
        (0x2000, 0x33FF),
        (0x3400, 0x9FFF),
        (0xF900, 0xFAFF),
        (0xFE30, 0xFE4F),
        (0xFF00, 0xFFEF),
        (0x20000, 0x3FFFF),
    )
    return any(first <= code <= last for first, last in usual)
