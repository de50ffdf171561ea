"""From the engine's result and the signals to one assessment a connector, with tier and money."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import fields
from datetime import datetime, timedelta
from typing import Any

import numpy as np

from chargewatch.domain.arrays import Bools, Floats
from chargewatch.domain.assessment import ASSESSMENT_COLUMNS, Assessment, tier_of
from chargewatch.domain.columns import ValueKind
from chargewatch.domain.reason import reason
from chargewatch.domain.rollover import metered_energy
from chargewatch.domain.signal import Severity, Signal
from chargewatch.domain.times import EPOCH, time_text
from chargewatch.domain.verdict import Tier
from chargewatch.risk.results import RunResult
from chargewatch.runs.load import Loaded
from chargewatch.signals.findings import Names
from chargewatch.signals.registry import RULES
from chargewatch.storage.bulk import seconds_of

MONTH_DAYS = 30.0
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


def overbilled_per_month(
    loaded: Loaded, signals: Sequence[Signal], *, days: float, default_price: float
) -> Floats:
    """Return the money of billing signals per 30 days, by connector; shape (n,).

    Equation: sum max(0, billed - metered) x price over the window's sessions of connectors with
    such a signal, x 30 / days; price is total_fee / billed_wh, or the default.
    """
    records, registry = loaded.sessions, loaded.registry
    money = np.zeros(registry.connector_ids.size)
    row = registry.connector_rows(records["connector_id"])
    metered_wh = metered_energy(
        records["start_wh"],
        records["stop_wh"],
        span_s=seconds_of(records["ended_at"]) - seconds_of(records["started_at"]),
        rated_w=loaded.inputs.fleet.rated_power_w[row],
    )
    extra_wh = np.maximum(records["billed_wh"] - metered_wh, 0)
    with np.errstate(divide="ignore", invalid="ignore"):
        price = records["total_fee"] / records["billed_wh"] * 1000
    price = np.where(np.isfinite(price), price, default_price)
    np.add.at(money, row, extra_wh / 1000 * price)
    flagged = {
        (s.operator_id, s.station_id, s.connector) for s in signals if RULES[s.code].is_of_billing
    }
    names = registry.names
    keep = [
        (names.connector_operator[k], names.connector_station[k], name) in flagged
        for k, name in enumerate(names.connector)
    ]
    return np.asarray(np.where(keep, money, 0.0) * MONTH_DAYS / max(days, 1.0))


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
    *,
    days: float,
    default_price: float,
) -> list[Assessment]:
    """Return the assessment of every connector, in the order of the fleet.

    Where:
        days: length of the window, for money per month.
        default_price: money per kWh of sessions that tell none.
    """
    names = loaded.registry.names
    severities, silent = severities_by_connector(signals, names)
    money = overbilled_per_month(loaded, signals, days=days, default_price=default_price)
    money = money + np.nan_to_num(result.overcharge_per_month)
    empty = (np.isnan(loaded.last_reading_s) & np.isnan(result.data_to_s)).tolist()
    # Python's own numbers, a column at a time: one by one they take most of the time.
    columns: dict[str, list[Any]] = {name: getattr(result, name).tolist() for name in _FROM_ENGINE}
    columns["mpe"] = loaded.inputs.fleet.mpe.tolist()
    columns["priority_money"] = money.tolist()
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
