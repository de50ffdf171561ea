"""The uncertainty budget of each connector: components whose root sum of squares is the total."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from chargewatch.domain.arrays import Bools, Floats, sum_by_row
from chargewatch.risk.estimator import block_inverses
from chargewatch.risk.feeders.statements import effective_rows
from chargewatch.risk.inference import Inference
from chargewatch.risk.memory import CityStatistics
from chargewatch.risk.priors import LIGHT_U
from chargewatch.risk.results import BUDGET_COMPONENTS

STATISTICS, METER, RESOLUTION, SYNCHRONISATION, EFFICIENCY, SOC, GAUGE = range(7)


@dataclass(frozen=True, kw_only=True)
class Budget:
    """Variances by component, shape (n, 7), and the part shared with others, shape (n,)."""

    variance: Floats
    common: Floats


def _levels(inference: Inference) -> tuple[Floats, Floats]:
    """Return the variances that come from the levels: gauge and models, and efficiencies."""
    estimate, system = inference.estimate, inference.weighted.system
    g, h = system.model_precision.size, system.converter_precision.size
    s, c = estimate.sensitivity, estimate.level_covariance
    total = ((s @ c) * s).sum(axis=1)
    mid = slice(g, g + h)
    efficiency = ((s[:, mid] @ c[mid, mid]) * s[:, mid]).sum(axis=1)
    rest = [i for i in range(s.shape[1]) if not g <= i < g + h]
    gauge = ((s[:, rest] @ c[np.ix_(rest, rest)]) * s[:, rest]).sum(axis=1)
    both = gauge + efficiency
    # The parts are correlated; they share the total in proportion.
    share = np.where(both > 0, total / np.where(both > 0, both, 1.0), 0.0)
    return gauge * share, efficiency * share


def _feeders(inference: Inference, statistics: CityStatistics) -> tuple[Floats, ...]:
    """Return variances from meters' bias and piles' efficiency, and shares of the noise.

    With K = H_bb^-1 Q, the response of a feeder's estimates to a shift of its z: the meter's part
    is (K 1)^2 u^2, the efficiencies' sum_j K_ij^2 tau_j^2.
    """
    n = inference.error.size
    meter, efficiency = np.zeros(n), np.zeros(n)
    boundary, resolution, own = np.zeros(n), np.zeros(n), np.zeros(n)
    blocks = block_inverses(inference.weighted.system)
    for view, inverse, feeder, evidence in zip(
        inference.weighted.views,
        blocks.inverses,
        statistics.feeders,
        inference.weighted.system.feeders,
        strict=True,
    ):
        known = view.group.member >= 0
        member = view.group.member[known]
        u = inference.meter_u[view.group.meter]
        q = evidence.precision
        response = inverse @ q
        meter[member] = ((response.sum(axis=2) * u[:, None]) ** 2)[known]
        efficiency[member] = np.einsum("bij,bj->bi", response**2, view.spread**2)[known]
        index = np.arange(view.group.size)
        own[member] = np.maximum(q[:, index, index], 0.0)[known]
        wide = np.broadcast_to(feeder.boundary_share[:, None], known.shape)
        boundary[member] = wide[known]
        wide = np.broadcast_to(feeder.resolution_share[:, None], known.shape)
        resolution[member] = wide[known]
    return meter, efficiency, boundary, resolution, own


def uncertainty_budget(inference: Inference, statistics: CityStatistics) -> Budget:
    """Return the budget of every connector; NaN rows where the variance is not finite.

    What all share (levels), the reference meter and the efficiencies are propagated; what remains
    of the total is noise and is split by the information of each kind of evidence: intervals into
    statistics, resolution and synchronisation (all that sits at the boundaries of slots), sessions
    into statistics and SOC resolution. A change that may have gone unnoticed adds to the
    statistics. In-series meters and verifications give their own part to
    "reference meter".
    """
    n = inference.error.size
    total = inference.variance
    finite = np.isfinite(total)
    posterior = inference.estimate.variance
    # Dividing out the own prior stretches all responses alike.
    stretch = np.where(finite, (np.where(finite, total, 1.0) / posterior) ** 2, 1.0)
    gauge, level_efficiency = _levels(inference)
    meter, efficiency, boundary, resolution, feeder_p = _feeders(inference, statistics)
    graph, system = inference.weighted.graph, inference.weighted.system
    session_p = np.maximum(graph.own, 0.0)
    direct_p = system.direct_precision
    informed = feeder_p + session_p + direct_p
    safe = np.where(informed > 0, informed, 1.0)
    direct = (direct_p / safe) * np.where(finite, total, 0.0)
    parts = np.stack([gauge, level_efficiency + efficiency, meter], axis=1) * stretch[:, None]
    parts[:, 2] += direct
    sum_of = parts.sum(axis=1)
    budget_total = np.where(finite, total, 0.0)
    # Propagation inside the block is approximate: never more than 98 % of the total.
    parts *= np.where(
        sum_of > 0, np.minimum(1.0, 0.98 * budget_total / np.where(sum_of > 0, sum_of, 1.0)), 0.0
    )[:, None]
    noise = budget_total - parts.sum(axis=1)
    rows = statistics.sessions
    weight = sum_by_row(rows.connector, inference.weighted.precision, size=n)
    soc = sum_by_row(rows.connector, inference.weighted.precision * inference.soc_share, size=n)
    soc_share = np.where(weight > 0, soc / np.where(weight > 0, weight, 1.0), 0.0)
    both = feeder_p + session_p
    by_feeder = np.where(both > 0, feeder_p / np.where(both > 0, both, 1.0), 0.0)
    by_session = np.where(both > 0, 1.0 - by_feeder, 0.0)
    out = np.zeros((n, len(BUDGET_COMPONENTS)))
    out[:, METER], out[:, EFFICIENCY], out[:, GAUGE] = parts[:, 2], parts[:, 1], parts[:, 0]
    out[:, RESOLUTION] = noise * by_feeder * resolution
    out[:, SYNCHRONISATION] = noise * by_feeder * np.maximum(boundary - resolution, 0.0)
    out[:, SOC] = noise * by_session * soc_share
    out[:, STATISTICS] = noise - out[:, RESOLUTION] - out[:, SYNCHRONISATION] - out[:, SOC]
    out[:, STATISTICS] += inference.changes.suspicions.doubt
    out[~finite] = np.nan
    common = parts[:, 0] + np.minimum(parts[:, 2], meter * stretch)
    common += np.where(
        level_efficiency + efficiency > 0,
        parts[:, 1]
        * level_efficiency
        / np.where(level_efficiency + efficiency > 0, level_efficiency + efficiency, 1.0),
        0.0,
    )
    return Budget(variance=out, common=np.where(finite, common, np.nan))


def light_load(statistics: CityStatistics, *, is_dc: Bools, mpe: Floats) -> tuple[Floats, Floats]:
    """Return the error at light load less that at normal load, and its u, shapes (n,).

    NaN where its standard uncertainty would be above the MPE. Equation: eps_light - eps = -d / g
    with g close to 1, u^2 = 1 / information + `LIGHT_U` ^2.
    """
    n = mpe.size
    weight, total = np.zeros(n), np.zeros(n)
    for group, feeder in zip(statistics.layout.groups, statistics.feeders, strict=True):
        known = group.member >= 0
        scale = effective_rows(feeder)[:, None]
        weight[group.member[known]] = (feeder.light_weight * scale)[known]
        total[group.member[known]] = (feeder.light_sum * scale)[known]
    floor = np.where(is_dc, LIGHT_U[1], LIGHT_U[0])
    safe = np.where(weight > 0, weight, 1.0)
    u = np.sqrt(1.0 / safe + floor**2)
    told = (weight > 0) & (u < mpe)
    return np.where(told, -total / safe, np.nan), np.where(told, u, np.nan)
