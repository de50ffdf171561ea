"""Evidence C: vehicles as travelling standards.

A session at connector i by vehicle v gives y = ln(E / B) = gamma_i + c_k + kappa L + c_v + n with
gamma_i = ln(1 + eps_i), E the energy the connector indicates and B the energy the battery saw.
kappa is what the cable after the meter loses at full load, one for AC and one for DC; L the load,
0 where the meter compensates the cable. There are three kinds of B, and a vehicle has a scale of
its own for each and for AC and DC, because an on-board charger stands between connector and
battery only on AC:

0, 3: the battery management system's integral; 1, 4: dSOC x stated capacity; 2, 5: dSOC alone
(then c_v holds the capacity); the first of each pair on AC, the second on DC.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.special import gammaln

from chargewatch.domain.arrays import Bools, Floats, Ints, sum_by_row, sums_between
from chargewatch.domain.times import DAY_S, SLOT_S, SLOTS_A_DAY
from chargewatch.risk.parallel import in_threads
from chargewatch.risk.priors import (
    CABLE_LOSS,
    FULL_LOOSENESS,
    GARBAGE_SHARE,
    GARBAGE_SPREAD,
    INTERRUPTED_LOOSENESS,
    KIND_MEAN,
    SESSION_TAIL_DEGREES,
    SHORT_LOOSENESS,
    SOC_RESOLUTION,
    UNKNOWN_CAPACITY_WH,
    UNKNOWN_POWER_W,
    UNKNOWN_STEP_WH,
)
from chargewatch.risk.run_inputs import FinishedSessions, Fleet, Intervals

PAIR_KINDS = 6
SIDES = 2
"""AC and DC; side of a kind: kind // 3."""
LEVELS = PAIR_KINDS + SIDES
"""What all sessions share: c_k by kind, then kappa by side."""
LEVEL_MEAN = np.array([KIND_MEAN.mean] * PAIR_KINDS + [CABLE_LOSS.mean] * SIDES)
LEVEL_PRECISION = np.array([KIND_MEAN.u**-2.0] * PAIR_KINDS + [CABLE_LOSS.u**-2.0] * SIDES)
"""The kinds have next to no prior, but one without sessions must not divide."""
LARGEST_LOAD = 1.2
NEAR_SESSIONS = 5
"""Sessions from which the error at a time is guessed to judge those of a connector that changed."""
PAIR_SAMPLE = 100_000
IMPLAUSIBLE = 1.0
"""Sessions with |y| above this (a factor 2.7) say nothing of an error; they raise a signal."""


@dataclass(frozen=True, kw_only=True)
class SessionRows:
    """Sessions that carry evidence C; shape (s,)."""

    connector: Ints
    vehicle: Ints
    kind: Ints
    ended_s: Floats
    log_ratio: Floats
    soc_variance: Floats  # from the resolution of SOC and register, fraction^2
    looseness: Floats  # factor >= 1 on the variance: interrupted, short, nearly full
    load: Floats  # fraction of rated power in the cable after the meter; 0 when compensated
    started_s: Floats
    charge_s: Floats  # how long it took at the power that it had for most of its energy
    energy_wh: Floats

    @property
    def side(self) -> Ints:
        """0 on AC, 1 on DC."""
        return self.kind // 3


def session_loads(sessions: FinishedSessions, fleet: Fleet, intervals: Intervals) -> Floats:
    """Return each session's load, weighted by energy, as a fraction of rated power, shape (s,).

    A cable loses in proportion to the square of the current, so of the session's energy in
    proportion to L = sum P^2 dt / sum P dt / rated power. Neither the mean power nor the same sums
    over the session's 15-minute slots can be above that; the larger one counts. The mean power is
    the better one of short sessions, the slots of vehicles that stay plugged in when they are full.

    Args:
        sessions: shape (s,).
        fleet: rated powers.
        intervals: of connectors, sorted by (instrument, slot); those that are given count.
    """
    rated = np.nan_to_num(fleet.rated_power_w, nan=UNKNOWN_POWER_W)[sessions.connector]
    slot_h = SLOT_S / 3600.0
    first = np.floor(sessions.started_s / SLOT_S).astype(np.int64)
    # Slots of the day it ended on: what came of it before may not be at hand.
    day = np.ceil(sessions.ended_s / DAY_S).astype(np.int64) - 1
    first = np.maximum(first, day * SLOTS_A_DAY)
    last = np.ceil(sessions.ended_s / SLOT_S).astype(np.int64) - 1
    base = min(int(intervals.slot.min(initial=2**40)), int(first.min(initial=2**40)))
    width = max(int(intervals.slot.max(initial=0)), int(last.max(initial=0))) - base + 2
    key = intervals.instrument * width + intervals.slot - base
    energy = np.maximum(intervals.energy_wh, 0.0)
    begin = np.searchsorted(key, sessions.connector * width + first - base)
    end = np.searchsorted(key, sessions.connector * width + last - base, side="right")
    total, squared = sums_between(energy, begin, end), sums_between(energy**2, begin, end)
    hours = np.maximum(sessions.ended_s - sessions.started_s, 60.0) / 3600.0
    power = np.divide(squared, total * slot_h, out=np.zeros_like(total), where=total > 0)
    # Slots that hold other energy than the session's say nothing of its power.
    power = np.where(total > 1.5 * sessions.energy_wh, 0.0, power)
    power = np.maximum(power, sessions.energy_wh / hours)
    return np.asarray(np.clip(power / rated, 0.0, LARGEST_LOAD))


def session_rows(sessions: FinishedSessions, fleet: Fleet, *, intervals: Intervals) -> SessionRows:
    """Return the sessions whose vehicle and battery energy are known; intervals tell their load."""
    energy = sessions.energy_wh
    dsoc = (sessions.soc_stop_pct - sessions.soc_start_pct) / 100.0
    bms, capacity = sessions.bms_energy_wh, sessions.battery_capacity_wh
    with np.errstate(divide="ignore", invalid="ignore"):
        has_bms = bms > 0
        has_capacity = ~has_bms & (capacity > 0) & (dsoc >= 0.05)
        only_soc = ~has_bms & ~has_capacity & (dsoc >= 0.05)
        told = np.where(has_capacity, capacity, UNKNOWN_CAPACITY_WH)
        battery = np.where(has_bms, bms, dsoc * told)
        y = np.log(energy / battery)
        kind = (
            np.where(has_bms, 0, np.where(has_capacity, 1, 2)) + 3 * fleet.is_dc[sessions.connector]
        )
        soc = np.where(has_bms, 0.0, SOC_RESOLUTION**2 / 6.0 / dsoc**2)
        resolution = np.nan_to_num(fleet.resolution_wh[sessions.connector], nan=UNKNOWN_STEP_WH)
        soc = soc + resolution**2 / 6.0 / energy**2
    loose = np.where(sessions.interrupted, INTERRUPTED_LOOSENESS, 1.0)
    loose = np.where(dsoc < 0.15, SHORT_LOOSENESS * loose, loose)
    loose = np.where(sessions.soc_stop_pct > 97.0, FULL_LOOSENESS * loose, loose)
    usable = (has_bms | has_capacity | only_soc) & (sessions.vehicle >= 0) & (energy > 500.0)
    usable &= np.isfinite(y)
    usable[usable] &= np.where(kind[usable] % 3 == 2, 3.0, IMPLAUSIBLE) > np.abs(y[usable])
    load = session_loads(sessions, fleet, intervals)
    rated = np.nan_to_num(fleet.rated_power_w, nan=UNKNOWN_POWER_W)[sessions.connector]
    charge_s = np.minimum(
        3600.0 * energy / np.maximum(load * rated, 1.0), sessions.ended_s - sessions.started_s
    )
    load = np.where(fleet.cable_loss_compensated[sessions.connector], 0.0, load)
    return SessionRows(
        connector=sessions.connector[usable],
        vehicle=sessions.vehicle[usable],
        kind=kind[usable],
        ended_s=sessions.ended_s[usable],
        log_ratio=y[usable],
        soc_variance=soc[usable],
        looseness=loose[usable],
        load=load[usable],
        started_s=sessions.started_s[usable],
        charge_s=charge_s[usable],
        energy_wh=energy[usable],
    )


def joined(first: SessionRows, second: SessionRows) -> SessionRows:
    """Return the rows of both."""
    return SessionRows(**{k: np.concatenate([v, vars(second)[k]]) for k, v in vars(first).items()})


def chosen(rows: SessionRows, mask: Ints | Bools) -> SessionRows:
    """Return the rows of a mask or index."""
    if mask.dtype == np.bool_ and mask.all():
        return rows
    return SessionRows(**{k: v[mask] for k, v in vars(rows).items()})


@dataclass(frozen=True, kw_only=True)
class SessionPairs:
    """Which connectors and nodes share sessions, whatever their weights; p pairs.

    Compressed rows (by connector, then node) and columns of the matrix of weights.
    """

    connector: Ints  # (s,)
    node: Ints  # (s,)
    pair: Ints  # (s,), the session's pair
    row_begin: NDArray[np.int32]  # (n + 1,)
    row_node: NDArray[np.int32]  # (p,)
    node_begin: NDArray[np.int32]  # (v + 1,)
    node_row: NDArray[np.int32]  # (p,)
    by_node: NDArray[np.int32]  # (p,), the pairs in the order of their nodes

    @property
    def shape(self) -> tuple[int, int]:
        """Number of connectors n and of nodes v."""
        return self.row_begin.size - 1, self.node_begin.size - 1

    def rows(self, values: Floats) -> sparse.csr_array:
        """Return the matrix (n, v) of the pairs' values."""
        return sparse.csr_array((values, self.row_node, self.row_begin), shape=self.shape)

    def columns(self, values: Floats) -> sparse.csr_array:
        """Return the matrix (v, n) of the pairs' values."""
        ordered = values[self.by_node]
        return sparse.csr_array((ordered, self.node_row, self.node_begin), shape=self.shape[::-1])


def session_pairs(connector: Ints, node: Ints, *, connectors: int, nodes: int) -> SessionPairs:
    """Return the pairs of sessions (s,) between n connectors and v nodes."""
    keys, pair = np.unique(connector * nodes + node, return_inverse=True)
    row, column = np.divmod(keys, max(nodes, 1))
    begin = np.zeros(connectors + 1, dtype=np.int32)
    np.cumsum(np.bincount(row, minlength=connectors), out=begin[1:])
    places = np.arange(keys.size, dtype=np.int32)
    shape = (connectors, nodes)
    by_node = sparse.csr_array((places, column.astype(np.int32), begin), shape=shape).tocsc()
    return SessionPairs(
        connector=connector,
        node=node,
        pair=pair,
        row_begin=begin,
        row_node=column.astype(np.int32),
        node_begin=by_node.indptr,
        node_row=by_node.indices,
        by_node=by_node.data,
    )


@dataclass(frozen=True, kw_only=True)
class VehicleGraph:
    """Weighted sessions with the vehicles to be eliminated; v nodes (vehicle, kind)."""

    pairs: SessionPairs
    weights: sparse.csr_array  # (n, v), sum of precisions of the sessions of a pair
    weights_t: sparse.csr_array  # (v, n)
    pull: Floats  # (v,), 1 / (sum of weights + 1 / sigma_c^2)
    vehicle_sd: Floats  # (v,), sigma_c
    weight: Floats  # (v,), sum of weights
    kind: Ints  # (v,), ascending
    connector_weight: Floats  # (n,), sum of weights
    own: Floats  # (n,), diagonal of the Schur complement
    score: Floats  # (n,), right-hand side of the Schur complement
    connector_score: Floats  # (n,), sum of weight x y
    level_score: Floats  # (LEVELS,)
    node_mean: Floats  # (v,), sum of weight x y
    node_load: Floats  # (v,), sum of weight x L
    connector_load: Floats  # (n, SIDES), sum of weight x L
    load_squared: Floats  # (SIDES,), sum of weight x L^2

    @property
    def nodes(self) -> int:
        """Number of nodes v."""
        return self.kind.size

    @property
    def mean_load(self) -> Floats:
        """Mean load of each connector's sessions, 0 without any, shape (n,)."""
        weight = np.where(self.connector_weight > 0, self.connector_weight, 1.0)
        return np.asarray(self.connector_load.sum(axis=1) / weight)


def vehicle_graph(
    pairs: SessionPairs,
    *,
    node_kind: Ints,
    log_ratio: Floats,
    load: Floats,
    precision: Floats,
    vehicle_precision: Floats,
) -> VehicleGraph:
    """Return the graph of sessions.

    Args:
        pairs: connector and node of each session.
        node_kind: shape (v,), ascending.
        log_ratio: y, shape (s,).
        load: L, shape (s,).
        precision: 1 / variance of n, shape (s,).
        vehicle_precision: 1 / sigma_c^2, shape (v,).

    Equation: eliminating c_v from sum w (y - gamma_i - c_k - kappa L - c_v)^2 + c_v^2 / sigma_c^2
    leaves S = diag(sum w) - W D^-1 W^T with D_v = sum_s w + 1 / sigma_c^2.
    """
    connectors, nodes = pairs.shape
    data = sum_by_row(pairs.pair, precision, size=pairs.row_node.size)
    weights = pairs.rows(data)
    weight = sum_by_row(pairs.node, precision, size=nodes)
    pull = 1.0 / (weight + vehicle_precision)
    scores = precision * log_ratio
    mean = sum_by_row(pairs.node, scores, size=nodes)
    connector_weight = sum_by_row(pairs.connector, precision, size=connectors)
    loads = precision * load
    node_load = sum_by_row(pairs.node, loads, size=nodes)
    side = node_kind[pairs.node] // 3
    connector_load = sum_by_row(
        pairs.connector * SIDES + side, loads, size=connectors * SIDES
    ).reshape(connectors, SIDES)
    # What is left of a vehicle's pull on the level of its kind: t (1 - w / D); on kappa likewise.
    kind_score = sum_by_row(node_kind, mean * (1.0 - weight * pull), size=PAIR_KINDS)
    load_score = sum_by_row(side, precision * load * log_ratio, size=SIDES)
    load_score = load_score - sum_by_row(node_kind // 3, node_load * pull * mean, size=SIDES)
    connector_score = sum_by_row(pairs.connector, scores, size=connectors)
    return VehicleGraph(
        pairs=pairs,
        weights=weights,
        weights_t=pairs.columns(data),
        pull=pull,
        vehicle_sd=1.0 / np.sqrt(vehicle_precision),
        weight=weight,
        kind=node_kind,
        connector_weight=connector_weight,
        own=connector_weight - pairs.rows(data**2) @ pull,
        score=connector_score - weights @ (pull * mean),
        connector_score=connector_score,
        level_score=np.concatenate([kind_score, load_score]),
        node_mean=mean,
        node_load=node_load,
        connector_load=connector_load,
        load_squared=sum_by_row(side, precision * load**2, size=SIDES),
    )


def error_product(graph: VehicleGraph, error: Floats) -> Floats:
    """Return the Schur complement times gamma, shape (n, r); it is never formed."""
    total = graph.weights_t @ error
    total *= graph.pull[:, None]
    out = graph.connector_weight[:, None] * error
    out -= graph.weights @ total
    return out


def session_coupling(graph: VehicleGraph) -> tuple[Floats, Floats]:
    """Return what couples gamma with c_k and kappa, (n, LEVELS), and them with another.

    Equation: with X_v the sum of w x of a vehicle's sessions, x = 1 of its kind for c_k and L of
    its side for kappa, W X / D is taken off their own sums.
    """
    each = np.zeros((graph.nodes, LEVELS))
    row = np.arange(graph.nodes)
    each[row, graph.kind] = graph.weight
    each[row, PAIR_KINDS + graph.kind // 3] = graph.node_load
    own = -(each.T @ (graph.pull[:, None] * each))
    for level in range(PAIR_KINDS):
        mine = graph.kind == level
        own[level, level] += graph.weight[mine].sum()
        load = graph.node_load[mine].sum()
        own[level, PAIR_KINDS + level // 3] += load
        own[PAIR_KINDS + level // 3, level] += load
    own[range(PAIR_KINDS, LEVELS), range(PAIR_KINDS, LEVELS)] += graph.load_squared
    coupling = np.asarray(
        graph.weights @ ((graph.kind[:, None] == range(LEVELS)) - graph.pull[:, None] * each)
    )
    coupling[:, PAIR_KINDS:] += graph.connector_load
    return coupling, own


def session_score(graph: VehicleGraph, error: Floats, *, level: Floats) -> Floats:
    """Return what sessions say of each connector, all others at the estimate, shape (n,).

    The score of gamma_i over its own information, `VehicleGraph.own`, is the estimate by its
    sessions alone.

    Args:
        graph: of sessions.
        error: gamma, shape (n,).
        level: c_k and kappa, shape (LEVELS,).
    """
    scale = vehicle_scales(graph, error, level=level)
    told = graph.connector_weight * error + graph.weights @ (level[graph.kind] + scale)
    told += (graph.connector_load * level[PAIR_KINDS:]).sum(axis=1)
    return np.asarray(graph.connector_score - told + graph.own * error)


def vehicle_scales(graph: VehicleGraph, error: Floats, *, level: Floats) -> Floats:
    """Return the conditional means of c_v given gamma (n,) and the levels (LEVELS,), shape (v,)."""
    fitted = graph.weights_t @ error + graph.weight * level[graph.kind]
    fitted = fitted + graph.node_load * level[PAIR_KINDS + graph.kind // 3]
    return np.asarray(graph.pull * (graph.node_mean - fitted))


def score_draws(graph: VehicleGraph, draws: Floats) -> Floats:
    """Return draws from N(0, S), shape (n, r), from standard normal ``draws`` (nnz + v, r).

    The noise of a pair's mean and of the vehicle's scale is drawn, then the score that such
    data would have; its covariance is the Schur complement.
    """
    pairs, root = graph.pairs, np.sqrt(graph.weights.data)
    n, v = pairs.shape
    count = root.size
    noise, scale = draws[:count], graph.vehicle_sd[:, None] * draws[count:]
    places = np.arange(count, dtype=np.int32)
    # sqrt(w) e is w times the noise of a mean with variance 1 / w.
    by_row = sparse.csr_array((root, places, pairs.row_begin), shape=(n, count))
    by_node = sparse.csr_array(
        (root[pairs.by_node], pairs.by_node, pairs.node_begin), shape=(v, count)
    )
    rows, total = in_threads(lambda matrix: matrix @ noise, [by_row, by_node])
    total += graph.weight[:, None] * scale
    total *= graph.pull[:, None]
    return np.asarray(rows + graph.weights @ (scale - total))


@dataclass(frozen=True)
class Tail:
    """How sessions of a kind scatter: Student's distribution and a share of garbage."""

    inverse_degrees: float
    """1 / nu of Student's distribution; towards 0 it is the normal one."""
    garbage: float


FIRST_TAIL = Tail(1.0 / SESSION_TAIL_DEGREES, GARBAGE_SHARE)


def log_student(squared: Floats, inverse_degrees: float) -> Floats:
    """Return ln of Student's density, less ln sqrt(2 pi), at squared values in units of its scale.

    Equation: with k = 1 / nu: ln G((nu + 1) / 2) - ln G(nu / 2) - ln(nu / 2) / 2 - (1 + nu) / 2
    ln(1 + k z^2).
    """
    nu = 1.0 / inverse_degrees
    level = gammaln(0.5 * (nu + 1.0)) - gammaln(0.5 * nu) - 0.5 * np.log(0.5 * nu)
    return np.asarray(level - 0.5 * (nu + 1.0) * np.log1p(inverse_degrees * squared))


def trusted(residual: Floats, variance: Floats, tail: Tail = FIRST_TAIL) -> Floats:
    """Return the probability that each session is no garbage, shape (s,).

    Garbage scatters by 40 % whatever the variance of the others.
    """
    squared, wide = residual**2, variance + GARBAGE_SPREAD**2
    odds = tail.garbage / (1.0 - tail.garbage) * np.sqrt(variance / wide)
    log = -0.5 * squared / wide - log_student(squared / variance, tail.inverse_degrees)
    return np.asarray(1.0 / (1.0 + odds * np.exp(np.minimum(log, 700.0))))


def student_weights(residual: Floats, variance: Floats, tail: Tail) -> Floats:
    """Return the weights of Student's distribution, shape (s,).

    Equation: (nu + 1) / (nu + r^2 / v) = (1 + k) / (1 + k r^2 / v), k = 1 / nu.
    """
    k = tail.inverse_degrees
    return np.asarray((1.0 + k) / (1.0 + k * residual**2 / variance))


def tail_weights(residual: Floats, variance: Floats, tail: Tail = FIRST_TAIL) -> Floats:
    """Return robust weights, shape (s,): Student's times `trusted`."""
    return student_weights(residual, variance, tail) * trusted(residual, variance, tail)


def local_centres(connector: Ints, at_s: Floats, residual: Floats) -> Floats:
    """Return for each session the median of its connector's nearest ones in time, shape (s,).

    The `NEAR_SESSIONS` sessions around it, itself among them; at the ends the nearest ones.
    """
    order = np.lexsort((at_s, connector))
    who = connector[order]
    row = np.arange(who.size)
    first = np.searchsorted(who, who)
    last = np.searchsorted(who, who, side="right") - 1
    begin = np.maximum(np.minimum(row - NEAR_SESSIONS // 2, last - NEAR_SESSIONS + 1), first)
    place = np.minimum(begin[:, None] + np.arange(NEAR_SESSIONS), last[:, None])
    out = np.empty(residual.size)
    # The median of an odd number of values, without a look for NaN.
    out[order] = np.partition(residual[order][place], NEAR_SESSIONS // 2, axis=1)[
        :, NEAR_SESSIONS // 2
    ]
    return out


def tail_inflation(residual: Floats, variance: Floats, tail: Tail = FIRST_TAIL) -> float:
    """Return the factor by which robust weights overstate the information.

    For the score psi = w r / v an M-estimator's variance is E[psi^2] / E[psi']^2 / s, while the
    weights claim 1 / sum(w / v). Both are averaged over residuals in units of sqrt(v).
    Source: Huber, Ronchetti, Robust Statistics, 2nd ed., section 3.2.
    """
    if residual.size < 30:
        return 1.0
    every = max(1, residual.size // PAIR_SAMPLE)
    residual, variance = residual[::every], variance[::every]
    scale = np.sqrt(variance)
    step = 1e-3 * scale
    ahead, behind = residual + step, residual - step
    own = tail_weights(residual, variance, tail)
    score = own * residual / scale
    slope = tail_weights(ahead, variance, tail) * ahead
    slope -= tail_weights(behind, variance, tail) * behind
    mean_slope = max(float(np.mean(slope / (2.0 * step))), 0.1)
    weight = float(np.mean(own))
    return float(np.mean(score**2)) / mean_slope**2 * weight
