"""From bytes to a JSON object with its seq and sent_at."""

from __future__ import annotations

import json
import re
import zlib
from dataclasses import dataclass
from typing import Any

import orjson

from chargewatch.wire import fields
from chargewatch.wire.rejection import INVALID_FIELD, MALFORMED, RejectedItem, RejectedMessage
from chargewatch.wire.rfc3339 import parse_time
from chargewatch.wire.topics import Topic

MAX_PAYLOAD_BYTES = 1 << 20
MAX_UNPACKED_BYTES = 16 << 20
MAX_ITEMS = 10_000
MAX_DEPTH = 32
GZIP_CONTENT_TYPE = "application/json+gzip"

_GZIP_MAGIC = b"\x1f\x8b"
_PIECE = 1024
_BOM = b"\xef\xbb\xbf"
_MAX_CONTAINERS = 500_000
_MAX_VALUES = 2_000_000
_BEYOND_ORJSON = re.compile(rb"\\u[dD][89a-fA-F]|[eE]\+?[0-9]{3}|[0-9]{300}")


@dataclass(frozen=True, slots=True)
class Envelope:
    """What every message has in common; seq and sent_at_us are None only in a last will."""

    seq: int | None
    sent_at_us: int | None
    unknown_keys: int


@dataclass(frozen=True, slots=True)
class Looked:
    """As much of a payload's text as could be had, whatever is wrong with it.

    complete: nothing is behind `text` that was not looked into. seen: bytes of the payload that
    `text` stands for.
    """

    text: bytes
    packed: bool
    complete: bool
    seen: int


def is_packed(payload: bytes, content_type: str | None) -> bool:
    """Return whether a payload is, or should be, compressed."""
    return payload[:2] == _GZIP_MAGIC or is_gzip(content_type)


def _unpack(payload: bytes) -> tuple[bytes, bytes, bool, str | None]:
    """Return the text of a gzip member, what follows it, whether it ended, and zlib's complaint."""
    member = zlib.decompressobj(wbits=31)
    try:
        text = member.decompress(payload, MAX_UNPACKED_BYTES + 1)
    except zlib.error as exc:
        return b"", payload, False, str(exc)
    return text, member.unused_data, member.eof, None


def _gunzip(payload: bytes) -> bytes:
    if payload[:2] != _GZIP_MAGIC:
        raise RejectedMessage(
            MALFORMED, f"wrong gzip: the content type says {GZIP_CONTENT_TYPE}, the bytes are none"
        )
    text, rest, ended, complaint = _unpack(payload)
    if complaint is not None:
        raise RejectedMessage(MALFORMED, f"wrong gzip: {complaint}")
    if len(text) > MAX_UNPACKED_BYTES:
        raise RejectedMessage(MALFORMED, "too large: more than 16 MiB after gzip")
    if not ended:
        raise RejectedMessage(MALFORMED, "wrong gzip: it ends in the middle")
    rest = rest.lstrip(b"\0")  # some packers fill their last block with zeros
    if rest:
        what = "a second member" if rest[:2] == _GZIP_MAGIC else f"{len(rest)} bytes"
        raise RejectedMessage(MALFORMED, f"wrong gzip: {what} after its end")
    return text


def is_gzip(content_type: str | None) -> bool:
    """Return whether a content type says that the payload is compressed."""
    return bool(content_type) and (
        str(content_type).partition(";")[0].strip().lower() == GZIP_CONTENT_TYPE
    )


def plain_payload(payload: bytes, content_type: str | None) -> bytes:
    """Return the JSON bytes of a payload; RejectedMessage when too large or wrongly compressed."""
    if len(payload) > MAX_PAYLOAD_BYTES:
        raise RejectedMessage(MALFORMED, f"too large: {len(payload)} bytes, 1 MiB is allowed")
    return _gunzip(payload) if is_packed(payload, content_type) else payload


def looked_into(payload: bytes, content_type: str | None) -> Looked:
    """Return what can be seen of a payload; never fails."""
    if not is_packed(payload, content_type) or payload[:2] != _GZIP_MAGIC:
        return Looked(payload, packed=False, complete=True, seen=len(payload))
    text, rest, _, complaint = _unpack(payload)
    if complaint is not None:
        # Zlib gives nothing of a member that is damaged somewhere: feed it piece by piece.
        return _look_piecewise(payload)
    complete = not rest.strip(b"\0") and len(text) <= MAX_UNPACKED_BYTES
    return Looked(text, packed=True, complete=complete, seen=len(payload) - len(rest))


def _look_piecewise(payload: bytes) -> Looked:
    member = zlib.decompressobj(wbits=31)
    text = bytearray()
    for start in range(0, len(payload), _PIECE):
        try:
            text += member.decompress(payload[start : start + _PIECE], MAX_UNPACKED_BYTES)
        except zlib.error:
            return Looked(bytes(text), packed=True, complete=False, seen=start)
        if len(text) > MAX_UNPACKED_BYTES:
            break
    return Looked(bytes(text), packed=True, complete=False, seen=min(start + _PIECE, len(payload)))


def load_any(text: bytes) -> Any:
    """Return the JSON value of a text; RejectedMessage (malformed) when it is none.

    It may begin with a BOM and end with white space or NUL bytes.
    """
    if text[:3] == _BOM:
        text = text[3:]
    text = text.rstrip(b" \t\r\n\0")
    if len(text) > MAX_PAYLOAD_BYTES:
        _refuse_crowds(text)
    try:
        return orjson.loads(text)
    except (orjson.JSONDecodeError, RecursionError) as exc:
        if _BEYOND_ORJSON.search(text) is None:
            raise RejectedMessage(MALFORMED, f"not JSON: {_why(text, exc)}") from None
    return _load_slowly(text)


def _why(text: bytes, error: Exception) -> str:
    """Return why a text is no JSON; of other encodings the parser says nothing useful."""
    try:
        text.decode()
    except UnicodeDecodeError as exc:
        return f"byte {exc.start} (0x{text[exc.start]:02x}) is not UTF-8"
    return str(error)


def _refuse_crowds(text: bytes) -> None:
    """Refuse what would unpack to hundreds of MiB of tiny values; messages have none of that."""
    if text.count(b"{") + text.count(b"[") > _MAX_CONTAINERS or text.count(b",") > _MAX_VALUES:
        raise RejectedMessage(MALFORMED, "too large: too many values for a message")


def _whole(digits: str) -> int | float:
    return int(digits) if len(digits) < 400 else float(digits)


def _no_constant(word: str) -> None:
    raise ValueError(f"{word} is not JSON")


def _load_slowly(text: bytes) -> Any:
    """Return the JSON value of a text that has numbers or half characters that orjson refuses.

    They are JSON all the same: only the items that hold them are refused, with their reason.
    """
    try:
        return json.loads(text.decode(), parse_int=_whole, parse_constant=_no_constant)
    except (ValueError, RecursionError) as exc:
        raise RejectedMessage(MALFORMED, f"not JSON: {exc}"[:200]) from None


def load_object(payload: bytes, content_type: str | None) -> dict[str, Any]:
    """Return the JSON object of a payload.

    Raises: RejectedMessage (malformed). Of a key given twice the last counts.
    """
    return object_of(plain_payload(payload, content_type))


def object_of(text: bytes) -> dict[str, Any]:
    """Return the JSON object of a text; RejectedMessage (malformed) when it is none."""
    document = load_any(text)
    if type(document) is not dict:
        raise RejectedMessage(MALFORMED, "not a JSON object")
    return document


def is_nested_deeper(value: dict[str, Any] | list[Any], limit: int = MAX_DEPTH) -> bool:
    """Return whether lists and objects are nested more than `limit` deep, `value` included."""
    level: list[Any] = [value]
    for _ in range(limit):
        level = [
            inner
            for outer in level
            for inner in (outer.values() if type(outer) is dict else outer)
            if type(inner) is dict or type(inner) is list
        ]
        if not level:
            return False
    return True


def _countable(document: dict[str, Any], list_key: str | None) -> int:
    items = None if list_key is None else document.get(list_key)
    return len(items) if type(items) is list else 1


def read_envelope(document: dict[str, Any], topic: Topic) -> Envelope:
    """Return a message's envelope; RejectedMessage with its seq when that could be read."""
    seq: int | None = None
    try:
        seq = fields.whole_number(fields.required(document, "seq", "message"), "seq", least=1)
        sent_at_us = parse_time(fields.required(document, "sent_at", "message"), "sent_at")
        fields.own_identity(document, "", topic.operator_id, topic.station_id)
    except RejectedItem as exc:
        raise RejectedMessage(
            exc.code, exc.detail, seq=seq, items=_countable(document, topic.kind.facts.list_key)
        ) from None
    return Envelope(seq, sent_at_us, len(document.keys() - topic.kind.keys))


def read_items(document: dict[str, Any], list_key: str, seq: int | None) -> list[Any]:
    """Return the readings or sessions of a message; RejectedMessage when there is no such list."""
    items = document.get(list_key)
    if type(items) is not list:
        what = "is missing" if items is None else "is not a list"
        raise RejectedMessage(INVALID_FIELD, f"{list_key} {what}", seq=seq)
    if len(items) > MAX_ITEMS:
        raise RejectedMessage(
            MALFORMED,
            f"too large: {len(items)} {list_key}, {MAX_ITEMS} are allowed",
            seq=seq,
            items=len(items),
        )
    return items
