"""Money owed of simulated cities, against sums of what the simulator knows, made in other lines."""

from __future__ import annotations

from collections import defaultdict
from datetime import date, datetime, timedelta, timezone
from zoneinfo import ZoneInfo

import orjson
import pytest
from runs_case import TO, feed, make_test_city, messages_of, register

from chargewatch.domain.mpe import rule_set
from chargewatch.runs.assess import run_assessment
from chargewatch.settings import load_settings
from chargewatch.simulators.scenario import FaultSpec
from chargewatch.storage.database import open_database
from chargewatch.storage.pages import pile as pile_rows
from chargewatch.supervision.money.sessions import PlaceOfSessions, sessions_owed

HOME = timezone(timedelta(hours=8))
DAYS = 24

CHEATS = (
    FaultSpec(fault="gain", count=2, parameters={"magnitude_mpe": 3.0}),
    FaultSpec(fault="loss_billing", count=1),
    FaultSpec(fault="tariff", count=1),
    FaultSpec(fault="fee", count=1),
    FaultSpec(fault="billed", count=1),
    FaultSpec(fault="zero_baseline", count=1),
)


def sessions_of(city):
    for topic, message in city.messages():
        payload = orjson.loads(message) if isinstance(message, bytes) else message
        if topic.endswith("/sessions"):
            yield from payload["sessions"]


def hour_of(text: str) -> float:
    hours, minutes = text.split(":")
    return int(hours) + int(minutes) / 60


def registered_price(periods, at: datetime) -> float:
    hour = at.astimezone(HOME).hour + at.astimezone(HOME).minute / 60
    for row in periods:
        begin, end = hour_of(row["from"]), hour_of(row["to"]) or 24.0
        if begin <= hour < end:
            return float(row["energy_price"]) + float(row["service_price"])
    raise AssertionError(at)


def true_money(city):
    """Return what bills and errors came to by connector and month, and what was rightful.

    A bill's energy is what the register really grew by; its price is the registered one, or what
    the session itself asks for where that is less.
    """
    document, truth = city.registry(), city.truth()
    operator_of = {row["station_id"]: row["operator_id"] for row in document["stations"]}
    station_of = {row["connector"]: row["station_id"] for row in document["connectors"]}
    tariffs = {
        row.get("station_id") or row["operator_id"]: row["periods"] for row in document["tariffs"]
    }
    error_of = {row["connector"]: row["relative_error"] for row in truth["connectors"]}
    bills, errors = defaultdict(float), defaultdict(float)
    stop_before: dict[str, float] = {}
    for session in sorted(sessions_of(city), key=lambda row: row["ended_at"]):
        name, station = session["connector"], station_of[session["connector"]]
        periods = tariffs.get(station) or tariffs[operator_of[station]]
        ended = datetime.fromisoformat(session["ended_at"]).astimezone(HOME)
        month = date(ended.year, ended.month, 1)
        start = session["start_wh"] or stop_before.get(name, 0.0)
        stop_before[name] = session["stop_wh"]
        metered = session["stop_wh"] - start
        charged = float(session["energy_fee"]) + float(session["service_fee"])
        energy = money = 0.0
        for period in session["periods"]:
            begin, end = (datetime.fromisoformat(period[key]) for key in ("from", "to"))
            asked = float(period["energy_price"]) + float(period["service_price"])
            price = min(asked, registered_price(periods, begin + (end - begin) / 2))
            energy, money = energy + period["energy_wh"], money + price * period["energy_wh"] / 1000
        rightful = money * metered / energy if energy else 0.0
        difference = charged - rightful
        if abs(difference) > 0.06:
            bills[name, month] += difference
        e = error_of[name]
        errors[name, month] += rightful * e / (1 + e)
    return bills, errors


@pytest.fixture(scope="module")
def city():
    return make_test_city(*CHEATS, days=DAYS)


async def owed_rows(database):
    async with database.raw() as connection:
        return await connection.fetch(
            "SELECT m.*, c.connector FROM money_owed m JOIN connector c USING (connector_id) "
            "ORDER BY month, connector, cause"
        )


async def totals(database):
    async with database.raw() as connection:
        return await connection.fetch(
            "SELECT * FROM money_total ORDER BY month, operator_id, cause"
        )


async def test_money_owed_is_what_the_simulator_knows(database_url, tmp_path, city):
    bills, errors = true_money(city)
    async with open_database(database_url) as database:
        await register(database, tmp_path, city.registry())
        await feed(database_url, messages_of(city))
        await run_assessment(database, load_settings({}), as_of=TO, days=60)
        rows = await owed_rows(database)
    by_bill = {(r["connector"], r["month"]): r for r in rows if r["cause"] == "billing"}
    assert {key for key, row in by_bill.items() if row["sessions"]} == {
        key for key, row in bills.items() if row
    }
    for key, row in by_bill.items():
        assert row["overcharge_cny"] == pytest.approx(
            bills[key], abs=0.012 * row["sessions"] + 1e-6
        )
        assert row["undercharge_cny"] == 0.0
        assert row["overcharge_low_cny"] == row["overcharge_high_cny"] == row["overcharge_cny"]
    by_error = [row for row in rows if row["cause"] == "error"]
    assert len(by_error) == 30
    inside = 0
    for row in by_error:
        true = errors[row["connector"], row["month"]]
        inside += row["overcharge_low_cny"] - row["undercharge_high_cny"] <= true
        inside += true <= row["overcharge_high_cny"] - row["undercharge_low_cny"]
        for side in ("overcharge", "undercharge"):
            low, middle, high = (row[f"{side}{end}_cny"] for end in ("_low", "", "_high"))
            assert 0 <= low <= middle <= high
    # Of two sides of 30 intervals of 95 %.
    assert inside >= 56
    first, second = (row for row in by_error if abs(errors[row["connector"], row["month"]]) > 30)
    for row in (first, second):
        assert row["overcharge_low_cny"] > 0.9 * errors[row["connector"], row["month"]]
        assert row["undercharge_high_cny"] < 1e-6


async def test_nights_count_the_money_of_a_full_run(database_url, tmp_path, city):
    settings, day = load_settings({}), timedelta(days=1)
    async with open_database(database_url) as database:
        await register(database, tmp_path, city.registry())
        await feed(database_url, messages_of(city))
        for nights in (5, 2, 1, 0):
            outcome = await run_assessment(database, settings, as_of=TO - nights * day, days=60)
        assert outcome.mode == "nightly"
        nightly = await owed_rows(database), await totals(database)
        again = await run_assessment(database, settings, as_of=TO, days=60, full=True)
        full = await owed_rows(database), await totals(database)
    assert [row["run_id"] for row in full[0] if row["month"].month == 11] == [again.run_id] * len(
        [row for row in nightly[0] if row["month"].month == 11]
    )
    for part in (0, 1):
        assert len(nightly[part]) == len(full[part])
        for one, other in zip(nightly[part], full[part], strict=True):
            assert one["sessions"] == other["sessions"]
            u = one["overcharge_high_cny"] - one["undercharge_low_cny"]
            u -= one["overcharge_low_cny"] - one["undercharge_high_cny"]
            for side in ("overcharge", "undercharge"):
                away = 0.05 * u + 1e-6 if one["cause"] == "error" else 1e-6
                assert one[f"{side}_cny"] == pytest.approx(other[f"{side}_cny"], abs=away)


async def test_sessions_of_a_month_add_up_to_it(database_url, tmp_path, city):
    """Over less under is the sum of the sessions that the page lists."""
    settings = load_settings({})
    async with open_database(database_url) as database:
        await register(database, tmp_path, city.registry())
        await feed(database_url, messages_of(city))
        await run_assessment(database, settings, as_of=TO, days=60)
        rows = await owed_rows(database)
        found = {}
        async with database.connect() as connection:
            for name in sorted({row["connector"] for row in rows}):
                pile = await pile_rows.pile(connection, name, scope=None)
                place = PlaceOfSessions(
                    connector_id=pile["connector_id"],
                    operator_id=pile["operator_id"],
                    station_id=pile["station_id"],
                    resolution_wh=pile["resolution_wh"],
                    rated_power_w=pile["rated_power_w"],
                )
                for month in (date(2026, 10, 1), date(2026, 11, 1)):
                    found[name, month] = await sessions_owed(
                        connection,
                        place,
                        month=month,
                        zone=ZoneInfo(settings.time_zone),
                        clock_limit_s=rule_set(settings.mpe_rules).clock_limit_s,
                    )
    for row in rows:
        sessions = found[row["connector"], row["month"]]
        name = f"{'bill' if row['cause'] == 'billing' else 'error'}_difference"
        told = [getattr(one, name) for one in sessions]
        known = [one for one in told if one == one]
        assert len(told) - len(known) == row["sessions_unknown"]
        net = row["overcharge_cny"] - row["undercharge_cny"]
        assert sum(known) == pytest.approx(net, abs=1e-6 + 1e-9 * abs(net))
        if row["cause"] == "error":
            assert len(sessions) == row["sessions"]
        for one in sessions:
            if one.counted:
                should = one.paid - one.bill_difference - one.error_difference
                assert one.should_have_been == pytest.approx(should)
