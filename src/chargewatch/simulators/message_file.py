"""Reads and writes messages.jsonl: one {"topic": ..., "payload": {...}} a line, gzip or plain."""

from __future__ import annotations

import gzip
from collections.abc import Iterator
from pathlib import Path
from typing import IO, cast

import orjson

from chargewatch.errors import InputFileError
from chargewatch.simulators.publisher import Outgoing
from chargewatch.wire.topics import is_retained


def open_binary(path: Path) -> IO[bytes]:
    """Return an open file, decompressed when its first bytes say gzip."""
    try:
        file = path.open("rb")
    except OSError as exc:
        raise InputFileError(f"can't read {path}: {exc.strerror or exc}") from exc
    magic = file.read(2)
    file.seek(0)
    return cast(IO[bytes], gzip.open(file, "rb")) if magic == b"\x1f\x8b" else file


def check_readable(path: Path) -> None:
    """Raise InputFileError when a file is missing or can't be read."""
    open_binary(path).close()


def read_messages(path: Path) -> Iterator[Outgoing]:
    """Yield the messages of a file in its order; status messages are marked retained.

    The payload is sent as it stands in the file when it is a text, else as compact JSON.
    Raises: InputFileError that names the line, after the messages before it.
    """
    with open_binary(path) as file:
        try:
            for number, line in enumerate(file, start=1):
                if line.strip():
                    yield _message(line, f"{path}, line {number}")
        except (EOFError, gzip.BadGzipFile) as exc:
            raise InputFileError(f"{path}: the gzip data is cut short or broken: {exc}") from exc


def _message(line: bytes, place: str) -> Outgoing:
    try:
        row = orjson.loads(line)
    except orjson.JSONDecodeError as exc:
        raise InputFileError(f"{place}: not JSON ({exc}); nothing after it was sent") from exc
    if not isinstance(row, dict) or not isinstance(row.get("topic"), str) or "payload" not in row:
        raise InputFileError(f'{place}: needs {{"topic": "...", "payload": {{...}}}}')
    topic, payload = row["topic"], row["payload"]
    if not topic or "#" in topic or "+" in topic or "\x00" in topic:
        raise InputFileError(f"{place}: {topic!r} is no topic one can publish to")
    body = payload.encode() if isinstance(payload, str) else orjson.dumps(payload)
    return Outgoing(topic=topic, payload=body, retain=is_retained(topic))
