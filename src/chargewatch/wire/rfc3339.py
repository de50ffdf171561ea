"""Times of the wire (RFC 3339 with an offset) as microseconds since 1970-01-01T00:00Z.

The hot path adds two cached parts of the text: date, hour and minute; seconds and offset. Whatever
is not in the caches goes through the exact grammar.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import date, datetime

from chargewatch.domain.times import moment_of
from chargewatch.wire.rejection import (
    IN_FUTURE,
    INVALID_FIELD,
    NAIVE_TIME,
    TOO_OLD,
    RejectedItem,
    shown,
)

_TIME = re.compile(
    r"([0-9]{4})-([0-9]{2})-([0-9]{2})[Tt ]([0-9]{2}):([0-9]{2}):([0-9]{2})"
    r"(?:\.([0-9]{1,64}))?([Zz]|[+-][0-9]{2}:[0-9]{2})?"
)
_EPOCH_DAY = date(1970, 1, 1).toordinal()
_MINUTE_US = 60_000_000
_LAST_YEAR = 9999
_END_US = (date(_LAST_YEAR, 12, 31).toordinal() + 1 - _EPOCH_DAY) * 1440 * _MINUTE_US
_CACHE_SIZE = 50_000

_minutes: dict[str, int] = {}
_tails: dict[str, int] = {}


def _offset_us(text: str) -> int:
    if text in "Zz":
        return 0
    hours, minutes = int(text[1:3]), int(text[4:6])
    if hours > 23 or minutes > 59:
        raise ValueError("has an offset out of range")
    value = (hours * 60 + minutes) * _MINUTE_US
    return -value if text[0] == "-" else value


def _exact(text: str) -> int:
    """Return the microseconds of a time.

    Raises: ValueError with words, LookupError when naive, OverflowError after the year 9999 in UTC.
    """
    match = _TIME.fullmatch(text)
    if match is None:
        raise ValueError("is not an RFC 3339 time")
    year, month, day, hour, minute, second = (int(match[i]) for i in range(1, 7))
    if hour > 23 or minute > 59 or second > 60:
        raise ValueError("is not a time of day")
    days = date(year, month, day).toordinal() - _EPOCH_DAY
    if match[8] is None:
        raise LookupError
    # More digits than microseconds are cut off, not rounded: a time never moves forward.
    fraction_us = int((match[7] or "0")[:6].ljust(6, "0"))
    offset_us = _offset_us(match[8])
    minute_us = ((days * 24 + hour) * 60 + minute) * _MINUTE_US
    value = minute_us + second * 1_000_000 + fraction_us - offset_us
    if value >= _END_US:
        raise OverflowError
    if second == 60:
        # A leap second is the last of a day in UTC; it is kept as the first of the next day.
        if (value - fraction_us) % (1440 * _MINUTE_US):
            raise ValueError("has second 60 where there is no leap second")
        return value
    if year < _LAST_YEAR:
        _remember(text, minute_us, value - minute_us)
    return value


def _remember(text: str, minute_us: int, tail_us: int) -> None:
    if len(_minutes) >= _CACHE_SIZE:
        _minutes.clear()
    if len(_tails) >= _CACHE_SIZE:
        _tails.clear()
    _minutes[text[:16]] = minute_us
    if len(text) <= 32:
        _tails[text[16:]] = tail_us


def parse_time(value: object, path: str) -> int:
    """Return a time as microseconds since 1970-01-01T00:00Z.

    Raises: RejectedItem with naive_time or invalid_field; `path` names the field in the detail.
    """
    if type(value) is not str:
        raise RejectedItem(INVALID_FIELD, f"{path} is not a time: {shown(value)}")
    try:
        return _minutes[value[:16]] + _tails[value[16:]]
    except KeyError:
        return _parse_odd(value, path)


def _parse_odd(value: str, path: str) -> int:
    try:
        return _exact(value)
    except LookupError:
        raise RejectedItem(NAIVE_TIME, f"{path} has no UTC offset") from None
    except OverflowError:
        raise RejectedItem(IN_FUTURE, f"{path} is after the year {_LAST_YEAR}") from None
    except ValueError as exc:
        raise RejectedItem(INVALID_FIELD, f"{path}: {shown(value)} {exc}") from None


def parse_times(values: Sequence[str]) -> list[int]:
    """Return many times at once; any odd one raises RejectedItem without naming its place."""
    minutes, tails = _minutes, _tails
    try:
        return [minutes[value[:16]] + tails[value[16:]] for value in values]
    except KeyError:
        return [parse_time(value, "at") for value in values]


def moment(time_us: int, path: str) -> datetime:
    """Return a time of the wire as datetime; RejectedItem (too_old) before 1970."""
    if time_us < 0:
        raise RejectedItem(TOO_OLD, f"{path} is before 1970")
    return moment_of(time_us)
