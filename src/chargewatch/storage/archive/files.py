"""Files of exported days: where they lie, what their footers say, how they become whole."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from chargewatch.errors import InputFileError

_COMPRESSION = "zstd"
_FOOTER = "chargewatch."


@dataclass(frozen=True)
class FileHead:
    """What a file's footer says."""

    stamp: str  # "" in files of an earlier version
    rows: int


def path_of(folder: Path, table: str, day: date) -> Path:
    """Return the file of a table and a day."""
    return folder / table / f"day={day.isoformat()}.parquet"


def read_head(folder: Path, table: str, day: date) -> FileHead | None:
    """Return what the footer of a file says; None: there is no file.

    Raises: InputFileError that names the file and the next step when it is damaged or misplaced.
    """
    path = path_of(folder, table, day)
    try:
        with pq.ParquetFile(path) as file:
            footer = file.schema_arrow.metadata or {}
            footer = {**footer, **(file.metadata.metadata or {})}
            rows = file.metadata.num_rows
    except FileNotFoundError:
        return None
    except (OSError, pa.ArrowException) as exc:
        raise damaged(folder, table, day, str(exc)) from exc
    said = {
        name: footer.get(f"{_FOOTER}{name}".encode(), b"").decode("utf-8", "replace")
        for name in ("table", "day", "stamp", "exported_at")
    }
    if said["stamp"] and (said["table"], said["day"]) != (table, day.isoformat()):
        raise damaged(folder, table, day, f"it holds {said['table']} of {said['day']}")
    return FileHead(said["stamp"], rows)


def damaged(folder: Path, table: str, day: date, fault: str) -> InputFileError:
    """Return the error of a file that can't be read, with the next step."""
    return InputFileError(
        f"{path_of(folder, table, day)} can't be read: {fault}; delete it and repeat, the day is "
        f"then taken from the database, or write it again with "
        f"`chargewatch db export --day {day} --out {folder}`"
    )


@contextmanager
def writer_of(
    folder: Path, table: str, day: date, *, schema: Any, stamp: str, moment: datetime
) -> Iterator[Any]:
    """Yield a writer; the file gets its name when the block ends well."""
    path = path_of(folder, table, day)
    path.parent.mkdir(parents=True, exist_ok=True)
    # Of its own for every process: two exports at once must not write into one file.
    partial = path.with_suffix(f".{os.getpid()}.partial")
    try:
        with pq.ParquetWriter(
            partial, schema, compression=_COMPRESSION, write_page_checksum=True
        ) as writer:
            yield writer
            said = {
                "table": table,
                "day": day.isoformat(),
                "stamp": stamp,
                "exported_at": moment.isoformat(),
            }
            writer.add_key_value_metadata({_FOOTER + name: text for name, text in said.items()})
        with partial.open("rb") as written:
            os.fsync(written.fileno())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
