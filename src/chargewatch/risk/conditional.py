"""Errors of a feeder's connectors in situations, from the intervals of its last weeks.

For a feeder whose sums (`situations`) are off, all its slots are taken again, without robust
weights: gains, nuisances and, for every connector and window, one more column -g E in the window.
The column that explains most is taken in when its odds are good, then the next one is looked for.
Its coefficient is by how much ln(1 + error) in the window differs from that outside. What the
vehicles' sessions say of the same window (`session_situations`) counts beside it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from chargewatch.domain.arrays import Bools, Floats, Ints
from chargewatch.domain.times import DAY_S, SLOTS_A_DAY
from chargewatch.risk.feeders.blocks import Group, feeder_layout
from chargewatch.risk.feeders.day import FeederRows, dense_rows, split_day
from chargewatch.risk.feeders.noise import spread
from chargewatch.risk.feeders.nuisances import (
    CLOCK,
    boundary_powers,
    light_edges,
    nuisance_columns,
    nuisance_prior,
    prior_gain,
    rated_powers,
)
from chargewatch.risk.parallel import in_threads
from chargewatch.risk.priors import (
    CROSSING_U,
    FIRST_LOAD_NOISE,
    FLOOR_WH,
    INTERVAL_TAIL_DEGREES,
    LOAD_NOISE,
    SAME_SIDE_U,
    SITUATION_CLOCK_U_S,
    SITUATION_GAIN_U,
    UNKNOWN_METER_STEP_WH,
    UNKNOWN_MPE,
)
from chargewatch.risk.run_inputs import RunInputs
from chargewatch.risk.situation_odds import (
    LEAST_LOG_ODDS,
    Conditional,
    Differences,
    conditional,
    energy_shares,
    log_odds,
    together,
)
from chargewatch.risk.situations import (
    DAYS,
    FAMILY_OF,
    IN_WINDOW,
    SIZE,
    ActiveSlots,
    active_slots,
)

LEAST_DAYS_IN_WINDOW = 6
"""Days with energy in and outside a window without which nothing is said of it."""
LARGEST_AWAY = 0.8
LARGEST_CLOCK_S = 30.0
"""Where the clocks' offset begins to look like an error as charging begins and ends: then only
hours and weekends can be told."""
LARGEST_SMEAR = 0.1
"""Standard uncertainty from interpolation over a slot's energy, median of loaded slots, from which
on the same holds: readings 400 s off the slots' ends give 0.28, those on time below 0.04."""
LEAST_LAG_S = 10.0
LAG_SIGMAS = 4.0
"""Connectors whose readings lag by more, so surely, have a clock of their own here."""
MOST_BY_FEEDER = 3
AT_ONCE_CONNECTORS = 16
"""Connectors whose columns are held at once: about 15 MB each way for 30 days."""
ROBUST_ROUNDS = 4
WIDEST_DAY = 0.5
"""Largest share of the whole score that a single day may have."""


@dataclass(frozen=True, kw_only=True)
class FeederHistory:
    """A feeder's slots over some days, dense; t slots, q connectors, p = q + nuisances."""

    member: Ints  # (q,), -1 where padded
    design: Floats  # (t, p)
    precision: Floats  # (p,), of the prior
    mean: Floats  # (p,)
    reference: Floats  # (t,)
    present: Bools  # (t,)
    variance: Floats  # (t,), from interpolation and the meter's steps
    active: ActiveSlots
    crossing: Bools  # (q,)
    smeared: bool  # registers are read far from the slots' ends
    vehicles: Differences  # what sessions say, (q, windows)


@dataclass(frozen=True, kw_only=True)
class _Fit:
    """A feeder's slots fitted with the columns taken in so far."""

    x: Floats  # (t, p + columns)
    inverse: Floats  # of the normal matrix
    clock_s: float
    solution: Floats
    residual: Floats  # (t,)


def _fitted(history: FeederHistory, extra: Floats, weight: Floats) -> _Fit:
    x = np.concatenate([history.design, extra], axis=1)
    precision = np.concatenate([history.precision, np.full(extra.shape[1], 1e-6)])
    mean = np.concatenate([history.mean, np.zeros(extra.shape[1])])
    normal = (x * weight[:, None]).T @ x + np.diag(precision)
    scale = 1.0 / np.sqrt(np.diag(normal))
    inverse = np.linalg.inv(normal * scale[:, None] * scale) * scale[:, None] * scale
    solution = inverse @ (x.T @ (weight * history.reference) + precision * mean)
    return _Fit(
        x=x,
        inverse=inverse,
        clock_s=float(solution[history.member.size + CLOCK]),
        solution=solution,
        residual=history.reference - x @ solution,
    )


def _own_lags(history: FeederHistory, gain: Floats, weight: Floats) -> Floats:
    """Return columns of the connectors whose readings lag behind by themselves, shape (t, c).

    A register that is refreshed once a minute shows what was half a minute ago: too little as a
    charge begins and as much too much when it has ended, which is no error of any situation.
    """
    q = history.member.size
    energy = history.design[:, :q]
    power = [boundary_powers(energy[None, :, k : k + 1])[0] for k in range(q)]
    columns = np.diff(np.stack(power, axis=1), axis=0) / 3600.0 * gain
    columns = columns[:, (np.abs(columns) > 0).any(axis=0)]
    if columns.shape[1] < 2:
        return columns[:, :0]
    fit = _fitted(history, columns, weight)
    lag_s = fit.solution[fit.x.shape[1] - columns.shape[1] :]
    # What all have in common is the feeder's clock; of the others each has its own.
    away = np.abs(lag_s - np.median(lag_s))
    u = 1.0 / np.sqrt(np.maximum(weight @ columns**2, 1e-12))
    return columns[:, (away > LEAST_LAG_S) & (away > LAG_SIGMAS * u)]


def _variance(history: FeederHistory, residual: Floats, total: Floats) -> Floats:
    """Return the variance of each slot, scaled to what the feeder shows, shape (t,)."""
    usable = history.present[None]
    idle = spread(residual[None], usable & (total <= 0)[None])[0]
    idle = FLOOR_WH**2 if np.isnan(idle) else max(idle, FLOOR_WH**2)
    loaded = history.variance + (LOAD_NOISE * total) ** 2
    rest = np.sqrt(np.maximum(residual**2 - idle, 0.0) / np.maximum(loaded, 1e-9))
    factor = spread(rest[None], usable & (total > 0)[None])[0]
    factor = 1.0 if np.isnan(factor) else float(np.clip(factor, 0.05, 100.0))
    return np.asarray(idle + factor * loaded)


def _columns(history: FeederHistory, gain: Floats, some: slice) -> Floats:
    """Return the columns of some connectors in every bin, shape (t, c, SIZE)."""
    size = len(range(*some.indices(gain.size)))
    out = np.zeros((history.reference.size, size, SIZE))
    active = history.active
    mine = (active.column >= some.start) & (active.column < some.start + size)
    column = active.column[mine]
    moved = -active.energy_wh[mine] * gain[column]
    for bins in active.bins[:, mine]:
        out[active.slot[mine], column - some.start, bins] = moved
    return out


def _day_sums(values: Floats, weight: Floats) -> Floats:
    """Return sums of weighted rows by day, shape (days, c)."""
    by_day = values.reshape(-1, SLOTS_A_DAY, values.shape[1])
    return np.asarray((weight.reshape(-1, 1, SLOTS_A_DAY) @ by_day)[:, 0])


@dataclass(frozen=True, kw_only=True)
class _Scores:
    """What the residuals say of connectors and windows, shape (c, w)."""

    told: Differences
    log_odds: Floats
    explained: Floats  # by how much the weighted sums of squares fall
    days: Ints


def _scores(
    history: FeederHistory, columns: Floats, some: slice, fit: _Fit, weight: Floats, mpe: Floats
) -> _Scores:
    """Return the scores of some connectors, whose columns are given; mpe: of all, shape (q,)."""
    t, c, _ = columns.shape
    days = t // SLOTS_A_DAY
    flat = columns.reshape(t, -1)
    left = flat - fit.x @ (fit.inverse @ (fit.x.T @ (weight[:, None] * flat)))
    weighted = (columns * weight[:, None, None]).transpose(1, 2, 0)
    gram = weighted @ left.reshape(t, c, SIZE).transpose(1, 0, 2)
    # By day, connector and window.
    score_day = _day_sums(left, weight * fit.residual).reshape(days, c, SIZE) @ IN_WINDOW.T
    raw_day = _day_sums(flat**2, weight).reshape(days, c, SIZE) @ IN_WINDOW.T**2
    score, raw = score_day.sum(axis=0), raw_day.sum(axis=0)
    information = ((IN_WINDOW @ gram) * IN_WINDOW).sum(axis=2)
    good = (information > 1e-3 * raw) & (raw > 0)
    safe = np.where(good, information, 1.0)
    seen = (raw_day > 0).sum(axis=0)
    # Slots of one session err together: what days scatter counts when it is more.
    away = score_day - raw_day / np.where(raw > 0, raw, 1.0) * score
    scatter = (away**2).sum(axis=0) * seen / np.maximum(seen - 1, 1)
    widest = (score_day * np.sign(score)).max(axis=0) / np.maximum(np.abs(score), 1e-30)
    crossing = history.crossing[some, None]
    floor = np.where(crossing, np.array(CROSSING_U)[FAMILY_OF], np.array(SAME_SIDE_U)[FAMILY_OF])
    # A gain of g (1 - d) in the window is an error of 1 / (1 - d) there.
    away = np.clip(np.where(good, score / safe, 0.0), -LARGEST_AWAY, LARGEST_AWAY)
    u = np.sqrt(np.maximum(1.0 / safe, scatter / safe**2) + floor**2) / (1.0 - away)
    fair = good & (seen >= LEAST_DAYS_IN_WINDOW) & (widest < WIDEST_DAY)
    fair &= (history.member[some] >= 0)[:, None]
    if history.smeared or abs(fit.clock_s) > LARGEST_CLOCK_S:
        fair &= FAMILY_OF <= DAYS
    own = Differences(difference=-np.log1p(-away), u=np.where(good, u, np.inf))
    vehicles = history.vehicles.rows(some)
    told = together(own, vehicles)
    agree = own.difference * vehicles.difference > 0
    share = energy_shares(_energies(history, some))
    return _Scores(
        told=told,
        log_odds=log_odds(told, mpe[some, None], energy_share=share, kept=fair),
        explained=np.where(good, score**2 / safe, 0.0)
        + np.where(agree, (vehicles.difference / vehicles.u) ** 2, 0.0),
        days=seen,
    )


def _energies(history: FeederHistory, some: slice) -> Floats:
    """Return some connectors' energy in every bin, shape (c, SIZE)."""
    active, q = history.active, history.member.size
    energy = np.zeros((q, SIZE))
    for bins in active.bins:
        np.add.at(energy, (active.column, bins), active.energy_wh)
    return energy[some]


def _best(
    history: FeederHistory, gain: Floats, fit: _Fit, weight: Floats, mpe: Floats, apart: list[int]
) -> tuple[int, int] | None:
    """Return connector and window that explain most, of those with good odds; a few at a time."""
    best, found = 0.0, None
    for begin in range(0, gain.size, AT_ONCE_CONNECTORS):
        some = slice(begin, min(begin + AT_ONCE_CONNECTORS, gain.size))
        scores = _scores(history, _columns(history, gain, some), some, fit, weight, mpe)
        explained = np.where(scores.log_odds >= LEAST_LOG_ODDS, scores.explained, 0.0)
        explained[[k - begin for k in apart if begin <= k < some.stop]] = 0.0
        k, w = divmod(int(np.argmax(explained)), explained.shape[1])
        if explained[k, w] > best:
            best, found = float(explained[k, w]), (begin + k, w)
    return found


def conditional_errors(history: FeederHistory, mpe: Floats) -> list[Conditional]:
    """Return the situations in which connectors of a feeder err otherwise, the surest first.

    Args:
        history: of the feeder.
        mpe: by connector of the fleet, shape (n,).
    """
    t, q = history.reference.size, history.member.size
    limit = np.where(history.member >= 0, mpe[history.member], UNKNOWN_MPE)
    total = history.design[:, :q].sum(axis=1)
    gain = np.where(history.mean[:q] > 0, history.mean[:q], 1.0)
    none = np.zeros((t, 0))
    weight = np.where(
        history.present,
        1.0 / (FLOOR_WH**2 + history.variance + (FIRST_LOAD_NOISE * total) ** 2),
        0.0,
    )
    for _ in range(2):
        residual = _fitted(history, none, weight).residual
        weight = np.where(history.present, 1.0 / _variance(history, residual, total), 0.0)
    taken: list[tuple[int, int]] = []
    extra = lags = _own_lags(history, gain, weight)
    for _ in range(MOST_BY_FEEDER):
        fit = _fitted(history, extra, weight)
        best = _best(history, gain, fit, weight, limit, [k for k, _ in taken])
        if best is None:
            break
        taken.append(best)
        k, w = best
        column = _columns(history, gain, slice(k, k + 1))[:, 0] @ IN_WINDOW[w]
        extra = np.concatenate([extra, column[:, None]], axis=1)
    if not taken:
        return []
    # With the columns in, robust weights can't take a situation for outliers: what is left when
    # they are used is not the work of a few slots, such as sessions that nobody told.
    for _ in range(ROBUST_ROUNDS):
        residual = _fitted(history, extra, weight).residual
        variance = _variance(history, residual, total)
        student = (INTERVAL_TAIL_DEGREES + 1.0) / (INTERVAL_TAIL_DEGREES + residual**2 / variance)
        weight = np.where(history.present, student / variance, 0.0)
    found = []
    for place, (k, w) in enumerate(taken):
        # Each beside all the others.
        fit = _fitted(history, np.delete(extra, lags.shape[1] + place, axis=1), weight)
        some = slice(k, k + 1)
        scores = _scores(history, _columns(history, gain, some), some, fit, weight, limit)
        if scores.log_odds[0, w] >= LEAST_LOG_ODDS:
            found.append(
                conditional(
                    int(history.member[k]),
                    w,
                    Differences(difference=scores.told.difference[0, w], u=scores.told.u[0, w]),
                    float(scores.log_odds[0, w]),
                    energy=_energies(history, some)[0],
                    days=int(scores.days[0, w]),
                )
            )
    return found


def histories(
    inputs: RunInputs, vehicles: Differences, *, utc_offset_s: float
) -> list[FeederHistory]:
    """Return the feeders of the inputs, each with all its slots from the first day to the last.

    Only whole days count. Connectors are numbered as in the inputs' fleet.
    """
    layout = feeder_layout(inputs.fleet, inputs.references, as_of_s=inputs.as_of_s)
    first_day = int(np.ceil(inputs.from_s / DAY_S))
    days = range(first_day, int(inputs.as_of_s // DAY_S))
    resolution = np.nan_to_num(inputs.references.resolution_wh, nan=UNKNOWN_METER_STEP_WH)
    own, other = inputs.connector_intervals, inputs.meter_intervals
    parts: dict[int, list[FeederRows]] = {}
    for day in days:
        bounds = day * SLOTS_A_DAY, (day + 1) * SLOTS_A_DAY
        split = split_day(
            layout,
            inputs.fleet,
            connector_day=own.take(
                np.flatnonzero((own.slot >= bounds[0]) & (own.slot < bounds[1]))
            ),
            meter_day=other.take(
                np.flatnonzero((other.slot >= bounds[0]) & (other.slot < bounds[1]))
            ),
        )
        for number, (k, picked) in enumerate(split.chunks):
            group = layout.groups[k]
            parts.setdefault(number, []).append(
                dense_rows(
                    group,
                    number,
                    split,
                    layout=layout,
                    day=day,
                    resolution_wh=resolution[group.meter[picked]],
                )
            )
    if not parts:
        return []
    chunks = split.chunks
    found = []
    for number, rows in parts.items():
        k, picked = chunks[number]
        joined = FeederRows(
            **{
                name: np.concatenate([getattr(row, name) for row in rows], axis=1)
                for name in ("energy", "reference", "present", "variance")
            }
        )
        found += _of_chunk(
            inputs,
            layout.groups[k],
            picked,
            joined,
            resolution=resolution,
            begin_s=first_day * float(DAY_S) + utc_offset_s,
            vehicles=vehicles,
        )
    return found


def _of_chunk(
    inputs: RunInputs,
    group: Group,
    picked: slice,
    rows: FeederRows,
    *,
    resolution: Floats,
    begin_s: float,
    vehicles: Differences,
) -> list[FeederHistory]:
    fleet = inputs.fleet
    q = group.size
    rated = rated_powers(group, picked, fleet)
    nuisances = nuisance_columns(group, picked, rows, fleet=fleet)
    mean, precision = nuisance_prior(group)
    precision[q + CLOCK] = SITUATION_CLOCK_U_S**-2.0
    first = prior_gain(group, fleet)[picked]
    light = np.where(group.member[picked] >= 0, light_edges(fleet)[group.member[picked]], 0.0)
    active = active_slots(rows.energy, rated, light=light, begin_s=begin_s)
    found = []
    for row in range(rows.reference.shape[0]):
        mine = active.feeder == row
        member = group.member[picked][row]
        known = member >= 0
        crossing = known & fleet.is_dc[member] & ~group.same_side[picked][row]
        gain = first[row]
        step = resolution[group.meter[picked][row]] ** 2 / 6.0
        found.append(
            FeederHistory(
                member=member,
                design=np.concatenate([rows.energy[row], nuisances[row]], axis=1),
                precision=np.concatenate([np.full(q, SITUATION_GAIN_U**-2.0), precision[q:]]),
                mean=np.concatenate([gain, mean[q:]]),
                reference=rows.reference[row],
                present=rows.present[row],
                variance=rows.variance[row] + step,
                active=ActiveSlots(
                    feeder=active.feeder[mine],
                    slot=active.slot[mine],
                    column=active.column[mine],
                    energy_wh=active.energy_wh[mine],
                    bins=active.bins[:, mine],
                ),
                crossing=crossing,
                smeared=_is_smeared(rows, row),
                vehicles=vehicles.rows(member),
            )
        )
    return found


def _is_smeared(rows: FeederRows, row: int) -> bool:
    """Return whether interpolation between readings moves much energy from slot to slot."""
    total = rows.energy[row].sum(axis=1)
    loaded = rows.present[row] & (total > 0)
    if not loaded.any():
        return False
    share = np.sqrt(rows.variance[row][loaded]) / total[loaded]
    return bool(np.median(share) > LARGEST_SMEAR)


def all_conditional_errors(
    inputs: RunInputs, vehicles: Differences, *, mpe: Floats, utc_offset_s: float
) -> list[Conditional]:
    """Return the conditional errors of all feeders of the inputs, in the order of their feeders.

    `vehicles`: what sessions say of the inputs' connectors.
    """
    found = in_threads(
        lambda history: conditional_errors(history, mpe),
        histories(inputs, vehicles, utc_offset_s=utc_offset_s),
    )
    return [one for several in found for one in several]
