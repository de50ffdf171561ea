"""Signals of clocks, silence, messages and registration."""

import numpy as np
from facts import CLOCK_LIMIT_S, block_of
from register_readings import PILES

from chargewatch.domain.times import DAY_S
from chargewatch.signals.cadence import asleep_between_charges, usual_gaps
from chargewatch.signals.registers import Readings
from chargewatch.signals.registry import findings_of
from chargewatch.signals.rules.clock_skew import clock_findings
from chargewatch.signals.sessions import BilledSessions
from chargewatch.signals.stations import (
    Cadence,
    Clocks,
    Conflicts,
    Listening,
    MessageCounts,
    MessageGaps,
    Messages,
    Sold,
    Unregistered,
)

T0 = 20_500 * DAY_S
NO_CLOCKS = Clocks(station=np.empty(0, np.int64), at_s=np.empty(0), offset_s=np.empty(0))


def messages(stations=5, days=3, *, skew=None, arrival=None, every_s=300.0):
    """Messages of stations in the order of true sending; `arrival` maps true time to arrival."""
    true_s = T0 + np.arange(0, days * DAY_S, every_s)
    sent = np.repeat(true_s, stations)
    station = np.tile(np.arange(stations), true_s.size)
    received = sent + 0.5 if arrival is None else arrival(sent)
    order = np.argsort(received, kind="stable")
    told = sent + np.array([(skew or {}).get(int(k), 0.0) for k in station])
    return Messages(station=station[order], sent_s=told[order], received_s=received[order])


def skewed(given, clocks=NO_CLOCKS):
    return sorted({f.row for f in clock_findings(given, clocks, clock_limit_s=CLOCK_LIMIT_S)})


def replayed(true_s):
    """A month of messages within a minute, in their order."""
    return T0 + 90 * DAY_S + (true_s - T0) / 40_000


def test_right_clocks_raise_nothing_live_or_replayed():
    assert skewed(messages()) == []
    assert skewed(messages(arrival=replayed)) == []


def test_a_clock_off_by_four_hundred_seconds_is_found_live_or_replayed():
    assert skewed(messages(skew={2: 400.0})) == [2]
    assert skewed(messages(skew={2: -400.0})) == [2]
    assert skewed(messages(skew={2: 400.0}, arrival=replayed)) == [2]


def test_a_constant_delay_is_told_from_a_clock_behind_by_the_gateways_status():
    right = Clocks(station=np.array([2]), at_s=np.array([T0]), offset_s=np.array([0.2]))
    wrong = Clocks(station=np.array([2]), at_s=np.array([T0]), offset_s=np.array([-290.0]))

    def delayed(true_s):
        return true_s + 300.0

    for given in (messages(stations=3, arrival=delayed), messages(skew={2: -300.0})):
        assert 2 not in skewed(given, right)
        assert 2 in skewed(given, wrong)
        assert 2 in skewed(given), "without a status nothing tells them apart"
    # No message arrives before it is sent: that is the clock whatever its gateway says.
    assert skewed(messages(skew={2: 300.0}), right) == [2]


def test_two_minutes_are_allowed():
    assert skewed(messages(skew={2: 120.0})) == []
    assert skewed(messages(skew={2: 120.0}, arrival=replayed)) == []


def test_a_backlog_after_an_outage_is_no_skew():
    def outage(true_s):
        begin, end = T0 + 0.4 * DAY_S, T0 + 1.4 * DAY_S
        held = (true_s > begin) & (true_s < end)
        return np.where(held, end + (true_s - begin) / 5000, true_s + 0.5)

    assert skewed(messages(arrival=outage)) == []


def test_a_status_tells_of_its_own_clock():
    clocks = Clocks(
        station=np.array([0, 1]), at_s=np.array([T0, T0]), offset_s=np.array([-200.0, 12.0])
    )
    (found,) = clock_findings(messages(), clocks, clock_limit_s=CLOCK_LIMIT_S)
    assert (found.kind, found.row, found.value) == ("station", 0, -200.0)


def test_no_messages_at_all_raise_nothing():
    assert skewed(messages(days=0)) == []


def silence(last_ago_s, gap_s, station=None, readings=100):
    size = len(last_ago_s)
    cadence = Cadence(
        last_s=T0 - np.array(last_ago_s, float),
        usual_gap_s=np.array(gap_s, float),
        readings=np.full(size, readings),
    )
    places = np.zeros(size, np.int64) if station is None else np.array(station)
    found = findings_of(Listening(cadence=cadence, station=places, as_of_s=T0))
    return [(f.kind, f.row) for f in found]


def test_silence_begins_after_three_cadences_and_at_least_an_hour():
    assert silence([3500, 0], [60, 60]) == []
    assert silence([3700, 0], [60, 60]) == [("connector", 0)]
    assert silence([7000, 0], [3000, 60]) == []
    assert silence([9100, 0], [3000, 60]) == [("connector", 0)]


def test_a_station_is_silent_when_all_of_its_connectors_are():
    found = silence([4000, 4000, 4000, 0], [60] * 4, station=[0, 0, 1, 1])
    assert found == [("connector", 0), ("connector", 1), ("connector", 2), ("station", 0)]


def test_a_connector_that_never_sent_is_not_silent():
    assert silence([np.nan], [np.nan], readings=0) == []


def charges_read(*, idle=False, running=False):
    """Return the cadence of a pile that charges at 8:00 and 18:00 for an hour, for ten days."""
    begins = T0 + (np.arange(20) // 2) * DAY_S + np.where(np.arange(20) % 2, 18, 8) * 3600.0
    offsets = np.arange(0, 3601, 60.0)
    at = (begins[:, None] + offsets).ravel()
    named = np.repeat(np.arange(1, 21), offsets.size)
    if idle:
        quiet = T0 + np.arange(0, 10 * DAY_S, 1800.0) + 7.0
        at, named = np.append(at, quiet), np.append(named, np.zeros(quiet.size, np.int64))
    if running:
        at, named = np.append(at, [at[-1] + 7200, at[-1] + 7500]), np.append(named, [21, 21])
    order = np.argsort(at)
    n = at.size
    given = Readings(
        connector=np.zeros(n, np.int64),
        at_s=at[order],
        energy_wh=np.arange(n, dtype=float),
        power_w=np.full(n, np.nan),
        session=named[order],
        **{name: np.zeros(n, bool) for name in ("is_reset", "is_begin", "is_end")},
    )
    done = BilledSessions(
        name=np.arange(20),
        connector=np.zeros(20, np.int64),
        started_s=begins,
        ended_s=begins + 3600,
        **{name: np.zeros(20) for name in ("start_wh", "stop_wh", "billed_wh")},
    )
    block = block_of(given, PILES, sessions=done)
    usual = usual_gaps(block.pairs.row, block.pairs.span_s)
    asleep = asleep_between_charges(block)
    return usual.tolist(), dict(zip(asleep.rows.tolist(), asleep.gap_s.tolist(), strict=True))


def test_the_cadence_of_a_pile_that_is_read_only_while_it_charges_is_that_of_its_charges():
    assert charges_read() == ([60.0], {0: 13 * 3600.0})
    assert charges_read(idle=True)[1] == {}
    assert charges_read(running=True)[1] == {}, "in the middle of a charge it is read"


def test_missing_messages_are_counted_with_first_and_last():
    holes = [
        {
            "station": 3,
            "topic": topic,
            "first_seq": first,
            "last_seq": last,
            "from_s": T0,
            "to_s": T0 + 60,
        }
        for topic, first, last in (("registers", 10, 14), ("sessions", 3, 3))
    ]
    (found,) = findings_of(MessageGaps(holes=holes))
    assert (found.kind, found.row, found.count) == ("station", 3, 6)
    assert found.records[0] == {"topic": "registers", "first_seq": 10, "last_seq": 14}


def test_conflicts_are_grouped_by_instrument_and_day():
    rows = [
        {"kind": "connector", "row": 1, "at_s": T0 + k * 40_000, "detail": "two values", "id": k}
        for k in range(4)
    ]
    found = findings_of(Conflicts(rows=rows))
    assert [(f.day, f.count) for f in found] == [(20_500, 3), (20_501, 1)]


def test_an_unregistered_connector_is_named_with_its_first_and_last_data():
    unknown = Unregistered(
        kind="connector",
        rows=np.array([4]),
        first_s=np.array([T0]),
        last_s=np.array([T0 + 60]),
        readings=np.array([7]),
    )
    (found,) = findings_of(unknown)
    assert (found.row, found.first_s, found.last_s, found.value) == (4, T0, T0 + 60, 7.0)


def test_selling_without_valid_verification_is_found_only_for_registered_connectors():
    sold = Sold(
        valid_until_s=np.array([np.nan, T0 - 9 * DAY_S, T0 + DAY_S, np.nan]),
        energy_wh=np.array([5000.0, 7000.0, 0.0, 5000.0]),
        first_s=np.array([T0, T0, np.nan, T0]),
        last_s=np.array([T0, T0, np.nan, T0]),
        registered=np.array([True, True, True, False]),
    )
    found = findings_of(sold)
    assert [f.row for f in found] == [0, 1]
    assert found[0].detail.startswith("no passed verification")


def test_a_jump_of_the_counter_is_told_apart_and_counts_once():
    hole = {"station": 3, "topic": "registers", "from_s": T0, "to_s": T0 + 15}
    gaps = MessageGaps(
        holes=[
            {**hole, "first_seq": 2, "last_seq": 28, "implausible": False},
            {**hole, "first_seq": 30, "last_seq": 1_760_000_000_000, "implausible": True},
        ],
        crowded=[{"station": 3, "topic": "status", "gaps": 5, "missing": 2**40, "at_s": T0}],
    )
    (found,) = findings_of(gaps)
    assert (found.count, found.value) == (2**40 + 28, 2**40 + 27)
    assert "seq of registers jumps by" in found.detail
    assert "status has too many gaps" in found.detail


def test_a_count_that_begins_anew_again_and_again_is_found():
    def found(*days_ago):
        times = [T0 - days * 86_400 for days in days_ago]
        stream = {"station": 1, "topic": "registers", "restarted_s": times}
        return findings_of(MessageCounts(streams=[stream], as_of_s=T0))

    assert found(20, 15, 9, 3, 1) == []
    assert [(f.code, f.count) for f in found(9, 5, 3, 1)] == [("sequence_restart", 3)]
