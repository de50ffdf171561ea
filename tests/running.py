"""What tests share that is no fixture: types, and the files of the checkout."""

from __future__ import annotations

import fnmatch
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

RunCommand = Callable[..., subprocess.CompletedProcess[str]]
"""Runs `python -m chargewatch ARGUMENTS` to its end; env=..., timeout=..., stdin=..."""

CHECKOUT = Path(__file__).resolve().parents[1]
MADE_HERE = (".git", ".venv*", ".services", "__pycache__", "*.egg-info", ".*_cache", ".hypothesis")
MADE_HERE += ("dist", "build", ".coverage", "chargewatch-demo")
"""Names that are no part of the checkout; git, which knows them too, may not be installed."""


def checkout_files(below: str = ".") -> Iterator[str]:
    """Yield the checkout's own files below a folder of it, as paths from the checkout."""
    for folder, folders, names in os.walk(CHECKOUT / below):
        folders[:] = [name for name in folders if not _is_made_here(name)]
        for name in names:
            if not _is_made_here(name):
                yield str((Path(folder) / name).relative_to(CHECKOUT))


def _is_made_here(name: str) -> bool:
    return any(fnmatch.fnmatch(name, pattern) for pattern in MADE_HERE)
