"""An evidence file: equal when nothing was changed, and found when anything was."""

import io
import zipfile
from dataclasses import replace

import numpy as np
import pytest
from engine_city import make_city

from chargewatch.domain.signal import Severity, Signal
from chargewatch.domain.times import EPOCH
from chargewatch.risk.engine import assessed
from chargewatch.risk.excerpt import excerpt_of, replayed
from chargewatch.risk.results import EngineConfig
from chargewatch.runs.evidence.account import given_of
from chargewatch.runs.evidence.grounds import Books, Grounds, read, written
from chargewatch.runs.evidence.replay import computed_row, replay
from chargewatch.runs.owed import Amounts
from chargewatch.supervision.evidence import form
from chargewatch.supervision.evidence.form import EvidenceError, packed, unpacked

PILE = {"connector": "C1", "station_id": "S", "operator_id": "O"}
RUN = {"run_id": 7, "as_of": "2026-11-20T00:00:00+00:00", "result_digest": "ab", "version": "0"}
COUNTED = ("sessions", "unknown", "wide")
NO_MONEY = Amounts(
    **{name: np.array([0 if name in COUNTED else np.nan]) for name in Amounts.__dataclass_fields__}
)
FIGURES = ("relative_error", "standard_uncertainty", "p_nonconforming", "budget", "reason")


def grounds_of(course, row, *signals):
    books = Books(last_reading_s=1.0, recent_error=NO_MONEY, recent_billing=NO_MONEY)
    bare = Grounds(excerpt=excerpt_of(course, row), books=books, signals=signals, row={}, pile=PILE)
    return replace(bare, row=computed_row(bare))


@pytest.fixture(scope="module")
def course():
    return assessed(
        make_city(1, dc_stations=3, offenders=3, anchors=6).inputs, config=EngineConfig()
    )


@pytest.fixture(scope="module")
def file(course):
    result = course[0]
    red = int(np.argmax(np.abs(np.nan_to_num(result.relative_error))))
    return written(grounds_of(course[1], red), run=RUN)


def test_every_connector_of_a_city_is_computed_again_to_the_last_bit(course):
    result, whole = course
    for row in range(0, result.relative_error.size, 3):
        excerpt = excerpt_of(whole, row)
        again = replayed(excerpt)
        for name in FIGURES:
            one, other = getattr(result, name)[row], getattr(again, name)[excerpt.connector]
            same = one == other if name == "reason" else np.array_equal(one, other, equal_nan=True)
            assert same, (row, name)


def test_a_file_is_the_same_after_it_was_packed_and_read(file):
    content = packed(file)
    back = unpacked(content)
    assert back.digest == file.digest
    assert packed(back) == content
    again = replay(back)
    assert again.differs == ()
    assert again.computed["verdict"] == "nonconforming"
    assert again.same_programs
    assert set(given_of(read(back))) >= {"closed_days", "city", "others", "signals"}


def test_others_stand_in_it_without_names_and_times(course):
    excerpt = excerpt_of(course[1], 0)
    assert not excerpt.own.all()
    for name, own in zip(excerpt.inputs.fleet.connector, excerpt.own, strict=True):
        assert bool(name) == own
    away = ~excerpt.own[excerpt.statistics.sessions.connector]
    assert away.any()
    assert not excerpt.statistics.sessions.ended_s[away].any()
    assert not excerpt.statistics.sessions.started_s[away].any()


def test_a_severe_signal_makes_orange_and_its_loss_is_noticed(course):
    result, whole = course
    good = next(k for k, v in enumerate(result.verdict) if v == "conforming")
    signal = Signal(
        code="register_jump",
        severity=Severity.SEVERE,
        operator_id="O",
        station_id="S",
        connector="C1",
        first_at=EPOCH,
        last_at=EPOCH,
        count=1,
        value=3.0,
        limit=1.0,
        detail="",
        evidence={"subject": "connector:C1", "session": 2**60},
    )
    file = unpacked(packed(written(grounds_of(whole, good, signal), run=RUN)))
    assert replay(file).computed["tier"] == "orange"
    without = replace(file, manifest={**file.manifest, "signals": []})
    assert replay(without).differs == ("tier",)


EVIDENCE = (
    "excerpt/closed/feeders/0/vector",
    "excerpt/closed/sessions/log_ratio",
    "excerpt/inputs/fleet/mpe",
    "excerpt/inputs/references/standard_uncertainty",
    "excerpt/facts/misfit/0",
    "excerpt/known/weights/tail",
    "excerpt/known/spreads/session",
    "excerpt/whole/level",
    "excerpt/whole/level_covariance",
    "excerpt/held/population/spread",
)


@pytest.mark.parametrize("name", EVIDENCE)
def test_another_verdict_follows_from_other_evidence(file, name):
    arrays = dict(file.arrays)
    arrays[name] = arrays[name] * 1.5
    again = replay(replace(file, arrays=arrays))
    assert again.differs
    assert not again.holds


@pytest.mark.parametrize("name", EVIDENCE)
def test_a_changed_byte_is_named(file, name):
    told = next(one for one in file.manifest["arrays"] if one["name"] == name)
    parts = parts_of(file)
    content = bytearray(parts[form.ARRAYS])
    content[told["begin"]] ^= 1
    with pytest.raises(EvidenceError, match=f"the array '{name}' was changed"):
        unpacked(zipped({**parts, form.ARRAYS: bytes(content)}))


def test_other_programs_may_differ_in_last_digits_and_in_nothing_else(file):
    row = dict(file.manifest["row"])
    near = {**row, "relative_error": row["relative_error"] * (1 + 1e-12)}
    old = {**file.manifest["made_with"], "numpy": "1.0"}

    def told(row, made_with):
        return replay(replace(file, manifest={**file.manifest, "row": row, "made_with": made_with}))

    assert not told(near, file.manifest["made_with"]).holds
    elsewhere = told(near, old)
    assert elsewhere.holds
    assert elsewhere.other == {"numpy": ("1.0", np.__version__)}
    assert elsewhere.largest == pytest.approx(1e-12, rel=0.01)
    assert not told({**row, "relative_error": row["relative_error"] * 1.01}, old).holds
    assert not told({**row, "tier": "green"}, old).holds


def parts_of(file):
    with zipfile.ZipFile(io.BytesIO(packed(file))) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def zipped(parts):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in parts.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def manifest_with(file, old, new):
    parts = parts_of(file)
    changed = parts[form.MANIFEST].replace(old, new, 1)
    assert changed != parts[form.MANIFEST]
    return zipped({**parts, form.MANIFEST: changed})


@pytest.fixture(scope="module")
def hostile(file):
    parts = parts_of(file)
    whole = packed(file)
    return {
        "no_zip": (b"hello", "no ZIP"),
        "empty": (b"", "no ZIP"),
        "cut_off": (whole[: len(whole) // 2], "no ZIP"),
        "no_manifest": (zipped({form.ARRAYS: b""}), "has no manifest.json"),
        "no_arrays": (zipped({form.MANIFEST: parts[form.MANIFEST]}), "has no arrays.bin"),
        "other_part": (zipped({**parts, "../evil": b""}), "and no others"),
        "bomb": (zipped({**parts, form.ARRAYS: bytes(50_000_000)}), "would unpack"),
        "no_json": (zipped({**parts, form.MANIFEST: b"{"}), "is no JSON"),
        "nan": (zipped({**parts, form.MANIFEST: b'{"a": NaN}'}), "is no JSON"),
        "list": (zipped({**parts, form.MANIFEST: b"[]"}), "does not say"),
        "other_format": (manifest_with(file, b"chargewatch-evidence", b"x"), "does not say"),
        "version": (manifest_with(file, b'"version":1}', b'"version":9}'), "of version 9"),
        "huge": (manifest_with(file, b'"shape":[', b'"shape":[99999999,'), "ends within"),
        "negative": (manifest_with(file, b'"shape":[', b'"shape":[-1,'), "no possible array"),
        "object": (manifest_with(file, b'"dtype":"<f8"', b'"dtype":"|O8"'), "no possible array"),
        "longer": (zipped({**parts, form.ARRAYS: parts[form.ARRAYS] + b"0"}), "is longer"),
    }


@pytest.mark.parametrize(
    "name",
    [
        *("no_zip", "empty", "cut_off", "no_manifest", "no_arrays", "other_part", "bomb"),
        *("no_json", "nan", "list", "other_format", "version", "huge", "negative", "object"),
        "longer",
    ],
)
def test_a_hostile_file_gets_an_error_that_says_what_is_wrong(hostile, name):
    content, words = hostile[name]
    with pytest.raises(EvidenceError, match=words):
        unpacked(content)


def test_missing_and_unfit_parts_are_named(file):
    values = {k: v for k, v in file.manifest["values"].items() if k != "excerpt/rounds"}
    with pytest.raises(EvidenceError, match="lacks the value 'excerpt/rounds'"):
        replay(replace(file, manifest={**file.manifest, "values": values}))
    arrays = {k: v for k, v in file.arrays.items() if k != "excerpt/own"}
    with pytest.raises(EvidenceError, match="lacks the array 'excerpt/own'"):
        replay(replace(file, arrays=arrays))
    wrong = {**file.arrays, "excerpt/own": np.zeros(3)}
    with pytest.raises(EvidenceError, match="holds float64"):
        replay(replace(file, arrays=wrong))
    short = {**file.arrays, "excerpt/own": file.arrays["excerpt/own"][:1]}
    with pytest.raises(EvidenceError, match="don't fit together"):
        replay(replace(file, arrays=short))
    lost = {**file.arrays, "excerpt/whole/level": file.arrays["excerpt/whole/level"] * np.nan}
    again = replay(replace(file, arrays=lost))
    assert again.differs
    assert not again.holds
