"""Awkward but honest fleets: each oddity is on the wire as it is told, and none is a fault."""

import itertools
import json
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from zoneinfo import ZoneInfo

import numpy as np
import pytest
from simulated import Published

from chargewatch.evaluation.city_inputs import known_inputs
from chargewatch.risk.conditional import all_conditional_errors
from chargewatch.risk.situation_odds import nothing_told
from chargewatch.simulators.city import make_city
from chargewatch.simulators.oddities import ODDITIES
from chargewatch.simulators.scenario import load_scenario

# Clocks of Berlin change on 2026-03-29.
TO = datetime(2026, 3, 31, 16, tzinfo=UTC)
SIZE = {"stations": 12, "days": 10}
BILLS = (
    "no_service_fee",
    "coupon",
    "untold_coupon",
    "parking",
    "prepaid",
    "free",
    "member",
    "bundled",
)


class Odd:
    """A city with one of each oddity, and its plain twin."""

    def __init__(self):
        faults = [{"fault": kind.name, "count": 1} for kind in ODDITIES]
        self.city = make_city("honest-oddities", seed=3, to=TO, **SIZE, faults=faults)
        self.published = Published(self.city)
        self.plain = Published(make_city("honest-oddities", seed=3, to=TO, **SIZE, faults=[]))
        self.on = {row["fault"]: row["target"] for row in self.published.truth["faults"]}

    def readings(self, oddity, *, plain=False):
        published = self.plain if plain else self.published
        return sorted(published.readings[self.on[oddity]], key=lambda r: at(r["at"]))

    def sessions(self, oddity, *, plain=False):
        published = self.plain if plain else self.published
        return published.sessions[self.on[oddity]]

    def of_station(self, oddity, kind, *, plain=False):
        published = self.plain if plain else self.published
        end = f"/{self.on[oddity]}/{kind}"
        return [body for topic, body in published.messages if topic.endswith(end)]


def at(text):
    return datetime.fromisoformat(text)


def yuan(session, name):
    return Decimal(session.get(name, "0"))


@pytest.fixture(scope="module")
def odd():
    return Odd()


BATTERY = ("soc_start_pct", "soc_stop_pct", "battery_capacity_wh", "bms_energy_wh")


def test_vehicles_tell_nonsense_in_a_few_sessions_both_on_the_wire_and_in_memory(odd):
    clean = Published(
        make_city("honest-oddities", seed=3, to=TO, **SIZE, faults=[], garbage_share=0.0)
    )
    told = changed = 0
    wrong = set()
    for name, sessions in odd.plain.sessions.items():
        for session, before in zip(sessions, clean.sessions[name], strict=True):
            told += "bms_energy_wh" in before
            differing = {key for key in session if session[key] != before[key]}
            assert len(differing) <= 1
            changed += len(differing)
            wrong |= differing
    assert 0.02 < changed / told < 0.04
    assert wrong == set(BATTERY)
    inputs = known_inputs(make_city("honest-oddities", seed=3, to=TO, **SIZE, faults=[])).inputs
    for key in BATTERY:
        on_wire = [s[key] for rows in odd.plain.sessions.values() for s in rows if key in s]
        in_memory = getattr(inputs.sessions, key)
        in_memory = in_memory[np.isfinite(in_memory)]
        assert sorted(in_memory) == pytest.approx(sorted(on_wire), abs=1e-3)


def test_no_signal_is_asked_for_or_allowed_on_any_oddity(odd):
    for row in [*odd.published.truth["connectors"], *odd.published.truth["stations"]]:
        assert (row["signals"], row["allowed_signals"]) == ([], [])
    assert set(odd.on) == {kind.name for kind in ODDITIES}
    in_scenario = {spec.fault for spec in load_scenario("honest-oddities").faults}
    assert in_scenario == set(odd.on)


def test_the_true_errors_are_those_of_the_plain_city(odd):
    errors = [
        [row["relative_error"] for row in published.truth["connectors"]]
        for published in (odd.published, odd.plain)
    ]
    assert errors[0] == errors[1]


def test_a_slow_register_moves_on_whole_minutes_only(odd):
    readings = odd.readings("slow_register")
    inside = [r for r in readings if "session" in r]
    gaps = [
        at(b["at"]) - at(a["at"])
        for a, b in itertools.pairwise(inside)
        if a["session"] == b["session"] and not {"context"} & (a.keys() | b.keys())
    ]
    assert set(gaps) == {timedelta(seconds=15)}
    energies = [r["energy_wh"] for r in readings]
    assert energies == sorted(energies)
    standing = 0
    for a, b in itertools.pairwise(inside):
        if "context" in a or "context" in b or a["session"] != b["session"]:
            continue
        if at(a["at"]).minute == at(b["at"]).minute:
            assert a["energy_wh"] == b["energy_wh"]
            standing += 1
    assert standing > 100


def test_a_coarse_register_has_steps_that_the_registry_does_not_tell(odd):
    assert all(r["energy_wh"] % 1000 == 0 for r in odd.readings("coarse_register"))
    assert all(s["billed_wh"] % 1000 == 0 for s in odd.sessions("coarse_register"))
    name = odd.on["coarse_register"]
    (row,) = [c for c in odd.published.registry["connectors"] if c["connector"] == name]
    assert row["resolution_wh"] in (1, 10)


def test_a_register_in_floating_point_is_noisy_far_below_its_step(odd):
    steps = np.diff([r["energy_wh"] for r in odd.readings("float_register")])
    falls = steps[steps < 0]
    assert falls.size > 20
    assert falls.min() > -0.5


def test_a_register_of_six_digits_goes_on_at_zero_and_is_billed_through(odd):
    energies = np.array([r["energy_wh"] for r in odd.readings("six_digits")])
    assert energies.max() < 1e6
    (fall,) = np.flatnonzero(np.diff(energies) < -5e5)[:1]
    assert energies[fall] > 9e5 > 1e5 > energies[fall + 1]
    usual = odd.sessions("six_digits", plain=True)
    for session, plain in zip(odd.sessions("six_digits"), usual, strict=True):
        assert session["billed_wh"] == pytest.approx(plain["billed_wh"], abs=2)


def test_a_restored_register_falls_once_by_what_was_lost(odd):
    steps = [
        b["energy_wh"] - a["energy_wh"]
        for a, b in itertools.pairwise(odd.readings("restored_register"))
    ]
    (fall,) = [step for step in steps if step < 0]
    assert -20 <= fall <= -10


def test_a_new_meter_says_so_and_grows_a_thousandfold(odd):
    readings = odd.readings("new_meter")
    contexts = [r.get("context") for r in readings]
    place = contexts.index("Register.Reset")
    first, begin, end = readings[place : place + 3]
    assert (begin["context"], end["context"]) == ("Transaction.Begin", "Transaction.End")
    assert first["energy_wh"] == begin["energy_wh"]
    assert end["energy_wh"] / begin["energy_wh"] == pytest.approx(1000, rel=0.02)


def test_a_pile_that_is_read_only_while_it_charges(odd):
    assert all("session" in r for r in odd.readings("reads_while_charging"))
    told = {r["at"] for r in odd.readings("reads_while_charging")}
    assert told < {r["at"] for r in odd.readings("reads_while_charging", plain=True)}


def test_signed_records_of_another_scope_tell_the_same_energy(odd):
    for session in odd.sessions("signed_scope"):
        record = json.loads(session["signed"]["data"].split("|")[1])
        begin, end = (reading["RV"] for reading in record["RD"])
        assert begin == 0
        assert 1000 * end == pytest.approx(session["stop_wh"] - session["start_wh"])


def test_odd_bills_never_cost_more_than_energy_at_the_tariff_and_parking(odd):
    seen = {}
    for name in BILLS:
        pairs = zip(odd.sessions(name), odd.sessions(name, plain=True), strict=True)
        for session, usual in pairs:
            assert session["session"] == usual["session"]
            paid, fair = yuan(session, "total_fee"), yuan(usual, "total_fee")
            cents = Decimal("0.01") * len(session["periods"])
            assert paid <= fair + yuan(session, "other_fee") + cents
            if session != usual:
                seen.setdefault(name, []).append((session, usual))
    assert set(seen) == set(BILLS)
    for session, usual in seen["coupon"] + seen["parking"]:
        parts = yuan(session, "energy_fee") + yuan(session, "service_fee")
        parts += yuan(session, "other_fee") - yuan(session, "discount")
        assert yuan(session, "total_fee") == parts != yuan(usual, "total_fee")
    for session, _ in seen["untold_coupon"]:
        assert "discount" not in session
    for session, usual in seen["no_service_fee"]:
        assert "service_fee" not in session
        assert all("service_price" not in period for period in session["periods"])
        assert session["total_fee"] == usual["total_fee"]
    for session, usual in seen["prepaid"]:
        assert session["total_fee"] == session["energy_fee"] == "0.00"
        assert session["periods"] == usual["periods"]
    for session, _ in seen["free"]:
        assert session["total_fee"] == "0.00"
        assert {p["energy_price"] for p in session["periods"]} == {"0.0000"}
    for session, usual in seen["member"]:
        for period, before in zip(session["periods"], usual["periods"], strict=True):
            lower = Decimal(period["energy_price"]) / Decimal(before["energy_price"])
            assert float(lower) == pytest.approx(0.9, abs=1e-3)
    for session, usual in seen["bundled"]:
        for period, before in zip(session["periods"], usual["periods"], strict=True):
            both = Decimal(before["energy_price"]) + Decimal(before["service_price"])
            assert (Decimal(period["energy_price"]), period["service_price"]) == (both, "0.0000")


def test_the_clock_of_readings_lags_behind_that_of_sessions(odd):
    begins = {
        r["session"]: at(r["at"])
        for body in odd.of_station("clock_behind", "registers")
        for r in body["readings"]
        if r.get("context") == "Transaction.Begin"
    }
    lags = {
        at(s["started_at"]) - begins[s["session"]]
        for body in odd.of_station("clock_behind", "sessions")
        for s in body["sessions"]
        if s["session"] in begins
    }
    assert lags == {timedelta(seconds=27)}


def test_a_clock_that_is_set_back_tells_readings_out_of_order(odd):
    back = set()
    for name, readings in odd.published.readings.items():
        if not name.startswith(odd.on["clock_set_back"]):
            continue
        # In the order of the true times, which is that of the registers and of the messages.
        for a, b in itertools.pairwise(readings):
            if at(b["at"]) < at(a["at"]):
                back.add(at(b["at"]).hour)
    assert back == {13}


def test_times_with_daylight_saving_are_the_same_instants(odd):
    offsets = set()
    told, usual = (odd.of_station("summer_time", "registers", plain=p) for p in (False, True))
    for body, before in zip(told, usual, strict=True):
        for a, b in zip(body["readings"], before["readings"], strict=True):
            assert at(a["at"]) == at(b["at"])
            offsets.add(a["at"][-6:])
    assert offsets == {"+01:00", "+02:00"}


def test_times_of_a_zone_without_whole_hours_are_the_same_instants(odd):
    told, usual = (odd.of_station("half_hour_zone", "sessions", plain=p) for p in (False, True))
    for body, before in zip(told, usual, strict=True):
        for a, b in zip(body["sessions"], before["sessions"], strict=True):
            assert at(a["ended_at"]) == at(b["ended_at"])
            assert a["ended_at"].endswith("+05:30")


def test_sessions_come_a_day_late_and_go_on_in_a_live_city(odd):
    late = odd.of_station("late_session", "sessions")
    usual = odd.of_station("late_session", "sessions", plain=True)
    numbers = [body["seq"] for body in late]
    assert numbers == list(range(1, len(numbers) + 1))
    for body in late:
        waited = [at(body["sent_at"]) - at(s["ended_at"]) for s in body["sessions"]]
        assert timedelta(days=1) <= min(waited) <= max(waited) < timedelta(days=1, hours=2)
    told = sum(len(body["sessions"]) for body in late)
    assert 0 < told < sum(len(body["sessions"]) for body in usual)
    named = [r for body in odd.of_station("late_session", "registers") for r in body["readings"]]
    assert not any("session" in r for r in named)
    for due_s, topic, payload in odd.city.live():
        assert due_s < odd.city.to_s + 7200, "no session that waited came"
        if topic.endswith(f"/{odd.on['late_session']}/sessions"):
            body = json.loads(payload)
            assert body["seq"] == numbers[-1] + 1
            break


def test_a_constant_delay_is_between_sending_and_arrival(odd):
    waits = {}
    for packet in odd.city.packets():
        station = packet.topic.split("/")[3]
        if packet.kind == "registers":
            sent = at(json.loads(packet.body)["sent_at"]).timestamp()
            waits.setdefault(station, []).append(odd.city.origin_s + packet.due_s - sent)
    for station, seconds in waits.items():
        delay = 300 if station == odd.on["constant_delay"] else 0
        if station != odd.on["clock_set_back"]:
            assert seconds == pytest.approx([delay] * len(seconds), abs=0.01), station


def test_prices_of_a_city_with_daylight_saving_change_by_its_clocks():
    city = make_city("summer-time", seed=2, to=TO)
    published = Published(city)
    zone = ZoneInfo("Europe/Berlin")
    tariffs = {t["station_id"]: t for t in published.registry["tariffs"]}
    edges = {"+01:00": 0, "+02:00": 0}
    for name, sessions in published.sessions.items():
        tariff = tariffs[name.split("-")[0]]
        assert at(tariff["valid_from"]).utcoffset() == timedelta(hours=1)
        prices = {row["from"]: row["energy_price"] for row in tariff["periods"]}
        for session in sessions:
            for a, b in itertools.pairwise(session["periods"]):
                assert a["to"] == b["from"]
                assert at(b["from"]).astimezone(zone).isoformat() == b["from"]
                assert b["energy_price"] == prices[b["from"][11:16]]
                edges[b["from"][-6:]] += 1
    assert min(edges.values()) > 10


def test_registers_that_lag_by_their_refresh_are_wrong_in_no_situation():
    faults = [{"fault": "slow_register", "count": 2}]
    city = make_city("quiet-city", seed=3, to=TO, stations=2, days=16, faults=faults)
    inputs = known_inputs(city).inputs
    vehicles = nothing_told(inputs.fleet.size)
    found = all_conditional_errors(inputs, vehicles, mpe=inputs.fleet.mpe, utc_offset_s=28_800.0)
    assert found == []
