"""What vehicles say of piles that err otherwise in a situation.

Each session has a part of its energy in every bin of `situations`, and its ln(E / B) is off by that
part of what the meter errs by otherwise there. Vehicles are judged at other connectors, so the
energies of a connector's own sessions can't hide it. No robust weight touches the sessions: only
those are left out that no meter's error could explain.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from chargewatch.domain.arrays import Bools, Floats, Ints, sum_by_row
from chargewatch.domain.times import DAY_S, SLOT_S
from chargewatch.risk.parallel import in_threads
from chargewatch.risk.priors import (
    CABLE_LOSS,
    INTERVAL_TAIL_DEGREES,
    SESSION_GAIN_U,
    SESSION_SPREAD_START,
    SESSION_U_AC,
    SESSION_U_DC,
    UNKNOWN_POWER_W,
    VEHICLE_START,
)
from chargewatch.risk.run_inputs import Fleet, RunInputs
from chargewatch.risk.situation_odds import (
    LEAST_LOG_ODDS,
    Conditional,
    Differences,
    conditional,
    energy_shares,
    log_odds,
    nothing_told,
)
from chargewatch.risk.situations import (
    DURATION_EDGES_H,
    ENERGY_EDGES_WH,
    FAMILY_OF,
    FIRST,
    IN_WINDOW,
    LIGHT,
    LOAD_EDGES,
    SIZE,
    THURSDAY,
    active_slots,
)
from chargewatch.risk.vehicles import PAIR_KINDS, SessionRows

LEAST_SITUATION_SESSIONS = 8
LEAST_IN_WINDOW = 4.0
"""Sessions in a window, and outside of it, without which nothing is said."""
PASSES = 4
WIDEST = 0.3
"""Sessions off by more than this say nothing of a meter: a situation explains a fifth at most."""
LEAST_EXCESS = 20.0
"""By how much the squares between bins of a family must exceed what noise gives."""
LEAST_SESSION_SHARE = 0.5
MOST_LONE = 1_000
"""Connectors that are looked at for their sessions in one run at most, the most suspect first."""
COARSE_HOURS = 8


@dataclass(frozen=True, kw_only=True)
class Travelled:
    """Sessions with what is known of their vehicles and connectors, roughly; v nodes."""

    rows: SessionRows
    node: Ints  # (s,), vehicle and kind
    own: Floats  # (s,), ln(E / B) less the cable's loss and the mean of its kind
    variance: Floats  # (s,)
    weight: Floats  # (s,), 0 for what no meter's error explains
    error: Floats  # (n,), ln(1 + error)
    node_weight: Floats  # (v,)
    node_score: Floats  # (v,), sum of weight x (own - error)
    node_precision: Floats  # (v,), of a vehicle's scale before any session

    @property
    def residual(self) -> Floats:
        """Return what is left of each session, (s,)."""
        scale = self.node_score / (self.node_weight + self.node_precision)
        return np.asarray(self.own - self.error[self.rows.connector] - scale[self.node])


def travelled(rows: SessionRows, *, connectors: int) -> Travelled:
    """Return sessions with vehicles' scales and connectors' errors, by a few rounds in turn."""
    # Vehicles are keys of 59 bits: of a run's own numbers there are as many as vehicles.
    known, number = np.unique(rows.vehicle, return_inverse=True)
    size = max(known.size, 1)
    node = rows.kind * size + number.reshape(-1)
    nodes = PAIR_KINDS * size
    precision = np.repeat(VEHICLE_START**-2.0, size)
    variance = SESSION_SPREAD_START[rows.kind] ** 2 * rows.looseness + rows.soc_variance
    own = rows.log_ratio - CABLE_LOSS.mean * rows.load
    weight, error = 1.0 / variance, np.zeros(connectors)
    scale, kinds = np.zeros(nodes), np.zeros(PAIR_KINDS)
    centred = own
    for _ in range(PASSES):
        left = own - error[rows.connector] - scale[node]
        total = sum_by_row(rows.kind, weight, size=PAIR_KINDS)
        kinds = sum_by_row(rows.kind, weight * left, size=PAIR_KINDS) / np.where(
            total > 0, total, 1.0
        )
        centred = own - kinds[rows.kind]
        weights = sum_by_row(node, weight, size=nodes)
        scores = sum_by_row(node, weight * (centred - error[rows.connector]), size=nodes)
        scale = scores / (weights + precision)
        total = sum_by_row(rows.connector, weight, size=connectors)
        error = sum_by_row(rows.connector, weight * (centred - scale[node]), size=connectors)
        error = error / (total + SESSION_GAIN_U**-2.0)
        residual = centred - error[rows.connector] - scale[node]
        # Of a battery whose capacity nobody told the first sessions seem far off.
        weight = np.where(np.abs(residual) < WIDEST, 1.0 / variance, 0.0)
    return Travelled(
        rows=rows,
        node=node,
        own=centred,
        variance=variance,
        weight=weight,
        error=error,
        node_weight=sum_by_row(node, weight, size=nodes),
        node_score=sum_by_row(node, weight * (centred - error[rows.connector]), size=nodes),
        node_precision=precision,
    )


def _coarse_bins(rows: SessionRows, fleet: Fleet, *, utc_offset_s: float) -> list[tuple[Ints, int]]:
    """Return each session's bin and their number in every family, from its beginning and energy."""
    rated = np.nan_to_num(fleet.rated_power_w, nan=UNKNOWN_POWER_W)[rows.connector]
    middle = (rows.started_s + 0.5 * rows.charge_s + utc_offset_s).astype(np.int64)
    charge_h = np.maximum(rows.charge_s, 60.0) / 3600.0
    load = rows.energy_wh / charge_h / rated
    return [
        (middle % DAY_S * COARSE_HOURS // DAY_S, COARSE_HOURS),
        (((middle // DAY_S + THURSDAY) % 7 >= 5).astype(np.int64), 2),
        (np.searchsorted(LOAD_EDGES, load), len(LOAD_EDGES) + 1),
        (np.searchsorted(ENERGY_EDGES_WH, rows.energy_wh), len(ENERGY_EDGES_WH) + 1),
        (np.searchsorted(DURATION_EDGES_H, charge_h), len(DURATION_EDGES_H) + 1),
    ]


def suspects_by_sessions(city: Travelled, fleet: Fleet, *, utc_offset_s: float) -> Floats:
    """Return by how much sessions' scatter between situations exceeds noise, 0 for most, (n,).

    Equation: over the bins of a family sum S^2 / I - (sum S)^2 / sum I, S and I the sums of score
    and information; less the number of bins it is at most what any window of them explains.
    """
    rows, n = city.rows, fleet.size
    residual = city.residual
    score = city.weight * residual
    count = sum_by_row(rows.connector, (city.weight > 0).astype(np.float64), size=n)
    squared = sum_by_row(rows.connector, score * residual, size=n)
    # What all situations have in common, such as vehicles that tell little, is none.
    usual = np.maximum(squared / np.maximum(count, 1.0), 1.0)
    found = np.zeros(n)
    for bins, size in _coarse_bins(rows, fleet, utc_offset_s=utc_offset_s):
        place = rows.connector * size + bins
        s = sum_by_row(place, score, size=n * size).reshape(n, size)
        i = sum_by_row(place, city.weight, size=n * size).reshape(n, size)
        between = (s**2 / np.where(i > 0, i, 1.0)).sum(axis=1)
        total = i.sum(axis=1)
        between -= s.sum(axis=1) ** 2 / np.where(total > 0, total, 1.0)
        found = np.maximum(found, between / np.sqrt(usual) - size)
    return np.where((count >= LEAST_SITUATION_SESSIONS) & (found > LEAST_EXCESS), found, 0.0)


@dataclass(frozen=True, kw_only=True)
class _Own:
    """One connector's sessions, its vehicles judged elsewhere; k sessions."""

    value: Floats  # (k,)
    variance: Floats  # (k,)
    vehicle: Ints  # (k,), 0, 1, ...
    vehicle_variance: Floats  # by vehicle
    shares: Floats  # (k, SIZE), of a session's energy in every bin
    days: Ints  # (k,)
    energy: Floats  # (SIZE,), of the connector


def _own_sessions(
    city: Travelled, part: RunInputs, row: int, mine: Ints, *, utc_offset_s: float
) -> _Own | None:
    """Return a connector's sessions that its slots are known of; None when there are too few.

    Args:
        city: all sessions.
        part: holds the connector's slots.
        row: of the connector in the part.
        mine: its sessions' rows in the city, usable ones only.
        utc_offset_s: local time less UTC.
    """
    told = part.connector_intervals
    here = slice(*np.searchsorted(told.instrument, [row, row + 1]))
    slots, energy = told.slot[here], told.energy_wh[here]
    if slots.size == 0 or mine.size < LEAST_SITUATION_SESSIONS:
        return None
    dense = np.zeros(int(slots[-1] - slots[0]) + 1)
    dense[slots - slots[0]] = energy
    rated = np.nan_to_num(part.fleet.rated_power_w[[row]], nan=0.0)
    active = active_slots(
        dense[None, :, None],
        rated[None],
        light=np.zeros((1, 1)),
        begin_s=float(slots[0]) * SLOT_S + utc_offset_s,
    )
    mine = mine[np.argsort(city.rows.ended_s[mine], kind="stable")]
    middle = (active.slot + slots[0] + 0.5) * SLOT_S
    # The first session that ends after a slot's middle, or in it.
    session = np.searchsorted(city.rows.ended_s[mine], middle - 0.5 * SLOT_S, side="right")
    session = np.minimum(session, mine.size - 1)
    begins = city.rows.started_s[mine][session]
    within = (begins < middle + 0.5 * SLOT_S) & (
        city.rows.ended_s[mine][session] > middle - 0.5 * SLOT_S
    )
    shares = np.zeros((mine.size, SIZE))
    for bins in active.bins[:LIGHT]:
        place = session[within] * SIZE + bins[within]
        shares += sum_by_row(place, active.energy_wh[within], size=shares.size).reshape(-1, SIZE)
    total = shares[:, FIRST[0] : FIRST[1]].sum(axis=1)
    good = total > LEAST_SESSION_SHARE * city.rows.energy_wh[mine]
    if np.count_nonzero(good) < LEAST_SITUATION_SESSIONS:
        return None
    mine, shares = mine[good], shares[good] / total[good][:, None]
    return _judged_elsewhere(city, mine, shares, _energy_by_bin(active.bins, active.energy_wh))


def _energy_by_bin(bins: Ints, energy: Floats) -> Floats:
    out = np.zeros(SIZE)
    for family in bins:
        out += sum_by_row(family, energy, size=SIZE)
    return out


def _judged_elsewhere(city: Travelled, mine: Ints, shares: Floats, energy: Floats) -> _Own:
    connector = int(city.rows.connector[mine[0]])
    nodes, vehicle = np.unique(city.node[mine], return_inverse=True)
    weight = city.weight[mine]
    own_weight = sum_by_row(vehicle, weight, size=nodes.size)
    own_score = sum_by_row(
        vehicle, weight * (city.own[mine] - city.error[connector]), size=nodes.size
    )
    precision = np.maximum(city.node_weight[nodes] - own_weight, 0.0) + city.node_precision[nodes]
    scale = (city.node_score[nodes] - own_score) / precision
    return _Own(
        value=city.own[mine] - scale[vehicle],
        variance=city.variance[mine],
        vehicle=vehicle,
        vehicle_variance=1.0 / precision,
        shares=shares,
        days=(city.rows.ended_s[mine] // DAY_S).astype(np.int64),
        energy=energy,
    )


@dataclass(frozen=True, kw_only=True)
class _Regressed:
    """What a connector's sessions say of every window, shape (w,)."""

    difference: Floats
    u: Floats
    intercept: Floats


def _regressed(own: _Own, weight: Floats) -> _Regressed:
    """Regress sessions on their parts in each window, one at a time, with vehicles' scales.

    Equation: with W the weights and V a vehicle's variance, C^-1 = W - W 1 1' W / (1 / V + sum W)
    by vehicle; the scatter that is left stretches u when it is above what is expected.
    """
    pull = 1.0 / (
        1.0 / own.vehicle_variance + sum_by_row(own.vehicle, weight, size=len(own.vehicle_variance))
    )
    x = np.concatenate(
        [np.ones((weight.size, 1)), own.value[:, None], own.shares @ IN_WINDOW.T], axis=1
    )
    weighted = weight[:, None] * x
    by_vehicle = np.zeros((own.vehicle_variance.size, x.shape[1]))
    np.add.at(by_vehicle, own.vehicle, weighted)
    ones = by_vehicle[:, 0] * pull
    first = weighted.sum(axis=0) - ones @ by_vehicle  # products with 1
    value = weighted[:, 1] @ x - (by_vehicle[:, 1] * pull) @ by_vehicle  # with the values
    squares = (weighted * x).sum(axis=0) - (pull[:, None] * by_vehicle**2).sum(axis=0)
    middle = max(float(first[0]), 1e-12)
    information = np.maximum(squares - first**2 / middle, 0.0)[2:]
    score = (value - first * first[1] / middle)[2:]
    left = float(value[1] - first[1] ** 2 / middle)
    known = information > 1e-6 * middle
    safe = np.where(known, information, 1.0)
    count = float((weight > 0).sum())
    scatter = (left - score**2 / safe) / max(count - 2.0, 1.0)
    difference = np.where(known, score / safe, 0.0)
    u = np.where(known, np.sqrt(np.maximum(scatter, 1.0) / safe), np.inf)
    return _Regressed(
        difference=difference,
        u=u,
        intercept=(first[1] - first[2:] * difference) / middle,
    )


def _usable(own: _Own) -> Bools:
    """Return the sessions that a meter's error could explain, and windows with enough of them."""
    return np.asarray(np.abs(own.value - np.median(own.value)) < WIDEST)


def _told(own: _Own, *, is_dc: bool) -> tuple[Differences, Bools, Bools]:
    """Return what sessions say of each window (w,), which may be told, and the sessions used."""
    used = _usable(own)
    found = _regressed(own, np.where(used, 1.0 / own.variance, 0.0))
    part = own.shares[used] @ IN_WINDOW.T
    fair = part.sum(axis=0) >= LEAST_IN_WINDOW
    fair &= (1.0 - part).sum(axis=0) >= LEAST_IN_WINDOW
    floor = np.array(SESSION_U_DC if is_dc else SESSION_U_AC)[FAMILY_OF]
    u = np.where(fair, np.hypot(found.u, floor), np.inf)
    return Differences(difference=found.difference, u=u), fair, used


def _lasting(own: _Own, w: int, told: Differences, used: Bools) -> bool:
    """Return whether a window's difference stands when robust weights are used beside it."""
    weight = np.where(used, 1.0 / own.variance, 0.0)
    part = own.shares @ IN_WINDOW[w]
    spread = own.variance + own.vehicle_variance[own.vehicle]
    for _ in range(PASSES):
        found = _regressed(own, weight)
        away = own.value - found.intercept[w] - found.difference[w] * part
        student = (INTERVAL_TAIL_DEGREES + 1.0) / (INTERVAL_TAIL_DEGREES + away**2 / spread)
        weight = np.where(used, student / own.variance, 0.0)
    return bool(abs(found.difference[w]) > 0.5 * abs(float(told.difference)))


@dataclass(frozen=True, kw_only=True)
class BySessions:
    """What sessions say of a part's connectors: beside their feeder, and alone."""

    told: Differences  # (n, windows)
    lone: tuple[Conditional, ...]  # of connectors under no feeder


def told_by_sessions(
    city: Travelled,
    part: RunInputs,
    connectors: Ints,
    *,
    mpe: Floats,
    lone: Bools,
    utc_offset_s: float,
) -> BySessions:
    """Return what sessions say of some connectors' situations.

    Args:
        city: all sessions.
        part: the connectors' slots, numbered as in `connectors`.
        connectors: rows of the part's connectors in the city.
        mpe: of the part's connectors, (n,).
        lone: those that no feeder tells of, (n,).
        utc_offset_s: local time less UTC.
    """
    place = np.full(int(city.error.size), -1, dtype=np.int64)
    place[connectors] = np.arange(connectors.size)
    rows = np.flatnonzero((place[city.rows.connector] >= 0) & (city.weight > 0))
    rows = rows[np.argsort(place[city.rows.connector[rows]], kind="stable")]
    bounds = np.searchsorted(place[city.rows.connector[rows]], np.arange(connectors.size + 1))
    told = nothing_told(connectors.size)

    def look(row: int) -> Conditional | None:
        mine = rows[bounds[row] : bounds[row + 1]]
        own = _own_sessions(city, part, row, mine, utc_offset_s=utc_offset_s)
        if own is None:
            return None
        found, fair, used = _told(own, is_dc=bool(part.fleet.is_dc[row]))
        told.difference[row], told.u[row] = found.difference, found.u
        if not lone[row]:
            return None
        one = Differences(difference=found.difference[None], u=found.u[None])
        share = energy_shares(own.energy[None])
        odds = log_odds(one, mpe[[row]][:, None], energy_share=share, kept=fair[None])[0]
        w = int(np.argmax(odds))
        if odds[w] < LEAST_LOG_ODDS:
            return None
        this = Differences(difference=found.difference[w], u=found.u[w])
        if not _lasting(own, w, this, used):
            return None
        days = np.unique(own.days[(own.shares @ IN_WINDOW[w] > 0) & used]).size
        return conditional(row, w, this, float(odds[w]), energy=own.energy, days=days)

    found = in_threads(look, range(connectors.size))
    return BySessions(told=told, lone=tuple(one for one in found if one is not None))
