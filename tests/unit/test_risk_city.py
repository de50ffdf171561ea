"""The small city of the engine's tests repeats with its seed."""

import numpy as np
from engine_city import make_city


def test_the_city_repeats_with_its_seed_and_differs_without():
    one, two, other = make_city(3, days=3), make_city(3, days=3), make_city(4, days=3)
    assert np.array_equal(one.inputs.sessions.energy_wh, two.inputs.sessions.energy_wh)
    assert one.inputs.sessions.energy_wh.size != other.inputs.sessions.energy_wh.size
