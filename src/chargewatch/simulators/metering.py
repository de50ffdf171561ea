"""True energy and what the meters make of it: registers as functions of time.

The true power is constant on each segment of a session, so both the true and the indicated
cumulative energy are piecewise linear in time and can be read exactly at any time.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from chargewatch.domain.arrays import Floats, Ints
from chargewatch.domain.times import DAY_S
from chargewatch.simulators.charging import SEGMENTS, ChargingSessions, air_temperature_c, join
from chargewatch.simulators.cheats import KEY_S, Cheats
from chargewatch.simulators.faults import Faults
from chargewatch.simulators.layout import AC_MODELS_W, Layout

LIGHT_SCALE = 0.08
REFERENCE_TEMPERATURE_C = 20.0
# Efficiency of the DC models: best value, loss at no load, its scale, loss at full load.
DC_CURVES = np.array(
    [
        [0.953, 0.070, 0.10, 0.012],
        [0.958, 0.060, 0.12, 0.010],
        [0.962, 0.050, 0.09, 0.014],
        [0.948, 0.080, 0.11, 0.008],
    ]
)


@dataclass(kw_only=True)
class MeterModel:
    """Errors of the connectors' meters, arrays over connectors; times in s of the history."""

    gain: Floats
    aging: Floats
    light: Floats
    light_scale: Floats
    temperature_coefficient: Floats
    step_at: Floats
    step: Floats
    drift_from: Floats
    drift_rate: Floats  # per s
    drift_until: Floats
    stuck_from: Floats
    stuck_until: Floats
    creep_w: Floats

    def lasting_error(self, connector: Ints, t_s: Floats) -> Floats:
        """Return the part of the relative error that depends on time alone."""
        drifted = np.clip(t_s, self.drift_from[connector], self.drift_until[connector])
        return np.asarray(
            self.gain[connector]
            + self.aging[connector] * t_s
            + np.where(t_s >= self.step_at[connector], self.step[connector], 0.0)
            + self.drift_rate[connector] * (drifted - self.drift_from[connector])
        )

    def load_error(self, connector: Ints, load: Floats, temperature_c: Floats) -> Floats:
        """Return the part that depends on load (fraction of the rated power) and temperature."""
        light = self.light[connector] * np.exp(-load / self.light_scale[connector])
        warm = temperature_c - REFERENCE_TEMPERATURE_C
        return np.asarray(light + self.temperature_coefficient[connector] * warm)


def make_meters(layout: Layout, faults: Faults, *, length_s: float) -> MeterModel:
    """Return the meters of a city with the faults that change their error."""
    connectors = layout.connectors
    never = np.full(connectors.size, np.inf)
    zero = np.zeros(connectors.size)
    model = MeterModel(
        gain=connectors.gain.copy(),
        aging=connectors.aging.copy(),
        light=connectors.light.copy(),
        light_scale=np.full(connectors.size, LIGHT_SCALE),
        temperature_coefficient=connectors.temperature_coefficient,
        step_at=never.copy(),
        step=zero.copy(),
        drift_from=zero.copy(),
        drift_rate=zero.copy(),
        drift_until=zero + length_s,
        stuck_from=never.copy(),
        stuck_until=never.copy(),
        creep_w=connectors.creep_w.copy(),
    )
    for fault in faults.all:
        i = fault.target
        begin_s = length_s - fault.parameters.get("begin_days", 0.0) * DAY_S
        magnitude = fault.parameters.get("magnitude_mpe", 0.0) * connectors.mpe[i]
        match fault.kind.name:
            case "gain":
                model.gain[i] += magnitude
            case "light_load":
                model.light[i] += magnitude
                model.light_scale[i] = fault["scale"]
            case "step":
                model.step_at[i], model.step[i] = begin_s, magnitude
            case "drift":
                model.drift_from[i] = max(begin_s, 0.0)
                model.drift_rate[i] = magnitude / (length_s - model.drift_from[i])
            case "stuck":
                model.stuck_from[i] = begin_s
                model.stuck_until[i] = begin_s + fault["length_days"] * DAY_S
            case "leak":
                model.creep_w[i] += fault["power_w"]
    return model


def input_efficiency(layout: Layout, connector: Ints, load: Floats) -> Floats:
    """Return output over input energy of piles at a load (fraction of the rated power)."""
    connectors, physics = layout.connectors, layout.physics
    curve = DC_CURVES[np.maximum(connectors.model[connector] - len(AC_MODELS_W), 0)]
    best, rise, scale, fall = (curve[..., k] for k in range(4))
    light = physics.dc_light_loss_factor * rise
    light = light * np.exp(-load / (physics.dc_light_scale_factor * scale))
    dc = best + physics.dc_efficiency_shift - light
    dc = dc - physics.dc_full_loss_factor * fall * load**2
    is_dc = connectors.is_dc[connector]
    pile = np.where(is_dc, dc, physics.ac_efficiency) + connectors.efficiency_shift[connector]
    if physics.dc_idle_loss:
        idle = np.where(is_dc & (load > 0), physics.dc_idle_loss / np.maximum(load, 1e-3), 0.0)
        pile = 1 / (1 / pile + idle)
    # A compensated meter indicates what leaves the plug, so the cable lies before that point.
    cable = np.where(connectors.compensated, connectors.cable_loss, 0.0)[connector] * load
    return np.asarray(pile * (1 - cable))


@dataclass(frozen=True, kw_only=True)
class Block:
    """All sessions that matter in one day, with cumulative energies; sorted by its key.

    The first rows of each connector is a session without energy before the day, so that every
    time has a session at or before it.
    """

    sessions: ChargingSessions
    key: Floats
    true_start_wh: Floats  # cumulative at the session's start
    indicated_start_wh: Floats
    input_start_wh: Floats
    true_wh: Floats  # (k, SEGMENTS), since the session's start
    indicated_wh: Floats
    input_wh: Floats
    fresh: NDArray[np.bool_]  # sessions that start in this day


@dataclass(frozen=True, kw_only=True)
class Sample:
    """Registers at some times: energies in Wh since the history's start, unquantised."""

    true_wh: Floats
    indicated_wh: Floats
    input_wh: Floats
    power_w: Floats  # true
    soc: Floats  # shown, fraction
    row: Ints  # of the block's sessions
    in_session: NDArray[np.bool_]


@dataclass
class EnergyLedger:
    """Running energies of every connector: what happened up to the day that comes next."""

    layout: Layout
    meters: MeterModel
    from_local_s: float
    cheats: Cheats
    true_wh: Floats = field(init=False)
    indicated_wh: Floats = field(init=False)
    input_wh: Floats = field(init=False)
    load_error_wh: Floats = field(init=False)
    stuck_wh: Floats = field(init=False)
    _tail: ChargingSessions | None = None

    def __post_init__(self) -> None:
        """Start at zero energy."""
        n = self.layout.connectors.size
        self.true_wh, self.indicated_wh = np.zeros(n), np.zeros(n)
        self.input_wh, self.load_error_wh = np.zeros(n), np.zeros(n)
        self.stuck_wh = np.zeros(n)
        self._tail_block: Block | None = None

    def block(self, sessions: ChargingSessions, day: int) -> Block:
        """Return the block of a day; sessions are those that start in it. Call in order."""
        base = _base_rows(sessions, self.layout.connectors.size, day)
        fresh = self._energies(join(base, sessions), day)
        merged = fresh if self._tail_block is None else _merge(self._tail_block, fresh)
        lasting = merged.sessions.end_s >= (day + 1) * DAY_S
        self._tail_block = _block_rows(merged, lasting)
        return merged

    def _energies(self, sessions: ChargingSessions, day: int) -> Block:
        connector = sessions.connector
        column = connector[:, None]
        length = np.diff(sessions.segment_end_s, axis=1, prepend=0.0)
        middle = sessions.start_s[:, None] + sessions.segment_end_s - length / 2
        load = sessions.power_w / self.layout.connectors.rated_w[column]
        true = _exact(sessions.power_w * length / 3600)
        temperature = air_temperature_c(self.from_local_s + middle)
        load_error = self.meters.load_error(column, load, temperature)
        error = load_error + self.meters.lasting_error(column, middle)
        real = sessions.vehicle >= 0
        self.cheats.enter_day(sessions.rows(real), error[real], day)
        stuck = (middle >= self.meters.stuck_from[column]) & (
            middle < self.meters.stuck_until[column]
        )
        indicated = np.where(stuck, 0.0, _exact(true * (1 + error)))
        np.add.at(self.stuck_wh, connector, np.where(stuck, true, 0.0).sum(axis=1))
        drawn = _exact(true / input_efficiency(self.layout, column, load))
        starts = [
            running_energy(connector, total, energy.sum(axis=1))
            for total, energy in (
                (self.true_wh, true),
                (self.indicated_wh, indicated),
                (self.input_wh, drawn),
            )
        ]
        np.add.at(self.load_error_wh, connector, (true * load_error).sum(axis=1))
        return Block(
            sessions=sessions,
            key=connector * KEY_S + sessions.start_s,
            true_start_wh=starts[0],
            indicated_start_wh=starts[1],
            input_start_wh=starts[2],
            true_wh=np.cumsum(true, axis=1),
            indicated_wh=np.cumsum(indicated, axis=1),
            input_wh=np.cumsum(drawn, axis=1),
            fresh=sessions.vehicle >= 0,
        )

    def sample(
        self,
        block: Block,
        connector: Ints,
        t_s: Floats,
        *,
        want: tuple[str, ...] = ("true", "indicated", "input"),
    ) -> Sample:
        """Return the registers of connectors at times within the block's day, shape (r,).

        Energies that are not in ``want`` are left empty.
        """
        s = block.sessions
        row = np.searchsorted(block.key, connector * KEY_S + t_s, side="right") - 1
        # A time just before the first row of a connector belongs to that row.
        row = np.where(row < 0, 0, row)
        row += s.connector[row] != connector
        length = (s.end_s - s.start_s)[row]
        since = np.clip(t_s - s.start_s[row], 0.0, length)
        # Most readings are of idle connectors: only the others are looked for within a session.
        within = np.flatnonzero(since < length)
        place = _place(block, row[within], since[within])
        in_session = (t_s <= s.end_s[row]) & (s.vehicle[row] >= 0)
        power = np.where(in_session, s.power_w[row, -1], 0.0)
        power[within] = np.where(in_session[within], s.power_w.ravel()[place.flat], 0.0)
        soc = s.soc_at_end[row, -1]
        first = s.soc_begin[row[within]]
        soc[within] = place.between(s.soc_at_end, first)
        found = {
            name: _cumulative(block, name, row, (within, place)) if name in want else np.empty(0)
            for name in ("true", "indicated", "input")
        }
        if "indicated" in want:
            found["indicated"] += self.meters.creep_w[connector] * np.maximum(t_s, 0.0) / 3600
            self.cheats.add_to(found["indicated"], connector, t_s)
        return Sample(
            true_wh=found["true"],
            indicated_wh=found["indicated"],
            input_wh=found["input"],
            power_w=power,
            soc=soc,
            row=row,
            in_session=in_session,
        )


@dataclass(frozen=True)
class _Place:
    """Where times lie within their sessions: the flat index of the segment, and how far in it."""

    flat: Ints
    is_first: NDArray[np.bool_]
    part: Floats

    def between(self, ends: Floats, begin: Floats) -> Floats:
        """Return the linear interpolation of values at the segments' ends, (k, SEGMENTS)."""
        values = ends.ravel()
        low = np.where(self.is_first, begin, values[np.maximum(self.flat - 1, 0)])
        return np.asarray(low + self.part * (values[self.flat] - low))


def _place(block: Block, row: Ints, since: Floats) -> _Place:
    ends = block.sessions.segment_end_s
    k = np.zeros(row.size, dtype=np.int64)
    for column in range(SEGMENTS - 1):
        k += ends[:, column][row] <= since
    flat = row * SEGMENTS + k
    values = ends.ravel()
    end = values[flat]
    begin = np.where(k > 0, values[np.maximum(flat - 1, 0)], 0.0)
    span = end - begin
    part = np.divide(since - begin, span, out=np.ones_like(span), where=span > 0)
    return _Place(flat, k == 0, np.clip(part, 0.0, 1.0))


def _cumulative(block: Block, name: str, row: Ints, inside: tuple[Ints, _Place]) -> Floats:
    """Return cumulative energies at times: the session's whole, or what lies before the time."""
    since_start: Floats = getattr(block, f"{name}_wh")
    within, place = inside
    start: Floats = getattr(block, f"{name}_start_wh")
    energy = since_start[row, -1]
    energy[within] = place.between(since_start, np.zeros(within.size))
    return np.asarray(energy + start[row])


def _exact(energy_wh: Floats) -> Floats:
    # Multiples of 1/1024 Wh add up without rounding, so a register never falls by a rounding error.
    return np.asarray(np.round(energy_wh * 1024) / 1024)


def running_energy(connector: Ints, total: Floats, energy: Floats) -> Floats:
    """Return each session's cumulative energy at its start, and add the energies to ``total``."""
    before = np.cumsum(energy) - energy
    first = np.maximum.accumulate(
        np.where(np.diff(connector, prepend=-1) != 0, np.arange(connector.size), 0)
    )
    start = total[connector] + before - before[first]
    total += np.bincount(connector, weights=energy, minlength=total.size)
    return np.asarray(start)


def _base_rows(like: ChargingSessions, n: int, day: int) -> ChargingSessions:
    """Return one session without energy for every connector, just before the day."""
    rows = {
        name: np.zeros((n, *getattr(like, name).shape[1:]), dtype=getattr(like, name).dtype)
        for name in ChargingSessions.__dataclass_fields__
    }
    rows["connector"] = np.arange(n)
    rows["vehicle"] = np.full(n, -1)
    rows["start_s"] = np.full(n, day * DAY_S - 60.0)
    rows["end_s"] = rows["start_s"]
    return ChargingSessions(**rows)


def _block_rows(block: Block, which: NDArray[np.bool_]) -> Block:
    return Block(
        sessions=block.sessions.rows(which),
        **{
            name: getattr(block, name)[which]
            for name in Block.__dataclass_fields__
            if name not in {"sessions", "fresh"}
        },
        fresh=np.zeros(int(which.sum()), dtype=bool),
    )


def _merge(tail: Block, fresh: Block) -> Block:
    # A session that lasts into this day replaces the row without energy of its connector.
    occupied = np.zeros(fresh.sessions.size, dtype=bool)
    occupied[fresh.sessions.vehicle < 0] = np.isin(
        fresh.sessions.connector[fresh.sessions.vehicle < 0], tail.sessions.connector
    )
    kept = _block_rows(fresh, ~occupied)
    sessions = {
        name: np.concatenate([getattr(tail.sessions, name), getattr(kept.sessions, name)])
        for name in ChargingSessions.__dataclass_fields__
    }
    key = np.concatenate([tail.key, kept.key])
    order = np.argsort(key, kind="stable")
    columns = {
        name: np.concatenate([getattr(tail, name), getattr(kept, name)])[order]
        for name in Block.__dataclass_fields__
        if name not in {"sessions", "fresh"}
    }
    is_fresh = np.concatenate([tail.fresh, fresh.fresh[~occupied]])[order]
    return Block(sessions=ChargingSessions(**sessions).rows(order), **columns, fresh=is_fresh)
