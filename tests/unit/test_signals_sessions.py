"""Signals that sessions prove: registers at their times, billing, state of charge, counters."""

from dataclasses import replace

import numpy as np
from facts import block_of

from chargewatch.domain.times import DAY_S
from chargewatch.signals.billing import Billing
from chargewatch.signals.registers import Piles, Readings
from chargewatch.signals.registry import findings_of
from chargewatch.signals.rules import idle_consumption, register_discontinuity, soc_implausible
from chargewatch.signals.sessions import BatterySessions, BilledSessions, Charges
from chargewatch.signals.signed import Signatures, SignedSessions

T0 = 20_500 * DAY_S
BASE = T0 - 10 * DAY_S
AS_OF = T0 + 5 * DAY_S
PILES = Piles(rated_power_w=np.array([7000.0]), resolution_wh=np.array([1.0]))


def sessions(rows):
    """rows: (start s after T0, end s, start_wh, stop_wh, billed_wh)."""
    table = np.array(rows, float).reshape(len(rows), 5)
    return BilledSessions(
        name=np.arange(len(rows)),
        connector=np.zeros(len(rows), np.int64),
        started_s=T0 + table[:, 0],
        ended_s=T0 + table[:, 1],
        start_wh=table[:, 2],
        stop_wh=table[:, 3],
        billed_wh=table[:, 4],
    )


def given_readings(at, energy, session=0, power=np.nan):
    n = len(at)
    return Readings(
        connector=np.zeros(n, np.int64),
        at_s=T0 + np.asarray(at, float),
        energy_wh=np.asarray(energy, float),
        power_w=np.broadcast_to(np.asarray(power, float), (n,)).copy(),
        session=np.broadcast_to(np.asarray(session, np.int64), (n,)).copy(),
        is_reset=np.zeros(n, bool),
        is_begin=np.zeros(n, bool),
        is_end=np.zeros(n, bool),
    )


def block(given, done, complete=True, as_of_s=AS_OF):
    return block_of(given, PILES, sessions=done, complete=complete, as_of_s=as_of_s, base_s=BASE)


def idle(given, done, complete=True, as_of_s=AS_OF):
    return idle_consumption.find(block(given, done, complete=complete, as_of_s=as_of_s))


EVERY_10_MIN = np.arange(0, DAY_S, 600.0)


def test_a_leak_of_fifteen_watts_is_idle_consumption():
    found = idle(
        given_readings(EVERY_10_MIN, 1000 + np.floor(EVERY_10_MIN * 15 / 3600)), sessions([])
    )
    assert [f.code for f in found] == ["idle_consumption"]
    assert 350 < found[0].value < 361


def test_creep_below_fifty_watt_hours_a_day_is_none():
    assert (
        idle(given_readings(EVERY_10_MIN, 1000 + np.floor(EVERY_10_MIN * 2 / 3600)), sessions([]))
        == []
    )


def test_a_register_that_wavers_by_a_step_of_ten_has_no_idle_energy():
    wavering = 1000 + 10.0 * (np.arange(EVERY_10_MIN.size) % 2)
    tens = Piles(rated_power_w=np.array([7000.0]), resolution_wh=np.array([10.0]))
    given = given_readings(EVERY_10_MIN, wavering)
    assert idle_consumption.find(block_of(given, tens, base_s=BASE, as_of_s=AS_OF)) == []


def test_energy_inside_a_session_is_not_idle():
    energy = 1000 + np.clip(EVERY_10_MIN - 6000, 0, 6000) * 2
    done = sessions([(6000, 12_000, 1000, 13_000, 12_000)])
    assert idle(given_readings(EVERY_10_MIN, energy), done) == []
    assert len(idle(given_readings(EVERY_10_MIN, energy), sessions([]))) == 1


def test_readings_that_name_a_session_explain_its_missing_record():
    energy = 1000 + np.clip(EVERY_10_MIN - 6000, 0, 6000) * 2
    named = np.where((EVERY_10_MIN >= 6000) & (EVERY_10_MIN <= 12_000), 7, 0)
    assert idle(given_readings(EVERY_10_MIN, energy, session=named), sessions([])) == []


def test_a_long_span_counts_only_where_no_message_is_missing():
    given = given_readings([0, 10_000], [1000, 9000])
    assert len(idle(given, sessions([]), complete=True)) == 1
    assert idle(given, sessions([]), complete=False) == []


def test_a_session_that_still_runs_is_not_idle():
    energy = 1000 + np.clip(EVERY_10_MIN - 80_000, 0, None) * 1.5
    power = np.where(EVERY_10_MIN >= 80_000, 5400.0, 0.0)
    given = given_readings(EVERY_10_MIN, energy, power=power)
    assert idle(given, sessions([]), as_of_s=T0 + DAY_S) == []
    after = np.append(EVERY_10_MIN, [DAY_S + 600.0, DAY_S + 1200.0])
    given = given_readings(
        after, np.append(energy, energy[[-1, -1]]), power=np.append(power, [0, 0])
    )
    assert len(idle(given, sessions([]), as_of_s=T0 + 4 * DAY_S)) == 1


def test_a_charge_of_more_than_a_day_that_still_runs_is_not_idle():
    at = np.arange(0, 4 * DAY_S, 600.0)
    power = np.where(at >= 20_000, 3000.0, 0.0)
    energy = 1000 + np.floor(np.clip(at - 20_000, 0, None) * 3000 / 3600)
    assert idle(given_readings(at, energy, power=power), sessions([]), as_of_s=T0 + 4 * DAY_S) == []
    # So may one in whose middle the readings end.
    early = given_readings(at[:300], energy[:300], power=power[:300])
    assert idle(early, sessions([]), as_of_s=T0 + 9 * DAY_S) == []
    # One that ended without a record of it is found once a day has passed.
    ended = np.minimum(energy, energy[200])
    power = np.where(at < at[200], power, 0.0)
    given = given_readings(at, ended, power=power)
    assert len(idle(given, sessions([]), as_of_s=T0 + 4 * DAY_S)) == 2


def off(given, done):
    found = findings_of(block(given, done))
    return [f for f in found if f.code in {"unit_fault", "session_register_mismatch"}]


def test_a_session_between_its_readings_is_on_the_register():
    given = given_readings([0, 600, 1200, 1800], [1000, 1000, 2000, 2000])
    assert off(given, sessions([(600, 1200, 1000, 2000, 1000)])) == []
    # Between readings any value between them is possible.
    assert off(given, sessions([(900, 1500, 1400, 2000, 600)])) == []


def test_a_session_off_the_register_is_found_with_its_distance():
    given = given_readings([0, 600, 1200, 1800], [1000, 1000, 2000, 2000])
    found = off(given, sessions([(600, 1200, 1000, 2500, 1500)]))
    assert [f.code for f in found] == ["session_register_mismatch"]
    assert found[0].value == 500


def test_a_session_in_kilowatt_hours_is_a_unit_fault():
    given = given_readings([0, 600, 1200, 1800], [100_000, 100_000, 101_000, 101_000])
    assert {f.code for f in off(given, sessions([(600, 1200, 100, 101, 1)]))} == {"unit_fault"}


def gaps(given, done, complete=True):
    return register_discontinuity.find(block(given, done, complete=complete))


def test_a_session_that_starts_where_the_last_one_ended_is_continuous():
    given = given_readings([0, 600, 1200, 4000, 5000], [1000, 1000, 2000, 2000, 3000])
    done = sessions([(600, 1200, 1000, 2000, 1000), (4000, 5000, 2000, 3000, 1000)])
    assert gaps(given, done) == []


def test_a_session_that_starts_elsewhere_is_a_discontinuity():
    given = given_readings([0, 600, 1200, 4000, 5000, 6000], [1000, 1000, 2000, 2000, 3000, 3000])
    for start in (2600, 1500):
        done = sessions([(600, 1200, 1000, 2000, 1000), (4000, 5000, start, 3000, 1000)])
        assert [f.code for f in gaps(given, done)] == ["register_discontinuity"]


def test_a_missing_session_explains_a_step_forward():
    at = [0, 600, 1200, 2000, 3000, 4000, 5000]
    given = given_readings(
        at, [1000, 1000, 2000, 2000, 2800, 2800, 3800], session=[0, 1, 1, 2, 2, 0, 3]
    )
    done = sessions([(600, 1200, 1000, 2000, 1000), (4000, 5000, 2800, 3800, 1000)])
    assert gaps(given, done) == []


def test_without_readings_only_a_complete_station_proves_a_step_forward():
    nothing = given_readings([], [])
    done = sessions([(600, 1200, 1000, 2000, 1000), (4000, 5000, 2800, 3800, 1000)])
    assert len(gaps(nothing, done, complete=True)) == 1
    assert gaps(nothing, done, complete=False) == []


def billing(rows, rated_w=np.nan):
    given = Billing(
        sessions=sessions(rows),
        resolution_wh=np.ones(len(rows)),
        rated_w=np.full(len(rows), rated_w),
    )
    return findings_of(given)


def many(ratios, energy=20_000.0):
    return [
        (k * 7200, k * 7200 + 3600, k * energy, (k + 1) * energy, round(energy * ratio))
        for k, ratio in enumerate(ratios)
    ]


def test_one_ratio_over_many_sessions_is_loss_adjusted_billing():
    found = billing(many([1.05] * 12))
    assert {f.code for f in found} == {"loss_adjusted_billing"}
    assert found[0].value == 1.05


def test_a_ratio_that_begins_in_the_window_is_found_too():
    found = billing(many([1.0] * 12 + [1.03] * 6))
    assert {f.code for f in found} == {"loss_adjusted_billing"}
    assert sum(f.count for f in found) == 6


def test_scattered_differences_are_mismatches():
    found = billing(many([1.0, 1.2, 1.0, 0.9, 1.07, 1.0, 1.31, 1.44, 1.02]))
    assert {f.code for f in found} == {"session_register_mismatch"}
    assert sum(f.count for f in found) == 6


def test_a_few_sessions_at_one_ratio_are_mismatches():
    assert {f.code for f in billing(many([1.05] * 4))} == {"session_register_mismatch"}


def test_rounding_of_billed_energy_is_no_mismatch():
    assert billing([(0, 3600, 100, 20_104, 20_000), (7200, 9000, 20_104, 30_109, 10_010)]) == []


def test_a_bill_a_thousand_times_off_is_a_unit_fault():
    assert {f.code for f in billing(many([0.001] * 6, energy=20_000))} == {"unit_fault"}


def soc(energy, start, stop, capacity=60_000.0, bms=np.nan):
    rows = sessions([(0, 3600, 0, energy, energy)])
    battery = BatterySessions(
        soc_start_pct=np.array([start], float),
        soc_stop_pct=np.array([stop], float),
        battery_capacity_wh=np.array([capacity], float),
        bms_energy_wh=np.array([bms], float),
    )
    return bool(soc_implausible.implausible(rows, battery)[0])


def test_energy_and_state_of_charge_within_a_factor_of_two_are_plausible():
    assert not soc(33_000, 20, 70)
    assert not soc(17_000, 20, 70)  # an aged battery
    assert not soc(1500, 50, 50)
    assert not soc(33_000, np.nan, np.nan, np.nan)


def test_impossible_energies_for_the_battery_are_cases():
    assert soc(80_000, 20, 70)
    assert soc(10_000, 20, 70)
    assert soc(10_000, 70, 40)
    assert soc(20_000, 20, 50, bms=6_000)
    assert soc(20_000, np.nan, np.nan, np.nan, bms=6_000)


def zero(rows, given=None, rated_w=7000.0):
    """Return what sessions that count from zero raise: by themselves, or beside readings."""
    found = billing(rows, rated_w)
    if given is not None:
        found += findings_of(block(given, sessions(rows)))
    return [f for f in found if f.code in {"zero_baseline", "session_register_mismatch"}]


def test_a_session_that_bills_the_lifetime_register_is_found_with_what_was_delivered():
    (found,) = zero([(0, 600, 909_917, 910_000, 910_000)])
    assert (found.code, found.value, found.limit) == ("zero_baseline", 910_000, 83)
    assert found.detail.endswith("which grew by 83 Wh")
    assert found.records[0]["register_grew_wh"] == 83


def test_a_session_that_begins_at_zero_and_ends_at_the_lifetime_register_is_found():
    (found,) = zero([(0, 600, 0, 910_000, 910_000)])
    assert found.code == "zero_baseline"
    assert "rated power can't give more than 2063 Wh" in found.detail
    (found,) = zero([(0, 600, 900_000, 909_917, 9917), (900, 1500, 0, 910_000, 910_000)])
    assert found.detail.endswith("which grew by 83 Wh")
    assert [f.code for f in zero([(0, 600, 0, 910_000, 910_000)], rated_w=np.nan)] == [
        "zero_baseline"
    ]


def test_a_session_from_zero_that_only_its_readings_contradict_is_found_once():
    given = given_readings([0, 600, 1200, 1800], [1000, 1000, 1400, 1400])
    (found,) = zero([(600, 1200, 0, 1400, 1400)], given)
    assert (found.code, found.value, found.limit) == ("zero_baseline", 1400, 400)
    (again,) = zero([(600, 1200, 0, 910_000, 910_000)], given_readings([0, 1], [5, 5]))
    assert again.code == "zero_baseline"


def test_a_new_register_that_begins_at_zero_is_none_and_one_of_its_own_scope_is_a_mismatch():
    assert zero([(0, 3600, 0, 6000, 6000)]) == []
    assert zero([(0, 3600, 80_000, 86_000, 6000), (7200, 10_800, 0, 6000, 6000)]) == []
    fresh = given_readings([0, 600, 1200, 1800], [0, 0, 900, 900])
    assert zero([(600, 1200, 0, 900, 900)], fresh) == []
    assert zero([(600, 1200, 0, 0, 0)], fresh) == []
    given = given_readings([0, 600, 1200, 1800], [80_000, 80_000, 80_900, 80_900])
    found = zero([(600, 1200, 0, 900, 900)], given)
    assert {f.code for f in found} == {"session_register_mismatch"}


def test_a_session_over_which_the_register_rolls_over_is_billed_right():
    assert billing([(0, 3600, 997_000, 3000, 6000)]) == []
    assert [f.code for f in billing([(0, 3600, 997_000, 3000, 9000)])] == [
        "session_register_mismatch"
    ]


def charges(rows, found=(), connectors=None, by_bms=False):
    """rows: (connector, vehicle, whether the battery can't have taken the energy)."""
    table = np.array(sorted(rows), np.int64).reshape(len(rows), 3)
    n = len(rows)
    energy = np.where(table[:, 2] > 0, 200_000.0, 33_000.0)
    done = sessions([(60 * k, 60 * k + 50, 0, energy[k], energy[k]) for k in range(n)])
    told = np.full(n, np.nan) if by_bms else np.full(n, 20.0)
    battery = BatterySessions(
        soc_start_pct=told,
        soc_stop_pct=told + 50,
        battery_capacity_wh=np.full(n, np.nan if by_bms else 60_000.0),
        bms_energy_wh=np.full(n, 30_000.0 if by_bms else np.nan),
    )
    size = int(table[:, 0].max()) + 1
    return Charges(
        sessions=replace(done, connector=table[:, 0]),
        battery=battery,
        vehicle=table[:, 1],
        found=list(found),
        asked=np.ones(size, bool) if connectors is None else np.isin(np.arange(size), connectors),
    )


def city(*, connectors=30, each=30, garbage=0.03, bad=()):
    """Each connector has a vehicle of its own for every session; some tell nonsense, one by one."""
    rng = np.random.default_rng(5)
    return [
        (c, 1 + c * each + k, int(c in bad or rng.random() < garbage))
        for c in range(connectors)
        for k in range(each)
    ]


def soc_rows(given):
    return sorted({finding.row for finding in soc_implausible.find(given)})


def test_nonsense_at_the_rate_of_the_city_is_nobodys_finding():
    assert soc_rows(charges(city())) == []
    assert soc_rows(charges(city(garbage=0.2))) == []


def test_a_connector_whose_sessions_are_implausible_is_found_beside_garbage():
    (found, *_) = soc_implausible.find(charges(city(bad=[4])))
    assert soc_rows(charges(city(bad=[4]))) == [4]
    assert soc_rows(charges(city(bad=[4]), connectors=[0, 1, 2])) == []
    assert found.detail.startswith("30 of 30 sessions can't be, elsewhere 4 %;")
    assert (found.value, round(found.limit, 2)) == (1.0, 0.04)
    by_bms = soc_implausible.find(charges(city(bad=[4]), by_bms=True))
    assert "the battery says 30000 Wh" in by_bms[0].detail


def test_two_cases_are_no_finding_and_a_small_city_needs_more():
    assert soc_rows(charges([(0, k, int(k < 2)) for k in range(1, 3)] + city(connectors=1))) == []
    alone = [(0, k, 1) for k in range(1, 6)]
    assert soc_rows(charges(alone)) == []
    assert soc_rows(charges([(0, k, 1) for k in range(1, 20)])) == [0]


def test_a_vehicle_that_tells_nonsense_everywhere_explains_its_own_cases():
    liar = 10_000
    rows = city(garbage=0.0) + [(c, liar, 1) for c in (0, 1, 2) for _ in range(5)]
    assert soc_rows(charges(rows)) == []
    # Right elsewhere, wrong only here: that is the connector.
    honest = [(c, liar, 0) for c in (1, 2, 3) for _ in range(5)]
    here = [(0, vehicle, 1) for vehicle in (liar, liar, liar, liar + 1)]
    assert soc_rows(charges(city(garbage=0.0) + honest + here)) == [0]


def test_vehicles_of_a_station_all_of_whose_connectors_are_wrong_explain_nothing():
    rows = city(garbage=0.0)
    rows += [(c, 10_000 + v, 1) for c in (30, 31, 32, 33) for v in range(6) for _ in range(2)]
    assert soc_rows(charges(rows)) == [30, 31, 32, 33]


def test_one_vehicle_among_many_is_no_evidence_against_a_connector():
    rows = city(garbage=0.0) + [(0, 10_000, 1)] * 10
    assert soc_rows(charges(rows)) == []
    assert soc_rows(charges([*city(garbage=0.0), (0, 10_001, 1), *[(0, 10_000, 1)] * 10])) == [0]
    assert soc_rows(charges([*city(garbage=0.0), *[(0, 0, 1)] * 10])) == [0]


def signed(counters, valid=None, last=None):
    n = len(counters)
    return SignedSessions(
        name=np.arange(n),
        connector=np.zeros(n, np.int64),
        ended_s=T0 + np.arange(n) * 3600.0,
        forged=np.zeros(n, bool) if valid is None else ~np.array(valid),
        reason=tuple("" if ok else "the signature doesn't fit" for ok in valid or [True] * n),
        first=np.array(counters, np.int64),
        last=np.array(counters if last is None else last, np.int64),
        counter=np.ones(n, np.int64),
        first_record=100 + np.arange(n),
        last_record=100 + np.arange(n),
    )


def signature_findings(given, complete):
    return findings_of(Signatures(signed=given, complete=complete))


def counter_codes(given, complete=True):
    return [f.code for f in signature_findings(given, complete=np.array([complete]))]


def test_a_counter_that_goes_on_has_no_hole():
    assert counter_codes(signed([4, 5, 6, 7])) == []
    assert counter_codes(signed([4, 6, 8, 10])) == []  # begin and end apart, begin not sent
    assert counter_codes(signed([4, 6, 8], last=[5, 7, 9])) == []


def test_a_hole_and_a_repeated_number_are_found():
    assert counter_codes(signed([4, 5, 8, 9])) == ["signature_pagination_gap"]
    assert counter_codes(signed([4, 5, 5, 6])) == ["signature_pagination_gap"]


def test_missing_messages_explain_a_hole_but_no_repetition():
    assert counter_codes(signed([4, 5, 8, 9]), complete=False) == []
    assert counter_codes(signed([4, 5, 5, 6]), complete=False) == ["signature_pagination_gap"]


def test_a_false_signature_is_found():
    found = signature_findings(signed([4, 5], valid=[True, False]), complete=np.array([True]))
    assert [(f.code, f.detail) for f in found] == [
        ("signature_invalid", "the signature doesn't fit")
    ]


def test_a_record_that_came_before_is_found():
    again = replace(signed([4, 5, 6]), first_record=np.array([7, 8, 7]))
    found = signature_findings(again, complete=np.array([True]))
    assert [(f.code, f.records[0]["session"]) for f in found] == [("signed_record_mismatch", 2)]
    at_its_end = replace(again, first_record=np.array([7, 8, 9]), last_record=np.array([1, 2, 7]))
    assert [f.code for f in signature_findings(at_its_end, complete=np.array([True]))] == [
        "signed_record_mismatch"
    ]


def test_counters_are_compared_by_number_and_over_all_connectors_of_a_gateway():
    shared = replace(signed([4, 5, 6, 7]), connector=np.array([0, 1, 0, 1]))
    complete = np.array([True, True])
    assert signature_findings(shared, complete=complete) == []
    told_late = replace(signed([4, 7, 5, 6]), connector=np.array([0, 1, 0, 1]))
    assert signature_findings(told_late, complete=complete) == []
    own = replace(shared, counter=np.array([1, 2, 1, 2]))
    found = signature_findings(own, complete=complete)
    assert found == []  # two counters that go on by two


def test_no_signed_session_has_no_finding():
    assert signature_findings(signed([]), complete=np.array([True])) == []
    assert counter_codes(signed([9])) == []
