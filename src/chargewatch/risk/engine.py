"""One risk run: from energies, sessions and verifications to errors, uncertainties, decisions."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from chargewatch.domain.arrays import Bools, Floats, Ints
from chargewatch.domain.times import DAY_S
from chargewatch.domain.verdict import Verdict
from chargewatch.risk.decision import expected_excess, p_nonconforming
from chargewatch.risk.feeders.blocks import meters_above
from chargewatch.risk.given import NOTHING, Given
from chargewatch.risk.inference import Inference, Solved, concluded, settled
from chargewatch.risk.memory import CityStatistics, closed_and_open, to_arrays, updated
from chargewatch.risk.reasons import Findings, reasons
from chargewatch.risk.rebuilding import History, Rebuilt, part_of, rebuilt, with_wider_anchors
from chargewatch.risk.results import BUDGET_COMPONENTS, EngineConfig, PastErrors, RunResult
from chargewatch.risk.rounds_input import known_mpe
from chargewatch.risk.run_inputs import RunInputs
from chargewatch.risk.situation_errors import SituationError, situation_errors
from chargewatch.risk.uncertainty import light_load, uncertainty_budget
from chargewatch.risk.vehicles import PAIR_KINDS

WIDEST_MPE = 4.0
"""An estimate whose standard uncertainty is above so many MPE is not one."""
_VERDICTS = (
    Verdict.NOT_IDENTIFIABLE,
    Verdict.NONCONFORMING,
    Verdict.CONFORMING,
    Verdict.UNDECIDED,
)


def advance(
    inputs: RunInputs,
    *,
    config: EngineConfig,
    state: Mapping[str, NDArray] | None = None,  # type: ignore[type-arg]
) -> dict[str, NDArray]:  # type: ignore[type-arg]
    """Return the state with all of the inputs added that is newer, without estimating anything.

    A full recomputation reads a few days at a time with this, as long as they are closed, and calls
    `assess` for the rest.
    """
    return to_arrays(updated(inputs, config=config, state=state), inputs)


def assess(
    inputs: RunInputs,
    *,
    config: EngineConfig,
    state: Mapping[str, NDArray] | None = None,  # type: ignore[type-arg]
    history: History | None = None,
    given: Given = NOTHING,
) -> RunResult:
    """Return the assessment of every connector of the fleet.

    Args:
        inputs: everything in [from_s, as_of_s); with a state, what is older than it is ignored.
        config: the numbers that steer the engine.
        state: `RunResult.state` of the last run, None for a full recomputation.
        history: gives the intervals of feeders that are looked at again for situations; None:
            those of the inputs, which hold all of them where there is no state.
        given: truths that an evaluation gives in place of judgements.

    It comes to the same with a state and without, as long as the state's days are the same. Same
    inputs, configuration and state: same result, to the last bit.
    """
    return assessed(inputs, config=config, state=state, history=history, given=given)[0]


@dataclass(frozen=True, kw_only=True)
class Course:
    """How an assessment came about: what excerpts of it are cut from."""

    inputs: RunInputs
    closed: CityStatistics  # up to the last day that is closed
    statistics: CityStatistics  # up to the run
    found: Rebuilt
    solved: Solved
    inference: Inference
    config: EngineConfig


def assessed(
    inputs: RunInputs,
    *,
    config: EngineConfig,
    state: Mapping[str, NDArray] | None = None,  # type: ignore[type-arg]
    history: History | None = None,
    given: Given = NOTHING,
) -> tuple[RunResult, Course]:
    """Return the assessment of every connector, and how it came about; see `assess`."""
    closed, statistics = closed_and_open(inputs, config=config, state=state)
    if history is None and state is None:
        history = partial(part_of, inputs)
    found = rebuilt(inputs, statistics, history=history, mpe=known_mpe(inputs.fleet), config=config)
    anchored = with_wider_anchors(inputs, found.conditional)
    solved = settled(anchored, found.statistics, config=config, given=given)
    course = Course(
        inputs=inputs,
        closed=closed,
        statistics=statistics,
        found=found,
        solved=solved,
        inference=concluded(solved, given=given),
        config=config,
    )
    return result_of(course), course


@dataclass(frozen=True, kw_only=True)
class _Counts:
    """How much evidence there is of each connector, shape (n,)."""

    intervals: Ints
    sessions: Ints
    vehicles: Ints
    direct: Ints


@dataclass(frozen=True, kw_only=True)
class _Measured:
    """What is known of each connector's error, shape (n,); NaN: not identifiable."""

    error: Floats
    u: Floats
    common: Floats
    budget: Floats  # (n, components)
    mpe: Floats
    identified: Bools
    counts: _Counts


@dataclass(frozen=True, kw_only=True)
class _Decided:
    """What follows from that for each connector, shape (n,)."""

    p: Floats  # of an error outside the MPE
    flagged: Bools
    live: Bools  # enough data for a good verdict
    code: Ints  # place in _VERDICTS
    excess: Floats  # expected error above the MPE, at the customers' cost; NaN: not known
    situations: tuple[SituationError, ...]
    unclosed: Bools


def _counts(statistics: CityStatistics, inference: Inference) -> _Counts:
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
    return _Counts(
        intervals=statistics.rows.sum(axis=1), sessions=sessions, vehicles=vehicles, direct=direct
    )


def _measured(
    inputs: RunInputs, statistics: CityStatistics, inference: Inference, *, config: EngineConfig
) -> _Measured:
    """Return errors and uncertainties of the connectors of which enough is known."""
    mpe = known_mpe(inputs.fleet)
    budget = uncertainty_budget(inference, statistics)
    # A verdict must be readable from what is shown: a likely change is in the estimate too.
    shift = inference.changes.mean_shift
    error = np.expm1(inference.error) + shift * np.exp(inference.error)
    parts = np.sqrt(budget.variance) * (1.0 + error)[:, None]
    u = np.sqrt((parts**2).sum(axis=1))
    counts = _counts(statistics, inference)
    evidence = (counts.intervals > 0) | (counts.sessions >= config.min_sessions)
    evidence |= counts.direct > 0
    identified = inference.traced & evidence & np.isfinite(u) & (u < WIDEST_MPE * mpe)
    identified &= np.isfinite(inputs.fleet.mpe)
    error = np.where(identified, error, np.nan)
    return _Measured(
        error=error,
        u=np.where(identified, u, np.nan),
        common=np.sqrt(budget.common) * (1.0 + error),
        budget=np.where(identified[:, None], parts, np.nan),
        mpe=mpe,
        identified=identified,
        counts=counts,
    )


def _decided(
    measured: _Measured, inference: Inference, found: Rebuilt, *, config: EngineConfig
) -> _Decided:
    """Return the decision on each connector."""
    p = _either(p_nonconforming, inference, measured.error, measured.mpe, u=measured.u)
    situations = situation_errors(found.conditional, measured.error, measured.u, measured.mpe)
    for one in situations:
        p[one.connector] = max(p[one.connector], one.p_nonconforming)
    counts = measured.counts
    live = (counts.intervals > 0) | (counts.sessions >= config.min_sessions)
    red = p >= config.p_nonconforming
    good = (p <= config.p_conforming) & live & ~found.unclosed & ~inference.conflicts.found
    return _Decided(
        p=p,
        flagged=red,
        live=live,
        code=np.select([~measured.identified, red, good], [0, 1, 2], default=3),
        excess=_either(expected_excess, inference, measured.error, measured.mpe, u=measured.u),
        situations=situations,
        unclosed=found.unclosed,
    )


def _overcharge_per_month(
    statistics: CityStatistics, excess: Floats, *, config: EngineConfig
) -> Floats:
    """Return what customers pay too much beyond the MPE in 30 days, shape (n,); NaN: not known.

    Equation: expected excess x energy a day x 30 x mean price; the default price where none is
    known.
    """
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
    return np.asarray(excess * monthly / 1000.0 * price)


def _methods(
    inference: Inference, statistics: CityStatistics, measured: _Measured
) -> tuple[str, ...]:
    under = statistics.layout.connector_group >= 0
    columns = (
        ("direct", statistics.direct_weight > 0),
        ("balance", under & (measured.counts.intervals > 0)),
        ("vehicles", measured.counts.sessions > 0),
        ("verification", inference.weighted.anchored > 0),
    )
    code = np.zeros(measured.identified.size, dtype=np.int64)
    for bit, (_, mask) in enumerate(columns):
        code |= (mask & measured.identified).astype(np.int64) << bit
    names = ["+".join(c[0] for b, c in enumerate(columns) if k >> b & 1) for k in range(16)]
    return tuple(names[k] for k in code.tolist())


def _either(
    quantity: Callable[..., Floats], inference: Inference, error: Floats, mpe: Floats, *, u: Floats
) -> Floats:
    """Return a quantity's mean over "no change" and "a change that was not found", shape (n,)."""
    changes = inference.changes
    may = changes.possible
    scale = (1.0 + np.nan_to_num(error)) / (1.0 + changes.mean_shift)
    error = error - changes.mean_shift * scale
    steady = np.sqrt(np.maximum(u**2 - changes.doubt * scale**2, 1e-12))
    out = quantity(error, mpe, standard_uncertainty=steady, population=inference.population)
    k = np.flatnonzero((may.chance > 0) & np.isfinite(error))
    changed = quantity(
        error[k] + may.shift[k] * scale[k],
        mpe[k],
        standard_uncertainty=np.sqrt(steady[k] ** 2 + may.variance[k] * scale[k] ** 2),
        population=inference.population,
    )
    out[k] = (1.0 - may.chance[k]) * out[k] + may.chance[k] * changed
    return out


def _findings(
    inputs: RunInputs,
    statistics: CityStatistics,
    inference: Inference,
    measured: _Measured,
    decided: _Decided,
    *,
    config: EngineConfig,
) -> Findings:
    """Return what the reasons of the verdicts are worded from."""
    meter, suspect = meters_above(statistics.layout), inference.meter_suspect
    conflicts = inference.conflicts
    return Findings(
        error=measured.error,
        u=measured.u,
        mpe=measured.mpe,
        p=decided.p,
        code=decided.code,
        intervals=measured.counts.intervals,
        sessions=measured.counts.sessions,
        direct=measured.counts.direct,
        meter_u=measured.budget[:, BUDGET_COMPONENTS.index("reference_meter")],
        suspect=(meter >= 0) & suspect[np.maximum(meter, 0)]
        if suspect.size
        else np.zeros(meter.size, dtype=bool),
        meter=meter,
        traced=inference.traced,
        live=decided.live,
        changed=inference.changes.changed,
        replaced_s=inference.changes.replaced_s,
        has_mpe=np.isfinite(inputs.fleet.mpe),
        unclosed=decided.unclosed,
        conflict=np.where(conflicts.found, conflicts.witness, -1),
        conflict_said=conflicts.said,
        conflict_said_u=conflicts.said_u,
        conflict_rest=conflicts.rest,
        conflict_rest_u=conflicts.rest_u,
        situations={one.connector: one for one in decided.situations},
        min_sessions=config.min_sessions,
        p_conforming=config.p_conforming,
    )


def result_of(course: Course) -> RunResult:
    """Return what follows from a course for every connector of it."""
    inputs, statistics, found = course.inputs, course.statistics, course.found
    inference, config = course.inference, course.config
    measured = _measured(inputs, statistics, inference, config=config)
    decided = _decided(measured, inference, found, config=config)
    findings = _findings(inputs, statistics, inference, measured, decided, config=config)
    light = light_load(
        found.statistics,
        found.conditional,
        error=measured.error,
        u=measured.u,
        fleet=inputs.fleet,
        mpe=measured.mpe,
    )
    changes = inference.changes
    return RunResult(
        as_of_s=inputs.as_of_s,
        relative_error=measured.error,
        standard_uncertainty=measured.u,
        common_uncertainty=measured.common,
        relative_error_light=light.error,
        standard_uncertainty_light=light.u,
        p_nonconforming=decided.p,
        verdict=tuple(_VERDICTS[k] for k in decided.code.tolist()),
        reason=reasons(findings, inputs.references.meter),
        n_intervals=measured.counts.intervals,
        n_sessions=measured.counts.sessions,
        n_vehicles=measured.counts.vehicles,
        n_direct=measured.counts.direct,
        data_from_s=statistics.first_s,
        data_to_s=statistics.last_s,
        method=_methods(inference, statistics, measured),
        overcharge_per_month=_overcharge_per_month(statistics, decided.excess, config=config),
        population=inference.population,
        past=_past(measured, inference),
        budget_components=BUDGET_COMPONENTS,
        budget=measured.budget,
        drift_alarm=changes.alarm,
        drift_statistic=changes.statistic,
        drift_changed_s=_seconds(changes.changed),
        drift_low_s=_seconds(changes.low),
        drift_high_s=_seconds(changes.high),
        situations=decided.situations,
        meter_shift=inference.meter_shift,
        meter_shift_u=inference.meter_shift_u,
        meter_suspect=inference.meter_suspect,
        summary=_summary(inference, decided),
        state=to_arrays(course.closed, inputs),
    )


def _past(measured: _Measured, inference: Inference) -> PastErrors:
    """Return the errors before the last change that was found, and before a new meter.

    The change's own uncertainty and that of the present error are added as if they had nothing in
    common, which is more than there is.
    """
    changes = inference.changes
    scale = np.exp(-changes.shift)
    before = (1.0 + measured.error) * scale - 1.0
    u = np.hypot(measured.u * scale, np.sqrt(changes.shift_variance) * (1.0 + before))
    return PastErrors(
        error=np.where(changes.alarm, before, np.nan),
        standard_uncertainty=np.where(changes.alarm, u, np.nan),
        goes_on=changes.alarm & (changes.slope_variance > 0),
        replaced_s=changes.replaced_s,
    )


def _seconds(day: Ints) -> Floats:
    return np.where(day >= 0, day * DAY_S, np.nan)


def _summary(inference: Inference, decided: _Decided) -> dict[str, float]:
    p, red, code = decided.p, decided.flagged, decided.code
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
        "rounds": float(inference.rounds),
        "rounds_moved_u": inference.moved_u,
        "drift_alarms": float(inference.changes.alarm.sum()),
        "conflicts": float(inference.conflicts.found.sum()),
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
    for kind in range(PAIR_KINDS):
        name = f"{('bms', 'soc_capacity', 'soc')[kind % 3]}_{'dc' if kind >= 3 else 'ac'}"
        out[f"session_spread_{name}"] = float(inference.spreads.session[kind])
        if kind % 3:
            out[f"soc_factor_{name}"] = float(inference.spreads.soc[kind])
        out[f"vehicle_spread_{name}"] = float(inference.spreads.vehicle[kind])
    return out
