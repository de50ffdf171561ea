"""`chargewatch bench engine`, and the engine against GPBoost on a small city."""

import importlib.util
from dataclasses import replace

import numpy as np
import orjson
import pytest
from click.testing import CliRunner

from chargewatch.benches import engine_city
from chargewatch.benches.engine import agreement, coverage
from chargewatch.benches.engine_city import crossed_sessions
from chargewatch.benches.engine_sides import Told, by_engine, by_gpboost
from chargewatch.cli import root


def told(error, u):
    return Told(
        error=np.asarray(error),
        u=np.asarray(u),
        session_spread=0.02,
        vehicle_spread=0.03,
        connector_spread=0.007,
        fit_s=1.0,
        variances_s=1.0,
        rounds=1,
    )


def test_agreement_is_in_the_others_uncertainties():
    apart = agreement(told([0.01, 0.0], [0.0101, 0.0098]), told([0.0, 0.0], [0.01, 0.01]))
    assert apart["mean_rms_u"] == pytest.approx(np.sqrt(0.5))
    assert apart["mean_largest_u"] == pytest.approx(1.0)
    assert apart["u_bias"] == pytest.approx(-0.005)
    assert apart["u_largest"] == pytest.approx(0.02)


def test_coverage_is_against_the_citys_mean():
    truth = np.array([0.10, 0.12])
    assert coverage(told([-0.01, 0.01], [0.001, 0.001]), truth) == 1.0
    assert coverage(told([-0.01, 0.02], [0.001, 0.001]), truth) == 0.5


def test_equal_seeds_give_equal_sessions():
    one, two = crossed_sessions(60, seed=3), crossed_sessions(60, seed=3)
    assert np.array_equal(one.log_ratio, two.log_ratio)
    assert not np.array_equal(one.log_ratio, crossed_sessions(60, seed=4).log_ratio)


def test_without_gpboost_it_says_so_and_what_to_do(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    done = CliRunner().invoke(root, ["bench", "engine", "--connectors", "60"])
    assert done.exit_code == 1
    assert "GPBoost is not installed: pip install 'chargewatch[rival]'" in str(done.exception)
    assert "--alone" in str(done.exception)


def test_alone_it_measures_the_engine_and_prints_one_document():
    done = CliRunner().invoke(root, ["bench", "engine", "--connectors", "60", "--alone", "--json"])
    assert done.exit_code == 0, done.output
    document = orjson.loads(done.stdout)
    assert document["engine"]["peak_memory_mb"] > document["engine"]["memory_before_mb"] > 20
    assert 0.8 < document["engine"]["coverage"] <= 1.0
    assert "gpboost" not in document


@pytest.mark.rival
def test_errors_and_uncertainties_are_those_of_gpboost():
    sessions = crossed_sessions(300, seed=1001)
    ours, theirs = by_engine(sessions), by_gpboost(sessions, exact=True)
    apart = agreement(ours, theirs)
    assert apart["mean_largest_u"] < 0.1
    assert apart["u_largest"] < 0.02
    assert ours.session_spread == pytest.approx(theirs.session_spread, rel=0.01)
    # Both against the truth, which is the same for both.
    assert coverage(ours, sessions.error) == pytest.approx(0.95, abs=0.03)


def test_an_error_that_is_put_in_is_read_in_full():
    sessions = crossed_sessions(300, seed=1001)
    found = by_engine(sessions)
    off = 0.03 * (sessions.connector == 7)
    worse = by_engine(replace(sessions, log_ratio=sessions.log_ratio + off))
    assert worse.error[7] - found.error[7] == pytest.approx(0.03, abs=0.1 * found.u[7])


@pytest.mark.rival
def test_they_agree_where_vehicles_come_twice(monkeypatch):
    monkeypatch.setattr(engine_city, "VEHICLES_A_CONNECTOR", 15)
    sessions = crossed_sessions(300, seed=1002)
    apart = agreement(by_engine(sessions), by_gpboost(sessions))
    assert apart["mean_largest_u"] < 0.15
    assert apart["u_largest"] < 0.03
    assert abs(apart["u_bias"]) < 0.01
