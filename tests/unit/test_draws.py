"""Inspection draws: what is frozen, what is drawn, and that a stranger finds every change."""

from __future__ import annotations

import hashlib
import json
import math
import random
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

import pytest
from scipy import stats

from chargewatch.draws.draw import Throw, drawn, seed_of
from chargewatch.draws.frame import DrawError, Frame, Inspector, Pile, list_hash, read_frame

FROZEN = datetime(2026, 12, 1, 9, tzinfo=UTC)


def frame_of(weights: list[str], *, uniform: str = "0", crew: int = 0) -> Frame:
    return Frame(
        draw="2026-12",
        frozen_at=FROZEN,
        crew=crew,
        uniform=Decimal(uniform),
        piles=tuple(
            Pile(
                name=f"OP{k % 3}-S{k // 4}-{k:05d}",
                weight=Decimal(weight),
                operator=f"OP{k % 3}",
                station=f"S{k // 4}",
                why="red, last verified 2023-05",
            )
            for k, weight in enumerate(weights)
        ),
        inspectors=(
            Inspector(name="li", recused=frozenset({"OP0", "OP1"})),
            Inspector(name="wang"),
            Inspector(name="zhao", recused=frozenset({"OP2"})),
            Inspector(name="chen"),
        ),
    )


def names(frame: Frame, seed: str, size: int) -> list[str]:
    return [one.pile.name for one in drawn(frame, seed=seed, size=size)]


def test_a_list_has_one_text_whatever_the_order_of_its_rows_and_reads_back() -> None:
    frame = frame_of(["1.50", "2", "0.25", "3"], uniform="0.2", crew=2)
    shuffled = replace(
        frame,
        piles=frame.piles[::-1],
        inspectors=(frame.inspectors[2], *frame.inspectors[:2], frame.inspectors[3]),
    )
    assert shuffled.text() == frame.text()
    again = read_frame(frame.text())
    assert again.text() == frame.text()
    assert again.piles[0].weight == Decimal("1.5")
    assert list_hash(frame.text()) == hashlib.sha256(frame.text().encode()).hexdigest()


@pytest.mark.parametrize(
    ("old", "new", "named"),
    [
        ("draw list 1", "draw list 2", "line 1"),
        ("crew\t2", "crew\t-2", "line 4"),
        ("uniform\t0.2", "uniform\t1.2", "line 5"),
        ("piles\t4", "piles\t5", "line 1"),
        ("piles\t4", "piles\t3", "line 10"),
        ("1.5\tOP0", "1.50\tOP0", "line 7"),
        ("1.5\tOP0", "nan\tOP0", "line 7"),
        ("1.5\tOP0", "1e3\tOP0", "line 7"),
        ("OP1-S0-00001", "OP0-S0-00000", "twice"),
        ("OP1-S0-00001", "OP9-S0-00001", "order"),
        ("wang\t-\n", "wang\t-\nwang\t-\n", "more lines"),
        ("zhao\tOP2\n", "zhao\tOP2", "line feed"),
    ],
)
def test_a_list_that_is_not_one_is_refused_with_its_line(old: str, new: str, named: str) -> None:
    text = frame_of(["1.5", "2", "0.25", "3"], uniform="0.2", crew=2).text()
    assert old in text
    with pytest.raises(DrawError, match=named):
        read_frame(text.replace(old, new, 1))


def test_a_name_that_would_break_the_list_is_refused() -> None:
    for name in ("", "-", "a b", "a\tb", "a|b", "a\nb"):
        pile = replace(frame_of(["1"]).piles[0], name=name)
        with pytest.raises(DrawError, match="name of a pile"):
            replace(frame_of(["1"]), piles=(pile,)).text()


def test_tickets_are_what_sha256sum_prints_and_order_by_minus_log_over_weight() -> None:
    frame, seed = frame_of(["1", "2", "4", "8", "0.5", "3"]), "31415926535897932384"
    order = {}
    for pile in frame.piles:
        said = subprocess.run(
            ["sha256sum"],
            input=f"pile-weighted|2026-12|{seed}|{pile.name}",
            capture_output=True,
            text=True,
            check=True,
        ).stdout.split()[0]
        fraction = (int(said, 16) + 0.5) / 2**256
        order[pile.name] = -math.log(fraction) / float(pile.weight)
    found = drawn(frame, seed=seed, size=6)
    assert [one.pile.name for one in found] == sorted(order, key=order.__getitem__)
    for one in found:
        assert float(one.key) == pytest.approx(order[one.pile.name], rel=1e-9)


def test_a_larger_draw_holds_the_smaller_one_in_its_order() -> None:
    rng = random.Random(5)
    frame = frame_of([str(rng.choice([1, 2, 5, 9])) for _ in range(60)], uniform="0.3", crew=1)
    whole = drawn(frame, seed="27182818284590452353", size=60)
    for size in range(1, 60):
        part = drawn(frame, seed="27182818284590452353", size=size)
        assert [(o.pile.name, o.inspectors) for o in part] == [
            (o.pile.name, o.inspectors) for o in whole[:size]
        ]
        assert sum(one.uniform for one in part) >= math.ceil(0.3 * size)


def test_ten_thousand_draws_match_the_weights() -> None:
    weights = ["1", "2", "3", "4", "10", "0"]
    frame, draws = frame_of(weights), 10_000
    first: Counter[str] = Counter()
    second: Counter[str] = Counter()
    for k in range(draws):
        order = names(frame, f"{k:020d}", 2)
        first[order[0]] += 1
        second[order[1]] += 1
    parts = [float(w) for w in weights[:5]]
    total = sum(parts)
    piles = [one.name for one in frame.piles]
    expected = [draws * w / total for w in parts]
    assert stats.chisquare([first[p] for p in piles[:5]], expected).pvalue > 1e-4
    # The second is drawn in proportion to the weights of those that are left.
    after = [
        draws * sum(parts[i] / total * parts[j] / (total - parts[i]) for i in range(5) if i != j)
        for j in range(5)
    ]
    assert stats.chisquare([second[p] for p in piles[:5]], after).pvalue > 1e-4
    assert piles[5] not in first | second


def test_the_uniform_part_draws_the_same_share_of_heavy_and_light_piles() -> None:
    frame, draws = frame_of(["1", "1", "100", "100"], uniform="0.5"), 4_000
    uniform: Counter[str] = Counter()
    for k in range(draws):
        for one in drawn(frame, seed=f"{k:020d}", size=2):
            uniform[one.pile.name] += one.uniform
    assert sum(uniform.values()) == draws
    assert stats.chisquare([uniform[one.name] for one in frame.piles]).pvalue > 1e-4


def test_inspectors_are_never_sent_to_whom_they_are_recused_and_share_the_work() -> None:
    frame = frame_of(["1"] * 60, crew=2)
    load: Counter[str] = Counter()
    for one in drawn(frame, seed="31415926535897932384", size=60):
        assert len(set(one.inspectors)) == 2
        for name in one.inspectors:
            assert one.pile.operator not in next(
                i.recused for i in frame.inspectors if i.name == name
            )
            load[name] += 1
    assert sum(load.values()) == 120
    assert load["wang"] - load["chen"] in (-1, 0, 1)
    with pytest.raises(DrawError, match="needs 4 inspectors"):
        drawn(replace(frame, crew=4), seed="31415926535897932384", size=60)


def test_one_witness_or_few_dice_make_no_seed() -> None:
    good = (Throw(witness="wu", digits="3141592653"), Throw(witness="he", digits="2718281828"))
    assert seed_of(good) == "31415926532718281828"
    assert seed_of(good, "abc") == "31415926532718281828|abc"
    for throws, named in (
        (good[:1], "two different"),
        ((good[0], replace(good[0], digits="1111111111")), "two different"),
        ((good[0], replace(good[1], digits="271828182")), "9 dice"),
        ((good[0], replace(good[1], digits="271828182x")), "digits only"),
        ((good[0], replace(good[1], digits="２７１８２８１８２８")), "digits only"),
    ):
        with pytest.raises(DrawError, match=named):
            seed_of(throws)


def chargewatch(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "chargewatch", *arguments],
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture
def published(tmp_path: Path) -> Path:
    listed, out = tmp_path / "list.txt", tmp_path / "draw.json"
    listed.write_bytes(
        frame_of(["1", "2", "3", "4", "5"] * 8, uniform="0.2", crew=2).text().encode()
    )
    made = chargewatch(
        "draw",
        "make",
        str(listed),
        "--size",
        "12",
        "--published",
        "2026-12-01T10:00:00+0000",
        "--throw",
        "wu=3141592653",
        "--throw",
        "he=2718281828",
        "--out",
        str(out),
    )
    assert made.returncode == 0, made.stderr
    # As if thrown on the day itself.
    bundle = json.loads(out.read_text())
    for throw in bundle["throws"]:
        throw["at"] = "2026-12-01T11:00:00Z"
    out.write_text(json.dumps(bundle))
    return out


def test_a_published_draw_verifies_by_the_command_and_every_change_is_found(
    published: Path,
) -> None:
    good = chargewatch("draw", "verify", str(published), "--json")
    assert good.returncode == 0, good.stdout + good.stderr
    assert json.loads(good.stdout)["holds"] is True
    bundle = json.loads(published.read_text())
    changes = {
        "another pile": lambda b: b["drawn"][3].update(pile=b["drawn"][4]["pile"]),
        "another inspector": lambda b: b["drawn"][0].update(inspectors=["chen", "chen"]),
        "a pile left out": lambda b: b["drawn"].pop(),
        "another size": lambda b: b.update(size=11),
        "another die": lambda b: b["throws"][0].update(digits="3141592654"),
        "another weight": lambda b: b.update(
            list_text=b["list_text"].replace("\t5\tOP1", "\t50\tOP1", 1)
        ),
        "dice before the list": lambda b: b["throws"][1].update(at="2026-12-01T09:30:00Z"),
        "a beacon": lambda b: b.update(beacon="1"),
    }
    for what, change in changes.items():
        bad = json.loads(json.dumps(bundle))
        change(bad)
        published.write_text(json.dumps(bad))
        found = chargewatch("draw", "verify", str(published))
        assert found.returncode == 1, what
        assert "FAILS" in found.stdout, what
        assert "does not hold" in found.stdout, what


def test_a_list_swapped_whole_is_found_by_the_hash_that_was_published(published: Path) -> None:
    told = json.loads(published.read_text())["list_sha256"]
    assert chargewatch("draw", "verify", str(published), "--published-hash", told).returncode == 0
    other = chargewatch("draw", "verify", str(published), "--published-hash", "0" * 64)
    assert other.returncode == 1
    assert "you saw" in other.stdout


def test_what_is_no_draw_is_refused_with_its_place(tmp_path: Path) -> None:
    for content, named in (
        (b"", "the file"),
        (b"{}", "format"),
        (b"\xff\xfe", "the file"),
        (b'{"format": "chargewatch draw 1"}', "list_text"),
    ):
        path = tmp_path / "x.json"
        path.write_bytes(content)
        found = chargewatch("draw", "verify", str(path))
        assert found.returncode == 1
        assert "not the file of a draw" in found.stderr
        assert named in found.stderr


def test_plans_and_claims_are_told_by_the_command(published: Path, tmp_path: Path) -> None:
    plan = json.loads(chargewatch("draw", "plan", "--lot", "1000", "--json").stdout)
    assert (plan["size"], plan["allowed"]) == (86, 2)
    assert chargewatch("draw", "plan", "--lot", "9", "--limiting", "0").returncode == 1
    results = tmp_path / "results.csv"
    drawn_piles = json.loads(published.read_text())["drawn"]
    uniform = [one["pile"] for one in drawn_piles if one["part"] == "uniform"]
    assert len(uniform) >= 3
    # The second has no result: what comes behind it does not count yet.
    results.write_text(f"{uniform[0]},nonconforming\n{uniform[2]},nonconforming\n")
    open_ = json.loads(
        chargewatch("draw", "stand", str(published), "--results", str(results), "--json").stdout
    )
    assert (open_["inspected"], open_["outcome"]) == (1, "open")
    results.write_text("".join(f"{name}, nonconforming\n" for name in uniform))
    said = chargewatch("draw", "stand", str(published), "--results", str(results))
    assert said.stdout.startswith("refuted: 3 of 3"), said.stderr
    for wrong, named in (
        ("x,conforming\n", "was not drawn"),
        (f"{uniform[0]},good\n", "line 1"),
        (f"{uniform[0]},conforming\n" * 2, "line 2"),
    ):
        results.write_text(wrong)
        said = chargewatch("draw", "stand", str(published), "--results", str(results))
        assert said.returncode == 1
        assert named in said.stderr
