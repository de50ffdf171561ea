"""No finding of one connector depends on what is odd in another's data: to the bit."""

import numpy as np
from facts import CLOCK_LIMIT_S, block_of
from hypothesis import given, settings
from hypothesis import strategies as st

from chargewatch.domain.arrays import sums_between
from chargewatch.signals.billing import Billing
from chargewatch.signals.money import BilledPeriods, Fees
from chargewatch.signals.registers import Piles, Readings, time_keys
from chargewatch.signals.registry import findings_of
from chargewatch.signals.rules.clock_skew import clock_findings, find_endless
from chargewatch.signals.rules.fee_mismatch import fee_findings
from chargewatch.signals.rules.idle_consumption import find as idle_consumption
from chargewatch.signals.sessions import BilledSessions
from chargewatch.signals.stations import Clocks, Messages

BASE_S = 1_790_000_000.0
AS_OF_S = BASE_S + 40 * 86_400.0
HONEST = 1  # the connector whose findings must stay; 0 and 2 are its odd neighbours

odd_times = st.sampled_from(
    [109.0, 0.0, -62135596800.0, BASE_S + 1.5e6, BASE_S + 3e6, 4e9, 253402300799.0]
)
odd_energies = st.sampled_from([0.0, 1e-3, 50.0, 1e6, 1e12, 8.9e15, 1e300])


@st.composite
def odd_sessions(draw):
    """Sessions of an odd pile: (started, ended, start_wh, stop_wh, billed_wh)."""
    count = draw(st.integers(0, 6))
    return [
        (*sorted((draw(odd_times), draw(odd_times))), *(draw(odd_energies) for _ in range(3)))
        for _ in range(count)
    ]


@st.composite
def odd_readings(draw):
    """Readings of an odd pile within the window: (at, energy, power)."""
    count = draw(st.integers(0, 8))
    return [
        (BASE_S + draw(st.integers(10 * 86_400, 39 * 86_400)), draw(odd_energies), power)
        for power in draw(st.lists(odd_energies | st.just(-7e3), min_size=count, max_size=count))
    ]


def honest_readings():
    """A day that charges at 7 kW, then leaks 400 Wh outside any session."""
    start = BASE_S + 20 * 86_400.0
    charging = [(start + 60.0 * k, 1e5 + 7000 / 60 * k, 7000.0) for k in range(60)]
    leaking = [(start + 7200.0 + 900 * k, 107_000.0 + 40 * k, 0.0) for k in range(11)]
    return charging + leaking


HONEST_SESSIONS = [
    (BASE_S + 20 * 86_400.0, BASE_S + 20 * 86_400.0 + 3600, 1e5, 107_000.0, 107_000.0 - 1e5),
    (BASE_S + 21 * 86_400.0, BASE_S + 21 * 86_400.0 + 3600, 107_400.0, 115_000.0, 7_900.0),
]


def findings(before, after, sessions_before, sessions_after):
    """Return all findings of the connector HONEST beside its neighbours."""
    rows = [
        (connector, *reading)
        for connector, readings in ((0, before), (HONEST, honest_readings()), (2, after))
        for reading in sorted(readings)
    ]
    connector, at, energy, power = (np.array(c) for c in zip(*rows, strict=True))
    none = np.zeros(len(rows), bool)
    readings = Readings(
        connector=connector.astype(np.int64),
        at_s=at.astype(float),
        energy_wh=energy.astype(float),
        power_w=power.astype(float),
        session=np.zeros(len(rows), np.int64),
        is_reset=none,
        is_begin=none,
        is_end=none,
    )
    told = [
        (connector, *session)
        for connector, group in (
            (0, sessions_before),
            (HONEST, HONEST_SESSIONS),
            (2, sessions_after),
        )
        for session in sorted(group)
    ]
    columns = [np.array(c, float) for c in zip(*told, strict=True)]
    billed = BilledSessions(
        name=np.arange(len(told)),
        connector=columns[0].astype(np.int64),
        started_s=columns[1],
        ended_s=columns[2],
        start_wh=columns[3],
        stop_wh=columns[4],
        billed_wh=columns[5],
    )
    piles = Piles(rated_power_w=np.full(3, 7000.0), resolution_wh=np.ones(3))
    fees = Fees(
        **{
            name: getattr(billed, name)
            for name in ("name", "connector", "started_s", "ended_s", "start_wh", "stop_wh")
        },
        billed_wh=billed.billed_wh,
        energy_fee=billed.billed_wh / 1000,
        service_fee=np.zeros(len(told)),
        other_fee=np.full(len(told), np.nan),
        discount=np.full(len(told), np.nan),
        total_fee=billed.billed_wh / 1000 + 0.5,
    )
    half = (billed.started_s + billed.ended_s) / 2
    periods = BilledPeriods(
        session=np.repeat(np.arange(len(told)), 2),
        from_s=np.column_stack([billed.started_s, half]).ravel(),
        to_s=np.column_stack([half, billed.ended_s]).ravel(),
        energy_wh=np.repeat(billed.billed_wh / 2, 2),
        energy_price=np.tile([1.0, 1.2], len(told)),
        service_price=np.zeros(2 * len(told)),
    )
    with np.errstate(all="ignore"):
        found = findings_of(
            block_of(
                readings,
                piles,
                sessions=billed,
                fees=fees,
                periods=periods,
                as_of_s=AS_OF_S,
                base_s=BASE_S,
            )
        )
        found += findings_of(
            Billing(
                sessions=billed,
                resolution_wh=np.ones(len(told)),
                rated_w=np.full(len(told), 7000.0),
            )
        )
        found += fee_findings(fees, periods, resolution_wh=np.ones(len(told)))
    mine = [finding for finding in found if finding.row == HONEST]
    return sorted(repr(f).replace(f"'session': {f.row}", "") for f in map(without_names, mine))


def without_names(finding):
    """Return a finding without the numbers of sessions, which neighbours shift."""
    records = [
        {k: v for k, v in record.items() if not k.startswith("session")}
        for record in finding.records
    ]
    return finding.__class__(**{**vars(finding), "records": records})


ALONE = findings([], [], [], [])


def test_the_honest_connector_has_findings_to_lose():
    assert any("idle_consumption" in text for text in ALONE)
    assert any("session_register_mismatch" in text for text in ALONE)
    assert any("fee_mismatch" in text for text in ALONE)


@settings(max_examples=300, deadline=None)
@given(odd_readings(), odd_readings(), odd_sessions(), odd_sessions())
def test_odd_neighbours_change_no_finding(before, after, sessions_before, sessions_after):
    assert findings(before, after, sessions_before, sessions_after) == ALONE


def test_a_clock_before_boot_hides_nothing_of_a_neighbour_and_is_a_finding():
    began_1970 = [(109.0, BASE_S + 20.5 * 86_400, 0.0, 9e3, 9e3)]
    assert findings([], [], began_1970, began_1970) == ALONE
    session = BilledSessions(
        **{
            name: np.array([value])
            for name, value in zip(
                ("started_s", "ended_s", "start_wh", "stop_wh", "billed_wh"),
                began_1970[0],
                strict=True,
            )
        },
        name=np.array([4]),
        connector=np.array([2]),
    )
    (finding,) = find_endless(
        Billing(sessions=session, resolution_wh=np.ones(1), rated_w=np.full(1, 7000.0))
    )
    assert (finding.code, finding.row) == ("clock_skew", 2)
    assert "1970-01-01T00:01:49" in finding.detail


def messages_of(*stations):
    """Messages by (station, [(sent, received)]) in the order of their arrival."""
    rows = sorted((r, s, k) for k, group in stations for s, r in group)
    return Messages(
        station=np.array([k for _, _, k in rows], np.int64),
        sent_s=np.array([s for _, s, _ in rows], float),
        received_s=np.array([r for r, _, _ in rows], float),
    )


NO_CLOCKS = Clocks(station=np.empty(0, np.int64), at_s=np.empty(0), offset_s=np.empty(0))


@settings(max_examples=60, deadline=None)
@given(st.lists(odd_times, min_size=1, max_size=8), st.integers(1, 400))
def test_a_flood_of_odd_messages_hides_no_wrong_clock(times, flood):
    late = [(BASE_S + 600.0 * k - 900, BASE_S + 600.0 * k) for k in range(60)]
    good = [(BASE_S + 600.0 * k, BASE_S + 600.0 * k + 1) for k in range(60)]
    odd = [(times[k % len(times)], BASE_S + 36_000.0 * k / flood) for k in range(flood)]

    def mine(*stations):
        found = clock_findings(messages_of(*stations), NO_CLOCKS, clock_limit_s=CLOCK_LIMIT_S)
        return [finding for finding in found if finding.row == 1]

    alone = mine((0, good), (1, late))
    assert [finding.code for finding in alone] == ["clock_skew"]
    assert mine((0, good), (1, late), (2, odd)) == alone


def test_power_below_zero_while_the_register_grows_is_a_mismatch():
    at = BASE_S + 20 * 86_400.0 + 60.0 * np.arange(60)
    none = np.zeros(60, bool)

    def found(power_w, energy_wh):
        readings = Readings(
            connector=np.zeros(60, np.int64),
            at_s=at,
            energy_wh=energy_wh,
            power_w=power_w,
            session=np.zeros(60, np.int64),
            is_reset=none,
            is_begin=none,
            is_end=none,
        )
        piles = Piles(rated_power_w=np.array([7000.0]), resolution_wh=np.ones(1))
        found = findings_of(block_of(readings, piles, as_of_s=AS_OF_S, base_s=BASE_S))
        return [f.code for f in found if f.code != "idle_consumption"]

    growing = 1e5 + 7000 / 60 * np.arange(60)
    assert found(np.full(60, 7000.0), growing) == []
    assert found(np.full(60, -7000.0), growing) == ["power_register_mismatch"]
    # A vehicle that feeds the grid: power below zero, the delivered energy stands still.
    half = np.where(np.arange(60) < 30, 7000.0, -7000.0)
    fed = 1e5 + 7000 / 60 * np.minimum(np.arange(60), 29)
    assert found(half, fed) == []


@given(st.lists(odd_energies, min_size=1, max_size=20), st.lists(st.integers(0, 20), max_size=12))
def test_sums_between_add_their_own_values_only(values, places):
    edges = np.sort(np.minimum(np.array(places[: len(places) // 2 * 2], np.int64), len(values)))
    first, last = edges[0::2], edges[1::2]
    with np.errstate(over="ignore"):
        expected = [np.add.reduce(np.array(values[a:b])) for a, b in zip(first, last, strict=True)]
        assert np.allclose(sums_between(np.array(values), first, last), expected, rtol=1e-12)


def idle_of(rows):
    """Return the days of idle energy of two connectors that leak outside their one session."""
    start = BASE_S + 20 * 86_400.0
    at = start + 900.0 * np.arange(8)
    none = np.zeros(16, bool)
    readings = Readings(
        connector=np.repeat(np.array(rows, np.int64), 8),
        at_s=np.tile(at, 2),
        energy_wh=np.tile(1e5 + 40.0 * np.arange(8), 2),
        power_w=np.zeros(16),
        session=np.zeros(16, np.int64),
        is_reset=none,
        is_begin=none,
        is_end=none,
    )
    size = max(rows) + 1
    piles = Piles(rated_power_w=np.full(size, 7000.0), resolution_wh=np.ones(size))
    billed = BilledSessions(
        name=np.arange(2),
        connector=np.array(rows, np.int64),
        started_s=np.full(2, start + 7200),
        ended_s=np.full(2, start + 9000),
        start_wh=np.full(2, 1e5),
        stop_wh=np.full(2, 1e5),
        billed_wh=np.zeros(2),
    )
    found = idle_consumption(
        block_of(readings, piles, sessions=billed, as_of_s=AS_OF_S, base_s=BASE_S)
    )
    return [(rows.index(finding.row), finding.value) for finding in found]


def test_a_large_city_is_judged_like_a_small_one():
    expected = [(0, 280.0), (1, 280.0)]
    for rows in ((0, 1), (8191, 8192), (8192, 8193), (24_575, 24_576), (300_000, 300_001)):
        assert idle_of(rows) == expected, rows


def test_keys_ascend_by_connector_then_time():
    rows = np.repeat(np.array([0, 1, 8191, 8192, 16_384, 24_576, 1_000_000, 8_000_000]), 3)
    at_s = BASE_S + np.tile([-1e9, 1.0, 1e10], 8)
    keys = time_keys(rows, at_s, base_s=BASE_S).tolist()
    assert keys == sorted(set(keys))
