"""Files inside a zip or a folder, never more of them than fit into memory."""

from __future__ import annotations

import io
import lzma
import os
import stat
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import IO

from chargewatch.errors import RegistryFileError
from chargewatch.wire.registry.tables import LIMITS

_ENCRYPTED = 0x1
_IGNORED = {"thumbs.db", "desktop.ini"}


def is_left_by_a_system(path: str) -> bool:
    """Whether a file is one that an operating system or office leaves beside people's files."""
    parts = PurePosixPath(path).parts
    name = parts[-1] if parts else ""
    return "__MACOSX" in parts or name.startswith((".", "~$")) or name.casefold() in _IGNORED


class UnpackingBudget:
    """Bytes that a registry file may still unpack."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.left = LIMITS.unpacked_bytes

    def take(self, count: int) -> None:
        """Count bytes.

        Raises: RegistryFileError when they are more than a registry file may hold.
        """
        self.left -= count
        if self.left < 0:
            mebibytes = LIMITS.unpacked_bytes // 1024 // 1024
            raise RegistryFileError(f"{self.name}: holds more than {mebibytes} MiB; split the file")


class Bounded(io.RawIOBase):
    """A stream whose bytes are counted as they are read."""

    def __init__(self, stream: IO[bytes], budget: UnpackingBudget) -> None:
        self._stream = stream
        self._budget = budget

    def read(self, size: int = -1) -> bytes:
        """Return at most so many bytes."""
        content = self._stream.read(size)
        self._budget.take(len(content))
        return content

    def read_all(self) -> bytes:
        """Return what is left, piece by piece, so that too much stops in time."""
        return b"".join(iter(lambda: self.read(1 << 20), b""))


class RegistryZip:
    """An open zip file; whatever is wrong with it is a RegistryFileError."""

    def __init__(self, name: str, content: bytes) -> None:
        self.name = name
        self.budget = UnpackingBudget(name)
        with self._errors():
            self._zip = zipfile.ZipFile(io.BytesIO(content))
        self._members: dict[str, zipfile.ZipInfo] = {}
        files = [info for info in self._zip.infolist() if not info.is_dir()]
        if len(files) > LIMITS.members:
            raise RegistryFileError(f"{name}: holds more than {LIMITS.members:,} files")
        for info in files:
            path = info.filename.replace("\\", "/")
            if path.startswith("/") or ".." in path.split("/") or path[1:2] == ":":
                raise RegistryFileError(f"{name}: holds {path[:80]!r}, which points out of it")
            if path in self._members:
                raise RegistryFileError(f"{name}: holds {path[:80]!r} twice")
            self._members[path] = info

    @property
    def paths(self) -> list[str]:
        """Paths of the files inside."""
        return list(self._members)

    @property
    def declared_bytes(self) -> int:
        """How many bytes the files inside have by their own account, unpacked."""
        return sum(info.file_size for info in self._members.values())

    @contextmanager
    def open(self, path: str) -> Iterator[Bounded]:
        """Open a file inside, its bytes counted.

        Raises: RegistryFileError when it is encrypted, packed unusually or damaged.
        """
        info = self._members[path]
        if info.flag_bits & _ENCRYPTED:
            raise RegistryFileError(f"{self.name}: {path} is protected by a password; unpack it")
        with self._errors(path), self._zip.open(info) as stream:
            yield Bounded(stream, self.budget)

    def read(self, path: str) -> bytes:
        """Return a file's bytes."""
        with self.open(path) as stream:
            return stream.read_all()

    @contextmanager
    def _errors(self, path: str = "") -> Iterator[None]:
        where = f"{self.name}: {path}" if path else self.name
        try:
            yield
        except NotImplementedError as exc:
            raise RegistryFileError(
                f"{where} is packed in a way that can't be read here ({exc}); pack it again as an "
                "ordinary zip (deflate)"
            ) from exc
        except (
            zipfile.BadZipFile,
            zlib.error,
            lzma.LZMAError,
            struct.error,
            EOFError,
            UnicodeDecodeError,
            OverflowError,
            ValueError,
            RuntimeError,
            OSError,
        ) as exc:
            if isinstance(exc, RecursionError):
                raise
            raise RegistryFileError(f"{where} is not a zip file, or damaged: {exc}") from exc


@dataclass(frozen=True)
class Member:
    """A file inside a zip or folder."""

    path: str
    read: Callable[[], bytes]


def members_of_zip(archive: RegistryZip) -> list[Member]:
    """Return the files of a zip."""
    return [Member(path, partial(archive.read, path)) for path in archive.paths]


def members_of_folder(folder: Path) -> list[Member]:
    """Return the files of a folder and of those inside it.

    Raises: RegistryFileError when they are too many; OSError when it can't be read.
    """
    budget = UnpackingBudget(folder.name)
    members: list[Member] = []
    for root, folders, names in os.walk(folder, onerror=_raise):
        folders.sort()
        for name in sorted(names):
            path = Path(root) / name
            members.append(
                Member(path.relative_to(folder).as_posix(), partial(_read, path, budget))
            )
        if len(members) > LIMITS.members:
            raise RegistryFileError(f"{folder}: holds more than {LIMITS.members:,} files")
    return members


def read_file(path: Path) -> bytes:
    """Return a file's bytes.

    Raises: RegistryFileError when they are too many; OSError when it can't be read.
    """
    return _read(path, UnpackingBudget(path.name))


def _read(path: Path, budget: UnpackingBudget) -> bytes:
    # A pipe or device would have no end.
    if not stat.S_ISREG(path.stat().st_mode):
        raise RegistryFileError(f"{path}: is not a file")
    with path.open("rb") as stream:
        return Bounded(stream, budget).read_all()


def _raise(error: OSError) -> None:
    raise error
