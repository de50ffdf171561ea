"""Rollups as columns: sorted, and mapped from ids to the rows of a run."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from chargewatch.runs.rollups import intervals_of
from chargewatch.storage.rollups import (
    INTERVAL,
    SLOT_US,
    IntervalColumns,
    slot_of,
    slot_time,
    slots_of,
    sorted_columns,
)

KEYS = st.lists(st.tuples(st.integers(0, 50), st.integers(0, 3_000_000)), unique=True, max_size=40)


def chunk(keys: list[tuple[int, int]]) -> np.ndarray:
    rows = np.zeros(len(keys), dtype=INTERVAL)
    rows["instrument"] = [key[0] for key in keys]
    rows["slot_at"] = (np.array([key[1] for key in keys], dtype=np.int64) * SLOT_US).view("M8[us]")
    rows["energy_wh"] = [1000.0 * key[0] + key[1] for key in keys]
    return rows


@given(KEYS, st.integers(0, 40))
def test_columns_are_sorted_by_instrument_and_slot(keys: list[tuple[int, int]], cut: int) -> None:
    columns = sorted_columns([chunk(keys[:cut]), chunk(keys[cut:])])
    found = list(zip(columns.instrument.tolist(), columns.slot.tolist(), strict=True))
    assert found == sorted(keys)
    assert columns.energy_wh.tolist() == [1000.0 * i + slot for i, slot in sorted(keys)]


@given(KEYS, st.permutations(range(51)), st.integers(0, 51))
def test_instruments_become_rows_of_the_run(
    keys: list[tuple[int, int]], order: list[int], listed: int
) -> None:
    row_of_id = {instrument: row for row, instrument in enumerate(order[:listed])}
    intervals = intervals_of(sorted_columns([chunk(keys)]), row_of_id=row_of_id)
    found = list(zip(intervals.instrument.tolist(), intervals.slot.tolist(), strict=True))
    assert found == sorted((row_of_id[i], slot) for i, slot in keys if i in row_of_id)


def test_no_rollups_are_no_intervals() -> None:
    none: IntervalColumns = sorted_columns([])
    assert intervals_of(none, row_of_id={}).slot.size == 0
    assert intervals_of(none, row_of_id={4: 0}).slot.size == 0


def test_slot_begins_at_its_time() -> None:
    assert slot_time(0).isoformat() == "1970-01-01T00:00:00+00:00"
    assert slot_of(slot_time(1_969_248)) == 1_969_248
    assert slots_of(np.array([0, SLOT_US - 1, SLOT_US]).view("M8[us]")).tolist() == [0, 0, 1]
