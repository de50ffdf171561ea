"""Rollups equal a computation from all readings, exactly, whatever happens on the way."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import asyncpg
import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from chargewatch.domain.mpe import rule_set
from chargewatch.risk.registers import Quality, interval_energy
from chargewatch.runs import rollup_rows
from chargewatch.runs import rollups as engine
from chargewatch.runs.load import load, read_block
from chargewatch.runs.rollups import refresh_rollups
from chargewatch.storage import rollup_due as due
from chargewatch.storage.database import Database, open_database
from chargewatch.storage.intake.events import EventRow, store_events
from chargewatch.storage.intake.readings import STORED
from chargewatch.storage.runs import rollups as store
from chargewatch.wire.payloads import CONTEXTS

RESET = CONTEXTS.index("Register.Reset")
BEGIN = datetime(2026, 3, 1, tzinfo=UTC)
Row = tuple[int, datetime, float, bool]


async def store_readings(connection: asyncpg.Connection, rows: list[Row], *, kind: int = 0) -> None:
    """Write readings the way ingest does: readings first, then the days that are due."""
    if kind == 0:
        await connection.executemany(
            "INSERT INTO register_reading VALUES "
            "($2, $1, $3, 'NaN', 'NaN', 'NaN', 'NaN', 0, $4) ON CONFLICT DO NOTHING",
            [(i, at, wh, RESET if reset else 0) for i, at, wh, reset in rows],
        )
    else:
        await connection.executemany(
            "INSERT INTO reference_reading VALUES ($2, $1, $3) ON CONFLICT DO NOTHING",
            [row[:3] for row in rows],
        )
    await connection.executemany(
        "INSERT INTO rollup_pending VALUES ($1, $2, $3) ON CONFLICT DO NOTHING",
        sorted({(kind, row[0], row[1].date()) for row in rows}),
    )


async def stored(connection: asyncpg.Connection, *, kind: int = 0) -> dict[tuple[int, int], Any]:
    table, column = [
        ("connector_interval", "connector_id"),
        ("meter_interval", "meter_id"),
    ][kind]
    rows = await connection.fetch(
        f"SELECT {column}, slot_at, energy_wh, u_wh, quality FROM {table}"
    )
    return {(r[0], store.slot_of(r[1])): (r[2], r[3], r[4]) for r in rows}


def expected(rows: list[Row], *, resolution_wh: float = 10.0, dense: bool = False) -> dict:
    """Return the rows that belong to all readings of each instrument, computed on its own."""
    result = {}
    for instrument in {row[0] for row in rows}:
        unique: dict[datetime, tuple[float, bool]] = {}
        for row in rows:
            if row[0] == instrument:
                unique.setdefault(row[1], (row[2], row[3]))
        times = sorted(unique)
        at_s = np.array([time.timestamp() for time in times])
        intervals = interval_energy(
            np.zeros(len(times), dtype=np.int64),
            at_s,
            np.array([unique[time][0] for time in times]),
            reset=np.array([unique[time][1] for time in times]),
            resolution_wh=np.array([resolution_wh]),
            first_slot=int(at_s[0] // 900) - 2,
            last_slot=int(at_s[-1] // 900) + 2,
        )
        covered = (math.floor(at_s[0] / 900), math.ceil(at_s[-1] / 900) - 1)
        for slot, wh, u, quality in zip(
            intervals.slot.tolist(),
            intervals.energy_wh.tolist(),
            intervals.u_wh.astype(np.float32).tolist(),
            intervals.quality.tolist(),
            strict=True,
        ):
            defect = quality & ~int(Quality.INTERPOLATED)
            if dense or wh != 0 or defect or slot in covered or slot % 96 in {0, 95}:
                result[instrument, slot] = (wh, u, quality)
    return result


class _KilledError(Exception):
    pass


@pytest.fixture
async def database(any_database_url: str) -> Any:
    async with open_database(any_database_url) as opened:
        yield opened


def steps(*points: tuple[float, float], instrument: int = 1) -> list[Row]:
    """Return readings at hours after BEGIN with registers in Wh."""
    return [(instrument, BEGIN + timedelta(hours=h), wh, False) for h, wh in points]


async def test_first_refresh_equals_a_computation_from_the_readings(database: Database) -> None:
    rows = [
        (i, BEGIN + timedelta(minutes=7 * k + i), 1000.0 * i + k * (k % 5) * 100, False)
        for i in (1, 2, 3)
        for k in range(400)
    ]
    async with database.raw() as connection:
        await store_readings(connection, rows)
        report = await refresh_rollups(database)
        assert await stored(connection) == expected(rows)
        assert report.waiting == 0
        assert report.pairs == 3 * 2
        assert report.rows_removed <= report.rows_written


async def test_idle_slots_are_not_stored_but_close_their_day(database: Database) -> None:
    rows = steps(*[(hour / 4, 500.0) for hour in range(4 * 72 + 1)])
    async with database.raw() as connection:
        await store_readings(connection, rows)
        await refresh_rollups(database)
        slots = sorted(slot % 96 for _, slot in await stored(connection))
    assert slots == [0, 0, 0, 95, 95, 95]


async def test_second_refresh_changes_nothing(database: Database) -> None:
    rows = steps((0.1, 0), (5, 100), (30, 4000))
    async with database.raw() as connection:
        await store_readings(connection, rows)
        await refresh_rollups(database)
        before = await stored(connection)
        report = await refresh_rollups(database, recompute_all=True)
        assert await stored(connection) == before
    assert report.pairs == 2
    assert report.rows_written == report.rows_removed == 0


async def test_late_reading_of_a_closed_day_changes_the_days_around_it(database: Database) -> None:
    early = steps((1, 0), (12, 5000), (60, 50_000), (70, 60_000))
    late = steps((23 + 50 / 60, 5000))
    async with database.raw() as connection:
        await store_readings(connection, early)
        await refresh_rollups(database)
        before = await stored(connection)
        await store_readings(connection, late)
        await refresh_rollups(database)
        after = await stored(connection)
    assert after == expected(early + late)
    next_day = store.slot_of(BEGIN + timedelta(hours=30))
    assert after[1, next_day][0] > before[1, next_day][0]


async def test_reset_register_counts_no_energy_across_the_reset(database: Database) -> None:
    rows = [
        *steps((0, 9_000_000), (1, 9_001_000)),
        (1, BEGIN + timedelta(hours=1, minutes=5), 0.0, True),
        *steps((2, 2000), (3, 2500)),
    ]
    async with database.raw() as connection:
        await store_readings(connection, rows)
        await refresh_rollups(database)
        result = await stored(connection)
    assert result == expected(rows)
    assert sum(value[0] for value in result.values()) == pytest.approx(3500)
    assert any(value[2] & Quality.RESET for value in result.values())


@pytest.mark.parametrize("kind", [0, 1])
async def test_a_meter_that_was_replaced_counts_no_energy_between_the_two(
    database: Database, kind: int
) -> None:
    # The new meter shows more than the old one, around midnight; it is declared later.
    rows = steps((22, 1000), (23.98, 2000), (24.5, 900_000), (25, 900_500))
    event = EventRow(
        "OP1",
        "ST1",
        connector_id=1 - kind,
        meter_id=kind,
        kind="meter_replaced",
        at=BEGIN + timedelta(hours=24, minutes=2),
        detail=None,
        serial=None,
        start_wh=None,
        stop_wh=None,
        received_at=BEGIN,
    )
    async with database.raw() as connection:
        await store_readings(connection, rows, kind=kind)
        await refresh_rollups(database)
        before = await stored(connection, kind=kind)
        assert sum(value[0] for value in before.values()) == pytest.approx(899_500)
        assert await store_events(connection, [event]) == [STORED]
        await refresh_rollups(database)
        after = await stored(connection, kind=kind)
    declared = [(*row[:3], row[2] == 900_000) for row in rows]
    assert after == expected(declared, dense=kind == 1)
    assert sum(value[0] for value in after.values()) == pytest.approx(1500)


async def test_meters_keep_every_slot(database: Database) -> None:
    rows = steps((0.5, 0), (3, 0), (9, 700))
    async with database.raw() as connection:
        await store_readings(connection, rows, kind=1)
        await refresh_rollups(database)
        assert await stored(connection, kind=1) == expected(rows, dense=True)
        assert len(await stored(connection, kind=1)) == 34


async def test_resolution_of_the_registry_is_used(database: Database) -> None:
    rows = steps((0, 0), (1, 1000), (2, 1000.0))
    async with database.raw() as connection:
        number = await connection.fetchval(
            "INSERT INTO connector (connector, operator_id, station_id, resolution_wh) "
            "VALUES ('C1', 'OP1', 'S1', 0.001) RETURNING connector_id"
        )
        rows = [(number, *row[1:]) for row in rows]
        await store_readings(connection, rows)
        await refresh_rollups(database)
        assert await stored(connection) == expected(rows, resolution_wh=0.001)


async def test_refresh_that_dies_is_finished_by_the_next_one(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [row for i in range(1, 8) for row in steps((1, 0), (20, 900), (40, 2000), instrument=i)]
    monkeypatch.setattr(engine, "ROLLUP_INSTRUMENTS", 3)
    release = due.release_claims
    calls = 0

    async def die(*arguments: Any, **options: Any) -> None:
        nonlocal calls
        calls += 1
        if calls == 3:
            raise _KilledError
        await release(*arguments, **options)

    async with database.raw() as connection:
        await store_readings(connection, rows)
        with monkeypatch.context() as patch:
            patch.setattr(engine.due, "release_claims", die)
            with pytest.raises(_KilledError):
                await refresh_rollups(database)
        assert await connection.fetchval("SELECT count(*) FROM rollup_claimed") > 0
        assert await stored(connection) != expected(rows)
        await refresh_rollups(database)
        assert await stored(connection) == expected(rows)
        assert await due.due_pairs(connection) == 0


async def test_one_instrument_that_fails_keeps_no_other_from_its_rollups(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [row for i in range(1, 8) for row in steps((1, 0), (20, 900), (40, 2000), instrument=i)]
    compute = engine.compute_rows

    def fail_for_three(readings: Any, affected: Any, **options: Any) -> Any:
        if 3 in affected.ids:
            raise ZeroDivisionError("a register that nobody thought of")
        return compute(readings, affected, **options)

    async with database.raw() as connection:
        await store_readings(connection, rows)
        with monkeypatch.context() as patch:
            patch.setattr(engine, "compute_rows", fail_for_three)
            report = await refresh_rollups(database)
        assert report.failed == [("connector", 3)]
        assert report.waiting == 2  # days
        others = {key: value for key, value in expected(rows).items() if key[0] != 3}
        assert await stored(connection) == others
        report = await refresh_rollups(database)
        assert (report.failed, report.pairs, report.waiting) == ([], 2, 0)
        assert await stored(connection) == expected(rows)


async def test_readings_committed_during_a_refresh_are_not_lost(database: Database) -> None:
    first, second = steps((1, 0), (2, 500)), steps((3, 1500), (4, 1500))
    async with database.raw() as connection, database.raw() as ingest:
        await store_readings(connection, first)
        transaction = ingest.transaction()
        await transaction.start()
        # The day is pending already: this leaves no new row, and nothing is visible yet.
        await store_readings(ingest, second)
        refresh = asyncio.create_task(refresh_rollups(database))
        for _ in range(500):
            await asyncio.sleep(0.01)
            if await connection.fetchval("SELECT count(*) FROM rollup_claimed"):
                break
        await asyncio.sleep(0.2)
        assert not refresh.done()
        await transaction.commit()
        await asyncio.wait_for(refresh, timeout=30)
        await refresh_rollups(database)
        assert await stored(connection) == expected(first + second)


async def test_writer_that_does_not_end_postpones_the_refresh(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "WRITERS_TIMEOUT_S", 0.2)
    rows = steps((1, 0), (2, 500))
    async with database.raw() as connection, database.raw() as ingest:
        await store_readings(connection, rows)
        transaction = ingest.transaction()
        await transaction.start()
        await store_readings(ingest, steps((3, 1500)))
        report = await refresh_rollups(database)
        assert report.pairs == 0
        assert report.waiting == 1
        await transaction.rollback()
        assert (await refresh_rollups(database)).pairs == 1
        assert await stored(connection) == expected(rows)


async def test_up_to_and_limit_leave_later_days_due(database: Database) -> None:
    rows = steps((1, 0), (30, 500), (50, 600), (80, 700))
    async with database.raw() as connection:
        await store_readings(connection, rows)
        report = await refresh_rollups(database, up_to=date(2026, 3, 3), limit_days=2)
        assert (report.days, report.waiting) == (2, 2)
        report = await refresh_rollups(database, up_to=date(2026, 3, 3))
        assert (report.days, report.waiting) == (1, 1)
        await refresh_rollups(database)
        assert await stored(connection) == expected(rows)


async def test_long_outage_is_computed_in_small_blocks(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rollup_rows, "BLOCK_SLOTS", 500)
    rows = [
        row
        for i in range(1, 6)
        for row in steps((1, 0), (24 * i * 3, 900.0 * i), (24 * i * 3 + 1, 1e4), instrument=i)
    ]
    async with database.raw() as connection:
        await store_readings(connection, rows)
        await refresh_rollups(database)
        assert await stored(connection) == expected(rows)


# Readings at odd and at even times, so that some lie on the edge of a slot or of a day.
NO_SHRINK = [Phase.explicit, Phase.generate]
READINGS = st.lists(
    st.tuples(
        st.integers(1, 3),
        st.one_of(
            st.integers(0, 4 * 96).map(lambda slot: slot * 900_000_000),
            st.integers(0, 4 * 86_400_000_000),
        ),
        st.sampled_from([0.0, 0.0, 1.0, 250.0, 3000.5]),
        st.sampled_from([False, False, False, True]),
    ),
    min_size=1,
    max_size=40,
)


def _history(draws: list[tuple[int, int, float, bool]]) -> list[Row]:
    """Make registers grow in the order of time; a reset begins again at zero."""
    registers: dict[int, float] = {}
    rows = {}
    for instrument, offset, step, reset in sorted(draws, key=lambda draw: (draw[1], draw[0])):
        level = 0.0 if reset else registers.get(instrument, 1000.0) + step
        registers[instrument] = level
        rows[instrument, offset] = (
            instrument,
            BEGIN + timedelta(microseconds=offset),
            level,
            reset,
        )
    return list(rows.values())


@pytest.fixture
def long_lived_url(embedded_server: Any) -> Iterator[str]:
    url = asyncio.run(embedded_server.clone())
    yield url
    asyncio.run(embedded_server.drop(url))


@settings(
    max_examples=40,
    deadline=None,
    phases=NO_SHRINK,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(draws=READINGS, order=st.randoms(use_true_random=False), batches=st.integers(1, 6))
def test_any_order_of_arrival_gives_the_same_rows(
    long_lived_url: str, draws: list[Any], order: Any, batches: int
) -> None:
    rows = _history(draws)
    arrivals = list(rows)
    order.shuffle(arrivals)
    size = max(1, math.ceil(len(arrivals) / batches))

    async def arrive() -> tuple[Any, Any]:
        async with open_database(long_lived_url) as database, database.raw() as connection:
            await connection.execute(
                "TRUNCATE register_reading, connector_interval, rollup_pending, rollup_claimed"
            )
            for first in range(0, len(arrivals), size):
                await store_readings(connection, arrivals[first : first + size])
                await refresh_rollups(database)
            step_by_step = await stored(connection)
            await connection.execute("TRUNCATE connector_interval")
            await refresh_rollups(database, recompute_all=True)
            return step_by_step, await stored(connection)

    step_by_step, at_once = asyncio.run(arrive())
    assert step_by_step == at_once == expected(rows)


async def test_a_run_reads_the_rollups_of_its_registry_up_to_its_time(database: Database) -> None:
    rows = [
        row for i in (5, 2, 9) for row in steps((1, 0), (9, 90.0 * i), (12, 99.0 * i), instrument=i)
    ]
    first, as_of = BEGIN + timedelta(hours=2), BEGIN + timedelta(hours=11)
    async with database.raw() as connection:
        await connection.executemany(
            "INSERT INTO connector (connector_id, connector, operator_id, station_id) "
            "OVERRIDING SYSTEM VALUE VALUES ($1, $2, 'OP', 'S1')",
            [(9, "C9"), (2, "C2")],
        )
        await store_readings(connection, rows)
        await refresh_rollups(database)
        loaded = await load(
            connection, first=first, as_of=as_of, rules=rule_set("CN-2022"), zone=ZoneInfo("UTC")
        )
        block = await read_block(connection, loaded, first=first, last=as_of)
    intervals = block.connector_intervals
    keys = list(zip(intervals.instrument.tolist(), intervals.slot.tolist(), strict=True))
    assert keys == sorted(keys)
    # Nobody registered 5; what lies after 9:00 rests on the readings of 12:00.
    last = store.slot_of(BEGIN + timedelta(hours=9))
    wanted = {
        key: value[0]
        for key, value in expected(rows).items()
        if key[0] != 5 and store.slot_of(first) <= key[1] < last
    }
    ids = loaded.registry.connector_ids.tolist()
    found = [(ids[row], slot) for row, slot in keys]
    assert dict(zip(found, intervals.energy_wh.tolist(), strict=True)) == wanted
