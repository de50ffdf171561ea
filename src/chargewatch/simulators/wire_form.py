"""Arrays to text: times, readings and reference readings as JSON, messages as JSON lines.

Readings are put together from fragments that are looked up in tables (connector, time, session,
state of charge), which is several times faster than one dictionary a reading.
"""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from typing import Any

import numpy as np
import orjson

from chargewatch.domain.arrays import Floats

HOME_ZONE = "Asia/Shanghai"
OFFSET = "+08:00"
OFFSET_S = 8 * 3600
ZONE = timezone(timedelta(seconds=OFFSET_S))


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


def time_text(epoch_s: float) -> str:
    """Return one time as `time_texts` does."""
    millis = round(epoch_s * 1000)
    moment = datetime.fromtimestamp(millis // 1000, ZONE)
    if millis % 1000:
        return f"{moment.replace(tzinfo=None).isoformat()}.{millis % 1000:03d}{OFFSET}"
    return moment.isoformat()


def number_texts(values: Floats) -> list[str]:
    """Return numbers as JSON: whole ones without a point, others to 3 decimals."""
    if np.all(values == np.floor(values)):
        return [str(x) for x in values.astype(np.int64).tolist()]
    return [str(int(x)) if x.is_integer() else str(round(x, 3)) for x in values.tolist()]


def reading_texts(
    connector: list[str],
    at: list[str],
    *,
    energy_wh: Floats,
    power_w: Floats,
    extra: list[str],
) -> list[str]:
    """Return readings as JSON objects; ``extra`` is what follows the power, with its comma."""
    energy = number_texts(energy_wh)
    power = np.round(power_w, 1).tolist()
    return [
        f'{{"connector":"{c}","at":"{t}","energy_wh":{e},"power_w":{p}{x}}}'
        for c, t, e, p, x in zip(connector, at, energy, power, extra, strict=True)
    ]


def reference_texts(meter: str, at: list[str], energy_wh: Floats) -> list[str]:
    """Return readings of one reference meter as JSON objects."""
    return [
        f'{{"meter":"{meter}","at":"{t}","energy_wh":{e}}}'
        for t, e in zip(at, number_texts(energy_wh), strict=True)
    ]


def envelope(sequence: int, sent_at: str, *, key: str, items: list[str]) -> bytes:
    """Return the payload of a message of items that are JSON already."""
    return f'{{"seq":{sequence},"sent_at":"{sent_at}","{key}":[{",".join(items)}]}}'.encode()


def dump(document: Any) -> bytes:
    """Return compact JSON."""
    return orjson.dumps(document)


def line(topic: str, body: bytes) -> bytes:
    """Return one line of messages.jsonl."""
    return b'{"topic":"' + topic.encode() + b'","payload":' + body + b"}\n"
