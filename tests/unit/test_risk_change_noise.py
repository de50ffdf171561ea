"""Noise in time, and what meters say since a change."""

import numpy as np
import pytest

from chargewatch.risk.change_noise import day_to_day_variance, metered_noise, session_noise
from chargewatch.risk.changes import present_level


def series(rng, n, days, *, u=0.003):
    spread = rng.uniform(0.5 * u, 2 * u, (n, days))
    return rng.normal(0, spread), spread**-2.0


def test_variance_between_days_is_found_again():
    rng = np.random.default_rng(18)
    estimate, precision = series(rng, 400, 20)
    assert day_to_day_variance(estimate, precision) < 0.001**2
    estimate += rng.normal(0, 0.006, estimate.shape)
    assert np.sqrt(day_to_day_variance(estimate, precision)) == pytest.approx(0.006, rel=0.1)
    assert day_to_day_variance(estimate[:2, :2], precision[:2, :2]) == 0.0


def test_a_change_is_no_noise():
    """Even where every connector steps, days are as precise as they were."""
    rng = np.random.default_rng(19)
    estimate, precision = series(rng, 300, 30)
    is_dc, mpe = np.arange(300) % 2 > 0, np.full(300, 0.02)
    before = metered_noise(estimate, precision, is_dc=is_dc, mpe=mpe)
    estimate[:, 15:] += 0.03
    after = metered_noise(estimate, precision, is_dc=is_dc, mpe=mpe)
    assert np.median(after / before) > 0.75


def test_a_restless_connector_is_believed_less_and_others_are_not():
    rng = np.random.default_rng(20)
    estimate, precision = series(rng, 300, 30)
    estimate[0] += rng.normal(0, 0.02, 30)
    found = metered_noise(estimate, precision, is_dc=np.zeros(300, bool), mpe=np.full(300, 0.01))
    kept = found / metered_noise(
        estimate[1:2], precision[:1], is_dc=np.zeros(1, bool), mpe=np.full(1, 0.01)
    )
    assert np.median(kept[0]) < 0.4
    assert np.median(found[1:] / precision[1:]) > 0.7


def test_what_sessions_scatter_beyond_is_found_by_side():
    rng = np.random.default_rng(21)
    who = np.repeat(np.arange(100), 20)
    side = (who >= 50).astype(np.int64)
    u = np.full(who.size, 0.01)
    value = rng.normal(0, 0.03, 100)[who] + rng.normal(0, u) + side * rng.normal(0, 0.02, who.size)
    found = session_noise(who, value, u**2, side=side)
    assert np.sqrt(found[side == 0]) == pytest.approx(0.01, rel=0.1)
    assert np.sqrt(found[side == 1]) == pytest.approx(np.hypot(0.01, 0.02), rel=0.1)


def test_the_level_since_a_step_by_hand():
    estimate = np.array([[0.0, 0.01, 0.03, 0.05]])
    precision = np.array([[1e4, 1e4, 1e4, 3e4]])
    level, variance = present_level(
        estimate, precision, begin=np.array([2]), slope=np.zeros(1), slope_variance=np.zeros(1)
    )
    assert level[0] == pytest.approx((0.03 + 3 * 0.05) / 4)
    assert variance[0] == pytest.approx(1 / 4e4)
    nothing = present_level(
        estimate, 0 * precision, begin=np.array([2]), slope=np.zeros(1), slope_variance=np.zeros(1)
    )
    assert np.isinf(nothing[1][0])


def test_the_level_along_a_drift_by_hand():
    # Level 0 for two days, then 0.01 a day: at mid-days 0.005, 0.015, ... of equal precision.
    estimate = np.concatenate([np.zeros(2), 0.01 * (np.arange(8) + 0.5)])[None, :]
    precision = np.full((1, 10), 1e6)
    ramp = np.concatenate([np.zeros(2), np.arange(8) + 0.5])
    spread = 1e6 * ((ramp - ramp.mean()) ** 2).sum()
    level, variance = present_level(
        estimate,
        precision,
        begin=np.array([2]),
        slope=np.array([0.01]),
        slope_variance=np.array([1 / spread]),
    )
    assert level[0] == pytest.approx(0.08, rel=1e-12)
    assert variance[0] == pytest.approx(1e-7 + (8 - ramp.mean()) ** 2 / spread, rel=1e-12)
