import numpy as np
import pytest
from engine_city import finished_sessions

from chargewatch.domain.times import SLOT_S
from chargewatch.risk.run_inputs import Fleet, Intervals
from chargewatch.risk.spreads import own_and_of_soc
from chargewatch.risk.vehicles import local_centres, session_loads, session_rows


def fleet(*, compensated=(False, False)):
    n = len(compensated)
    return Fleet(
        connector=[f"C{i}" for i in range(n)],
        number=np.arange(n),
        station=np.zeros(n, dtype=np.int64),
        operator=np.zeros(n, dtype=np.int64),
        model=np.zeros(n, dtype=np.int64),
        is_dc=np.zeros(n, dtype=bool),
        cable_loss_compensated=np.array(compensated),
        mpe=np.full(n, 0.02),
        rated_power_w=np.full(n, 8000.0),
        max_current_a=np.full(n, 32.0),
        resolution_wh=np.ones(n),
        registered=np.ones(n, dtype=bool),
    )


def session(connector, begin_slots, end_slots, energy_wh):
    one = np.ones(1)
    return finished_sessions(
        np.array([connector]),
        vehicle=np.array([0]),
        started_s=begin_slots * SLOT_S * one,
        ended_s=end_slots * SLOT_S * one,
        energy_wh=energy_wh * one,
        billed_wh=energy_wh * one,
        soc_start_pct=20.0 * one,
        soc_stop_pct=70.0 * one,
        bms_energy_wh=0.95 * energy_wh * one,
        energy_price=one,
    )


def intervals(*rows):
    instrument, slot, energy = (np.array(x) for x in zip(*rows, strict=True))
    return Intervals(
        instrument=instrument,
        slot=slot,
        energy_wh=energy.astype(float),
        u_wh=np.full(energy.size, 0.5),
        quality=np.zeros(energy.size, dtype=np.int16),
    )


NOTHING = intervals((9, 1, 0.0))


def test_load_of_a_vehicle_that_stays_when_it_is_full_is_that_of_its_charging():
    # 1,000 Wh in each of two slots is 4 kW; then nothing for eight slots.
    slots = intervals((0, 9, 0.0), (0, 10, 1000.0), (0, 11, 1000.0), (0, 12, 0.0), (1, 10, 500.0))
    parked = session(0, 10.0, 20.0, 2000.0)
    assert session_loads(parked, fleet(), slots)[0] == pytest.approx(0.5)
    # By the mean power alone it would seem to be a fifth of that.
    assert session_loads(parked, fleet(), NOTHING)[0] == pytest.approx(0.1)


def test_load_of_a_session_shorter_than_a_slot_is_its_mean_power():
    slots = intervals((0, 10, 500.0))
    short = session(0, 10.2, 10.7, 500.0)
    assert session_loads(short, fleet(), slots)[0] == pytest.approx(4000.0 / 8000.0)


def test_slots_with_the_energy_of_others_say_nothing_of_the_load():
    slots = intervals((0, 10, 2000.0), (0, 11, 2000.0))
    assert session_loads(session(0, 10.5, 11.5, 500.0), fleet(), slots)[0] == pytest.approx(0.25)


def test_a_compensated_cable_bears_no_load():
    rows = session_rows(session(0, 10.0, 12.0, 2000.0), fleet(), intervals=NOTHING)
    none = session_rows(
        session(0, 10.0, 12.0, 2000.0), fleet(compensated=(True, False)), intervals=NOTHING
    )
    assert rows.load[0] == pytest.approx(0.5)
    assert none.load[0] == 0.0


def test_local_centres_are_medians_of_the_same_connector_in_time():
    connector = np.array([1, 0, 0, 0, 0, 0, 0, 1])
    at_s = np.array([0.0, 5, 4, 3, 2, 1, 0, 1])
    residual = np.array([7.0, 6, 5, 4, 3, 2, 1, 9])
    centres = local_centres(connector, at_s, residual)
    # Five neighbours of connector 0: 1..5 at the beginning, 2..6 at the end.
    assert centres.tolist() == [9.0, 4.0, 4.0, 4.0, 3.0, 3.0, 3.0, 9.0]


def sessions_by_soc(rng, *, own, factor, count=20_000):
    """Return squared residuals of sessions whose SOC is off by more than its steps, and x."""
    dsoc = rng.uniform(0.06, 0.8, count)
    resolution = 0.01**2 / 6.0 / dsoc**2
    residual = np.sqrt(own**2 + factor * resolution) * rng.standard_normal(count)
    return residual**2, resolution


@pytest.mark.parametrize(("own", "factor"), [(0.02, 1.0), (0.006, 7.0), (0.03, 25.0)])
def test_what_states_of_charge_are_off_is_told_from_other_scatter(own, factor):
    # Steps of 1 %, whole per cent that are off by 0.7 % as well, and steps of 5 %.
    squared, resolution = sessions_by_soc(np.random.default_rng(3), own=own, factor=factor)
    found = (0.03, 1.0)
    for _ in range(30):
        found = own_and_of_soc(
            squared, np.ones(squared.size), resolution=resolution, before=found, by_soc=True
        )
    assert found[0] == pytest.approx(own, rel=0.12)
    assert found[1] == pytest.approx(factor, rel=0.06)


def test_few_sessions_leave_the_steps_of_a_state_of_charge_as_they_are():
    squared, resolution = sessions_by_soc(np.random.default_rng(4), own=0.02, factor=1.0, count=6)
    own, factor = 0.03, 1.0
    for _ in range(30):
        own, factor = own_and_of_soc(
            squared, np.ones(6), resolution=resolution, before=(own, factor), by_soc=True
        )
    assert factor == pytest.approx(1.0, abs=0.3)
    bms = own_and_of_soc(
        squared, np.ones(6), resolution=resolution, before=(0.03, 1.0), by_soc=False
    )
    assert bms[1] == 1.0
