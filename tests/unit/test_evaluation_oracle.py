"""The oracle: the engine with truths in place of its judgements."""

from datetime import UTC, datetime

import numpy as np
import orjson
import pytest

from chargewatch.domain.times import SLOT_S
from chargewatch.errors import InputFileError
from chargewatch.evaluation.city_inputs import known_inputs
from chargewatch.evaluation.oracle import TRUTHS, chosen_truths, oracle, with_pasts
from chargewatch.evaluation.scores import ratio_of_cities
from chargewatch.evaluation.true_spreads import true_spreads
from chargewatch.risk.engine import assess
from chargewatch.risk.results import EngineConfig
from chargewatch.simulators.city import make_city

TO = datetime(2026, 3, 30, 16, tzinfo=UTC)
CONFIG = EngineConfig(utc_offset_s=8 * 3600.0)
STEP = {"fault": "step", "count": 1, "current": "AC", "magnitude_mpe": 3.0, "begin_days": 8.0}
DRIFT = {"fault": "drift", "count": 1, "magnitude_mpe": 2.0, "begin_days": 15.0}


@pytest.fixture(scope="module")
def city():
    return make_city(
        "quiet-city",
        seed=5,
        to=TO,
        stations=6,
        connectors_per_station=6,
        days=18,
        garbage_share=0.03,
        faults=[STEP, DRIFT, {"fault": "soc", "count": 1}],
    )


@pytest.fixture(scope="module")
def known(city):
    return known_inputs(city)


def energies(intervals, instrument):
    mine = intervals.instrument == instrument
    return dict(zip(intervals.slot[mine].tolist(), intervals.energy_wh[mine].tolist(), strict=True))


def test_before_its_step_a_connector_is_one_of_its_own_on_the_same_feeder(city, known):
    (target,) = city.faults.of_kind("step")
    before, n = known.inputs, known.inputs.fleet.size
    at = float(city.meters.step_at[target]) + city.origin_s
    after = with_pasts(before, {target: at})
    assert after.fleet.connector[n] == f"{before.fleet.connector[target]} before"
    whole = energies(before.connector_intervals, target)
    present, past = (energies(after.connector_intervals, i) for i in (target, n))
    assert set(present) == set(past) == set(whole)
    assert all(past[k] + present[k] == whole[k] for k in whole)
    assert {k for k, wh in past.items() if wh > 0} == {
        k for k, wh in whole.items() if wh > 0 and (k + 0.5) * SLOT_S < at
    }
    key = after.connector_intervals.instrument * 10_000_000 + after.connector_intervals.slot
    assert (np.diff(key) > 0).all()
    early = before.sessions.ended_s < at
    mine = before.sessions.connector == target
    assert (after.sessions.connector[mine & early] == n).all()
    assert (after.sessions.connector[mine & ~early] == target).all()
    for j in range(before.references.size):
        members = [
            set(x.members[x.member_start[j] : x.member_start[j + 1]].tolist())
            for x in (before.references, after.references)
        ]
        assert members[1] - members[0] == ({n} if target in members[0] else set())


def test_garbage_is_known_by_what_was_put_in_place_of_the_truth(city, known):
    (falsified,) = city.faults.of_kind("soc")
    garbage, told = known.sessions.garbage, np.isfinite(known.inputs.sessions.bms_energy_wh)
    mine = known.inputs.sessions.connector == falsified
    assert garbage[mine & told].all()
    assert 0.01 < garbage[~mine & told].mean() < 0.06


def test_the_true_spreads_are_those_of_the_simulated_vehicles_and_cables(city, known):
    spreads = true_spreads(city, known)
    # Energy integrals of vehicles scatter by 0.4 %, the heat of their batteries by 0.3 % more.
    assert spreads.session[3] == pytest.approx(np.hypot(0.004, 0.003), rel=0.15)
    # DC: 1.0 % between integrals, 0.8 % of 96.2 % between batteries.
    assert spreads.vehicle[3] == pytest.approx(np.hypot(0.010, 0.008 / 0.962), rel=0.25)
    # Cables lose 0.45 % and 0.3 % at full load, a fifth more or less.
    assert (spreads.site < 0.0006).all()
    assert spreads.converter == pytest.approx(0.004 / 0.955, rel=0.5)


def test_what_is_given_is_what_the_engine_works_with(city, known):
    given = oracle(city, known, truths=frozenset({"spreads"}), config=CONFIG)
    spreads = true_spreads(city, known)
    assert given.summary["converter_efficiency_spread"] == spreads.converter
    assert given.summary["site_spread_dc"] == spreads.site[1]
    usual = assess(known.inputs, config=CONFIG)
    nothing = oracle(city, known, truths=frozenset(), config=CONFIG)
    assert usual.summary["site_spread_dc"] != spreads.site[1]
    assert np.array_equal(usual.relative_error, nothing.relative_error, equal_nan=True)


def test_the_oracle_knows_a_step_and_a_drift(city, known):
    n = known.relative_error.size
    found = oracle(city, known, truths=frozenset(TRUTHS), config=CONFIG)
    z = (found.relative_error[:n] - known.relative_error) / found.standard_uncertainty[:n]
    for kind in ("step", "drift"):
        (target,) = city.faults.of_kind(kind)
        assert abs(known.relative_error[target]) > 0.01
        assert abs(z[target]) < 3.5
    (target,) = city.faults.of_kind("step")
    # And it was right before, by the connector of its own.
    assert abs(found.relative_error[n]) < 0.01
    assert not found.drift_alarm.any()


def test_an_unknown_truth_is_refused():
    assert chosen_truths(["all", "changes"]) == {
        "all": frozenset(TRUTHS),
        "changes": frozenset({"changes"}),
    }
    with pytest.raises(InputFileError, match="no truth weather; known: all, changes"):
        chosen_truths(["weather"])


def test_a_ratio_over_cities_by_hand():
    found = ratio_of_cities([(4.0, 1.0), (4.0, 1.0), (4.0, 1.0)])
    assert (found["value"], found["low"], found["high"]) == (2.0, 2.0, 2.0)
    found = ratio_of_cities([(4.0, 1.0), (1.0, 1.0)])
    # Left out one by one: ln 1 = 0 and ln 2; variance 1/2 (2 (ln 2 / 2)^2); t(1) = 12.7062.
    assert found["value"] == pytest.approx(2.5**0.5)
    assert found["high"] / found["value"] == pytest.approx(
        np.exp(12.7062 * np.log(2) / 2), rel=1e-4
    )
    assert np.isnan(ratio_of_cities([(1.0, 1.0)])["low"])
    assert np.isnan(ratio_of_cities([])["value"])


def test_the_command_prints_the_ratio_by_current(run_command):
    arguments = ["evaluate", "--scenario", "quiet-city", "--seeds", "1", "--to", TO.isoformat()]
    arguments += ["--set", "stations=4", "--set", "connectors_per_station=6", "--set", "days=10"]
    arguments += ["--oracle", "all", "--oracle", "spreads"]
    done = run_command(*arguments)
    assert done.returncode == 0, done.stderr
    assert "RMSE over the oracle's, AC: " in done.stdout
    assert "  over that with true spreads: " in done.stdout
    done = run_command(*arguments, "--json")
    for row in orjson.loads(done.stdout)["by_kind"]:
        if row["identified"]:
            assert 0.3 < row["rmse_over_given"]["all"]["value"] < 5
    refused = run_command("evaluate", "truth.json", "--oracle", "all")
    assert refused.returncode == 2
    assert "--oracle needs --scenario" in refused.stderr
