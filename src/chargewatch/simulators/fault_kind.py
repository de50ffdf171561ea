"""One row of the table of faults and oddities."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, kw_only=True)
class FaultKind:
    """One row of the table.

    ``signals`` must be raised on the faulty connector (or station). ``allowed`` may be raised as
    a consequence: it is neither missing when absent nor false when present. Times in parameters
    are days before the end of the history. ``needs`` is what a connector must have for it.
    """

    name: str
    meaning: str
    on: str = "connector"
    needs: str = ""
    parameters: Mapping[str, Any] = field(default_factory=dict)
    signals: tuple[str, ...] = ()
    allowed: tuple[str, ...] = ()
    changes_error: bool = False
