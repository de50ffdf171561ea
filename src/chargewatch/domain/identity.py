"""Who and what may be named in a topic, a payload or the registry."""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache

StreamKey = tuple[str, str, str]
"""operator_id, station_id, topic kind of a stream of messages."""

IDENTITY_PATTERN = re.compile(r"[A-Za-z0-9_-]{1,64}")


def is_identity(text: str) -> bool:
    """Return whether a text may be an operator_id or station_id."""
    return IDENTITY_PATTERN.fullmatch(text) is not None


@lru_cache(maxsize=16_384)
def name_fault(name: str) -> str | None:
    """Return what makes a name look like another one, in words; None when it is fine.

    Names of connectors, meters and sessions are compared character by character: what nobody can
    see, or what looks the same, would make a second instrument of one.
    """
    if name.isascii() and name.isprintable():
        return "begins or ends with a blank" if name != name.strip(" ") else None
    if name != name.strip():
        return "begins or ends with a blank"
    for character in name:
        code = ord(character)
        if unicodedata.category(character) in ("Cc", "Cf", "Cs", "Zl", "Zp") or (
            character != " " and character.isspace()
        ):
            return f"has a control or invisible character (U+{code:04X})"
        if 0xFF01 <= code <= 0xFF60 or 0xFFE0 <= code <= 0xFFE6:
            plain = unicodedata.normalize("NFKC", character)
            return f"has a full-width character (U+{code:04X}): write {plain!r}"
    if not unicodedata.is_normalized("NFC", name):
        return "is not in composed form (Unicode NFC)"
    return None
