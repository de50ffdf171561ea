"""From the engine's result and the signals to one assessment a connector, with tier and money."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import fields
from datetime import datetime, timedelta
from typing import Any, Protocol

import numpy as np

from chargewatch.domain.arrays import Bools, Floats
from chargewatch.domain.assessment import ASSESSMENT_COLUMNS, Assessment, tier_of
from chargewatch.domain.columns import ValueKind
from chargewatch.domain.reason import reason
from chargewatch.domain.signal import Severity, Signal
from chargewatch.domain.times import EPOCH, time_text
from chargewatch.domain.verdict import Tier
from chargewatch.risk.results import RunResult
from chargewatch.runs.load import Loaded
from chargewatch.runs.owed import Amounts
from chargewatch.signals.findings import Names

_OF_ENGINE = {field.name for field in fields(RunResult)}
_FROM_ENGINE = tuple(
    column.name
    for column in ASSESSMENT_COLUMNS
    if column.kind in (ValueKind.FINDING, ValueKind.COUNT) and column.name in _OF_ENGINE
)
"""Numbers that the engine gives as they are."""


def _time(at_s: float) -> datetime | None:
    return EPOCH + timedelta(seconds=float(at_s)) if math.isfinite(at_s) else None


def severities_by_connector(
    signals: Sequence[Signal], names: Names
) -> tuple[list[list[Severity]], Bools]:
    """Return the severities that bear on each connector, and which connectors are silent.

    A signal of a station or meter bears on every connector of the station; silence is told apart.
    """
    rows: dict[tuple[str, str], list[int]] = {}
    row_of: dict[tuple[str, str, str], int] = {}
    for row, name in enumerate(names.connector):
        place = names.connector_operator[row], names.connector_station[row]
        rows.setdefault(place, []).append(row)
        row_of[*place, name] = row
    severities: list[list[Severity]] = [[] for _ in names.connector]
    silent = np.zeros(len(names.connector), bool)
    for signal in signals:
        place = signal.operator_id or "", signal.station_id or ""
        touched = (
            rows.get(place, []) if signal.connector is None else [row_of[*place, signal.connector]]
        )
        for row in touched:
            if signal.code == "silence":
                silent[row] = True
            elif signal.connector is not None or signal.severity != Severity.SEVERE:
                severities[row].append(signal.severity)
    return severities, silent


class RecentMoney(Protocol):
    """What is known of the money of the last 30 days."""

    @property
    def recent_error(self) -> Amounts:
        """By the meters' errors."""

    @property
    def recent_billing(self) -> Amounts:
        """By the bills."""


def money_columns(result: RunResult, owed: RecentMoney) -> dict[str, Floats]:
    """Return the columns of an assessment that hold money, shape (n,); NaN: not known.

    The priority is the expected overcharge beyond the MPE and that of the last 30 days' bills; as
    much of it as is known.
    """
    error, billing = owed.recent_error, owed.recent_billing
    beyond, bills = result.overcharge_per_month, billing.over
    nothing = np.isnan(beyond) & ~(bills > 0)
    return {
        "priority_money": np.where(nothing, np.nan, np.nan_to_num(beyond) + np.nan_to_num(bills)),
        "overcharge_error": error.over,
        "undercharge_error": error.under,
        "overcharge_billing": billing.over,
        "undercharge_billing": billing.under,
    }


def _budget(names: Sequence[str], values: Sequence[float]) -> list[dict[str, Any]]:
    return [
        {"component": name, "standard_uncertainty": value}
        for name, value in zip(names, values, strict=True)
        if math.isfinite(value)
    ]


def _drifts(result: RunResult) -> list[Mapping[str, Any] | None]:
    columns = (
        result.drift_statistic,
        result.drift_alarm,
        result.drift_changed_s,
        result.drift_low_s,
        result.drift_high_s,
    )
    return [_drift(*row) for row in zip(*(column.tolist() for column in columns), strict=True)]


def _drift(
    statistic: float, alarm: bool, changed: float, low: float, high: float
) -> Mapping[str, Any] | None:
    if not math.isfinite(statistic):
        return None
    return {
        "alarm": alarm,
        "statistic": statistic,
        "changed_at": time_text(changed) if math.isfinite(changed) else None,
        "interval": [time_text(at) if math.isfinite(at) else None for at in (low, high)],
    }


def decide(
    loaded: Loaded,
    result: RunResult,
    signals: Sequence[Signal],
    owed: RecentMoney,
) -> list[Assessment]:
    """Return the assessment of every connector, in the order of the fleet."""
    names = loaded.registry.names
    severities, silent = severities_by_connector(signals, names)
    empty = (np.isnan(loaded.last_reading_s) & np.isnan(result.data_to_s)).tolist()
    # Python's own numbers, a column at a time: one by one they take most of the time.
    columns: dict[str, list[Any]] = {name: getattr(result, name).tolist() for name in _FROM_ENGINE}
    columns["mpe"] = loaded.inputs.fleet.mpe.tolist()
    columns |= {name: column.tolist() for name, column in money_columns(result, owed).items()}
    numbers = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    budgets, drifts = result.budget.tolist(), _drifts(result)
    first, last = result.data_from_s.tolist(), result.data_to_s.tolist()
    found = []
    for row, name in enumerate(names.connector):
        why = result.reason[row]
        if empty[row]:
            why = (reason("no_data"),)
        elif silent[row]:
            why = (*why, reason("silent", since=time_text(loaded.last_reading_s[row])))
        found.append(
            Assessment(
                connector=name,
                station_id=names.connector_station[row],
                operator_id=names.connector_operator[row],
                **numbers[row],
                verdict=result.verdict[row],
                tier=tier_of(
                    result.verdict[row],
                    numbers[row]["p_nonconforming"],
                    severities=severities[row],
                    drift_alarm=bool(result.drift_alarm[row]),
                    silent=bool(silent[row] or empty[row]),
                ),
                data_from=_time(first[row]),
                data_to=_time(last[row]),
                method=result.method[row],
                reason=why,
                budget=_budget(result.budget_components, budgets[row]),
                drift=drifts[row],
            )
        )
    return found


def tiers(assessments: Sequence[Assessment]) -> dict[str, int]:
    """Return how many connectors are in each tier."""
    counts = {tier.value: 0 for tier in Tier}
    for assessment in assessments:
        counts[assessment.tier.value] += 1
    return counts
