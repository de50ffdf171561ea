"""From bytes to a JSON object with its seq and sent_at."""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from typing import Any

import orjson

from chargewatch.wire import fields
from chargewatch.wire.rejection import INVALID_FIELD, MALFORMED, RejectedItem, RejectedMessage
from chargewatch.wire.rfc3339 import parse_time
from chargewatch.wire.topics import Topic

MAX_PAYLOAD_BYTES = 1 << 20
MAX_ITEMS = 10_000
GZIP_CONTENT_TYPE = "application/json+gzip"


@dataclass(frozen=True, slots=True)
class Envelope:
    """What every message has in common; seq and sent_at_us are None only in a last will."""

    seq: int | None
    sent_at_us: int | None
    unknown_keys: int


def _gunzip(payload: bytes) -> bytes:
    parts, size, rest = [], 0, payload
    while rest:
        member = zlib.decompressobj(wbits=31)
        try:
            part = member.decompress(rest, MAX_PAYLOAD_BYTES + 1 - size)
        except zlib.error as exc:
            raise RejectedMessage(MALFORMED, f"wrong gzip: {exc}") from None
        size += len(part)
        if size > MAX_PAYLOAD_BYTES:
            raise RejectedMessage(MALFORMED, "too large: more than 1 MiB after gzip")
        if not member.eof:
            raise RejectedMessage(MALFORMED, "wrong gzip: it ends in the middle")
        parts.append(part)
        rest = member.unused_data
    return b"".join(parts)


def is_gzip(content_type: str | None) -> bool:
    """Return whether a content type says that the payload is compressed."""
    return bool(content_type) and (
        str(content_type).partition(";")[0].strip().lower() == GZIP_CONTENT_TYPE
    )


def plain_payload(payload: bytes, content_type: str | None) -> bytes:
    """Return the JSON bytes of a payload; RejectedMessage when too large or wrongly compressed."""
    if len(payload) > MAX_PAYLOAD_BYTES:
        raise RejectedMessage(MALFORMED, f"too large: {len(payload)} bytes, 1 MiB is allowed")
    return _gunzip(payload) if is_gzip(content_type) else payload


def load_object(payload: bytes, content_type: str | None) -> dict[str, Any]:
    """Return the JSON object of a payload.

    Raises: RejectedMessage (malformed). Of a key given twice the last counts.
    """
    payload = plain_payload(payload, content_type)
    try:
        document = orjson.loads(payload)
    except (orjson.JSONDecodeError, RecursionError) as exc:
        raise RejectedMessage(MALFORMED, f"not JSON: {exc}") from None
    if type(document) is not dict:
        raise RejectedMessage(MALFORMED, "not a JSON object")
    return document


def _countable(document: dict[str, Any], list_key: str) -> int:
    items = document.get(list_key)
    return len(items) if type(items) is list else 1


def read_envelope(
    document: dict[str, Any], topic: Topic, list_key: str, *, known: frozenset[str]
) -> Envelope:
    """Return a message's envelope; RejectedMessage with its seq when that could be read."""
    seq: int | None = None
    try:
        seq = fields.whole_number(fields.required(document, "seq", "message"), "seq", least=1)
        sent_at_us = parse_time(fields.required(document, "sent_at", "message"), "sent_at")
        fields.own_identity(document, "", topic.operator_id, topic.station_id)
    except RejectedItem as exc:
        raise RejectedMessage(
            exc.code, exc.detail, seq=seq, items=_countable(document, list_key)
        ) from None
    return Envelope(seq, sent_at_us, sum(key not in known for key in document))


def read_items(document: dict[str, Any], list_key: str, seq: int | None) -> list[Any]:
    """Return the readings or sessions of a message; RejectedMessage when there is no such list."""
    items = document.get(list_key)
    if type(items) is not list:
        what = "is not a list" if list_key in document else "is missing"
        raise RejectedMessage(INVALID_FIELD, f"{list_key} {what}", seq=seq)
    if len(items) > MAX_ITEMS:
        raise RejectedMessage(
            MALFORMED,
            f"too large: {len(items)} {list_key}, {MAX_ITEMS} are allowed",
            seq=seq,
            items=len(items),
        )
    return items
