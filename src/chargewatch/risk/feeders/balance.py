"""Evidence B: what a feeder meter says of the connectors below it, all stations at once.

For a slot of a feeder with connectors i

    R = sum_i g_i E_i + a(t) dt + delta dS + l S^2 / P + k_c X_c + k_d X_d + p_0 X_0 + p_1 X_1 + n

with g_i = exp(-z_i), z_i = ln(1 + eps_i) + ln(eta_i) - b: error, efficiency and the reference
meter's own bias can't be told apart here, only in `estimator`. a(t): auxiliaries, a constant and
two harmonics of the day, and a wander around them that is new every day; delta: offset between
the clocks of gateway and meter, S the sum of the E_i; l: feeder loss at rated power P; X_c: cable
loss that lies before what a compensated meter indicates; X_d, X_0 and X_1: the parts of a
converter's loss that grow with load, are constant, and grow towards light load. The noise n is
treated in `noise`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from chargewatch.domain.arrays import Bools, Floats, Ints
from chargewatch.domain.times import DAY_S, SLOT_S, SLOTS_A_DAY
from chargewatch.risk.feeders.blocks import Group, Layout
from chargewatch.risk.feeders.day import FeederRows, dense_rows, split_day
from chargewatch.risk.feeders.noise import (
    FLOOR_WH,
    LOAD_NOISE,
    SLOT_H,
    WANDER,
    WANDER_START_W,
    blended,
    kept_scale,
    noise_scales,
    spread,
    strange_days,
    whitened,
    without_wander,
)
from chargewatch.risk.parallel import in_threads
from chargewatch.risk.run_inputs import UNKNOWN_POWER_W, Fleet, Intervals

EARLY_DAYS = 5.0
NUISANCES = 11
DAILY = 6
"""The first nuisances, auxiliaries and clock, are free when a day is judged alone."""
NUISANCE_MEAN = np.array([0, 0, 0, 0, 0, 0, 0.004, 0.005, 0.008, 0.002, 0.03])
NUISANCE_U = np.array([1e5, 1e3, 1e3, 1e3, 1e3, 5.0, 0.003, 0.004, 0.012, 0.004, 0.04])
"""Prior means and standard uncertainties: W, s, and fractions of rated power for the losses."""
EFFICIENCY = 0.955
EFFICIENCY_U = 0.012
"""Prior of a DC converter's efficiency at the margin (0.93 to 0.97 in practice)."""
DAY_SPREAD = 0.01
"""Prior standard deviation of a day's error around the present one when a day is judged alone."""
LARGEST_SHIFT = 0.3
TAIL_DEGREES = 4.0
"""Degrees of freedom of the Student weights of intervals."""
LIGHT_SCALE = 0.1
"""Load below which a converter's efficiency falls, fraction of rated power."""
LIGHT_LOAD = 0.2


@dataclass(frozen=True, kw_only=True)
class FeederStatistics:
    """Sufficient statistics of a group's feeders, with forgetting; b feeders, p = q + 11."""

    matrix: Floats  # (b, p, p), 1 / units
    vector: Floats  # (b, p)
    weight: Floats  # (b,), sum of the forgetting factors over rows
    weight_squared: Floats  # (b,)
    idle_variance: Floats  # (b,), Wh^2
    load_factor: Floats  # (b,), scale of what grows with load
    wander_variance: Floats  # (b,), W^2, of the auxiliaries around their daily pattern
    boundary_share: Floats  # (b,), share of the rows' variance that sits at the boundaries
    resolution_share: Floats  # (b,), share that is the register's resolution
    light_weight: Floats  # (b, q), information on the gain at light load
    light_sum: Floats  # (b, q), the same times the change of gain there


@dataclass(frozen=True, kw_only=True)
class DayEstimates:
    """What one day says of each connector by itself; shape (n,)."""

    estimate: Floats  # of z, NaN without information
    precision: Floats
    rows: Ints


def empty_statistics(group: Group) -> FeederStatistics:
    """Return the statistics of feeders of which nothing is known yet."""
    b, p = group.meter.size, group.size + NUISANCES
    return FeederStatistics(
        matrix=np.zeros((b, p, p)),
        vector=np.zeros((b, p)),
        weight=np.zeros(b),
        weight_squared=np.zeros(b),
        idle_variance=np.full(b, np.nan),
        load_factor=np.full(b, np.nan),
        wander_variance=np.full(b, np.nan),
        boundary_share=np.zeros(b),
        resolution_share=np.zeros(b),
        light_weight=np.zeros((b, group.size)),
        light_sum=np.zeros((b, group.size)),
    )


def forget(statistics: FeederStatistics, *, factor: float) -> FeederStatistics:
    """Return the statistics with all that is in them weighing less by a factor."""
    return replace(
        statistics,
        matrix=statistics.matrix * factor,
        vector=statistics.vector * factor,
        weight=statistics.weight * factor,
        weight_squared=statistics.weight_squared * factor**2,
        light_weight=statistics.light_weight * factor,
        light_sum=statistics.light_sum * factor,
    )


def prior_gain(group: Group, fleet: Fleet) -> Floats:
    """Return 1 / efficiency before any data, shape (b, q)."""
    dc = (group.member >= 0) & fleet.is_dc[group.member] & ~group.same_side
    return np.where(dc, 1.0 / EFFICIENCY, 1.0)


def nuisance_prior(group: Group) -> tuple[Floats, Floats]:
    """Return mean (p,) and precision (p,) of the nuisances' prior; zero for the gains."""
    mean = np.concatenate([np.zeros(group.size), NUISANCE_MEAN])
    precision = np.concatenate([np.zeros(group.size), NUISANCE_U**-2.0])
    return mean, precision


def _rated(group: Group, picked: slice, fleet: Fleet) -> Floats:
    """Return rated powers, W, shape (b, q), 0 where padded."""
    member = group.member[picked]
    return np.where(
        member >= 0, np.nan_to_num(fleet.rated_power_w[member], nan=UNKNOWN_POWER_W), 0.0
    )


def _power(energy: Floats) -> Floats:
    """Return the power of each slot, W, shape (b, t, q): that of the fullest neighbour.

    Slots at a session's ends are partly idle, so their mean is not a power that ever was.
    """
    fullest = energy.copy()
    fullest[:, 1:] = np.maximum(fullest[:, 1:], energy[:, :-1])
    fullest[:, :-1] = np.maximum(fullest[:, :-1], energy[:, 1:])
    return np.asarray(fullest / SLOT_H)


def _columns(group: Group, picked: slice, rows: FeederRows, *, fleet: Fleet, day: int) -> Floats:
    """Return the columns of the nuisances, shape (b, t, 11)."""
    member = group.member[picked]
    known = member >= 0
    rated = _rated(group, picked, fleet)
    dc = known & fleet.is_dc[member] & ~group.same_side[picked]
    compensated = known & fleet.cable_loss_compensated[member]
    b, t, _ = rows.energy.shape
    second = (np.arange(t) + 0.5) * SLOT_S + 0.0 * day
    angle = 2.0 * np.pi * second / DAY_S
    total = rows.energy.sum(axis=2)
    # Energy over time at the moment of the boundary is the mean of the slots beside it.
    before = np.concatenate([total[:, :1], total[:, :-1]], axis=1)
    after = np.concatenate([total[:, 1:], total[:, -1:]], axis=1)
    power = _power(rows.energy)
    with np.errstate(divide="ignore", invalid="ignore"):
        load = np.where(rated[:, None, :] > 0, power / rated[:, None, :], 0.0)
        active_h = np.where(power > 0, rows.energy / power, 0.0)
    loaded = rows.energy * load
    columns = np.empty((b, t, NUISANCES))
    columns[..., 0] = SLOT_H
    for place, wave in enumerate((np.cos, np.sin)):
        columns[..., 1 + place] = SLOT_H * wave(angle)
        columns[..., 3 + place] = SLOT_H * wave(2.0 * angle)
    columns[..., 5] = (after - before) / (2.0 * SLOT_S)
    columns[..., 6] = total**2 / SLOT_H / np.maximum(rated.sum(axis=1), 1.0)[:, None]
    columns[..., 7] = np.einsum("btq,bq->bt", loaded, compensated.astype(np.float64))
    columns[..., 8] = np.einsum("btq,bq->bt", loaded, dc.astype(np.float64))
    columns[..., 9] = np.einsum("btq,bq->bt", active_h, dc * rated)
    light = rows.energy * np.exp(-load / LIGHT_SCALE)
    columns[..., 10] = np.einsum("btq,bq->bt", light, dc.astype(np.float64))
    return columns


def _solved(matrix: Floats, vector: Floats, *, precision: Floats, mean: Floats) -> Floats:
    """Return (N + P)^-1 (v + P m) for all feeders, shape (b, p), scaled for good condition."""
    full = matrix.copy()
    index = np.arange(matrix.shape[1])
    full[:, index, index] += precision
    scale = 1.0 / np.sqrt(full[:, index, index])
    scaled = full * scale[:, :, None] * scale[:, None, :]
    scaled[:, index, index] += 1e-12
    right = (vector + precision * mean) * scale
    return np.asarray(np.linalg.solve(scaled, right[..., None])[..., 0] * scale)


def _light_load(
    residual: Floats, energy: Floats, *, present: Bools, variance: Floats, rated_w: Floats
) -> tuple[Floats, Floats]:
    """Return information on how the gain differs at light load, and it times that, (b, q).

    Light load: the slot's power, or its fuller neighbour's, is below a fifth of the rated one.
    Equation: with all else held, d = sum E r / v / sum E^2 / v over a connector's light slots.
    """
    power = _power(energy)
    light = (power > 0) & (power < LIGHT_LOAD * rated_w[:, None, :])
    energy = np.where(light & present[..., None], energy, 0.0)
    return (
        np.einsum("btq,bt->bq", energy**2, 1.0 / variance),
        np.einsum("btq,bt->bq", energy, residual / variance),
    )


def feeders_day(
    layout: Layout,
    before: Sequence[FeederStatistics],
    *,
    fleet: Fleet,
    meter_resolution_wh: Floats,
    connector_day: Intervals,
    meter_day: Intervals,
    day: int,
) -> tuple[tuple[FeederStatistics, ...], DayEstimates]:
    """Return all groups' statistics with one day added, and what that day says by itself.

    Args:
        layout: where connectors and meters are.
        before: what is known already of each group, decayed to this day.
        fleet: rated powers and kinds.
        meter_resolution_wh: shape (m,).
        connector_day: intervals of the day of all connectors.
        meter_day: likewise of all meters.
        day: days since 1970.
    """
    split = split_day(layout, fleet, connector_day=connector_day, meter_day=meter_day)

    def chunk(number: int) -> tuple[FeederStatistics, Floats, Floats, Ints]:
        k, picked = split.chunks[number]
        group = layout.groups[k]
        resolution = meter_resolution_wh[group.meter[picked]]
        rows = dense_rows(group, number, split, layout=layout, day=day, resolution_wh=resolution)
        part = FeederStatistics(**{x: v[picked] for x, v in vars(before[k]).items()})
        return _chunk_day(group, picked, rows, part, fleet=fleet, resolution_wh=resolution, day=day)

    found = in_threads(chunk, range(len(split.chunks)))
    n = fleet.size
    estimate, precision = np.full(n, np.nan), np.zeros(n)
    count = np.zeros(n, dtype=np.int64)
    parts: list[list[FeederStatistics]] = [[] for _ in layout.groups]
    for (k, picked), (part, mean, information, active) in zip(split.chunks, found, strict=True):
        parts[k].append(part)
        member = layout.groups[k].member[picked]
        known = member >= 0
        estimate[member[known]] = mean[known]
        precision[member[known]] = information[known]
        count[member[known]] = active[known]
    merged = tuple(
        FeederStatistics(**{k: np.concatenate([vars(x)[k] for x in mine]) for k in vars(mine[0])})
        for mine in parts
    )
    return merged, DayEstimates(estimate=estimate, precision=precision, rows=count)


def _chunk_day(
    group: Group,
    picked: slice,
    rows: FeederRows,
    old: FeederStatistics,
    *,
    fleet: Fleet,
    resolution_wh: Floats,
    day: int,
) -> tuple[FeederStatistics, Floats, Floats, Ints]:
    q = group.size
    design = np.concatenate(
        [rows.energy, _columns(group, picked, rows, fleet=fleet, day=day)], axis=2
    )
    mean, precision = nuisance_prior(group)
    start = np.broadcast_to(mean, old.vector.shape).copy()
    start[:, :q] = prior_gain(group, fleet)[picked]
    # A weak prior on the gains only keeps collinear or idle columns finite here.
    ridge = precision.copy()
    ridge[:q] = 0.02**-2.0
    total = rows.energy.sum(axis=2)
    step = resolution_wh[:, None] ** 2 / 12.0
    pair = np.concatenate([rows.variance[:, :1], rows.variance, rows.variance[:, -1:]], axis=1)
    between = (pair[:, :-1] + pair[:, 1:]) / 4.0
    idle_variance = np.where(np.isnan(old.idle_variance), FLOOR_WH**2, old.idle_variance)
    load_factor = np.where(np.isnan(old.load_factor), 1.0, old.load_factor)
    first_time = np.isnan(old.load_factor)
    early = old.weight < EARLY_DAYS * SLOTS_A_DAY
    present, strange = rows.present, np.zeros(early.shape, dtype=bool)
    heavy = np.ones(total.shape)
    hats = np.broadcast_to(WANDER, (total.shape[0], *WANDER.shape))
    wander = np.where(np.isnan(old.wander_variance), WANDER_START_W**2, old.wander_variance)
    for turn in range(2):
        factor = load_factor[:, None]
        unexplained = np.where((turn == 0) & first_time, 0.03, LOAD_NOISE)[:, None]
        white = idle_variance[:, None] + factor * (unexplained * total) ** 2
        white = white + (heavy - 1.0) * (white + 2.0 * step + factor * rows.variance)
        boundary = step + factor * between
        both = np.concatenate([design, hats, rows.reference[..., None]], axis=2)
        both = whitened(both, white, boundary, present)
        matrix, vector, hat_rows = without_wander(both, wander)
        solution = _solved(old.matrix + matrix, old.vector + vector, precision=ridge, mean=start)
        if turn == 1:
            break
        moved = hat_rows.mean - (hat_rows.response @ solution[..., None])[..., 0]
        residual = rows.reference - np.einsum("btp,bp->bt", design, solution) - moved @ WANDER.T
        shape = rows.variance + (LOAD_NOISE * total) ** 2
        usual = idle_variance[:, None] + 2.0 * step + factor * shape
        strange = ~early & strange_days(residual, usual, present=present)
        present = present & ~strange[:, None]
        found = np.mean(moved**2 + hat_rows.variance, axis=1)
        wander = blended(old.wander_variance, np.maximum(found, 1.0), fallback=WANDER_START_W**2)
        idle_variance, load_factor = noise_scales(
            residual,
            total,
            interpolation=rows.variance,
            present=present,
            step=step[:, 0],
            early=early,
            before=(old.idle_variance, old.load_factor),
        )
        variance = idle_variance[:, None] + 2.0 * step + load_factor[:, None] * shape
        variance = np.maximum(variance, np.nan_to_num(spread(residual, present))[:, None])
        heavy = np.maximum((TAIL_DEGREES + residual**2 / variance) / (TAIL_DEGREES + 1.0), 1.0)

    moved = hat_rows.mean - (hat_rows.response @ solution[..., None])[..., 0]
    residual = rows.reference - np.einsum("btp,bp->bt", design, solution) - moved @ WANDER.T
    light_weight, light_sum = _light_load(
        residual,
        rows.energy,
        present=present,
        variance=white + boundary[:, :-1] + boundary[:, 1:],
        rated_w=_rated(group, picked, fleet),
    )
    estimate, information = _day_alone(matrix, vector, solution, precision, q=q)
    rows_a_feeder = present.sum(axis=1).astype(np.float64)
    seen = rows_a_feeder > 0
    weight = old.weight + rows_a_feeder
    with np.errstate(divide="ignore", invalid="ignore"):
        fresh = np.where(weight > 0, rows_a_feeder / weight, 0.0)
        mean_white = np.mean(white, axis=1)
        mean_boundary = 2.0 * np.mean(boundary, axis=1)
    boundary_share = mean_boundary / (mean_boundary + mean_white)
    resolution_share = 2.0 * step[:, 0] / (mean_boundary + mean_white)
    new = FeederStatistics(
        matrix=old.matrix + matrix,
        vector=old.vector + vector,
        weight=weight,
        weight_squared=old.weight_squared + rows_a_feeder,
        idle_variance=kept_scale(old.idle_variance, idle_variance, seen=seen, strange=strange),
        load_factor=kept_scale(old.load_factor, load_factor, seen=seen, strange=strange),
        wander_variance=np.where(seen, wander, old.wander_variance),
        boundary_share=(1 - fresh) * old.boundary_share + fresh * boundary_share,
        resolution_share=(1 - fresh) * old.resolution_share + fresh * resolution_share,
        light_weight=old.light_weight + light_weight,
        light_sum=old.light_sum + light_sum,
    )
    active = ((rows.energy > 0) & present[..., None]).sum(axis=1)
    return new, estimate, information, active


def _day_alone(
    matrix: Floats, vector: Floats, solution: Floats, precision: Floats, *, q: int
) -> tuple[Floats, Floats]:
    """Return a day's own estimate of z and its precision for each connector, shapes (b, q).

    The day is solved around the present gains: auxiliaries and clock free, each gain with a prior
    of 1 %, losses held at their prior means, because what is learnt of them from day to day would
    look like a drift of the gains; then a connector's own prior is divided out of its marginal, so
    that what remains is what this day says of it.
    """
    index = np.arange(matrix.shape[1])
    held = precision.copy()
    held[q + DAILY :] *= 1e8
    gain = np.clip(solution[:, :q], 0.5, 2.0)
    own = (DAY_SPREAD * gain) ** -2.0
    full = matrix.copy()
    full[:, index, index] += held
    full[:, index[:q], index[:q]] += own
    scale = 1.0 / np.sqrt(full[:, index, index])
    covariance = np.linalg.inv(full * scale[:, :, None] * scale[:, None, :])
    covariance *= scale[:, :, None] * scale[:, None, :]
    point = solution.copy()
    point[:, q + DAILY :] = NUISANCE_MEAN[DAILY:]
    score = vector - np.einsum("bij,bj->bi", matrix, point)
    change = np.einsum("bij,bj->bi", covariance, score)[:, :q]
    marginal = covariance[:, index[:q], index[:q]]
    information = 1.0 / marginal - own
    with np.errstate(divide="ignore", invalid="ignore"):
        shift = change / marginal / information
    # A day that moves a gain by a third tells of a fault in the data, not of the gain.
    informed = (information > 0.01 * own) & (np.abs(shift) < LARGEST_SHIFT * gain)
    shift = np.where(informed, shift, np.nan)
    z = -np.log(gain) - shift / gain
    return z, np.where(informed, information * gain**2, 0.0)
