"""Writes a simulated city to a folder: registry.json, messages.jsonl, truth.json."""

from __future__ import annotations

import gzip
import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Protocol, cast

from chargewatch.errors import InputFileError
from chargewatch.simulators.wire_form import line


class Source(Protocol):
    """A history with its registry and truth, simulated or real."""

    def registry(self) -> dict[str, Any]:
        """Return registry.json."""

    def messages(self) -> Iterator[tuple[str, bytes]]:
        """Yield topic and payload in order of time."""

    def truth(self) -> dict[str, Any]:
        """Return truth.json; complete after the messages were read."""


@dataclass(frozen=True, kw_only=True)
class Written:
    """What was written."""

    folder: str
    messages: int
    payload_bytes: int
    seconds: float


def write_city(
    city: Source, folder: Path, *, compress: bool, progress: Callable[[int], None] | None = None
) -> Written:
    """Write the three files; the same city and seed give the same bytes, compressed or not."""
    started = time.monotonic()
    count = size = 0
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _write_json(folder / "registry.json", city.registry())
        name = "messages.jsonl.gz" if compress else "messages.jsonl"
        with _open_output(folder / name, compress=compress) as file:
            for topic, body in city.messages():
                file.write(line(topic, body))
                count, size = count + 1, size + len(body)
                if progress is not None and count % 10_000 == 0:
                    progress(count)
        _write_json(folder / "truth.json", city.truth())
    except OSError as exc:
        raise InputFileError(f"can't write to {folder}: {exc.strerror or exc}") from exc
    return Written(
        folder=str(folder),
        messages=count,
        payload_bytes=size,
        seconds=round(time.monotonic() - started, 3),
    )


@contextmanager
def _open_output(path: Path, *, compress: bool) -> Iterator[IO[bytes]]:
    with path.open("wb") as raw:
        if not compress:
            yield raw
            return
        # Neither name nor time in the gzip header: the same city gives the same bytes.
        with gzip.GzipFile(filename="", mode="wb", fileobj=raw, compresslevel=6, mtime=0) as file:
            yield cast(IO[bytes], file)


def _write_json(path: Path, document: dict[str, Any]) -> None:
    text = json.dumps(document, ensure_ascii=False, indent=1)
    path.write_text(text + "\n", encoding="utf-8")
