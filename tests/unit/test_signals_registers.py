"""Signals that registers prove, on readings made by hand."""

import numpy as np
import pytest
from facts import block_of
from hypothesis import given
from hypothesis import strategies as st
from register_readings import PILES, T0, charge, codes, readings

from chargewatch.domain.rollover import rollover_energy
from chargewatch.domain.times import DAY_S
from chargewatch.risk.registers import Quality, interval_energy
from chargewatch.signals.findings import Names
from chargewatch.signals.merge import merge_findings
from chargewatch.signals.registers import Piles
from chargewatch.signals.registry import findings_of


def test_steady_charging_raises_nothing():
    assert codes(readings(charge(), power=6000.0)) == []


def test_a_falling_register_is_a_decrease():
    found = findings_of(block_of(readings([5000, 5010, 4000, 4010]), PILES))
    assert [f.code for f in found] == ["register_decrease"]
    assert found[0].value == -1010
    assert found[0].limit == -1
    assert found[0].first_s == T0 + 60
    assert found[0].last_s == T0 + 120
    assert found[0].records[0]["before_wh"] == 5010


def test_a_declared_reset_is_no_decrease():
    assert codes(readings([5000, 5010, 0, 10], reset=[2])) == []


def test_a_fall_of_one_resolution_is_rounding():
    assert codes(readings([5000, 5001, 5000, 5002])) == []


def test_a_rollover_at_a_power_of_ten_is_no_decrease():
    assert codes(readings([999_990, 999_999, 40, 60])) == []


@pytest.mark.parametrize(
    ("before", "after", "hours", "energy"),
    [
        (999_995.0, 5.0, 0.1, 10.0),
        (940_000.0, 4_000.0, 10.0, 64_000.0),  # read at begin and end only
        (940_000.0, 40_000.0, 10.0, None),  # more than the span can hold
        (99_995.0, 5.0, 0.1, 10.0),
        (9_995.0, 5.0, 0.1, None),  # below five digits
        (500_000.0, 5.0, 1e3, None),  # not near its end
        (5.0, 999_995.0, 1e3, None),
    ],
)
def test_rollover_by_hand(before, after, hours, energy):
    found = rollover_energy(
        np.array([before]), np.array([after]), span_s=np.array([hours * 3600]), rated_w=7000.0
    )
    assert found.tolist() == [energy] if energy else np.isnan(found).all()
    # The engine's energies go by the same rule.
    counted = interval_energy(
        np.zeros(2, np.int64),
        np.array([0.0, hours * 3600]),
        np.array([before, after]),
        reset=np.zeros(2, bool),
        resolution_wh=np.ones(1),
        rated_w=np.array([7000.0]),
        first_slot=0,
        last_slot=5000,
    )
    fell = ((counted.quality & int(Quality.FAULT)) != 0).any()
    assert fell == (after < before and energy is None)
    signals = codes(readings([before, after], at=[0, hours * 3600]))
    assert ("register_decrease" in signals) == fell
    if energy:
        assert counted.energy_wh.sum() == pytest.approx(energy)


def test_a_step_beyond_rated_power_is_a_jump():
    # 7 kW x 1.1 x 62 s = 132.6 Wh, and 2 Wh of resolution.
    assert codes(readings([0, 100, 230, 360])) == []
    assert codes(readings([0, 100, 300, 400])) == ["register_jump"]


def test_a_jump_is_not_judged_without_rated_power():
    piles = Piles(rated_power_w=np.array([np.nan]), resolution_wh=np.array([1.0]))
    assert codes(readings([0, 100, 300_000, 300_100]), piles) == []


def test_a_single_outlying_reading_counts_once():
    assert codes(readings([50_000, 50_100, 20_000, 50_300, 50_400])) == ["register_decrease"]
    assert codes(readings([50_000, 50_100, 90_000, 50_300, 50_400])) == ["register_jump"]


def test_a_register_that_stands_while_power_flows_is_stuck():
    assert codes(readings([1000.0] * 30, power=6000.0)) == ["stuck_register"]


def test_idle_registers_are_not_stuck():
    assert codes(readings([1000.0] * 500, power=0.0)) == []
    assert codes(readings([1000.0] * 500)) == []


def test_power_at_the_end_of_one_session_and_the_begin_of_the_next_is_no_stuck_register():
    energy = [1000.0, 1100.0, 1100.0, 1200.0]
    power = [6000.0, 6000.0, 6000.0, 6000.0]
    at = [0, 60, 760, 820]
    assert codes(readings(energy, power=power, at=at, session=[1, 1, 2, 2])) == []
    assert codes(readings(energy, power=power, at=at, end=[1], begin=[2])) == []
    assert codes(readings(energy, power=power, at=at)) == ["stuck_register"]


def test_power_and_register_apart_by_ten_per_cent_are_a_mismatch():
    assert codes(readings(charge(gain=1.10), power=6000.0)) == ["power_register_mismatch"]
    assert codes(readings(charge(gain=1.03), power=6000.0)) == []


def test_less_than_a_kilowatt_hour_proves_no_mismatch():
    assert codes(readings(charge(n=6, gain=1.10), power=6000.0)) == []


def test_kilowatt_hours_for_watt_hours_are_a_unit_fault_and_nothing_else():
    energy = np.concatenate([charge(n=40), charge(n=40, start=105_000.0) / 1000])
    assert codes(readings(energy, power=6000.0)) == ["unit_fault"]
    assert codes(readings(100 + np.arange(60) * 0.1, power=6000.0)) == ["unit_fault"]


def test_late_order_does_not_matter_because_readings_are_sorted_by_time():
    order = np.random.default_rng(1).permutation(60)
    energy, at = charge()[order], (np.arange(60) * 60.0)[order]
    again = np.argsort(at)
    assert codes(readings(energy[again], at=at[again], power=6000.0)) == []


@given(
    gaps=st.lists(st.floats(1.0, 7200.0), min_size=2, max_size=60),
    power=st.lists(st.floats(0.0, 7000.0), min_size=60, max_size=60),
    resolution=st.sampled_from([0.001, 1.0, 10.0]),
)
def test_a_true_register_raises_nothing_however_it_is_read(gaps, power, resolution):
    at = np.cumsum(gaps)
    flow = np.array(power[: len(gaps)])
    true_wh = 50_000 + np.concatenate([[0], np.cumsum(flow[1:] * np.diff(at) / 3600)])
    energy = np.floor(true_wh / resolution) * resolution
    piles = Piles(rated_power_w=np.array([7000.0]), resolution_wh=np.array([resolution]))
    assert codes(readings(energy, at=at), piles) == []


def test_findings_of_several_days_merge_into_one_signal():
    energy = [5000.0, 4000.0, 5000.0, 4000.0]
    found = findings_of(block_of(readings(energy, at=[0, 60, 2 * DAY_S, 2 * DAY_S + 60]), PILES))
    names = Names(
        connector=["C1", "C2"],
        connector_station=["S", "S"],
        connector_operator=["O", "O"],
        station=["S"],
        station_operator=["O"],
    )
    (signal,) = (s for s in merge_findings(found, names) if s.code == "register_decrease")
    assert signal.count == 2
    assert signal.connector == "C1"
    assert signal.station_id == "S"
    assert signal.evidence["subject"] == "connector:C1"
    assert signal.evidence["days"] == 2
    assert len(signal.evidence["records"]) == 2
    assert signal.first_at.timestamp() == T0
    assert signal.last_at.timestamp() == T0 + 2 * DAY_S + 60
