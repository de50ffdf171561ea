"""What vehicles tell of their batteries, nonsense included."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from chargewatch.domain.arrays import Floats, Ints
from chargewatch.simulators.charging import ChargingSessions
from chargewatch.simulators.draws import Draws
from chargewatch.simulators.faults import Faults
from chargewatch.simulators.scenario import Scenario

MAKES = 10
"""Makes of vehicles; all of one tell the same."""
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
    """Tells states of charge, capacities and energies, as much of them as a vehicle's make tells.

    ``garbage_share`` of a scenario is a share of the sessions.
    """

    def __init__(self, draws: Draws, faults: Faults, *, scenario: Scenario) -> None:
        self._draws, self._scenario = draws, scenario
        self._garbage = scenario.garbage_share
        self._soc = faults.of_kind("soc")

    def told(self, sessions: ChargingSessions, rows: Ints) -> ToldBatteries:
        """Return what sessions tell."""
        s = sessions.rows(rows)
        factor = np.ones(rows.size)
        for i, fault in self._soc.items():
            factor[s.connector == i] = fault["factor"]
        told = ToldBatteries(
            soc_start_pct=self._shown_pct(s, s.soc_begin, "begin"),
            soc_stop_pct=self._shown_pct(s, s.soc_end, "end"),
            battery_capacity_wh=s.nominal_wh * factor,
            bms_energy_wh=s.bms_wh * factor,
        )
        self._spoil(told, s)
        for column in vars(told).values():
            column[~s.tells_soc] = np.nan
        kind = self._kind(s.vehicle)
        told.bms_energy_wh[kind > 0] = np.nan
        told.battery_capacity_wh[kind > 1] = np.nan
        return told

    def _shown_pct(self, s: ChargingSessions, soc: Floats, when: str) -> Floats:
        """Return the SOC that is told: in steps, and 100 % a little before the battery is full."""
        step, reserve = self._scenario.soc_step_pct, self._scenario.soc_reserve
        if reserve:
            soc = soc / (1.0 - reserve * self._draws.uniform("soc reserve", s.vehicle))
        if self._scenario.soc_noise:
            guessed = self._draws.normal(f"soc {when}", s.connector, s.day, s.number)
            soc = soc + self._scenario.soc_noise * guessed
        return np.clip(np.round(soc * 100 / step) * step, 0, 100)

    def _kind(self, vehicle: Ints) -> Ints:
        """Return what a vehicle's make tells: 0 all, 1 SOC and capacity, 2 SOC alone, (k,)."""
        make = self._draws.choice("make", MAKES, vehicle)
        # Golden-ratio steps spread the kinds evenly over few makes.
        place = (self._draws.uniform("make tells", 0) + 0.6180339887 * np.arange(MAKES)) % 1.0
        edges = np.cumsum([self._scenario.bms_share, self._scenario.capacity_share])
        return np.searchsorted(edges, place[make], side="right")

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
