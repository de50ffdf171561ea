"""A real graph of who charges where, for simulated cities: sites, stations and their drivers.

Source: Asensio et al., "EV charging stations in workplaces", see data/README.md: 3,395 sessions of
85 drivers at 105 stations of 25 sites. It is nearly one component (98 stations); 3, 2 and 2
stations are cut off. Its stations are a simulated city's connectors, its sites the stations.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

import numpy as np

from chargewatch.domain.arrays import Floats, Ints
from chargewatch.errors import InputFileError

WORKPLACE = "workplace"


@dataclass(frozen=True, kw_only=True)
class ChargingGraph:
    """Pairs of connector and vehicle, sorted by connector; s sites, n connectors, p pairs."""

    sizes: Ints  # (s,), connectors of each site
    popularity: Floats  # (n,), sessions of each connector over their mean
    first: Ints  # (n + 1,), first pair of each connector
    vehicle: Ints  # (p,)
    share: Floats  # (p,), of the connector's sessions up to and with this pair's
    vehicles: int

    def visitor(self, connector: Ints, u: Floats) -> Ints:
        """Return the vehicle that comes to a connector, by a number from 0 to 1, shape (k,)."""
        # Shares begin anew with each connector, so its number before them makes one order.
        row = np.searchsorted(self._order, connector + np.minimum(u, 1.0 - 1e-9), side="right")
        return self.vehicle[np.minimum(row, self.first[connector + 1] - 1)]

    @property
    def _order(self) -> Floats:
        connector = np.repeat(np.arange(self.popularity.size), np.diff(self.first))
        return np.asarray(connector + self.share)


@cache
def _pairs() -> Ints:
    path = files("chargewatch.simulators").joinpath("data", "workplace_pairs.csv")
    with path.open("r", encoding="utf-8") as file:
        rows = [[int(value) for value in row] for row in list(csv.reader(file))[1:]]
    return np.array(rows, dtype=np.int64)


def charging_graph(name: str, *, stations: int) -> ChargingGraph:
    """Return a graph by name, of its busiest sites. Raises: InputFileError for another name."""
    if name != WORKPLACE:
        raise InputFileError(f"graph {name!r}: there is only {WORKPLACE!r}")
    site, station, driver, sessions = _pairs().T
    sites = int(site.max()) + 1
    if stations > sites:
        raise InputFileError(f"graph {name!r} has {sites} sites, not {stations}: set stations")
    kept = site < stations
    site, station, driver, sessions = (x[kept] for x in (site, station, driver, sessions))
    order = np.lexsort((driver, station, site))
    site, station, driver, sessions = (x[order] for x in (site, station, driver, sessions))
    begins = np.flatnonzero(np.diff(station, prepend=-1) != 0)
    total = np.add.reduceat(sessions, begins)
    size = np.diff(np.append(begins, station.size))
    so_far = np.cumsum(sessions) - np.repeat(np.cumsum(total) - total, size)
    return ChargingGraph(
        sizes=np.bincount(site[begins], minlength=stations),
        popularity=total / total.mean(),
        first=np.append(begins, station.size).astype(np.int64),
        vehicle=np.unique(driver, return_inverse=True)[1].astype(np.int64),
        share=so_far / np.repeat(total, size),
        vehicles=int(np.unique(driver).size),
    )
