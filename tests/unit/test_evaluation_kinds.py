"""Figures by kind of evidence, worked by hand."""

import math

import numpy as np
import pytest

from chargewatch.evaluation.kinds import by_kind, kind_of, sums_by_kind
from chargewatch.evaluation.printout import lines
from chargewatch.evaluation.scores import Compared

VEHICLES = "feeder + vehicles"


def city(**changes):
    values = {
        "relative_error": np.array([0.010, 0.031, np.nan, -0.002, 0.010]),
        "standard_uncertainty": np.array([0.002, 0.002, np.nan, 0.002, 0.001]),
        "p_nonconforming": np.array([0.0, 1.0, np.nan, 0.0, 0.1]),
        "red": np.array([False, True, False, False, False]),
        "true_error": np.array([0.011, 0.041, 0.030, -0.001, 0.030]),
        "mpe": np.full(5, 0.02),
        "bound": np.array([0.001, 0.002, 0.001, np.nan, np.nan]),
        "conforming": np.array([True, False, False, True, True]),
        "is_dc": np.array([False, False, False, True, True]),
        "method": (*["balance+vehicles"] * 2, "", "direct+balance", "verification"),
    }
    return Compared(**{**values, **changes})


def rows_of(*cities):
    rows = by_kind(sums_by_kind(one) for one in cities)
    return {(row["current"], row["kind"]): row for row in rows}


def test_evidence_is_named_in_words():
    assert kind_of("balance+vehicles+verification") == "feeder + vehicles + verification"
    assert kind_of("direct+balance+vehicles") == "in series"
    assert kind_of("") == "no estimate"


def test_figures_of_one_kind_by_hand():
    rows = rows_of(city())
    assert list(rows) == [
        ("AC", "all"),
        ("AC", VEHICLES),
        ("AC", "no estimate"),
        ("DC", "all"),
        ("DC", "in series"),
        ("DC", "verification"),
    ]
    row = rows["AC", VEHICLES]
    # Errors of -0.001 and -0.010 at u = 0.002.
    assert row["rmse"] == pytest.approx(math.sqrt((1e-6 + 1e-4) / 2))
    assert row["bias"] == pytest.approx(-0.0055)
    assert row["mean_squared_z"] == pytest.approx((0.25 + 25) / 2)
    assert row["rmse_over_bound"] == pytest.approx(math.sqrt((1 + 25) / 2))
    assert (row["coverage"]["part"], row["coverage"]["of"]) == (1, 2)
    assert (row["false_flags"]["part"], row["false_flags"]["of"]) == (0, 1)
    assert row["brier_score"] == 0.0
    # The offender without an estimate counts as not found.
    assert rows["AC", "all"]["recall_1_5_mpe"]["value"] == 0.5
    wrong = rows["DC", "verification"]["wrongly_conforming"]
    assert (wrong["part"], wrong["of"]) == (1, 1)
    assert math.isnan(rows["DC", "in series"]["rmse_over_bound"])


def test_cities_are_added():
    one = rows_of(city())["AC", "all"]
    two = rows_of(city(), city())["AC", "all"]
    assert two["connectors"] == 2 * one["connectors"]
    assert two["rmse"] == pytest.approx(one["rmse"])
    assert two["coverage"]["of"] == 2 * one["coverage"]["of"]


def test_what_is_wrong_in_a_situation_is_no_false_flag():
    inside = city(true_error=np.zeros(5))
    sums = sums_by_kind(inside, beyond_at_times=np.array([False, True, False, False, False]))
    assert by_kind([sums])[0]["false_flags"]["part"] == 0
    assert by_kind([sums_by_kind(inside)])[0]["false_flags"]["part"] == 1


def test_without_word_of_the_current_there_is_one_table():
    rows = rows_of(city(is_dc=None))
    assert rows["", "all"]["connectors"] == 5


def test_the_table_has_a_line_for_each_kind():
    document = {
        "targets": {},
        "errors": {},
        "situations": {},
        "by_kind": by_kind([sums_by_kind(city())]),
    }
    shown = list(lines(document))
    assert shown[1].split("  ")[1] == "evidence"
    (line,) = (text for text in shown if text.startswith("  DC verification"))
    # n, RMSE, bias and u in per cent, z2, coverage with its interval, bound.
    assert line.split()[2:7] == ["1", "2.000", "-2.000", "0.100", "400.00"]
    assert "0.0 (0.0 to 97.5)" in line
    assert "1 of 1" in line
    assert len({len(text) for text in shown[1:]}) == 1
