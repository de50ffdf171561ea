"""Sums of money owed by operator, and the rows that are kept."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np
from numpy.typing import NDArray

from chargewatch.domain.arrays import Bools, Floats, Ints, sum_by_row
from chargewatch.risk.results import RunResult
from chargewatch.runs.load import Loaded
from chargewatch.runs.owed import Amounts, MonthOwed, Owed
from chargewatch.storage.bulk import Records
from chargewatch.storage.runs.money import OWED, TOTAL_COLUMNS
from chargewatch.storage.tables.money import CAUSES

TWO_SIDED = 1.959963984540054
"""Standard deviations on both sides of the mean that hold 95 % of a normal distribution."""
EPOCH_MOMENT = np.datetime64(0, "us")
EVERYBODY = ""
"""The operator_id of sums over all operators."""


@dataclass(frozen=True, kw_only=True)
class Sharing:
    """Which part of a variance connectors share, shape (n,)."""

    station: Ints
    by_station: Floats  # with those of their station: the reference meter's
    by_city: Floats  # with all: gauge and efficiencies


def sharing_of(loaded: Loaded, result: RunResult) -> Sharing:
    """Return it from the uncertainty budget; where nothing is known, nothing is shared."""
    budget = dict(zip(result.budget_components, result.budget.T, strict=True))
    total = result.standard_uncertainty**2
    with np.errstate(invalid="ignore", divide="ignore"):
        common = np.clip(result.common_uncertainty**2 / total, 0.0, 1.0)
        meter = np.clip(budget["reference_meter"] ** 2 / total, 0.0, 1.0)
        gauge = np.clip(budget["gauge"] ** 2 / total, 0.0, 1.0)
    common, meter, gauge = (np.nan_to_num(x) for x in (common, meter, gauge))
    by_station = np.minimum(meter, np.maximum(common - gauge, 0.0))
    return Sharing(
        station=loaded.inputs.fleet.station,
        by_station=by_station,
        by_city=np.maximum(common - by_station, 0.0),
    )


def standard_deviation(variance: Floats, group: Ints, sharing: Sharing, *, groups: int) -> Floats:
    """Return the standard deviation of the sums of amounts by group, shape (groups,).

    Args:
        variance: of each amount, shape (n,).
        group: of each amount, -1: of none, shape (n,).
        sharing: which part of it is whose.
        groups: how many there are.

    Equation: sum v_own + sum over stations (sum sqrt(v_station))^2 + (sum sqrt(v_city))^2: what is
    shared adds up linearly.
    """
    rows = np.flatnonzero((group >= 0) & np.isfinite(variance))
    who, v = group[rows], variance[rows]
    by_station, by_city = v * sharing.by_station[rows], v * sharing.by_city[rows]
    own = sum_by_row(who, np.maximum(v - by_station - by_city, 0.0), size=groups)
    stations = int(sharing.station.max(initial=0)) + 1
    place = who * stations + sharing.station[rows]
    shared, number = np.unique(place, return_inverse=True)
    sums = sum_by_row(number, np.sqrt(by_station), size=shared.size) ** 2
    station = sum_by_row(shared // stations, sums, size=groups)
    city = sum_by_row(who, np.sqrt(by_city), size=groups) ** 2
    return np.asarray(np.sqrt(own + station + city))


def total_rows(
    month: MonthOwed, operator_ids: Sequence[str], operator: Ints, sharing: Sharing, run_id: int
) -> Iterator[tuple[Any, ...]]:
    """Yield the sums of a month by operator and cause, in TOTAL_COLUMNS.

    Where: operator: place in operator_ids of each connector.
    """
    active = month.error.sessions > 0
    for groups, names in (
        (np.where(active, operator, -1), operator_ids),
        (np.where(active, 0, -1), [EVERYBODY]),
    ):
        for cause, amounts in zip(CAUSES, (month.error, month.billing), strict=True):
            columns = _sums(amounts, groups, sharing, len(names))
            for place, name in enumerate(names):
                if columns["connectors"][place]:
                    values = {key: column[place].item() for key, column in columns.items()}
                    values |= {
                        "month": month.span.month,
                        "operator_id": name,
                        "cause": cause,
                        "run_id": run_id,
                    }
                    yield tuple(values[key] for key in TOTAL_COLUMNS)


def _sums(amounts: Amounts, group: Ints, sharing: Sharing, size: int) -> dict[str, Any]:
    rows = np.flatnonzero(group >= 0)
    who = group[rows]
    known = np.isfinite(amounts.net[rows])
    some = np.bincount(who[known], minlength=size) > 0

    def total(values: Floats) -> Floats:
        sums = sum_by_row(who, np.nan_to_num(values[rows]), size=size)
        return np.where(some, sums, np.nan)

    def spread(variance: Floats) -> Floats:
        return TWO_SIDED * standard_deviation(variance, group, sharing, groups=size)

    def count(values: Ints) -> Ints:
        return sum_by_row(who, values[rows].astype(float), size=size).astype(np.int64)

    out: dict[str, Any] = {}
    for side, name in (("overcharge", "over"), ("undercharge", "under")):
        middle = total(getattr(amounts, name))
        away = spread(getattr(amounts, f"variance_{name}"))
        out[f"{side}_cny"] = middle
        out[f"{side}_low_cny"] = np.maximum(middle - away, 0.0)
        out[f"{side}_high_cny"] = middle + away
    net, away = total(amounts.net), spread(amounts.variance)
    out |= {"net_cny": net, "net_low_cny": net - away, "net_high_cny": net + away}
    return out | {
        "connectors": np.bincount(who, minlength=size),
        "connectors_unknown": np.bincount(who[amounts.unknown[rows] > 0], minlength=size),
        "sessions": count(amounts.sessions),
        "sessions_unknown": count(amounts.unknown),
        "energy_wh": sum_by_row(who, amounts.energy_wh[rows], size=size),
        "paid_cny": sum_by_row(who, amounts.paid[rows], size=size),
    }


def owed_records(loaded: Loaded, owed: Owed) -> Records:
    """Return the rows of all months, dtype OWED.

    There is one by error where there were sessions, and one by bills where one of them differs or
    isn't known.
    """
    parts = []
    for month in owed.months:
        by_bills = (month.billing.sessions > 0) | (month.billing.unknown > 0)
        for cause, amounts, wanted in (
            (0, month.error, month.error.sessions > 0),
            (1, month.billing, by_bills),
        ):
            parts.append(_records(loaded, owed, month, amounts, wanted, cause=cause))
    return np.concatenate(parts) if parts else np.empty(0, OWED)


def _records(
    loaded: Loaded, owed: Owed, month: MonthOwed, amounts: Amounts, wanted: Bools, *, cause: int
) -> Records:
    rows = np.flatnonzero(wanted)
    found = np.empty(rows.size, OWED)
    found["month"] = np.datetime64(month.span.month, "D")
    found["connector_id"] = loaded.registry.connector_ids[rows]
    found["cause"] = cause
    for side, name in (("overcharge", "over"), ("undercharge", "under")):
        for end in ("", "_low", "_high"):
            found[f"{side}{end}_cny"] = getattr(amounts, f"{name}{end}")[rows]
    found["sessions"], found["sessions_unknown"] = amounts.sessions[rows], amounts.unknown[rows]
    found["energy_wh"], found["paid_cny"] = amounts.energy_wh[rows], amounts.paid[rows]
    shares = owed.shares
    # Of bills there is no share, and nothing that changed.
    values = {
        "undelivered_share": shares.now.mean,
        "undelivered_share_before": shares.before.mean,
        "changed_at": _moments(shares.changed_s),
        "settled_at": _moments(shares.settled_s),
        "known_from": _moments(shares.replaced_s),
    }
    for name, column in values.items():
        of_bills = np.nan if column.dtype.kind == "f" else EPOCH_MOMENT
        found[name] = of_bills if cause else column[rows]
    return found


def _moments(at_s: Floats) -> NDArray[np.datetime64]:
    """Return times; what never was stands as 1970."""
    known = np.where(np.isfinite(at_s), at_s, 0.0)
    return np.round(known * 1e6).astype(np.int64).view("M8[us]")


@dataclass(frozen=True, kw_only=True)
class KeptMoney:
    """What a run keeps of money, as `storage.runs.money.save_money` takes it."""

    months: Sequence[tuple[Any, ...]]
    owed: Records
    totals: Sequence[tuple[Any, ...]]


def kept_money(loaded: Loaded, result: RunResult, owed: Owed, *, run_id: int) -> KeptMoney:
    """Return from when to when each month was counted, its rows, and its sums."""
    sharing = sharing_of(loaded, result)
    names, operator = np.unique(
        np.array(loaded.registry.names.connector_operator), return_inverse=True
    )
    return KeptMoney(
        months=[
            (
                month.span.month,
                datetime.fromtimestamp(month.span.from_s, UTC),
                datetime.fromtimestamp(month.span.to_s, UTC),
                run_id,
            )
            for month in owed.months
        ],
        owed=owed_records(loaded, owed),
        totals=[
            row
            for month in owed.months
            for row in total_rows(month, names.tolist(), operator, sharing, run_id)
        ],
    )
