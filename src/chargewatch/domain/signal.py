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


SIGNAL_SEVERITY: Mapping[str, Severity] = {
    "register_decrease": Severity.SEVERE,
    "register_jump": Severity.SEVERE,
    "stuck_register": Severity.SEVERE,
    "power_register_mismatch": Severity.MILD,
    "idle_consumption": Severity.MILD,
    "session_register_mismatch": Severity.SEVERE,
    "loss_adjusted_billing": Severity.SEVERE,
    "fee_mismatch": Severity.SEVERE,
    "tariff_mismatch": Severity.SEVERE,
    "register_discontinuity": Severity.MILD,
    "frequent_declarations": Severity.MILD,
    "clock_skew": Severity.MILD,
    "missing_messages": Severity.INFO,
    "sequence_restart": Severity.MILD,
    "silence": Severity.MILD,
    "conflict": Severity.MILD,
    "unregistered_instrument": Severity.SEVERE,
    "verification_expired": Severity.MILD,
    "signature_invalid": Severity.SEVERE,
    "signature_pagination_gap": Severity.MILD,
    "signed_record_mismatch": Severity.MILD,
    "unit_fault": Severity.SEVERE,
    "soc_implausible": Severity.MILD,
    "not_judged": Severity.MILD,
}
"""Every code that the platform may raise, with its severity."""


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
