"""The tails of sessions are estimated, not believed."""

import numpy as np
import pytest

from chargewatch.risk.tails import FIRST_VEHICLE_TAIL, session_tail, vehicle_tail
from chargewatch.risk.vehicles import FIRST_TAIL, Tail, tail_inflation, tail_weights

SPREAD = 0.02


def tail_of(residual, *, leverage=0.0, variance=SPREAD**2):
    many = np.ones(residual.size)
    return session_tail(residual, variance * many, leverage=leverage * many)


def test_normal_sessions_have_no_tail_and_no_garbage():
    found = tail_of(np.random.default_rng(1).normal(0, SPREAD, 20_000))
    assert found.inverse_degrees < 0.01
    assert found.garbage < 0.001


@pytest.mark.parametrize("degrees", [3.0, 5.0, 12.0])
def test_students_degrees_of_freedom_are_found(degrees):
    found = tail_of(SPREAD * np.random.default_rng(2).standard_t(degrees, 20_000))
    assert found.inverse_degrees == pytest.approx(1.0 / degrees, rel=0.35)


def test_the_share_of_garbage_is_found():
    rng = np.random.default_rng(3)
    r = rng.normal(0, SPREAD, 20_000)
    r[:600] = rng.normal(0, 0.4, 600)
    found = tail_of(r)
    assert found.garbage == pytest.approx(0.03, abs=0.006)
    assert found.inverse_degrees < 0.02


def test_it_does_not_matter_how_wide_the_sessions_were_thought_to_be():
    r = np.random.default_rng(4).normal(0, SPREAD, 20_000)
    assert tail_of(r, variance=0.25 * SPREAD**2).inverse_degrees < 0.01
    assert tail_of(r, variance=4.0 * SPREAD**2).inverse_degrees < 0.01


def test_sessions_that_decide_their_own_fit_tell_of_no_tail():
    # Vehicles that were seen once: what is left of their sessions is next to nothing.
    rng = np.random.default_rng(5)
    r = rng.normal(0, SPREAD, 20_000)
    leverage = np.where(np.arange(r.size) < 8_000, 0.9, 0.1)
    left = r * np.sqrt(1.0 - leverage)
    found = session_tail(left, np.full(r.size, SPREAD**2), leverage=leverage)
    assert found.inverse_degrees < 0.01
    assert session_tail(left[:8_000], np.full(8_000, SPREAD**2), leverage=leverage[:8_000]) == (
        FIRST_TAIL
    )


def test_few_sessions_leave_what_is_believed():
    assert tail_of(np.zeros(0)) == FIRST_TAIL
    assert tail_of(np.full(29, SPREAD)) == FIRST_TAIL


def test_weights_without_a_tail_are_those_of_least_squares():
    r = np.random.default_rng(6).normal(0, SPREAD, 5_000)
    variance = np.full(r.size, SPREAD**2)
    tail = Tail(1e-6, 1e-5)
    assert tail_weights(r, variance, tail) == pytest.approx(np.ones(r.size), abs=0.05)
    assert tail_inflation(r, variance, tail) == pytest.approx(1.0, abs=0.01)
    assert tail_weights(np.array([0.4]), variance[:1], tail) < 1e-6


def test_vehicles_tails_are_found_from_scales_that_are_drawn_to_zero():
    rng = np.random.default_rng(7)
    unknown = np.full(5_000, 0.3)
    variance = np.full(5_000, 0.03**2)
    normal = rng.normal(0, 0.03, 5_000) * np.sqrt(0.7)
    assert vehicle_tail(normal, variance, unknown=unknown).inverse_degrees < 0.02
    heavy = 0.03 * rng.standard_t(4.0, 5_000)
    found = vehicle_tail(heavy, variance, unknown=np.zeros(5_000))
    assert found.inverse_degrees == pytest.approx(0.25, rel=0.3)
    assert found.garbage == 0.0
    assert vehicle_tail(normal[:10], variance[:10], unknown=unknown[:10]) == FIRST_VEHICLE_TAIL
