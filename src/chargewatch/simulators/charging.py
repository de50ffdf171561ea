"""Charging sessions of a day: who comes when, and the power over the session.

A session is a row; its true power is constant on each of SEGMENTS steps of equal SOC.
Times are seconds since the start of the history.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from itertools import pairwise

import numpy as np
from scipy.stats import poisson

from chargewatch.domain.arrays import Bools, Floats, Ints
from chargewatch.domain.times import DAY_S
from chargewatch.simulators.draws import Draws
from chargewatch.simulators.layout import Layout
from chargewatch.simulators.scenario import Scenario
from chargewatch.simulators.vehicles import Vehicles, real_sessions, vehicles

SEGMENTS = 8
GAP_S = 120
"""Least time between two sessions of a connector, s."""
WAIT_S = 1_800
"""Who finds the connector taken for longer goes elsewhere."""

# Share of arrivals per hour of the day, by site type (residential, office, commercial, hub).
HOURLY = np.array(
    [
        [5, 4, 3, 2, 2, 2, 2, 2, 2, 2, 2, 3, 3, 3, 3, 3, 4, 6, 9, 11, 12, 11, 9, 7],
        [1, 1, 1, 1, 1, 1, 3, 9, 14, 11, 7, 5, 5, 6, 5, 4, 4, 4, 3, 3, 2, 2, 1, 1],
        [1, 1, 1, 1, 1, 1, 2, 3, 5, 6, 8, 9, 9, 8, 7, 7, 7, 8, 9, 9, 8, 6, 4, 2],
        [6, 5, 4, 3, 3, 4, 5, 5, 5, 5, 6, 8, 9, 8, 6, 5, 5, 5, 5, 5, 6, 7, 8, 8],
    ],
    dtype=np.float64,
)
# Factor of weekdays, Monday first.
WEEKLY = np.array(
    [
        [1.0, 1.0, 1.0, 1.0, 1.05, 1.0, 1.05],
        [1.1, 1.1, 1.1, 1.1, 1.05, 0.4, 0.35],
        [0.9, 0.9, 0.9, 0.95, 1.1, 1.3, 1.25],
        [1.0, 1.0, 1.0, 1.0, 1.1, 1.05, 0.95],
    ]
)


@dataclass(frozen=True, kw_only=True)
class ChargingSessions:
    """Sessions, arrays of shape (k,) or (k, SEGMENTS); sorted by (connector, start)."""

    connector: Ints
    day: Ints
    number: Ints  # candidate number of its connector and day: with them, its address for draws
    vehicle: Ints
    start_s: Floats
    end_s: Floats
    soc_begin: Floats
    soc_end: Floats
    interrupted: Bools
    nominal_wh: Floats
    bms_wh: Floats
    tells_soc: Bools
    segment_end_s: Floats  # since the session's start
    power_w: Floats  # true, at the meter
    soc_at_end: Floats  # shown SOC at each segment's end, fraction

    @property
    def size(self) -> int:
        """Number of sessions."""
        return int(self.connector.size)

    def rows(self, which: Ints | Bools) -> ChargingSessions:
        """Return some of the sessions."""
        return ChargingSessions(**{f.name: getattr(self, f.name)[which] for f in fields(self)})


def join(*parts: ChargingSessions) -> ChargingSessions:
    """Return several sets of sessions as one, sorted by (connector, start)."""
    merged = ChargingSessions(
        **{
            f.name: np.concatenate([getattr(p, f.name) for p in parts])
            for f in fields(ChargingSessions)
        }
    )
    return merged.rows(np.lexsort((merged.start_s, merged.connector)))


def air_temperature_c(t_local_s: Floats) -> Floats:
    """Return a smooth outdoor temperature of Tianjin's kind, deg C, of local epoch seconds."""
    day_of_year = (t_local_s / DAY_S) % 365.25
    hour = (t_local_s % DAY_S) / 3600
    season = 13 - 15 * np.cos(2 * np.pi * (day_of_year - 20) / 365.25)
    weather = 3 * np.sin(2 * np.pi * t_local_s / (5.3 * DAY_S)) + 2 * np.sin(t_local_s / 250_000)
    return np.asarray(season + 5 * np.cos(2 * np.pi * (hour - 15) / 24) + weather)


class Demand:
    """Makes the sessions of one day after another."""

    def __init__(
        self, scenario: Scenario, draws: Draws, layout: Layout, *, from_local_s: float
    ) -> None:
        self._scenario = scenario
        self._draws = draws
        self._layout = layout
        self._from_local_s = from_local_s
        self._busy_until = np.full(layout.connectors.size, -1e9)
        rate = np.where(
            layout.connectors.is_dc, scenario.sessions_per_day_dc, scenario.sessions_per_day_ac
        )
        self._rate = rate * layout.connectors.popularity
        self._site = layout.stations.site[layout.connectors.station]
        first = layout.stations.first
        self._position = np.arange(layout.connectors.size) - first[layout.connectors.station]
        self._hours = np.cumsum(HOURLY, axis=1) / HOURLY.sum(axis=1, keepdims=True)

    def day(self, day: int) -> ChargingSessions:
        """Return the sessions that start on a day (0 is the first); call with 0, 1, 2, ..."""
        connector, number, arrival = self._arrivals(day)
        station = self._layout.connectors.station[connector]
        address = (station, self._position[connector], np.full(connector.size, day), number)
        vehicle = self._vehicle(address, connector)
        sessions = self._charge(connector, vehicle, address, arrival)
        return self._take_turns(sessions)

    def _arrivals(self, day: int) -> tuple[Ints, Ints, Floats]:
        """Return connector, candidate number and arrival time, sorted by (connector, arrival)."""
        connectors = self._layout.connectors
        weekday = int((self._from_local_s // DAY_S + day + 3) % 7)
        rate = self._rate * WEEKLY[self._site, weekday]
        u = self._draws.uniform("arrivals", connectors.station, self._position, day)
        count = poisson.ppf(u, rate).astype(np.int64)
        connector = np.repeat(np.arange(connectors.size), count)
        number = np.arange(connector.size) - np.repeat(np.cumsum(count) - count, count)
        station, position = connectors.station[connector], self._position[connector]
        u = self._draws.uniform("arrival hour", station, position, day, number)
        site = self._site[connector]
        hour = (self._hours[site] < u[:, None]).sum(axis=1)
        minute = self._draws.uniform("arrival minute", station, position, day, number)
        arrival = day * DAY_S + np.floor((hour + minute) * 3600)
        order = np.lexsort((arrival, connector))
        return connector[order], number[order], arrival[order]

    def _vehicle(self, address: tuple[Ints, ...], connector: Ints) -> Ints:
        """Return a vehicle: one of the station's own habitual ones, or one that roams.

        Where there is a graph of who charges where, one of those that come to the connector.
        """
        layout, draws = self._layout, self._draws
        if layout.graph is not None:
            return layout.graph.visitor(connector, draws.uniform("which driver", *address))
        station = address[0]
        roams = draws.uniform("roams", *address) < self._scenario.roaming_share
        roamer = draws.choice("which roamer", layout.roaming_vehicles, *address)
        home = max(1, layout.vehicles - layout.roaming_vehicles) // layout.stations.size
        # The square makes some regulars and many occasional guests.
        regular = (draws.uniform("which regular", *address) ** 2 * max(home, 1)).astype(np.int64)
        resident = layout.roaming_vehicles + station * max(home, 1) + regular
        return np.where(roams, roamer, resident)

    def _charge(
        self, connector: Ints, vehicle: Ints, address: tuple[Ints, ...], arrival: Floats
    ) -> ChargingSessions:
        draws, connectors = self._draws, self._layout.connectors
        physics = self._layout.physics
        car = vehicles(draws, vehicle, physics=physics)
        is_dc = connectors.is_dc[connector]
        begin, end = self._states_of_charge(is_dc, address)
        interrupted = draws.uniform("interrupted", *address) < 0.02
        end = np.where(interrupted, begin + (end - begin) * draws.uniform("cut", *address), end)
        limit_s = np.where(
            is_dc,
            2_400 + 4_000 * draws.uniform("stay dc", *address),
            7_200 + 43_200 * draws.uniform("stay ac", *address),
        )
        rated = connectors.rated_w[connector]
        profile = _profile(car, begin, end, rated=rated, is_dc=is_dc)
        # Who leaves early takes less; the shape is computed anew for the smaller span.
        cut = np.minimum(1.0, limit_s / profile[0][:, -1])
        end = begin + (end - begin) * cut
        duration, power, soc = _profile(car, begin, end, rated=rated, is_dc=is_dc)
        length = np.maximum(np.ceil(duration[:, -1]), 60.0)
        duration *= (length / duration[:, -1])[:, None]
        energy = power * np.diff(duration, axis=1, prepend=0.0)
        # A compensated meter indicates what leaves the plug: its cable's loss lies before that.
        after_meter = np.where(connectors.compensated, 0.0, connectors.cable_loss)[connector]
        # It goes with the square of the current, so in the mean by energy with the power.
        scale = 1 - after_meter * (energy * power).sum(axis=1) / energy.sum(axis=1) / rated
        bms_noise = 1 + car.bms_scale + physics.bms_noise * draws.normal("bms noise", *address)
        eff = np.where(is_dc, car.dc_efficiency, car.ac_efficiency)
        wobble = 1 + 0.003 * draws.normal("battery heat", *address)
        bms = (energy.sum(axis=1) / 3600) * scale * eff * bms_noise * wobble
        shown = soc + car.soc_bend[:, None] * np.sin(np.pi * soc)
        shown_begin = begin + car.soc_bend * np.sin(np.pi * begin)
        return ChargingSessions(
            connector=connector,
            day=address[2],
            number=address[3],
            vehicle=vehicle,
            start_s=arrival,
            end_s=arrival + length,
            soc_begin=shown_begin,
            soc_end=shown[:, -1],
            interrupted=interrupted,
            nominal_wh=car.nominal_wh,
            bms_wh=np.round(bms, -1),
            tells_soc=is_dc | (car.tells_soc_on_ac < self._scenario.ac_soc_share),
            segment_end_s=duration,
            power_w=power,
            soc_at_end=shown,
        )

    def _states_of_charge(self, is_dc: Bools, address: tuple[Ints, ...]) -> tuple[Floats, Floats]:
        """Return SOC at begin and end: on DC those of a real session, on AC a night's charge."""
        draws = self._draws
        real = real_sessions()
        row = draws.choice("real session", real["soc_begin"].size, *address)
        blur = draws.uniform("soc blur", *address) - 0.5
        dc_begin = np.clip(real["soc_begin"][row] + 0.01 * blur, 0.01, 0.97)
        dc_end = np.clip(real["soc_end"][row] + 0.01 * blur, dc_begin + 0.02, 1.0)
        ac_begin = 0.12 + 0.6 * draws.uniform("ac soc begin", *address)
        full = draws.uniform("ac full", *address)
        ac_end = np.where(full < 0.55, 1.0, np.minimum(0.99, ac_begin + 0.1 + 0.5 * full))
        return np.where(is_dc, dc_begin, ac_begin), np.where(is_dc, dc_end, ac_end)

    def _take_turns(self, sessions: ChargingSessions) -> ChargingSessions:
        """Return the sessions that find their connector free soon enough, shifted behind it."""
        connector = sessions.connector
        new_connector = np.diff(connector, prepend=-1) != 0
        first_of = np.maximum.accumulate(np.where(new_connector, np.arange(connector.size), 0))
        rank = np.arange(connector.size) - first_of
        shift = np.zeros(connector.size)
        kept = np.zeros(connector.size, dtype=bool)
        by_rank = np.argsort(rank, kind="stable")
        bounds = np.searchsorted(rank[by_rank], np.arange(rank.max(initial=-1) + 2))
        for low, high in pairwise(bounds):
            rows = by_rank[low:high]
            free = self._busy_until[connector[rows]] + GAP_S
            wait = np.maximum(free - sessions.start_s[rows], 0.0)
            goes = wait <= WAIT_S
            rows, wait = rows[goes], wait[goes]
            shift[rows], kept[rows] = wait, True
            self._busy_until[connector[rows]] = sessions.end_s[rows] + wait
        moved = ChargingSessions(
            **{
                **{f.name: getattr(sessions, f.name) for f in fields(ChargingSessions)},
                "start_s": sessions.start_s + shift,
                "end_s": sessions.end_s + shift,
            }
        )
        return moved.rows(kept)


def _profile(
    car: Vehicles, begin: Floats, end: Floats, *, rated: Floats, is_dc: Bools
) -> tuple[Floats, Floats, Floats]:
    """Return segment ends (s), powers at the meter (W) and SOC at the ends, (k, SEGMENTS)."""
    edges = begin[:, None] + (end - begin)[:, None] * np.linspace(0, 1, SEGMENTS + 1)
    middle = (edges[:, 1:] + edges[:, :-1]) / 2
    fall = (middle - car.knee[:, None]) / (1 - car.knee[:, None])
    taper = np.where(fall <= 0, 1.0, 1 - 0.82 * np.clip(fall, 0, 1) ** 1.3)
    dc = np.minimum(0.96 * rated[:, None], car.dc_max_w[:, None] * taper)
    ac_full = np.minimum(0.96 * rated, car.ac_max_w)[:, None]
    ac = ac_full * np.where(middle > 0.96, 0.35, 1.0)
    power = np.where(is_dc[:, None], dc, ac)
    eff = np.where(is_dc, car.dc_efficiency, car.ac_efficiency)[:, None]
    battery = car.usable_wh[:, None] * np.diff(edges, axis=1)
    seconds = battery / eff / power * 3600
    return np.cumsum(seconds, axis=1), power, edges[:, 1:]
