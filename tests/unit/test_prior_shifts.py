"""Cities whose truth lies away from the engine's priors."""

from datetime import UTC, datetime

import numpy as np
import orjson
import pytest

from chargewatch.domain.times import DAY_S
from chargewatch.errors import InputFileError
from chargewatch.evaluation.prior_shifts import SHIFTS
from chargewatch.risk import priors
from chargewatch.risk.feeders.nuisances import boundary_powers
from chargewatch.simulators.city import make_city
from chargewatch.simulators.feeders import auxiliary_wh
from chargewatch.simulators.metering import input_efficiency
from chargewatch.simulators.scenario import load_scenario

TO = datetime(2026, 3, 30, 16, tzinfo=UTC)

# Next to none, or the same cable as CABLE_LOSS.
UNSHIFTED = {"AUXILIARY", "KIND_MEAN", "COMPENSATED_LOSS"}


def city_of(shift=None):
    scenario = load_scenario("quiet-city")
    return make_city(SHIFTS[shift].change(scenario) if shift else scenario, seed=3, to=TO)


def mean_efficiency(city, load, *, is_dc):
    rows = np.flatnonzero(city.layout.connectors.is_dc == is_dc)
    return float(input_efficiency(city.layout, rows, np.full(rows.size, load)).mean())


def test_every_prior_with_an_uncertainty_is_put_to_the_test():
    believed = {n for n, value in vars(priors).items() if isinstance(value, priors.Believed)}
    shifted = {shift.prior for shift in SHIFTS.values()}
    assert shifted <= set(vars(priors))
    assert believed - UNSHIFTED <= shifted


def test_a_shifted_city_lies_two_sigma_from_the_prior():
    usual = city_of()
    low = mean_efficiency(city_of("dc-efficiency-low"), 0.5, is_dc=True)
    high = mean_efficiency(city_of("dc-efficiency-high"), 0.5, is_dc=True)
    assert high - low == pytest.approx(4 * priors.DC_EFFICIENCY.u, rel=0.03)
    light = city_of("dc-light-loss")
    assert mean_efficiency(light, 0.01, is_dc=True) < mean_efficiency(usual, 0.01, is_dc=True)
    idle = mean_efficiency(city_of("dc-idle-loss"), 0.5, is_dc=True)
    lost = 1 / idle - 1 / mean_efficiency(usual, 0.5, is_dc=True)
    assert lost == pytest.approx(0.010 / 0.5, rel=0.1)
    ac = mean_efficiency(city_of("ac-efficiency-low"), 0.9, is_dc=False)
    away = mean_efficiency(usual, 0.9, is_dc=False) - ac
    believed = priors.AC_EFFICIENCY
    assert away == pytest.approx(0.9985 - (believed.mean - 2 * believed.u), rel=0.1)
    cable = city_of("ac-cable").layout.connectors
    expected = priors.CABLE_LOSS.mean + 2 * priors.CABLE_LOSS.u
    assert cable.cable_loss[~cable.is_dc].mean() == pytest.approx(expected, rel=0.05)
    errors = [c.layout.connectors.gain.mean() for c in (usual, city_of("models"))]
    assert errors[1] - errors[0] == pytest.approx(2 * priors.MODEL_MEAN_SPREAD)


def swing(city):
    """Return how far a station's auxiliary power is from its mean over a day, W."""
    hours = np.arange(0, 25) * 3600.0
    energy = auxiliary_wh(city.layout, city.draws, np.zeros(25, dtype=np.int64), hours)
    power = np.diff(energy)
    return float(np.ptp(power))


def test_auxiliaries_clocks_and_people_are_shifted_too():
    usual = city_of()
    assert swing(city_of("auxiliary-waves")) > 5 * swing(usual)
    clocks = [c.layout.meters.clock_offset_s.mean() for c in (usual, city_of("feeder-clock"))]
    assert clocks[1] - clocks[0] == pytest.approx(10.0)
    ageing = [c.layout.connectors.aging.std() * 365 * DAY_S for c in (usual, city_of("wander"))]
    assert ageing[1] / ageing[0] == pytest.approx(10.0)
    offenders = city_of("offenders")
    share = len(offenders.faults.of_kind("gain")) / offenders.layout.connectors.size
    assert share == pytest.approx(0.18, abs=0.03)


def test_a_constant_of_nature_can_be_set_and_an_unknown_one_is_named():
    scenario = load_scenario("quiet-city", **{"physics.dc_cable_loss": 0.01})
    assert scenario.physics.dc_cable_loss == 0.01
    assert scenario.physics.ac_cable_loss == load_scenario("quiet-city").physics.ac_cable_loss
    with pytest.raises(InputFileError, match=r"physics\.gravity; known: dc_efficiency_shift"):
        load_scenario("quiet-city", **{"physics.gravity": 10})
    with pytest.raises(InputFileError, match=r"physics\.bms_noise is a number"):
        load_scenario("quiet-city", **{"physics.bms_noise": "loud"})


def test_the_command_puts_shifted_cities_beside_usual_ones(run_command):
    small = ["--set", "stations=4", "--set", "days=8", "--to", TO.isoformat(), "--seeds", "1"]
    shifts = ["--prior-shift", "ac-cable", "--prior-shift", "sessions"]
    done = run_command("evaluate", "--scenario", "quiet-city", *shifts, *small, "--json")
    assert done.returncode == 0, done.stderr
    rows = orjson.loads(done.stdout)["prior_shifts"]
    assert [row["shift"] for row in rows] == ["usual", "ac-cable", "sessions"]
    usual, _, sessions = rows
    # Vehicles that tell their energy five times worse say less, and the engine says so.
    assert sessions["rmse"] > usual["rmse"]
    assert sessions["coverage"] > 0.85
    refused = run_command("evaluate", "--scenario", "quiet-city", "--prior-shift", "gravity")
    assert refused.returncode == 1
    assert "no prior shift gravity; known: all, dc-efficiency-low" in refused.stderr
    alone = run_command("evaluate", "--prior-shift", "all", "truth.json")
    assert alone.returncode == 2


def test_power_at_a_boundary_is_there_only_where_both_slots_deliver():
    # One connector: idle, begins within a slot, full, full, ends within a slot, idle.
    energy = np.array([0.0, 5.0, 15.0, 15.0, 3.0, 0.0])[None, :, None]
    # 15 Wh a quarter of an hour are 60 W; at the day's ends nothing is delivered.
    assert boundary_powers(energy).tolist() == [[0.0, 0.0, 60.0, 60.0, 60.0, 0.0, 0.0]]


def test_meters_whose_clocks_are_ahead_make_no_honest_pile_red(run_command):
    arguments = ["evaluate", "--scenario", "quiet-city", "--prior-shift", "feeder-clock"]
    arguments += ["--first-seed", "3", "--seeds", "1", "--to", TO.isoformat(), "--json"]
    done = run_command(*arguments)
    assert done.returncode == 0, done.stderr
    _, ahead = orjson.loads(done.stdout)["prior_shifts"]
    assert ahead["identified"] > 100
    assert ahead["red"] == 0
