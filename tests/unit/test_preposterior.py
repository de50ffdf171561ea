"""What a field test would settle: against a simulation of tests, and against known limits."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from chargewatch.draws.frame import DrawError
from chargewatch.risk.decision import PRIOR_POPULATION, p_nonconforming
from chargewatch.risk.preposterior import common_variance, population_of, settled_by
from chargewatch.supervision.inspections.route import plan_route, what_settles

ERROR = np.array([0.009, 0.004, 0.021, -0.012])
U = np.array([0.004, 0.006, 0.002, 0.003])
MPE = np.full(4, 0.01)
U_TEST = np.array([0.001, 0.002, 0.001, 0.003])


def now() -> Any:
    return p_nonconforming(ERROR, MPE, standard_uncertainty=U, population=PRIOR_POPULATION)


def test_a_test_settles_what_a_simulation_of_tests_settles() -> None:
    found = settled_by(
        ERROR, MPE, standard_uncertainty=U, p=now(), u_test=U_TEST, population=PRIOR_POPULATION
    )
    rng, runs = np.random.default_rng(1), 400_000
    for k in range(4):
        # True errors by the prior, estimates of them; those near the estimate that there is.
        part = rng.choice(3, size=1_500_000, p=PRIOR_POPULATION.share)
        true = rng.normal(0, PRIOR_POPULATION.spread[part] * MPE[k])
        weight = np.exp(-0.5 * ((ERROR[k] - true) / U[k]) ** 2)
        true = rng.choice(true, size=runs, p=weight / weight.sum())
        y = true + rng.normal(0, U_TEST[k], size=runs)
        u_after = 1 / np.sqrt(1 / U[k] ** 2 + 1 / U_TEST[k] ** 2)
        after = (ERROR[k] / U[k] ** 2 + y / U_TEST[k] ** 2) * u_after**2
        p = p_nonconforming(
            after,
            np.full(runs, MPE[k]),
            standard_uncertainty=np.full(runs, u_after),
            population=PRIOR_POPULATION,
        )
        assert found.u_after[k] == pytest.approx(u_after)
        assert p.mean() == pytest.approx(now()[k], abs=0.01)
        assert found.doubt_after[k] == pytest.approx(np.minimum(p, 1 - p).mean(), abs=0.006)
        assert found.shown_nonconforming[k] == pytest.approx((p >= 0.95).mean(), abs=0.02)
        assert found.shown_conforming[k] == pytest.approx((p <= 0.05).mean(), abs=0.02)


def test_no_test_settles_nothing_and_a_perfect_one_everything() -> None:
    p = now()
    for u_test, doubt in ((np.inf, np.minimum(p, 1 - p)), (1e-6, np.zeros(4))):
        found = settled_by(
            ERROR, MPE, standard_uncertainty=U, p=p, u_test=np.full(4, u_test),
            population=PRIOR_POPULATION,
        )  # fmt: skip
        assert found.doubt_after == pytest.approx(doubt, abs=2e-3)
    # What the run knew beyond prior and evidence is kept: the probability is its own.
    told = settled_by(
        ERROR, MPE, standard_uncertainty=U, p=np.full(4, 0.3), u_test=np.full(4, 1e-6),
        population=PRIOR_POPULATION,
    )  # fmt: skip
    assert told.shown_nonconforming == pytest.approx(np.full(4, 0.3), abs=0.02)


def test_the_population_is_that_of_the_run() -> None:
    found = population_of({"population_bulk_share": 0.8, "population_bulk_spread_mpe": 0.5})
    assert found.share.sum() == pytest.approx(1)
    assert (found.share[0], found.spread[0]) == (0.8, 0.5)
    assert population_of(None).share == pytest.approx(PRIOR_POPULATION.share)


def test_tests_at_a_station_tell_what_its_piles_share_as_a_least_squares_does() -> None:
    common, own2, u_ref = np.array([0.003, 0.002, 0.004]), np.array([1e-6, 4e-6, 2e-6]), 0.001
    tested = np.array([1.0, 0.0, 1.0])
    # The joint covariance of z and the differences d, conditioned on d.
    chosen = tested > 0
    a = common[chosen]
    cov = np.outer(a, a) + np.diag(own2[chosen]) + u_ref**2
    expected = 1 - a @ np.linalg.solve(cov, a)
    assert common_variance(common, own2, u_ref=u_ref, tested=tested) == pytest.approx(expected)
    assert common_variance(common, own2, u_ref=u_ref, tested=np.zeros(3)) == pytest.approx(1)


def pile(name: str, station: str, **changed: Any) -> dict[str, Any]:
    row = {
        "connector": name, "station_id": station, "operator_id": "OP1", "station_name": station,
        "relative_error": 0.012, "standard_uncertainty": 0.004, "common_uncertainty": 0.0,
        "mpe": 0.01, "p_nonconforming": 0.6, "priority_money": 100.0, "tier": "orange",
        "busy": False,
    }  # fmt: skip
    return row | changed


def test_a_test_tells_of_neighbours_by_what_they_share() -> None:
    for common, informed in ((0.0, False), (0.0038, True)):
        piles = [pile(f"P{k}", "S", common_uncertainty=common) for k in range(3)]
        found = what_settles(piles, "P0", population=PRIOR_POPULATION)
        assert found is not None
        assert bool(found.neighbours) is informed
        assert found.expanded_after < 0.3 * found.expanded_now
        total = found.shown_nonconforming + found.shown_conforming + found.left_open
        assert total == pytest.approx(1, abs=1e-6)
    assert what_settles(piles, "nobody", population=PRIOR_POPULATION) is None


def test_a_route_stays_at_a_station_where_that_saves_a_trip_and_leaves_out_the_busy() -> None:
    piles = [pile(f"A{k}", "A", priority_money=100.0) for k in range(3)]
    piles += [pile(f"B{k}", "B", priority_money=110.0 if k == 0 else 1.0) for k in range(3)]
    piles += [pile("C0", "C", priority_money=900.0, busy=True), pile("D0", "D", priority_money=0.0)]
    route = plan_route(piles, visits=4, population=PRIOR_POPULATION)
    # B0 settles most alone; then the trip to A is worth its three piles.
    assert [(s.station_id, {v.connector for v in s.visits}) for s in route.stops] == [
        ("B", {"B0"}), ("A", {"A0", "A1", "A2"}),
    ]  # fmt: skip
    assert route.minutes == 2 * 60 + 4 * 40
    assert 0 < route.settled <= route.undecided_before == 1312.0
    whole = plan_route(piles, visits=50, population=PRIOR_POPULATION)
    assert sum(len(stop.visits) for stop in whole.stops) == 6
    assert plan_route([], visits=5, population=PRIOR_POPULATION).stops == ()


def test_a_route_is_as_good_as_the_best_of_all_small_ones() -> None:
    rng = np.random.default_rng(3)
    piles = [
        pile(
            f"{station}{k}", station, priority_money=float(rng.uniform(10, 100)),
            p_nonconforming=float(rng.uniform(0.05, 0.95)), common_uncertainty=0.002,
        )
        for station in "AB"
        for k in range(3)
    ]  # fmt: skip
    by_one = [
        plan_route([p | {"busy": p["connector"] != name} for p in piles], visits=1,
                   population=PRIOR_POPULATION).settled
        for name in (p["connector"] for p in piles)
    ]  # fmt: skip
    first = plan_route(piles, visits=1, population=PRIOR_POPULATION)
    assert first.settled == pytest.approx(max(by_one))


def test_routes_that_cannot_be_are_refused() -> None:
    for changed in ({"visits": 0}, {"visits": 501}, {"u_ref": 0.0}, {"test_minutes": 0.0}):
        with pytest.raises(DrawError):
            plan_route([], **{"visits": 5} | changed, population=PRIOR_POPULATION)  # type: ignore[arg-type]
