"""Verifications against newer evidence, and evidence of one connector that contradicts itself."""

from dataclasses import replace

import numpy as np
import pytest
from engine_city import DAY, START_DAY, make_city
from scipy.stats import norm

from chargewatch.domain.reason import in_english
from chargewatch.domain.verdict import Verdict
from chargewatch.risk.engine import assess
from chargewatch.risk.results import EngineConfig
from chargewatch.risk.run_inputs import Anchors, FinishedSessions
from chargewatch.risk.verifications import Stated, that_hold, with_doubt, without

U = 0.0014


def verified(city, connector, *, error):
    """Return the city's verifications with one of a connector as its newest and only one."""
    old = city.inputs.anchors
    others = old.connector != connector
    one = {
        "connector": connector,
        "verified_s": (START_DAY - 60) * DAY,
        "valid_until_s": (START_DAY + 900) * DAY,
        "relative_error": error,
        "standard_uncertainty": U,
    }
    return Anchors(
        **{name: np.append(values[others], one[name]) for name, values in vars(old).items()}
    )


def first_sessions(sessions, connector, count):
    """Return the sessions without those of a connector after its first ones."""
    mine = np.cumsum(sessions.connector == connector)
    keep = (sessions.connector != connector) | (mine <= count)
    return FinishedSessions(**{k: v[keep] for k, v in vars(sessions).items()})


def run(city, **changes):
    return assess(replace(city.inputs, **changes), config=EngineConfig())


@pytest.fixture(scope="module")
def roaming():
    """Piles that vehicles alone judge, with an offender far below its MPE."""
    return make_city(
        3, stations=8, meters=False, anchors=14, vehicles=150, offenders=4, offence_mpe=2.5
    )


def test_a_verification_that_newer_sessions_contradict_does_not_hold_the_estimate(roaming):
    bad = int(np.argmax(np.abs(roaming.error)))
    sessions = first_sessions(roaming.inputs.sessions, bad, 19)
    result = run(roaming, anchors=verified(roaming, bad, error=0.0037), sessions=sessions)
    assert np.abs(roaming.error[bad]) > 0.045
    away = result.relative_error[bad] - roaming.error[bad]
    assert abs(away) < 3 * result.standard_uncertainty[bad]
    assert result.verdict[bad] is not Verdict.CONFORMING
    assert "in conflict" in in_english(result.reason[bad])


def test_a_good_verification_keeps_its_weight_beside_a_few_bad_sessions(roaming):
    good = int(
        roaming.inputs.anchors.connector[
            np.argmin(np.abs(roaming.error[roaming.inputs.anchors.connector]))
        ]
    )
    sessions = first_sessions(roaming.inputs.sessions, good, 8)
    energy = sessions.energy_wh.copy()
    hit = np.flatnonzero(sessions.connector == good)[:3]
    energy[hit] *= (1.4, 0.7, 1.25)
    anchors = verified(roaming, good, error=roaming.error[good])
    clean = run(roaming, anchors=anchors, sessions=sessions)
    result = run(roaming, anchors=anchors, sessions=replace(sessions, energy_wh=energy))
    assert abs(result.relative_error[good] - roaming.error[good]) < 0.002
    assert result.standard_uncertainty[good] < 1.35 * clean.standard_uncertainty[good]
    assert result.verdict[good] is Verdict.CONFORMING


def test_a_verification_that_nothing_else_bears_on_is_believed():
    stated = one_stated(value=0.03, precision=U**-2)
    rest = without(
        np.array([0.03]), np.array([U**2]), mean=stated.value, precision=stated.precision
    )
    assert np.isinf(rest.variance[0])
    assert that_hold(stated, rest)[0] == pytest.approx(0.95)
    error, variance = with_doubt(np.array([0.03]), np.array([U**2]), stated)
    assert (error[0], variance[0]) == (0.03, U**2)


def one_stated(*, value, precision):
    one = np.array([0])
    return Stated(
        anchor=one,
        connector=one,
        value=np.array([value]),
        certificate=np.array([U**2]),
        grown=np.zeros(1),
        variance=np.array([U**2]),
        precision=np.array([precision]),
    )


@pytest.mark.parametrize("away", [0.0, 0.005, 0.009, 0.05])
def test_doubt_in_a_verification_by_numerical_integration(away):
    """The posterior of the error under a mixture of "holds" and "tampered with since"."""
    other_u, precision = 0.003, 0.3 * U**-2
    total = other_u**-2 + precision
    error, variance = with_doubt(
        np.array([precision * away / total]),
        np.array([1 / total]),
        one_stated(value=away, precision=precision),
    )
    x = np.linspace(-0.1, 0.2, 300_001)
    likely = 0.95 * norm.pdf(away, x, U) + 0.05 * norm.pdf(away, x, np.hypot(U, 0.03))
    density = norm.pdf(x, 0.0, other_u) * likely
    density /= density.sum()
    mean = float(density @ x)
    assert error[0] == pytest.approx(mean, abs=1e-7)
    assert variance[0] == pytest.approx(float(density @ (x - mean) ** 2), rel=1e-4)


def test_a_feeder_that_contradicts_vehicles_and_verification_makes_a_pile_undecided():
    city = make_city(5, stations=6, dc_stations=2, anchors=12, vehicles=60, sessions_per_day=4.0)
    inputs = city.inputs
    own = inputs.sessions
    good = int(inputs.anchors.connector[np.argmin(np.abs(city.error[inputs.anchors.connector]))])
    assert run(city).verdict[good] is Verdict.CONFORMING
    # What it tells of its sessions is 1.6 % above what its register counted.
    told = np.where(own.connector == good, 1.016 * own.energy_wh, own.energy_wh)
    result = run(city, sessions=replace(own, energy_wh=told))
    assert result.verdict[good] is not Verdict.CONFORMING
    assert "in conflict" in in_english(result.reason[good])
    steady = np.flatnonzero(np.abs(city.error) < inputs.fleet.mpe)
    others = [result.verdict[k] for k in steady if k != good]
    assert sum(verdict is not Verdict.CONFORMING for verdict in others) <= 1
