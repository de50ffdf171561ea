import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chargewatch.risk.registers import (
    Quality,
    interpolation_variance,
    interval_energy,
)


def energies(at_s, energy_wh, *, reset=None, first=0, last=8, resolution=1.0):
    at = np.asarray(at_s, dtype=float)
    return interval_energy(
        np.zeros(at.size, dtype=np.int64),
        at,
        np.asarray(energy_wh, dtype=float),
        reset=np.zeros(at.size, dtype=bool) if reset is None else np.asarray(reset),
        resolution_wh=np.array([resolution]),
        first_slot=first,
        last_slot=last,
    )


def test_readings_at_the_slots_ends_give_their_differences():
    found = energies([0, 900, 1800], [100, 350, 360])
    assert found.slot.tolist() == [0, 1]
    assert found.energy_wh.tolist() == [250.0, 10.0]
    assert found.quality.tolist() == [0, 0]
    # Two roundings of a register of 1 Wh: sqrt(2 / 12).
    assert found.u_wh == pytest.approx(np.sqrt(1 / 6))


def test_a_span_over_a_boundary_is_shared_in_proportion_to_time():
    found = energies([0, 600, 1200, 1800], [0, 100, 400, 400])
    assert found.energy_wh == pytest.approx([250.0, 150.0])
    assert (found.quality & Quality.INTERPOLATED).all()
    # E = 300 Wh, w = 1/2, T = 600 s; reading coefficients -1, 1/2, 1/2 and -1/2, -1/2, 0, 1.
    spread = 300**2 * 0.25 * (0.05**2 + 0.78**2 * (1 - np.exp(-600 / 3600)))
    assert found.u_wh[0] == pytest.approx(np.sqrt(spread + 1.5 / 12))
    assert found.u_wh[1] == pytest.approx(np.sqrt(spread + 1.5 / 12))


def test_an_uncovered_part_of_a_slot_is_a_gap():
    found = energies([300, 900, 1500], [0, 60, 60])
    assert (found.quality & Quality.GAP).astype(bool).tolist() == [True, True]


def test_a_long_span_with_energy_is_a_gap_and_without_is_not():
    found = energies([0, 7200], [0, 800])
    assert found.energy_wh == pytest.approx(np.full(8, 100.0))
    assert (found.quality & Quality.GAP).all()
    assert not energies([0, 7200], [500, 500]).quality.any()


def test_a_declared_reset_is_marked_and_counts_nothing():
    found = energies([0, 450, 900, 1800], [5000, 5100, 0, 70], reset=[False, False, True, False])
    assert found.energy_wh == pytest.approx([100.0, 70.0])
    assert found.quality.tolist() == [int(Quality.RESET), 0]


def test_an_undeclared_fall_is_a_fault_and_counting_goes_on():
    found = energies([0, 450, 900, 1800], [5000, 5100, 3000, 3070])
    assert found.energy_wh == pytest.approx([100.0, 70.0])
    assert found.quality.tolist() == [int(Quality.FAULT), 0]


def test_a_rollover_counts_through():
    found = energies([0, 900, 1800], [999_900, 100, 300])
    assert found.energy_wh == pytest.approx([200.0, 200.0])
    assert not found.quality.any()
    assert energies([0, 900], [5_000, 4_000]).quality.tolist() == [int(Quality.FAULT)]


def test_interpolation_is_certain_at_both_ends_of_a_span():
    share = np.array([0.0, 0.5, 1.0])
    variance = interpolation_variance(np.full(3, 100.0), share, span_s=np.full(3, 60.0))
    assert variance[0] == variance[2] == 0.0
    one = interpolation_variance(np.array(100.0), np.array(0.5), span_s=np.array(60.0))
    assert variance[1] == one > 0


def test_no_readings_give_no_intervals():
    assert energies([], []).slot.size == 0
    assert energies([10.0], [5.0]).slot.size == 0


@st.composite
def histories(draw):
    rows = draw(st.integers(1, 3))
    instrument, at, energy, reset = [], [], [], []
    for row in range(rows):
        count = draw(st.integers(0, 25))
        times = sorted(set(draw(st.lists(st.integers(0, 20_000), min_size=count, max_size=count))))
        level = draw(st.integers(0, 2_000_000))
        for t in times:
            level = max(level + draw(st.integers(-300, 900)), 0)
            instrument.append(row)
            at.append(t / 2)
            energy.append(level / 4)
            reset.append(draw(st.integers(0, 15)) == 0)
    return (
        np.array(instrument, dtype=np.int64),
        np.array(at),
        np.array(energy),
        np.array(reset, dtype=bool),
        rows,
    )


@settings(max_examples=80, deadline=None)
@given(histories(), st.integers(0, 11), st.integers(1, 6))
def test_a_part_computed_from_the_readings_around_it_equals_the_whole_to_the_bit(
    history, begin, length
):
    instrument, at, energy, reset, rows = history
    resolution = np.full(rows, 0.25)
    whole = interval_energy(
        instrument, at, energy, reset=reset, resolution_wh=resolution, first_slot=0, last_slot=12
    )
    keep = np.zeros(at.size, dtype=bool)
    for row in range(rows):
        mine = np.flatnonzero(instrument == row)
        first = max(np.searchsorted(at[mine], begin * 900, "right") - 1, 0)
        last = np.searchsorted(at[mine], (begin + length) * 900, "left") + 1
        keep[mine[first:last]] = True
    part = interval_energy(
        instrument[keep],
        at[keep],
        energy[keep],
        reset=reset[keep],
        resolution_wh=resolution,
        first_slot=begin,
        last_slot=min(begin + length, 12),
    )
    inside = (whole.slot >= begin) & (whole.slot < begin + length)
    for name in ("instrument", "slot", "energy_wh", "u_wh", "quality"):
        assert np.array_equal(getattr(whole, name)[inside], getattr(part, name)), name


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(0, 500), min_size=2, max_size=30))
def test_slots_add_up_to_the_registers_difference(steps):
    at = np.cumsum(np.array(steps) + 1.0)
    energy = np.cumsum(np.array(steps, dtype=float))
    found = energies(at, energy, last=40)
    assert found.energy_wh.sum() == pytest.approx(energy[-1] - energy[0])
