"""A made-up city of any size in a real database: what a risk run reads, for measuring only.

Every connector charges one vehicle a day in one run of 15-minute slots; its register indicates
(1 + eps) times the true energy, a feeder meter reads the station's true energy and 300 W of
auxiliaries, and the battery tells its own energy. The days of the history are written as the
platform would have stored them, as rollups and sessions. The last day comes as ingest leaves it:
raw readings of connectors and meters, sessions, and no rollups yet.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, date, datetime

import asyncpg
import numpy as np

from chargewatch.domain.arrays import Floats, Ints
from chargewatch.domain.times import DAY_S, SLOT_S, SLOTS_A_DAY
from chargewatch.runs.rollups import rollup_kinds
from chargewatch.storage.bulk import Records, copy_records_in
from chargewatch.storage.runs.rollups import INTERVAL

CONNECTORS_A_STATION = 10
VEHICLES_A_CONNECTOR = 3
ACTIVE_SLOTS = 8
AUXILIARY_W = 300.0
PILE_EFFICIENCY = 0.95
FIRST_DAY = 20_485
OFFENDERS = 0.02

_SESSION = np.dtype(
    [
        ("connector_id", "i4"),
        ("number", "i8"),
        ("vehicle", "i8"),
        ("started_at", "M8[us]"),
        ("ended_at", "M8[us]"),
        ("start_wh", "f8"),
        ("stop_wh", "f8"),
        ("bms_wh", "f8"),
    ]
)
_READING = np.dtype(
    [
        ("at", "M8[us]"),
        ("connector_id", "i4"),
        ("energy_wh", "f8"),
        ("power_w", "f4"),
        ("voltage_v", "f4"),
        ("current_a", "f4"),
        ("soc_pct", "f4"),
        ("session_key", "i8"),
        ("context", "i2"),
    ]
)

_METER_READING = np.dtype([("at", "M8[us]"), ("meter_id", "i4"), ("energy_wh", "f8")])

_REGISTRY = """
INSERT INTO operator (operator_id, name)
SELECT 'OP' || g, 'Operator ' || g FROM generate_series(0, 39) g;
INSERT INTO station (station_id, operator_id, name, district)
SELECT 'ST' || lpad(g::text, 6, '0'), 'OP' || g % 40, 'Station ' || g, (120101 + g % 16)::text
FROM generate_series(0, {stations} - 1) g;
INSERT INTO connector (connector_id, connector, operator_id, station_id, registered, pile, current,
  accuracy_class, rated_power_w, max_current_a, model, resolution_wh, cable_loss_compensated)
OVERRIDING SYSTEM VALUE
SELECT g + 1, 'ST' || lpad((g / {each})::text, 6, '0') || '-' || lpad((g % {each})::text, 2, '0'),
  'OP' || (g / {each}) % 40, 'ST' || lpad((g / {each})::text, 6, '0'), true, 'P' || g,
  CASE WHEN (g / {each}) % 3 = 0 THEN 'DC' ELSE 'AC' END, '2', 7000, 32,
  'model ' || (g / {each}) % 50, 1, false
FROM generate_series(0, {connectors} - 1) g;
INSERT INTO reference_meter (meter_id, meter, operator_id, station_id, registered, scope, current,
  relative_uncertainty, coverage_factor, resolution_wh, certificate)
OVERRIDING SYSTEM VALUE
SELECT g + 1, 'M' || g, 'OP' || g % 40, 'ST' || lpad(g::text, 6, '0'), true, 'station', 'AC',
  0.002, 2, 10, '' FROM generate_series(0, {stations} - 1) g;
INSERT INTO verification (connector_id, verified_on, valid_until, result, relative_error,
  expanded_uncertainty, coverage_factor, certificate)
SELECT g, '2025-01-01', '2027-12-31', 'pass', CASE WHEN g % 10 = 0 THEN 0.0 END,
  CASE WHEN g % 10 = 0 THEN 0.002 END, 2, 'C' || g FROM generate_series(1, {connectors}) g;
"""
_STAGE = """
CREATE TEMP TABLE IF NOT EXISTS bench_session (connector_id int4, number int8, vehicle int8,
  started_at timestamptz, ended_at timestamptz, start_wh float8, stop_wh float8, bms_wh float8)
"""
_SESSIONS = """
INSERT INTO charging_session (operator_id, station_id, connector_id, session, vehicle, started_at,
  ended_at, start_wh, stop_wh, billed_wh, currency, energy_fee, service_fee, total_fee, periods,
  soc_start_pct, soc_stop_pct, battery_capacity_wh, bms_energy_wh, content_hash, received_at)
SELECT c.operator_id, c.station_id, b.connector_id, 'S' || b.number, 'v-' || b.vehicle,
  b.started_at, b.ended_at, b.start_wh, b.stop_wh, b.stop_wh - b.start_wh, 'CNY',
  round(((b.stop_wh - b.start_wh) * 0.0008)::numeric, 2),
  round(((b.stop_wh - b.start_wh) * 0.0004)::numeric, 2),
  round(((b.stop_wh - b.start_wh) * 0.0008)::numeric, 2)
    + round(((b.stop_wh - b.start_wh) * 0.0004)::numeric, 2),
  jsonb_build_array(jsonb_build_object('from', b.started_at, 'to', b.ended_at, 'energy_wh',
    b.stop_wh - b.start_wh, 'energy_price', '0.8', 'service_price', '0.4')),
  30, 30 + round((b.bms_wh / 600)::numeric), 60000, b.bms_wh, ''::bytea, b.ended_at
FROM bench_session b JOIN connector c USING (connector_id)
"""
# The last reading, at midnight, is one of the day after.
_PENDING = """
INSERT INTO rollup_pending (kind, day, instrument_id)
SELECT kind, day, id FROM unnest(ARRAY[$1::date, $1 + 1]) AS due (day) CROSS JOIN (
  SELECT 0 AS kind, connector_id AS id FROM connector
  UNION ALL SELECT 1, meter_id FROM reference_meter) AS instrument
"""


@dataclass(frozen=True, kw_only=True)
class BenchCity:
    """How large the city is."""

    connectors: int
    days: int = 30
    readings_a_day: int = 24
    seed: int = 1

    @property
    def stations(self) -> int:
        """Number of stations, each with one feeder meter."""
        return -(-self.connectors // CONNECTORS_A_STATION)

    @property
    def end(self) -> datetime:
        """End of the history."""
        return datetime.fromtimestamp((FIRST_DAY + self.days) * DAY_S, UTC)


@dataclass(frozen=True)
class _Day:
    begin_slot: Ints  # (n,), of the charge, within the day
    slot_wh: Floats  # (n,), true energy of one active slot
    indicated_wh: Floats  # (n,), the same as indicated


class CityWriter:
    """Makes the city's days in order and writes them; keeps the registers."""

    def __init__(self, city: BenchCity) -> None:
        self.city = city
        self.random = np.random.default_rng(city.seed)
        n = city.connectors
        self.error = self.random.normal(0, 0.003, n)
        offenders = self.random.random(n) < OFFENDERS
        self.error[offenders] = 0.06 * self.random.choice([-1.0, 1.0], int(offenders.sum()))
        self.scale = self.random.normal(0, 0.01, VEHICLES_A_CONNECTOR * n)
        self.register_wh = np.full(n, 1e6)
        self.station = np.arange(n) // CONNECTORS_A_STATION
        self.is_dc = self.station % 3 == 0

    async def write_history(self, connection: asyncpg.Connection) -> dict[str, int]:
        """Write registry, rollups and sessions of all days but the last; return rows written."""
        sizes = {
            "connectors": self.city.connectors,
            "stations": self.city.stations,
            "each": CONNECTORS_A_STATION,
        }
        await connection.execute(_REGISTRY.format(**sizes), timeout=600)
        await connection.execute(_STAGE)
        counts = {"connector_intervals": 0, "meter_intervals": 0, "sessions": 0}
        for number in range(self.city.days - 1):
            day = self._draw()
            own, meters = self._rollups(number, day)
            for kind, records in zip(rollup_kinds(), (own, meters), strict=True):
                columns = kind.interval_columns
                await copy_records_in(connection, kind.rollups, records, columns=columns)
            counts["connector_intervals"] += len(own)
            counts["meter_intervals"] += len(meters)
            counts["sessions"] += await self._write_sessions(connection, number, day)
            self._pass(day)
        await connection.execute("ANALYZE", timeout=600)
        return counts

    async def write_last_day(self, connection: asyncpg.Connection) -> dict[str, int]:
        """Write readings and sessions of the last day; return rows written."""
        number, day = self.city.days - 1, self._draw()
        counts = {
            "sessions": await self._write_sessions(connection, number, day),
            "readings": await self._write_readings(connection, number, day),
            "meter_readings": await self._write_meter_readings(connection, number, day),
        }
        at = date.fromordinal(date(1970, 1, 1).toordinal() + FIRST_DAY + number)
        await connection.execute(_PENDING, at, timeout=600)
        await connection.execute("ANALYZE register_reading, reference_reading", timeout=600)
        self._pass(day)
        return counts

    def _pass(self, day: _Day) -> None:
        """Let a day pass: registers go on."""
        self.register_wh = np.round(self.register_wh + ACTIVE_SLOTS * day.indicated_wh, 3)

    def _draw(self) -> _Day:
        n = self.city.connectors
        power = self.random.uniform(3000, 6900, n)
        true_wh = power * SLOT_S / 3600
        return _Day(
            self.random.integers(1, SLOTS_A_DAY - ACTIVE_SLOTS - 1, n),
            true_wh,
            np.round(true_wh * (1 + self.error), 3),
        )

    def _rollups(self, number: int, day: _Day) -> tuple[Records, Records]:
        """Return a day's rollups of connectors and of meters."""
        n, first = self.city.connectors, (FIRST_DAY + number) * SLOTS_A_DAY
        ids = np.arange(1, n + 1)
        active = first + day.begin_slot[:, None] + np.arange(ACTIVE_SLOTS)
        slots = np.column_stack([np.full(n, first), active, np.full(n, first + SLOTS_A_DAY - 1)])
        energy = np.zeros(slots.shape)
        energy[:, 1:-1] = day.indicated_wh[:, None]
        own = _interval_rows(np.repeat(ids, slots.shape[1]), slots.ravel(), energy.ravel(), u=0.6)
        meters = _interval_rows(
            np.repeat(np.arange(1, self.city.stations + 1), SLOTS_A_DAY),
            np.tile(first + np.arange(SLOTS_A_DAY), self.city.stations),
            np.round(self._feeders(day).ravel() / 10) * 10,
            u=4.1,
        )
        return own, meters

    def _feeders(self, day: _Day) -> Floats:
        """Return true energies at the feeder meters, Wh, shape (stations, slots)."""
        n = self.city.connectors
        active = day.begin_slot[:, None] + np.arange(ACTIVE_SLOTS)
        feeder = np.full((self.city.stations, SLOTS_A_DAY), AUXILIARY_W * SLOT_S / 3600)
        drawn = day.slot_wh / np.where(self.is_dc, PILE_EFFICIENCY, 1.0)
        np.add.at(
            feeder,
            (self.station[:, None], active),
            np.repeat(drawn, ACTIVE_SLOTS).reshape(n, -1),
        )
        return feeder

    async def _write_sessions(self, connection: asyncpg.Connection, number: int, day: _Day) -> int:
        n = self.city.connectors
        begin_s = ((FIRST_DAY + number) * SLOTS_A_DAY + day.begin_slot) * SLOT_S
        rows = np.empty(n, _SESSION)
        vehicle = self.random.integers(0, VEHICLES_A_CONNECTOR * n, n)
        rows["connector_id"] = np.arange(1, n + 1)
        rows["number"] = number * n + np.arange(n)
        rows["vehicle"] = vehicle
        rows["started_at"] = (begin_s * 1_000_000).view("M8[us]")
        rows["ended_at"] = ((begin_s + ACTIVE_SLOTS * SLOT_S) * 1_000_000).view("M8[us]")
        rows["start_wh"] = self.register_wh
        rows["stop_wh"] = np.round(self.register_wh + ACTIVE_SLOTS * day.indicated_wh, 3)
        noise = self.random.normal(0, 0.01, n)
        rows["bms_wh"] = 0.9 * ACTIVE_SLOTS * day.slot_wh * np.exp(self.scale[vehicle] + noise)
        await connection.execute("TRUNCATE bench_session")
        await copy_records_in(connection, "bench_session", rows)
        await connection.execute(_SESSIONS, timeout=600)
        return n

    async def _write_readings(self, connection: asyncpg.Connection, number: int, day: _Day) -> int:
        n, count = self.city.connectors, self.city.readings_a_day
        at_s = np.linspace(0, DAY_S, count)
        begin_s = day.begin_slot[:, None] * float(SLOT_S)
        done = np.clip((at_s - begin_s) / (ACTIVE_SLOTS * SLOT_S), 0, 1)
        rows = np.empty(n * count, _READING)
        base_us = (FIRST_DAY + number) * 86_400_000_000
        rows["at"] = np.tile((base_us + np.rint(at_s * 1e6)).astype(np.int64), n).view("M8[us]")
        rows["connector_id"] = np.repeat(np.arange(1, n + 1), count)
        energy = self.register_wh[:, None] + done * (ACTIVE_SLOTS * day.indicated_wh)[:, None]
        rows["energy_wh"] = np.round(energy, 3).ravel()
        for name in ("power_w", "voltage_v", "current_a", "soc_pct"):
            rows[name] = np.nan
        rows["session_key"] = 0
        rows["context"] = 0
        await copy_records_in(connection, "register_reading", rows)
        return len(rows)

    async def _write_meter_readings(
        self, connection: asyncpg.Connection, number: int, day: _Day
    ) -> int:
        """Write each meter's register at the begin of every slot and at the day's end."""
        m, base_us = self.city.stations, (FIRST_DAY + number) * 86_400_000_000
        energy = np.cumsum(np.pad(self._feeders(day), ((0, 0), (1, 0))), axis=1)
        rows = np.empty(energy.size, _METER_READING)
        at_us = base_us + np.arange(SLOTS_A_DAY + 1) * SLOT_S * 1_000_000
        rows["at"] = np.tile(at_us, m).view("M8[us]")
        rows["meter_id"] = np.repeat(np.arange(1, m + 1), SLOTS_A_DAY + 1)
        rows["energy_wh"] = np.round(energy.ravel() / 10) * 10
        await copy_records_in(connection, "reference_reading", rows)
        return len(rows)


def _interval_rows(instrument: Ints, slot: Ints, energy_wh: Floats, *, u: float) -> Records:
    rows = np.empty(instrument.size, INTERVAL)
    rows["instrument"] = instrument
    rows["slot_at"] = (slot * SLOT_S * 1_000_000).astype(np.int64).view("M8[us]")
    rows["energy_wh"] = energy_wh
    rows["u_wh"] = u
    rows["quality"] = 0
    return rows
