"""Where to go first: the piles whose field tests leave the least expected harm undecided.

A pile's harm is the money at risk of a month. Before a field test it is undecided, whatever the
platform says of it; after one, what is left is its doubt, min(p, 1 - p), at the harm that each
point of p stands for. A test tells something of its neighbours as well: what all piles of a station
share of their uncertainty. Piles are taken one after the other, each time the one with the most
harm settled for the minutes it takes; one trip a station, then the time of each test. That is
greedy and no proof of the best, and only a station that was just changed is looked at again.
"""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from sqlalchemy.ext.asyncio import AsyncConnection

from chargewatch.domain.arrays import Floats
from chargewatch.draws.frame import DrawError
from chargewatch.risk.decision import Population
from chargewatch.risk.preposterior import (
    FieldTestOutcome,
    common_variance,
    population_of,
    settled_by,
)
from chargewatch.storage.office import inspections as rows
from chargewatch.storage.pages.city import newest_run

FIELD_TEST_U = 0.001
"""Standard uncertainty of a field test: a fifth of the MPE of class 1, k = 2."""
TRIP_MINUTES, TEST_MINUTES = 60.0, 40.0
"""Of a way to a station, and of one test. Source of the second: 20 min to 1 h a pile, as offices
tell (Ningbo 2023, Huzhou 2025)."""
CANDIDATES = 500
"""Piles with most money at risk whose stations are looked at."""
MOST_VISITS = 500


@dataclass(frozen=True, kw_only=True)
class Visit:
    """One pile of a route."""

    connector: str
    tier: str
    p_nonconforming: float
    expanded_now: float
    expanded_after: float
    money: float  # at risk a month, money
    settled: float  # of it, by this test, a month
    told_of_neighbours: float  # doubt removed at untested piles of the station, a month


@dataclass(frozen=True, kw_only=True)
class Stop:
    """One station of a route."""

    station_id: str
    station_name: str
    operator_id: str
    visits: tuple[Visit, ...]
    minutes: float


@dataclass(frozen=True, kw_only=True)
class Route:
    """Where to go, in order, and what it settles."""

    stops: tuple[Stop, ...]
    undecided_before: float  # money a month, of all piles that were looked at
    settled: float
    minutes: float
    looked_at: int


EMPTY_ROUTE = Route(stops=(), undecided_before=0.0, settled=0.0, minutes=0.0, looked_at=0)


class NoRunError(DrawError):
    """No route without a finished run."""


@dataclass
class _Station:
    """The piles of one station, and who of them is on the route."""

    rows: Sequence[Mapping[Any, Any]]
    population: Population
    u_ref: float
    tested: Floats = field(init=False)

    def __post_init__(self) -> None:
        def column(name: str) -> Floats:
            return np.array([row[name] for row in self.rows], dtype=np.float64)

        self.u = np.maximum(column("standard_uncertainty"), 1e-6)
        self.common = np.minimum(np.nan_to_num(column("common_uncertainty")), 0.999 * self.u)
        self.own2 = self.u**2 - self.common**2
        self.error, self.mpe = column("relative_error"), column("mpe")
        self.p = np.clip(column("p_nonconforming"), 0.0, 1.0)
        self.money = np.maximum(np.nan_to_num(column("priority_money")), 0.0)
        self.free = np.array([not row["busy"] for row in self.rows])
        self.tested = np.zeros(len(self.rows))
        self.present = 0.0

    @property
    def bound(self) -> float:
        """No pile of the station can settle more than this."""
        doubt = np.minimum(self.p, 1 - self.p) / np.maximum(self.p, 1e-9)
        free = self.money[self.free]
        return float((self.money * doubt).sum() + (free.max() if free.size else 0.0))

    def _u_test(self, tested: Floats) -> Floats:
        """Return which uncertainty of a measurement of its own says as much of each pile."""
        left = common_variance(self.common, self.own2, u_ref=self.u_ref, tested=tested)
        narrowed = self.u**2 - self.common**2 * (1.0 - left)
        precision = 1.0 / narrowed - 1.0 / self.u**2 + tested / self.u_ref**2
        with np.errstate(divide="ignore"):
            return np.asarray(1.0 / np.sqrt(np.maximum(precision, 0.0)))

    def told(self, *trials: Floats) -> FieldTestOutcome:
        """Return what tests of some piles would tell of all, one trial behind the other."""
        return settled_by(
            np.tile(self.error, len(trials)),
            np.tile(self.mpe, len(trials)),
            standard_uncertainty=np.tile(self.u, len(trials)),
            p=np.tile(self.p, len(trials)),
            u_test=np.concatenate([self._u_test(tested) for tested in trials]),
            population=self.population,
        )

    def values(self, *trials: Floats) -> Floats:
        """Return by trial the harm settled at the tested piles, and the doubt removed at others."""
        after = self.told(*trials).doubt_after.reshape(len(trials), -1)
        tested = np.array(trials)
        scale = self.money / np.maximum(self.p, 1e-9)
        own = scale * (self.p - np.minimum(after, self.p))
        doubt = scale * np.maximum(np.minimum(self.p, 1 - self.p) - after, 0.0)
        return np.array([(own * tested).sum(axis=1), (doubt * (1 - tested)).sum(axis=1)])

    def value(self, tested: Floats) -> tuple[float, float]:
        """Return the harm settled at the tested piles, and the doubt removed at the others."""
        own, others = self.values(tested)
        return float(own[0]), float(others[0])

    def best(self) -> tuple[float, int]:
        """Return the most that one more test settles, and of which pile; -1 when none is left."""
        able = np.flatnonzero(self.free & (self.tested == 0) & (self.money > 0))
        if not able.size:
            return 0.0, -1
        trials = np.repeat(self.tested[None], able.size, axis=0)
        trials[np.arange(able.size), able] = 1.0
        gains = self.values(*trials).sum(axis=0) - self.present
        first = int(np.argmax(gains))
        return (float(gains[first]), int(able[first])) if gains[first] > 0 else (0.0, -1)

    def take(self, k: int) -> None:
        """Put a pile on the route."""
        self.tested[k] = 1.0
        self.present = sum(self.value(self.tested))


def _stations(
    found: Sequence[Mapping[Any, Any]], population: Population, u_ref: float
) -> dict[tuple[str, str], _Station]:
    by_station: dict[tuple[str, str], list[Mapping[Any, Any]]] = {}
    for row in found:
        by_station.setdefault((row["station_id"], row["operator_id"]), []).append(row)
    return {key: _Station(own, population, u_ref) for key, own in by_station.items()}


def plan_route(
    found: Sequence[Mapping[Any, Any]],
    *,
    visits: int,
    population: Population,
    u_ref: float = FIELD_TEST_U,
    trip_minutes: float = TRIP_MINUTES,
    test_minutes: float = TEST_MINUTES,
) -> Route:
    """Return which piles to test, grouped by station, in the order in which they were taken.

    Args:
        found: piles with their assessments, all of each station that is looked at.
        visits: piles to test at most.
        population: prior of the city's errors.
        u_ref: standard uncertainty of a field test, fraction.
        trip_minutes: way to a station.
        test_minutes: test of one pile.

    Raises: DrawError for numbers that can't be.
    """
    if not 1 <= visits <= MOST_VISITS or not 0 < u_ref < 0.1:
        raise DrawError(
            f"a route has 1 to {MOST_VISITS} visits, and a field test an uncertainty of 0 to 10 %"
        )
    if not (0 <= trip_minutes < 1e5 and 0 < test_minutes < 1e5):
        raise DrawError("trips and tests take minutes, tests more than none")
    stations = _stations(found, population, u_ref)
    first_cost = trip_minutes + test_minutes
    # The bound of a station that was not looked at yet, or what its best pile settles.
    waiting: list[tuple[float, tuple[str, str], int]] = [
        (-one.bound / first_cost, key, -2) for key, one in stations.items()
    ]
    heapq.heapify(waiting)
    order: list[tuple[str, str]] = []
    taken = 0
    while waiting and taken < visits:
        worth, key, pile = heapq.heappop(waiting)
        station = stations[key]
        if pile >= 0:
            station.take(pile)
            taken += 1
            if key not in order:
                order.append(key)
        elif pile == -1 or worth >= 0:
            continue
        gain, best = station.best()
        if best >= 0:
            cost = test_minutes if key in order else first_cost
            heapq.heappush(waiting, (-gain / cost, key, best))
    return _told(stations, order, trip_minutes=trip_minutes, test_minutes=test_minutes)


def _told(
    stations: Mapping[tuple[str, str], _Station],
    order: Sequence[tuple[str, str]],
    *,
    trip_minutes: float,
    test_minutes: float,
) -> Route:
    stops = []
    for key in order:
        one = stations[key]
        visits = tuple(_visits(one))
        stops.append(
            Stop(
                station_id=key[0],
                station_name=one.rows[0]["station_name"] or key[0],
                operator_id=key[1],
                visits=visits,
                minutes=trip_minutes + test_minutes * len(visits),
            )
        )
    return Route(
        stops=tuple(stops),
        undecided_before=float(sum(one.money.sum() for one in stations.values())),
        settled=float(sum(stations[key].present for key in order)),
        minutes=sum(one.minutes for one in stops),
        looked_at=sum(len(one.rows) for one in stations.values()),
    )


def _visits(station: _Station) -> Iterator[Visit]:
    """Yield the visits of a station, the most settled first."""
    found = station.told(station.tested)
    scale = station.money / np.maximum(station.p, 1e-9)
    own = scale * (station.p - np.minimum(found.doubt_after, station.p))
    chosen = np.flatnonzero(station.tested)
    neighbours = station.value(station.tested)[1] / max(len(chosen), 1)
    for k in sorted(chosen.tolist(), key=lambda k: -own[k]):
        row = station.rows[k]
        yield Visit(
            connector=row["connector"],
            tier=row["tier"],
            p_nonconforming=float(station.p[k]),
            expanded_now=2 * float(station.u[k]),
            expanded_after=2 * float(found.u_after[k]),
            money=float(station.money[k]),
            settled=float(own[k]),
            told_of_neighbours=neighbours,
        )


@dataclass(frozen=True, kw_only=True)
class Neighbour:
    """What a test would tell of another pile of the station."""

    connector: str
    expanded_now: float
    expanded_after: float


@dataclass(frozen=True, kw_only=True)
class WhatSettles:
    """What one field test would do to one pile, and to its neighbours."""

    u_ref: float
    expanded_now: float
    expanded_after: float
    p_now: float
    shown_nonconforming: float
    shown_conforming: float
    left_open: float
    settled: float  # money a month
    neighbours: tuple[Neighbour, ...]


def what_settles(
    found: Sequence[Mapping[Any, Any]],
    connector: str,
    *,
    population: Population,
    u_ref: float = FIELD_TEST_U,
) -> WhatSettles | None:
    """Return what one field test of a pile would settle; None when nothing is known of it.

    Args:
        found: the assessed piles of its station.
        connector: which of them.
        population: prior of the city's errors.
        u_ref: standard uncertainty of the test, fraction.
    """
    names = [row["connector"] for row in found]
    if connector not in names:
        return None
    k = names.index(connector)
    station = _Station(found, population, u_ref)
    tested = np.zeros(len(names))
    tested[k] = 1.0
    told = station.told(tested)
    bad, good = float(told.shown_nonconforming[k]), float(told.shown_conforming[k])
    return WhatSettles(
        u_ref=u_ref,
        expanded_now=2 * float(station.u[k]),
        expanded_after=2 * float(told.u_after[k]),
        p_now=float(station.p[k]),
        shown_nonconforming=bad,
        shown_conforming=good,
        left_open=max(0.0, 1.0 - bad - good),
        settled=station.value(tested)[0],
        neighbours=tuple(
            Neighbour(
                connector=name,
                expanded_now=2 * float(station.u[j]),
                expanded_after=2 * float(told.u_after[j]),
            )
            for j, name in enumerate(names)
            if j != k and told.u_after[j] < 0.99 * station.u[j]
        ),
    )


async def settles_pile(
    connection: AsyncConnection, pile: Mapping[Any, Any], run: Mapping[Any, Any] | None
) -> WhatSettles | None:
    """Return what one field test of a pile would settle by a run; None without an estimate."""
    if run is None:
        return None
    found = await rows.station_piles(
        connection, pile["station_id"], operator_id=pile["operator_id"], run_id=run["run_id"]
    )
    return what_settles(found, pile["connector"], population=population_of(run["summary"]))


async def route_of(
    connection: AsyncConnection,
    *,
    visits: int,
    operator_id: str = "",
    u_ref: float = FIELD_TEST_U,
    trip_minutes: float = TRIP_MINUTES,
    test_minutes: float = TEST_MINUTES,
) -> Route:
    """Return a route by the newest run, as `plan_route`.

    Raises: DrawError for numbers that can't be; NoRunError before the first run.
    """
    run = await newest_run(connection)
    if run is None:
        raise NoRunError("no risk run has finished yet: `chargewatch assess` first")
    found = await rows.route_piles(
        connection, run_id=run["run_id"], most=CANDIDATES, operator_id=operator_id
    )
    population = population_of(run["summary"])

    def plan() -> Route:
        return plan_route(
            found,
            visits=visits,
            population=population,
            u_ref=u_ref,
            trip_minutes=trip_minutes,
            test_minutes=test_minutes,
        )

    return await asyncio.to_thread(plan)
