"""Vehicles: capacity, ageing, charging power over state of charge, what their BMS tells."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

import numpy as np

from chargewatch.domain.arrays import Floats, Ints
from chargewatch.simulators.draws import Draws
from chargewatch.simulators.physics import Physics


@dataclass(frozen=True, kw_only=True)
class Vehicles:
    """Properties of the vehicles of a set of sessions, shape (k,)."""

    nominal_wh: Floats
    usable_wh: Floats  # after ageing
    ac_max_w: Floats
    dc_max_w: Floats
    knee: Floats  # SOC at which the power begins to taper
    ac_efficiency: Floats
    dc_efficiency: Floats
    bms_scale: Floats  # relative error of the BMS's energy integral
    soc_bend: Floats  # nonlinearity of the SOC that is shown
    tells_soc_on_ac: Floats  # uniform; below the scenario's share: yes


@cache
def real_sessions() -> dict[str, Floats]:
    """Return SOC on arrival and departure (fractions) and energies of the real DC sessions.

    Source: DESL, EPFL, see data/README.md. Only sessions that gained at least 3 % of SOC.
    """
    path = files("chargewatch.simulators").joinpath("data", "desl_epfl_dc_sessions.csv")
    with path.open("r", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    begin = np.array([float(row["soc_arrival_pct"]) for row in rows]) / 100
    end = np.array([float(row["soc_departure_pct"]) for row in rows]) / 100
    energy = np.array([float(row["energy_wh"]) for row in rows])
    used = end - begin >= 0.03
    capacity = energy[used] / (end - begin)[used]
    return {
        "soc_begin": begin[used],
        "soc_end": end[used],
        "energy_wh": energy[used],
        "capacity_wh": np.clip(capacity, 30_000, 110_000),
    }


def vehicles(draws: Draws, vehicle: Ints, *, physics: Physics) -> Vehicles:
    """Return the properties of vehicles, each a function of the seed and its number only."""
    capacities = real_sessions()["capacity_wh"]
    row = draws.choice("capacity", capacities.size, vehicle)
    aging = 0.87 + 0.13 * draws.uniform("ageing", vehicle)
    # The sessions show usable capacity: the nominal one is what it was before ageing.
    nominal = np.round(capacities[row] / 0.94, -2)
    ac_choice = np.array([6_600.0, 6_600.0, 7_000.0, 11_000.0])
    dc_choice = np.array([60_000.0, 80_000.0, 100_000.0, 120_000.0, 160_000.0, 200_000.0])
    return Vehicles(
        nominal_wh=nominal,
        usable_wh=nominal * aging,
        ac_max_w=ac_choice[draws.choice("ac max", ac_choice.size, vehicle)],
        dc_max_w=dc_choice[draws.choice("dc max", dc_choice.size, vehicle)],
        knee=0.4 + 0.4 * draws.uniform("knee", vehicle),
        ac_efficiency=0.90 + 0.012 * draws.normal("ac efficiency", vehicle),
        dc_efficiency=0.962 + 0.008 * draws.normal("dc efficiency", vehicle),
        bms_scale=physics.bms_scale_spread * draws.normal("bms scale", vehicle),
        soc_bend=0.008 * draws.normal("soc bend", vehicle),
        tells_soc_on_ac=draws.uniform("tells soc", vehicle),
    )
