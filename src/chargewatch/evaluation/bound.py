"""The Cramer-Rao bound of each connector's error, from the noise that the simulator made.

The bound is the Bayesian one (van Trees) for a log-linear model that knows what no estimator is
told: the true noise of every observation and the true spread of every nuisance. The errors
themselves have no prior but a wide one, so an estimator that shrinks may come below the bound.

    unknowns  eps (n) at the end, pile efficiency (n), cable loss (n), per feeder: auxiliaries
              (mean, two harmonics of the day, three waves), feeder loss, bias of the meter;
              efficiency of each model, its losses at light and at full load; mean vehicle scale
              and mean cable loss on AC and on DC; the size of each step and drift, whose time is
              known; every vehicle's scale (eliminated)
    feeder    registers at each reading: cumulative energies; noise = resolution / sqrt(12) and
              what interpolating the piles' registers to that moment really missed
    vehicles  ln(E / B): noise of the BMS, of the battery's heat, of rounding; without sessions
              that are not told, and without those whose energies are falsified
    anchors   verifications of connectors that were not tampered with since
    series    a reference meter in series: its bias, its resolution over the whole span

Information: J = sum H^T R^-1 H + P0^-1; bound = sqrt(diag(J^-1)).
Source: H. L. van Trees, Detection, Estimation, and Modulation Theory, part I, section 2.4.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from chargewatch.domain.arrays import Floats, Ints
from chargewatch.domain.times import DAY_S
from chargewatch.simulators.city import City
from chargewatch.simulators.feeders import grid_times
from chargewatch.simulators.layout import AC_MODELS_W, DC_MODELS_W
from chargewatch.simulators.metering import DC_CURVES, Block, running_energy
from chargewatch.simulators.readings import Readings
from chargewatch.simulators.stream import PacketStream

WIDE = 0.2
"""Prior standard deviation of an error: nearly none, but it keeps the bound finite."""
MODELS = len(AC_MODELS_W) + len(DC_MODELS_W)
FEEDER_UNKNOWNS = 13
WAVES = 3
SHAPES = 2
ETA_SQUARED = 0.91
"""Square of a usual DC efficiency: how an efficiency's change acts on the energy drawn."""
GRID_S = 3600
"""Registers of feeders enter once an hour: what lies between adds hardly any information."""


@dataclass
class _Tally:
    """What is gathered day by day."""

    times: list[Floats]
    drawn: list[Floats]  # (n, times) true input energy at the times
    missed: list[Floats]  # (n, times) interpolated minus true indicated energy
    shaped: list[Floats]  # (SHAPES, n, times) true energy weighted by the shapes of DC losses
    sessions: list[tuple[Ints, Ints, Floats, Floats, Floats, Floats]]


@dataclass(frozen=True)
class _Places:
    """Where the unknowns stand in the information matrix."""

    connectors: int
    feeders: int
    changed: Ints  # connectors whose error steps or drifts

    @property
    def models(self) -> int:
        """First of the models' efficiencies and losses."""
        return 3 * self.connectors + FEEDER_UNKNOWNS * self.feeders

    @property
    def scales(self) -> int:
        """Mean vehicle scale on AC; on DC it comes next."""
        return self.models + (1 + SHAPES) * MODELS

    @property
    def cables(self) -> int:
        """Mean cable loss on AC; on DC it comes next."""
        return self.scales + 2

    @property
    def changes(self) -> int:
        """First of the sizes of changes, in the order of ``changed``."""
        return self.cables + 2

    @property
    def size(self) -> int:
        """Number of unknowns."""
        return self.changes + self.changed.size


def _change_shape(city: City, connector: Ints, t_s: Floats) -> Floats:
    """Return a fault's part of an error at simulation times, less that at the end, in its size.

    1 or -1 before a step, 0 after it; along a drift it goes to 0 at the end. Broadcasts.
    """
    meters = city.meters
    end_s = city.to_s - city.origin_s

    def part(t: Floats) -> Floats:
        drifted = np.clip(t, meters.drift_from[connector], meters.drift_until[connector])
        moved = meters.drift_rate[connector] * (drifted - meters.drift_from[connector])
        return np.asarray(
            moved + np.where(t >= meters.step_at[connector], meters.step[connector], 0.0)
        )

    full = np.abs(part(np.full(np.shape(connector), end_s)))
    away = part(t_s) - part(np.full(np.shape(connector), end_s))
    return np.asarray(away / np.where(full > 0, full, 1.0))


def cramer_rao_bound(city: City, *, as_of_s: float | None = None) -> Floats:
    """Return the bound of each connector's standard uncertainty, a fraction, shape (n,).

    Dense algebra over three unknowns a connector: for cities up to some 1,500 connectors.
    """
    as_of_s = city.to_s if as_of_s is None else as_of_s
    stream = city.new_stream()
    tally = _gather(city, stream, as_of_s - city.origin_s)
    layout = city.layout
    n, feeders = layout.connectors.size, np.flatnonzero(layout.meters.connector < 0)
    moving = (city.meters.drift_rate != 0) | np.isfinite(city.meters.step_at)
    places = _Places(n, feeders.size, np.flatnonzero(moving))
    J = np.diag(1 / _prior_sd(city, feeders, changes=places.changed.size) ** 2)
    if J.shape[0] != places.size:
        raise ValueError("the information matrix has one row an unknown")
    for number, meter in enumerate(feeders):
        columns, H, variance = _feeder_design(city, tally, int(meter), number, places=places)
        J[np.ix_(columns, columns)] += H.T @ H / variance
    _add_vehicles(city, tally, J, places=places)
    _add_direct(city, stream, J, as_of_s=as_of_s)
    covariance = np.linalg.inv(J)
    return np.asarray(np.sqrt(np.diag(covariance)[:n]))


def _gather(city: City, stream: PacketStream, end_s: float) -> _Tally:
    begin_s = city.from_s - city.origin_s
    tally = _Tally([], [], [], [], [])
    carried = np.zeros((SHAPES, city.layout.connectors.size, 1))
    n = city.layout.connectors.size
    for day in range(math.ceil(end_s / DAY_S)):
        block = stream.block(day)
        low, high = max(begin_s, day * DAY_S), min(end_s, (day + 1) * DAY_S)
        times = grid_times(low, high, step_s=GRID_S)
        if times.size:
            rows = np.repeat(np.arange(n), times.size)
            at = np.tile(times, n)
            sample = stream.ledger.sample(block, rows, at)
            readings = stream.sampler.readings(block, city.history_cadence, begin_s=low, end_s=high)
            shaped = _shaped(stream, block, np.concatenate([[low], times, [high]]))
            tally.shaped.append(carried + shaped[:, :, 1:-1])
            carried = carried + shaped[:, :, -1:]
            tally.times.append(times)
            tally.drawn.append(sample.input_wh.reshape(n, -1))
            tally.missed.append(
                _missed(stream, readings, (rows, at), sample.indicated_wh).reshape(n, -1)
            )
        s = block.sessions
        told = (s.vehicle >= 0) & s.tells_soc & (s.end_s >= low) & (s.end_s < high)
        told &= ~stream.sampler.hidden(block) & (s.end_s < stream.sampler.silent_from[s.connector])
        k = np.flatnonzero(told & ~_falsified(city, block, end_s=end_s))
        energy = block.true_wh[k, -1]
        parts = np.diff(block.true_wh[k], axis=1, prepend=0.0)
        power = (parts * s.power_w[k]).sum(axis=1) / np.maximum(parts.sum(axis=1), 1e-9)
        tally.sessions.append(
            (s.connector[k], s.vehicle[k], energy, s.bms_wh[k], power, s.end_s[k])
        )
    return tally


def _falsified(city: City, block: Block, *, end_s: float) -> NDArray[np.bool_]:
    """Return the sessions whose energies tell nothing of the meter's error, shape (k,)."""
    s = block.sessions
    out = np.isin(s.connector, list(city.faults.of_kind("soc")))
    out |= block.indicated_wh[:, -1] <= 0
    for i, fault in city.faults.of_kind("unit").items():
        out |= (s.connector == i) & (s.end_s >= end_s - fault["begin_days"] * DAY_S)
    return np.asarray(out)


def _shaped(stream: PacketStream, block: Block, times: Floats) -> Floats:
    """Return true energy since the first time, weighted by exp(-load / 0.1) and by load^2.

    Shape (SHAPES, n, times). They are what a DC model's loss at light and at full load, which no
    estimator is told, does to the energy drawn.
    """
    s = block.sessions
    n = stream.layout.connectors.size
    energy = np.diff(block.true_wh, axis=1, prepend=0.0)
    load = s.power_w / stream.layout.connectors.rated_w[s.connector][:, None]
    found = []
    for weight in (np.exp(-load / 0.1), load**2):
        weighted = energy * weight
        start = running_energy(s.connector, np.zeros(n), weighted.sum(axis=1))
        weighed = replace(block, true_wh=np.cumsum(weighted, axis=1), true_start_wh=start)
        rows, at = np.repeat(np.arange(n), times.size), np.tile(times, n)
        sample = stream.ledger.sample(weighed, rows, at, want=("true",))
        values = sample.true_wh.reshape(n, -1)
        found.append(values - values[:, :1])
    return np.stack(found)


def _missed(
    stream: PacketStream, readings: Readings, where: tuple[Ints, Floats], truth: Floats
) -> Floats:
    """Return interpolated minus true register of connectors at times, Wh."""
    rows, at = where
    base = stream.layout.connectors.register_wh[rows] + truth
    order = np.lexsort((readings.t_s, readings.connector))
    key = readings.connector[order] * 1e8 + readings.t_s[order]
    value = readings.energy_wh[order]
    right = np.clip(np.searchsorted(key, rows * 1e8 + at), 1, key.size - 1)
    left = right - 1
    same = readings.connector[order][left] == rows
    same &= readings.connector[order][right] == rows
    part = (rows * 1e8 + at - key[left]) / np.maximum(key[right] - key[left], 1e-6)
    found = value[left] + part * (value[right] - value[left])
    # Where a register was reset, or the first reading is yet to come, nothing can be said.
    missed = np.where(same, found - base, np.nan)
    return np.where(np.abs(missed) < 50_000, missed, np.nan)


def _prior_sd(city: City, feeders: Ints, *, changes: int) -> Floats:
    c, m = city.layout.connectors, city.layout.meters
    cable = np.where(c.is_dc, 0.003, 0.0045) * 0.4 / math.sqrt(12)
    mean_w = city.layout.stations.auxiliary_w[m.station[feeders]]
    feeder = np.ones((feeders.size, FEEDER_UNKNOWNS))
    feeder[:, 0] = mean_w
    feeder[:, 1:5] = 0.5 * mean_w[:, None]
    feeder[:, 5:11] = 0.1 * mean_w[:, None]
    feeder[:, 11] = 0.006 / math.sqrt(12)
    feeder[:, 12] = m.standard_uncertainty[feeders]
    return np.concatenate(
        [
            np.full(c.size, WIDE),
            np.where(c.is_dc, 0.004, 0.0005),
            cable,
            feeder.ravel(),
            np.where(np.arange(MODELS) < len(AC_MODELS_W), 0.001, 0.012),
            np.repeat(DC_CURVES[:, [1, 3]].std(axis=0, ddof=1), MODELS),
            [0.03, 0.03],
            [0.003, 0.003],
            np.full(changes, WIDE),
        ]
    )


def _feeder_design(
    city: City, tally: _Tally, meter: int, number: int, *, places: _Places
) -> tuple[Ints, Floats, float]:
    """Return columns, design (Wh per unit) and variance (Wh^2) of a feeder's registers."""
    layout = city.layout
    n, station = layout.connectors.size, int(layout.meters.station[meter])
    first, last = (int(layout.stations.first[station + k]) for k in (0, 1))
    members = np.arange(first, last)
    t = np.concatenate(tally.times)
    drawn = np.concatenate([d[members] for d in tally.drawn], axis=1).T
    drawn = drawn - drawn[0]
    missed = np.concatenate([d[members] for d in tally.missed], axis=1)
    noise = np.nan_to_num(missed - np.nanmean(missed, axis=1, keepdims=True)).sum(axis=0)
    resolution = float(layout.meters.resolution_wh[meter])
    offset = float(layout.meters.clock_offset_s[meter])
    power = np.diff(drawn.sum(axis=1), prepend=0.0) / GRID_S
    variance = resolution**2 / 12 + float(np.var(noise)) + float(np.mean((power * offset) ** 2))
    hours = (t - t[0]) / 3600
    local = t + stream_local(city)
    auxiliary = [hours] + [
        wave(2 * math.pi * k * local / DAY_S) * 24 / (2 * math.pi * k)
        for k in (1, 2)
        for wave in (np.sin, np.cos)
    ]
    for w in range(WAVES):
        period = 20_000 * 1.7**w * (1 + float(city.draws.uniform("wave period", station, w)[0]))
        omega = 2 * math.pi / period
        auxiliary += [f(omega * local) / omega / 3600 for f in (np.sin, np.cos)]
    loss = np.cumsum(power**2 * GRID_S * 3600) / float(layout.stations.rated_w[station])
    nuisances = np.column_stack([*auxiliary, loss, drawn.sum(axis=1)])
    model = np.zeros((t.size, MODELS))
    np.add.at(model.T, layout.connectors.model[members], drawn.T)
    shaped = np.concatenate([x[:, members] for x in tally.shaped], axis=2)
    is_dc = layout.connectors.is_dc[members].astype(np.float64)[:, None]
    shapes = np.zeros((SHAPES, t.size, MODELS))
    for k in range(SHAPES):
        np.add.at(shapes[k].T, layout.connectors.model[members], is_dc * shaped[k] / ETA_SQUARED)
    which = np.flatnonzero((places.changed >= first) & (places.changed < last))
    moving = places.changed[which]
    size = _change_shape(city, moving, t[:, None] - GRID_S / 2)
    moved = np.cumsum(size * np.diff(drawn[:, moving - first], axis=0, prepend=0.0), axis=0)
    # The register starts at an unknown value: remove what a constant explains.
    H = np.column_stack([-drawn, -drawn, nuisances, -model, *shapes, -moved])
    H = H - H.mean(axis=0)
    at_feeder = 3 * n + FEEDER_UNKNOWNS * number + np.arange(FEEDER_UNKNOWNS)
    at_model = places.models + np.arange((1 + SHAPES) * MODELS)
    columns = (members, n + members, at_feeder, at_model, places.changes + which)
    return np.concatenate(columns), H, variance


def stream_local(city: City) -> float:
    """Return local epoch seconds at the simulation's time 0."""
    return city.origin_s + 8 * 3600


def _add_vehicles(city: City, tally: _Tally, J: Floats, *, places: _Places) -> None:
    """Add the sessions' information, every vehicle's own scale eliminated."""
    c = city.layout.connectors
    n = c.size
    columns = [np.concatenate([day[k] for day in tally.sessions]) for k in range(6)]
    keep = (columns[3] > 0) & (columns[2] > 500)
    connector, vehicle, energy, bms, power, end_s = (x[keep] for x in columns)
    is_dc = c.is_dc[connector]
    variance = 0.004**2 + 0.003**2 + 10.0**2 / 12 / bms**2
    variance += c.resolution_wh[connector] ** 2 / 6 / energy**2
    scale = np.where(is_dc, 0.010**2 + (0.008 / 0.962) ** 2, 0.010**2 + (0.012 / 0.90) ** 2)
    cable = np.where(c.compensated[connector], 0.0, power / c.rated_w[connector])
    mean = places.scales + is_dc
    node, row = np.unique(vehicle * 2 + is_dc, return_inverse=True)
    weight = 1 / variance
    # A connector without a change has its own error once more, with a factor of zero.
    place = np.minimum(np.searchsorted(places.changed, connector), max(places.changed.size - 1, 0))
    moves = np.isin(connector, places.changed)
    change = np.where(moves, places.changes + place, connector)
    size = np.where(moves, _change_shape(city, connector, end_s), 0.0)
    usual = places.cables + is_dc
    unknowns = np.stack([connector, 2 * n + connector, mean, usual, change], axis=1)
    one = np.ones(energy.size)
    factors = np.stack([one, cable, one, cable, size], axis=1)
    for a in range(5):
        for b in range(5):
            np.add.at(J, (unknowns[:, a], unknowns[:, b]), weight * factors[:, a] * factors[:, b])
    total = np.bincount(row, weights=weight) + 1 / scale[np.unique(row, return_index=True)[1]]
    order = np.argsort(row, kind="stable")
    bounds = np.searchsorted(row[order], np.arange(node.size + 1))
    for v in range(node.size):
        mine = order[bounds[v] : bounds[v + 1]]
        where, row_of = np.unique(unknowns[mine], return_inverse=True)
        values = (weight[mine, None] * factors[mine]).ravel()
        sums = np.bincount(row_of.ravel(), weights=values, minlength=where.size)
        J[np.ix_(where, where)] -= np.outer(sums, sums) / total[v]


def _add_direct(city: City, stream: PacketStream, J: Floats, *, as_of_s: float) -> None:
    """Add verifications and reference meters in series."""
    rows = {name: i for i, name in enumerate(city.layout.connectors.name)}
    changed = {f.target for f in city.faults.all if f.kind.changes_error}
    for stated in city.registry()["verifications"]:
        i = rows[stated["connector"]]
        if stated["relative_error"] is None or i in changed:
            continue
        verified = float(np.datetime64(stated["verified_on"], "s").astype(np.int64))
        years = (as_of_s - verified) / (365 * DAY_S)
        u = stated["expanded_uncertainty"] / stated["coverage_factor"]
        # Ageing since then, and load and temperature that differ from those of the verification.
        J[i, i] += 1 / (u**2 + (2e-3 * years) ** 2 + 0.001**2)
    m = city.layout.meters
    for j in np.flatnonzero(m.connector >= 0):
        i = int(m.connector[j])
        energy = max(float(stream.ledger.true_wh[i]), 1.0)
        resolution = float(m.resolution_wh[j] ** 2 + city.layout.connectors.resolution_wh[i] ** 2)
        J[i, i] += 1 / (m.standard_uncertainty[j] ** 2 + resolution / 6 / energy**2)
