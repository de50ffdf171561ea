"""Types of what tests/conftest.py hands out."""

from __future__ import annotations

import subprocess
from collections.abc import Callable

RunCommand = Callable[..., subprocess.CompletedProcess[str]]
"""Runs `python -m chargewatch ARGUMENTS` to its end; env=..., timeout=..., stdin=..."""
