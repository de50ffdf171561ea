"""What stays the same over the rounds of one inference."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from chargewatch.domain.arrays import Bools, Floats, Ints
from chargewatch.risk.feeders.statements import (
    GainStatement,
    converter_classes,
    converter_prior,
    gain_statement,
)
from chargewatch.risk.memory import CityStatistics
from chargewatch.risk.parallel import in_threads
from chargewatch.risk.priors import METER_U_FLOOR, UNKNOWN_METER_U, UNKNOWN_MPE
from chargewatch.risk.results import EngineConfig
from chargewatch.risk.run_inputs import Fleet, RunInputs
from chargewatch.risk.vehicles import SessionPairs, session_pairs

MODEL_GROUPS = 10
LARGEST_SQUARE = 16.0
LEAST_FEEDERS = 5
LEAST_FREE = 10
"""Differences of successive days that a feeder must have before its misfit is judged."""


@dataclass(frozen=True, kw_only=True)
class CityFacts:
    """What of connectors and feeders is told by the whole city; shape (n,) and by group (b,)."""

    model: Ints  # group for the mean error
    models: int
    classes: Ints  # of converters
    converters: int
    misfit: tuple[Floats, ...]  # by how much each feeder's variance is understated


@dataclass(frozen=True, kw_only=True)
class RoundsInput:
    """What stays the same over the rounds; n connectors, s sessions, v nodes, m meters."""

    inputs: RunInputs
    statistics: CityStatistics
    config: EngineConfig
    mpe: Floats  # (n,)
    model: Ints  # (n,), group for the mean error
    models: int
    side: Ints  # (n,), 1 on DC
    classes: Ints  # (n,), of converters
    converter_mean: Floats
    converter_precision: Floats
    node: Ints  # (s,)
    pairs: SessionPairs
    node_kind: Ints  # (v,), ascending
    direct_precision: Floats  # (n,), in-series meters
    direct_score: Floats
    meter_u: Floats  # (m,)
    facts: CityFacts
    statements: tuple[GainStatement, ...]

    @property
    def size(self) -> int:
        """Number of connectors n."""
        return self.mpe.size


def known_mpe(fleet: Fleet) -> Floats:
    """Return the MPE of each connector, that of the widest class where it is not known, (n,)."""
    return np.where(fleet.mpe > 0, fleet.mpe, UNKNOWN_MPE)


def model_groups(model: Ints, is_dc: Bools, *, limit: int = MODEL_GROUPS) -> tuple[Ints, int]:
    """Return the group of each connector for the mean error of its model, and their number.

    The ``limit`` most frequent models have one each; the rest share two, AC and DC.
    """
    models, row, count = np.unique(model, return_inverse=True, return_counts=True)
    rank = np.empty(models.size, dtype=np.int64)
    rank[np.argsort(-count, kind="stable")] = np.arange(models.size)
    out = np.where(rank[row] < limit, rank[row], limit + is_dc)
    return out, limit + 2


def _nodes(statistics: CityStatistics) -> tuple[Ints, Ints]:
    rows = statistics.sessions
    vehicles = int(rows.vehicle.max(initial=0)) + 1
    # Sorted by kind.
    keys, node = np.unique(rows.kind * vehicles + rows.vehicle, return_inverse=True)
    return node, keys // vehicles


def _in_series(statistics: CityStatistics, meter_u: Floats) -> tuple[Floats, Floats]:
    """Return precision and score of in-series meters, their own uncertainty included."""
    weight = statistics.direct_weight
    seen = weight > 0
    safe = np.where(seen, weight, 1.0)
    squared = np.where(seen, statistics.direct_weight_squared, 1.0)
    u = in_series_u(statistics, meter_u)
    precision = np.where(seen, 1.0 / (squared / safe**2 + u**2), 0.0)
    return precision, precision * statistics.direct_sum / safe


def in_series_u(statistics: CityStatistics, meter_u: Floats) -> Floats:
    """Return the standard uncertainty of each connector's in-series meter, 0 without, (n,)."""
    meter = statistics.layout.direct_meter
    if not meter_u.size:
        return np.zeros(meter.size)
    return np.where(meter >= 0, meter_u[np.maximum(meter, 0)], 0.0)


def misfit(statistics: CityStatistics, *, crossing: tuple[Bools, ...]) -> tuple[Floats, ...]:
    """Return by how much each feeder's variance is understated, >= 1, shape (b,) for each group.

    A feeder with a fault on it (a register that stands still, sessions that are not told) has days
    that disagree by more than those of other feeders, and what lasts for a session does not average
    out as the slots' noise does. Told by differences of successive days with data, which the change
    of a pile's error touches once: else one pile that steps would take its neighbours' evidence
    away. Equation: mean over members and days of min(z^2, 16), z = (x_d - x_d') / u, over the
    median of all feeders of its kind.

    Args:
        statistics: with the daily series.
        crossing: feeders with a converter under them, shape (b,) for each group.
    """
    squared, count = _successive(statistics.metered, statistics.metered_precision)
    found = []
    for group in statistics.layout.groups:
        known = group.member >= 0
        free = np.where(known, count[group.member], 0).sum(axis=1)
        sums = np.where(known, squared[group.member], 0.0).sum(axis=1)
        found.append(np.where(free >= LEAST_FREE, sums / np.maximum(free, 1), np.nan))
    ratios, kinds = np.concatenate([*found, np.zeros(0)]), np.concatenate([*crossing, np.zeros(0)])
    usual = np.full(2, np.inf)
    for kind in range(2):
        mine = ratios[(kinds == kind) & np.isfinite(ratios)]
        if mine.size >= LEAST_FEEDERS:
            usual[kind] = max(float(np.median(mine)), 1e-3)
    return tuple(
        np.maximum(np.nan_to_num(ratio, nan=0.0) / usual[kind.astype(np.int64)], 1.0)
        for ratio, kind in zip(found, crossing, strict=True)
    )


def _successive(estimate: Floats, precision: Floats) -> tuple[Floats, Ints]:
    """Return the sum of bounded z^2 of successive days with data, and their number, shapes (n,)."""
    seen = precision > 0
    order = np.argsort(~seen, axis=1, kind="stable")
    x = np.take_along_axis(estimate, order, axis=1)
    variance = np.take_along_axis(1.0 / np.where(seen, precision, np.inf), order, axis=1)
    both = np.arange(1, seen.shape[1]) < seen.sum(axis=1)[:, None]
    z2 = np.diff(x, axis=1) ** 2 / np.where(both, variance[:, 1:] + variance[:, :-1], 1.0)
    squared = np.where(both, np.minimum(z2, LARGEST_SQUARE), 0.0)
    return squared.sum(axis=1), both.sum(axis=1)


def _statements(
    statistics: CityStatistics, factors: tuple[Floats, ...]
) -> tuple[GainStatement, ...]:
    return tuple(
        in_threads(
            lambda one: gain_statement(one[0], one[1]).less_sure(1.0 / one[2]),
            zip(statistics.layout.groups, statistics.feeders, factors, strict=True),
        )
    )


def city_facts(fleet: Fleet, statistics: CityStatistics) -> CityFacts:
    """Return what the whole city tells of connectors and feeders."""
    groups = statistics.layout.groups
    crossing = tuple(np.asarray(((g.member >= 0) & ~g.same_side).any(axis=1)) for g in groups)
    model, models = model_groups(fleet.model, fleet.is_dc)
    classes = converter_classes(fleet)
    return CityFacts(
        model=model,
        models=models,
        classes=classes,
        converters=max(int(classes.max(initial=0)) + 1, 1),
        misfit=misfit(statistics, crossing=crossing),
    )


def prepared(
    inputs: RunInputs,
    statistics: CityStatistics,
    *,
    config: EngineConfig,
    facts: CityFacts | None = None,
) -> RoundsInput:
    """Return what stays the same over the rounds.

    Args:
        inputs: of the run.
        statistics: of its days.
        config: the numbers that steer the engine.
        facts: what the whole city tells, where these are an excerpt of it.
    """
    fleet, layout = inputs.fleet, statistics.layout
    facts = facts or city_facts(fleet, statistics)
    mean, precision = converter_prior(facts.converters)
    node, node_kind = _nodes(statistics)
    meter_u = np.maximum(np.nan_to_num(layout.meter_u, nan=UNKNOWN_METER_U), METER_U_FLOOR)
    direct_precision, direct_score = _in_series(statistics, meter_u)
    return RoundsInput(
        inputs=inputs,
        statistics=statistics,
        config=config,
        mpe=known_mpe(fleet),
        model=facts.model,
        models=facts.models,
        side=fleet.is_dc.astype(np.int64),
        classes=facts.classes,
        converter_mean=mean,
        converter_precision=precision,
        node=node,
        pairs=session_pairs(
            statistics.sessions.connector, node, connectors=fleet.size, nodes=node_kind.size
        ),
        node_kind=node_kind,
        direct_precision=direct_precision,
        direct_score=direct_score,
        meter_u=meter_u,
        facts=facts,
        statements=_statements(statistics, facts.misfit),
    )
