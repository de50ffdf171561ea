"""What one risk run says of one connector, and the rule that makes a tier of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from chargewatch.domain.signal import Severity
from chargewatch.domain.verdict import Tier, Verdict

ORANGE_PROBABILITY = 0.5
YELLOW_PROBABILITY = 0.2


@dataclass(frozen=True, kw_only=True)
class Assessment:
    """One connector in one run; NaN means not known."""

    connector: str
    station_id: str
    operator_id: str
    relative_error: float
    standard_uncertainty: float
    common_uncertainty: float
    mpe: float
    p_nonconforming: float
    verdict: Verdict
    tier: Tier
    priority_money: float
    data_from: datetime | None
    data_to: datetime | None
    n_intervals: int
    n_sessions: int
    n_vehicles: int
    n_direct: int
    method: str
    reason: str = ""
    budget: Sequence[Mapping[str, Any]] = field(default_factory=tuple)
    drift: Mapping[str, Any] | None = None


def tier_of(
    verdict: Verdict,
    p_nonconforming: float,
    *,
    severities: Sequence[Severity] = (),
    drift_alarm: bool = False,
    silent: bool = False,
) -> Tier:
    """Return the tier of a connector (metrology.md, section 5).

    Args:
        verdict: the decision on conformity.
        p_nonconforming: probability in [0, 1]; NaN when the error can't be identified.
        severities: of its open integrity signals, without silence.
        drift_alarm: whether the CUSUM of its error has alarmed.
        silent: whether it or its station is past its usual cadence.

    An undecided connector below the threshold of yellow is yellow: it is identifiable, so not
    grey, and it has not been shown to conform, so not green.
    """
    if verdict == Verdict.NONCONFORMING:
        return Tier.RED
    # NaN compares false: an unknown probability raises no tier.
    if Severity.SEVERE in severities or p_nonconforming >= ORANGE_PROBABILITY:
        return Tier.ORANGE
    if p_nonconforming >= YELLOW_PROBABILITY or drift_alarm or Severity.MILD in severities:
        return Tier.YELLOW
    if silent or verdict == Verdict.NOT_IDENTIFIABLE:
        return Tier.GREY
    return Tier.GREEN if verdict == Verdict.CONFORMING else Tier.YELLOW
