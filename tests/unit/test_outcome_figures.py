"""Shares, intervals and delays of flags, beside scipy."""

from __future__ import annotations

import math
import random

import numpy as np
import pytest
from scipy.stats import CensoredData, binomtest, ecdf

from chargewatch.supervision.outcomes.figures import delay_of, kaplan_meier, share_of


@pytest.mark.parametrize("of", [1, 2, 7, 40, 1000])
def test_intervals_are_scipys(of: int) -> None:
    for hits in {0, 1, of // 3, of - 1, of}:
        share, test = share_of(hits, of), binomtest(hits, of)
        for method, low, high in (
            ("wilson", share.low, share.high),
            ("exact", share.exact_low, share.exact_high),
        ):
            interval = test.proportion_ci(method=method)
            assert (low, high) == pytest.approx((interval.low, interval.high), abs=1e-9)


def test_nothing_counted_is_not_zero() -> None:
    share = share_of(0, 0)
    assert all(math.isnan(value) for value in (share.value, share.low, share.exact_high))
    with pytest.raises(ValueError, match="no share"):
        share_of(3, 2)


def test_the_curve_is_scipys_whatever_the_ties() -> None:
    dice = random.Random(5)
    for _ in range(200):
        size = dice.randint(1, 30)
        days = [float(dice.randint(0, 12)) for _ in range(size)]
        over = [dice.random() < 0.6 for _ in range(size)]
        ended = np.array([d for d, o in zip(days, over, strict=True) if o])
        waiting = np.array([d for d, o in zip(days, over, strict=True) if not o])
        curve = kaplan_meier(days, over)
        if not ended.size:
            assert curve == ()
            continue
        found = ecdf(CensoredData(uncensored=ended, right=waiting)).cdf
        for day, share in curve:
            assert share == pytest.approx(float(found.evaluate(day)), abs=1e-12)


def test_a_median_that_is_not_reached_is_not_known() -> None:
    few = delay_of([1.0, 5.0, 9.0, 9.0], [True, False, False, False])
    assert few.over == 1
    assert few.waiting == 3
    assert few.quarter_days == 1.0
    assert math.isnan(few.median_days)
    assert delay_of([], []).curve == ()
