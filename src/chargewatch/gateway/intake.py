"""Where lines come from: a file that may grow, or a pipe; never more at a time than a block."""

from __future__ import annotations

import asyncio
import hashlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Protocol

from chargewatch.errors import InputFileError

BLOCK_BYTES = 1 << 18
MAX_LINE_BYTES = 4 << 20
KEPT_OF_LONG_LINE = 4096
FINGERPRINT_BYTES = 1024


@dataclass(frozen=True, slots=True)
class Line:
    """One line, without its end; of one that is too long only the beginning."""

    number: int
    content: bytes
    too_long: bool = False


@dataclass(frozen=True, slots=True)
class Position:
    """How far a file was taken: kept with what was taken, in the same transaction."""

    source: str
    fingerprint: bytes
    offset: int
    line: int


@dataclass(frozen=True, slots=True)
class LineBlock:
    """Lines that came together; `position` stands behind them."""

    lines: list[Line]
    position: Position | None = None


class Input(Protocol):
    """Gives blocks until its end."""

    async def read(self) -> LineBlock | None:
        """Return the next block, an empty one when nothing new is there, None at the end."""

    def leave(self) -> list[Line]:
        """Return what was taken and can't be taken again, when the gateway ends before the end."""

    def close(self) -> None:
        """Give the file back."""


class LineSplitter:
    """Cuts bytes into lines and bounds what one line may take."""

    def __init__(self, *, offset: int = 0, line: int = 0) -> None:
        self.offset = offset
        self.line = line
        self._rest = b""
        self._skipped = 0

    def feed(self, data: bytes) -> list[Line]:
        """Return the lines that are complete now."""
        *complete, rest = (self._rest + data).split(b"\n")
        lines = [self._line(content) for content in complete]
        if len(rest) > MAX_LINE_BYTES:
            self._skipped += len(rest) - KEPT_OF_LONG_LINE
            rest = rest[:KEPT_OF_LONG_LINE]
        self._rest = rest
        return lines

    def end(self) -> list[Line]:
        """Return the last line when it has no end."""
        if not self._rest:
            return []
        last = self._line(self._rest)
        self.offset -= 1
        self._rest = b""
        return [last]

    def _line(self, content: bytes) -> Line:
        self.line += 1
        self.offset += len(content) + 1 + self._skipped
        too_long = bool(self._skipped)
        self._skipped = 0
        if too_long or len(content) > MAX_LINE_BYTES:
            return Line(self.line, content[:KEPT_OF_LONG_LINE], too_long=True)
        return Line(self.line, content)


class FileInput:
    """A file from where it was left; with `follow` also what is written to it later.

    A file that was replaced (rotated) is read to its end before the new one is begun; one that was
    cut is begun again.
    """

    def __init__(self, path: Path, *, position: Position | None, follow: bool) -> None:
        self._path, self._follow = path, follow
        self._file = self._open()
        self._ended = False
        self._splitter = LineSplitter()
        if position is not None and position.fingerprint == self._fingerprint(position.offset):
            self._splitter = LineSplitter(offset=position.offset, line=position.line)
            self._file.seek(position.offset)

    def _open(self) -> IO[bytes]:
        try:
            return self._path.open("rb", buffering=0)
        except OSError as exc:
            raise InputFileError(f"can't read {self._path}: {exc.strerror or exc}") from exc

    def leave(self) -> list[Line]:
        """Return nothing: the next run goes on at the position."""
        return []

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    async def read(self) -> LineBlock | None:
        """Return the next lines; they are read in a thread."""
        return await asyncio.to_thread(self._read)

    def _read(self) -> LineBlock | None:
        if self._ended:
            return None
        data = self._file.read(BLOCK_BYTES)
        if data:
            return self._block(self._splitter.feed(data))
        if not self._follow:
            self._ended = True
            return self._block(self._splitter.end())
        return self._next_file()

    def _next_file(self) -> LineBlock:
        """Return what a rotated or cut file leaves, and begin its successor."""
        here = os.fstat(self._file.fileno())
        try:
            there = self._path.stat()
        except OSError:
            return LineBlock([])  # renamed, and its successor isn't there yet
        replaced = (here.st_dev, here.st_ino) != (there.st_dev, there.st_ino)
        if not replaced and here.st_size >= self._splitter.offset:
            return LineBlock([])
        if replaced and (data := self._file.read(BLOCK_BYTES)):
            # Written after the last read and before it was renamed.
            return self._block(self._splitter.feed(data))
        lines = self._splitter.end() if replaced else []
        self._file.close()
        self._file = self._open()
        self._splitter = LineSplitter()
        return LineBlock(lines)

    def _block(self, lines: list[Line]) -> LineBlock:
        offset = self._splitter.offset
        position = Position(str(self._path), self._fingerprint(offset), offset, self._splitter.line)
        return LineBlock(lines, position)

    def _fingerprint(self, offset: int) -> bytes:
        """Return what tells this file from another of the same name, as far as it was taken."""
        head = os.pread(self._file.fileno(), min(offset, FINGERPRINT_BYTES), 0)
        return hashlib.sha256(b"%d " % min(offset, FINGERPRINT_BYTES) + head).digest()


class PipeInput:
    """A pipe, a socket, a terminal, or a file that the shell opened.

    What was read is gone from a pipe, so nothing is read ahead.
    """

    def __init__(self, file: IO[bytes]) -> None:
        self._descriptor = file.fileno()
        self._splitter = LineSplitter()
        self._ended = False

    async def read(self) -> LineBlock | None:
        """Wait for more and return its lines."""
        if self._ended:
            return None
        await self._readable()
        data = os.read(self._descriptor, BLOCK_BYTES)
        if not data:
            self._ended = True
            return LineBlock(self._splitter.end())
        return LineBlock(self._splitter.feed(data))

    async def _readable(self) -> None:
        loop = asyncio.get_running_loop()
        ready = asyncio.Event()
        try:
            loop.add_reader(self._descriptor, ready.set)
        except PermissionError:
            return  # a regular file or /dev/null: always readable, so it can't be waited for
        try:
            await ready.wait()
        finally:
            loop.remove_reader(self._descriptor)

    def leave(self) -> list[Line]:
        """Return the half line that was read: no other process can have it any more."""
        return self._splitter.end()

    def close(self) -> None:
        """Standard input is not ours to close."""
