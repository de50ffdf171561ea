"""The uncertainty budget of each connector: components whose root sum of squares is the total."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from chargewatch.domain.arrays import Floats, by_row, sum_by_row
from chargewatch.risk.estimator import block_inverses
from chargewatch.risk.feeders.nuisances import light_edges
from chargewatch.risk.feeders.statements import effective_rows
from chargewatch.risk.inference import Inference
from chargewatch.risk.memory import CityStatistics
from chargewatch.risk.priors import LIGHT_AUXILIARIES_W, LIGHT_U, SCATTER_COUNTS, UNKNOWN_POWER_W
from chargewatch.risk.results import BUDGET_COMPONENTS
from chargewatch.risk.run_inputs import Fleet
from chargewatch.risk.situation_odds import Conditional
from chargewatch.risk.situations import (
    FIRST,
    INFORMATION,
    LIGHT,
    LOAD,
    SCORE,
    SEEN_DAYS,
    SQUARE,
    SUMS,
)

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
    total = (by_row(s, c) * s).sum(axis=1)
    mid = slice(g, g + h)
    efficiency = (by_row(s[:, mid], c[mid, mid]) * s[:, mid]).sum(axis=1)
    rest = [i for i in range(s.shape[1]) if not g <= i < g + h]
    gauge = (by_row(s[:, rest], c[np.ix_(rest, rest)]) * s[:, rest]).sum(axis=1)
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
    out[:, STATISTICS] += inference.changes.doubt
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


LEAST_LIGHT_DAYS = 6.0
LARGEST_LIGHT = 0.8
WIDEST_LIGHT_MPE = 4.0
"""An error at light load whose standard uncertainty is above so many MPE is not told."""


@dataclass(frozen=True, kw_only=True)
class LightLoad:
    """The error at light load, shape (n,); NaN where it is not known."""

    error: Floats
    u: Floats


def light_load(
    statistics: CityStatistics,
    found: Sequence[Conditional],
    *,
    error: Floats,
    u: Floats,
    fleet: Fleet,
    mpe: Floats,
) -> LightLoad:
    """Return the error below I_min, from the feeders' balances; NaN where it is not known.

    Args:
        statistics: with the sums by situation.
        found: what was taken out of the intervals that they were made from.
        error: relative errors over all energy, shape (n,).
        u: their standard uncertainties, shape (n,).
        fleet: rated powers and currents.
        mpe: shape (n,).

    Equation: with S and I the sums of score and information at light load and over all slots,
    d = S_l / I_l - S / I, 1 + e_l = (1 + e) / (1 - d), u_l^2 = u^2 + s (1 / I_l + 1 / I) +
    `LIGHT_U` ^2 + (`LIGHT_AUXILIARIES_W` over half of I_min's power)^2, s the scatter of days, at
    least 1. A difference found by load is put in again.
    """
    n = mpe.size
    sums, total = np.zeros((n, SUMS)), np.zeros((n, SUMS))
    for group, feeder in zip(statistics.layout.groups, statistics.feeders, strict=True):
        known = group.member >= 0
        scale = effective_rows(feeder)[:, None, None]
        light = feeder.situations[:, :, FIRST[LIGHT]].astype(np.float64)
        rest = feeder.situations[:, :, FIRST[LIGHT] + 1].astype(np.float64)
        sums[group.member[known]] = (light * scale)[known]
        total[group.member[known]] = ((light + rest) * scale)[known]
    own, whole = sums[:, INFORMATION], total[:, INFORMATION]
    seen = (own > 0) & (whole > 0)
    safe, safe_whole = np.where(seen, own, 1.0), np.where(seen, whole, 1.0)
    scatter = np.where(seen, np.maximum(sums[:, SQUARE] - sums[:, SCORE] ** 2 / safe, 0.0), 0.0)
    days = np.maximum(sums[:, SEEN_DAYS] - 1.0, 0.0)
    wide = (scatter + SCATTER_COUNTS) / (days + SCATTER_COUNTS)
    away = np.where(seen, sums[:, SCORE] / safe - total[:, SCORE] / safe_whole, 0.0)
    difference = -np.log1p(-np.clip(away, -LARGEST_LIGHT, LARGEST_LIGHT))
    for one in found:
        if one.window.family == LOAD:
            inside = one.window.limits[0] == 0.0
            difference[one.connector] += np.log(1.0 / one.level) + one.difference * inside
    middle_w = 0.5 * light_edges(fleet) * np.nan_to_num(fleet.rated_power_w, nan=UNKNOWN_POWER_W)
    floor = np.where(fleet.is_dc, LIGHT_U[1], LIGHT_U[0])
    floor = np.hypot(floor, LIGHT_AUXILIARIES_W / np.maximum(middle_w, 1.0))
    variance = np.maximum(wide, 1.0) * (1.0 / safe + 1.0 / safe_whole) + floor**2
    light_error = (1.0 + error) * np.exp(difference) - 1.0
    spread = np.sqrt(u**2 + variance) * (1.0 + light_error)
    told = seen & (sums[:, SEEN_DAYS] >= LEAST_LIGHT_DAYS) & np.isfinite(error)
    told &= spread < WIDEST_LIGHT_MPE * mpe
    return LightLoad(error=np.where(told, light_error, np.nan), u=np.where(told, spread, np.nan))
