"""One risk run: from energies, sessions and verifications to errors, uncertainties, decisions."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from chargewatch.domain.arrays import Bools, Floats, Ints
from chargewatch.domain.times import DAY_S
from chargewatch.domain.verdict import Verdict
from chargewatch.risk.decision import expected_excess, flagged, p_nonconforming
from chargewatch.risk.inference import Inference, infer
from chargewatch.risk.memory import CityStatistics, to_arrays, updated
from chargewatch.risk.reasons import Findings, reasons
from chargewatch.risk.results import BUDGET_COMPONENTS, EngineConfig, RunResult
from chargewatch.risk.rounds_input import UNKNOWN_MPE
from chargewatch.risk.run_inputs import RunInputs
from chargewatch.risk.uncertainty import light_load, uncertainty_budget
from chargewatch.risk.vehicles import KINDS

WIDEST_MPE = 4.0
"""An estimate whose standard uncertainty is above so many MPE is not one."""


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
    return _result(inputs, statistics, inference, config=config)


def _counts(statistics: CityStatistics, inference: Inference) -> tuple[Ints, Ints, Ints, Ints]:
    rows, n = statistics.sessions, inference.error.size
    sessions = np.bincount(rows.connector, minlength=n)
    # Pairs with a vehicle, of whatever kind: a node is a vehicle and a kind.
    node, nodes = inference.weighted.graph.pairs.node, inference.weighted.graph.nodes
    node_vehicle = np.zeros(nodes, dtype=np.int64)
    node_vehicle[node] = rows.vehicle
    vehicle = np.unique(node_vehicle, return_inverse=True)[1]
    met = np.sort(rows.connector * max(nodes, 1) + vehicle[node])
    vehicles = np.bincount(met[np.diff(met, prepend=-1) > 0] // max(nodes, 1), minlength=n)
    direct = (statistics.direct_rows > 0).sum(axis=1) + inference.weighted.anchored
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
        ("verification", inference.weighted.anchored > 0),
    )
    code = np.zeros(identified.size, dtype=np.int64)
    for bit, (_, mask) in enumerate(columns):
        code |= (mask & identified).astype(np.int64) << bit
    names = ["+".join(c[0] for b, c in enumerate(columns) if k >> b & 1) for k in range(16)]
    return tuple(names[k] for k in code.tolist())


def _judged(statistics: CityStatistics, inference: Inference) -> CityStatistics:
    """Return the statistics with what this run knows, for the next one to go on from."""
    sessions = replace(statistics.sessions, tail=inference.tail.astype(np.float32))
    return replace(statistics, judged=inference.judged, sessions=sessions)


def _either(
    quantity: Callable[..., Floats], inference: Inference, error: Floats, mpe: Floats, *, u: Floats
) -> Floats:
    """Return a quantity's mean over "no change" and "a change that was not found", shape (n,)."""
    may = inference.changes.suspicions
    scale = 1.0 + np.nan_to_num(error)
    steady = np.sqrt(np.maximum(u**2 - may.doubt * scale**2, 1e-12))
    out = quantity(error, mpe, standard_uncertainty=steady, population=inference.population)
    k = np.flatnonzero((may.chance > 0) & np.isfinite(error))
    changed = quantity(
        error[k] + may.size[k] * scale[k],
        mpe[k],
        standard_uncertainty=np.sqrt(steady[k] ** 2 + may.variance[k] * scale[k] ** 2),
        population=inference.population,
    )
    out[k] = (1.0 - may.chance[k]) * out[k] + may.chance[k] * changed
    return out


def _result(
    inputs: RunInputs,
    statistics: CityStatistics,
    inference: Inference,
    *,
    config: EngineConfig,
) -> RunResult:
    n = inputs.fleet.size
    mpe = np.where(inputs.fleet.mpe > 0, inputs.fleet.mpe, UNKNOWN_MPE)
    changes = inference.changes
    budget = uncertainty_budget(inference, statistics)
    error = np.expm1(inference.error)
    parts = np.sqrt(budget.variance) * (1.0 + error)[:, None]
    u = np.sqrt((parts**2).sum(axis=1))
    counts = _counts(statistics, inference)
    identified = _identified(inputs, inference, u, counts, mpe, config=config)
    error, u = np.where(identified, error, np.nan), np.where(identified, u, np.nan)
    p = _either(p_nonconforming, inference, error, mpe, u=u)
    live = (counts[0] > 0) | (counts[1] >= config.min_sessions)
    red = flagged(p, limit=config.p_nonconforming, false_share=config.false_flag_share)
    good = (p <= config.p_conforming) & live
    code = np.select([~identified, red, good], [0, 1, 2], default=3)
    names = (Verdict.NOT_IDENTIFIABLE, Verdict.NONCONFORMING, Verdict.CONFORMING, Verdict.UNDECIDED)
    verdict = tuple(names[k] for k in code.tolist())
    excess = _either(expected_excess, inference, error, mpe, u=u)
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
    light, light_u = light_load(statistics, is_dc=inputs.fleet.is_dc, mpe=mpe)
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
        changed=changes.changed,
        has_mpe=np.isfinite(inputs.fleet.mpe),
        min_sessions=config.min_sessions,
    )
    return RunResult(
        as_of_s=inputs.as_of_s,
        relative_error=error,
        standard_uncertainty=u,
        common_uncertainty=common,
        relative_error_light=light,
        standard_uncertainty_light=light_u,
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
        drift_alarm=changes.alarm,
        drift_statistic=changes.statistic,
        drift_changed_s=_seconds(changes.changed),
        drift_low_s=_seconds(changes.low),
        drift_high_s=_seconds(changes.high),
        meter_shift=inference.meter_shift,
        meter_shift_u=inference.meter_shift_u,
        meter_suspect=inference.meter_suspect,
        summary=_summary(inference, p, red, code),
        state=to_arrays(_judged(statistics, inference), inputs),
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


def _summary(inference: Inference, p: Floats, red: Bools, code: Ints) -> dict[str, float]:
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
        "drift_alarms": float(inference.changes.alarm.sum()),
        "meters_suspect": float(inference.meter_suspect.sum()),
        "population_bulk_share": float(inference.population.share[0]),
        "population_bulk_spread_mpe": float(inference.population.spread[0]),
        "converter_efficiency_spread": float(inference.spreads.converter),
        "site_spread_ac": float(inference.spreads.site[0]),
        "site_spread_dc": float(inference.spreads.site[1]),
        "wander_per_year": inference.spreads.wander,
        "cable_loss_ac": float(inference.estimate.level[-2]),
        "cable_loss_dc": float(inference.estimate.level[-1]),
    }
    for kind in range(KINDS):
        name = f"{('bms', 'soc_capacity', 'soc')[kind % 3]}_{'dc' if kind >= 3 else 'ac'}"
        out[f"session_spread_{name}"] = float(inference.spreads.session[kind])
        out[f"vehicle_spread_{name}"] = float(inference.spreads.vehicle[kind])
    return out
