"""What quarantine keeps of a rejected message: its bytes, without a plain VIN."""

from __future__ import annotations

import re
from typing import Any

import orjson

from chargewatch.domain.identity import is_plain_vin
from chargewatch.wire.envelope import is_gzip, load_object, plain_payload
from chargewatch.wire.rejection import RejectedMessage

REDACTED = "(plain VIN, not kept)"
_VIN_VALUE = re.compile(rb'("vehicle"\s*:\s*")[A-HJ-NPR-Z0-9]{17}(?![^"\\])')
_MAX_KEPT_BYTES = 1 << 20


def _redact(value: Any) -> bool:
    """Replace plain VINs below a value in place; return whether there was one."""
    found = False
    if isinstance(value, dict):
        vehicle = value.get("vehicle")
        if isinstance(vehicle, str) and is_plain_vin(vehicle):
            value["vehicle"] = REDACTED
            found = True
        for inner in value.values():
            found |= _redact(inner)
    elif isinstance(value, list):
        for inner in value:
            found |= _redact(inner)
    return found


def item_evidence(item: Any) -> bytes:
    """Return one rejected reading or session as JSON."""
    _redact(item)
    return orjson.dumps(item)


def message_evidence(payload: bytes, content_type: str | None) -> tuple[bytes, str | None]:
    """Return the bytes to keep of a rejected message and their content type.

    They are the bytes that came, unless they hold a plain VIN. Of more than 1 MiB the first is
    kept.
    """
    try:
        document = load_object(payload, content_type)
    except RejectedMessage:
        return _unreadable_evidence(payload, content_type)
    if _redact(document):
        return orjson.dumps(document), None
    return payload, content_type


def _unreadable_evidence(payload: bytes, content_type: str | None) -> tuple[bytes, str | None]:
    text, kept_type = payload, content_type
    if is_gzip(content_type):
        try:
            text, kept_type = plain_payload(payload, content_type), None
        except RejectedMessage:
            return payload[:_MAX_KEPT_BYTES], content_type
    redacted = _VIN_VALUE.sub(rb"\1" + REDACTED.encode(), text)
    if redacted != text:
        return redacted[:_MAX_KEPT_BYTES], kept_type
    return payload[:_MAX_KEPT_BYTES], content_type


def items_of(payload: bytes, content_type: str | None, kind: str) -> list[Any]:
    """Return the readings or sessions of a message that was read before."""
    items = load_object(payload, content_type)["sessions" if kind == "sessions" else "readings"]
    return list(items)
