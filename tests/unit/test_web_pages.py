from __future__ import annotations

import math
from typing import Any

import pytest

from chargewatch.web.pages.pile import budget_rows
from chargewatch.web.pages.stations import balance_sums


def assessment(u: float, *parts: float) -> dict[str, Any]:
    budget = [{"component": f"c{i}", "standard_uncertainty": part} for i, part in enumerate(parts)]
    return {"standard_uncertainty": u, "budget": budget}


def test_budget_adds_up_to_the_total() -> None:
    rows = budget_rows(assessment(0.005, 0.003, 0.004))
    assert [row["component"] for row in rows] == ["c1", "c0"]
    assert sum(row["share"] for row in rows) == pytest.approx(1)


def test_what_a_budget_leaves_out_is_a_line_of_its_own() -> None:
    rows = budget_rows(assessment(0.005, 0.003))
    assert {row["component"] for row in rows} == {"c0", "unlisted"}
    assert sum(row["share"] for row in rows) == pytest.approx(1)


def test_a_budget_that_lists_too_much_shows_a_negative_rest() -> None:
    rows = budget_rows(assessment(0.003, 0.005))
    assert [row["share"] < 0 for row in rows] == [False, True]
    assert sum(row["share"] for row in rows) == pytest.approx(1)


def test_no_budget_without_an_uncertainty() -> None:
    assert budget_rows(assessment(math.nan, 0.003)) == []


def test_balance_residual_is_reference_less_piles() -> None:
    steps = [
        {"reference_wh": 1000.0, "piles_wh": 900.0, "slots": 4},
        {"reference_wh": 1000.0, "piles_wh": 950.0, "slots": 4},
    ]
    sums = balance_sums({"steps": steps, "since": None, "until": None})
    assert sums["residual_wh"] == 150
    assert sums["residual"] == pytest.approx(0.075)
    assert balance_sums({"steps": [], "since": None, "until": None})["residual"] is None
