"""JSON answers: NaN becomes null, times RFC 3339, money a decimal string."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any

import orjson
from fastapi.responses import Response


def _unknown(value: Any) -> Any:
    if isinstance(value, Decimal):
        return str(value)
    if isinstance(value, bytes):
        return value.hex()
    raise TypeError(f"{type(value).__name__} has no place in an answer")


class JsonAnswer(Response):
    """A JSON document, written by orjson."""

    media_type = "application/json"

    def render(self, content: Any) -> bytes:
        """Return the document's bytes."""
        return orjson.dumps(content, default=_unknown)


def rows_of(rows: Sequence[Mapping[Any, Any]]) -> list[dict[str, Any]]:
    """Return database rows as plain objects."""
    return [{str(key): value for key, value in row.items()} for row in rows]
