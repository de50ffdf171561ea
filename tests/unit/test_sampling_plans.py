"""How many to inspect: plans that keep their risks, and a sequential test that keeps its own."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from chargewatch.draws.frame import DrawError
from chargewatch.draws.plans import sampling_plan
from chargewatch.draws.sequential import ClaimOutcome, martingale, stand
from chargewatch.supervision.inspections.lots import plans_of


@pytest.mark.parametrize("lot", [1, 14, 20, 100, 333, 1000, 20_000])
def test_a_plan_keeps_both_risks_and_no_smaller_one_does(lot: int) -> None:
    plan = sampling_plan(lot)
    rng = np.random.default_rng(lot)
    bad, good = -(-7 * lot // 100), lot // 100
    passes = rng.hypergeometric(bad, lot - bad, plan.size, 200_000) <= plan.allowed
    fails = rng.hypergeometric(good, lot - good, plan.size, 200_000) > plan.allowed
    assert passes.mean() <= 0.05 + 4 * np.sqrt(0.05 * 0.95 / 200_000)
    assert fails.mean() <= 0.05 + 4 * np.sqrt(0.05 * 0.95 / 200_000)
    assert passes.mean() == pytest.approx(plan.consumers_risk, abs=0.003)
    assert fails.mean() == pytest.approx(plan.producers_risk, abs=0.003)
    for size in range(1, plan.size):
        for allowed in range(10):
            keeps = stats.hypergeom.cdf(allowed, lot, bad, size) <= 0.05
            assert not (keeps and stats.hypergeom.sf(allowed, lot, good, size) <= 0.05)


def test_a_plan_for_nothing_is_refused() -> None:
    for lot, acceptable, limiting in ((0, 0.01, 0.07), (9, 0.07, 0.07), (9, -1, 0.07), (9, 0, 2)):
        with pytest.raises(DrawError):
            sampling_plan(lot, acceptable=acceptable, limiting=limiting)


def shuffled(lot: int, bad: int, runs: int, seed: int) -> np.ndarray:  # type: ignore[type-arg]
    fails = np.zeros((runs, lot), dtype=bool)
    fails[:, :bad] = True
    return np.random.default_rng(seed).permuted(fails, axis=1)


def test_the_sequential_test_keeps_its_risk_however_often_one_looks() -> None:
    runs = 10_000
    most = 0.05 + 4 * np.sqrt(0.05 * 0.95 / runs)
    # The first lot that does not fulfil the claim, and the last one that does.
    confirmed = martingale(shuffled(500, 26, runs, 1), lot=500, bound=0.05, above=True)
    refuted = martingale(shuffled(500, 25, runs, 2), lot=500, bound=0.05, above=False)
    assert 0.001 < (confirmed.max(axis=1) >= 20).mean() <= most
    assert 0.001 < (refuted.max(axis=1) >= 20).mean() <= most


def test_the_sequential_test_is_a_martingale_at_its_bound() -> None:
    statistic = martingale(shuffled(200, 11, 40_000, 3)[:, :30], lot=200, bound=0.05, above=True)
    for k in (0, 9, 29):
        mean, error = statistic[:, k].mean(), statistic[:, k].std() / 200
        assert abs(mean - 1) < 5 * error


def test_good_lots_are_confirmed_and_bad_ones_refuted_without_a_census() -> None:
    good = stand([False] * 80, lot=1000)
    assert good.outcome is ClaimOutcome.CONFIRMED
    assert good.risk_of_confirming <= 0.05
    bad = stand([False, True, False, True, True, True, False, True], lot=1000)
    assert bad.outcome is ClaimOutcome.REFUTED
    assert stand([False] * 30 + [True], lot=1000).outcome is ClaimOutcome.OPEN
    assert stand([], lot=1000) == stand([], lot=1000)
    assert stand([], lot=1000).risk_of_confirming == 1.0


def test_a_whole_lot_inspected_is_decided_with_certainty() -> None:
    for bad in range(11):
        for row in shuffled(60, bad, 20, bad):
            found = stand([bool(one) for one in row], lot=60)
            right = found.risk_of_confirming if bad <= 3 else found.risk_of_refuting
            assert right == 0.0
            assert found.outcome is not ClaimOutcome.OPEN


def test_results_that_cannot_be_are_refused() -> None:
    with pytest.raises(DrawError):
        stand([False] * 11, lot=10)
    for conforming, risk in ((1.0, 0.05), (0.0, 0.05), (0.95, 0.0), (0.95, 1.0)):
        with pytest.raises(DrawError):
            stand([], lot=10, conforming=conforming, risk=risk)


def test_what_will_never_be_known_counts_against_either_decision() -> None:
    known = stand([False] * 70, lot=1000)
    for k in (0, 30, 69):
        row: list[bool | None] = [False] * 70
        row[k] = None
        found = stand(row, lot=1000)
        assert found.risk_of_confirming > known.risk_of_confirming
        assert found.risk_of_refuting >= known.risk_of_refuting
        assert found.nonconforming == 0
    bad = stand([True] * 5, lot=1000)
    assert stand([True, True, None, True, True], lot=1000).risk_of_refuting > bad.risk_of_refuting


def test_looked_up_plans_stand_beside_computed_ones_with_their_risks() -> None:
    found = plans_of(1200)
    assert [(one.name, one.size, one.allowed) for one in found.plans] == [
        ("2014/32/EU, module F", 86, 2), ("95 % conform", 147, 3), ("OIML G 20", 50, 1),
    ]  # fmt: skip
    for one in found.plans:
        assert one.consumers_risk == pytest.approx(
            stats.hypergeom.cdf(one.allowed, 1200, 84, one.size)
        )
    assert [one.confirmed for one in found.plans] == [True, True, False]
    assert len(plans_of(30).plans) == 2
