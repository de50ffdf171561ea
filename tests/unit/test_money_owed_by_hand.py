"""Bills and errors of single sessions by hand; posteriors against numerical integration."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import norm

from chargewatch.risk.decision import PRIOR_POPULATION
from chargewatch.risk.money import parted, undelivered
from chargewatch.runs.owed_sums import Sharing, standard_deviation
from chargewatch.signals.bills import charged, differences, plain_terms, terms_of
from chargewatch.signals.money import BilledPeriods, Fees, TariffCurve

NAN = float("nan")
FLAT = TariffCurve(
    from_s=np.array([0.0]), energy_price=np.array([0.7]), service_price=np.array([0.4])
)


def bill(*, metered, periods, fees, curve=FLAT, total=NAN, other=NAN, discount=NAN, billed=None):
    """Return the difference and the rightful price of one session, 100 s a period."""
    count = len(periods)
    energy = np.array([p[0] for p in periods], float)
    told = Fees(
        name=np.array([1]),
        connector=np.array([0]),
        started_s=np.array([0.0]),
        ended_s=np.array([1e5]),
        start_wh=np.array([0.0]),
        stop_wh=np.array([metered], float),
        billed_wh=np.array([energy.sum() if billed is None else billed], float),
        energy_fee=np.array([fees[0]], float),
        service_fee=np.array([fees[1]], float),
        other_fee=np.array([other]),
        discount=np.array([discount]),
        total_fee=np.array([total]),
    )
    terms, _ = terms_of(
        told,
        BilledPeriods(
            session=np.zeros(count, np.int64),
            from_s=np.arange(count) * 7200.0,
            to_s=np.arange(count) * 7200.0 + 7200.0,
            energy_wh=energy,
            energy_price=np.array([p[1] for p in periods], float),
            service_price=np.array([p[2] for p in periods], float),
        ),
        curves=[] if curve is None else [curve],
        curve_of=np.array([-1 if curve is None else 0]),
        clock_limit_s=180.0,
    )
    found = differences(terms, np.array([metered], float), tolerance_wh=np.array([10.0]))
    return float(found.bill[0]), float(found.rightful[0])


def test_an_honest_bill_has_no_difference() -> None:
    # 20 kWh x 0.70 + 20 kWh x 0.40.
    assert bill(metered=20_000, periods=[(20_000, 0.7, 0.4)], fees=(14.0, 8.0)) == (0.0, 22.0)
    # A cent a period is rounding, ten Wh are the bill's step.
    off, _ = bill(metered=20_009, periods=[(20_000, 0.7, 0.4)], fees=(14.01, 8.0))
    assert off == 0.0


def test_prices_above_the_tariff_are_owed_back() -> None:
    # 20 kWh at 0.75 instead of 0.70.
    off, rightful = bill(metered=20_000, periods=[(20_000, 0.75, 0.4)], fees=(15.0, 8.0))
    assert off == pytest.approx(1.0)
    assert rightful == pytest.approx(22.0)
    # Over the whole session: what one period asks too much another one gave.
    both = [(10_000, 0.8, 0.4), (10_000, 0.5, 0.4)]
    assert bill(metered=20_000, periods=both, fees=(13.0, 8.0))[0] == 0.0
    # Nobody registered a tariff: its own terms are its terms.
    off, _ = bill(metered=20_000, periods=[(20_000, 9.0, 0.4)], fees=(180.0, 8.0), curve=None)
    assert off == 0.0


def test_less_than_the_tariff_is_a_gift() -> None:
    for fees, periods in (
        ((10.0, 8.0), [(20_000, 0.5, 0.4)]),
        ((0.0, 0.0), [(20_000, 0.0, 0.0)]),
        ((0.0, 0.0), [(20_000, 0.7, 0.4)]),  # paid before
        ((22.0, 0.0), [(20_000, 1.1, NAN)]),  # bundled, service not told
    ):
        off, _ = bill(metered=20_000, periods=periods, fees=fees)
        assert off == pytest.approx(0.0 if fees[0] < 22 else 8.0), fees


def test_energy_that_the_register_does_not_have_is_owed_both_ways() -> None:
    off, rightful = bill(metered=20_000, periods=[(21_000, 0.7, 0.4)], fees=(14.7, 8.4))
    assert (off, rightful) == (pytest.approx(1.1), pytest.approx(22.0))
    off, rightful = bill(metered=20_000, periods=[(19_000, 0.7, 0.4)], fees=(13.3, 7.6))
    assert (off, rightful) == (pytest.approx(-1.1), pytest.approx(22.0))
    # A wrong sum and wrong energy come together.
    off, _ = bill(metered=20_000, periods=[(21_000, 0.7, 0.4)], fees=(15.7, 8.4))
    assert off == pytest.approx(2.1)


def test_parking_and_discounts_are_not_energy() -> None:
    asked = {"metered": 20_000, "periods": [(20_000, 0.7, 0.4)], "fees": (14.0, 8.0)}
    assert bill(**asked, total=30.0, other=8.0)[0] == 0.0
    assert bill(**asked, total=17.0, discount=5.0)[0] == 0.0
    assert bill(**asked, total=32.0, other=8.0)[0] == pytest.approx(2.0)


def test_a_bill_in_another_unit_is_told_by_its_money() -> None:
    # 20 kWh told as 20, paid as 20 kWh.
    assert bill(metered=20_000, periods=[], billed=20, fees=(14.0, 8.0))[0] == 0.0
    # 20,000 kWh told and paid for.
    off, _ = bill(metered=20_000, periods=[(20_000_000, 0.7, 0.4)], fees=(14_000, 8_000))
    assert off == pytest.approx(22_000 - 22)


def test_what_is_not_known_is_not_nothing() -> None:
    off, rightful = bill(metered=20_000, periods=[], billed=20_000, fees=(NAN, NAN))
    assert np.isnan(off)
    assert np.isnan(rightful)
    off, rightful = bill(metered=-5.0, periods=[(20_000, 0.7, 0.4)], fees=(14.0, 8.0))
    assert np.isnan(off)
    # A price that is none values no energy.
    off, rightful = bill(metered=20_000, periods=[], billed=1, fees=(3.0, 0.0))
    assert np.isnan(off)
    assert np.isnan(rightful)
    # Nothing charged for nothing: that is known.
    assert bill(metered=0.0, periods=[], billed=0.0, fees=(0.0, 0.0)) == (0.0, 0.0)
    assert bill(metered=0.0, periods=[], billed=0.0, fees=(3.0, 0.0)) == (3.0, 0.0)


money = st.floats(0, 1e4)


@given(st.lists(st.tuples(money, money, st.floats(0, 1e6), st.floats(0, 1e6)), max_size=30))
def test_bills_and_register_make_up_what_was_asked(rows) -> None:
    told = np.array(rows, float).reshape(-1, 4)
    none = np.full(len(rows), NAN)
    asked = charged(
        energy_fee=told[:, 0], service_fee=told[:, 1], other_fee=none, discount=none, total_fee=none
    )
    found = differences(
        plain_terms(told[:, 2], asked), told[:, 3], tolerance_wh=np.full(len(rows), 10.0)
    )
    known = np.isfinite(found.bill)
    # Charged = too much by the bill + the rightful price of what the register has.
    assert (found.bill + found.rightful)[known] == pytest.approx(asked[known], rel=1e-9, abs=1e-6)


@pytest.mark.parametrize(("e", "u"), [(0.06, 0.004), (-0.03, 0.006), (0.002, 0.005), (0.0, 0.02)])
def test_the_undelivered_share_matches_numerical_integration(e: float, u: float) -> None:
    grid = np.linspace(-0.4, 0.4, 400_001)
    prior = sum(
        share * norm.pdf(grid, 0, spread * 0.02)
        for share, spread in zip(PRIOR_POPULATION.share, PRIOR_POPULATION.spread, strict=True)
    )
    weight = prior * norm.pdf(e, grid, u)
    weight /= weight.sum()
    share = grid / (1 + grid)
    found = undelivered(
        np.array([e]), np.array([u]), mpe=np.array([0.02]), population=PRIOR_POPULATION
    )
    over, under = (float(weight @ np.maximum(x, 0)) for x in (share, -share))
    assert found.over[0] == pytest.approx(over, rel=0.005, abs=1e-6)
    assert found.under[0] == pytest.approx(under, rel=0.005, abs=1e-6)
    assert found.mean[0] == pytest.approx(over - under, rel=0.005, abs=1e-6)
    assert found.over[0] - found.under[0] == pytest.approx(found.mean[0], abs=1e-12)
    variance = float(weight @ share**2) - (over - under) ** 2
    assert found.variance[0] == pytest.approx(variance, rel=0.01)
    squares = (float(weight @ np.maximum(x, 0) ** 2) for x in (share, -share))
    wanted = [square - mean**2 for square, mean in zip(squares, (over, under), strict=True)]
    assert found.variance_over[0] == pytest.approx(wanted[0], rel=0.03, abs=1e-9)
    assert found.variance_under[0] == pytest.approx(wanted[1], rel=0.03, abs=1e-9)
    low, high = np.interp((0.025, 0.975), np.cumsum(weight), share)
    assert found.over_high[0] == pytest.approx(max(high, over), rel=0.01, abs=2e-5)
    assert found.over_low[0] == pytest.approx(max(low, 0.0), rel=0.01, abs=2e-5)
    assert found.under_high[0] == pytest.approx(max(-low, under), rel=0.01, abs=2e-5)


def test_errors_in_and_out_of_a_situation_do_not_make_up_for_one_another() -> None:
    sides = [
        undelivered(
            np.array([e]), np.array([1e-4]), mpe=np.array([0.02]), population=PRIOR_POPULATION
        )
        for e in (0.06, -0.06)
    ]
    both = parted(sides[0], sides[1], np.array([0.5]))
    assert both.over[0] == pytest.approx(0.5 * 0.06 / 1.06, rel=1e-3)
    assert both.under[0] == pytest.approx(0.5 * 0.06 / 0.94, rel=1e-3)
    assert both.mean[0] == pytest.approx(both.over[0] - both.under[0])


def test_what_piles_share_does_not_average_out() -> None:
    n, random = 400, np.random.default_rng(3)
    station = np.arange(n) // 20
    sharing = Sharing(station=station, by_station=np.full(n, 0.3), by_city=np.full(n, 0.2))
    variance = random.uniform(1.0, 4.0, n)
    group = np.where(station < 5, 0, 1)
    group[-20:] = -1
    # Drawn as it is meant: own, station's, city's.
    u = np.sqrt(variance)
    draws = 20_000
    noise = random.normal(size=(draws, n)) * np.sqrt(0.5) * u
    noise += random.normal(size=(draws, 20))[:, station] * np.sqrt(0.3) * u
    noise += random.normal(size=(draws, 1)) * np.sqrt(0.2) * u
    found = standard_deviation(variance, group, sharing, groups=2)
    for k in (0, 1):
        assert found[k] == pytest.approx(noise[:, group == k].sum(axis=1).std(), rel=0.03)
