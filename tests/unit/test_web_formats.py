from __future__ import annotations

import math
from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest

from chargewatch.web.formats import MINUS, NARROW, UNKNOWN, Formats
from chargewatch.web.interval_bar import SPAN_MPE, WIDTH, interval_bar
from chargewatch.web.language import Translator

NOW = datetime(2026, 3, 1, 4, 0, tzinfo=UTC)


@pytest.fixture
def f() -> Formats:
    return Formats(t=Translator("en"), zone=ZoneInfo("Asia/Shanghai"), currency="CNY", now=NOW)


def plain(text: str) -> str:
    return text.replace(NARROW, " ").replace(MINUS, "-")


@pytest.mark.parametrize(
    ("error", "u", "written"),
    [
        (0.031, 0.002, "+3.1 % ± 0.4 %"),
        (-0.0204, 0.0006, "-2.04 % ± 0.12 %"),
        (0.5, 0.06, "+50 % ± 12 %"),
        (-0.00001, 0.002, "0.0 % ± 0.4 %"),
        (0.01, math.nan, "+1.00 %"),
        (math.nan, 0.002, UNKNOWN),
        (None, None, UNKNOWN),
    ],
)
def test_error_has_sign_unit_and_the_digits_of_its_uncertainty(
    f: Formats, error: float | None, u: float | None, written: str
) -> None:
    assert plain(f.error(error, u)) == written


def test_probability_is_never_a_false_certainty(f: Formats) -> None:
    assert plain(f.probability(0.99999)) == "> 99.9 %"
    assert plain(f.probability(1e-9)) == "< 0.1 %"
    assert plain(f.probability(0.5)) == "50.0 %"
    assert f.probability(math.nan) == UNKNOWN


def test_unknown_figures_are_dashes_never_zero(f: Formats) -> None:
    for write in (f.money, f.integer, f.kilowatt_hours, f.percent, f.number, f.signed_percent):
        assert write(math.nan) == UNKNOWN
        assert write(None) == UNKNOWN
    assert f.time(None) == UNKNOWN
    assert f.day(None) == UNKNOWN


def test_times_are_in_the_stated_zone(f: Formats) -> None:
    assert f.time(NOW) == "2026-03-01 12:00"
    assert f.zone_name == "Asia/Shanghai (UTC+08:00)"
    assert f.day(date(2026, 3, 1)) == "2026-03-01"


@pytest.mark.parametrize(
    ("seconds", "age"),
    [
        (5, "just now"),
        (120, "2 min ago"),
        (3 * 3600, "3 h ago"),
        (47 * 3600, "47 h ago"),
        (3 * 86_400, "3 days ago"),
        (-600, "ahead of our clock"),
    ],
)
def test_ages_use_the_largest_unit_that_fits(f: Formats, seconds: float, age: str) -> None:
    assert f.age(NOW - timedelta(seconds=seconds)) == age


def test_stale_is_old_or_missing(f: Formats) -> None:
    assert f.is_stale(None)
    assert f.is_stale(NOW - timedelta(hours=2))
    assert not f.is_stale(NOW - timedelta(minutes=2))


def test_interval_bar_places_error_and_limits() -> None:
    bar = interval_bar(0.02, 0.002, 0.01)
    assert bar is not None
    assert bar.centre == WIDTH / 2
    assert bar.mpe_high - bar.centre == pytest.approx(bar.centre - bar.mpe_low)
    # Two MPE lie twice as far from the middle as one; 2 u = 0.4 MPE on either side.
    unit = bar.mpe_high - bar.centre
    assert bar.error - bar.centre == pytest.approx(2 * unit, abs=0.11)
    assert bar.high - bar.error == pytest.approx(0.4 * unit, abs=0.11)
    assert bar.beyond == 0


def test_interval_bar_keeps_far_errors_at_the_edge() -> None:
    far = interval_bar(-0.5, 0.001, 0.01)
    assert far is not None
    assert far.beyond == -1
    assert 0 <= far.low <= far.error <= WIDTH
    assert interval_bar(0.01 * SPAN_MPE * 1.1, 0.001, 0.01).beyond == 1  # type: ignore[union-attr]


def test_no_interval_bar_without_a_figure() -> None:
    assert interval_bar(math.nan, 0.1, 0.01) is None
    assert interval_bar(0.1, None, 0.01) is None
    assert interval_bar(0.1, 0.1, 0.0) is None
