"""Figures over seeds of a scenario, in memory: a simulated city straight into the engine."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import datetime
from types import MappingProxyType
from typing import Any

import numpy as np

from chargewatch.domain.arrays import Bools, Floats
from chargewatch.domain.times import DAY_S, SLOT_S
from chargewatch.domain.verdict import Verdict
from chargewatch.evaluation.bound import cramer_rao_bound
from chargewatch.evaluation.city_inputs import Known, known_inputs
from chargewatch.evaluation.compare import TARGETS, error_figures
from chargewatch.evaluation.kinds import by_kind, sums_by_kind
from chargewatch.evaluation.oracle import oracle
from chargewatch.evaluation.scores import (
    Compared,
    Share,
    mean_interval,
    pooled,
    pooled_reliability,
)
from chargewatch.evaluation.situations import situation_figures, summed, wrong_in_situation
from chargewatch.risk.engine import assess
from chargewatch.risk.results import EngineConfig, RunResult
from chargewatch.risk.run_inputs import FinishedSessions, Intervals, RunInputs
from chargewatch.simulators.city import City, make_city
from chargewatch.simulators.truth import situation_row
from chargewatch.simulators.wire_form import OFFSET_S

MOST_FOR_BOUND = 1_500
NO_TRUTHS: Mapping[str, frozenset[str]] = MappingProxyType({})
CHANGING = {"step", "drift"}


def compared_with(result: RunResult, known: Known, bound: Floats | None = None) -> Compared:
    """Return an engine's result beside the truth."""
    fleet = known.inputs.fleet
    return Compared(
        relative_error=result.relative_error,
        standard_uncertainty=result.standard_uncertainty,
        p_nonconforming=result.p_nonconforming,
        red=np.array([verdict == Verdict.NONCONFORMING for verdict in result.verdict], bool),
        true_error=known.relative_error,
        mpe=fleet.mpe,
        bound=np.full(fleet.size, np.nan) if bound is None else bound,
        conforming=np.array([verdict == Verdict.CONFORMING for verdict in result.verdict], bool),
        is_dc=fleet.is_dc,
        method=result.method,
    )


def until(inputs: RunInputs, as_of_s: float) -> RunInputs:
    """Return the inputs that an earlier run would have read."""

    def before(intervals: Intervals) -> Intervals:
        keep = (intervals.slot + 1) * SLOT_S <= as_of_s
        return Intervals(**{name: value[keep] for name, value in vars(intervals).items()})

    keep = inputs.sessions.ended_s <= as_of_s
    return replace(
        inputs,
        as_of_s=as_of_s,
        connector_intervals=before(inputs.connector_intervals),
        meter_intervals=before(inputs.meter_intervals),
        sessions=FinishedSessions(
            **{name: value[keep] for name, value in vars(inputs.sessions).items()}
        ),
    )


def days_to_flag(
    city: City, inputs: RunInputs, config: EngineConfig, *, least_mpe: float
) -> list[float]:
    """Return, for every step of at least some MPE, the days until it was first red; inf: never.

    A run a day, each with all that was known by then, from the day after the first step on.
    """
    begun = {
        target: city.to_s - float(fault["begin_days"]) * DAY_S
        for target, fault in city.faults.of_kind("step").items()
        if abs(float(fault["magnitude_mpe"])) >= least_mpe
    }
    found = dict.fromkeys(begun, math.inf)
    if not begun:
        return []
    day = min(begun.values()) + DAY_S
    while day <= inputs.as_of_s and not all(math.isfinite(value) for value in found.values()):
        result = assess(until(inputs, day), config=config)
        for target, at_s in begun.items():
            flagged = result.verdict[target] == Verdict.NONCONFORMING
            if flagged and day > at_s and math.isinf(found[target]):
                found[target] = (day - at_s) / DAY_S
        day += DAY_S
    return list(found.values())


def _bound(city: City, size: int) -> Floats:
    return cramer_rao_bound(city) if size <= MOST_FOR_BOUND else np.full(size, np.nan)


def seed_figures(
    name: str,
    *,
    seed: int,
    to: datetime | None,
    overrides: Mapping[str, Any],
    steps: bool,
    truths: Mapping[str, frozenset[str]] = NO_TRUTHS,
) -> dict[str, Any]:
    """Return the figures of one seed of a scenario.

    Where: truths: what the engine is given in further runs, as in `oracle.chosen_truths`.
    """
    city = make_city(name, seed=seed, to=to, **overrides)
    known = known_inputs(city)
    inputs, config = known.inputs, EngineConfig(utc_offset_s=OFFSET_S)
    result = assess(inputs, config=config)
    size = inputs.fleet.size
    compared = replace(
        compared_with(result, known, _bound(city, size)),
        given={
            name: oracle(city, known, truths=chosen, config=config).relative_error[:size]
            for name, chosen in truths.items()
        },
    )
    situations = [situation_row(known.stream, i) for i in range(size)]
    beyond_at_times = wrong_in_situation(situations, compared)
    figures = error_figures(
        compared,
        metered=_metered(inputs),
        beyond_at_times=beyond_at_times,
    )
    figures["by_kind"] = sums_by_kind(compared, beyond_at_times=beyond_at_times)
    figures["situations"] = situation_figures(
        [(row.get("situation") or {}).get("code") for row in situations],
        compared,
        {one.connector: one.code for one in result.situations},
    )
    changing = np.zeros(size, bool)
    for kind in CHANGING:
        changing[list(city.faults.of_kind(kind))] = True
    alarms = int(np.sum(result.drift_alarm & ~changing))
    months = (city.to_s - city.from_s) / (30 * DAY_S)
    figures["false_drift_alarms"] = alarms
    figures["false_drift_alarms_per_1000_month"] = 1000 * alarms / max(size, 1) / months
    if steps:
        figures["days_to_flag"] = days_to_flag(city, inputs, config, least_mpe=2.0)
    return {"seed": seed, **figures}


def _metered(inputs: RunInputs) -> Bools:
    references = inputs.references
    covered = np.zeros(inputs.fleet.size, bool)
    covered[references.members] = True
    return covered


SHARES = ("coverage", "false_flags", "recall_1_5_mpe", "recall_2_mpe")
MEANS = (
    "rmse",
    "rmse_over_bound",
    "brier_score",
    "ideal_brier_score",
    "false_drift_alarms_per_1000_month",
)


def over_seeds(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the figures of several seeds together.

    Shares: all seeds' connectors together, with the interval of `scores.pooled`; means: of seeds,
    with Student's interval.
    """
    summary: dict[str, Any] = {
        name: pooled([Share(row[name]["part"], row[name]["of"]) for row in rows]) for name in SHARES
    }
    for name in MEANS:
        mean, low, high = mean_interval([row[name] for row in rows])
        summary[name] = {"value": mean, "low": low, "high": high}
    days = sorted(value for row in rows for value in row.get("days_to_flag", ()))
    if days:
        middle = days[(len(days) - 1) // 2]
        summary["days_to_flag_median"] = {
            "value": middle if math.isfinite(middle) else None,
            "of": len(days),
            "never": sum(1 for value in days if math.isinf(value)),
        }
    summary["reliability"] = pooled_reliability([row["reliability"] for row in rows])
    return summary


def evaluate_scenario(
    name: str,
    *,
    seeds: range,
    to: datetime | None,
    overrides: Mapping[str, Any],
    steps: bool,
    truths: Mapping[str, frozenset[str]] = NO_TRUTHS,
    say: Callable[[str], None],
) -> dict[str, Any]:
    """Return the figures of a scenario over seeds, in memory."""
    rows = []
    for done, seed in enumerate(seeds, start=1):
        rows.append(
            seed_figures(name, seed=seed, to=to, overrides=overrides, steps=steps, truths=truths)
        )
        say(f"{name}: seed {seed}, {done} of {len(seeds)}")
    return {
        "scenario": name,
        "seeds": len(seeds),
        "first_seed": seeds.start,
        "errors": over_seeds(rows),
        "by_kind": by_kind(row["by_kind"] for row in rows),
        "situations": summed([row["situations"] for row in rows]),
        "by_seed": rows,
        "targets": dict(TARGETS),
    }
