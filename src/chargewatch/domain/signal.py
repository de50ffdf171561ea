"""Integrity signals: findings that a record proves by itself, without statistics."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any


class Severity(StrEnum):
    """How a signal bears on the tier: severe makes orange, mild makes yellow, info neither."""

    SEVERE = "severe"
    MILD = "mild"
    INFO = "info"


@dataclass(frozen=True, kw_only=True)
class Signal:
    """One finding on one connector, meter or station, with the evidence that proves it."""

    code: str
    severity: Severity
    operator_id: str | None
    station_id: str | None
    connector: str | None
    first_at: datetime
    last_at: datetime
    count: int
    value: float
    limit: float
    detail: str
    rule_version: int = 1
    evidence: Mapping[str, Any] = field(default_factory=dict)
