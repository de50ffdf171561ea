"""One risk run: from energies, sessions and verifications to errors, uncertainties, decisions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from chargewatch.domain.verdict import Verdict
from chargewatch.risk.decision import expected_excess, flagged, p_nonconforming
from chargewatch.risk.drift import (
    DriftFindings,
    day_to_day_variance,
    find_changes,
    present_level,
    with_variance,
)
from chargewatch.risk.inference import UNKNOWN_MPE, Inference, infer
from chargewatch.risk.inputs import Bools, Floats, Ints, RunInputs, sum_by_row
from chargewatch.risk.reasons import Findings, reasons
from chargewatch.risk.results import BUDGET_COMPONENTS, EngineConfig, RunResult
from chargewatch.risk.statistics import DAY_S, CityStatistics, to_arrays, updated
from chargewatch.risk.uncertainty import STATISTICS, Budget, uncertainty_budget
from chargewatch.risk.vehicles import KINDS

DAY_WANDER_MPE = 0.1
"""Standard deviation of a good meter from day to day (temperature, load), in MPE."""
SMALLEST_CHANGE_MPE = 0.25
"""A change of the error below this is no drift to report, in MPE."""
SHIFT_U = 0.25
"""Relative standard uncertainty of the way from the joint estimate to the error since a change:
robust weights favour one side of a change by an amount that isn't known."""
WIDEST_MPE = 4.0
"""An estimate whose standard uncertainty is above so many MPE is not one."""


@dataclass(frozen=True, kw_only=True)
class _Drift:
    findings: DriftFindings
    shift: Floats  # present error less the error that the joint estimate gives
    variance: Floats  # of the present error's own noise; NaN without alarm


def advance(
    inputs: RunInputs,
    *,
    config: EngineConfig,
    state: Mapping[str, NDArray] | None = None,  # type: ignore[type-arg]
) -> dict[str, NDArray]:  # type: ignore[type-arg]
    """Return the state with all of the inputs added that is newer, without estimating anything.

    A full recomputation reads a few days at a time with this and calls `assess` for the last.
    """
    return to_arrays(updated(inputs, config=config, state=state), inputs)


def assess(
    inputs: RunInputs,
    *,
    config: EngineConfig,
    state: Mapping[str, NDArray] | None = None,  # type: ignore[type-arg]
) -> RunResult:
    """Return the assessment of every connector of the fleet.

    Args:
        inputs: everything in [from_s, as_of_s); with a state, what is older than it is ignored.
        config: the numbers that steer the engine.
        state: `RunResult.state` of the last run, None for a full recomputation.

    Same inputs, configuration and state: same result, to the last bit.
    """
    statistics = updated(inputs, config=config, state=state)
    inference = infer(inputs, statistics, config=config)
    drift = _drift(inputs, statistics, inference, config=config)
    return _result(inputs, statistics, inference, drift, config=config)


def _session_series(
    statistics: CityStatistics, inference: Inference, days: Ints, *, connectors: int
) -> tuple[Floats, Floats]:
    """Return daily estimates of gamma by sessions and their precision, shapes (n, d)."""
    rows = statistics.sessions
    column = np.floor(rows.ended_s / DAY_S).astype(np.int64) - int(days[0])
    inside = (column >= 0) & (column < days.size)
    place = rows.connector[inside] * days.size + column[inside]
    weight = inference.session_information[inside]
    size = connectors * days.size
    precision = sum_by_row(place, weight, size=size)
    total = sum_by_row(place, weight * inference.session_residual[inside], size=size)
    estimate = np.where(precision > 0, total / np.where(precision > 0, precision, 1.0), 0.0)
    return estimate.reshape(connectors, -1), precision.reshape(connectors, -1)


def _centred(estimate: Floats, precision: Floats) -> Floats:
    total = precision.sum(axis=1)
    mean = (precision * estimate).sum(axis=1) / np.where(total > 0, total, 1.0)
    return np.where(precision > 0, estimate - mean[:, None], 0.0)


def _drift(
    inputs: RunInputs, statistics: CityStatistics, inference: Inference, *, config: EngineConfig
) -> _Drift:
    as_of_s = inputs.as_of_s
    n = inference.error.size
    rows = statistics.sessions
    session_days = np.floor(rows.ended_s / DAY_S).astype(np.int64)
    known = np.union1d(statistics.days, session_days)
    last = int(np.ceil(as_of_s / DAY_S)) - 1
    known = known[(known > last - config.drift_days) & (known <= last)]
    if known.size == 0:
        none = np.zeros((n, 0))
        findings = find_changes(
            none,
            none,
            smallest=np.zeros(n),
            reference=config.drift_reference,
            limit=config.drift_limit,
        )
        return _Drift(findings=findings, shift=np.zeros(n), variance=np.full(n, np.nan))
    days = np.arange(known[0], last + 1)
    metered, metered_p = np.zeros((n, days.size)), np.zeros((n, days.size))
    place = statistics.days - days[0]
    use = (place >= 0) & (place < days.size)
    metered[:, place[use]] = statistics.metered[:, use]
    metered_p[:, place[use]] = statistics.metered_precision[:, use]
    session, session_p = _session_series(statistics, inference, days, connectors=n)
    told = metered_p + session_p
    mpe = np.where(inputs.fleet.mpe > 0, inputs.fleet.mpe, UNKNOWN_MPE)
    for crossing in (False, True):
        mine = inputs.fleet.is_dc == crossing
        extra = day_to_day_variance(metered[mine], metered_p[mine])
        own = np.maximum(extra, (DAY_WANDER_MPE * mpe[mine]) ** 2)
        metered_p[mine] = with_variance(metered_p[mine], own[:, None])
    session_p = with_variance(session_p, day_to_day_variance(session, session_p))
    # The joint estimate weighs days as they were, without the variance between days.
    weight = told * 2.0 ** (-(last - days) / config.half_life_days)
    precision = metered_p + session_p
    estimate = metered_p * _centred(metered, metered_p) + session_p * _centred(session, session_p)
    estimate = estimate / np.where(precision > 0, precision, 1.0)
    findings = find_changes(
        estimate,
        precision,
        smallest=SMALLEST_CHANGE_MPE * mpe,
        reference=config.drift_reference,
        limit=config.drift_limit,
    )
    mean = (weight * estimate).sum(axis=1) / np.maximum(weight.sum(axis=1), 1e-300)
    present, variance = present_level(estimate, precision, begin=findings.changed)
    usable = findings.alarm & np.isfinite(variance)
    findings = DriftFindings(
        alarm=findings.alarm,
        statistic=findings.statistic,
        changed=_day_start(findings.changed, days),
        low=_day_start(findings.low, days),
        high=_day_start(findings.high, days),
    )
    return _Drift(
        findings=findings,
        shift=np.where(usable, present - mean, 0.0),
        variance=np.where(usable, variance, np.nan),
    )


def _day_start(column: Ints, days: Ints) -> Ints:
    return np.where(column >= 0, days[np.maximum(column, 0)], -1)


def _with_change(error: Floats, budget: Budget, drift: _Drift) -> tuple[Floats, Floats]:
    """Return the present error and the budget's variances, after a change by the days since."""
    changed = np.isfinite(drift.variance) & np.isfinite(error)
    variance = budget.variance.copy()
    own = drift.variance + (SHIFT_U * drift.shift) ** 2
    variance[changed, STATISTICS] = np.maximum(variance[changed, STATISTICS], own[changed])
    return np.where(changed, error + drift.shift, error), variance


def _counts(statistics: CityStatistics, inference: Inference) -> tuple[Ints, Ints, Ints, Ints]:
    rows, n = statistics.sessions, inference.error.size
    sessions = np.bincount(rows.connector, minlength=n)
    vehicle = np.unique(np.stack([rows.connector, rows.vehicle]), axis=1)
    vehicles = np.bincount(vehicle[0], minlength=n)
    direct = (statistics.direct_rows > 0).sum(axis=1) + inference.anchored
    return statistics.rows.sum(axis=1), sessions, vehicles, direct


def _identified(
    inputs: RunInputs,
    inference: Inference,
    u: Floats,
    counts: tuple[Ints, ...],
    mpe: Floats,
    *,
    config: EngineConfig,
) -> Bools:
    intervals, sessions, _, direct = counts
    evidence = (intervals > 0) | (sessions >= config.min_sessions) | (direct > 0)
    return (
        inference.traced
        & evidence
        & np.isfinite(u)
        & (u < WIDEST_MPE * mpe)
        & np.isfinite(inputs.fleet.mpe)
    )


def _methods(
    inference: Inference, statistics: CityStatistics, counts: tuple[Ints, ...], identified: Bools
) -> tuple[str, ...]:
    intervals, sessions, _, _ = counts
    under = statistics.layout.connector_group >= 0
    columns = (
        ("direct", statistics.direct_weight > 0),
        ("balance", under & (intervals > 0)),
        ("vehicles", sessions > 0),
        ("verification", inference.anchored > 0),
    )
    code = np.zeros(identified.size, dtype=np.int64)
    for bit, (_, mask) in enumerate(columns):
        code |= (mask & identified).astype(np.int64) << bit
    names = ["+".join(c[0] for b, c in enumerate(columns) if k >> b & 1) for k in range(16)]
    return tuple(names[k] for k in code.tolist())


def _result(
    inputs: RunInputs,
    statistics: CityStatistics,
    inference: Inference,
    drift: _Drift,
    *,
    config: EngineConfig,
) -> RunResult:
    n = inputs.fleet.size
    mpe = np.where(inputs.fleet.mpe > 0, inputs.fleet.mpe, UNKNOWN_MPE)
    budget = uncertainty_budget(inference, statistics)
    gamma, variances = _with_change(inference.error, budget, drift)
    error = np.expm1(gamma)
    parts = np.sqrt(variances) * (1.0 + error)[:, None]
    u = np.sqrt((parts**2).sum(axis=1))
    counts = _counts(statistics, inference)
    identified = _identified(inputs, inference, u, counts, mpe, config=config)
    error, u = np.where(identified, error, np.nan), np.where(identified, u, np.nan)
    p = p_nonconforming(error, mpe, standard_uncertainty=u, population=inference.population)
    live = (counts[0] > 0) | (counts[1] >= config.min_sessions)
    red = flagged(p, limit=config.p_nonconforming, false_share=config.false_flag_share)
    good = (p <= config.p_conforming) & live
    code = np.select([~identified, red, good], [0, 1, 2], default=3)
    names = (Verdict.NOT_IDENTIFIABLE, Verdict.NONCONFORMING, Verdict.CONFORMING, Verdict.UNDECIDED)
    verdict = tuple(names[k] for k in code.tolist())
    excess = expected_excess(error, mpe, standard_uncertainty=u, population=inference.population)
    price = np.where(
        statistics.price_wh > 0,
        statistics.price_sum / np.where(statistics.price_wh > 0, statistics.price_wh, 1.0),
        config.energy_price,
    )
    monthly = np.where(
        statistics.energy_days > 0,
        30.0
        * statistics.energy_wh
        / np.where(statistics.energy_days > 0, statistics.energy_days, 1.0),
        0.0,
    )
    parts = np.where(identified[:, None], parts, np.nan)
    common = np.sqrt(budget.common) * (1.0 + error)
    meter = _meter_of(inputs, statistics)
    findings = Findings(
        error=error,
        u=u,
        mpe=mpe,
        p=p,
        code=code,
        intervals=counts[0],
        sessions=counts[1],
        direct=counts[3],
        meter_u=parts[:, BUDGET_COMPONENTS.index("reference_meter")],
        suspect=(meter >= 0) & inference.meter_suspect[np.maximum(meter, 0)]
        if inference.meter_suspect.size
        else np.zeros(n, dtype=bool),
        meter=meter,
        traced=inference.traced,
        live=live,
        changed=drift.findings.changed,
        has_mpe=np.isfinite(inputs.fleet.mpe),
        min_sessions=config.min_sessions,
    )
    return RunResult(
        as_of_s=inputs.as_of_s,
        relative_error=error,
        standard_uncertainty=u,
        common_uncertainty=common,
        relative_error_light=np.full(n, np.nan),
        standard_uncertainty_light=np.full(n, np.nan),
        p_nonconforming=p,
        verdict=verdict,
        reason=reasons(findings, inputs.references.meter),
        n_intervals=counts[0],
        n_sessions=counts[1],
        n_vehicles=counts[2],
        n_direct=counts[3],
        data_from_s=statistics.first_s,
        data_to_s=statistics.last_s,
        method=_methods(inference, statistics, counts, identified),
        overcharge_per_month=np.nan_to_num(excess * monthly / 1000.0 * price),
        budget_components=BUDGET_COMPONENTS,
        budget=parts,
        drift_alarm=drift.findings.alarm,
        drift_statistic=drift.findings.statistic,
        drift_changed_s=_seconds(drift.findings.changed),
        drift_low_s=_seconds(drift.findings.low),
        drift_high_s=_seconds(drift.findings.high),
        meter_shift=inference.meter_shift,
        meter_shift_u=inference.meter_shift_u,
        meter_suspect=inference.meter_suspect,
        summary=_summary(inference, p, red, code, drift, mpe),
        state=to_arrays(statistics, inputs),
    )


def _seconds(day: Ints) -> Floats:
    return np.where(day >= 0, day * DAY_S, np.nan)


def _meter_of(inputs: RunInputs, statistics: CityStatistics) -> Ints:
    """Return the feeder meter above each connector, shape (n,), -1 for none."""
    out = np.full(inputs.fleet.size, -1, dtype=np.int64)
    for group in statistics.layout.groups:
        known = group.member >= 0
        out[group.member[known]] = np.broadcast_to(group.meter[:, None], known.shape)[known]
    return out


def _summary(
    inference: Inference, p: Floats, red: Bools, code: Ints, drift: _Drift, mpe: Floats
) -> dict[str, float]:
    known = np.isfinite(p)
    out = {
        "connectors": float(p.size),
        "identified": float(known.sum()),
        "nonconforming": float((code == 1).sum()),
        "conforming": float((code == 2).sum()),
        "undecided": float((code == 3).sum()),
        "not_identifiable": float((code == 0).sum()),
        "expected_false_flags": float((1.0 - p[red]).sum()),
        "expected_missed": float(p[known & ~red].sum()),
        "drift_alarms": float(drift.findings.alarm.sum()),
        "meters_suspect": float(inference.meter_suspect.sum()),
        "population_bulk_share": float(inference.population.share[0]),
        "population_bulk_spread_mpe": float(inference.population.spread[0]),
        "converter_efficiency_spread": float(inference.spreads.converter),
        "site_spread_ac": float(inference.spreads.site[0]),
        "site_spread_dc": float(inference.spreads.site[1]),
    }
    for kind in range(KINDS):
        name = f"{('bms', 'soc_capacity', 'soc')[kind % 3]}_{'dc' if kind >= 3 else 'ac'}"
        out[f"session_spread_{name}"] = float(inference.spreads.session[kind])
        out[f"vehicle_spread_{name}"] = float(inference.spreads.vehicle[kind])
    return out
