"""Random numbers that are addressed by what they are for."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import kstest

from chargewatch.simulators.draws import Draws

seeds = st.integers(0, 2**63 - 1)
indices = st.integers(0, 2**40)


@given(seeds, indices, indices)
def test_a_number_depends_on_its_address_alone(seed, a, b):
    draws = Draws(seed)
    alone = draws.uniform("purpose", a, b)[0]
    among = draws.uniform("purpose", np.array([b, a, a]), np.array([a, b, 7]))
    assert alone == among[1]
    assert alone == Draws(seed).uniform("purpose", a, b)[0]


@given(seeds, indices)
def test_another_purpose_seed_or_index_gives_another_number(seed, a):
    draws = Draws(seed)
    number = draws.bits("one", a)[0]
    others = (draws.bits("two", a), Draws(seed + 1).bits("one", a), draws.bits("one", a + 1))
    assert all(number != other[0] for other in others)


def test_numbers_are_uniform_normal_and_uncorrelated():
    k = np.arange(200_000)
    u = Draws(3).uniform("u", k)
    assert kstest(u, "uniform").pvalue > 1e-3
    assert kstest(Draws(3).normal("n", k), "norm").pvalue > 1e-3
    assert abs(np.corrcoef(u[:-1], u[1:])[0, 1]) < 0.01
    assert abs(np.corrcoef(u, Draws(4).uniform("u", k))[0, 1]) < 0.01
    assert 0 < u.min() < u.max() < 1


def test_choices_reach_every_value_and_no_other():
    found = Draws(1).choice("c", 7, np.arange(10_000))
    assert set(found.tolist()) == set(range(7))
