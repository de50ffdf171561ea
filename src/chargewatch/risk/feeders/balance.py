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
from numpy.typing import NDArray

from chargewatch.domain.arrays import Bools, Floats, Ints, by_row
from chargewatch.domain.times import DAY_S, SLOTS_A_DAY
from chargewatch.risk.feeders.blocks import FeederLayout, Group
from chargewatch.risk.feeders.day import FeederRows, dense_rows, split_day
from chargewatch.risk.feeders.noise import (
    SLOT_H,
    WANDER,
    blended,
    kept_scale,
    noise_scales,
    spread,
    strange_days,
    whitened,
    without_wander,
)
from chargewatch.risk.feeders.nuisances import (
    DAILY,
    NUISANCE_MEAN,
    NUISANCES,
    light_edges,
    nuisance_columns,
    nuisance_prior,
    prior_gain,
    rated_powers,
)
from chargewatch.risk.parallel import in_threads
from chargewatch.risk.priors import (
    DAY_GAIN_U,
    DAY_SPREAD,
    FIRST_LOAD_NOISE,
    FLOOR_WH,
    INTERVAL_TAIL_DEGREES,
    LOAD_NOISE,
    WANDER_FLOOR_W2,
    WANDER_START_W,
)
from chargewatch.risk.run_inputs import Fleet, Intervals
from chargewatch.risk.situations import SIZE, SUMS, active_slots, situation_sums

EARLY_DAYS = 5.0
LARGEST_SHIFT = 0.3


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
    situations: NDArray[np.float32]  # (b, q, SIZE, SUMS), see `situations`


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
        situations=np.zeros((b, group.size, SIZE, SUMS), dtype=np.float32),
    )


def forget(statistics: FeederStatistics, *, factor: float) -> FeederStatistics:
    """Return the statistics with all that is in them weighing less by a factor."""
    return replace(
        statistics,
        matrix=statistics.matrix * factor,
        vector=statistics.vector * factor,
        weight=statistics.weight * factor,
        weight_squared=statistics.weight_squared * factor**2,
        situations=statistics.situations * np.float32(factor),
    )


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


def feeders_day(
    layout: FeederLayout,
    before: Sequence[FeederStatistics],
    *,
    fleet: Fleet,
    meter_resolution_wh: Floats,
    connector_day: Intervals,
    meter_day: Intervals,
    day: int,
    utc_offset_s: float = 0.0,
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
        utc_offset_s: local time less UTC, for the hours of situations.
    """
    split = split_day(layout, fleet, connector_day=connector_day, meter_day=meter_day)

    def chunk(number: int) -> tuple[FeederStatistics, Floats, Floats, Ints]:
        k, picked = split.chunks[number]
        group = layout.groups[k]
        resolution = meter_resolution_wh[group.meter[picked]]
        rows = dense_rows(group, number, split, layout=layout, day=day, resolution_wh=resolution)
        part = FeederStatistics(**{x: v[picked] for x, v in vars(before[k]).items()})
        begin_s = day * float(DAY_S) + utc_offset_s
        return _chunk_day(
            group, picked, rows, part, fleet=fleet, resolution_wh=resolution, begin_s=begin_s
        )

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


@dataclass(frozen=True, kw_only=True)
class _Equations:
    """A day's rows of some feeders, and what is believed of their unknowns without them."""

    design: Floats  # (b, t, p)
    reference: Floats  # (b, t), Wh
    interpolation: Floats  # (b, t), Wh^2
    total: Floats  # (b, t), energy of the connectors, Wh
    step: Floats  # (b, 1), variance of one rounding of the meter's register, Wh^2
    between: Floats  # (b, t + 1), interpolation at the boundaries of slots, Wh^2
    start: Floats  # (b, p), prior means
    ridge: Floats  # (p,), prior precisions


@dataclass(frozen=True, kw_only=True)
class _Noise:
    """How much of a day's rows is noise, and which rows count."""

    idle_variance: Floats  # (b,), Wh^2
    load_factor: Floats  # (b,)
    load_noise: Floats  # (b,), what grows with load, fraction
    wander: Floats  # (b,), W^2
    heavy: Floats  # (b, t), factor on the variance of outliers
    present: Bools  # (b, t)
    strange: Bools  # (b,), feeders whose day is not believed


@dataclass(frozen=True, kw_only=True)
class _Solution:
    """A day's rows solved together with all that came before."""

    matrix: Floats  # (b, p, p), of the day alone
    vector: Floats  # (b, p)
    unknowns: Floats  # (b, p)
    wander: Floats  # (b, k), W at the knots
    wander_variance: Floats  # (b, k)
    residual: Floats  # (b, t), Wh
    white: Floats  # (b, t), Wh^2
    boundary: Floats  # (b, t + 1), Wh^2


def _equations(
    group: Group, picked: slice, rows: FeederRows, *, fleet: Fleet, resolution_wh: Floats
) -> _Equations:
    q = group.size
    design = np.concatenate(
        [rows.energy, nuisance_columns(group, picked, rows, fleet=fleet)], axis=2
    )
    mean, precision = nuisance_prior(group)
    start = np.broadcast_to(mean, (design.shape[0], mean.size)).copy()
    start[:, :q] = prior_gain(group, fleet)[picked]
    # A weak prior on the gains only keeps collinear or idle columns finite here.
    ridge = precision.copy()
    ridge[:q] = DAY_GAIN_U**-2.0
    pair = np.concatenate([rows.variance[:, :1], rows.variance, rows.variance[:, -1:]], axis=1)
    return _Equations(
        design=design,
        reference=rows.reference,
        interpolation=rows.variance,
        total=rows.energy.sum(axis=2),
        step=resolution_wh[:, None] ** 2 / 12.0,
        between=(pair[:, :-1] + pair[:, 1:]) / 4.0,
        start=start,
        ridge=ridge,
    )


def _usual_noise(old: FeederStatistics, present: Bools) -> _Noise:
    """Return the noise as it was until the day."""
    never = np.isnan(old.load_factor)
    return _Noise(
        idle_variance=np.where(np.isnan(old.idle_variance), FLOOR_WH**2, old.idle_variance),
        load_factor=np.where(never, 1.0, old.load_factor),
        load_noise=np.where(never, FIRST_LOAD_NOISE, LOAD_NOISE),
        wander=np.where(np.isnan(old.wander_variance), WANDER_START_W**2, old.wander_variance),
        heavy=np.ones(present.shape),
        present=present,
        strange=np.zeros(present.shape[0], dtype=bool),
    )


def _solution(day: _Equations, old: FeederStatistics, noise: _Noise) -> _Solution:
    """Solve a day's rows with what came before, given the noise."""
    factor = noise.load_factor[:, None]
    white = noise.idle_variance[:, None] + factor * (noise.load_noise[:, None] * day.total) ** 2
    white = white + (noise.heavy - 1.0) * (white + 2.0 * day.step + factor * day.interpolation)
    boundary = day.step + factor * day.between
    hats = np.broadcast_to(WANDER, (day.total.shape[0], *WANDER.shape))
    rows = np.concatenate([day.design, hats, day.reference[..., None]], axis=2)
    rows = whitened(rows, white, boundary, noise.present)
    matrix, vector, hat_rows = without_wander(rows, noise.wander)
    unknowns = _solved(
        old.matrix + matrix, old.vector + vector, precision=day.ridge, mean=day.start
    )
    wander = hat_rows.mean - (hat_rows.response @ unknowns[..., None])[..., 0]
    explained = np.einsum("btp,bp->bt", day.design, unknowns)
    return _Solution(
        matrix=matrix,
        vector=vector,
        unknowns=unknowns,
        wander=wander,
        wander_variance=hat_rows.variance,
        residual=day.reference - explained - by_row(wander, WANDER.T),
        white=white,
        boundary=boundary,
    )


def _noise_found(
    day: _Equations, old: FeederStatistics, usual: _Noise, solution: _Solution
) -> _Noise:
    """Return the noise as the residuals of a first solution show it."""
    early = old.weight < EARLY_DAYS * SLOTS_A_DAY
    residual, fixed = solution.residual, 2.0 * day.step
    shape = day.interpolation + (LOAD_NOISE * day.total) ** 2
    expected = usual.idle_variance[:, None] + fixed + usual.load_factor[:, None] * shape
    strange = ~early & strange_days(residual, expected, present=usual.present)
    present = usual.present & ~strange[:, None]
    wander = np.mean(solution.wander**2 + solution.wander_variance, axis=1)
    idle_variance, load_factor = noise_scales(
        residual,
        day.total,
        interpolation=day.interpolation,
        present=present,
        step=day.step[:, 0],
        early=early,
        before=(old.idle_variance, old.load_factor),
    )
    variance = idle_variance[:, None] + fixed + load_factor[:, None] * shape
    variance = np.maximum(variance, np.nan_to_num(spread(residual, present))[:, None])
    return _Noise(
        idle_variance=idle_variance,
        load_factor=load_factor,
        load_noise=np.full(early.shape, LOAD_NOISE),
        wander=blended(
            old.wander_variance, np.maximum(wander, WANDER_FLOOR_W2), fallback=WANDER_START_W**2
        ),
        heavy=np.maximum(
            (INTERVAL_TAIL_DEGREES + residual**2 / variance) / (INTERVAL_TAIL_DEGREES + 1.0), 1.0
        ),
        present=present,
        strange=strange,
    )


def _with_day(
    old: FeederStatistics,
    day: _Equations,
    noise: _Noise,
    solution: _Solution,
    situations: NDArray[np.float32],
) -> FeederStatistics:
    """Return the statistics with the day added; `situations` are the day's own."""
    rows = noise.present.sum(axis=1).astype(np.float64)
    seen, weight = rows > 0, old.weight + rows
    with np.errstate(divide="ignore", invalid="ignore"):
        fresh = np.where(weight > 0, rows / weight, 0.0)
    boundary = 2.0 * np.mean(solution.boundary, axis=1)
    whole = boundary + np.mean(solution.white, axis=1)
    resolution_share = 2.0 * day.step[:, 0] / whole
    strange = noise.strange
    return FeederStatistics(
        matrix=old.matrix + solution.matrix,
        vector=old.vector + solution.vector,
        weight=weight,
        weight_squared=old.weight_squared + rows,
        idle_variance=kept_scale(
            old.idle_variance, noise.idle_variance, seen=seen, strange=strange
        ),
        load_factor=kept_scale(old.load_factor, noise.load_factor, seen=seen, strange=strange),
        wander_variance=np.where(seen, noise.wander, old.wander_variance),
        boundary_share=(1 - fresh) * old.boundary_share + fresh * (boundary / whole),
        resolution_share=(1 - fresh) * old.resolution_share + fresh * resolution_share,
        situations=old.situations + situations,
    )


def _chunk_day(
    group: Group,
    picked: slice,
    rows: FeederRows,
    old: FeederStatistics,
    *,
    fleet: Fleet,
    resolution_wh: Floats,
    begin_s: float,
) -> tuple[FeederStatistics, Floats, Floats, Ints]:
    """Return the statistics of some feeders with a day added, and the day's own z by connector.

    Solved twice: the residuals of the first solution tell the day's noise and its outliers.
    `begin_s`: the day's begin by local clocks.
    Returns: statistics; z, its precision and the number of slots with energy, shape (b, q).
    """
    day = _equations(group, picked, rows, fleet=fleet, resolution_wh=resolution_wh)
    usual = _usual_noise(old, rows.present)
    noise = _noise_found(day, old, usual, _solution(day, old, usual))
    solution = _solution(day, old, noise)
    situations = _situations(
        day, rows, old, noise, solution, load=_loads(group, picked, fleet), begin_s=begin_s
    )
    estimate, information = _day_alone(
        solution.matrix, solution.vector, solution.unknowns, nuisance_prior(group)[1], q=group.size
    )
    active = ((rows.energy > 0) & noise.present[..., None]).sum(axis=1)
    new = _with_day(old, day, noise, solution, situations)
    return new, estimate, information, active


def _loads(group: Group, picked: slice, fleet: Fleet) -> tuple[Floats, Floats]:
    """Return rated powers and where a load is light, fraction of them, shapes (b, q)."""
    member = group.member[picked]
    light = np.where(member >= 0, light_edges(fleet)[member], 0.0)
    return rated_powers(group, picked, fleet), light


def _situations(
    day: _Equations,
    rows: FeederRows,
    old: FeederStatistics,
    noise: _Noise,
    solution: _Solution,
    *,
    load: tuple[Floats, Floats],
    begin_s: float,
) -> NDArray[np.float32]:
    """Return the day's sums by connector and situation, without any weight.

    What robust weights and strange days take out of the balance is in here, and the residuals keep
    the auxiliaries' wander: else a pile that errs in the evening would be taken for them. Early
    days don't count: their balance is still being found.
    """
    shape = day.interpolation + (LOAD_NOISE * day.total) ** 2
    variance = noise.idle_variance[:, None] + (WANDER_START_W * SLOT_H) ** 2 + 2.0 * day.step
    variance = variance + noise.load_factor[:, None] * shape
    settled = old.weight >= EARLY_DAYS * SLOTS_A_DAY
    return situation_sums(
        active_slots(rows.energy, load[0], light=load[1], begin_s=begin_s),
        solution.residual + by_row(solution.wander, WANDER.T),
        variance,
        present=rows.present & settled[:, None],
        gain=np.clip(solution.unknowns[:, : load[0].shape[1]], 0.5, 2.0),
    )


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
