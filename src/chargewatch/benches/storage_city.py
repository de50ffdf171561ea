"""Rows of a synthetic city of any size, written straight into the tables: for measuring only."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import asyncpg
import numpy as np

from chargewatch.domain.times import SLOTS_A_DAY
from chargewatch.domain.verdict import TIER_ORDER
from chargewatch.storage.bulk import Records, copy_records_in
from chargewatch.storage.pile_index import rebuild
from chargewatch.storage.runs.rollups import INTERVAL, SLOT_US, Kind, slot_of

CONNECTORS_A_SITE = 12


@dataclass(frozen=True, kw_only=True)
class CitySize:
    """How much of everything there is."""

    connectors: int
    days: int = 30
    active_slots: int = 8  # 15-minute slots with energy, per connector and day
    sessions: int = 3  # per connector, over all days
    closed_signals: int = 3  # per connector, newer than the open ones
    readings_a_day: int = 24  # raw readings of the last day, per connector
    seed: int = 1

    @property
    def stations(self) -> int:
        """Number of stations, each with one feeder meter."""
        return -(-self.connectors // CONNECTORS_A_SITE)


END = datetime(2026, 3, 31, tzinfo=UTC)

_REGISTRY = """
INSERT INTO operator (operator_id, name)
SELECT 'OP' || g, 'Operator ' || g FROM generate_series(1, 40) g;
INSERT INTO station (station_id, operator_id, name, district, longitude, latitude)
SELECT 'ST' || lpad(g::text, 6, '0'), 'OP' || (1 + g % 40), 'Station ' || g,
  (120101 + g % 16)::text, 117 + (g % 100) / 100.0, 39 + (g % 97) / 97.0
FROM generate_series(0, {stations} - 1) g;
INSERT INTO connector (connector_id, connector, operator_id, station_id, registered, pile, current,
  accuracy_class, rated_power_w, max_current_a, model, resolution_wh, cable_loss_compensated)
OVERRIDING SYSTEM VALUE
SELECT g + 1, 'ST' || lpad((g / {each})::text, 6, '0') || '-' || lpad((g % {each})::text, 2, '0'),
  'OP' || (1 + (g / {each}) % 40), 'ST' || lpad((g / {each})::text, 6, '0'), true,
  'P' || g / 2, CASE WHEN g % 3 = 0 THEN 'DC' ELSE 'AC' END, '2', 7000, 32, 'model ' || g % 50,
  1, false
FROM generate_series(0, {connectors} - 1) g;
INSERT INTO reference_meter (meter_id, meter, operator_id, station_id, registered, scope, current,
  relative_uncertainty, coverage_factor, resolution_wh, certificate)
OVERRIDING SYSTEM VALUE
SELECT g + 1, 'M' || g, 'OP' || (1 + g % 40), 'ST' || lpad(g::text, 6, '0'), true, 'station', 'AC',
  0.002, 2, 10, '' FROM generate_series(0, {stations} - 1) g;
INSERT INTO verification (connector_id, verified_on, valid_until, result, relative_error,
  expanded_uncertainty, coverage_factor)
SELECT g, date '2024-05-08' + g % 300, date '2027-05-07' + g % 300, 'pass', 0.001, 0.002, 2
FROM generate_series(1, {connectors}) g;
INSERT INTO latest_reading (connector_id, at, energy_wh, power_w, received_at)
SELECT g, timestamptz '{end}' - g % 600 * interval '1 s', 1e6, 0, '{end}'
FROM generate_series(1, {connectors}) g;
INSERT INTO station_status (operator_id, station_id, online, received_at)
SELECT operator_id, station_id, true, '{end}' FROM station;
INSERT INTO ledger_stream (operator_id, station_id, topic, messages, received, stored,
  first_seq, last_seq, last_received_at)
SELECT operator_id, station_id, topic, 5000, 240000, 240000, 1, 5000, '{end}'
FROM station, unnest(ARRAY['registers', 'reference', 'sessions', 'status']) topic;
INSERT INTO ledger_gap (stream_id, first_seq, last_seq, found_at, closed_at)
SELECT stream_id, 10, 12, '{end}', CASE WHEN stream_id % 10 > 0 THEN timestamptz '{end}' END
FROM ledger_stream WHERE stream_id % 20 < 3;
INSERT INTO quarantine (received_at, topic, operator_id, station_id, code, codes, errors, payload)
SELECT timestamptz '{end}' - g * interval '1 min', 'cw/v1/OP1/ST000001/registers', 'OP1',
  'ST' || lpad((g % {stations})::text, 6, '0'),
  code, ARRAY[code], jsonb_build_array(jsonb_build_object('index', 0, 'code', code, 'detail', 'd')),
  'payload'
FROM generate_series(1, 2 * {connectors}) g, LATERAL
  (SELECT (ARRAY['malformed', 'naive_time', 'conflict', 'too_old'])[1 + g % 4]) c (code)
"""

_RUNS = """
INSERT INTO risk_run (state, mode, as_of, started_at, finished_at, version, configuration, summary)
SELECT 'finished', 'full', timestamptz '{end}' - g * interval '1 day', '{end}', '{end}', '0',
  '{{}}', '{{}}' FROM generate_series({runs}, 0, -1) g;
INSERT INTO assessment (run_id, connector_id, relative_error, standard_uncertainty,
  common_uncertainty, mpe, p_nonconforming, verdict, tier, priority_money, n_intervals, n_sessions,
  n_vehicles, n_direct, method, budget)
SELECT run_id, g, (hashint4(g) % 1000) / 50000.0, 0.004, 0.002, 0.02,
  (hashint4(g + 1) & 1023) / 1023.0, 'undecided',
  (ARRAY{tiers})[CASE WHEN g % 100 < 2 THEN 1 WHEN g % 100 < 5 THEN 2 WHEN g % 100 < 12 THEN 3
    WHEN g % 100 < 20 THEN 4 ELSE 5 END], (hashint4(g + 2) & 4095) / 10.0, 900, 60, 40, 0, 'joint',
  '[{{"component": "evidence", "standard_uncertainty": 0.004}}]'
FROM risk_run, generate_series(1, {connectors}) g;
INSERT INTO signal (code, severity, subject, connector, station_id, operator_id, first_at, last_at,
  count, value, "limit", detail, evidence, rule_version, opened_run, last_run, closed_run)
SELECT (ARRAY['fee_mismatch', 'silence', 'register_jump', 'clock_skew'])[1 + connector_id % 4],
  'mild', 'connector:' || connector, connector, station_id, operator_id, '{end}', '{end}', 1, 1, 0,
  'detail', '{{}}', 1, 1, 1, CASE WHEN connector_id % 3 = 0 THEN 1 END
FROM connector WHERE connector_id % 20 < 2;
INSERT INTO signal (code, severity, subject, connector, station_id, operator_id, first_at, last_at,
  count, value, "limit", detail, evidence, rule_version, opened_run, last_run, closed_run)
SELECT (ARRAY['fee_mismatch', 'silence', 'register_jump', 'clock_skew'])[1 + connector_id % 4],
  'mild', 'connector:' || connector, connector, station_id, operator_id, '{end}', '{end}', 1, 1, 0,
  'detail', '{{}}', 1, 1, 1, 1 FROM generate_series(1, {closed_signals}), connector;
INSERT INTO charging_session (operator_id, station_id, connector_id, session, vehicle, started_at,
  ended_at, start_wh, stop_wh, billed_wh, content_hash, received_at)
SELECT c.operator_id, c.station_id, c.connector_id, 'S-' || c.connector_id || '-' || g,
  'v-' || (c.connector_id * 7 + g) % (3 * {connectors}),
  timestamptz '{end}' - (g + 1) * interval '9 h', timestamptz '{end}' - g * interval '9 h', 0,
  20000, 20000, '', '{end}' FROM generate_series(1, {sessions}) g, connector c
"""


async def write_registry(connection: asyncpg.Connection, size: CitySize, *, runs: int = 3) -> None:
    """Write registry, ledger, quarantine, runs, assessments, signals and sessions."""
    values = {
        "stations": size.stations,
        "connectors": size.connectors,
        "each": CONNECTORS_A_SITE,
        "sessions": size.sessions,
        "closed_signals": size.closed_signals,
        "end": END.isoformat(),
        "runs": runs - 1,
        "tiers": json.dumps([tier.value for tier in TIER_ORDER]).replace('"', "'"),
    }
    for statement in (_REGISTRY + ";" + _RUNS).format(**values).split(";\n"):
        await connection.execute(statement, timeout=1800)
    async with connection.transaction():
        await rebuild(connection)


def _intervals(instrument: np.ndarray, slot: np.ndarray, random: np.random.Generator) -> Records:
    rows = np.empty(len(slot), dtype=INTERVAL)
    rows["slot_at"] = (slot * SLOT_US).view("M8[us]")
    rows["instrument"] = instrument
    rows["energy_wh"] = random.uniform(100, 3000, len(slot))
    rows["u_wh"] = 5.0
    rows["quality"] = 1
    return rows


def day_of_connectors(size: CitySize, day: int) -> Records:
    """Return a day of rollups as a refresh stores them: active slots, first and last of the day."""
    random = np.random.default_rng((size.seed, day))
    first = slot_of(END) - (size.days - day) * SLOTS_A_DAY
    begin = random.integers(1, SLOTS_A_DAY - 1 - size.active_slots, size.connectors)
    offsets = np.concatenate(([0], np.arange(size.active_slots), [SLOTS_A_DAY - 1]))
    slot = np.repeat(offsets[None, :], size.connectors, axis=0)
    slot[:, 1:-1] += begin[:, None]
    instrument = np.repeat(np.arange(1, size.connectors + 1), slot.shape[1])
    rows = _intervals(instrument, first + slot.ravel(), random)
    edge = np.isin(slot.ravel(), (0, SLOTS_A_DAY - 1))
    rows["energy_wh"][edge] = 0
    rows["quality"][edge] = 0
    return rows


def day_of_meters(size: CitySize, day: int) -> Records:
    """Return a day of rollups of the feeder meters: every slot."""
    random = np.random.default_rng((size.seed, day, 1))
    first = slot_of(END) - (size.days - day) * SLOTS_A_DAY
    instrument = np.repeat(np.arange(1, size.stations + 1), SLOTS_A_DAY)
    slot = first + np.tile(np.arange(SLOTS_A_DAY), size.stations)
    return _intervals(instrument, slot, random)


async def write_rollups(
    connection: asyncpg.Connection, size: CitySize, *, kinds: tuple[Kind, Kind]
) -> int:
    """Write the rollups of all days; return the number of rows of connectors."""
    rows = 0
    for day in range(size.days):
        for kind, records in zip(
            kinds, (day_of_connectors(size, day), day_of_meters(size, day)), strict=True
        ):
            await copy_records_in(connection, kind.rollups, records, columns=kind.interval_columns)
            rows += len(records) if kind.number == 0 else 0
    return rows


def reading_batches(
    size: CitySize,
    dtype: np.dtype[np.void],
    *,
    batch: int,
    first_connector: int = 1,
    begin: datetime = END - timedelta(days=1),
) -> Iterator[Records]:
    """Yield raw readings of a day as they would arrive: all connectors, time by time."""
    step_us = 86_400_000_000 // size.readings_a_day
    begin_us = int(begin.timestamp()) * 1_000_000
    ids = np.arange(first_connector, first_connector + size.connectors, dtype=np.int32)
    for k in range(size.readings_a_day):
        for start in range(0, size.connectors, batch):
            part = ids[start : start + batch]
            rows = np.zeros(len(part), dtype=dtype)
            rows["at"] = (begin_us + k * step_us + part.astype(np.int64) % 60 * 1_000_000).view(
                "M8[us]"
            )
            rows["connector_id"] = part
            rows["energy_wh"] = 1e6 + 100.0 * k
            for name in ("power_w", "voltage_v", "current_a", "soc_pct"):
                rows[name] = np.nan
            yield rows
