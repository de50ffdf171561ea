import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import norm

from chargewatch.risk.decision import (
    PRIOR_POPULATION,
    Population,
    estimate_population,
    expected_excess,
    p_nonconforming,
    p_outside,
    prior_precision,
)


def test_jcgm_106_two_sided_tolerance_by_hand():
    # JCGM 106:2012, 7.4: conformance probability Phi((T_U - y)/u) - Phi((T_L - y)/u).
    # y = 1.0 %, T = +-2 %, u = 0.5 %: 1 - (Phi(2) - Phi(-6)) = 0.022750.
    assert p_outside(0.01, 0.02, standard_uncertainty=0.005) == pytest.approx(0.0227501, abs=1e-6)
    # At the limit half of the distribution is outside, far from the other limit.
    assert p_outside(0.02, 0.02, standard_uncertainty=0.001) == pytest.approx(0.5)
    # y = 0, u = T / 1.96: both tails of 2.5 %.
    both = p_outside(0.0, 0.02, standard_uncertainty=0.02 / 1.959964)
    assert both == pytest.approx(0.05, abs=1e-6)


def test_posterior_with_a_normal_prior_by_hand():
    # JCGM 106:2012, 7.2.2 and A.4.4.2: prior N(0, 0.5^2), measured 2.5 with u = 0.5 (per cent):
    # mean 1.25, spread 0.3536, P(|eps| > 2) = Phi((1.25 - 2) / 0.35355) = 0.016947.
    one = Population(np.array([1.0]), np.array([0.25]))
    p = p_nonconforming(
        np.array([0.025]), np.array([0.02]), standard_uncertainty=np.array([0.005]), population=one
    )
    assert p[0] == pytest.approx(norm.cdf(-0.75 / (0.5 * 0.5**0.5)), abs=1e-9)
    assert p[0] == pytest.approx(0.016947, abs=1e-5)


def test_the_rule_of_thumb_would_flag_what_the_posterior_does_not():
    # u = 0.5 %, MPE 2 %, measured 2.2 %: beyond the limit, but most such piles are good ones.
    p = p_nonconforming(
        np.array([0.022]),
        np.array([0.02]),
        standard_uncertainty=np.array([0.005]),
        population=Population(np.array([0.97, 0.03]), np.array([0.4, 2.0])),
    )
    assert 0.1 < p[0] < 0.6


def test_heavy_tail_lets_a_clear_offender_stand():
    p = p_nonconforming(
        np.array([0.06]),
        np.array([0.02]),
        standard_uncertainty=np.array([0.005]),
        population=PRIOR_POPULATION,
    )
    assert p[0] > 0.999


@given(st.floats(-0.1, 0.1), st.floats(0.0005, 0.05), st.sampled_from([0.005, 0.01, 0.02]))
def test_probability_is_symmetric_within_limits_and_equal_for_vector_and_scalar(e, u, mpe):
    args = {"standard_uncertainty": np.array([u, u, u]), "population": PRIOR_POPULATION}
    p = p_nonconforming(np.array([e, -e, e]), np.array([mpe] * 3), **args)
    assert 0.0 <= p[0] <= 1.0
    assert p[0] == pytest.approx(p[1], abs=1e-12)
    single = p_nonconforming(
        np.array([e]),
        np.array([mpe]),
        standard_uncertainty=np.array([u]),
        population=PRIOR_POPULATION,
    )
    assert single[0] == p[0] == p[2]


def test_limits_and_unknowns():
    p = p_nonconforming(
        np.array([0.0, 1.0, np.nan, 0.0]),
        np.full(4, 0.02),
        standard_uncertainty=np.array([1e-6, 1e-6, 0.01, np.inf]),
        population=PRIOR_POPULATION,
    )
    assert p[0] == pytest.approx(0.0)
    assert p[1] == pytest.approx(1.0)
    assert np.isnan(p[2:]).all()
    with pytest.raises(ValueError, match="positive"):
        p_outside(0.0, 0.0, standard_uncertainty=0.01)


@pytest.mark.parametrize("told", [0.021, -0.021, 0.0, -0.06])
def test_excess_is_what_is_indicated_too_much_and_matches_numerical_integration(told):
    e, u, mpe = np.array([told]), np.array([0.004]), np.array([0.02])
    grid = np.linspace(-0.15, 0.15, 300_001)
    prior = sum(
        s * norm.pdf(grid, 0, w * 0.02)
        for s, w in zip(PRIOR_POPULATION.share, PRIOR_POPULATION.spread, strict=True)
    )
    posterior = prior * norm.pdf(told, grid, 0.004)
    posterior /= posterior.sum()
    exact = float((posterior * np.maximum(grid - 0.02, 0)).sum())
    found = expected_excess(e, mpe, standard_uncertainty=u, population=PRIOR_POPULATION)
    assert found[0] == pytest.approx(exact, rel=1e-4, abs=1e-12)
    outside = float(posterior[np.abs(grid) > 0.02].sum())
    p = p_nonconforming(e, mpe, standard_uncertainty=u, population=PRIOR_POPULATION)
    assert p[0] == pytest.approx(outside, rel=1e-3)


def test_population_is_found_again():
    rng = np.random.default_rng(5)
    good = rng.normal(0, 0.25 * 0.02, 1900)
    bad = rng.normal(0, 3.0 * 0.02, 100)
    u = rng.uniform(0.001, 0.008, 2000)
    error = np.concatenate([good, bad]) + rng.normal(0, u)
    found = estimate_population(error, np.full(2000, 0.02), standard_uncertainty=u)
    assert found.spread[0] == pytest.approx(0.25, abs=0.03)
    assert found.share[0] == pytest.approx(0.95, abs=0.03)


def test_probabilities_are_calibrated_over_a_city():
    rng = np.random.default_rng(6)
    bulk = rng.uniform(size=40_000) < 0.95
    true = np.where(bulk, rng.normal(0, 0.006, 40_000), rng.normal(0, 0.06, 40_000))
    u = np.full(true.size, 0.005)
    error = true + rng.normal(0, u)
    mpe = np.full(true.size, 0.02)
    population = estimate_population(error, mpe, standard_uncertainty=u)
    p = p_nonconforming(error, mpe, standard_uncertainty=u, population=population)
    outside = np.abs(true) > 0.02
    for low, high in ((0.05, 0.3), (0.3, 0.7), (0.7, 0.95), (0.95, 1.0)):
        mine = (p >= low) & (p <= high)
        assert outside[mine].mean() == pytest.approx(p[mine].mean(), abs=0.06)
    # What is called nonconforming holds the share of false flags without a rule of its own.
    red = p >= 0.95
    assert red.sum() > 100
    assert (~outside[red]).mean() <= 0.05


def test_an_offender_gets_a_wide_prior_and_a_good_one_the_bulk():
    weight = prior_precision(
        np.array([0.0, 0.1, np.nan]),
        np.full(3, 0.02),
        standard_uncertainty=np.array([0.001, 0.001, np.nan]),
        population=PRIOR_POPULATION,
    )
    assert weight[1] < 0.05 * weight[0]
    assert weight[2] > 0.5 * weight[0]
