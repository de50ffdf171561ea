"""Expanded uncertainty and verdicts, beside the GUM's example and an independent library."""

from __future__ import annotations

import math
from dataclasses import replace
from datetime import date

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chargewatch.domain.mpe import LimitRow, rule_set
from chargewatch.supervision.verifications.budget import (
    Component,
    MeasurementError,
    ReferenceUsed,
    Repetition,
    combined,
    coverage_factor,
    effective_degrees_of_freedom,
    overall_result,
    point_result,
    pooled,
)
from chargewatch.supervision.verifications.decision import (
    PointVerdict,
    VerificationResult,
    point_verdict,
    whole_result,
)
from chargewatch.supervision.verifications.judge import NewPoint, NewVerification, judge

ONE_PERCENT = LimitRow("1", "i_min", 1.0, None, 0.01, "5.1", "S2")
PILE = {
    "current": "AC", "accuracy_class": "2", "rated_power_w": 7_000.0, "min_current_a": None,
    "max_current_a": 32.0, "resolution_wh": 1.0,
}  # fmt: skip
REFERENCE = ReferenceUsed(expanded_uncertainty=0.001, coverage_factor=2.0, resolution_wh=0.1)
CN = rule_set("CN-2022")


def comparisons(error: float, *, count: int = 3, energy_wh: float = 10_000.0) -> tuple:
    """Return comparisons of a mean error that scatter by 0.05 %."""
    wobble = [0.0005 * math.sin(1.0 + 2.1 * k) for k in range(count)]
    mean = sum(wobble) / count
    return tuple(
        Repetition(indicated_wh=energy_wh * (1 + error + w - mean), reference_wh=energy_wh)
        for w in wobble
    )


def verification(*points: NewPoint, **values: object) -> NewVerification:
    defaults = {"verified_on": date(2026, 11, 20), "kind": "subsequent", "reference": REFERENCE}
    return NewVerification(points=points, **defaults | values)  # type: ignore[arg-type]


def test_the_gums_end_gauge() -> None:
    # JCGM 100:2008, H.1: u_c = 32 nm; nu_eff = 16; k of 99 % = 2.92.
    parts = [
        Component(name="standard", kind="B", standard_uncertainty=25, degrees_of_freedom=18),
        Component(name="difference", kind="A", standard_uncertainty=9.7, degrees_of_freedom=25.6),
        Component(name="expansion", kind="B", standard_uncertainty=2.9, degrees_of_freedom=50),
        Component(name="temperature", kind="B", standard_uncertainty=16.6, degrees_of_freedom=2),
    ]
    total = combined(0.0, parts).standard_uncertainty
    assert round(total) == 32
    assert math.floor(effective_degrees_of_freedom(parts)) == 16
    assert coverage_factor(16, probability=0.99) == pytest.approx(2.92, abs=0.005)


def test_a_load_is_what_gtc_makes_of_it() -> None:
    gtc = pytest.importorskip("GTC")
    told = comparisons(0.012)
    spread, freedom = pooled([[c.indicated_wh / c.reference_wh - 1 for c in told]])
    ours = point_result(
        told, reference=REFERENCE, resolution_wh=10.0, spread=spread, freedom=freedom
    )
    count, energy = len(told), 10_000.0
    indicated = energy * 1.012 + gtc.ureal(0, 10.0 / math.sqrt(6 * count))
    reference = energy + gtc.ureal(0, 0.1 / math.sqrt(6 * count))
    repeated = gtc.ureal(0, spread / math.sqrt(count), df=freedom)
    theirs = indicated / (reference * (1 + gtc.ureal(0, 0.0005))) - 1 + repeated
    assert ours.relative_error == pytest.approx(theirs.x, abs=1e-12)
    assert ours.standard_uncertainty == pytest.approx(theirs.u, rel=1e-9)
    assert ours.degrees_of_freedom == pytest.approx(theirs.df, rel=1e-6)
    k = gtc.reporting.k_factor(math.floor(theirs.df), 95.45)
    assert ours.coverage_factor == pytest.approx(k, rel=1e-9)


def test_loads_share_the_certificate_and_nothing_else() -> None:
    points = [
        point_result(
            comparisons(error), reference=REFERENCE, resolution_wh=1.0, spread=0.0005, freedom=6
        )
        for error in (0.010, 0.012, 0.014)
    ]
    whole = overall_result(points)
    by_name = {part.name: part.standard_uncertainty for part in whole.components}
    assert whole.relative_error == pytest.approx(0.012)
    assert by_name["certificate"] == pytest.approx(0.0005 * 1.012, rel=1e-9)
    assert by_name["repeatability"] == pytest.approx(0.0005 / 3, rel=1e-9)
    assert by_name["loads"] == pytest.approx(0.002 / math.sqrt(3), rel=1e-9)


@pytest.mark.parametrize(
    ("error", "uncertainty", "verdict"),
    [
        (0.0099, 0.003, PointVerdict.PASS),
        (0.0101, 0.003, PointVerdict.FAIL),
        (0.01, 0.01 / 3, PointVerdict.PASS),
        (0.0059, 0.004, PointVerdict.PASS),
        (0.0061, 0.004, PointVerdict.INCONCLUSIVE),
        (-0.0139, 0.004, PointVerdict.INCONCLUSIVE),
        (-0.0141, 0.004, PointVerdict.FAIL),
        (0.0, 0.02, PointVerdict.INCONCLUSIVE),
    ],
)
def test_simple_acceptance_up_to_a_third_and_guard_bands_beyond(
    error: float, uncertainty: float, verdict: PointVerdict
) -> None:
    found = point_verdict(error, expanded_uncertainty=uncertainty, limit=ONE_PERCENT)
    assert found is verdict


@given(
    error=st.floats(-0.05, 0.05),
    uncertainty=st.floats(1e-6, 0.05),
    basis=st.sampled_from(["M", "S1", "S2", ""]),
)
def test_what_is_not_confirmed_decides_nothing(
    error: float, uncertainty: float, basis: str
) -> None:
    limit = replace(ONE_PERCENT, basis=basis)
    found = point_verdict(error, expanded_uncertainty=uncertainty, limit=limit)
    assert (found is PointVerdict.NO_LIMIT) == (basis in ("M", ""))
    blank = replace(ONE_PERCENT, limit=None)
    for nothing in (None, blank):
        silent = point_verdict(error, expanded_uncertainty=uncertainty, limit=nothing)
        assert silent is PointVerdict.NO_LIMIT


def test_a_whole_verification() -> None:
    passed, failed = PointVerdict.PASS, PointVerdict.FAIL
    open_, silent = PointVerdict.INCONCLUSIVE, PointVerdict.NO_LIMIT
    assert whole_result([passed, silent]) is VerificationResult.PASS
    assert whole_result([passed, open_]) is VerificationResult.UNDECIDED
    assert whole_result([silent, silent]) is VerificationResult.UNDECIDED
    assert whole_result([passed, open_, failed]) is VerificationResult.FAIL


def test_light_load_is_kept_and_not_judged() -> None:
    judged = judge(
        verification(
            NewPoint(load="100 %", current_a=32.0, repetitions=comparisons(0.005)),
            NewPoint(load="5 A", current_a=5.0, repetitions=comparisons(0.2)),
        ),
        PILE,
        CN,
    )
    assert [point.verdict for point in judged.points] == [
        PointVerdict.PASS,
        PointVerdict.NO_LIMIT,
    ]
    assert judged.points[1].no_limit == "no_band"
    assert judged.result is VerificationResult.PASS
    assert judged.valid_until == date(2029, 11, 20)
    assert judged.anchor is not None
    assert judged.anchor.relative_error == pytest.approx(0.005)


@pytest.mark.parametrize(
    ("rules", "on", "pile", "why"),
    [
        ("CN-2022", date(2022, 12, 27), {}, "not_in_force"),
        ("CN-2022", date(2026, 1, 1), {"accuracy_class": "0.5"}, "class_unknown"),
        ("CN-2022", date(2026, 1, 1), {"current": "DC", "max_current_a": None}, "current_unknown"),
        ("OIML-G22-2022", date(2026, 1, 1), {"accuracy_class": "B"}, "not_confirmed"),
    ],
)
def test_why_nothing_is_decided_is_told(rules: str, on: date, pile: dict, why: str) -> None:
    point = NewPoint(load="full", current_a=20.0, repetitions=comparisons(0.3))
    judged = judge(verification(point, verified_on=on), PILE | pile, rule_set(rules))
    assert judged.points[0].no_limit == why
    assert judged.result is VerificationResult.UNDECIDED
    assert judged.valid_until is None


def test_a_broken_pile_fails_and_is_no_anchor() -> None:
    dead = tuple(Repetition(indicated_wh=0.0, reference_wh=5_000.0) for _ in range(2))
    judged = judge(verification(NewPoint(load="full", current_a=30.0, repetitions=dead)), PILE, CN)
    assert judged.result is VerificationResult.FAIL
    assert judged.anchor is None


def test_a_leap_day_ends_on_the_28th() -> None:
    point = NewPoint(load="full", power_w=7_000.0, repetitions=comparisons(0.0))
    judged = judge(verification(point, verified_on=date(2024, 2, 29)), PILE, CN)
    assert judged.valid_until == date(2027, 2, 28)


@pytest.mark.parametrize(
    ("new", "words"),
    [
        (verification(), "1 to 20 loads"),
        (verification(NewPoint(load="x")), "tell comparisons"),
        (verification(NewPoint(load="", repetitions=comparisons(0.0))), "a name"),
        (verification(NewPoint(load="x", repetitions=comparisons(0.0, count=1))), "repeats"),
        (
            verification(NewPoint(load="x", repetitions=comparisons(0.0)), reference=None),
            "tell the reference",
        ),
        (
            verification(
                NewPoint(
                    load="x",
                    repetitions=(
                        Repetition(indicated_wh=5000.0, reference_wh=5.0),
                        Repetition(indicated_wh=5000.0, reference_wh=5.0),
                    ),
                )
            ),
            "same unit",
        ),
        (
            verification(
                NewPoint(load="x", repetitions=(Repetition(indicated_wh=1.0, reference_wh=0.0),))
            ),
            "above 0",
        ),
        (verification(NewPoint(load="x", relative_error=2.0)), "expanded uncertainty"),
        (
            verification(NewPoint(load="x", relative_error=-2.0, expanded_uncertainty=0.01)),
            "fraction",
        ),
        (
            verification(NewPoint(load="x", relative_error=0.0, expanded_uncertainty=float("nan"))),
            "uncertainty",
        ),
    ],
)
def test_what_can_not_be_is_refused_with_the_next_step(new: NewVerification, words: str) -> None:
    with pytest.raises(MeasurementError, match=words):
        judge(new, PILE, CN)
