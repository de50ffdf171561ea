"""What the platform tells a gateway about its messages."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import orjson

from chargewatch.wire.rejection import Rejection

MAX_ERRORS = 100
"""Errors listed for one message."""


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


def encode_receipts(receipts: Iterable[dict[str, Any]]) -> bytes:
    """Return the payload that carries the receipts of one station in one commit."""
    return orjson.dumps({"receipts": list(receipts)})
