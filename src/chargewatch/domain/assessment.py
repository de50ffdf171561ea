"""What one risk run says of one connector, and the rule that makes a tier of it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Annotated, Any

from chargewatch.domain.columns import Column, ValueKind, columns_of
from chargewatch.domain.reason import Reasons
from chargewatch.domain.signal import Severity
from chargewatch.domain.verdict import Tier, Verdict

ORANGE_PROBABILITY = 0.5
YELLOW_PROBABILITY = 0.2


@dataclass(frozen=True)
class AssessmentColumn(Column):
    """One column of an assessment; every one is stored, and answered of a single connector."""

    in_list: bool = False  # in the list of piles and its CSV
    in_history: bool = False  # what each run said of a connector
    in_export: bool = False  # `chargewatch assessments`


_FIGURE = AssessmentColumn(ValueKind.FINDING, in_list=True, in_history=True, in_export=True)
_LIGHT = AssessmentColumn(ValueKind.FINDING, in_list=True, in_history=True, default="NaN")
_MONEY = AssessmentColumn(ValueKind.FINDING, in_list=True, default="NaN")
_DECISION = AssessmentColumn(ValueKind.WORD, in_list=True, in_history=True, in_export=True)
_EVIDENCE = AssessmentColumn(ValueKind.COUNT, in_export=True)


@dataclass(frozen=True, kw_only=True)
class Assessment:
    """One connector in one run; NaN means not known.

    This is the only list of an assessment's columns: the table, SELECT lists, exports and the
    API's answers follow from it.
    """

    connector: str
    station_id: str
    operator_id: str
    relative_error: Annotated[float, _FIGURE]
    standard_uncertainty: Annotated[float, _FIGURE]
    common_uncertainty: Annotated[float, _FIGURE]
    mpe: Annotated[float, _FIGURE]
    p_nonconforming: Annotated[float, _FIGURE]
    verdict: Annotated[Verdict, _DECISION]
    tier: Annotated[Tier, _DECISION]
    priority_money: Annotated[float, AssessmentColumn(ValueKind.FINDING, in_list=True)]
    data_from: Annotated[datetime | None, AssessmentColumn(ValueKind.MOMENT, in_export=True)]
    data_to: Annotated[
        datetime | None, AssessmentColumn(ValueKind.MOMENT, in_list=True, in_export=True)
    ]
    n_intervals: Annotated[int, _EVIDENCE]
    n_sessions: Annotated[int, _EVIDENCE]
    n_vehicles: Annotated[int, _EVIDENCE]
    n_direct: Annotated[int, _EVIDENCE]
    method: Annotated[str, AssessmentColumn(ValueKind.TEXT, in_export=True)]
    reason: Annotated[Reasons, AssessmentColumn(ValueKind.REASONS, default="")] = ()
    # [{"component": ..., "standard_uncertainty": ...}]: adds up to standard_uncertainty.
    budget: Annotated[Sequence[Mapping[str, Any]], AssessmentColumn(ValueKind.DOCUMENT)] = field(
        default_factory=tuple
    )
    # {"alarm": bool, "statistic": ..., "changed_at": ..., "interval": [...]}
    drift: Annotated[Mapping[str, Any] | None, AssessmentColumn(ValueKind.DOCUMENT)] = None
    # Below I_min: no limit is confirmed there, so nothing is decided by them.
    relative_error_light: Annotated[float, _LIGHT] = math.nan
    standard_uncertainty_light: Annotated[float, _LIGHT] = math.nan
    # Money of the 30 days before the run; by the meter's error as it is expected, and by bills.
    overcharge_error: Annotated[float, _MONEY] = math.nan
    undercharge_error: Annotated[float, _MONEY] = math.nan
    overcharge_billing: Annotated[float, _MONEY] = math.nan
    undercharge_billing: Annotated[float, _MONEY] = math.nan


ASSESSMENT_COLUMNS = columns_of(Assessment, AssessmentColumn)


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
        drift_alarm: whether its error has very likely changed.
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
