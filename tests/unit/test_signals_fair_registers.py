"""Awkward but honest registers and clocks raise nothing; those that cheat alike are found."""

import numpy as np
from facts import block_of
from test_signals_registers import PILES, charge, codes, readings

from chargewatch.signals.registers import Piles

FAST = Piles(rated_power_w=np.array([120_000.0]), resolution_wh=np.array([1.0]))


def refreshed(*, n=240, power=6_600.0, read_s=15.0, refresh_s=60.0, start=100_000.0):
    """Return a register that moves at whole refreshes only."""
    at = np.arange(n) * read_s
    return start + np.round(np.floor(at / refresh_s) * refresh_s * power / 3600)


def coarse(*, power, n=240, read_s=60.0, step=1000.0):
    return np.floor((100_300.0 + np.arange(n) * read_s * power / 3600) / step) * step


def test_a_register_refreshed_less_often_than_it_is_read_raises_nothing():
    energy = refreshed()
    assert codes(readings(energy, step_s=15.0, power=6_600.0)) == []
    assert codes(readings(energy, step_s=15.0, session=1)) == []
    energy = refreshed(power=100_000.0)
    assert codes(readings(energy, step_s=15.0, power=100_000.0), FAST) == []
    uneven = refreshed(read_s=45.0)
    assert codes(readings(uneven, step_s=45.0, power=6_600.0)) == []


def test_a_slow_register_that_stands_or_jumps_beyond_its_refresh_is_found():
    stuck = refreshed()
    stuck[100:132] = stuck[100]
    found = codes(readings(stuck, step_s=15.0, power=6_600.0))
    assert "stuck_register" in found
    jumped = refreshed()
    jumped[100:] += 500
    assert "register_jump" in codes(readings(jumped, step_s=15.0, power=6_600.0))


def test_a_step_of_a_kilowatt_hour_that_the_registry_does_not_tell_raises_nothing():
    assert codes(readings(coarse(power=6_600.0), power=6_600.0)) == []
    assert codes(readings(coarse(power=6_600.0), session=1)) == []
    assert codes(readings(coarse(power=90_000.0), power=90_000.0), FAST) == []


def test_a_coarse_register_that_jumps_falls_or_stands_is_found():
    jumped, fallen, stuck = (coarse(power=6_600.0) for _ in range(3))
    jumped[100:] += 5_000
    assert "register_jump" in codes(readings(jumped, power=6_600.0))
    fallen[100:] -= 4_000
    assert "register_decrease" in codes(readings(fallen, power=6_600.0))
    stuck[100:] = stuck[100]
    assert "stuck_register" in codes(readings(stuck, power=6_600.0))


def test_a_fine_register_with_one_round_jump_is_not_coarse():
    energy = charge(power=5_993.0)
    energy[30:] += 2_000
    assert "register_jump" in codes(readings(energy, power=5_993.0))


def test_a_new_meter_whose_first_session_makes_it_a_thousand_times_larger_is_no_unit_fault():
    energy = [5_000_000, 10, 10, 10_100, 10_100]
    at = [0, 60, 120, 7_200, 7_300]
    assert codes(readings(energy, at=at, reset=[1])) == []
    assert codes(readings([10, 10, 10_100, 10_100], at=[0, 60, 120, 180])) == ["unit_fault"]
    assert codes(readings([10_100, 10_100, 10.1, 10.2], at=[0, 60, 7_200, 7_300])) == ["unit_fault"]


def test_what_a_slow_register_is_seen_to_be():
    pairs = block_of(readings(refreshed(), step_s=15.0, power=6_600.0), PILES).pairs
    assert set(pairs.refresh_s) == {60.0}
    pairs = block_of(readings(coarse(power=6_600.0), power=6_600.0), PILES).pairs
    assert (set(pairs.resolution_wh), set(pairs.refresh_s)) == ({1000.0}, {0.0})
    pairs = block_of(readings(charge(power=5_993.0), power=5_993.0), PILES).pairs
    assert (set(pairs.resolution_wh), set(pairs.refresh_s)) == ({1.0}, {0.0})
