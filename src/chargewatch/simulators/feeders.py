"""Reference meters: what flows into a station, and what its meter makes of it."""

from __future__ import annotations

import math

import numpy as np

from chargewatch.domain.arrays import Floats, Ints
from chargewatch.domain.times import DAY_S
from chargewatch.simulators.draws import Draws
from chargewatch.simulators.layout import Layout
from chargewatch.simulators.metering import Block, EnergyLedger


def auxiliary_wh(layout: Layout, draws: Draws, station: Ints, t_local_s: Floats) -> Floats:
    """Return the cumulative energy of lights, cooling and standby up to local epoch seconds.

    The power has a daily pattern (more at night) and slow waves of a station's own; the energy
    is its integral in closed form, so no state is carried.
    """
    mean_w = layout.stations.auxiliary_w[station]
    day = 2 * np.pi / DAY_S
    energy = t_local_s + layout.physics.auxiliary_swing / day * np.sin(
        day * (t_local_s - 1.0 * 3600)
    )
    for wave in range(3):
        period = 20_000 * (1.7**wave) * (1 + draws.uniform("wave period", station, wave))
        phase = 2 * np.pi * draws.uniform("wave phase", station, wave)
        omega = 2 * np.pi / period
        energy = energy + layout.physics.auxiliary_wander / omega * np.sin(
            omega * t_local_s + phase
        )
    return np.asarray(mean_w * energy / 3600)


def grid_times(begin_s: float, end_s: float, *, step_s: int) -> Floats:
    """Return the multiples of a step with begin_s <= t < end_s."""
    first, last = math.ceil(begin_s / step_s), math.ceil(end_s / step_s)
    return np.arange(first, last, dtype=np.float64) * step_s


class Feeders:
    """Reads the reference meters at the times of a grid, one window after another."""

    def __init__(self, layout: Layout, draws: Draws, *, ledger: EnergyLedger) -> None:
        self._layout, self._draws, self._ledger = layout, draws, ledger
        m = layout.meters
        self._loss_wh = np.zeros(m.size)
        self._last_t = np.full(m.size, np.nan)
        self._last_wh = np.zeros(m.size)
        self._start_aux = np.full(m.size, np.nan)
        sizes = np.where(m.connector < 0, np.diff(layout.stations.first)[m.station], 1)
        self._member_meter = np.repeat(np.arange(m.size), sizes)
        step = np.arange(self._member_meter.size) - np.repeat(np.cumsum(sizes) - sizes, sizes)
        first = np.where(m.connector < 0, layout.stations.first[m.station], m.connector)
        self._member = first[self._member_meter] + step

    def registers(self, block: Block, times_s: Floats) -> tuple[Floats, Floats]:
        """Return told registers and times told, shape (m, len(times)); times within the day.

        Call in order of time: the feeder's own loss is accumulated from reading to reading.
        """
        m = self._layout.meters
        true_t = times_s[None, :] - m.clock_offset_s[:, None]
        energy = self._energies(block, true_t)
        feeder = m.connector < 0
        local = self._ledger.from_local_s + true_t
        aux = auxiliary_wh(self._layout, self._draws, m.station[:, None], local)
        fresh = np.isnan(self._start_aux)
        self._start_aux[fresh] = aux[fresh, 0]
        aux = np.where(feeder[:, None], aux - self._start_aux[:, None], 0.0)
        loss = self._losses(energy, true_t)
        total = energy + aux + np.where(feeder[:, None], loss, 0.0)
        register = m.register_wh[:, None] + total * (1 + m.bias[:, None])
        step = m.resolution_wh[:, None]
        told_t = np.broadcast_to(times_s, register.shape)
        return np.floor(register / step) * step, told_t

    def _energies(self, block: Block, true_t: Floats) -> Floats:
        """Return the energy through each meter, without auxiliaries, shape (m, times)."""
        m = self._layout.meters
        count = true_t.shape[1]
        sums = np.zeros((m.size, count))
        per_round = max(1, 2_000_000 // max(count, 1))
        for low in range(0, self._member.size, per_round):
            member = self._member[low : low + per_round]
            meter = self._member_meter[low : low + per_round]
            t = true_t[meter].ravel()
            sample = self._ledger.sample(block, np.repeat(member, count), t, want=("true", "input"))
            # A meter in series sits behind the converter: it sees what is delivered.
            series = np.repeat(m.connector[meter] >= 0, count)
            energy = np.where(series, sample.true_wh, sample.input_wh).reshape(-1, count)
            np.add.at(sums, meter, energy)
        return sums

    def _losses(self, energy: Floats, true_t: Floats) -> Floats:
        """Return the feeder's cumulative loss: quadratic in the mean power between readings."""
        rated = self._layout.stations.rated_w[self._layout.meters.station][:, None]
        factor = self._layout.stations.feeder_loss[self._layout.meters.station][:, None]
        first = np.isnan(self._last_t)
        before_t = np.where(first, true_t[:, 0], self._last_t)
        before_wh = np.where(first, energy[:, 0], self._last_wh)
        dt_h = np.diff(np.column_stack([before_t, true_t]), axis=1) / 3600
        d_wh = np.diff(np.column_stack([before_wh, energy]), axis=1)
        power = np.divide(d_wh, dt_h, out=np.zeros_like(d_wh), where=dt_h > 0)
        loss = self._loss_wh[:, None] + np.cumsum(factor * power**2 / rated * dt_h, axis=1)
        self._last_t, self._last_wh = true_t[:, -1].copy(), energy[:, -1].copy()
        self._loss_wh = loss[:, -1].copy()
        return np.asarray(loss)
