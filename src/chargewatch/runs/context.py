"""What holds for one risk run from its first step to its last."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

from chargewatch.domain.mpe import RuleSet
from chargewatch.domain.times import DAY_S
from chargewatch.risk.results import EngineConfig
from chargewatch.runs.plan import RunPlan
from chargewatch.storage.database import Database

Say = Callable[[str], None]
"""Takes a line of progress, for people."""


class Stopwatch:
    """Seconds of each part of a run."""

    def __init__(self) -> None:
        self.laps: dict[str, float] = {}
        self._last = time.monotonic()

    def lap(self, name: str) -> None:
        """Book the time since the last lap under a name."""
        now = time.monotonic()
        self.laps[name] = round(now - self._last, 3)
        self._last = now


@dataclass(frozen=True, kw_only=True)
class RunContext:
    """Which run it is, what it goes by, and whom it tells."""

    database: Database
    run_id: int
    as_of: datetime
    plan: RunPlan
    zone: ZoneInfo
    rules: RuleSet
    config: EngineConfig
    configuration: Mapping[str, Any]  # all that steers it besides its data
    evidence_files: int  # of flags, at most
    evidence_of: frozenset[str]  # connectors by name, whatever is found of them
    archive_folder: Path | None  # exported days; None: all comes from the database
    failed_rollups: Sequence[tuple[str, int]]  # kind and number of instruments
    clock: Stopwatch
    say: Say

    @property
    def window_days(self) -> float:
        """Length of the window, days."""
        return (self.as_of - self.plan.window_first).total_seconds() / DAY_S
