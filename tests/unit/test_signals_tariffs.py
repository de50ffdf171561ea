"""Signals of money: hand-worked fees, and prices against a registered tariff."""

from datetime import datetime
from zoneinfo import ZoneInfo

import numpy as np
import pytest
from facts import CLOCK_LIMIT_S

from chargewatch.domain.times import DAY_S
from chargewatch.signals.money import BilledPeriods, Fees, tariff_curve
from chargewatch.signals.registers import Piles, Readings, pairs_of
from chargewatch.signals.rules.fee_mismatch import fee_findings
from chargewatch.signals.rules.tariff_mismatch import edge_findings, tariff_findings
from chargewatch.signals.timeline import timeline

MIDNIGHT = 20_500 * DAY_S
NIGHT, DAY = (0.35, 0.40), (0.80, 0.40)
TARIFF = {
    "valid_from_s": MIDNIGHT - 30 * DAY_S,
    "periods": [
        {"from": 0, "to": 7 * 3600, "energy_price": 0.35, "service_price": 0.40},
        {"from": 7 * 3600, "to": DAY_S, "energy_price": 0.80, "service_price": 0.40},
    ],
}


def curve(*tariffs):
    return tariff_curve(
        tariffs or [TARIFF],
        from_s=MIDNIGHT - 3 * DAY_S,
        to_s=MIDNIGHT + 3 * DAY_S,
        midnights_s=[MIDNIGHT + k * DAY_S for k in range(-4, 4)],
    )


def fees(
    periods,
    energy_fee=None,
    service_fee=None,
    other_fee=np.nan,
    discount=np.nan,
    total_fee=None,
    billed=None,
    stop=None,
):
    """One session; periods: (from h, to h, Wh, energy price, service price)."""
    energy = sum(p[2] for p in periods)
    exact = sum(p[2] * p[3] for p in periods) / 1000
    service = sum(p[2] * p[4] for p in periods) / 1000
    first = energy_fee if energy_fee is not None else round(exact, 2)
    second = service_fee if service_fee is not None else round(service, 2)
    one = {"name": np.array([11]), "connector": np.array([0])}
    return (
        Fees(
            **one,
            started_s=np.array([MIDNIGHT + periods[0][0] * 3600]),
            ended_s=np.array([MIDNIGHT + periods[-1][1] * 3600]),
            start_wh=np.array([0.0]),
            stop_wh=np.array([energy if stop is None else stop], float),
            billed_wh=np.array([energy if billed is None else billed], float),
            energy_fee=np.array([first]),
            service_fee=np.array([second]),
            other_fee=np.array([other_fee]),
            discount=np.array([discount]),
            total_fee=np.array([first + second if total_fee is None else total_fee]),
        ),
        BilledPeriods(
            session=np.zeros(len(periods), np.int64),
            from_s=np.array([MIDNIGHT + p[0] * 3600 for p in periods]),
            to_s=np.array([MIDNIGHT + p[1] * 3600 for p in periods]),
            energy_wh=np.array([p[2] for p in periods], float),
            energy_price=np.array([p[3] for p in periods], float),
            service_price=np.array([p[4] for p in periods], float),
        ),
    )


def fee_codes(*args, **options):
    sums = fee_findings(*fees(*args, **options), resolution_wh=np.array([1.0]))
    return [f.code for f in sums]


# The session of the telemetry contract: 31,210 Wh x 0.78 = 24.34, x 0.40 = 12.48.
CONTRACT = [(8, 9, 31_210, 0.78, 0.40)]


def test_the_contracts_own_example_adds_up():
    assert fee_codes(CONTRACT, energy_fee=24.34, service_fee=12.48, total_fee=36.82) == []


@pytest.mark.parametrize(
    "wrong",
    [{"energy_fee": 24.84}, {"service_fee": 12.98}, {"total_fee": 37.50}],
)
def test_a_fee_that_is_not_the_sum_is_found(wrong):
    told = {"energy_fee": 24.34, "service_fee": 12.48, "total_fee": 36.82, **wrong}
    assert fee_codes(CONTRACT, **told) == ["fee_mismatch"]


@pytest.mark.parametrize(
    ("told", "codes"),
    [
        ({"other_fee": 5.0, "total_fee": 41.82}, []),
        ({"discount": 6.82, "total_fee": 30.0}, []),
        ({"other_fee": 5.0, "discount": 1.82, "total_fee": 40.0}, []),
        ({"other_fee": 5.0, "total_fee": 36.82}, []),  # the customer pays less
        ({"total_fee": 31.82}, []),  # a coupon that only the total tells
        ({"energy_fee": 0.0, "service_fee": 0.0, "total_fee": 0.0}, []),  # paid before
        ({"energy_fee": 24.34, "service_fee": 0.0, "total_fee": 36.82}, ["fee_mismatch"]),
        ({"discount": 6.82, "total_fee": 36.82}, ["fee_mismatch"]),
        ({"discount": 6.82, "total_fee": 43.64}, ["fee_mismatch"]),
        ({"service_fee": np.nan, "total_fee": 24.34}, []),
        ({"service_fee": np.nan, "total_fee": 99.0}, []),  # what isn't told isn't checked
    ],
)
def test_other_fees_and_discounts_are_part_of_the_sum(told, codes):
    assert fee_codes(CONTRACT, **({"energy_fee": 24.34, "service_fee": 12.48} | told)) == codes


def test_rounding_to_a_cent_per_period_is_allowed():
    periods = [(6, 7, 3333, *NIGHT), (7, 8, 3333, *DAY), (8, 9, 3333, *DAY)]
    exact = (3333 * 0.35 + 2 * 3333 * 0.80) / 1000
    assert fee_codes(periods, energy_fee=round(exact + 0.02, 2)) == []
    assert fee_codes(periods, energy_fee=round(exact + 0.05, 2)) == ["fee_mismatch"]


def test_fees_that_are_not_told_raise_nothing():
    assert fee_codes(CONTRACT, energy_fee=np.nan, service_fee=np.nan, total_fee=np.nan) == []


def test_periods_that_do_not_add_up_to_the_metered_bill_are_found():
    assert fee_codes(CONTRACT, billed=35_000, stop=35_000) == ["fee_mismatch"]
    # Where the bill isn't the metered energy the session has another signal.
    assert fee_codes(CONTRACT, billed=35_000) == []


def prices(periods, used=None):
    return [
        f.detail
        for f in tariff_findings(
            *fees(periods), [used or curve()], curve_of=np.array([0]), clock_limit_s=CLOCK_LIMIT_S
        )
    ]


def test_a_session_over_a_tariff_edge_at_the_right_prices_is_fine():
    assert prices([(6.5, 7, 1000, *NIGHT), (7, 8, 1000, *DAY)]) == []


def test_a_clock_off_by_less_than_three_minutes_is_allowed():
    assert prices([(6.5, 7.04, 1000, *NIGHT), (7.04, 8, 1000, *DAY)]) == []


def test_another_price_is_found():
    assert len(prices([(8, 9, 1000, 0.88, 0.40)])) == 1
    assert len(prices([(8, 9, 1000, 0.80, 0.45)])) == 1


def test_who_pays_less_or_one_price_for_both_is_not_overcharged():
    for energy, service in ((0.0, 0.0), (0.72, 0.40), (1.20, 0.0), (0.80, np.nan)):
        assert prices([(8, 9, 1000, energy, service)]) == [], (energy, service)
    assert len(prices([(8, 9, 1000, 1.21, 0.0)])) == 1


def test_a_price_that_goes_on_past_its_edge_is_found():
    assert len(prices([(6.5, 6.6, 1000, *NIGHT), (6.6, 8, 1000, *DAY)])) == 1
    assert prices([(6.5, 7.5, 1000, *NIGHT), (7.5, 8, 1000, *DAY)]) == []  # cheaper


def test_without_a_registered_tariff_no_price_is_wrong():
    found = tariff_findings(
        *fees([(8, 9, 1000, 9.0, 9.0)]), [], curve_of=np.array([-1]), clock_limit_s=CLOCK_LIMIT_S
    )
    assert found == []


def test_a_newer_tariff_replaces_the_older_from_its_beginning():
    newer = {
        "valid_from_s": MIDNIGHT + 8 * 3600,
        "periods": [{"from": 0, "to": DAY_S, "energy_price": 1.0, "service_price": 0.4}],
    }
    both = curve(TARIFF, newer)
    assert prices([(7.5, 8, 1000, *DAY), (8, 9, 1000, 1.0, 0.4)], both) == []
    assert len(prices([(7.5, 7.9, 1000, 1.0, 0.4)], both)) == 1


def test_periods_go_by_the_clock_on_the_wall_also_where_it_is_changed():
    zone = ZoneInfo("Europe/Berlin")
    for month, day in ((3, 29), (10, 25)):
        midnights = [datetime(2026, month, day + k, tzinfo=zone).timestamp() for k in (-1, 0, 1)]
        tariff = TARIFF | {"valid_from_s": midnights[0]}
        used = tariff_curve(
            [tariff],
            from_s=midnights[0],
            to_s=midnights[2] + DAY_S / 2,
            midnights_s=midnights,
            zone=zone,
        )
        edges = [datetime(2026, month, day + k, 7, tzinfo=zone).timestamp() for k in (-1, 0, 1)]
        assert used.from_s[used.energy_price == 0.80].tolist() == edges


def test_a_period_over_midnight_wraps():
    wrapped = {
        "valid_from_s": MIDNIGHT - 30 * DAY_S,
        "periods": [
            {"from": 22 * 3600, "to": 6 * 3600, "energy_price": 0.3, "service_price": 0.0},
            {"from": 6 * 3600, "to": 22 * 3600, "energy_price": 0.9, "service_price": 0.0},
        ],
    }
    assert prices([(22.5, 29.5, 1000, 0.3, 0.0)], curve(wrapped)) == []


def clock(shift_h):
    """A steady 6 kW from 6 h to 8 h; the bill splits it at an edge seen `shift_h` late."""
    at = MIDNIGHT + np.arange(6 * 3600, 8 * 3600 + 1, 60.0)
    energy = (at - at[0]) / 3600 * 6000
    given = Readings(
        connector=np.zeros(at.size, np.int64),
        at_s=at,
        energy_wh=np.round(energy),
        power_w=np.full(at.size, 6000.0),
        session=np.ones(at.size, np.int64),
        is_reset=np.zeros(at.size, bool),
        is_begin=np.zeros(at.size, bool),
        is_end=np.zeros(at.size, bool),
    )
    piles = Piles(rated_power_w=np.array([7000.0]), resolution_wh=np.array([1.0]))
    first = 6000.0 * (1 + shift_h)
    session, periods = fees([(6, 7, first, *NIGHT), (7, 8, 12_000 - first, *DAY)])
    return edge_findings(
        session,
        periods,
        timeline(given, base_s=MIDNIGHT - DAY_S),
        pairs_of(given, piles),
        clock_limit_s=CLOCK_LIMIT_S,
    )


def test_a_clock_that_shifts_energy_over_an_edge_is_found():
    (found,) = clock(0.5)
    assert found.code == "tariff_mismatch"
    assert 2600 < found.value < 3001


def test_a_clock_within_three_minutes_shifts_too_little():
    assert clock(0.0) == []
    assert clock(0.04) == []
