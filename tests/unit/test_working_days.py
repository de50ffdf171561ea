"""Working days against a calendar that was made by hand, and the clocks of complaints."""

from __future__ import annotations

from datetime import date, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chargewatch.domain.working_days import calendars
from chargewatch.supervision.complaints.clocks import (
    NoClocksError,
    all_clocks,
    clocks_named,
    clocks_on,
)

CN = calendars()["CN"]
# Every week of 2026 that is not five days from Monday on; 1 is a working day. Made by hand from
# the notice of 2025-11-04, not by a program.
BY_HAND = {
    "2025-12-29": "1110001",  # New Year; of 2025 nothing is known, its days are plain ones
    "2026-02-09": "1111110",  # Saturday 14 February is worked
    "2026-02-16": "0000000",  # Spring Festival
    "2026-02-23": "0111110",  # to the 23rd; Saturday 28 February is worked
    "2026-04-06": "0111100",  # Qingming, Saturday to Monday
    "2026-04-27": "1111000",  # Labour Day, 1 May is a Friday
    "2026-05-04": "0011110",  # to the 5th; Saturday 9 May is worked
    "2026-06-15": "1111000",  # Dragon Boat, Friday to Sunday
    "2026-09-14": "1111101",  # Sunday 20 September is worked
    "2026-09-21": "1111000",  # Mid-Autumn, Friday to Sunday
    "2026-09-28": "1110000",  # National Day, 1 October is a Thursday
    "2026-10-05": "0001110",  # to the 7th; Saturday 10 October is worked
}


def test_2026_is_as_the_state_council_announced() -> None:
    weeks = {}
    monday = date(2025, 12, 29)
    while monday < date(2026, 12, 28):
        days = (CN.is_worked(monday + timedelta(days=n)) for n in range(7))
        week = "".join("01"[worked] for worked in days)
        if week != "1111100":
            weeks[monday.isoformat()] = week
        monday += timedelta(days=7)
    assert weeks == BY_HAND


def test_free_and_worked_days_of_a_year_lie_in_it_and_differ_from_the_week() -> None:
    for calendar in calendars().values():
        for year, days in calendar.years.items():
            assert days.source
            assert {day.year for day in days.free | days.worked} == {year}
            assert not days.free & days.worked
            assert all(day.isoweekday() > 5 for day in days.worked)


@pytest.mark.parametrize(
    ("received", "accept_by"),
    [
        ("2026-03-02", "2026-03-11"),  # a plain Monday
        ("2026-02-10", "2026-02-26"),  # over Spring Festival: 11-14, 24-26
        ("2026-02-14", "2026-03-03"),  # on a worked Saturday: 24-28, 2, 3
        ("2026-09-30", "2026-10-15"),  # over National Day: 8-10, 12-15
        ("2026-10-03", "2026-10-15"),  # in it: the same
        ("2026-12-31", "2027-01-11"),  # into a year that nobody has announced
    ],
)
def test_seven_working_days_by_hand(received: str, accept_by: str) -> None:
    clocks = clocks_on(date.fromisoformat(received))
    assert clocks.accept_by(date.fromisoformat(received)) == date.fromisoformat(accept_by)


def test_an_unknown_year_counts_weekends_alone_and_is_told() -> None:
    assert CN.unknown_years(date(2026, 12, 30), date(2027, 1, 5)) == (2027,)
    assert CN.unknown_years(date(2026, 1, 1), date(2026, 12, 31)) == ()
    # A Friday that will surely be free, and that nothing here knows of.
    assert CN.is_worked(date(2027, 10, 1))
    assert not CN.is_worked(date(2027, 10, 2))


@given(st.dates(date(2020, 1, 1), date(2030, 1, 1)), st.integers(1, 60))
def test_the_nth_working_day_has_so_many_before_it(day: date, n: int) -> None:
    last = CN.after(day, n)
    assert CN.is_worked(last)
    span = (day + timedelta(days=k + 1) for k in range((last - day).days))
    assert sum(CN.is_worked(one) for one in span) == n


def test_no_working_day_is_none() -> None:
    with pytest.raises(ValueError, match="at least 1"):
        CN.after(date(2026, 1, 1), 0)


def test_clocks_are_dated_data_with_their_source() -> None:
    for clocks in all_clocks():
        assert clocks_named(clocks.name) is clocks
        assert clocks.certainty in {"S1", "S2", "M"}
        assert clocks.source.startswith("https://")
        assert set(clocks.clauses) == {"accept", "end", "notify"}
        assert clocks.days is calendars()[clocks.calendar]
    with pytest.raises(NoClocksError, match="2019-12-31"):
        clocks_on(date(2019, 12, 31))
    with pytest.raises(NoClocksError, match="NOPE"):
        clocks_named("NOPE")
