"""How long the risk engine takes by itself: a made-up city in memory, no database.

The city is only as real as the engine's work needs: the counts of connectors, feeders, intervals,
vehicles and sessions are those of a city; errors and noise are simple.
"""

from __future__ import annotations

import resource
import time
from dataclasses import replace

import numpy as np

from chargewatch.risk.engine import advance, assess
from chargewatch.risk.inputs import (
    SLOT_S,
    Anchors,
    Fleet,
    Floats,
    Intervals,
    Ints,
    References,
    RunInputs,
    Sessions,
)
from chargewatch.risk.results import EngineConfig

DAY_S = 86400.0
SLOTS = 96
FIRST_DAY = 20500
SESSIONS_A_DAY = 1.0
VEHICLES_A_CONNECTOR = 3


def _sizes(connectors: int, rng: np.random.Generator) -> Ints:
    """Return station sizes like those of a city (median near 10, some with a hundred)."""
    drawn = np.clip(np.round(np.exp(rng.normal(2.3, 0.8, connectors))), 2, 200).astype(np.int64)
    last = int(np.searchsorted(np.cumsum(drawn), connectors))
    sizes = drawn[: last + 1].copy()
    sizes[-1] = connectors - int(sizes[:-1].sum())
    return sizes[sizes > 0]


class MadeUpCity:
    """A city in memory that gives the inputs of one day after another."""

    def __init__(self, connectors: int, *, seed: int = 1) -> None:
        rng = np.random.default_rng(seed)
        self.size, self.seed = connectors, seed
        sizes = _sizes(connectors, rng)
        self.station = np.repeat(np.arange(sizes.size), sizes)
        self.is_dc = rng.uniform(size=sizes.size)[self.station] < 0.4
        self.mpe = np.where(self.is_dc, 0.01, 0.02)
        self.power = np.where(self.is_dc, 60_000.0, 7_000.0)
        self.error = rng.normal(0.0, 0.3 * self.mpe)
        self.vehicles = VEHICLES_A_CONNECTOR * connectors
        self.scale = rng.normal(0.03, 0.02, self.vehicles)
        self.fleet = Fleet(
            connector=[f"C{i:06d}" for i in range(connectors)],
            station=self.station,
            operator=self.station % 20,
            model=rng.integers(0, 6, connectors) + 6 * self.is_dc,
            is_dc=self.is_dc,
            cable_loss_compensated=np.zeros(connectors, dtype=bool),
            mpe=self.mpe,
            rated_power_w=self.power,
            max_current_a=np.where(self.is_dc, 200.0, 32.0),
            resolution_wh=np.full(connectors, 1.0),
            registered=np.ones(connectors, dtype=bool),
        )
        m = sizes.size
        self.references = References(
            meter=[f"M{j:05d}" for j in range(m)],
            station=np.arange(m),
            in_series=np.zeros(m, dtype=bool),
            is_dc=np.zeros(m, dtype=bool),
            standard_uncertainty=np.full(m, 0.001),
            resolution_wh=np.full(m, 10.0),
            valid_until_s=np.full(m, (FIRST_DAY + 400) * DAY_S),
            member_start=np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64),
            members=np.arange(connectors),
        )

    def _sessions(self, day: int, rng: np.random.Generator) -> tuple[Sessions, Ints, Ints, Floats]:
        count = rng.poisson(SESSIONS_A_DAY * self.size)
        connector = np.sort(rng.integers(0, self.size, count))
        slots = np.where(self.is_dc[connector], 3, rng.integers(8, 16, count))
        begin = rng.integers(0, SLOTS - slots)
        power = self.power[connector] * rng.uniform(0.5, 1.0, count)
        true = power * slots / 4.0
        vehicle = rng.integers(0, self.vehicles, count)
        shown = true * (1.0 + self.error[connector])
        noise = rng.normal(0.0, 0.01, count)
        start_s = np.asarray(day * DAY_S + begin * SLOT_S, dtype=np.float64)
        end_s = start_s + slots * SLOT_S
        order = np.lexsort((connector, end_s))
        table = Sessions(
            connector=connector[order],
            vehicle=vehicle[order],
            started_s=start_s[order],
            ended_s=end_s[order],
            energy_wh=np.floor(shown)[order],
            billed_wh=np.floor(shown)[order],
            soc_start_pct=np.full(count, 20.0),
            soc_stop_pct=np.full(count, 70.0),
            battery_capacity_wh=np.full(count, np.nan),
            bms_energy_wh=(true / np.exp(self.scale[vehicle] + noise))[order],
            interrupted=np.zeros(count, dtype=bool),
            energy_price=np.full(count, 1.2),
        )
        return table, connector, begin, np.stack([power, slots.astype(np.float64)])

    def day(self, number: int) -> RunInputs:
        """Return the inputs of one day, the first being 0."""
        day = FIRST_DAY + number
        rng = np.random.default_rng([self.seed, number])
        sessions, connector, begin, shape = self._sessions(day, rng)
        slots = shape[1].astype(np.int64)
        row = np.repeat(np.arange(slots.size), slots)
        offset = np.arange(row.size) - np.repeat(np.cumsum(slots) - slots, slots)
        key = connector[row] * SLOTS + begin[row] + offset
        keys, index = np.unique(key, return_inverse=True)
        true = np.bincount(index, weights=shape[0][row] / 4.0)
        who = keys // SLOTS
        own = Intervals(
            instrument=who,
            slot=day * SLOTS + keys % SLOTS,
            energy_wh=np.floor(true * (1.0 + self.error[who])),
            u_wh=np.full(keys.size, 0.4),
            quality=np.zeros(keys.size, dtype=np.int16),
        )
        meters = self.references.size
        place = self.station[who] * SLOTS + keys % SLOTS
        source = true / np.where(self.is_dc[who], 0.955, 0.998)
        total = np.bincount(place, weights=source, minlength=meters * SLOTS).reshape(meters, SLOTS)
        register = np.floor(np.cumsum(total + 50.0, axis=1) / 10.0) * 10.0
        energy = np.diff(register, axis=1, prepend=0.0)
        other = Intervals(
            instrument=np.repeat(np.arange(meters), SLOTS),
            slot=np.tile(day * SLOTS + np.arange(SLOTS), meters),
            energy_wh=energy.ravel(),
            u_wh=np.full(energy.size, 4.1),
            quality=np.zeros(energy.size, dtype=np.int16),
        )
        none = np.zeros(0)
        return RunInputs(
            as_of_s=(day + 1) * DAY_S,
            from_s=day * DAY_S,
            fleet=self.fleet,
            references=self.references,
            connector_intervals=own,
            meter_intervals=other,
            sessions=sessions,
            anchors=Anchors(
                connector=np.zeros(0, dtype=np.int64),
                verified_s=none,
                valid_until_s=none,
                relative_error=none,
                standard_uncertainty=none,
            ),
        )


def engine_seconds(connectors: int, *, days: int = 30) -> dict[str, float]:
    """Return how long the engine takes for a city: one night, a full recomputation, memory.

    Args:
        connectors: size of the city; vehicles are three times as many.
        days: history before the night that is measured.
    """
    city, config = MadeUpCity(connectors), EngineConfig()
    state = None
    full_s = 0.0
    for number in range(days):
        inputs = city.day(number)
        begin = time.perf_counter()
        state = advance(inputs, config=config, state=state)
        full_s += time.perf_counter() - begin
    inputs = city.day(days)
    begin = time.perf_counter()
    result = assess(inputs, config=config, state=state)
    nightly_s = time.perf_counter() - begin
    known = np.isfinite(result.relative_error)
    away = result.relative_error - city.error
    covered = np.abs(away) <= 1.96 * result.standard_uncertainty
    return {
        "connectors": float(connectors),
        "vehicles": float(city.vehicles),
        "sessions": float(result.n_sessions.sum()),
        "days": float(days),
        "nightly_s": nightly_s,
        "full_s": full_s + nightly_s,
        "state_bytes": float(sum(x.nbytes for x in result.state.values())),
        "peak_memory_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024.0,
        "identified": float(known.sum()),
        "coverage": float(covered[known].mean()) if known.any() else float("nan"),
    }


def first_day_only(connectors: int) -> RunInputs:
    """Return one day of a made-up city without reference meters, for tests of the bench."""
    city = MadeUpCity(connectors)
    inputs = city.day(0)
    return replace(inputs, from_s=inputs.from_s)
