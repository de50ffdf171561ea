"""Signals that a session's own record proves: billed energy, loss ratios, state of charge."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from chargewatch.domain.arrays import Bools, Floats, Ints
from chargewatch.signals.findings import Finding, Limits, findings_by_day, time_text
from chargewatch.signals.idle import BilledSessions


@dataclass(frozen=True, kw_only=True)
class BatterySessions:
    """What sessions tell of the battery, row by row beside BilledSessions; NaN: not told."""

    soc_start_pct: Floats
    soc_stop_pct: Floats
    battery_capacity_wh: Floats
    bms_energy_wh: Floats


def billing_findings(
    sessions: BilledSessions, *, resolution_wh: Floats, limits: Limits
) -> list[Finding]:
    """Return findings of sessions whose billed energy is not stop - start.

    A connector whose differing sessions keep to one ratio (at least 5 of them, four of five
    within 0.1 % and a billing step of their median) bills by a loss ratio; what differs
    otherwise is a mismatch, and a factor of 1,000 is a unit fault.

    Where:
        resolution_wh: of each session's connector, shape (s,).
    """
    metered = sessions.stop_wh - sessions.start_wh
    resolution = np.where(resolution_wh > 0, resolution_wh, 1.0)
    tolerance = np.maximum(limits.billing_step_wh, 2 * resolution)
    miss = np.abs(sessions.billed_wh - metered)
    off = miss > tolerance
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.where(metered > 0, sessions.billed_wh / metered, np.nan)
    unit = off & ((np.abs(ratio / 1000 - 1) < 0.02) | (np.abs(ratio * 1000 - 1) < 0.02))
    at_ratio, median = _one_ratio(
        sessions.connector, ratio, off & ~unit, slack=tolerance / np.fmax(metered, 1), limits=limits
    )
    found = _loss_findings(sessions, metered, at_ratio, median=median, limits=limits)
    for code, rows in (
        ("unit_fault", np.flatnonzero(unit)),
        ("session_register_mismatch", np.flatnonzero(off & ~unit & ~at_ratio)),
    ):
        found += _mismatch_findings(
            code, sessions.take(rows), metered[rows], ratio=ratio[rows], tolerance=tolerance[rows]
        )
    return found


def _one_ratio(
    connector: Ints, ratio: Floats, off: Bools, *, slack: Floats, limits: Limits
) -> tuple[Bools, Floats]:
    """Return which differing sessions keep to their connector's one ratio, and that ratio."""
    at_ratio = np.zeros(ratio.size, bool)
    median = np.full(ratio.size, np.nan)
    rows = np.flatnonzero(off & np.isfinite(ratio))
    rows = rows[np.argsort(connector[rows], kind="stable")]
    edges = np.append(np.flatnonzero(np.diff(connector[rows], prepend=-1)), rows.size)
    for start, end in pairwise(edges):
        group = rows[start:end]
        if group.size < limits.loss_sessions:
            continue
        middle = float(np.median(ratio[group]))
        near = np.abs(ratio[group] - middle) <= 0.001 + slack[group]
        if abs(middle - 1) >= limits.loss_ratio_step and near.mean() >= 0.8:
            at_ratio[group[near]] = True
            median[group[near]] = middle
    return at_ratio, median


def _loss_findings(
    sessions: BilledSessions,
    metered: Floats,
    at_ratio: Bools,
    *,
    median: Floats,
    limits: Limits,
) -> list[Finding]:
    rows = np.flatnonzero(at_ratio)
    part, energy, ratio = sessions.take(rows), metered[rows], median[rows]
    return findings_by_day(
        "loss_adjusted_billing",
        part.connector,
        part.ended_s,
        first_s=part.started_s,
        value=ratio,
        limit=1.0 + limits.loss_ratio_step,
        excess=np.abs(part.billed_wh - energy),
        detail=lambda k: (
            f"billed energy is {ratio[k]:.4f} times the metered energy, session after session"
        ),
        record=lambda k: {
            "session": int(part.name[k]),
            "billed_wh": float(part.billed_wh[k]),
            "metered_wh": float(energy[k]),
        },
    )


def _mismatch_findings(
    code: str, sessions: BilledSessions, metered: Floats, *, ratio: Floats, tolerance: Floats
) -> list[Finding]:
    is_unit = code == "unit_fault"
    return findings_by_day(
        code,
        sessions.connector,
        sessions.ended_s,
        first_s=sessions.started_s,
        value=ratio if is_unit else sessions.billed_wh - metered,
        limit=1.0 if is_unit else tolerance,
        excess=np.abs(sessions.billed_wh - metered),
        detail=lambda k: (
            f"billed {sessions.billed_wh[k]:.0f} Wh, stop_wh - start_wh is {metered[k]:.0f} Wh"
        ),
        record=lambda k: {
            "session": int(sessions.name[k]),
            "start_wh": float(sessions.start_wh[k]),
            "stop_wh": float(sessions.stop_wh[k]),
            "billed_wh": float(sessions.billed_wh[k]),
        },
    )


def soc_findings(
    sessions: BilledSessions,
    battery: BatterySessions,
    *,
    explained: Bools,
    limits: Limits,
) -> list[Finding]:
    """Return findings of sessions whose energy the battery can't have taken.

    With dSOC >= 10 points the metered energy must be within a factor of 2 of
    (dSOC +- 1 point) x capacity; where the battery told its own energy, within a factor of 2 of
    that; and SOC must not fall during a session of more than 2 kWh.

    Where:
        explained: shape (s,); sessions whose energy another signal already explains.
    """
    metered = sessions.stop_wh - sessions.start_wh
    rise = battery.soc_stop_pct - battery.soc_start_pct
    capacity = battery.battery_capacity_wh
    high = (np.abs(rise) + 1) / 100 * capacity * limits.soc_ratio
    low = (np.abs(rise) - 1) / 100 * capacity / limits.soc_ratio
    told = (rise >= limits.soc_points) & (capacity > 0)
    large = metered > limits.soc_from_wh
    too_much = told & (metered > high)
    too_little = told & (metered < low)
    beyond = (capacity > 0) & (metered > limits.soc_ratio * capacity) & large
    falls = (rise < -1) & large
    own = battery.bms_energy_wh
    by_bms = (np.fmax(metered, own) > limits.soc_from_wh) & (
        (metered > limits.soc_ratio * own) | (metered * limits.soc_ratio < own)
    )
    bad = np.flatnonzero((too_much | too_little | beyond | falls | by_bms) & ~explained)
    part = sessions.take(bad)
    expected = np.where(
        np.isfinite(rise[bad] * capacity[bad]), rise[bad] / 100 * capacity[bad], own[bad]
    )
    limit = np.where(metered[bad] > expected, limits.soc_ratio, 1 / limits.soc_ratio)
    with np.errstate(divide="ignore", invalid="ignore"):
        value = metered[bad] / expected
        excess = np.nan_to_num(np.abs(np.log(np.abs(value))), nan=0.0, posinf=99.0)

    def detail(k: int) -> str:
        return (
            f"{metered[bad[k]]:.0f} Wh for a state of charge from "
            f"{battery.soc_start_pct[bad[k]]:.0f} to {battery.soc_stop_pct[bad[k]]:.0f} % "
            f"of {capacity[bad[k]]:.0f} Wh"
        )

    return findings_by_day(
        "soc_implausible",
        part.connector,
        part.ended_s,
        first_s=part.started_s,
        value=value,
        limit=limit,
        excess=excess,
        detail=detail,
        record=lambda k: {
            "session": int(part.name[k]),
            "ended_at": time_text(part.ended_s[k]),
            "metered_wh": float(metered[bad[k]]),
            "soc_start_pct": float(battery.soc_start_pct[bad[k]]),
            "soc_stop_pct": float(battery.soc_stop_pct[bad[k]]),
            "battery_capacity_wh": float(capacity[bad[k]]),
            "bms_energy_wh": float(own[bad[k]]),
        },
    )
