"""Arrays to bytes: times as text, readings as JSON objects, messages as JSON lines."""

from __future__ import annotations

from typing import Any

import numpy as np
import orjson

from chargewatch.simulators.draws import Floats

OFFSET = "+08:00"
OFFSET_S = 8 * 3600


def time_texts(epoch_s: Floats) -> list[str]:
    """Return RFC 3339 texts at +08:00, to the millisecond where there is one."""
    millis = np.round(np.asarray(epoch_s, dtype=np.float64) * 1000).astype(np.int64)
    unique, inverse = np.unique(millis, return_inverse=True)
    local = (unique + OFFSET_S * 1000).astype("datetime64[ms]")
    texts = [
        f"{text[:19] if text.endswith('.000') else text}{OFFSET}"
        for text in np.datetime_as_string(local, unit="ms").tolist()
    ]
    table = np.array(texts, dtype=object)
    found: list[str] = table[inverse].tolist()
    return found


def numbers(values: Floats) -> list[Any]:
    """Return numbers for JSON: whole ones as int, others to 3 decimals."""
    if np.all(values == np.floor(values)):
        whole: list[Any] = values.astype(np.int64).tolist()
        return whole
    return [int(x) if x.is_integer() else round(x, 3) for x in values.tolist()]


def line(topic: str, body: bytes) -> bytes:
    """Return one line of messages.jsonl."""
    return b'{"topic":"' + topic.encode() + b'","payload":' + body + b"}\n"


def dump(document: Any) -> bytes:
    """Return compact JSON."""
    return orjson.dumps(document)
