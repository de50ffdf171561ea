"""Figures of section 7, worked by hand."""

import math

import numpy as np
import pytest

from chargewatch.evaluation.scores import (
    Compared,
    Marks,
    Share,
    brier_score,
    coverage,
    detection,
    effective_count,
    false_flags,
    ideal_brier_score,
    mean_interval,
    pooled,
    pooled_reliability,
    recall,
    reliability_table,
    rmse_over_bound,
)


def compared(**changes):
    values = {
        "relative_error": np.array([0.010, 0.031, np.nan, -0.002]),
        "standard_uncertainty": np.array([0.002, 0.002, np.nan, 0.002]),
        "p_nonconforming": np.array([0.0, 1.0, np.nan, 0.0]),
        "red": np.array([False, True, False, False]),
        "true_error": np.array([0.011, 0.041, 0.030, -0.001]),
        "mpe": np.full(4, 0.02),
        "bound": np.full(4, 0.001),
        "conforming": np.array([True, False, False, True]),
        "is_dc": np.array([False, False, True, True]),
        "method": ("balance+vehicles", "balance+direct", "", "vehicles"),
    }
    return Compared(**{**values, **changes})


def test_coverage_counts_identified_connectors_only():
    share = coverage(compared())
    # Misses 0.001, 0.010 and 0.001 against 1.96 x 0.002.
    assert (share.part, share.whole) == (2, 3)


def test_rmse_over_bound_by_hand():
    assert rmse_over_bound(compared()) == pytest.approx(math.sqrt((1 + 100 + 1) / 3))


def test_recall_and_false_flags_by_hand():
    assert recall(compared(), at_mpe=1.5).value == 0.5
    assert recall(compared(), at_mpe=2.0).value == 1.0
    assert recall(compared(), at_mpe=1.5, among=np.array([1, 1, 0, 1], bool)).value == 1.0
    assert false_flags(compared()).value == 0.0
    assert false_flags(compared(red=np.array([True, True, False, False]))).value == 0.5


def test_a_share_of_nothing_is_not_known():
    assert math.isnan(Share(0, 0).value)
    assert all(math.isnan(end) for end in Share(0, 0).interval)


def test_exact_interval_of_a_share():
    # Clopper and Pearson: 0 of 10 has the upper limit 1 - 0.025^(1/10).
    low, high = Share(0, 10).interval
    assert low == 0.0
    assert high == pytest.approx(1 - 0.025 ** (1 / 10))
    assert Share(10, 10).interval[1] == 1.0


def test_the_interval_of_a_share_knows_that_connectors_of_a_city_are_alike():
    alike = [Share(9, 10), Share(9, 10), Share(9, 10)]
    # No more scatter between cities than chance gives: 27 of 30, each counts.
    assert effective_count(alike) == 30
    assert pooled(alike)["low"] == pytest.approx(Share(27, 30).interval[0])
    apart = [Share(10, 10), Share(10, 10), Share(7, 10)]
    # D: 3 / 2 (1 + 1 + 4) / 30^2 over 0.9 x 0.1 / 30 = 0.01 / 0.003; t(29) = 2.0452, t(2) = 4.3027.
    assert effective_count(apart) == pytest.approx(9 * (2.04523 / 4.30265) ** 2, rel=1e-4)
    found = pooled(apart)
    assert (found["value"], found["part"], found["of"]) == (0.9, 27, 30)
    assert found["low"] < pooled(alike)["low"]
    assert effective_count([Share(0, 0)]) == 0
    assert math.isnan(pooled([])["low"])


def test_brier_scores_by_hand():
    p = np.array([0.0, 0.5, 1.0, np.nan])
    outcome = np.array([False, True, True, True])
    assert brier_score(p, outcome) == pytest.approx(0.25 / 3)
    assert ideal_brier_score(p) == pytest.approx(0.25 / 3)
    assert math.isnan(brier_score(np.array([np.nan]), np.array([True])))


def test_reliability_rows_hold_every_known_probability_once():
    p = np.array([0.0, 0.004, 0.05, 0.3, 0.95, 1.0, np.nan])
    outcome = np.array([0, 0, 0, 1, 1, 1, 1], bool)
    rows = reliability_table(p, outcome)
    assert sum(row["connectors"] for row in rows) == 6
    assert rows[0] == {
        "from": 0.0,
        "to": 0.01,
        "connectors": 2,
        "mean_p": 0.002,
        "came": 0,
        "observed": 0.0,
        "observed_low": 0.0,
        "observed_high": pytest.approx(1 - 0.025**0.5),
    }


def test_reliability_of_two_cities_is_that_of_all_their_connectors():
    first = reliability_table(np.array([0.1, 0.15, 0.97]), np.array([0, 1, 1], bool))
    second = reliability_table(np.array([0.06, 0.3]), np.array([0, 0], bool))
    rows = pooled_reliability([first, second])
    assert [(row["from"], row["came"], row["connectors"]) for row in rows] == [
        (0.05, 1, 3),
        (0.2, 0, 1),
        (0.95, 1, 1),
    ]
    assert rows[0]["mean_p"] == pytest.approx(0.31 / 3)


def test_interval_of_a_mean_by_hand():
    mean, low, high = mean_interval([1.0, 2.0, 3.0, math.nan])
    # t(0.975; 2) = 4.3027, s = 1, n = 3.
    assert mean == 2.0
    assert high - low == pytest.approx(2 * 4.30265 / math.sqrt(3), rel=1e-5)
    assert math.isnan(mean_interval([1.0])[1])
    assert math.isnan(mean_interval([])[0])


PLACES = {"A-1": "A", "A-2": "A", "B-1": "B", "B-2": "B"}


def marks(connectors=(), stations=()):
    return Marks(connectors=frozenset(connectors), stations=frozenset(stations))


def test_detection_of_connectors():
    result = detection(marks(["A-1", "B-1"]), marks(["A-1", "A-2"]), station_of=PLACES)
    assert result.precision.value == 0.5
    assert result.recall.value == 0.5
    assert result.false == ("B-1",)
    assert result.missed == ("A-2",)


def test_a_station_that_is_found_is_right_for_its_connectors():
    result = detection(marks(stations=["A"]), marks(["A-1", "A-2"]), station_of=PLACES)
    assert (result.precision.value, result.recall.value) == (1.0, 1.0)
    result = detection(marks(["A-1", "A-2"]), marks(stations=["A"]), station_of=PLACES)
    assert (result.precision.value, result.recall.value) == (1.0, 1.0)


def test_a_consequence_is_neither_right_nor_wrong():
    result = detection(
        marks(["A-1", "B-1"]), marks(["A-1"]), allowed=marks(stations=["B"]), station_of=PLACES
    )
    assert (result.precision.part, result.precision.whole) == (1, 1)
