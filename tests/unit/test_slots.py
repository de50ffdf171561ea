"""Slots of 15 minutes and their times."""

from __future__ import annotations

import numpy as np

from chargewatch.storage.runs.rollups import SLOT_US, slot_of, slot_time, slots_of


def test_slot_begins_at_its_time() -> None:
    assert slot_time(0).isoformat() == "1970-01-01T00:00:00+00:00"
    assert slot_of(slot_time(1_969_248)) == 1_969_248
    assert slots_of(np.array([0, SLOT_US - 1, SLOT_US]).view("M8[us]")).tolist() == [0, 0, 1]
