"""Meters that are wrong only in a situation, seen from what gateways send, against honest twins."""

import itertools
import json
from datetime import datetime, timedelta
from decimal import ROUND_HALF_UP, Decimal
from functools import cache

import numpy as np
import pytest
from simulated import TO, Published

from chargewatch.simulators.charging import air_temperature_c
from chargewatch.simulators.city import make_city
from chargewatch.simulators.scenario import load_scenario

SIZE = {"stations": 8, "connectors_per_station": 6, "days": 10, "message_s": 7200}
KINDS = {
    "cheat_hours": {},
    "cheat_peak": {},
    "cheat_weekend": {},
    "cheat_heat": {},
    "cheat_high_load": {"above_load": 0.6},
    "cheat_low_load": {"upto_load": 0.6},
    "cheat_one_phase": {},
    "cheat_after_energy": {},
    "cheat_short_session": {},
    "cheat_unless_verified": {},
}


class City:
    """A city of cheats with one magnitude, and the same city without them."""

    def __init__(self, magnitude):
        faults = [
            {"fault": name, "count": 1, "magnitude_mpe": magnitude, **more}
            for name, more in KINDS.items()
        ]
        self.city = make_city("quiet-city", seed=11, to=TO, **SIZE, faults=faults)
        self.published = Published(self.city)
        names = self.city.layout.connectors.name
        self.target = {fault.kind.name: names[fault.target] for fault in self.city.faults.all}
        self.truth = {row["connector"]: row for row in self.published.truth["connectors"]}
        self.magnitude = magnitude


@cache
def cheating(magnitude):
    return City(magnitude)


@cache
def honest():
    return Published(make_city("quiet-city", seed=11, to=TO, **SIZE, faults=[]))


def at(text):
    return datetime.fromisoformat(text)


def pairs_of(published, name):
    ordered = sorted(published.readings[name], key=lambda r: at(r["at"]))
    return list(itertools.pairwise(ordered))


def in_one_session(a, b):
    return "session" in a and a.get("session") == b.get("session")


def by_power(a, b, holds):
    """What holds at a constant power; None where the power changes between two readings."""
    return holds(a["power_w"]) if a["power_w"] == b["power_w"] else None


def by_time(a, b, holds):
    """What holds through an interval; None where it changes within it."""
    begin, end = at(a["at"]), at(b["at"]) - timedelta(seconds=1)
    return holds(begin) if holds(begin) == holds(end) else None


class Expected:
    """Whether a meter cheats between two readings, worked out from the honest city's messages."""

    def __init__(self, name, connector, situation):
        self.connector, self.situation = connector, situation
        registry = honest().registry
        rows = {row["connector"]: row for row in registry["connectors"]}
        self.rated_w = rows[connector]["rated_power_w"]
        self.step_wh = rows[connector]["resolution_wh"]
        (tariff,) = [
            t for t in registry["tariffs"] if t["station_id"] == rows[connector]["station_id"]
        ]
        dearest = max(Decimal(p["energy_price"]) for p in tariff["periods"])
        self.peaks = [
            (p["from"], p["to"]) for p in tariff["periods"] if Decimal(p["energy_price"]) == dearest
        ]
        self.sessions = {s["session"]: s for s in honest().sessions[connector]}
        self.rule = getattr(self, name)

    def cheat_hours(self, a, b):
        return by_time(a, b, lambda t: 18 <= t.hour < 23)

    def cheat_peak(self, a, b):
        return by_time(a, b, lambda t: any(p <= f"{t:%H:%M}" < q for p, q in self.peaks))

    def cheat_weekend(self, a, b):
        return by_time(a, b, lambda t: t.isoweekday() > 5)

    def cheat_heat(self, a, b):
        def hot(t):
            local_s = t.timestamp() + 8 * 3600
            return bool(air_temperature_c(np.float64(local_s // 300 * 300)) > self.limit("above_c"))

        return by_time(a, b, hot)

    def limit(self, name):
        return self.situation[name]

    def cheat_high_load(self, a, b):
        return by_power(a, b, lambda w: w > 0.6 * self.rated_w)

    def cheat_low_load(self, a, b):
        return by_power(a, b, lambda w: w <= 0.6 * self.rated_w)

    def cheat_one_phase(self, a, b):
        # The told power has the meter's error; no vehicle takes between 7.0 and 10.5 kW.
        return by_power(a, b, lambda w: w < 9_000)

    def cheat_after_energy(self, a, b):
        session = self.sessions.get(a["session"])
        if session is None:
            return None
        before, after = (r["energy_wh"] - session["start_wh"] for r in (a, b))
        if before < 10_200 and after > 9_800:
            return None
        return before > 10_000

    def cheat_short_session(self, a, b):
        session = self.sessions.get(a["session"])
        if session is None:
            return None
        return at(session["ended_at"]) - at(session["started_at"]) < timedelta(minutes=30)

    def cheat_unless_verified(self, a, b):
        full = [r["power_w"] >= 0.9 * self.rated_w for r in (a, b)]
        if not any(full):
            return True
        if not all(full):
            return None
        before = [
            r
            for r in honest().readings[self.connector]
            if r.get("session") == a["session"]
            and timedelta(0) <= at(a["at"]) - at(r["at"]) <= timedelta(minutes=12)
        ]
        long = any(at(a["at"]) - at(r["at"]) >= timedelta(minutes=6) for r in before)
        steady = all(r["power_w"] >= 0.9 * self.rated_w for r in before)
        return False if long and steady else None


@pytest.mark.parametrize("magnitude", [4.0, -4.0])
@pytest.mark.parametrize("name", sorted(KINDS))
def test_a_register_is_wrong_in_its_situation_and_right_outside(name, magnitude):
    cheats = cheating(magnitude)
    connector = cheats.target[name]
    row = cheats.truth[connector]
    error = magnitude * row["mpe"]
    expected = Expected(name, connector, row["situation"])
    seen = {True: 0.0, False: 0.0}
    wrong = {True: 0.0, False: 0.0}
    twins = zip(pairs_of(honest(), connector), pairs_of(cheats.published, connector), strict=True)
    for (a, b), (c, d) in twins:
        assert (a["at"], b["at"]) == (c["at"], d["at"])
        if not in_one_session(a, b):
            continue
        holds = expected.rule(a, b)
        if holds is None:
            continue
        right_wh, told_wh = b["energy_wh"] - a["energy_wh"], d["energy_wh"] - c["energy_wh"]
        added_wh = error * right_wh if holds else 0.0
        # Two registers with steps, and the honest meter's own error of at most 1 %.
        assert told_wh - right_wh == pytest.approx(
            added_wh, abs=2.3 * expected.step_wh + 0.012 * abs(added_wh)
        ), (a, b)
        seen[holds] += right_wh
        wrong[holds] += told_wh - right_wh
    assert wrong[True] / seen[True] == pytest.approx(error, rel=0.03)
    if seen[False] > 5_000:
        assert abs(wrong[False] / seen[False]) < 0.003


@pytest.mark.parametrize("magnitude", [4.0, -4.0])
def test_the_truth_says_what_the_registers_show(magnitude):
    cheats = cheating(magnitude)
    for name, connector in cheats.target.items():
        row = cheats.truth[connector]
        told = row["situation"]
        share, inside, outside = (
            told[key] for key in ("energy_share_inside", "error_inside", "error_outside")
        )
        assert 0.02 < share < 1, name
        assert inside - outside == pytest.approx(magnitude * row["mpe"], abs=0.004), name
        mean = share * inside + (1 - share) * outside
        assert told["energy_weighted_error"] == pytest.approx(mean, abs=1e-5)
        assert row["relative_error"] == pytest.approx(mean, abs=3e-4)
        sums = [
            sum(b["energy_wh"] - a["energy_wh"] for a, b in pairs_of(published, connector))
            for published in (honest(), cheats.published)
        ]
        assert sums[1] / sums[0] - 1 == pytest.approx(share * magnitude * row["mpe"], abs=0.003), (
            name
        )
    honest_rows = set(cheats.truth) - set(cheats.target.values())
    assert not any("situation" in cheats.truth[connector] for connector in honest_rows)


@pytest.mark.parametrize("magnitude", [4.0, -4.0])
def test_sessions_bills_and_power_follow_the_wrong_meter(magnitude):
    published = cheating(magnitude).published
    for connector in cheating(magnitude).target.values():
        register = {r["at"]: r["energy_wh"] for r in published.readings[connector]}
        energies = [r for _, r in sorted(register.items())]
        assert energies == sorted(energies)
        for session in published.sessions[connector]:
            assert session["stop_wh"] == register[session["ended_at"]]
            if session["started_at"] in register:  # else it began before the history
                assert session["start_wh"] == register[session["started_at"]]

            assert session["billed_wh"] == session["stop_wh"] - session["start_wh"]
            assert sum(p["energy_wh"] for p in session["periods"]) == session["billed_wh"]
            fee = sum(
                (Decimal(str(p["energy_wh"])) * Decimal(p["energy_price"]) / 1000).quantize(
                    Decimal("0.01"), ROUND_HALF_UP
                )
                for p in session["periods"]
            )
            assert Decimal(session["energy_fee"]) == fee
        for a, b in pairs_of(published, connector):
            if in_one_session(a, b) and a["power_w"] == b["power_w"]:
                hours = (at(b["at"]) - at(a["at"])).total_seconds() / 3600
                measured = b["energy_wh"] - a["energy_wh"]
                if hours > 0.05 and measured > 500:
                    # The power lacks what depends on load and temperature: 1 % is plenty.
                    assert a["power_w"] * hours == pytest.approx(measured, rel=0.09, abs=25)


def test_vehicles_and_feeders_see_the_true_energy():
    for magnitude in (4.0, -4.0):
        published = cheating(magnitude).published
        assert published.reference == honest().reference
        for connector, sessions in published.sessions.items():
            batteries = [s.get("bms_energy_wh") for s in sessions]
            assert batteries == [s.get("bms_energy_wh") for s in honest().sessions[connector]]


def test_a_verification_within_the_history_finds_a_cheat_right():
    cheats = cheating(4.0)
    connector = cheats.target["cheat_unless_verified"]
    (row,) = [v for v in cheats.published.registry["verifications"] if v["connector"] == connector]
    verified = at(f"{row['verified_on']}T00:00:00+08:00")
    assert verified >= at(cheats.published.truth["from"]) - timedelta(days=1)
    mpe = cheats.truth[connector]["mpe"]
    assert abs(row["relative_error"]) < mpe < abs(cheats.truth[connector]["relative_error"])


def test_the_scenario_has_every_situation_with_both_signs_among_honest_piles():
    scenario = load_scenario("cheats")
    magnitudes = {}
    for spec in scenario.faults:
        magnitudes.setdefault(spec.fault, []).append(spec.parameters["magnitude_mpe"])
    assert set(magnitudes) == set(KINDS)
    for found in magnitudes.values():
        assert min(found) < 0 < max(found)
        assert all(1.5 <= abs(m) <= 6 for m in found)
    cheats = sum(spec.count for spec in scenario.faults)
    assert cheats <= 0.15 * scenario.stations * scenario.connectors_per_station
    city = make_city("cheats", seed=4, to=TO, days=1)
    assert len(city.faults.all) == cheats
    json.dumps(city.truth(), allow_nan=False)
