"""A log as static files: who audits it needs a web server or a memory stick, and nothing of ours.

    FOLDER/checkpoint                     the newest signed checkpoint
    FOLDER/tile/<level>/<number>[.p/<w>]  256 hashes a file, those of the last file fewer
    FOLDER/tile/entries/<number>[.p/<w>]  the entries, each behind its length of two bytes

Source: c2sp.org/tlog-tiles, of 2026-07-22.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from pathlib import Path

from chargewatch.errors import InputFileError
from chargewatch.tlog.merkle import HASH_SIZE, EntryError, LogError, leaf_hash, tree_hash
from chargewatch.tlog.note import Note, read_checkpoint, read_note

TILE_WIDTH = 256
LARGEST_ENTRY = (1 << 16) - 1


def number_path(number: int) -> str:
    """Return the path of a tile's number: 1234067 is x001/x234/067."""
    parts = [f"{number % 1000:03d}"]
    while number := number // 1000:
        parts.append(f"x{number % 1000:03d}")
    return "/".join(reversed(parts))


def _tile_name(kind: str, number: int, width: int) -> str:
    partial = "" if width == TILE_WIDTH else f".p/{width}"
    return f"tile/{kind}/{number_path(number)}{partial}"


def _tiles(hashes: Sequence[bytes], level: int) -> Iterator[tuple[str, bytes]]:
    for first in range(0, len(hashes), TILE_WIDTH):
        some = hashes[first : first + TILE_WIDTH]
        yield _tile_name(str(level), first // TILE_WIDTH, len(some)), b"".join(some)


def tiles_of(entries: Sequence[bytes]) -> Iterator[tuple[str, bytes]]:
    """Return names and contents of all files of a log but its checkpoint.

    Raises: LogError for an entry that is too long for them.
    """
    level, hashes = 0, [leaf_hash(entry) for entry in entries]
    while hashes:
        yield from _tiles(hashes, level)
        full = len(hashes) // TILE_WIDTH
        hashes = [tree_hash(hashes[k * TILE_WIDTH : (k + 1) * TILE_WIDTH]) for k in range(full)]
        level += 1
    for first in range(0, len(entries), TILE_WIDTH):
        some = entries[first : first + TILE_WIDTH]
        yield (
            _tile_name("entries", first // TILE_WIDTH, len(some)),
            b"".join(_framed(one) for one in some),
        )


def _framed(entry: bytes) -> bytes:
    if len(entry) > LARGEST_ENTRY:
        raise LogError(f"an entry of {len(entry)} bytes is too long for a log: {LARGEST_ENTRY}")
    return struct.pack(">H", len(entry)) + entry


def write_tiles(folder: Path, entries: Sequence[bytes], note: Note) -> int:
    """Write a log's files, the checkpoint last, and return how many were new.

    A file that stands already must have the same content: what was published never changes.

    Raises: LogError when the checkpoint is not that of the entries, or a published file would
    change; InputFileError when the folder can't be written.
    """
    checkpoint = read_checkpoint(note.text)
    root = tree_hash([leaf_hash(entry) for entry in entries])
    if checkpoint.size != len(entries) or checkpoint.root != root:
        raise LogError("the checkpoint is not that of these entries")
    new = 0
    try:
        for name, content in tiles_of(entries):
            path = folder / name
            if path.is_file():
                if path.read_bytes() != content:
                    raise LogError(f"{path} was published with another content: the log changed")
                continue
            path.parent.mkdir(parents=True, exist_ok=True)
            _replace(path, content)
            new += 1
        folder.mkdir(parents=True, exist_ok=True)
        _replace(folder / "checkpoint", note.whole().encode())
    except OSError as exc:
        raise InputFileError(f"{folder} can't be written: {exc.strerror or exc}") from exc
    return new


def _replace(path: Path, content: bytes) -> None:
    """Write a file whole or not at all."""
    part = path.with_name(f".{path.name}.part")
    part.write_bytes(content)
    part.replace(path)


def read_tiles(folder: Path) -> tuple[Note, list[bytes]]:
    """Return the signed checkpoint of a log's files and its entries, whose hashes make its root.

    Raises: LogError that names the first entry that is not what its tile says; InputFileError for
    a file that is missing.
    """
    note = read_note(_read(folder / "checkpoint").decode(errors="replace"))
    checkpoint = read_checkpoint(note.text)
    entries: list[bytes] = []
    for first in range(0, checkpoint.size, TILE_WIDTH):
        width = min(TILE_WIDTH, checkpoint.size - first)
        bundle = _wide(folder, "entries", first // TILE_WIDTH, width)
        entries.extend(_unframed(bundle, width, first=first))
        _require_hashes(_wide(folder, "0", first // TILE_WIDTH, width), entries, first=first)
    if tree_hash([leaf_hash(entry) for entry in entries]) != checkpoint.root:
        raise LogError("entries and tiles do not make the root of the signed checkpoint")
    return note, entries


def _require_hashes(tile: bytes, entries: list[bytes], *, first: int) -> None:
    for k, entry in enumerate(entries[first:]):
        if leaf_hash(entry) != tile[k * HASH_SIZE : (k + 1) * HASH_SIZE]:
            message = f"entry {first + k} of the log is not the one that was published"
            raise EntryError(first + k, message)


def _wide(folder: Path, kind: str, number: int, width: int) -> bytes:
    """Return a tile of this width, from the full one where the partial one is gone."""
    whole, part = (
        folder / _tile_name(kind, number, TILE_WIDTH),
        folder / _tile_name(kind, number, width),
    )
    return _read(part if part.is_file() or not whole.is_file() else whole)


def _unframed(bundle: bytes, width: int, *, first: int) -> Iterator[bytes]:
    at = 0
    for k in range(width):
        head = bundle[at : at + 2]
        end = at + 2 + (struct.unpack(">H", head)[0] if len(head) == 2 else 0)
        if len(head) < 2 or end > len(bundle):
            raise EntryError(first + k, f"entry {first + k} of the log is cut off in its file")
        yield bundle[at + 2 : end]
        at = end


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as exc:
        raise InputFileError(f"{path} can't be read: {exc.strerror or exc}") from exc
