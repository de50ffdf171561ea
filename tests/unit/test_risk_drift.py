import numpy as np
import pytest

from chargewatch.risk.drift import (
    cusum,
    day_to_day_variance,
    find_changes,
    find_drifts,
    present_level,
    self_starting,
    suspicions,
)


def series(rng, n, days, *, u=0.003):
    spread = rng.uniform(0.5 * u, 2 * u, (n, days))
    return rng.normal(0, spread), spread**-2.0


def find(estimate, precision, smallest=0.0):
    return find_changes(
        estimate, precision, smallest=np.full(estimate.shape[0], smallest), reference=0.5, limit=8.0
    )


def test_cusum_by_hand():
    z = np.array([[2.0, 2.0, -1.0, np.nan, 7.0]])
    statistic, first = cusum(z, reference=0.5, limit=8.0)
    # 1.5, 3.0, 1.5, 1.5, 8.0; the lower sum is 0.5 on the third day.
    assert statistic[0].tolist() == [1.5, 3.0, 1.5, 1.5, 8.0]
    assert first[0] == -1
    assert cusum(z, reference=0.5, limit=7.9)[1][0] == 4


def test_run_length_without_change_is_that_of_the_specification():
    # Siegmund's approximation for k = 0.5, h = 8, two-sided: 9,556 days.
    rng = np.random.default_rng(11)
    days, rows = 400, 12_000
    _, first = cusum(rng.standard_normal((rows, days)), reference=0.5, limit=8.0)
    # Alarms come at a constant rate: P(first <= d) = 1 - exp(-d / ARL), less the start at zero.
    share = (first >= 0).mean()
    length = -(days - 20) / np.log1p(-share)
    assert length == pytest.approx(9556, rel=0.15)


def test_innovations_of_unequal_days_are_standard_normal_and_uncorrelated():
    rng = np.random.default_rng(12)
    z = self_starting(*series(rng, 5000, 12), begin=np.zeros(5000, dtype=np.int64))
    assert np.isnan(z[:, 0]).all()
    assert np.std(z[:, 1:]) == pytest.approx(1.0, abs=0.02)
    assert abs(np.corrcoef(z[:, 5], z[:, 6])[0, 1]) < 0.05


def test_false_alarms_stay_within_four_in_a_thousand_piles_and_a_month():
    rng = np.random.default_rng(13)
    found = find(*series(rng, 6000, 30))
    assert found.alarm.sum() <= 4 * 6


def test_a_step_is_found_and_dated():
    rng = np.random.default_rng(14)
    estimate, precision = series(rng, 1000, 30)
    estimate[:200, 20:] += 0.02
    found = find(estimate, precision)
    assert found.alarm[:200].mean() > 0.99
    assert found.alarm[200:].mean() < 0.01
    assert np.median(found.changed[:200]) == 20
    inside = (found.low <= 20) & (found.high >= 20)
    assert inside[:200].mean() > 0.9
    level, variance = present_level(
        estimate,
        precision,
        begin=found.changed,
        slope=np.zeros(1000),
        slope_variance=np.zeros(1000),
    )
    assert np.median(level[:200]) == pytest.approx(0.02, abs=0.001)
    assert np.median(variance[:200]) < 0.003**2


def test_a_drift_is_found_and_followed():
    rng = np.random.default_rng(15)
    estimate, precision = series(rng, 500, 30)
    estimate[:100] += 0.002 * np.maximum(np.arange(30) - 5, 0)
    found = find(estimate, precision)
    assert found.alarm[:100].all()
    drifts = find_drifts(estimate[:100], precision[:100])
    assert drifts.is_drift.mean() > 0.98
    assert np.median(drifts.begin) == pytest.approx(5.5, abs=1)
    inside = (drifts.low <= 6) & (drifts.high >= 5)
    assert inside.mean() > 0.9
    level, variance = present_level(
        estimate[:100],
        precision[:100],
        begin=drifts.begin,
        slope=drifts.slope,
        slope_variance=drifts.variance,
    )
    # At the end of the last day the drift has gone on for 24.5 days.
    z = (level - 0.049) / np.sqrt(variance)
    assert np.mean(np.abs(z) < 1.96) > 0.85
    assert np.median(level) == pytest.approx(0.049, abs=0.002)


def test_a_drift_by_hand():
    # Level 0 for two days, then 0.01 a day: at mid-days 0.005, 0.015, ... of equal precision.
    estimate = np.concatenate([np.zeros(2), 0.01 * (np.arange(8) + 0.5)])[None, :]
    precision = np.full((1, 10), 1e6)
    drifts = find_drifts(estimate, precision)
    assert drifts.is_drift[0]
    assert drifts.begin[0] == 2
    assert drifts.slope[0] == pytest.approx(0.01, rel=1e-12)
    ramp = np.concatenate([np.zeros(2), np.arange(8) + 0.5])
    spread = 1e6 * ((ramp - ramp.mean()) ** 2).sum()
    assert drifts.variance[0] == pytest.approx(1.0 / spread, rel=1e-12)
    level, variance = present_level(
        estimate, precision, begin=drifts.begin, slope=drifts.slope, slope_variance=drifts.variance
    )
    assert level[0] == pytest.approx(0.08, rel=1e-12)
    assert variance[0] == pytest.approx(1e-7 + (8 - ramp.mean()) ** 2 / spread, rel=1e-12)


def test_a_step_is_no_drift():
    rng = np.random.default_rng(19)
    estimate, precision = series(rng, 300, 30)
    estimate[:, 18:] += 0.02
    assert find_drifts(estimate, precision).is_drift.mean() < 0.01
    none = find_drifts(np.zeros((2, 0)), np.zeros((2, 0)))
    assert not none.is_drift.any()


def test_a_change_too_small_to_matter_is_no_alarm():
    rng = np.random.default_rng(16)
    estimate, precision = series(rng, 200, 30, u=0.0005)
    estimate[:50, 15:] += 0.003
    assert find(estimate, precision).alarm[:50].all()
    assert not find(estimate, precision, smallest=0.005).alarm.any()


def test_one_wild_day_is_no_drift():
    rng = np.random.default_rng(17)
    estimate, precision = series(rng, 200, 30)
    estimate[:, 17] += 0.5
    assert not find(estimate, precision).alarm.any()


def test_variance_between_days_is_found_again():
    rng = np.random.default_rng(18)
    estimate, precision = series(rng, 400, 20)
    assert day_to_day_variance(estimate, precision) < 0.001**2
    estimate += rng.normal(0, 0.006, estimate.shape)
    assert np.sqrt(day_to_day_variance(estimate, precision)) == pytest.approx(0.006, rel=0.1)


def test_without_days_nothing_is_found():
    found = find(np.zeros((3, 0)), np.zeros((3, 0)))
    assert not found.alarm.any()
    assert (found.changed == -1).all()


def test_a_weak_step_is_suspected_by_its_odds():
    # Ten days at 0 and five at 0.02, each with u = 0.01.
    estimate = np.concatenate([np.zeros(10), np.full(5, 0.02)])[None, :]
    precision = np.full((1, 15), 1e4)
    found = suspicions(estimate, precision)
    gain = 0.5 * (1e5 * 5e4) / 1.5e5 * 0.02**2
    odds = 0.005 / 15 * np.exp(gain)
    assert found.chance[0] == pytest.approx(odds / (1 + odds), rel=1e-12)
    assert found.size[0] == pytest.approx(0.02)
    assert found.variance[0] == pytest.approx(1e-5 + 2e-5)
    assert found.doubt[0] == pytest.approx(found.chance[0] * 4e-4)


def test_steady_meters_are_hardly_suspected():
    rng = np.random.default_rng(20)
    estimate, precision = series(rng, 2000, 30)
    found = suspicions(estimate, precision)
    assert (found.chance > 0.2).mean() < 0.02
    assert found.doubt.mean() < 0.1 * 0.003**2
    nothing = suspicions(np.zeros((2, 0)), np.zeros((2, 0)))
    assert (nothing.doubt == 0).all()


def test_one_or_two_days_are_no_suspicion():
    estimate, precision = np.zeros((1, 20)), np.full((1, 20), 1e5)
    precision[0, :-2] = 0.0
    estimate[0, -1] = 0.3
    assert suspicions(estimate, precision).chance[0] == 0.0
