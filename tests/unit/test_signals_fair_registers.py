"""Awkward but honest registers and clocks raise nothing; those that cheat alike are found."""

import numpy as np
from facts import block_of
from register_readings import PILES, charge, codes, readings

from chargewatch.signals.billing import Billing
from chargewatch.signals.grain import steps_of_sessions
from chargewatch.signals.registers import Piles
from chargewatch.signals.registry import findings_of
from chargewatch.signals.sessions import BilledSessions

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


def test_a_reboot_that_restores_the_register_a_little_back_is_no_decrease():
    assert codes(readings([5000, 5100, 5085, 5085, 5200])) == []
    assert codes(readings([5000, 5100, 5040, 5040, 5160])) == ["register_decrease"]
    charging = codes(readings([5000, 5100, 5085, 5085, 5200], power=6_000.0))
    assert "register_decrease" in charging
    assert codes(readings([5000, 5100, 5085, 5085, 5200], session=1)) == ["register_decrease"]
    assert "register_decrease" in codes(readings([5000, 5100, 5085, 5100, 5085]))


def lagging_sessions(lag_s, *, cheat_wh=0.0):
    """Return codes of four charges of 30 min whose times sessions tell lag_s later."""
    minutes = np.arange(240)
    level = np.cumsum((minutes % 60 < 30) & (minutes % 60 > 0)) * 100.0
    given = readings(50_000 + level, begin=[0, 60, 120, 180], end=[29, 89, 149, 209])
    first = np.array([0, 60, 120, 180])
    lag = np.broadcast_to(np.asarray(lag_s, float), (4,))
    start, stop = given.energy_wh[first], given.energy_wh[first + 29] + cheat_wh
    sessions = BilledSessions(
        name=np.arange(4),
        connector=np.zeros(4, np.int64),
        started_s=given.at_s[first] + lag,
        ended_s=given.at_s[first + 29] + lag,
        start_wh=start,
        stop_wh=stop,
        billed_wh=stop - start,
    )
    found = findings_of(block_of(given, PILES, sessions=sessions))
    return {finding.code for finding in found if finding.code.startswith("session")}


def test_a_steady_lag_between_sessions_and_readings_is_told_apart_from_wrong_registers():
    assert lagging_sessions(0.0) == set()
    assert lagging_sessions(130.0) == set()
    assert lagging_sessions([0.0, 70.0, 130.0, 10.0]) == {"session_register_mismatch"}
    assert lagging_sessions(130.0, cheat_wh=500.0) == {"session_register_mismatch"}


def test_readings_mixed_by_a_clock_set_back_raise_nothing_and_cheats_beside_do():
    true_s = np.arange(120) * 15.0
    energy = 100_000 + np.round(true_s * 6_600 / 3600)
    told = true_s + np.where(true_s < 900, 47.0, 0.0)
    order = np.argsort(told)
    assert codes(readings(energy[order], at=told[order], power=6_600.0)) == []
    for charge_begins in (55, 58, 61):
        # A charge that begins (or, told the other way round, ends) as the clock is set back.
        begun = np.where(np.arange(120) < charge_begins, energy[charge_begins], energy)
        keep = np.append([0], np.arange(charge_begins, 120))
        times = np.append(true_s[0] - 1800.0, told[charge_begins:])
        order_begun = np.argsort(times)
        given = readings(begun[keep][order_begun], at=times[order_begun] + 1800, power=6_600.0)
        assert codes(given) == [], charge_begins
        # Another charge ended two minutes before.
        times[0] = told[charge_begins:].min() - 120.0
        order_begun = np.argsort(times)
        given = readings(begun[keep][order_begun], at=times[order_begun], power=6_600.0)
        assert "register_decrease" not in codes(given), charge_begins
    fallen = energy.copy()
    fallen[80:] -= 300
    found = codes(readings(fallen[order], at=told[order], power=6_600.0))
    assert "register_decrease" in found
    dip = charge(power=6_600.0)
    dip[30] -= 150
    assert "register_decrease" in codes(readings(dip, power=6_600.0))


def test_a_fall_soon_before_another_over_a_long_gap_is_judged():
    at = [0, 60, 120, 180, 4_000]
    assert set(codes(readings([9000, 9010, 8000, 8010, 7000], at=at))) == {"register_decrease"}


def test_the_step_of_a_register_shows_in_its_sessions():
    rng = np.random.default_rng(4)
    ends = np.cumsum(rng.uniform(3_000, 30_000, (3, 12)), axis=1) + 100_000
    ends[0] = np.floor(ends[0] / 1000) * 1000
    ends[1] = np.floor(ends[1] / 100) * 100
    connector = np.repeat(np.arange(3), 11)
    start, stop = ends[:, :-1].ravel(), ends[:, 1:].ravel()
    told = np.array([np.nan, 1.0, 1.0])
    assert steps_of_sessions(connector, start, stop, told).tolist() == [1000.0, 100.0, 1.0]
    few = connector[[0]], start[[0]], stop[[0]]
    assert np.isnan(steps_of_sessions(*few, told)[0])


def test_a_register_that_wavers_by_its_last_digit_is_counted_and_has_not_fallen():
    still = np.full(60, 5_000.0)
    wavering = still - np.arange(60) % 2
    assert codes(readings(wavering)) == ["register_jitter"]
    (found,) = findings_of(block_of(readings(wavering), PILES))
    assert (found.value, found.count, found.records[0]["times"]) == (30.0, 1, 30)
    assert codes(readings(wavering[:20])) == []
    noisy = still + np.where(np.arange(60) % 2, 0.02, 0.0)
    assert codes(readings(noisy)) == []
    assert "register_decrease" in codes(readings(still - 3 * (np.arange(60) % 2)))


def test_vehicles_without_a_gap_and_sessions_without_energy_raise_nothing():
    minutes = np.arange(120)
    level = 50_000.0 + np.clip(minutes - 10, 0, 90) * 100
    named = np.where((minutes >= 10) & (minutes < 50), 1, np.where(minutes <= 100, 2, 0))
    named[:10] = 0
    given = readings(level, session=named)
    start = np.array([10, 50, 105])
    stop = np.array([50, 100, 106])
    done = BilledSessions(
        name=np.arange(3),
        connector=np.zeros(3, np.int64),
        started_s=given.at_s[start],
        ended_s=given.at_s[stop],
        start_wh=level[start],
        stop_wh=level[stop],
        billed_wh=level[stop] - level[start],
    )
    assert findings_of(block_of(given, PILES, sessions=done)) == []
    billing = Billing(sessions=done, resolution_wh=np.ones(3), rated_w=np.full(3, 7000.0))
    assert findings_of(billing) == []


def test_a_pile_that_is_shut_for_weeks_raises_nothing():
    week_s = 7 * 86_400.0
    at = np.concatenate([np.arange(60) * 60.0, 3 * week_s + np.arange(60) * 60.0])
    energy = np.concatenate([charge(), charge()[-1] + np.zeros(60)])
    assert codes(readings(energy, at=at, session=1)) == []
