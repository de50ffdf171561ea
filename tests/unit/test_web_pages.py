from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from chargewatch.risk.reasons import (
    CONFORMING,
    NONCONFORMING,
    NOT_IDENTIFIABLE,
    UNDECIDED,
    Findings,
    reasons,
)
from chargewatch.web.language import Translator
from chargewatch.web.pages.pile import budget_rows
from chargewatch.web.pages.stations import balance_sums
from chargewatch.web.reason import translate_reason


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


@pytest.mark.parametrize(
    "reason",
    [
        "no accuracy class in the registry, so no limit to compare with",
        "no reference meter, no verification and 3 of at least 8 sessions with a known vehicle",
        "its vehicles lead to no connector with a reference meter or verification",
        "its energy can't be told apart from that of its neighbours",
        "+3.10 % ± 0.40 % (k = 2) from 2500 intervals and 140 sessions; "
        "the reference contributes 0.10 %; changed on 2026-03-01; too near the limit of 2.0 %",
        "+3.10 % ± 0.40 % (k = 2) from 3 direct comparisons; "
        "its reference meter TJ-M1 is suspect and not relied on; "
        "no reading or session bears it out since the verification",
        "-0.10 % ± 4.00 % (k = 2) from 5 intervals; too uncertain for the limit of 1.0 %",
    ],
)
def test_reasons_of_a_run_read_in_chinese(reason: str) -> None:
    text = translate_reason(reason, Translator("zh"))
    words = text.replace("TJ-M1", "").replace("（k = 2）", "")
    assert not any(letter.isascii() and letter.isalpha() for letter in words), text
    english = translate_reason(reason, Translator("en"))
    assert english.endswith(".")


def test_every_sentence_that_the_engine_writes_has_a_translation() -> None:
    codes = np.array([NOT_IDENTIFIABLE] * 4 + [NONCONFORMING, CONFORMING] + [UNDECIDED] * 3)
    n = codes.size

    def column(*values: float) -> np.ndarray:
        return np.array(values)

    findings = Findings(
        error=np.full(n, 0.031),
        u=column(*[0.002] * 7, 0.02, 0.002),
        mpe=np.full(n, 0.02),
        p=np.full(n, 0.5),
        code=codes,
        intervals=column(0, 0, 0, 5, 5, 5, 5, 5, 0),
        sessions=column(3, 0, 9, 9, 9, 0, 9, 0, 9),
        direct=column(0, 0, 0, 0, 2, 0, 0, 0, 1),
        meter_u=np.full(n, 0.001),
        suspect=column(*[0] * 4, 1, 0, 0, 0, 0).astype(bool),
        meter=np.zeros(n, dtype=int),
        traced=column(1, 1, 0, 1, 1, 1, 1, 1, 1).astype(bool),
        live=column(*[1] * 6, 0, 1, 1).astype(bool),
        changed=column(*[-1] * 5, 20_000, -1, -1, -1),
        has_mpe=column(1, 0, *[1] * 7).astype(bool),
        min_sessions=8,
    )
    for sentence in reasons(findings, ["表1"]):
        text = translate_reason(sentence, Translator("zh")).replace("（k = 2）", "")
        assert not any(letter.isascii() and letter.isalpha() for letter in text), sentence


def test_an_unknown_reason_is_shown_as_it_was_written() -> None:
    assert translate_reason("quite new", Translator("zh")) == "Quite new。"
    assert translate_reason("", Translator("en")) == ""
