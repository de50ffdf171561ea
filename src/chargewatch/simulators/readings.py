"""What gateways read: which registers at which times, with the faults of registers."""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from chargewatch.domain.arrays import Bools, Floats, Ints
from chargewatch.domain.times import DAY_S
from chargewatch.simulators.draws import Draws
from chargewatch.simulators.faults import Faults
from chargewatch.simulators.layout import Layout
from chargewatch.simulators.metering import Block, EnergyLedger, Sample

DECLARED = ("declared_reset", "new_meter")
EVENTS = ("rollover", "reset", "jump", "unit", "restored_register", *DECLARED)
NEW_METER_WH = 20_000.0
"""Least energy of the session in which a new meter's register grows a thousandfold."""
SIX_DIGITS_WH = 1e6
SIX_DIGITS_LEFT_WH = 120_000.0
TREMOR = 1.234567
"""Of noise, rad/s: readings 15 s apart are unlike."""
WAVER = 0.6180339887
"""Times that are multiples of each other get unlike parts of it."""
PERIODIC, BEGIN, END, RESET = 0, 1, 2, 3
CONTEXTS = (None, "Transaction.Begin", "Transaction.End", "Register.Reset")


@dataclass(frozen=True, kw_only=True)
class Cadence:
    """How often is read and sent, s."""

    charging_s: int
    idle_s: int
    message_s: int
    reference_s: int
    reference_message_s: int


@dataclass(frozen=True, kw_only=True)
class Readings:
    """Readings of connectors, shape (r,), sorted by (station, message, time, connector)."""

    connector: Ints
    t_s: Floats
    energy_wh: Floats  # as told: quantised, with the faults of the register
    power_w: Floats
    soc_pct: Floats  # NaN: not told
    row: Ints  # session of the block; -1 outside sessions
    context: NDArray[np.int8]

    @property
    def size(self) -> int:
        """Number of readings."""
        return int(self.connector.size)

    def rows(self, which: Ints | Bools) -> Readings:
        """Return some of the readings."""
        return Readings(**{f.name: getattr(self, f.name)[which] for f in fields(self)})


class Registers:
    """Turns indicated energy into the register that is told, events included."""

    def __init__(self, layout: Layout, faults: Faults, *, end_s: float) -> None:
        n = layout.connectors.size
        self._faults = faults
        self._start_wh = layout.connectors.register_wh.copy()
        self._step_wh = layout.connectors.resolution_wh.copy()
        for i, fault in faults.of_kind("coarse_register").items():
            self._step_wh[i] = fault["step_wh"]
        self._wavers = np.zeros(n, dtype=bool)
        self._wavers[list(faults.of_kind("jitter"))] = True
        self._noise_wh = np.zeros(n)
        for i, fault in faults.of_kind("float_register").items():
            self._noise_wh[i] = fault["noise_wh"]
        self._top_wh = np.full(n, np.inf)
        for i in faults.of_kind("six_digits"):
            self._top_wh[i] = SIX_DIGITS_WH
            # Near its end, so that it gets there.
            self._start_wh[i] = SIX_DIGITS_WH - SIX_DIGITS_LEFT_WH
        self._at = np.full(n, np.inf)
        self._offset_wh = np.zeros(n)
        self._unit_from = np.full(n, np.inf)
        self._unit_until = np.full(n, np.inf)
        self._waiting: dict[int, tuple[str, float, float]] = {}
        for name in EVENTS:
            for i, fault in faults.of_kind(name).items():
                at = end_s - fault["begin_days"] * DAY_S
                amount = next(
                    (fault[key] for key in ("part", "energy_wh", "lost_wh") if key in fault), 1.0
                )
                self._waiting[i] = (name, at, amount)
                if name == "unit":
                    self._unit_until[i] = at + fault["length_days"] * DAY_S
        self.declared = {i: float("inf") for name in DECLARED for i in faults.of_kind(name)}

    def enter_day(self, ledger: EnergyLedger, block: Block, day: int) -> None:
        """Settle the events of a day: each happens a minute before a session, so never in one."""
        for i, (name, nominal, amount) in list(self._waiting.items()):
            if nominal >= (day + 1) * DAY_S:
                continue
            mine = (block.sessions.connector == i) & block.fresh
            energy = block.indicated_wh[:, -1]
            if name == "new_meter":
                mine &= energy >= NEW_METER_WH
            starts = block.sessions.start_s[mine & (block.sessions.start_s >= nominal)]
            if not starts.size:
                continue
            at = max(float(starts[0]) - 60, day * DAY_S)
            del self._waiting[i]
            self._faults.strike(name, i)
            if name == "unit":
                self._unit_from[i] = at
                continue
            sample = ledger.sample(block, np.array([i]), np.array([at]))
            now = self._start_wh[i] + float(sample.indicated_wh[0])
            step = self._step_wh[i]
            # From just below a power of ten a restart looks like an honest rollover.
            if name == "rollover" and now >= 0.9 * 10 ** np.ceil(np.log10(now)):
                self._faults.strike(name, i, -1)
            self._at[i] = at
            self._offset_wh[i] = {
                "jump": amount,
                "restored_register": -amount,
                "reset": -np.floor(now * amount / step) * step,
            }.get(name, -np.floor(now / step) * step)
            if name == "new_meter":
                first = energy[mine & (block.sessions.start_s >= nominal)][0]
                self._offset_wh[i] += np.round(first / 1000 / step) * step
            if name in DECLARED:
                self.declared[i] = at

    def shown_wh(self, connector: Ints, register_wh: Floats) -> Floats:
        """Return registers by the digits that they have, Wh, shape (r,)."""
        return np.asarray(np.mod(register_wh, self._top_wh[connector]))

    def told_wh(self, connector: Ints, t_s: Floats, sample: Sample) -> Floats:
        """Return the registers as told but for `shown_wh`, Wh, shape (r,)."""
        base = self._start_wh[connector] + sample.indicated_wh
        base = base + np.where(t_s >= self._at[connector], self._offset_wh[connector], 0.0)
        step = self._step_wh[connector]
        register = np.floor(base / step) * step
        # Without a draw, so that a session's registers are those of the readings beside it.
        down = self._wavers[connector] & (np.floor(t_s * WAVER) % 2 == 1)
        register = np.where(down, register - step, register)
        noise = self._noise_wh[connector]
        register = np.where(noise > 0, np.round(base + noise * np.sin(t_s * TREMOR), 3), register)
        wrong = (t_s >= self._unit_from[connector]) & (t_s < self._unit_until[connector])
        return np.asarray(np.where(wrong, np.round(register / 1000, 3), register))


class Sampler:
    """Makes the readings of a time window of all connectors."""

    def __init__(
        self,
        layout: Layout,
        draws: Draws,
        faults: Faults,
        *,
        ledger: EnergyLedger,
        registers: Registers,
        end_s: float,
    ) -> None:
        self._layout, self._draws = layout, draws
        self._ledger, self._registers = ledger, registers
        n = layout.connectors.size
        self._withheld = np.zeros(n)
        self._power_factor = np.ones(n)
        self.silent_from = np.full(n, np.inf)
        for i, fault in faults.of_kind("withheld").items():
            self._withheld[i] = fault["share"]
        for i, fault in faults.of_kind("power").items():
            self._power_factor[i] = fault["factor"]
        for i, fault in faults.of_kind("silent").items():
            self.silent_from[i] = end_s - fault["begin_days"] * DAY_S
        self._only_charging = np.zeros(n, dtype=bool)
        self._only_charging[list(faults.of_kind("reads_while_charging"))] = True
        self._refresh_s = np.zeros(n)
        self._read_s = np.zeros(n)
        for i, fault in faults.of_kind("slow_register").items():
            self._refresh_s[i], self._read_s[i] = fault["refresh_s"], fault["read_s"]
        for i, fault in faults.of_kind("new_meter").items():
            self._read_s[i] = fault["read_s"]
        for k, fault in faults.of_kind("clock_set_back").items():
            self._read_s[layout.connectors.station == k] = fault["read_s"]

    def hidden(self, block: Block) -> Bools:
        """Return which sessions of a block are withheld, shape (k,)."""
        share = self._withheld[block.sessions.connector]
        if not share.any():
            return np.zeros(share.size, dtype=bool)
        s = block.sessions
        return self._draws.uniform("withheld", s.connector, s.day, s.number) < share

    def readings(self, block: Block, cadence: Cadence, *, begin_s: float, end_s: float) -> Readings:
        """Return the readings of all connectors with begin_s <= t < end_s."""
        hidden = self.hidden(block)
        shown = (block.sessions.vehicle >= 0) & ~hidden
        parts = [self._idle(cadence, begin_s, end_s), self._resets(begin_s, end_s)]
        parts += _session_points(block, shown, begin_s, end_s)
        parts.append(self._charging(block, shown, cadence, (begin_s, end_s)))
        connector = np.concatenate([p[0] for p in parts])
        t_s = np.concatenate([p[1] for p in parts])
        context = np.concatenate([np.full(p[0].size, p[2], dtype=np.int8) for p in parts])
        sample = self._ledger.sample(block, connector, t_s, want=("indicated",))
        # Inside a session that is told, the periodic readings are those of the charging grid.
        idle = np.arange(connector.size) < parts[0][0].size
        visible = sample.in_session & ~hidden[sample.row]
        self._show_refreshed(block, sample, connector, t_s)
        keep = ~(idle & (visible | self._only_charging[connector])) & (
            t_s < self.silent_from[connector]
        )
        rows = np.flatnonzero(keep)
        station = self._layout.connectors.station[connector[rows]]
        window = np.floor(t_s[rows] / cadence.message_s)
        rows = rows[np.lexsort((connector[rows], t_s[rows], window, station))]
        return self._told(block, connector[rows], t_s[rows], (sample, rows, visible, context))

    def _told(
        self,
        block: Block,
        connector: Ints,
        t_s: Floats,
        drawn: tuple[Sample, Ints, Bools, NDArray[np.int8]],
    ) -> Readings:
        whole, rows, visible, context = drawn
        sample = Sample(
            true_wh=whole.true_wh,
            indicated_wh=whole.indicated_wh[rows],
            input_wh=whole.input_wh,
            power_w=whole.power_w[rows],
            soc=whole.soc[rows],
            row=whole.row[rows],
            in_session=whole.in_session[rows],
        )
        inside = visible[rows]
        error = self._ledger.meters.lasting_error(connector, t_s)
        # At its ends a session's power is that of just within.
        s = block.sessions
        within = np.clip(t_s, s.start_s[sample.row] + 1e-3, s.end_s[sample.row] - 1e-3)
        error = error + self._ledger.cheats.error(connector, within)
        power = sample.power_w * (1 + error) * self._power_factor[connector]
        tells = inside & block.sessions.tells_soc[sample.row]
        return Readings(
            connector=connector,
            t_s=t_s,
            energy_wh=self._registers.shown_wh(
                connector, self._registers.told_wh(connector, t_s, sample)
            ),
            power_w=np.where(inside, np.round(power, 1), 0.0),
            soc_pct=np.where(tells, np.clip(np.round(sample.soc * 100), 0, 100), np.nan),
            row=np.where(inside, sample.row, -1),
            context=context[rows],
        )

    def _show_refreshed(self, block: Block, sample: Sample, connector: Ints, t_s: Floats) -> None:
        """Put in place what slow registers show: that of their last refresh, begin or end."""
        rows = np.flatnonzero(self._refresh_s[connector] > 0)
        if not rows.size:
            return
        every = self._refresh_s[connector[rows]]
        s, row = block.sessions, sample.row[rows]
        edge = np.where(t_s[rows] < s.end_s[row], s.start_s[row], s.end_s[row])
        shown_s = np.maximum(np.floor(t_s[rows] / every) * every, edge)
        shown = self._ledger.sample(block, connector[rows], shown_s, want=("indicated",))
        sample.indicated_wh[rows] = shown.indicated_wh

    def _idle(self, cadence: Cadence, begin_s: float, end_s: float) -> tuple[Ints, Floats, int]:
        connectors, stations = self._layout.connectors, self._layout.stations
        phase = stations.phase_s[connectors.station]
        first = np.ceil((begin_s - phase) / cadence.idle_s)
        last = np.ceil((end_s - phase) / cadence.idle_s)
        count = np.maximum(last - first, 0).astype(np.int64)
        connector = np.repeat(np.arange(connectors.size), count)
        step = np.arange(connector.size) - np.repeat(np.cumsum(count) - count, count)
        t_s = (first[connector] + step) * cadence.idle_s + phase[connector]
        return connector, t_s, PERIODIC

    def _resets(self, begin_s: float, end_s: float) -> tuple[Ints, Floats, int]:
        due = [(i, at) for i, at in self._registers.declared.items() if begin_s <= at < end_s]
        connector = np.array([i for i, _ in due], dtype=np.int64)
        return connector, np.array([at for _, at in due], dtype=np.float64), RESET

    def _charging(
        self, block: Block, shown: Bools, cadence: Cadence, span: tuple[float, float]
    ) -> tuple[Ints, Floats, int]:
        s = block.sessions
        rows = np.flatnonzero(shown & (s.end_s > span[0]) & (s.start_s < span[1]))
        station = self._layout.connectors.station[s.connector[rows]]
        phase = self._layout.stations.phase_s[station]
        own = self._read_s[s.connector[rows]]
        step_s = np.where(own > 0, own, cadence.charging_s)
        low = np.maximum(s.start_s[rows] + 0.5, span[0])
        high = np.minimum(s.end_s[rows], span[1])
        first = np.ceil((low - phase) / step_s)
        count = np.maximum(np.ceil((high - phase) / step_s) - first, 0).astype(np.int64)
        part = np.repeat(np.arange(rows.size), count)
        step = np.arange(part.size) - np.repeat(np.cumsum(count) - count, count)
        return s.connector[rows][part], (first[part] + step) * step_s[part] + phase[part], PERIODIC


def _session_points(
    block: Block, shown: Bools, begin_s: float, end_s: float
) -> list[tuple[Ints, Floats, int]]:
    s = block.sessions
    starts = shown & (s.start_s >= begin_s) & (s.start_s < end_s)
    ends = shown & (s.end_s >= begin_s) & (s.end_s < end_s)
    return [
        (s.connector[starts], s.start_s[starts], BEGIN),
        (s.connector[ends], s.end_s[ends], END),
    ]
