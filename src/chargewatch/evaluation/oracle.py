"""The oracle: the engine itself, on the same inputs, told the truth in place of its judgements.

The Cramer-Rao bound (`bound`) knows more than any estimator could and another model than the
engine's, so a ratio to it does not tell what is worth working at. The oracle has the engine's code
and its inputs; what it need not judge is

    changes     the time of every step: what came before is evidence of a connector of its own.
                Along a drift all data are brought to the present by the true slope. No other
                change is looked for.
    spreads     the standard deviations, as they are in this city
    population  the mixture of errors, fitted to the true ones
    weights     which sessions are garbage and which intervals tell nothing (both left out), which
                verifications are overtaken; all other sessions and vehicles count in full

Definition and reasons: docs/decisions/evaluation-oracle.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields, replace

import numpy as np

from chargewatch.domain.arrays import Bools, Floats, Ints
from chargewatch.domain.times import DAY_S, SLOT_S
from chargewatch.errors import InputFileError
from chargewatch.evaluation.city_inputs import Known
from chargewatch.evaluation.true_spreads import true_spreads
from chargewatch.risk.decision import estimate_population
from chargewatch.risk.engine import assess
from chargewatch.risk.given import Given
from chargewatch.risk.registers import Quality
from chargewatch.risk.results import EngineConfig, RunResult
from chargewatch.risk.rounds_input import known_mpe
from chargewatch.risk.run_inputs import Anchors, FinishedSessions, Intervals, References, RunInputs
from chargewatch.simulators.city import City

TRUTHS = ("changes", "spreads", "population", "weights")
EVERY_TRUTH = "all"
SURE_U = 1e-6


def chosen_truths(names: Sequence[str]) -> dict[str, frozenset[str]]:
    """Return the sets of truths by name: one of `TRUTHS`, or "all" of them.

    Raises: InputFileError for an unknown name.
    """
    unknown = sorted(set(names) - {EVERY_TRUTH, *TRUTHS})
    if unknown:
        raise InputFileError(
            f"no truth {', '.join(unknown)}; known: {EVERY_TRUTH}, {', '.join(TRUTHS)}"
        )
    every = frozenset(TRUTHS)
    return {name: every if name == EVERY_TRUTH else frozenset({name}) for name in names}


def oracle(city: City, known: Known, *, truths: frozenset[str], config: EngineConfig) -> RunResult:
    """Return what the engine says of the n connectors when some of `TRUTHS` are given.

    Rows behind the n-th are connectors before the steps of their errors.
    """
    inputs = known.inputs
    if "weights" in truths:
        inputs = _without_garbage(city, known, inputs)
    if "changes" in truths:
        inputs = _along_drifts(city, inputs)
        inputs = with_pasts(inputs, _steps(city, inputs))
    given = Given(
        spreads=true_spreads(city, known) if "spreads" in truths else None,
        population=estimate_population(
            known.relative_error,
            known_mpe(known.inputs.fleet),
            standard_uncertainty=np.full(known.relative_error.size, SURE_U),
        )
        if "population" in truths
        else None,
        holds=_holds(city, known, changes="changes" in truths) if "weights" in truths else None,
        all_good="weights" in truths,
        no_changes="changes" in truths,
    )
    return assess(inputs, config=config, given=given)


def _holds(city: City, known: Known, *, changes: bool) -> Floats:
    """Return 1 for each verification whose meter was not tampered with since, 0 for the others.

    Where changes are given, verifications before them count for the past, or were brought ahead.
    """
    followed = {"step", "drift"} if changes else set()
    touched = {
        fault.target
        for fault in city.faults.all
        if fault.kind.changes_error and fault.kind.name not in followed
    }
    anchors = known.inputs.anchors
    return np.where(np.isin(anchors.connector, list(touched)), 0.0, 1.0)


def _without_garbage(city: City, known: Known, inputs: RunInputs) -> RunInputs:
    sessions = inputs.sessions
    good = ~known.sessions.garbage
    kept = FinishedSessions(**{name: value[good] for name, value in vars(sessions).items()})
    intervals = inputs.connector_intervals
    quality = intervals.quality.copy()
    quality[_untrue(city, intervals)] |= int(Quality.FAULT)
    return replace(inputs, sessions=kept, connector_intervals=replace(intervals, quality=quality))


def _untrue(city: City, intervals: Intervals) -> Bools:
    """Return the intervals in which a register stood still or told another unit."""
    middle = (intervals.slot + 0.5) * SLOT_S
    out = np.zeros(intervals.slot.size, dtype=bool)
    for kind in ("stuck", "unit"):
        for target, fault in city.faults.of_kind(kind).items():
            begin = city.to_s - float(fault["begin_days"]) * DAY_S
            end = begin + float(fault["length_days"]) * DAY_S
            inside = (middle >= begin - SLOT_S) & (middle <= end + SLOT_S)
            out |= (intervals.instrument == target) & inside
    return out


def _along_drifts(city: City, inputs: RunInputs) -> RunInputs:
    """Return the inputs with the energies of drifting connectors as they would be now."""
    meters, end = city.meters, city.to_s - city.origin_s

    def ahead(connector: Ints, t_s: Floats) -> Floats:
        """Return the drift's part of the error at the end less that at a time."""
        begin, until = meters.drift_from[connector], meters.drift_until[connector]
        return np.asarray(
            meters.drift_rate[connector]
            * (np.clip(end, begin, until) - np.clip(t_s - city.origin_s, begin, until))
        )

    intervals, sessions, anchors = inputs.connector_intervals, inputs.sessions, inputs.anchors
    middle = np.asarray((intervals.slot + 0.5) * SLOT_S, dtype=np.float64)
    now = 1.0 + ahead(intervals.instrument, middle)
    of_session = 1.0 + ahead(sessions.connector, 0.5 * (sessions.started_s + sessions.ended_s))
    stated = anchors.relative_error + ahead(anchors.connector, anchors.verified_s)
    return replace(
        inputs,
        connector_intervals=replace(intervals, energy_wh=intervals.energy_wh * now),
        sessions=replace(sessions, energy_wh=sessions.energy_wh * of_session),
        anchors=replace(anchors, relative_error=stated),
    )


def _steps(city: City, inputs: RunInputs) -> dict[int, float]:
    """Return when (epoch s) the error of each connector steps within the inputs."""
    at = city.meters.step_at + city.origin_s
    inside = np.flatnonzero((at > inputs.from_s) & (at < inputs.as_of_s))
    return {int(i): float(at[i]) for i in inside}


def with_pasts(inputs: RunInputs, steps: dict[int, float]) -> RunInputs:
    """Return the inputs with a connector of its own for each one before its step.

    It stands on the same feeder and delivers nothing since, as the other one did nothing before.
    """
    fleet, n = inputs.fleet, inputs.fleet.size
    if not steps:
        return inputs
    of = np.array(sorted(steps), dtype=np.int64)
    past = np.full(n, -1, dtype=np.int64)
    past[of] = n + np.arange(of.size)
    step_s = np.full(n, -np.inf)
    step_s[of] = [steps[i] for i in of.tolist()]
    columns = {
        field.name: np.concatenate([np.asarray(value), np.asarray(value)[of]])
        for field in fields(fleet)
        if (value := getattr(fleet, field.name)) is not fleet.connector
    }
    names = [*fleet.connector, *(f"{fleet.connector[i]} before" for i in of.tolist())]
    columns["number"] = np.concatenate([fleet.number, fleet.number.max() + 1 + np.arange(of.size)])

    def before(connector: Ints, t_s: Floats) -> Ints:
        return np.where(t_s < step_s[connector], past[connector], connector)

    sessions, anchors = inputs.sessions, inputs.anchors
    return replace(
        inputs,
        fleet=type(fleet)(connector=names, **columns),
        references=_members(inputs.references, past),
        connector_intervals=_split(inputs.connector_intervals, past=past, step_s=step_s),
        sessions=replace(sessions, connector=before(sessions.connector, sessions.ended_s)),
        anchors=Anchors(
            **(vars(anchors) | {"connector": before(anchors.connector, anchors.verified_s)})
        ),
    )


def _members(references: References, past: Ints) -> References:
    """Return the meters with the pasts of their members; one in series keeps its one member."""
    members = []
    for j in range(references.size):
        mine = references.members[references.member_start[j] : references.member_start[j + 1]]
        before = past[mine]
        members.append(mine if references.in_series[j] else np.append(mine, before[before >= 0]))
    sizes = [0, *(len(mine) for mine in members)]
    return replace(
        references,
        member_start=np.cumsum(sizes).astype(np.int64),
        members=np.concatenate([*members, np.zeros(0, dtype=np.int64)]),
    )


def _split(intervals: Intervals, *, past: Ints, step_s: Floats) -> Intervals:
    """Return the intervals with those before a step put down to the past.

    Both have every interval, without energy where it is the other's: missing would be unknown.
    """
    middle = (intervals.slot + 0.5) * SLOT_S
    earlier = middle < step_s[intervals.instrument]
    copied = np.flatnonzero(past[intervals.instrument] >= 0)

    def without(rows: Intervals, none: Bools) -> Intervals:
        return replace(
            rows,
            energy_wh=np.where(none, 0.0, rows.energy_wh),
            u_wh=np.where(none, 0.0, rows.u_wh),
        )

    present, before = without(intervals, earlier), intervals.take(copied)
    before = without(before, ~earlier[copied])
    before = replace(before, instrument=past[before.instrument])
    # Pasts are numbered behind all others in the order of their connectors: still sorted.
    return Intervals(**{k: np.concatenate([v, vars(before)[k]]) for k, v in vars(present).items()})
