"""What the platform tells a gateway about its messages."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import orjson

from chargewatch.wire.rejection import Rejection

MAX_ERRORS = 100
"""Errors listed for one message."""

SHORT_DETAILS = (60, 20, 0)
"""To how many characters the details of a receipt that is too long are shortened, in turn."""

_FRAME = b'{"receipts":[]}'


def receipt(
    kind: str,
    *,
    seq: int | None,
    stored: int,
    duplicate: int,
    rejections: Sequence[Rejection],
    rejected: int,
) -> dict[str, Any]:
    """Return the receipt of one message, as the contract words it."""
    listed = sorted(rejections, key=lambda r: -1 if r.index is None else r.index)[:MAX_ERRORS]
    return {
        "topic": kind,
        "seq": seq,
        "stored": stored,
        "duplicate": duplicate,
        "rejected": rejected,
        "errors": [{"index": r.index, "code": r.code, "detail": r.detail} for r in listed],
    }


def encode_receipts(receipts: Iterable[dict[str, Any]], *, limit: int) -> list[bytes]:
    """Return the payloads, of at most `limit` bytes each, that carry a station's receipts.

    A receipt that is too long by itself tells shorter details, then fewer errors, then none; one
    that does not fit even so is left out.
    """
    payloads: list[bytes] = []
    parts: list[bytes] = []
    size = len(_FRAME)
    for each in receipts:
        part = _fitted(each, limit - len(_FRAME))
        if part is None:
            continue
        if parts and size + len(part) + 1 > limit:
            payloads.append(_framed(parts))
            parts, size = [], len(_FRAME)
        size += len(part) + bool(parts)
        parts.append(part)
    return [*payloads, _framed(parts)] if parts else payloads


def _framed(parts: list[bytes]) -> bytes:
    return _FRAME[:-2] + b",".join(parts) + _FRAME[-2:]


def _fitted(receipt: dict[str, Any], limit: int) -> bytes | None:
    data = orjson.dumps(receipt)
    for length in SHORT_DETAILS:
        if len(data) <= limit:
            return data
        errors = [
            error | {"detail": _shortened(error["detail"], length)} for error in receipt["errors"]
        ]
        data = orjson.dumps(receipt | {"errors": errors})
    while len(data) > limit and errors:
        # As many as fit, judged by their mean length; at least one goes each time.
        errors = errors[: min(len(errors) - 1, len(errors) * max(limit, 0) // len(data))]
        data = orjson.dumps(receipt | {"errors": errors})
    return data if len(data) <= limit else None


def _shortened(detail: str, length: int) -> str:
    return detail if len(detail) <= length else detail[: max(0, length - 3)] + "..."[:length]
