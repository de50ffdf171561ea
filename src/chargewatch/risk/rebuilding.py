"""Feeders whose connectors err otherwise in a situation: found, and rebuilt from their intervals.

The sums of `situations` say which feeders are worth a second look; `conditional` takes it with
the intervals of the last weeks. What it finds is taken out of the connectors' intervals, and the
feeders' statistics are made again from these: the balance then speaks of the error outside the
window, with all of its evidence, and the error over all energy follows from it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np

from chargewatch.domain.arrays import Bools, Floats, Ints
from chargewatch.domain.times import DAY_S, SLOT_S
from chargewatch.risk.conditional import all_conditional_errors
from chargewatch.risk.feeders.balance import FeederStatistics
from chargewatch.risk.feeders.blocks import Group, meters_above
from chargewatch.risk.feeders.statements import effective_rows
from chargewatch.risk.memory import CityStatistics, updated
from chargewatch.risk.priors import CROSSING_U, SAME_SIDE_U, SCATTER_COUNTS
from chargewatch.risk.results import EngineConfig
from chargewatch.risk.run_inputs import Intervals, RunInputs
from chargewatch.risk.session_situations import (
    LEAST_EXCESS,
    MOST_LONE,
    suspects_by_sessions,
    told_by_sessions,
    travelled,
)
from chargewatch.risk.situation_odds import LEAST_SIZE_MPE, Conditional
from chargewatch.risk.situations import (
    BINS,
    FAMILY_OF,
    FIRST,
    HOURS,
    IN_FAMILY,
    IN_WINDOW,
    INFORMATION,
    LOAD,
    SCORE,
    SEEN_DAYS,
    SQUARE,
    WINDOWS,
    Window,
    active_slots,
)

HISTORY_DAYS = 30
"""Days of intervals that a feeder is looked at with."""
MOST_REBUILT = 200
"""Feeders that are rebuilt in one run at most, the most suspect first."""
LEAST_Z = 5.0
LEAST_UNCLOSED_Z = 4.0
LEAST_UNCLOSED_MPE = 0.5
CHUNK = 2_000

History = Callable[[Ints, Ints, float], RunInputs]
"""Returns the inputs of some meters and connectors (rows) from a time on, as `part_of` does."""


def _is_screened(window: Window) -> bool:
    if window.grades:
        return False
    first, size = window.bins[0] - FIRST[window.family], len(window.bins)
    if window.family == HOURS:
        return size in (2, 4, 8) and first % 2 == 0
    edge = first == 0 or window.bins[-1] + 1 == FIRST[window.family + 1]
    return window.family != LOAD or edge or (first % 2 == 0 and size % 2 == 0)


_SCREENED = np.array([row for row, window in enumerate(WINDOWS) if _is_screened(window)])
"""Windows that the sums are looked through with: enough to find what any other one would."""


@dataclass(frozen=True, kw_only=True)
class Screened:
    """What the sums say; n connectors, m meters."""

    suspicion: Floats  # (m,), largest |z| of a feeder's connectors and windows, 0 without
    unclosed: Bools  # (n,), what was weighed down by the balance lies on one side


@dataclass(frozen=True, kw_only=True)
class Rebuilt:
    """The statistics with rebuilt feeders, and what was found in them."""

    statistics: CityStatistics
    conditional: tuple[Conditional, ...]
    unclosed: Bools  # (n,)


def _scatter(sums: Floats) -> tuple[Floats, Floats]:
    """Return the excess of days' scores over their expectation and its count, shape (b, q)."""
    own = sums[:, :, FIRST[HOURS] : FIRST[HOURS] + BINS[HOURS]]
    information = own[..., INFORMATION]
    safe = np.where(information > 0, information, 1.0)
    excess = np.where(information > 0, own[..., SQUARE] - own[..., SCORE] ** 2 / safe, 0.0)
    count = np.where(information > 0, np.maximum(own[..., SEEN_DAYS] - 1.0, 0.0), 0.0)
    return np.maximum(excess.sum(axis=2), 0.0), count.sum(axis=2)


def screened(city: CityStatistics, *, is_dc: Bools, mpe: Floats) -> Screened:
    """Return which feeders are worth rebuilding and which connectors' balances don't close.

    Args:
        city: the statistics.
        is_dc: shape (n,).
        mpe: shape (n,).
    """
    suspicion = np.zeros(city.layout.meter_group.size)
    unclosed = np.zeros(mpe.size, dtype=bool)
    groups = list(zip(city.layout.groups, city.feeders, strict=True))
    scatter = [_scatter(feeder.situations.astype(np.float64)) for _, feeder in groups]
    ratios = [np.where(c > 5, e / np.maximum(c, 1.0), np.nan).ravel() for e, c in scatter]
    known = np.concatenate([*ratios, np.zeros(0)])
    known = known[np.isfinite(known)]
    usual = max(float(np.median(known)), 1e-3) if known.size else 1.0
    for (group, feeder), (excess, count) in zip(groups, scatter, strict=True):
        wide = (excess + SCATTER_COUNTS * usual) / (count + SCATTER_COUNTS)
        for begin in range(0, group.meter.size, CHUNK):
            part = slice(begin, begin + CHUNK)
            z, off = _screen(group, feeder, part, wide[part], is_dc=is_dc, mpe=mpe)
            suspicion[group.meter[part]] = z
            member = group.member[part]
            unclosed[member[member >= 0]] = off[member >= 0]
    return Screened(suspicion=suspicion, unclosed=unclosed)


def _screen(
    group: Group,
    feeder: FeederStatistics,
    part: slice,
    wide: Floats,
    *,
    is_dc: Bools,
    mpe: Floats,
) -> tuple[Floats, Bools]:
    member = group.member[part]
    known = member >= 0
    limit = np.where(known, mpe[member], 1.0)[..., None]
    crossing = (known & is_dc[member] & ~group.same_side[part])[..., None]
    scale = effective_rows(feeder)[part][:, None, None]
    sums = feeder.situations[part].astype(np.float64)
    inside_of, family = IN_WINDOW[_SCREENED], IN_FAMILY[_SCREENED]

    def window(kind: int, bins: Floats) -> Floats:
        return np.asarray(sums[..., kind] @ bins.T)

    score, all_score = window(SCORE, inside_of), window(SCORE, family)
    own, whole = window(INFORMATION, inside_of), window(INFORMATION, family)
    rest = whole - own
    good = known[..., None] & (own > 1e-9 * whole) & (rest > 1e-9 * whole)
    safe_own, safe_rest = np.where(good, own, 1.0), np.where(good, rest, 1.0)
    contrast = score / safe_own - (all_score - score) / safe_rest
    variance = wide[..., None] * (1.0 / safe_own + 1.0 / safe_rest) / scale
    floors = np.where(
        crossing,
        np.array(CROSSING_U)[FAMILY_OF[_SCREENED]],
        np.array(SAME_SIDE_U)[FAMILY_OF[_SCREENED]],
    )
    z = np.abs(contrast) / np.sqrt(variance + floors**2)
    z = np.where(good & (np.abs(contrast) > LEAST_SIZE_MPE * limit), z, 0.0)

    hours = slice(FIRST[HOURS], FIRST[HOURS] + BINS[HOURS])
    total = sums[:, :, hours, INFORMATION].sum(axis=2)
    away = sums[:, :, hours, SCORE].sum(axis=2) / np.where(total > 0, total, 1.0)
    away_u = np.sqrt(wide / np.where(total > 0, total, 1.0) / scale[..., 0])
    off = known & (total > 0) & (np.abs(away) > LEAST_UNCLOSED_Z * away_u)
    off &= np.abs(away) > LEAST_UNCLOSED_MPE * limit[..., 0]
    return z.max(axis=(1, 2), initial=0.0), off


def part_of(inputs: RunInputs, meters: Ints, connectors: Ints, from_s: float) -> RunInputs:
    """Return some meters and connectors of inputs from a time on, as a city of their own.

    Members that are not among the connectors are left out; no sessions and no verifications.
    """
    fleet, references = inputs.fleet, inputs.references
    number = np.full(fleet.size, -1, dtype=np.int64)
    number[connectors] = np.arange(connectors.size)
    members = [
        number[references.members[references.member_start[j] : references.member_start[j + 1]]]
        for j in meters.tolist()
    ]
    members = [row[row >= 0] for row in members]
    starts = np.concatenate([[0], np.cumsum([row.size for row in members])]).astype(np.int64)

    def of_rows(values: Any, rows: Ints) -> Any:
        if isinstance(values, np.ndarray):
            return values[rows]
        return [values[k] for k in rows.tolist()]

    def part(intervals: Intervals, rows: Ints, size: int) -> Intervals:
        to = np.full(size, -1, dtype=np.int64)
        to[rows] = np.arange(rows.size)
        first = int(np.ceil(from_s / SLOT_S))
        mine = intervals.take(
            np.flatnonzero((to[intervals.instrument] >= 0) & (intervals.slot >= first))
        )
        mine = replace(mine, instrument=to[mine.instrument])
        return mine.take(np.lexsort((mine.slot, mine.instrument)))

    none = np.zeros(0, dtype=np.int64)
    return RunInputs(
        as_of_s=inputs.as_of_s,
        from_s=max(inputs.from_s, from_s),
        fleet=replace(
            fleet, **{f.name: of_rows(getattr(fleet, f.name), connectors) for f in fields(fleet)}
        ),
        references=replace(
            references,
            **{
                f.name: of_rows(getattr(references, f.name), meters)
                for f in fields(references)
                if f.name not in ("member_start", "members")
            },
            member_start=starts,
            members=np.concatenate([*members, none]).astype(np.int64),
        ),
        connector_intervals=part(inputs.connector_intervals, connectors, fleet.size),
        meter_intervals=part(inputs.meter_intervals, meters, references.size),
        sessions=replace(
            inputs.sessions,
            **{f.name: getattr(inputs.sessions, f.name)[:0] for f in fields(inputs.sessions)},
        ),
        anchors=replace(
            inputs.anchors,
            **{f.name: getattr(inputs.anchors, f.name)[:0] for f in fields(inputs.anchors)},
        ),
    )


@dataclass(frozen=True, kw_only=True)
class _InWindow:
    """A connector's successive slots and by how much each is in a window; shape (t,)."""

    first_slot: int
    energy_wh: Floats
    grade: Floats


def _in_window(inputs: RunInputs, one: Conditional, *, utc_offset_s: float) -> _InWindow | None:
    intervals = inputs.connector_intervals
    rows = np.flatnonzero(intervals.instrument == one.connector)
    if rows.size == 0:
        return None
    slots = intervals.slot[rows]
    first, last = int(slots.min()), int(slots.max())
    energy = np.zeros(last - first + 1)
    energy[slots - first] = intervals.energy_wh[rows]
    rated = np.nan_to_num(inputs.fleet.rated_power_w[[one.connector]], nan=0.0)
    begin_s = first * float(SLOT_S) + utc_offset_s
    none = np.zeros((1, 1))
    active = active_slots(energy[None, :, None], rated[None], light=none, begin_s=begin_s)
    grade = np.zeros(energy.size)
    grade[active.slot] = one.window.grade[active.bins[one.window.family]]
    return _InWindow(first_slot=first, energy_wh=energy, grade=grade)


def corrected(inputs: RunInputs, found: Sequence[Conditional], *, utc_offset_s: float) -> RunInputs:
    """Return the inputs with the connectors' intervals as if each erred always as on average.

    Equation: with d the difference of ln(1 + error), energies in the window times c exp(-d),
    outside times c, c = `Conditional.level`; their sum stays.
    """
    intervals = inputs.connector_intervals
    energy = intervals.energy_wh.copy()
    for one in found:
        window = _in_window(inputs, one, utc_offset_s=utc_offset_s)
        if window is None:
            continue
        rows = np.flatnonzero(intervals.instrument == one.connector)
        grade = window.grade[intervals.slot[rows] - window.first_slot]
        energy[rows] *= one.level * np.exp(-one.difference * grade)
    return replace(inputs, connector_intervals=replace(intervals, energy_wh=energy))


def _with_sessions(
    city: CityStatistics,
    part: RunInputs,
    connectors: Ints,
    found: Sequence[Conditional],
    *,
    utc_offset_s: float,
) -> CityStatistics:
    """Return the city with sessions of connectors found as if these erred always as on average.

    How much of a session's energy was in the window is seen from the slots of the charging that
    ends with it. Sessions without slots stay as they are.

    Args:
        city: the statistics.
        part: intervals as told, connectors numbered as in the part.
        connectors: rows of the part's connectors in the city.
        found: numbered as in the part.
        utc_offset_s: local time less UTC.
    """
    log_ratio = city.sessions.log_ratio.copy()
    for one in found:
        window = _in_window(part, one, utc_offset_s=utc_offset_s)
        rows = np.flatnonzero(city.sessions.connector == connectors[one.connector])
        if window is None or rows.size == 0:
            continue
        idle = window.energy_wh <= 0
        # Where the charging that goes on in a slot began.
        begin = np.maximum.accumulate(np.where(idle, np.arange(idle.size) + 1, 0))
        end = np.floor(city.sessions.ended_s[rows] / SLOT_S).astype(np.int64) - window.first_slot
        known = (end >= 1) & (end < idle.size)
        # The last slot may hold nothing when the session ended as it began.
        last = np.clip(end, 1, idle.size - 1)
        last = np.where(idle[last], last - 1, last)
        total = np.concatenate([[0.0], np.cumsum(window.energy_wh)])
        even = window.energy_wh * np.exp(-one.difference * window.grade)
        true = np.concatenate([[0.0], np.cumsum(even)])
        whole = total[last + 1] - total[begin[last]]
        known &= whole > 0
        ratio = (true[last + 1] - true[begin[last]]) / np.where(known, whole, 1.0)
        moved = np.log(one.level * np.where(known, ratio, 1.0))
        log_ratio[rows] += np.where(known, moved, 0.0)
    return replace(city, sessions=replace(city.sessions, log_ratio=log_ratio))


def with_wider_anchors(inputs: RunInputs, found: Sequence[Conditional]) -> RunInputs:
    """Return the inputs with verifications of connectors found as vague as their situation is wide.

    Nobody knows which situation a verification was made in: with w the window's share of the
    energy it may be off by the difference times w, or times 1 - w.
    """
    wide = np.zeros(inputs.fleet.size)
    for one in found:
        away = abs(one.difference) * max(one.energy_share, 1.0 - one.energy_share)
        wide[one.connector] = max(wide[one.connector], away)
    anchors = inputs.anchors
    u = np.hypot(anchors.standard_uncertainty, wide[anchors.connector])
    return replace(inputs, anchors=replace(anchors, standard_uncertainty=u))


def _spliced(
    city: CityStatistics, part: CityStatistics, meters: Ints, connectors: Ints, touched: Ints
) -> CityStatistics:
    """Return the city's statistics with the feeders of touched connectors put in their place.

    Args:
        city: of n connectors and m meters.
        part: of some of them, as `part_of` numbers them.
        meters: rows of the part's meters in the city.
        connectors: likewise of its connectors.
        touched: connectors whose feeders are put in, numbered as in the part.
    """
    feeders = [
        FeederStatistics(**{k: v.copy() for k, v in vars(one).items()}) for one in city.feeders
    ]
    place = {group.size: number for number, group in enumerate(city.layout.groups)}
    metered, precision = city.metered.copy(), city.metered_precision.copy()
    columns = np.searchsorted(city.days, part.days)
    here = columns < city.days.size
    here[here] &= city.days[columns[here]] == part.days[here]
    for group, feeder in zip(part.layout.groups, part.feeders, strict=True):
        mine = np.flatnonzero(np.isin(group.member, touched).any(axis=1))
        rows = city.layout.meter_row[meters[group.meter[mine]]]
        for name, values in vars(feeder).items():
            vars(feeders[place[group.size]])[name][rows] = values[mine]
        own = group.member[mine]
        own = own[own >= 0]
        # What an in-series meter says of a connector stays.
        own = own[city.direct_rows[connectors[own]].sum(axis=1) == 0]
        to = np.ix_(connectors[own], columns[here])
        of = np.ix_(own, np.flatnonzero(here))
        metered[to], precision[to] = part.metered[of], part.metered_precision[of]
    return replace(city, feeders=tuple(feeders), metered=metered, metered_precision=precision)


def rebuilt(
    inputs: RunInputs,
    city: CityStatistics,
    *,
    history: History | None,
    mpe: Floats,
    config: EngineConfig,
) -> Rebuilt:
    """Return the statistics with the suspect feeders rebuilt, and the situations found.

    Args:
        inputs: of the run.
        city: the statistics as the days made them.
        history: gives the intervals of some feeders; None: no feeder is looked at again.
        mpe: shape (n,).
        config: numbers that steer the engine.
    """
    seen = screened(city, is_dc=inputs.fleet.is_dc, mpe=mpe)
    nothing = Rebuilt(statistics=city, conditional=(), unclosed=seen.unclosed)
    if history is None:
        return nothing
    offset = config.utc_offset_s
    sessions = travelled(city.sessions, connectors=mpe.size)
    odd = suspects_by_sessions(sessions, inputs.fleet, utc_offset_s=offset)
    meters, connectors = _suspects(city, seen, odd)
    if connectors.size == 0:
        return nothing
    from_s = (np.floor(inputs.as_of_s / DAY_S) - HISTORY_DAYS) * DAY_S
    part = history(meters, connectors, float(from_s))
    lone = ~np.isin(meters_above(city.layout)[connectors], meters)
    vehicles = told_by_sessions(
        sessions, part, connectors, mpe=mpe[connectors], lone=lone, utc_offset_s=offset
    )
    beside = all_conditional_errors(part, vehicles.told, mpe=mpe[connectors], utc_offset_s=offset)
    found = [*beside, *vehicles.lone]
    if not found:
        return nothing
    if beside:
        city = _with_feeders(city, part, meters, connectors, beside, config=config)
    return Rebuilt(
        statistics=_with_sessions(city, part, connectors, found, utc_offset_s=offset),
        conditional=tuple(replace(one, connector=int(connectors[one.connector])) for one in found),
        unclosed=seen.unclosed,
    )


def _suspects(city: CityStatistics, seen: Screened, odd: Floats) -> tuple[Ints, Ints]:
    """Return the meters and connectors that are looked at again, rows in ascending order.

    Args:
        city: the statistics.
        seen: what feeders' sums say.
        odd: what sessions say of each connector, 0 for nothing, (n,).
    """
    above = meters_above(city.layout)
    under = above >= 0
    suspicion = (seen.suspicion / LEAST_Z) ** 2
    np.maximum.at(suspicion, above[under], odd[under] / LEAST_EXCESS)
    suspects = np.flatnonzero(suspicion > 1.0)
    order = np.argsort(-suspicion[suspects], kind="stable")
    meters = np.sort(suspects[order][:MOST_REBUILT])
    alone = np.flatnonzero((odd > 0) & ~under)
    alone = alone[np.argsort(-odd[alone], kind="stable")][:MOST_LONE]
    below = np.flatnonzero(np.isin(above, meters) & under)
    return meters, np.sort(np.concatenate([below, alone]))


def _with_feeders(
    city: CityStatistics,
    part: RunInputs,
    meters: Ints,
    connectors: Ints,
    found: Sequence[Conditional],
    *,
    config: EngineConfig,
) -> CityStatistics:
    """Return the city with the feeders of what was found made again from even intervals."""
    made = updated(corrected(part, found, utc_offset_s=config.utc_offset_s), config=config)
    touched = np.array([one.connector for one in found])
    return _spliced(city, made, meters, connectors, touched)
