"""What verifications and meters in series tell of sites and of errors since verification."""

from dataclasses import replace

import numpy as np
import pytest

from chargewatch.risk.priors import ANCHOR_DRIFT_PER_YEAR, SITE_SPREAD_START
from chargewatch.risk.second_witness import MOST_COMPARED, Witnessed, site_and_wander

U = 0.0008
"""Standard uncertainty of a difference without site and wander."""


def verified(rng, count, *, site=0.0, wander=0.0, side=0):
    """Return verifications of 0 to 3 years ago beside sessions at their connectors."""
    grown = rng.uniform(0.0, 3.0, count)
    sd = np.sqrt(U**2 + site**2 + wander**2 * grown)
    return Witnessed(
        away=sd * rng.standard_normal(count),
        known=np.full(count, U**2),
        shared=np.ones(count),
        grown=grown,
        side=np.full(count, side),
    )


def together(*several):
    return Witnessed(
        **{
            name: np.concatenate([getattr(one, name) for one in several])
            for name in vars(several[0])
        }
    )


def found_in(compared):
    site, wander = site_and_wander(compared, expected=ANCHOR_DRIFT_PER_YEAR)
    return site[0], site[1], wander


def test_without_a_second_witness_spreads_are_those_to_start_from():
    nothing = verified(np.random.default_rng(1), 0)
    assert found_in(nothing) == (*SITE_SPREAD_START, ANCHOR_DRIFT_PER_YEAR)


def test_wander_is_found_again_and_meters_tampered_with_do_not_count():
    compared = verified(np.random.default_rng(21), 400, wander=0.003)
    compared.away[:12] += 0.06
    assert found_in(compared)[2] == pytest.approx(0.003, rel=0.15)


@pytest.mark.parametrize("seed", range(5))
def test_wander_of_ten_verified_connectors_is_not_put_down_to_their_sites(seed):
    compared = verified(np.random.default_rng(seed), 10, wander=0.002, side=1)
    ac, dc, wander = found_in(compared)
    assert ac == pytest.approx(SITE_SPREAD_START[0])
    assert SITE_SPREAD_START[1] / 2.0 < dc < 2.0 * SITE_SPREAD_START[1]
    assert 0.001 < wander < 0.004


def test_wide_sites_are_told_from_wander_on_their_side_alone():
    rng = np.random.default_rng(5)
    ac = verified(rng, 1000, site=0.0003, wander=0.002)
    dc = verified(rng, 1000, site=0.002, wander=0.002, side=1)
    ac_site, dc_site, wander = found_in(together(ac, dc))
    assert ac_site < SITE_SPREAD_START[0]
    assert dc_site == pytest.approx(0.002, rel=0.1)
    assert wander == pytest.approx(0.002, rel=0.1)


@pytest.mark.parametrize("count", [12, 300, 3 * MOST_COMPARED])
def test_spreads_move_as_little_as_the_differences(count):
    compared = verified(np.random.default_rng(7), count, site=0.001, wander=0.003)
    before = np.array(found_in(compared))
    assert before[2] == pytest.approx(0.003, rel=0.1 if count > 12 else 1.0)
    for by in (1e-6, 1e-4, 1e-2):
        moved = np.array(found_in(replace(compared, away=(1.0 + by) * compared.away)))
        assert (np.abs(np.log(moved / before)) < 3.0 * by).all()
        assert (moved[[0, 2]] > before[[0, 2]]).all()
