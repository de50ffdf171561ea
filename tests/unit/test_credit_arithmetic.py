"""The arithmetic of a grade: by hand, at random, and against scipy."""

from __future__ import annotations

import copy
import json
import math
from dataclasses import replace
from datetime import date
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import beta

from chargewatch.supervision.credit.arithmetic import (
    Fact,
    compute,
    digest,
    replay,
    rounded,
    written,
)
from chargewatch.supervision.credit.interval import exact_interval
from chargewatch.supervision.credit.needs import outlook
from chargewatch.supervision.credit.rules import (
    CreditError,
    GradeRules,
    read_rule_set,
    rule_sets,
    rules_for,
)

MONTH = date(2026, 11, 1)
RULES = rules_for(MONTH)
ITEMS = [item.item for item in RULES.items]


def fact(bad: int | str, whole: int | str) -> Fact:
    return Fact(bad=Fraction(bad), all=Fraction(whole), rows=3)


# Intervals decide nothing, and take their time.
QUICK = replace(RULES, items=tuple(replace(item, interval=False) for item in RULES.items))


def grade(facts: dict[str, Fact], rules: GradeRules = RULES) -> dict[str, Any]:
    return compute(rules, facts, operator_id="OP1", month=MONTH)


def line(told: dict[str, Any], item: str) -> dict[str, Any]:
    found: dict[str, Any] = next(one for one in told["lines"] if one["item"] == item)
    return found


def test_a_grade_that_was_computed_by_hand() -> None:
    told = grade(
        {
            "inspections": fact(3, 30),
            "owed": fact("500", "1000000"),
            "silence": fact(144, 7200),
            "coverage": fact(6, 100),
            "commitments": fact(1, 5),
        }
    )
    # 3 of 30 is a tenth, at the pair (0.1, 50); 20 x 30 / (30 + 20) = 12.
    # 500 of a million is at (0.0005, 90). 2 % lies a quarter of the way from (0.01, 95) to
    # (0.05, 70): 88.75. 6 % lies half way from (0.02, 92) to (0.1, 55): 73.5. A fifth lies a
    # quarter of the way from (0.1, 70) to (0.5, -60): 37.5; 5 x 5 / (5 + 3) = 3.125.
    by_hand = {
        "inspections": ("50.0000", "12.000000"),
        "owed": ("90.0000", "15.000000"),
        "silence": ("88.7500", "5.000000"),
        "coverage": ("73.5000", "15.000000"),
        "commitments": ("37.5000", "3.125000"),
    }
    for item in ITEMS:
        found = line(told, item)
        if item in by_hand:
            assert (found["points"], found["weight_in_force"]) == by_hand[item], item
        else:
            assert (found["points"], found["weight_in_force"]) == (None, "0.000000"), item
    total = 12 * 50 + 15 * 90 + 5 * Fraction("88.75") + 15 * Fraction("73.5")
    total += Fraction("3.125") * Fraction("37.5")
    score = total / (12 + 15 + 5 + 15 + Fraction("3.125"))
    assert told["weight_in_force"] == "50.125000"
    assert told["score"] == f"{float(score):.2f}" == "72.09"
    assert (told["grade"], told["worst"]) == ("B", "commitments")


def test_what_is_not_known_neither_helps_nor_harms() -> None:
    known = {"coverage": fact(1, 100), "owed": fact(0, 900), "lost": fact("1.25", 720)}
    told = grade(known)
    assert told["score"] == grade({**known, "inspections": fact(0, 0)})["score"]
    # The mean of what is known, by its own weights.
    lines = [line(told, item) for item in known]
    mean = sum(Fraction(one["weight"]) * Fraction(one["points"]) for one in lines) / 38
    assert told["score"] == written(rounded(mean, 2), 2)


def test_an_operator_of_which_nothing_is_known_is_not_graded() -> None:
    told = grade({})
    assert (told["grade"], told["score"], told["worst"]) == (None, None, None)
    assert not replay(told).faults
    assert outlook(told).needs == ()
    # One item alone is too little, whatever it says.
    for bad in (0, 100):
        assert grade({"coverage": fact(bad, 100)})["grade"] is None


@pytest.mark.parametrize("failed", [0, 1])
def test_one_inspection_ruins_nobody_and_saves_nobody(failed: int) -> None:
    known = {
        "coverage": fact(3, 100),
        "owed": fact(300, 900_000),
        "rejected": fact(40, 100_000),
    }
    before, after = (
        Fraction(grade(facts)["score"])
        for facts in (known, {**known, "inspections": fact(failed, 1)})
    )
    assert abs(after - before) < 5
    assert (after < before) == bool(failed)


def test_many_bad_inspections_do_ruin() -> None:
    known = {"coverage": fact(0, 100), "owed": fact(0, 900_000), "rejected": fact(0, 100_000)}
    assert grade(known)["grade"] == "A"
    assert grade({**known, "inspections": fact(80, 200)})["grade"] in {"C", "D"}


def test_points_and_score_have_their_ends() -> None:
    worst = {item: fact(1000, 1000) for item in ITEMS}
    told = grade(worst)
    assert {one["points"] for one in told["lines"]} == {"-100.0000"}
    assert (told["score"], told["grade"]) == ("0.00", "D")
    best = grade({item: fact(0, 1000) for item in ITEMS})
    assert (best["score"], best["grade"]) == ("100.00", "A")


def facts_of(draw: Any, most: int = 3_000) -> dict[str, Fact]:
    found = {}
    for item in ITEMS:
        if draw(st.booleans()):
            whole = draw(st.integers(1, most))
            found[item] = fact(draw(st.integers(0, whole)), whole)
    return found


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_a_worse_figure_never_raises_a_grade(data: st.DataObject) -> None:
    facts = facts_of(data.draw)
    if not facts:
        return
    item = data.draw(st.sampled_from(sorted(facts)))
    more = data.draw(st.integers(1, 50))
    worse = fact(min(int(facts[item].bad) + more, int(facts[item].all)), int(facts[item].all))
    before, after = grade(facts, QUICK), grade({**facts, item: worse}, QUICK)
    if before["score"] is not None:
        assert Fraction(after["score"]) <= Fraction(before["score"])
        assert "ABCD".index(after["grade"]) >= "ABCD".index(before["grade"])


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_a_result_more_moves_the_score_its_own_way(data: st.DataObject) -> None:
    facts = facts_of(data.draw)
    item = data.draw(st.sampled_from(["inspections", "verifications", "commitments"]))
    known = facts.get(item) or fact(0, 0)
    bad, whole = int(known.bad), int(known.all)
    before = grade(facts, QUICK)
    if before["score"] is None:
        return
    # A hundredth for the rounding of the lines.
    score = Fraction(before["score"])
    worse = grade({**facts, item: fact(bad + 1, whole + 1)}, QUICK)
    assert Fraction(worse["score"]) <= score + Fraction(1, 100)
    better = grade({**facts, item: fact(bad, whole + 1)}, QUICK)
    points = line(before, item)["points"]
    if points is None or Fraction(points) > -100:
        assert Fraction(better["score"]) >= score - Fraction(1, 100)


@settings(max_examples=30, deadline=None)
@given(st.data())
def test_a_replay_gives_every_digit_again(data: st.DataObject) -> None:
    told = json.loads(json.dumps(grade(facts_of(data.draw, most=200))))
    again = replay(told)
    assert (again.faults, again.rules_known) == ((), True)
    assert (again.grade, again.score) == (told["grade"], told["score"])
    assert digest(compute(RULES, {}, operator_id="x", month=MONTH)) != digest(told)


def test_a_replay_names_every_figure_that_was_changed() -> None:
    told = grade({"coverage": fact(8, 100), "owed": fact(300, 900_000)})
    for path in (("score",), ("grade",), ("lines", 3, "points"), ("lines", 7, "rows")):
        changed = copy.deepcopy(told)
        place: Any = changed
        for step in path[:-1]:
            place = place[step]
        place[path[-1]] = "D" if path[-1] == "grade" else "99.99"
        found = replay(changed)
        assert [fault.partition(" ")[0] for fault in found.faults] == [".".join(map(str, path))]
    softer = copy.deepcopy(told)
    softer["rules"]["items"][0]["weight"] = "1"
    found = replay(softer)
    assert found.faults and not found.rules_known


def _broken(change: Any) -> dict[str, Any]:
    told: dict[str, Any] = json.loads(json.dumps(grade({"coverage": fact(8, 100)})))
    change(told)
    return told


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda t: t.pop("facts"), "facts"),
        (lambda t: t.update(form=2), "form 1"),
        (lambda t: t.update(month="2026-13"), "2026-13"),
        (lambda t: t["facts"]["coverage"].update(bad="8,0"), "8,0"),
        (lambda t: t["facts"]["coverage"].update(bad="-1"), "below 0"),
        (lambda t: t["facts"]["coverage"].update(bad=0.1), "quotation marks"),
        (lambda t: t["facts"]["coverage"].update(rows=True), "rows"),
        (lambda t: t.update(facts=[]), "facts"),
        (lambda t: t["rules"].pop("grades"), "grades"),
        (lambda t: t["rules"]["items"][0].update(points=[["0", "100"]]), "two pairs"),
        (
            lambda t: t["rules"]["items"][0].update(points=[["0", "100"], ["1", "100"]]),
            "points fall",
        ),
        (
            lambda t: t["rules"]["items"][0].update(
                points=[["0", "100"], ["0.1", "20"], ["1", "10"]]
            ),
            "steeply",
        ),
        (lambda t: t["rules"]["items"].append(t["rules"]["items"][0]), "once"),
        (lambda t: t["rules"].update(least_weight="101"), "least_weight"),
        (lambda t: t["rules"].update(valid_from="soon"), "read"),
        (lambda t: t["rules"].update(lowest_points="1"), "lowest_points"),
    ],
)
def test_a_file_that_is_none_is_told_why(change: Any, named: str) -> None:
    with pytest.raises(CreditError, match=named):
        replay(_broken(change))


def test_a_list_is_no_grade() -> None:
    with pytest.raises(CreditError, match="credit export"):
        replay([])


@pytest.mark.parametrize(
    ("bad", "count"), [(0, 1), (1, 1), (3, 30), (0, 500), (17, 400), (12, 12_000_000)]
)
def test_intervals_are_those_of_scipy(bad: int, count: int) -> None:
    low, high = exact_interval(Fraction(bad), Fraction(count))
    wanted_low = beta.ppf(0.025, bad, count - bad + 1) if bad else 0.0
    wanted_high = beta.ppf(0.975, bad + 1, count - bad) if bad < count else 1.0
    assert float(low) == pytest.approx(wanted_low, rel=1e-9, abs=1e-15)
    assert float(high) == pytest.approx(wanted_high, rel=1e-9, abs=1e-15)


@pytest.mark.parametrize(("bad", "count"), [("0.5", "3"), ("4", "3"), ("0", "0")])
def test_what_is_no_sample_has_no_interval(bad: str, count: str) -> None:
    with pytest.raises(CreditError, match="sample"):
        exact_interval(Fraction(bad), Fraction(count))


@given(st.fractions(min_value=-1000, max_value=1000), st.integers(0, 6))
def test_rounding_is_half_up_and_written_in_full(value: Fraction, decimals: int) -> None:
    found = rounded(value, decimals)
    assert found == Fraction(math.floor(value * 10**decimals + Fraction(1, 2)), 10**decimals)
    text = written(found, decimals)
    assert Fraction(text) == found
    assert len(text.partition(".")[2]) == decimals


def test_what_a_need_promises_comes_true() -> None:
    facts = {
        "inspections": fact(4, 41),
        "coverage": fact(30, 400),
        "rejected": fact(500, 100_000),
        "owed": fact("820.50", 900_000),
    }
    told = grade(facts)
    found = outlook(told)
    assert (found.grade, found.next_grade) == (told["grade"], "B")
    assert [need.gain for need in found.needs] == sorted(
        (need.gain for need in found.needs), reverse=True
    )
    tried = 0
    for need in found.needs:
        if need.count is None:
            continue
        known = facts[need.item]
        unit = Fraction(1, 100) if need.item == "owed" else Fraction(1)
        step = Fraction(str(need.count))
        for count, reached in ((step, True), (step - unit, False)):
            changed = (
                Fact(bad=known.bad, all=known.all + count, rows=1)
                if need.better == "more"
                else Fact(bad=known.bad - count, all=known.all, rows=1)
            )
            is_better = grade({**facts, need.item: changed})["grade"] == "B"
            assert is_better is reached, need
        tried += 1
    assert tried >= 2


def test_rule_sets_are_dated_and_the_months_before_the_first_have_none() -> None:
    assert [one.version for one in rule_sets()] == ["2026-01"]
    assert rules_for(date(2031, 1, 1)) is rule_sets()[-1]
    assert sum(one.weight for one in RULES.items) == 100
    with pytest.raises(CreditError, match="2026-01"):
        rules_for(date(2025, 12, 1))
    later = {**RULES.told, "version": "x", "valid_from": "2027-01-01"}
    assert read_rule_set(later).version == "x"
