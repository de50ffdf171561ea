"""What quarantine keeps of a rejected message: its bytes, without a plain VIN.

Nothing here recurses: what a sender nests is walked with a stack.
"""

from __future__ import annotations

import gzip
import json
from typing import Any

import orjson

from chargewatch.wire.envelope import (
    GZIP_CONTENT_TYPE,
    is_nested_deeper,
    load_any,
    looked_into,
)
from chargewatch.wire.personal import (
    REDACTED,
    bytes_without_vin,
    looks_like_vin,
    names_vehicle,
    vins_in,
    without_vin,
)
from chargewatch.wire.rejection import RejectedMessage

MAX_KEPT_BYTES = 1 << 20
_WRITABLE_DEPTH = 200  # what can be written as JSON again
_IDENTIFIERS = frozenset({"session", "connector", "meter", "serial"})


def _stands_for_vehicle(key: str) -> bool:
    lowered = key.strip().lower()
    return "vehicle" in lowered or lowered.startswith("vin")


def _clean(key: str, value: Any) -> Any:
    """Return a scalar as it may be kept under a key."""
    if isinstance(value, str):
        if _stands_for_vehicle(key):
            return REDACTED if names_vehicle(value) else value
        if key in _IDENTIFIERS:
            return REDACTED if looks_like_vin(value) else value
        return without_vin(value)
    if type(value) is int and value >= 10**16 and _stands_for_vehicle(key):
        return REDACTED
    return value


def _redact_object(item: dict[str, Any], waiting: list[Any]) -> bool:
    found = False
    for key, value in list(item.items()):
        if isinstance(value, dict | list):
            waiting.append(value)
            continue
        kept = _clean(key, value)
        if kept is not value and kept != value:
            item[key] = kept
            found = True
    for key in [key for key in item if without_vin(key) != key]:
        item[without_vin(key)] = item.pop(key)
        found = True
    return found


def _redact(document: dict[str, Any] | list[Any]) -> bool:
    """Replace plain VINs in a document in place; return whether there was one."""
    found = False
    waiting: list[Any] = [document]
    while waiting:
        outer = waiting.pop()
        if isinstance(outer, dict):
            found |= _redact_object(outer, waiting)
            continue
        for place, value in enumerate(outer):
            if isinstance(value, dict | list):
                waiting.append(value)
            elif isinstance(value, str) and without_vin(value) != value:
                outer[place] = without_vin(value)
                found = True
    return found


def _written(value: Any) -> bytes:
    try:
        return orjson.dumps(value)
    except TypeError:  # a lone surrogate, or a number that orjson does not write
        return json.dumps(value, separators=(",", ":")).encode()


def message_evidence(payload: bytes, content_type: str | None) -> tuple[bytes, str | None]:
    """Return the bytes to keep of a rejected message and their content type.

    They are the bytes that came, unless they hold a plain VIN; then the document is written again
    without it, compressed again when it was. Of more than 1 MiB the first is kept.
    """
    looked = looked_into(payload, content_type)
    kept = _kept_text(looked.text)
    if kept is looked.text and looked.complete:
        return payload[:MAX_KEPT_BYTES], content_type
    if kept is looked.text:
        # Behind what could be looked into there may be anything.
        return payload[: min(looked.seen, MAX_KEPT_BYTES)], content_type
    if looked.packed and looked.complete:
        return gzip.compress(kept, 6, mtime=0)[:MAX_KEPT_BYTES], GZIP_CONTENT_TYPE
    return kept[:MAX_KEPT_BYTES], None if looked.packed else content_type


def _kept_text(text: bytes) -> bytes:
    """Return a text without its plain VINs; the very same object when it has none."""
    suspects = vins_in(text)
    try:
        holder = [load_any(text)]
        writable = not is_nested_deeper(holder, _WRITABLE_DEPTH)
    except RejectedMessage:
        writable = False
    if not writable:
        redacted = bytes_without_vin(text)
        return text if redacted == text else redacted
    found = _redact(holder)
    if not found and not suspects:
        return text
    written = _written(holder[0])
    # What is in the bytes and not in the document hides in a key that is given twice.
    return written if found or suspects - vins_in(written) else text
