"""Values of cells: what their column makes of them, and what was told about it.

Every function takes a value as it stands in the file (text, a JSON value, a cell of a sheet) and
pydantic's information, whose context is the `CurrentRow` of the row. What is certain is taken and
told; what isn't raises ValueError with the reason.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import Literal
from zoneinfo import ZoneInfo

from pydantic import ValidationInfo

from chargewatch.domain.identity import name_fault
from chargewatch.domain.mpe import read_accuracy_class
from chargewatch.domain.signing_key import SigningKeyError, read_signing_key
from chargewatch.domain.times import DAY_S
from chargewatch.wire.registry.json_text import JsonTextError, decoder
from chargewatch.wire.registry.notes import Notes

# A spreadsheet keeps 15 digits of a number.
MAX_DIGITS = 15
MAX_PRICE_LENGTH = 30
# Between 1950 and 2100 a plain number in a column of dates is a spreadsheet's date.
FIRST_SERIAL, LAST_PLAIN_SERIAL, LAST_SERIAL = 18_264, 73_050, 2_958_465
DAYS_OF_1904 = 1_462

_ERROR_VALUE = re.compile(r"#(N/A|REF!|VALUE!|DIV/0!|NAME\?|NUM!|NULL!|SPILL!|CALC!|[A-Z_]+!|#+)")
_ROUNDED = re.compile(r"[+-]?\d(?:\.\d+)?[eE][+]\d{1,3}")
_QUOTED_FORMULA = re.compile(r'="([^"]*)"')
_NUMBER = re.compile(r"[+-]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d{1,3})?")
_GROUPED = re.compile(r"[+-]?(?:\d{1,3}(?:,\d{3}){2,}(?:\.\d+)?|\d{1,3},\d{3}\.\d+)")
_POINT_GROUPED = re.compile(r"[+-]?(?:\d{1,3}(?:\.\d{3}){2,}(?:,\d+)?|\d{1,3}\.\d{3},\d+)")
_COMMA_DECIMAL = re.compile(r"([+-]?\d+),(\d+)")
_AMBIGUOUS = re.compile(r"[+-]?[1-9]\d{0,2},\d{3}")
_DATE = re.compile(
    r"(\d{4})(?:([-/.])(\d{1,2})\2(\d{1,2})|年(\d{1,2})月(\d{1,2})日|(\d{2})(\d{2})(?!\d))"
)
_ISO_DATE = re.compile(r"\d{4}-\d{2}-\d{2}")
_MIDNIGHT = re.compile(r"[T ]0{1,2}:00(?::00(?:\.0+)?)?")
_TIME = re.compile(r"[T ]+(\d{1,2}):(\d{2})(?::(\d{2})(?:\.(\d{1,6}))?)?")
_OFFSET = re.compile(r"\s*(?:[Zz]|([+-])(\d{2}):?(\d{2}))$")

_HALF_WIDTH = {code: code - 0xFEE0 for code in range(0xFF01, 0xFF5F)} | {0x3000: 0x20}
_CODE_WIDTH = {
    code: narrow
    for code, narrow in _HALF_WIDTH.items()
    if chr(narrow).isalnum() or narrow in b"-_./"
}


@dataclass(frozen=True, slots=True)
class SheetNumber:
    """A number in a cell of a sheet: as it stands in the file, and what its format shows."""

    text: str
    kind: Literal["plain", "date", "percent"] = "plain"
    width: int = 0
    is_1904: bool = False

    def __str__(self) -> str:
        """Return the number as it stands in the file."""
        return self.text


@dataclass(frozen=True, slots=True)
class Formula:
    """A formula in a cell of a sheet."""

    text: str

    def __str__(self) -> str:
        """Return the formula as a sheet shows it."""
        return f"={self.text}"


@dataclass(frozen=True)
class CurrentRow:
    """The row that is read, for what is told about its cells."""

    file: str
    line: int
    notes: Notes
    zone: ZoneInfo

    def tell(self, column: str | None, what: str, given: object, taken: object = "") -> None:
        """Note how a cell was understood."""
        self.notes.tell_value(
            (self.file, self.line, column or "?"), what, given=shown(given), taken=str(taken)[:60]
        )


def shown(value: object) -> str:
    """Return a value as it is quoted in a message."""
    if isinstance(value, str):
        return repr(value[:60])
    return str(value)[:60]


def is_blank(value: object) -> bool:
    """Whether a cell holds nothing: null, or text without a visible character."""
    return value is None or (isinstance(value, str) and not strip(value))


def strip(text: str) -> str:
    """Return a text without what can't be seen at its ends: blanks of all kinds, controls."""
    if text.isprintable():
        return text.strip()
    start, end = 0, len(text)
    while start < end and _is_unseen(text[start]):
        start += 1
    while end > start and _is_unseen(text[end - 1]):
        end -= 1
    return text[start:end]


def _is_unseen(character: str) -> bool:
    return character.isspace() or unicodedata.category(character) in {"Cc", "Cf"}


def _tell(info: ValidationInfo, what: str, given: object, taken: object = "") -> None:
    reading = info.context
    if isinstance(reading, CurrentRow):
        reading.tell(info.field_name, what, given, taken)


def _text_of(value: object, info: ValidationInfo) -> str:
    """Return the text of a cell that stands for itself, stripped.

    Raises: ValueError for formulas, error values, and what is no text.
    """
    if isinstance(value, Formula):
        raise ValueError("holds a formula: copy the column and paste it as values")
    if not isinstance(value, str):
        raise ValueError("is not text")
    text = strip(value)
    if text.startswith("="):
        quoted = _QUOTED_FORMULA.fullmatch(text)
        if quoted is None:
            raise ValueError("holds a formula: give its value")
        _tell(info, "text in the form of a formula was taken", text, quoted[1])
        text = strip(quoted[1])
    if _ERROR_VALUE.fullmatch(text):
        raise ValueError("is the error value of a spreadsheet: mend the cell")
    for character in text if not text.isprintable() else "":
        if character not in "\t\r\n" and unicodedata.category(character) in {"Cc", "Cs"}:
            raise ValueError(f"holds the control character U+{ord(character):04X}")
    return text


def _narrow(text: str, info: ValidationInfo, table: Mapping[int, int] = _HALF_WIDTH) -> str:
    narrow = text if text.isascii() else text.translate(table).strip()
    if narrow != text:
        _tell(info, "full-width characters were read as ordinary ones", text, narrow)
    return narrow


def _digits_of(value: SheetNumber | int | float, info: ValidationInfo) -> str:
    """Return the text that a number in a column of text stands for."""
    if isinstance(value, SheetNumber):
        if value.kind == "date":
            raise ValueError("is a date cell: format the column as text and enter it again")
        if value.kind == "percent":
            raise ValueError("is a percent cell: format the column as text and enter it again")
    text, number = str(value), Decimal(str(value))
    if (
        not number.is_finite()
        or len(number.as_tuple().digits) > MAX_DIGITS
        or abs(number) >= 10**15
    ):
        raise ValueError(
            f"is a number of more than {MAX_DIGITS} digits, of which a spreadsheet loses some: "
            "format the column as text and enter it again"
        )
    taken = str(int(number)) if number == number.to_integral_value() else format(number, "f")
    if isinstance(value, SheetNumber) and len(taken) < value.width:
        taken = taken.zfill(value.width)
        _tell(info, "leading zeros that the cell shows were taken", text, taken)
    return taken


def _any_text(value: object, info: ValidationInfo) -> str:
    if isinstance(value, bool):
        raise ValueError("is true or false, not text: format the column as text")
    if isinstance(value, SheetNumber | int | float):
        return _digits_of(value, info)
    text = _text_of(value, info)
    if _ROUNDED.fullmatch(text):
        raise ValueError(
            "has lost digits in a spreadsheet: format the column as text and enter it again"
        )
    return text


def read_text(value: object, info: ValidationInfo) -> str:
    """Return free text, such as a name or an address."""
    return _any_text(value, info)


def read_code(value: object, info: ValidationInfo) -> str:
    """Return a number or code that people type: full-width digits and letters become ordinary."""
    return _narrow(_any_text(value, info), info, _CODE_WIDTH)


def read_name(value: object, info: ValidationInfo) -> str:
    """Return an identifier; what can't be seen at its ends is left out, inside it is refused."""
    text = _any_text(value, info)
    if isinstance(value, str) and text != value and strip(value) == text:
        _tell(info, "blanks at the ends were left out", value, repr(text))
    text = _narrow(text, info)
    if not unicodedata.is_normalized("NFC", text):
        text = unicodedata.normalize("NFC", text)
        _tell(info, "letters and their marks were put together", value, text)
    # A name that messages may not have would never be met.
    if fault := name_fault(text):
        raise ValueError(f"{fault}: type it again")
    return text


def list_of_json(text: str) -> list[object]:
    """Return the list that a cell of a table holds as JSON.

    Raises: ValueError if it is none, or can be read in two ways.
    """
    try:
        found = decoder().decode(strip(text))
    except (ValueError, RecursionError, JsonTextError) as exc:
        raise ValueError(f"is not a JSON list: {exc}") from exc
    if not isinstance(found, list):
        raise ValueError("is not a JSON list")
    return found


def read_names(value: object, info: ValidationInfo) -> list[str]:
    """Return a list of identifiers; a cell holds it separated by semicolons, commas or blanks."""
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [read_name(item, info) for item in value]
    if isinstance(value, str) and strip(value).startswith("["):
        return read_names(list_of_json(value), info)
    text = read_name(re.sub(r"[\r\n\t]+", ";", value) if isinstance(value, str) else value, info)
    parts = re.split(r"[;；,，、]", text) if re.search(r"[;；,，、]", text) else text.split()
    return [part.strip() for part in parts if part.strip()]


def read_class(value: object, info: ValidationInfo) -> str:
    """Return an accuracy class: "2级" and 2.0 are class 2."""
    given = _any_text(value, info)
    taken = read_accuracy_class(given)
    if taken != given:
        _tell(info, "accuracy class read", given, taken)
    return taken


def read_key(value: object, info: ValidationInfo) -> str:
    """Return a public key as hex of its DER form.

    Raises: ValueError if it can't be read, or its curve isn't certain.
    """
    try:
        key = read_signing_key(_any_text(value, info))
    except SigningKeyError as exc:
        raise ValueError(str(exc)) from exc
    if key.told:
        _tell(info, key.told, _any_text(value, info)[:20] + "...")
    return key.der_hex


def _number_text(value: object, info: ValidationInfo, *, percent: bool) -> str:
    """Return a number as text that float() and Decimal() read alike."""
    if isinstance(value, bool):
        raise ValueError("is true or false, not a number")
    if isinstance(value, int | float):
        return str(value)
    if isinstance(value, SheetNumber):
        if value.kind == "date":
            raise ValueError("is a date cell, not a number")
        if value.kind == "percent":
            if not percent:
                raise ValueError("is a percent cell, but the column is not a fraction")
            _tell(info, "a percent cell was read as a fraction", value, value)
        return value.text
    if isinstance(value, list | dict):
        raise ValueError("is not a number")
    given = _narrow(_text_of(value, info), info)
    text, factor = given.replace("−", "-"), Decimal(1)
    if text.endswith("%"):
        if not percent:
            raise ValueError("is a percentage, but the column is not a fraction")
        text, factor = text[:-1].rstrip(), Decimal("0.01")
    text = _plain_number(text)
    if factor != 1:
        text = str(Decimal(text) * factor)
    if text != given:
        _tell(info, "a number was read", given, text)
    return text


def _plain_number(text: str) -> str:
    """Return a number with a decimal point and nothing between its digits."""
    if _NUMBER.fullmatch(text):
        return text
    if _GROUPED.fullmatch(text):
        return text.replace(",", "")
    if _POINT_GROUPED.fullmatch(text):
        return text.replace(".", "").replace(",", ".")
    if _AMBIGUOUS.fullmatch(text):
        raise ValueError("may be thousands or a decimal comma: write it with a decimal point")
    if comma := _COMMA_DECIMAL.fullmatch(text):
        return f"{comma[1]}.{comma[2]}"
    raise ValueError("is not a number")


def read_number(value: object, info: ValidationInfo) -> float:
    """Return a finite number."""
    return _finite(_number_text(value, info, percent=False))


def read_fraction(value: object, info: ValidationInfo) -> float:
    """Return a finite number that may be written as a percentage."""
    return _finite(_number_text(value, info, percent=True))


def _finite(text: str) -> float:
    try:
        number = float(text)
    except ValueError as exc:
        raise ValueError("is not a number") from exc
    if number - number != 0:
        raise ValueError("is not a finite number")
    return number


def read_price(value: object, info: ValidationInfo) -> Decimal:
    """Return a price, money per kWh."""
    text = _number_text(value, info, percent=False)
    _finite(text)
    price = Decimal(text)
    if len(format(price, "f")) > MAX_PRICE_LENGTH:
        raise ValueError("has more digits than a price")
    return price


def read_bool(value: object, info: ValidationInfo) -> bool:
    """Return true or false, also from 是/否, yes/no and 1/0."""
    if isinstance(value, bool):
        return value
    if isinstance(value, SheetNumber | int | float):
        text = _digits_of(value, info)
    else:
        text = _narrow(_text_of(value, info), info).casefold()
    if text in {"true", "false"}:
        return text == "true"
    known = {"yes": True, "y": True, "1": True, "是": True, "no": False, "n": False, "0": False}
    answer = (known | {"否": False}).get(text)
    if answer is None:
        raise ValueError("is neither true nor false")
    _tell(info, "read as true or false", value, str(answer).lower())
    return answer


def choice(**words: Sequence[str]) -> Callable[[object, ValidationInfo], str]:
    """Return a reader of one of several words; each has other spellings that mean it."""
    meaning = {word.casefold(): word for word in words}
    meaning |= {other: word for word, others in words.items() for other in others}

    def read(value: object, info: ValidationInfo) -> str:
        given = _text_of(value, info)
        taken = meaning.get(_narrow(given, info).casefold())
        if taken is None:
            raise ValueError(f"must be {' or '.join(words)}")
        if taken != given:
            _tell(info, "read as the word meant", given, taken)
        return taken

    return read


def _moment_of_serial(value: SheetNumber | int | float) -> datetime:
    """Return the local time, to the second, of a spreadsheet's day number."""
    number = _finite(str(value))
    is_date = isinstance(value, SheetNumber) and value.kind == "date"
    days = int(number)
    seconds = round((number - days) * DAY_S)
    if isinstance(value, SheetNumber) and value.is_1904:
        days += DAYS_OF_1904
    if not FIRST_SERIAL <= days <= (LAST_SERIAL if is_date else LAST_PLAIN_SERIAL):
        raise ValueError("is a number, and no date between 1950 and 2100: write 2026-01-31")
    return datetime(1899, 12, 30) + timedelta(days=days, seconds=seconds)  # noqa: DTZ001


def _date_of_text(text: str) -> tuple[date, str]:
    """Return the date that a text begins with, and the rest."""
    found = _DATE.match(text)
    if found is None:
        raise ValueError("is not a date: write 2026-01-31")
    year, _, *parts = found.groups()
    month, day = (int(part) for part in parts if part is not None)
    if int(year) < 1900:
        raise ValueError("is a date before 1900")
    try:
        return date(int(year), month, day), text[found.end() :]
    except ValueError as exc:
        raise ValueError("is not a day of the calendar") from exc


def _as_serial(value: object, info: ValidationInfo) -> SheetNumber | int | float | None:
    """Return the number that may be a spreadsheet's date; None for 20260131, a date as written."""
    if isinstance(value, bool):
        raise ValueError("is true or false, not a date")
    if isinstance(value, SheetNumber):
        return None if value.kind == "plain" and re.fullmatch(r"\d{8}", value.text) else value
    if isinstance(value, int | float):
        return None if re.fullmatch(r"\d{8}", str(value)) else value
    text = _narrow(_text_of(value, info), info)
    return SheetNumber(text) if re.fullmatch(r"\d{5}\.\d+|\d{1,7}(\.0+)?", text) else None


def read_date(value: object, info: ValidationInfo) -> date:
    """Return a date: ISO 8601, with slashes, points or 年月日, or a spreadsheet's day number."""
    serial = _as_serial(value, info)
    if serial is not None:
        moment = _moment_of_serial(serial)
        day = moment.date()
        if moment.time() != time():
            raise ValueError("holds a time of the day; the column is a date")
        if not (isinstance(serial, SheetNumber) and serial.kind == "date"):
            _tell(info, "a spreadsheet's day number was read as a date", value, day)
        return day
    given = value if isinstance(value, str) else str(value)
    text = given.translate(_HALF_WIDTH).strip()
    day, rest = _date_of_text(strip(text))
    if rest and not _MIDNIGHT.fullmatch(rest):
        raise ValueError("holds more than a date: write 2026-01-31")
    if not _ISO_DATE.fullmatch(strip(text)):
        _tell(info, "a date was read", given, day)
    return day


def read_moment(value: object, info: ValidationInfo) -> datetime:
    """Return a moment; one without an offset is local time of the city, and told."""
    zone = info.context.zone if isinstance(info.context, CurrentRow) else ZoneInfo("Asia/Shanghai")
    serial = _as_serial(value, info)
    if serial is not None:
        moment, is_local = _moment_of_serial(serial).replace(tzinfo=zone), True
    else:
        text = value if isinstance(value, str) else str(value)
        moment, is_local = _moment_of_text(strip(text.translate(_HALF_WIDTH)), zone)
    if not 1950 <= moment.year <= 2200:
        raise ValueError("lies outside the years 1950 to 2200")
    if is_local:
        _tell(info, f"a time without offset was read as {zone.key}", value, moment.isoformat())
    return moment


def _moment_of_text(text: str, zone: ZoneInfo) -> tuple[datetime, bool]:
    day, rest = _date_of_text(text)
    offset = _OFFSET.search(rest)
    clock = rest[: offset.start()] if offset else rest
    told = _TIME.fullmatch(clock) if clock else None
    if (clock and told is None) or (offset and told is None):
        raise ValueError("is not a time: write 2026-01-01T00:00:00+08:00")
    hour, minute, second, fraction = told.groups() if told else ("0", "0", None, None)
    iso = (
        f"{day}T{int(hour):02}:{int(minute):02}:{second or '00'}.{(fraction or '0').ljust(6, '0')}"
    )
    if offset:
        sign, hours, minutes = offset.groups()
        iso += f"{sign}{hours}:{minutes}" if sign else "+00:00"
    try:
        moment = datetime.fromisoformat(iso)
    except ValueError as exc:
        raise ValueError("is not a time: write 2026-01-01T00:00:00+08:00") from exc
    return (moment, False) if offset else (moment.replace(tzinfo=zone), True)
