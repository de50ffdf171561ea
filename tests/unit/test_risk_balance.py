import numpy as np
import pytest

from chargewatch.risk.feeders.balance import empty_statistics
from chargewatch.risk.feeders.blocks import feeder_layout, meter_uncertainty
from chargewatch.risk.feeders.noise import kept_scale, strange_days, whitened
from chargewatch.risk.run_inputs import Fleet, References


def fleet_of(n, dc=()):
    is_dc = np.isin(np.arange(n), dc)
    return Fleet(
        connector=[f"C{i}" for i in range(n)],
        number=np.arange(n),
        station=np.zeros(n, np.int64),
        operator=np.zeros(n, np.int64),
        model=np.zeros(n, np.int64),
        is_dc=is_dc,
        cable_loss_compensated=np.zeros(n, bool),
        mpe=np.full(n, 0.02),
        rated_power_w=np.full(n, 7000.0),
        max_current_a=np.full(n, 32.0),
        resolution_wh=np.ones(n),
        registered=np.ones(n, bool),
    )


def meters_of(members, *, in_series=None, is_dc=None, u=None, until=np.inf):
    m = len(members)
    return References(
        meter=[f"M{j}" for j in range(m)],
        number=np.arange(m),
        station=np.zeros(m, np.int64),
        in_series=np.asarray(in_series if in_series is not None else [False] * m),
        is_dc=np.asarray(is_dc if is_dc is not None else [False] * m),
        standard_uncertainty=np.asarray(u if u is not None else [0.001] * m),
        resolution_wh=np.full(m, 10.0),
        valid_until_s=np.full(m, until),
        member_start=np.concatenate([[0], np.cumsum([len(x) for x in members])]).astype(np.int64),
        members=np.concatenate([np.asarray(x, dtype=np.int64) for x in members]),
    )


def test_whitening_inverts_the_covariance_of_a_register_that_is_rounded():
    rng = np.random.default_rng(1)
    t = 7
    white, boundary = rng.uniform(1, 3, (1, t)), rng.uniform(0.5, 4, (1, t + 1))
    present = np.ones((1, t), dtype=bool)
    root = whitened(np.eye(t)[None], white, boundary, present)[0]
    covariance = np.diag(white[0] + boundary[0, :-1] + boundary[0, 1:])
    covariance -= np.diag(boundary[0, 1:-1], 1) + np.diag(boundary[0, 1:-1], -1)
    assert root.T @ root == pytest.approx(np.linalg.inv(covariance))


def test_whitening_starts_anew_after_a_missing_slot():
    white, boundary = np.ones((1, 3)), np.full((1, 4), 2.0)
    present = np.array([[True, False, True]])
    rows = whitened(np.ones((1, 3, 1)), white, boundary, present)[0, :, 0]
    assert rows.tolist() == pytest.approx([5**-0.5, 0.0, 5**-0.5])


def test_connectors_belong_to_the_smallest_feeder_and_overlaps_are_left_out():
    layout = feeder_layout(fleet_of(5), meters_of([[0, 1, 2, 3, 4], [0, 1], [3]]), as_of_s=0.0)
    used = sorted(int(m) for g in layout.groups for m in g.meter)
    assert used == [1, 2]
    assert layout.connector_group[2] == -1


def test_in_series_on_the_same_side_is_direct_and_across_the_converter_a_feeder():
    layout = feeder_layout(
        fleet_of(2, dc=[0, 1]),
        meters_of([[0], [1]], in_series=[True, True], is_dc=[True, False]),
        as_of_s=0.0,
    )
    assert layout.direct_meter.tolist() == [0, -1]
    assert [int(m) for g in layout.groups for m in g.meter] == [1]
    assert not layout.groups[0].same_side.any()


def test_a_meter_without_stated_uncertainty_is_not_used():
    layout = feeder_layout(fleet_of(2), meters_of([[0, 1]], u=[np.nan]), as_of_s=0.0)
    assert layout.groups == ()


def test_an_expired_certificate_widens_the_uncertainty():
    year = 365.25 * 86400.0
    u = meter_uncertainty(meters_of([[0]], until=0.0), as_of_s=year)
    assert u[0] == pytest.approx(np.hypot(0.001, 0.002))


def test_statistics_start_empty():
    layout = feeder_layout(fleet_of(3), meters_of([[0, 1, 2]]), as_of_s=0.0)
    assert not empty_statistics(layout.groups[0]).matrix.any()


def test_a_day_is_strange_when_most_of_it_is_beyond_the_usual_noise():
    usual = np.full((4, 96), 25.0)
    residual = np.tile(np.where(np.arange(96) % 2 == 0, 5.0, -5.0), (4, 1))
    residual[1, :40] = 1750.0  # less than half of it: outliers, for the weights
    residual[2, :60] = 1750.0
    residual[3] *= 1.9  # 1.4826 x 1.9 is below 3
    present = np.ones((4, 96), dtype=bool)
    assert strange_days(residual, usual, present=present).tolist() == [False, False, True, False]
    assert not strange_days(residual, usual, present=np.zeros((4, 96), dtype=bool)).any()


def test_noise_grows_slowly_on_strange_days_and_stays_on_days_without_rows():
    old, new = np.array([10.0, 10.0, 10.0]), np.array([12.0, 500.0, 500.0])
    strange = np.array([False, True, False])
    kept = kept_scale(old, new, seen=np.array([True, False, False]), strange=strange)
    assert kept.tolist() == [12.0, 13.0, 10.0]
