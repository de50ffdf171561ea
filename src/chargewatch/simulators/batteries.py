"""What vehicles tell of their batteries, nonsense included."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from chargewatch.domain.arrays import Floats, Ints
from chargewatch.simulators.charging import ChargingSessions
from chargewatch.simulators.draws import Draws
from chargewatch.simulators.faults import Faults

PLACEHOLDER_WH = 10_000.0
"""A capacity that vehicles tell which don't know theirs."""


@dataclass(frozen=True, kw_only=True)
class ToldBatteries:
    """What sessions tell, shape (k,); NaN: not told."""

    soc_start_pct: Floats
    soc_stop_pct: Floats
    battery_capacity_wh: Floats
    bms_energy_wh: Floats

    def row(self, k: int) -> dict[str, Any]:
        """Return what one session tells, as JSON."""
        found = {}
        for name, column in vars(self).items():
            value = float(column[k])
            if np.isfinite(value):
                found[name] = int(value) if value.is_integer() else round(value, 3)
        return found


class Batteries:
    """Tells states of charge, capacities and energies; ``garbage`` is a share of the sessions."""

    def __init__(self, draws: Draws, faults: Faults, *, garbage: float) -> None:
        self._draws, self._garbage = draws, garbage
        self._soc = faults.of_kind("soc")

    def told(self, sessions: ChargingSessions, rows: Ints) -> ToldBatteries:
        """Return what sessions tell."""
        s = sessions.rows(rows)
        factor = np.ones(rows.size)
        for i, fault in self._soc.items():
            factor[s.connector == i] = fault["factor"]
        told = ToldBatteries(
            soc_start_pct=np.clip(np.round(s.soc_begin * 100), 0, 100),
            soc_stop_pct=np.clip(np.round(s.soc_end * 100), 0, 100),
            battery_capacity_wh=s.nominal_wh * factor,
            bms_energy_wh=s.bms_wh * factor,
        )
        self._spoil(told, s)
        for column in vars(told).values():
            column[~s.tells_soc] = np.nan
        return told

    def _spoil(self, told: ToldBatteries, s: ChargingSessions) -> None:
        """Put nonsense in place of one thing that a vehicle tells, by five ways of doing so."""
        if not self._garbage:
            return
        u = self._draws.uniform("garbage", s.connector, s.day, s.number) / self._garbage
        way = np.floor(5 * u)
        for column, number, value in (
            (told.battery_capacity_wh, 0, s.nominal_wh / 1000),
            (told.battery_capacity_wh, 1, np.full(way.size, PLACEHOLDER_WH)),
            (told.soc_start_pct, 2, np.zeros(way.size)),
            (told.soc_stop_pct, 3, np.zeros(way.size)),
            (told.bms_energy_wh, 4, 10 * s.bms_wh),
        ):
            column[way == number] = value[way == number]
