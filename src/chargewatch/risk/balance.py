"""Evidence B: what a feeder meter says of the connectors below it, all stations at once.

For a slot of a feeder with connectors i

    R = sum_i g_i E_i + a(t) dt + delta dS + l S^2 / P + k_c X_c + k_d X_d + p_0 X_0 + p_1 X_1 + n

with g_i = exp(-z_i), z_i = ln(1 + eps_i) + ln(eta_i) - b: error, efficiency and the reference
meter's own bias can't be told apart here, only in `estimator`. a(t): auxiliaries, a constant and
two harmonics of the day, and a wander around them that is new every day; delta: offset between the clocks of gateway and meter, S the sum of the
E_i; l: feeder loss at rated power P; X_c: cable loss after the meters whose indication leaves it
out; X_d, X_0 and X_1: the parts of a converter's loss that grow with load, are constant, and grow
towards light load.

n = e_k + q_k - q_{k-1}: e is white, q sits at the boundaries of slots (resolution of the feeder's
register, interpolation), so successive errors are anticorrelated and long spans lose nothing. The
covariance is tridiagonal; rows are whitened by its Cholesky recursion.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from chargewatch.risk.inputs import SLOT_S, Bools, Fleet, Floats, Intervals, Ints
from chargewatch.risk.layout import Group, Layout
from chargewatch.risk.registers import Quality

SLOTS_A_DAY = 86400 // SLOT_S
SLOT_H = SLOT_S / 3600.0
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
TAIL_DEGREES = 4.0
"""Degrees of freedom of the Student weights of intervals."""
LIGHT_SCALE = 0.1
"""Load below which a converter's efficiency falls, fraction of rated power."""
LOAD_NOISE = 0.003
KNOT_SLOTS = 8
"""Slots between the knots of the auxiliaries' wander: two hours."""
WANDER = SLOT_H * np.maximum(
    0.0,
    1.0
    - np.abs(np.arange(SLOTS_A_DAY)[:, None] + 0.5 - KNOT_SLOTS * np.arange(SLOTS_A_DAY // 8 + 1))
    / KNOT_SLOTS,
)
"""Energy in each slot per watt at each knot, linear in between, shape (96, 13)."""
WANDER_START_W = 15.0
CHUNK_VALUES = 6_000_000
FLOOR_WH = 0.5
"""White noise of a slot is never taken below this, Wh."""
SPAN = 8
"""Slots in the spans from which noise is judged: two hours."""


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
    )


def forget(statistics: FeederStatistics, *, factor: float) -> FeederStatistics:
    """Return the statistics with all that is in them weighing less by a factor."""
    return replace(
        statistics,
        matrix=statistics.matrix * factor,
        vector=statistics.vector * factor,
        weight=statistics.weight * factor,
        weight_squared=statistics.weight_squared * factor**2,
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


@dataclass(frozen=True, kw_only=True)
class _Rows:
    """One day of some feeders, dense; b feeders, t slots."""

    energy: Floats  # (b, t, q)
    reference: Floats  # (b, t)
    present: Bools  # (b, t)
    variance: Floats  # (b, t), Wh^2, from interpolation


def too_much(intervals: Intervals, fleet: Fleet) -> Bools:
    """Return the intervals of connectors with more energy than 1.15 rated power x time, (k,)."""
    rated = np.nan_to_num(fleet.rated_power_w, nan=1e6)[intervals.instrument]
    step = np.nan_to_num(fleet.resolution_wh, nan=10.0)[intervals.instrument]
    return np.asarray(intervals.energy_wh > 1.15 * rated * SLOT_H + 2.0 * step)


def _dense(
    group: Group,
    picked: slice,
    connector_day: Intervals,
    meter_day: Intervals,
    *,
    layout: Layout,
    number: int,
    day: int,
    resolution_wh: Floats,
    fleet: Fleet,
) -> _Rows:
    b = group.meter[picked].size
    begin = picked.start
    energy = np.zeros((b, SLOTS_A_DAY, group.size))
    variance = np.zeros((b, SLOTS_A_DAY))
    bad = np.zeros((b, SLOTS_A_DAY), dtype=bool)
    instrument = connector_day.instrument
    row = layout.connector_row[instrument] - begin
    mine = (layout.connector_group[instrument] == number) & (row >= 0) & (row < b)
    row, slot = row[mine], connector_day.slot[mine] - day * SLOTS_A_DAY
    believed = np.where(too_much(connector_day, fleet), 0.0, connector_day.energy_wh)
    energy[row, slot, layout.connector_column[instrument[mine]]] = believed[mine]
    moved = np.where(connector_day.energy_wh[mine] > 0, connector_day.u_wh[mine] ** 2, 0.0)
    np.add.at(variance, (row, slot), moved)
    wrecked = (connector_day.quality[mine] & int(Quality.RESET | Quality.FAULT)) != 0
    wrecked |= too_much(connector_day, fleet)[mine]
    bad[row[wrecked], slot[wrecked]] = True

    reference = np.zeros((b, SLOTS_A_DAY))
    present = np.zeros((b, SLOTS_A_DAY), dtype=bool)
    meter = meter_day.instrument
    row = layout.meter_row[meter] - begin
    mine = (layout.meter_group[meter] == number) & (row >= 0) & (row < b)
    row, slot = row[mine], meter_day.slot[mine] - day * SLOTS_A_DAY
    reference[row, slot] = meter_day.energy_wh[mine]
    wrecked = (meter_day.quality[mine] & int(Quality.RESET | Quality.FAULT)) != 0
    partial = ((meter_day.quality[mine] & int(Quality.GAP)) != 0) & (meter_day.u_wh[mine] <= 0)
    present[row, slot] = ~wrecked & ~partial
    # The register's resolution is modelled at the boundaries, apart from interpolation.
    step = resolution_wh[row] ** 2 / 6.0
    np.add.at(variance, (row, slot), np.maximum(meter_day.u_wh[mine] ** 2 - step, 0.0))
    return _Rows(energy=energy, reference=reference, present=present & ~bad, variance=variance)


def _columns(group: Group, picked: slice, rows: _Rows, *, fleet: Fleet, day: int) -> Floats:
    """Return the columns of the nuisances, shape (b, t, 11)."""
    member = group.member[picked]
    known = member >= 0
    rated = np.where(known, np.nan_to_num(fleet.rated_power_w[member], nan=7000.0), 0.0)
    dc = known & fleet.is_dc[member] & ~group.same_side[picked]
    compensated = known & fleet.cable_loss_compensated[member]
    b, t, _ = rows.energy.shape
    second = (np.arange(t) + 0.5) * SLOT_S + 0.0 * day
    angle = 2.0 * np.pi * second / 86400.0
    total = rows.energy.sum(axis=2)
    # Energy over time at the moment of the boundary is the mean of the slots beside it.
    before = np.concatenate([total[:, :1], total[:, :-1]], axis=1)
    after = np.concatenate([total[:, 1:], total[:, -1:]], axis=1)
    # Slots at a session's ends are partly idle: the power is that of the fullest neighbour.
    fullest = rows.energy.copy()
    fullest[:, 1:] = np.maximum(fullest[:, 1:], rows.energy[:, :-1])
    fullest[:, :-1] = np.maximum(fullest[:, :-1], rows.energy[:, 1:])
    power = fullest / SLOT_H
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


def _whitened(values: Floats, white: Floats, boundary: Floats, present: Bools) -> Floats:
    """Return rows whose noise is white with unit variance; absent rows are zero.

    Args:
        values: rows, shape (b, t, p).
        white: variance of e, shape (b, t).
        boundary: variance of q at the beginning of each slot, shape (b, t + 1).
        present: shape (b, t).

    Equation: covariance C_kk = white_k + q_k + q_{k+1}, C_{k,k-1} = -q_k; F_k = C_kk - q_k^2 /
    F_{k-1}, y_k = x_k + (q_k / F_{k-1}) y_{k-1}, whitened y_k / sqrt(F_k).
    """
    out = np.zeros_like(values)
    last_factor = np.full(values.shape[0], np.inf)
    last_row = np.zeros((values.shape[0], values.shape[2]))
    for k in range(values.shape[1]):
        q = boundary[:, k]
        ratio = q / last_factor
        factor = white[:, k] + q + boundary[:, k + 1] - q * ratio
        row = values[:, k] + ratio[:, None] * last_row
        here = present[:, k]
        out[:, k] = np.where(here[:, None], row / np.sqrt(factor)[:, None], 0.0)
        last_factor = np.where(here, factor, np.inf)
        last_row = row
    return out


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


@dataclass(frozen=True)
class _Wander:
    """The auxiliaries' wander of a day given the other unknowns: mean - response x, (b, k)."""

    mean: Floats
    response: Floats  # (b, k, p)
    variance: Floats


def _without_wander(rows: Floats, variance: Floats) -> tuple[Floats, Floats, _Wander]:
    """Return the normal equations of whitened rows with the day's wander integrated out.

    Args:
        rows: columns of the unknowns, of the wander and the reference, shape (b, t, p + k + 1).
        variance: of the wander at its knots, W^2, shape (b,).

    Equation: Schur complement, N - C (D + 1 / variance)^-1 C'.
    """
    k = WANDER.shape[1]
    full = rows.transpose(0, 2, 1) @ rows
    p = full.shape[1] - k - 1
    own = full[:, p:-1, p:-1].copy()
    index = np.arange(k)
    own[:, index, index] += 1.0 / variance[:, None]
    inverse = np.linalg.inv(own)
    coupling = full[:, p:-1, :p]
    response = inverse @ coupling
    mean = (inverse @ full[:, p:-1, -1:])[..., 0]
    matrix = full[:, :p, :p] - coupling.transpose(0, 2, 1) @ response
    vector = full[:, :p, -1] - np.einsum("bkp,bk->bp", coupling, mean)
    return (
        0.5 * (matrix + matrix.transpose(0, 2, 1)),
        vector,
        _Wander(mean, np.asarray(response), np.asarray(inverse[:, index, index])),
    )


def _noise_scales(
    residual: Floats, rows: _Rows, old: FeederStatistics, *, step: Floats
) -> tuple[Floats, Floats]:
    """Return the white noise's idle variance, Wh^2 a slot, and load factor of each feeder, (b,).

    Both from sums over spans of two hours: there the anticorrelated part cancels but for its ends,
    and what lasts as long as a session counts in full. As long as a feeder has been seen for less
    than five days its solution follows the data too closely for that, and the larger of the
    values from spans and from single slots holds.
    """
    found = []
    for length in (1, SPAN):
        windows = residual.shape[1] // length
        shape = (residual.shape[0], windows, length)
        total = rows.energy.sum(axis=2).reshape(shape).sum(axis=2)
        whole = rows.present.reshape(shape).all(axis=2)
        sums = residual.reshape(shape).sum(axis=2)
        idle = (_spread(sums, whole & (total <= 0)) - 2.0 * step) / length
        idle = np.where(np.isnan(idle), old.idle_variance, np.maximum(idle, FLOOR_WH**2))
        white = ((LOAD_NOISE * rows.energy.sum(axis=2)) ** 2).reshape(shape).sum(axis=2)
        ends = rows.variance.reshape(shape)[..., [0, -1]].mean(axis=2)
        known = length * np.nan_to_num(idle, nan=FLOOR_WH**2) + 2.0 * step
        rest = np.maximum(sums**2 - known[:, None], 0.0)
        loaded = whole & (total > 0)
        ratio = np.sqrt(np.where(loaded, rest / np.where(loaded, white + ends, 1.0), 0.0))
        found.append((idle, np.clip(_spread(ratio, loaded), 0.02, 100.0)))
    early = old.weight < 5.0 * SLOTS_A_DAY
    idle, factor = (
        np.where(early, np.fmax(one, many), np.where(np.isnan(many), one, many))
        for one, many in zip(*found, strict=True)
    )
    return (
        _blended(old.idle_variance, idle, fallback=FLOOR_WH**2),
        _blended(old.load_factor, factor, fallback=1.0),
    )


def _spread(residual: Floats, mask: Bools) -> Floats:
    """Return the robust variance (1.4826 MAD)^2 of rows per feeder, NaN for fewer than 3 rows."""
    masked = np.where(mask, np.abs(residual), np.nan)
    masked[mask.sum(axis=1) < 3] = np.nan
    quiet = np.isnan(masked).all(axis=1)
    masked[quiet] = 0.0
    return np.where(quiet, np.nan, (1.4826 * np.nanmedian(masked, axis=1)) ** 2)


def _blended(old: Floats, new: Floats, *, fallback: float) -> Floats:
    """Return a slowly moving scale: the old one with a fifth of the new one."""
    mixed = np.where(np.isnan(old), new, np.where(np.isnan(new), old, 0.8 * old + 0.2 * new))
    return np.where(np.isnan(mixed), fallback, mixed)


def _chunks(group: Group) -> Iterator[slice]:
    step = max(1, CHUNK_VALUES // (SLOTS_A_DAY * (group.size + NUISANCES + WANDER.shape[1] + 1)))
    for begin in range(0, group.meter.size, step):
        yield slice(begin, min(begin + step, group.meter.size))


def feeder_day(
    group: Group,
    statistics: FeederStatistics,
    *,
    number: int,
    layout: Layout,
    fleet: Fleet,
    meter_resolution_wh: Floats,
    connector_day: Intervals,
    meter_day: Intervals,
    day: int,
) -> tuple[FeederStatistics, DayEstimates]:
    """Return a group's statistics with one day added, and what that day says by itself.

    Args:
        group: feeders, the ``number``-th of the layout.
        statistics: what is known already, decayed to this day.
        connector_day: intervals of the day of all connectors; likewise ``meter_day``.
        meter_resolution_wh: shape (m,).
        day: days since 1970.
    """
    n = fleet.size
    estimate, precision = np.full(n, np.nan), np.zeros(n)
    count = np.zeros(n, dtype=np.int64)
    parts = []
    for picked in _chunks(group):
        rows = _dense(
            group,
            picked,
            connector_day,
            meter_day,
            layout=layout,
            number=number,
            day=day,
            resolution_wh=meter_resolution_wh[group.meter[picked]],
            fleet=fleet,
        )
        part = FeederStatistics(**{k: v[picked] for k, v in vars(statistics).items()})
        part, mean, information, active = _chunk_day(
            group,
            picked,
            rows,
            part,
            fleet=fleet,
            resolution_wh=meter_resolution_wh[group.meter[picked]],
            day=day,
        )
        parts.append(part)
        member = group.member[picked]
        known = member >= 0
        estimate[member[known]] = mean[known]
        precision[member[known]] = information[known]
        count[member[known]] = active[known]
    merged = FeederStatistics(
        **{k: np.concatenate([vars(x)[k] for x in parts]) for k in vars(statistics)}
    )
    return merged, DayEstimates(estimate=estimate, precision=precision, rows=count)


def _chunk_day(
    group: Group,
    picked: slice,
    rows: _Rows,
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
        both = _whitened(both, white, boundary, rows.present)
        matrix, vector, hat_rows = _without_wander(both, wander)
        solution = _solved(old.matrix + matrix, old.vector + vector, precision=ridge, mean=start)
        if turn == 1:
            break
        moved = hat_rows.mean - (hat_rows.response @ solution[..., None])[..., 0]
        residual = rows.reference - np.einsum("btp,bp->bt", design, solution) - moved @ WANDER.T
        found = np.mean(moved**2 + hat_rows.variance, axis=1)
        wander = _blended(old.wander_variance, np.maximum(found, 1.0), fallback=WANDER_START_W**2)
        idle_variance, load_factor = _noise_scales(residual, rows, old, step=step[:, 0])
        shape = rows.variance + (LOAD_NOISE * total) ** 2
        variance = idle_variance[:, None] + 2.0 * step + load_factor[:, None] * shape
        variance = np.maximum(variance, np.nan_to_num(_spread(residual, rows.present))[:, None])
        heavy = np.maximum((TAIL_DEGREES + residual**2 / variance) / (TAIL_DEGREES + 1.0), 1.0)

    estimate, information = _day_alone(matrix, vector, solution, precision, q=q)
    rows_a_feeder = rows.present.sum(axis=1).astype(np.float64)
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
        idle_variance=np.where(rows_a_feeder > 0, idle_variance, old.idle_variance),
        load_factor=np.where(rows_a_feeder > 0, load_factor, old.load_factor),
        wander_variance=np.where(rows_a_feeder > 0, wander, old.wander_variance),
        boundary_share=(1 - fresh) * old.boundary_share + fresh * boundary_share,
        resolution_share=(1 - fresh) * old.resolution_share + fresh * resolution_share,
    )
    active = ((rows.energy > 0) & rows.present[..., None]).sum(axis=1)
    return new, estimate, information, active


def _day_alone(
    matrix: Floats, vector: Floats, solution: Floats, precision: Floats, *, q: int
) -> tuple[Floats, Floats]:
    """Return a day's own estimate of z and its precision for each connector, shapes (b, q).

    The day is solved around the present gains: auxiliaries and clock free, each gain with a prior
    of 1 %, losses held at their prior means, because what is learnt of them from day to day would
    look like a drift of the gains; then a connector's own prior is divided out of its marginal, so that what
    remains is what this day says of it.
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
    informed = information > 1e-3 * own
    with np.errstate(divide="ignore", invalid="ignore"):
        shift = np.where(informed, change / marginal / information, np.nan)
    z = -np.log(gain) - shift / gain
    return z, np.where(informed, information * gain**2, 0.0)
