import pytest

from chargewatch.benches.assess import growth_exponent


def test_growth_is_that_between_the_two_largest_sizes():
    seconds = [2.0, 5.0, 50.0]
    assert growth_exponent([1_000, 10_000, 100_000], seconds) == pytest.approx(1.0)
    assert growth_exponent([10, 40], [1.0, 8.0]) == pytest.approx(1.5)


def test_one_size_shows_no_growth():
    assert growth_exponent([1_000], [2.0]) is None
    assert growth_exponent([1_000, 1_000], [2.0, 2.1]) is None
