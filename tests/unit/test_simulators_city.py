"""A simulated city against an independent bookkeeping, the wire and the registry's models."""

import itertools
import json
from datetime import datetime
from decimal import ROUND_HALF_UP, Decimal

import pytest
from simulated import TO, Published, small_city

from chargewatch.errors import InputFileError
from chargewatch.simulators.city import make_city
from chargewatch.simulators.city_files import write_city
from chargewatch.simulators.readings import Cadence
from chargewatch.simulators.scenario import load_scenario, parse_overrides, scenario_names

SEVERAL = [("loss_billing", {}), ("billed", {}), ("leak", {}), ("missing", {"share": 0.1})]


@pytest.fixture(scope="module")
def city():
    return small_city()


@pytest.fixture(scope="module")
def published(city):
    return Published(city)


def at(text):
    return datetime.fromisoformat(text)


def test_the_same_seed_writes_the_same_bytes(tmp_path):
    contents = []
    for name in ("a", "b", "other"):
        seed = 6 if name == "other" else 5
        write_city(small_city(seed=seed, days=3), tmp_path / name, compress=name != "other")
        contents.append(
            {path.name: path.read_bytes() for path in sorted((tmp_path / name).iterdir())}
        )
    assert contents[0] == contents[1]
    assert contents[0]["truth.json"] != contents[2]["truth.json"]


@pytest.mark.parametrize("faults", [[], SEVERAL])
def test_what_was_published_is_what_the_truth_says(faults):
    published = Published(small_city(*faults))
    for row in published.truth["connectors"]:
        sessions = published.sessions[row["connector"]]
        assert row["sessions"] == len(sessions)
        energy = sum(s["stop_wh"] - s["start_wh"] for s in sessions)
        assert row["session_wh"] == pytest.approx(energy, abs=1e-3)
        assert row["billed_wh"] == pytest.approx(sum(s["billed_wh"] for s in sessions), abs=1e-2)
    keys = {(r["connector"], r["at"]) for rows in published.readings.values() for r in rows}
    keys |= {(r["meter"], r["at"]) for rows in published.reference.values() for r in rows}
    counts = published.truth["messages"]
    assert counts["published"] == len(published.messages)
    assert counts["distinct_readings"] == len(keys)
    assert counts["sessions"] == sum(len(rows) for rows in published.sessions.values())


def test_registers_never_fall_and_sessions_are_the_registers_at_their_times(published):
    for name, readings in published.readings.items():
        ordered = sorted(readings, key=lambda r: at(r["at"]))
        energies = [r["energy_wh"] for r in ordered]
        assert energies == sorted(energies)
        register = {r["at"]: r["energy_wh"] for r in readings}
        for session in published.sessions[name]:
            assert session["stop_wh"] == register[session["ended_at"]]
            if session["started_at"] in register:  # else it began before the history
                assert session["start_wh"] == register[session["started_at"]]
            assert session["billed_wh"] == session["stop_wh"] - session["start_wh"]


def test_outside_sessions_a_healthy_register_stands_nearly_still(published):
    for _name, readings in published.readings.items():
        ordered = sorted(readings, key=lambda r: at(r["at"]))
        idle_wh = sum(
            b["energy_wh"] - a["energy_wh"]
            for a, b in itertools.pairwise(ordered)
            if "session" not in a or a.get("context") == "Transaction.End"
            if "session" not in b or b.get("context") == "Transaction.Begin"
        )
        assert idle_wh <= 12 * 15 + 10


def test_fees_are_energy_times_price_to_the_cent_in_every_period(published):
    cent = Decimal("0.01")
    for session in itertools.chain.from_iterable(published.sessions.values()):
        fees = {
            kind: sum(
                (Decimal(str(p["energy_wh"])) * Decimal(p[f"{kind}_price"]) / 1000).quantize(
                    cent, ROUND_HALF_UP
                )
                for p in session["periods"]
            )
            for kind in ("energy", "service")
        }
        assert Decimal(session["energy_fee"]) == fees["energy"]
        assert Decimal(session["service_fee"]) == fees["service"]
        assert Decimal(session["total_fee"]) == sum(fees.values())
        assert sum(p["energy_wh"] for p in session["periods"]) == session["billed_wh"]
        assert session["periods"][0]["from"] == session["started_at"]
        assert session["periods"][-1]["to"] == session["ended_at"]
        assert all(a["to"] == b["from"] for a, b in itertools.pairwise(session["periods"]))


def test_prices_are_those_of_the_registered_tariff(published):
    tariffs = {t["station_id"]: t["periods"] for t in published.registry["tariffs"]}
    for name, sessions in published.sessions.items():
        rows = tariffs[name.split("-")[0]]
        for period in itertools.chain.from_iterable(s["periods"] for s in sessions):
            clock = period["from"][11:16]
            (row,) = [r for r in rows if r["from"] <= clock < r["to"]]
            assert period["energy_price"] == row["energy_price"]
            assert period["service_price"] == row["service_price"]


def test_power_stays_within_the_rated_power_and_sessions_don_t_overlap(published):
    rated = {c["connector"]: c["rated_power_w"] for c in published.registry["connectors"]}
    for name, sessions in published.sessions.items():
        for a, b in itertools.pairwise(sorted(sessions, key=lambda s: at(s["started_at"]))):
            assert at(a["ended_at"]) < at(b["started_at"])
        for session in sessions:
            hours = (at(session["ended_at"]) - at(session["started_at"])).total_seconds() / 3600
            energy = session["stop_wh"] - session["start_wh"]
            assert energy <= 1.02 * rated[name] * hours + 20
        assert max(r["power_w"] for r in published.readings[name]) <= 1.02 * rated[name]


def test_sequences_count_every_message_of_a_topic(published):
    for sequence in published.sequences.values():
        assert sequence == list(range(1, len(sequence) + 1))


def test_times_of_messages_are_in_order_and_within_the_history(city, published):
    sent = [at(body["sent_at"]).timestamp() for _, body in published.messages]
    assert sent == sorted(sent)
    moments = [at(r["at"]).timestamp() for rows in published.readings.values() for r in rows]
    assert city.from_s <= min(moments) <= max(moments) < city.to_s


def test_the_feeder_sees_at_least_what_its_piles_deliver(published):
    for meter, readings in published.reference.items():
        station = meter.split("-")[0]
        measured = readings[-1]["energy_wh"] - readings[0]["energy_wh"]
        delivered = sum(
            max(r["energy_wh"] for r in rows) - min(r["energy_wh"] for r in rows)
            for name, rows in published.readings.items()
            if name.startswith(station)
        )
        assert 0.98 * delivered < measured < 1.25 * delivered + 100_000


def test_a_live_city_goes_on_where_its_history_ended(city, published):
    cadence = Cadence(
        charging_s=60, idle_s=300, message_s=60, reference_s=300, reference_message_s=300
    )
    Published(city)
    last = {name: max(rows, key=lambda r: at(r["at"])) for name, rows in published.readings.items()}
    seen = set()
    for due_s, topic, body in itertools.islice(city.live(cadence=cadence), 400):
        message = json.loads(body)
        assert due_s > city.to_s
        if topic not in seen:
            assert message["seq"] == published.sequences[topic][-1] + 1
            seen.add(topic)
        if topic.endswith("/registers"):
            for reading in message["readings"]:
                assert at(reading["at"]).timestamp() >= city.to_s
                assert reading["energy_wh"] >= last[reading["connector"]]["energy_wh"]


def test_every_scenario_can_be_made_small():
    for name in scenario_names():
        city = make_city(name, seed=2, to=TO, days=1, stations=3, faults=[])
        assert city.truth()["messages"]["published"] > 0


def test_overrides_are_read_and_wrong_ones_named():
    assert parse_overrides(("days=7", "roaming_share=0.5", "title=x y")) == {
        "days": 7,
        "roaming_share": 0.5,
        "title": "x y",
    }
    assert load_scenario("demo", days=7, roaming_share=1).roaming_share == 1.0
    with pytest.raises(InputFileError, match="no scenario 'x'"):
        load_scenario("x")
    with pytest.raises(InputFileError, match="no parameter colour"):
        load_scenario("demo", colour=1)
    with pytest.raises(InputFileError, match="days is a int"):
        load_scenario("demo", days="many")
    with pytest.raises(InputFileError, match="days must be greater"):
        load_scenario("demo", days=0)
