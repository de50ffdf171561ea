import warnings
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import statsmodels.api as sm

from chargewatch.risk.estimator import (
    CitySystem,
    FeederEvidence,
    estimate_city,
    level_coupling,
    moved_mean,
    normal_product,
    own_evidence,
    right_hand_side,
)
from chargewatch.risk.feeders.statements import with_meter, with_spread
from chargewatch.risk.vehicles import LEVELS, session_pairs, tail_inflation, vehicle_graph


def system_of(
    connector,
    node,
    y,
    *,
    n,
    v,
    noise,
    vehicle,
    prior,
    feeders=(),
    direct=None,
    models=1,
    model_spread=1e-6,
    kind=None,
    load=None,
):
    graph = vehicle_graph(
        session_pairs(connector, node, connectors=n, nodes=v),
        node_kind=np.zeros(v, dtype=np.int64) if kind is None else kind,
        log_ratio=y,
        load=np.zeros(y.size) if load is None else load,
        precision=np.full(y.size, noise**-2.0),
        vehicle_precision=np.full(v, vehicle**-2.0),
    )
    direct_p, direct_s = direct or (np.zeros(n), np.zeros(n))
    return CitySystem(
        feeders=tuple(feeders),
        graph=graph,
        direct_precision=direct_p,
        direct_score=direct_s,
        prior_precision=np.full(n, prior**-2.0),
        model=np.arange(n) % models,
        model_precision=np.full(models, model_spread**-2.0),
        converter_mean=np.zeros(1),
        converter_precision=np.array([1e4]),
    )


def dense(system):
    coupling, levels = level_coupling(system)
    matrix = np.block(
        [[normal_product(system, np.eye(system.size)), coupling], [coupling.T, levels]]
    )
    return matrix, np.concatenate(right_hand_side(system))


def random_city(seed=2, *, n=12, v=25, s=160):
    rng = np.random.default_rng(seed)
    connector, node = rng.integers(0, n, s), rng.integers(0, v, s)
    # Kinds 1 and 3: capacities on AC, battery's integral on DC, so there are both cables.
    kind = np.sort(2 * rng.integers(0, 2, v) + 1)
    y = rng.normal(0, 0.02, s)
    member = np.array([[0, 1, 2, 3], [4, 5, 6, -1]])
    root = rng.normal(0, 200, (2, 4, 6))
    precision = root @ root.transpose(0, 2, 1)
    precision[1, 3], precision[1, :, 3] = 0.0, 0.0
    feeder = FeederEvidence(
        member=member,
        converter=np.array([[-1, 0, 0, -1], [0, 0, -1, -1]]),
        precision=precision,
        score=rng.normal(0, 100, (2, 4)) * (member >= 0),
    )
    direct = np.zeros(n)
    direct[3] = 1e6
    return system_of(
        connector,
        node,
        y,
        n=n,
        v=v,
        noise=0.02,
        vehicle=0.03,
        prior=0.01,
        feeders=[feeder],
        direct=(direct, 0.004 * direct),
        models=2,
        model_spread=0.003,
        kind=kind,
        load=rng.uniform(0.1, 1.0, s),
    )


def test_crossed_effects_agree_with_mixedlm_to_four_digits():
    rng = np.random.default_rng(8)
    n, v, s = 8, 15, 240
    connector, vehicle = rng.integers(0, n, s), rng.integers(0, v, s)
    y = (
        0.05
        + rng.normal(0, 0.012, n)[connector]
        + rng.normal(0, 0.03, v)[vehicle]
        + rng.normal(0, 0.015, s)
    )
    frame = pd.DataFrame({"y": y, "one": 1, "connector": connector, "vehicle": vehicle})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        fit = sm.MixedLM.from_formula(
            "y ~ 1",
            groups="one",
            data=frame,
            vc_formula={"connector": "0 + C(connector)", "vehicle": "0 + C(vehicle)"},
        ).fit(reml=True)
    by_name = dict(zip(fit.model.exog_vc.names, fit.vcomp, strict=True))
    estimate = estimate_city(
        system_of(
            connector,
            vehicle,
            y,
            n=n,
            v=v,
            noise=float(np.sqrt(fit.scale)),
            vehicle=float(np.sqrt(by_name["vehicle"])),
            prior=float(np.sqrt(by_name["connector"])),
        ),
        draws=4,
        seed=1,
    )
    effects = fit.random_effects[1]
    theirs = np.array([effects[f"connector[C(connector)[{k}]]"] for k in range(n)])
    assert np.abs(estimate.error - theirs).max() < 1e-4
    assert np.abs(estimate.error - theirs).max() < 0.01 * np.abs(theirs).max()
    # The kind's level is the fixed effect.
    assert estimate.level[2] == pytest.approx(fit.fe_params["Intercept"], abs=1e-4)


def test_the_solution_equals_that_of_the_dense_normal_equations():
    system = random_city()
    matrix, right = dense(system)
    assert np.abs(matrix - matrix.T).max() < 1e-6 * np.abs(matrix).max()
    exact = np.linalg.solve(matrix, right)
    covariance = np.linalg.inv(matrix)
    estimate = estimate_city(system, draws=4000, seed=3)
    n = system.size
    assert estimate.error == pytest.approx(exact[:n], abs=1e-7)
    # All that the data touch; a kind without sessions has next to no prior.
    used = np.diag(matrix)[n:] > 1.0
    assert used.sum() == 7
    assert estimate.level[used] == pytest.approx(exact[n:][used], abs=1e-6)
    # Rao-Blackwellised: far better than 1 / sqrt(2 x 4000) where blocks tell most.
    assert estimate.variance == pytest.approx(np.diag(covariance)[:n], rel=0.03)


def test_the_mean_moves_to_that_of_new_weights_while_variances_stay():
    random = np.random.default_rng(6)
    system = random_city(seed=6)
    before = estimate_city(system, draws=8, seed=3)
    direct = system.direct_precision + random.uniform(1e3, 1e4, system.size)
    moved = replace(
        system,
        direct_precision=direct,
        direct_score=direct * random.normal(0, 0.01, system.size),
    )
    exact = estimate_city(moved, draws=8, seed=3)
    near, away = before, []
    for _ in range(20):
        near = moved_mean(moved, near, tolerance=1e-10)
        away.append(np.abs(near.error - exact.error).max())
    assert (np.diff(away) < 1e-9).all()
    u = np.sqrt(exact.variance)
    np.testing.assert_allclose(near.error / u, exact.error / u, atol=1e-3)
    np.testing.assert_allclose(near.level, exact.level, atol=1e-6)
    assert np.array_equal(near.deviations, before.deviations)
    # What is stated of each connector alone narrows it.
    assert (near.variance < before.variance).all()
    still = moved_mean(system, before, tolerance=1e-10)
    np.testing.assert_allclose(still.error, before.error, atol=1e-8)
    np.testing.assert_array_equal(still.variance, before.variance)


def test_own_evidence_is_the_estimate_without_the_own_prior():
    system = random_city(5)
    n = system.size
    matrix, right = dense(system)
    estimate = estimate_city(system, draws=20_000, seed=4)
    error, variance = own_evidence(
        estimate, model=system.model, prior_precision=system.prior_precision
    )
    for i in range(n):
        without = matrix.copy()
        row = np.zeros(matrix.shape[0])
        row[i], row[n + system.model[i]] = 1.0, -1.0
        without -= system.prior_precision[i] * np.outer(row, row)
        covariance = np.linalg.inv(without)
        if covariance[i, i] > 0.02**2:
            continue
        assert error[i] == pytest.approx((covariance @ right)[i], abs=2e-4)
        assert variance[i] == pytest.approx(covariance[i, i], rel=0.1)


def test_equal_seeds_give_equal_bits_and_others_do_not():
    system = random_city()
    one = estimate_city(system, draws=8, seed=9)
    two = estimate_city(system, draws=8, seed=9)
    other = estimate_city(system, draws=8, seed=10)
    assert np.array_equal(one.variance, two.variance)
    assert not np.array_equal(one.variance, other.variance)


def test_spread_and_meter_leave_a_feeder_as_if_they_were_noise():
    rng = np.random.default_rng(3)
    root = rng.normal(0, 300, (1, 3, 5))
    precision = root @ root.transpose(0, 2, 1)
    z = np.array([[0.01, -0.02, 0.03]])
    information = (precision @ z[..., None])[..., 0]
    spread, u = np.array([[0.004, 0.0, 0.002]]), np.array([0.003])
    soft, soft_information = with_spread(precision, information, spread=spread)
    q, score = with_meter(soft, soft_information, u=u)
    covariance = np.linalg.inv(precision[0]) + np.diag(spread[0] ** 2) + u[0] ** 2
    assert np.linalg.inv(q[0]) == pytest.approx(covariance, rel=1e-6)
    assert np.linalg.solve(q[0], score[0]) == pytest.approx(z[0], abs=1e-9)


def test_a_feeder_that_says_nothing_leaves_the_prior():
    system = system_of(
        np.zeros(0, dtype=np.int64),
        np.zeros(0, dtype=np.int64),
        np.zeros(0),
        n=3,
        v=0,
        noise=0.02,
        vehicle=0.03,
        prior=0.01,
    )
    estimate = estimate_city(system, draws=4, seed=1)
    error, variance = own_evidence(
        estimate, model=system.model, prior_precision=system.prior_precision
    )
    assert np.isnan(error).all()
    assert np.isinf(variance).all()
    assert system.levels == 2 + LEVELS


def test_student_weights_overstate_information_by_the_huber_factor():
    rng = np.random.default_rng(1)
    # Weights of normal residuals: checked against 4,000 weighted means of 60 values each.
    r = rng.normal(0, 1, (4000, 60))
    mean = np.zeros(4000)
    for _ in range(30):
        w = 6.0 / (5.0 + (r - mean[:, None]) ** 2)
        mean = (w * r).sum(axis=1) / w.sum(axis=1)
    claimed = 1.0 / w.sum(axis=1).mean()
    factor = tail_inflation(r.ravel(), np.ones(r.size))
    assert mean.var() == pytest.approx(factor * claimed, rel=0.07)
