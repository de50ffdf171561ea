"""The frozen list of a draw: who may be drawn, with which weight, and by whom inspected.

It is published before the seed is thrown, by its SHA-256. So it is a text that a person can read
and put through sha256sum: UTF-8, one line a pile and an inspector, fields apart by a tab, every
line ended by a line feed.

    chargewatch draw list 1
    draw<TAB>2026-12
    frozen<TAB>2026-12-01T09:00:00+08:00
    crew<TAB>2
    uniform<TAB>0.2
    piles<TAB>1
    OP1-S1-01<TAB>3.5<TAB>OP1<TAB>S1<TAB>red, last verified 2023-05
    inspectors<TAB>1
    wang<TAB>OP2 OP7

A pile's line: connector or pile, weight, operator, station, why it has the weight. An inspector's:
name, operators whose piles it must not inspect. Both stand in the order of their names, so that the
same list has one text and one hash.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal, InvalidOperation
from urllib.parse import quote, unquote

from chargewatch.errors import ChargewatchError

HEADING = "chargewatch draw list 1"
MOST_LINES = 5_000_000


class DrawError(ChargewatchError):
    """A frozen list, seed or bundle of a draw is not one, or a draw can't be made of it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Pile:
    """Who may be drawn."""

    name: str
    weight: Decimal
    operator: str
    station: str
    why: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Inspector:
    """Who may inspect, and whose piles not."""

    name: str
    recused: frozenset[str] = frozenset()


@dataclass(frozen=True, kw_only=True)
class Frame:
    """Everything that a draw depends on but the seed and the number drawn."""

    draw: str
    frozen_at: datetime
    crew: int  # inspectors a pile
    uniform: Decimal  # share of the draw that weights don't bear on
    piles: tuple[Pile, ...]
    inspectors: tuple[Inspector, ...]

    def text(self) -> str:
        """Return the canonical text.

        Raises: DrawError for what the text can't hold.
        """
        lines = [
            HEADING,
            f"draw\t{_name(self.draw, 'the draw')}",
            f"frozen\t{self.frozen_at.isoformat(timespec='seconds')}",
            f"crew\t{self.crew}",
            f"uniform\t{_plain(self.uniform)}",
            f"piles\t{len(self.piles)}",
        ]
        for pile in sorted(self.piles, key=lambda one: one.name):
            who = [_name(pile.name, "a pile"), _plain(pile.weight)]
            where = [_name(pile.operator, "an operator"), _name(pile.station, "a station")]
            lines.append("\t".join([*who, *where, " ".join(pile.why.split()) or "-"]))
        lines.append(f"inspectors\t{len(self.inspectors)}")
        for person in sorted(self.inspectors, key=lambda one: one.name):
            recused = " ".join(sorted(_name(one, "an operator") for one in person.recused))
            lines.append(f"{_name(person.name, 'an inspector')}\t{recused or '-'}")
        return "\n".join(lines) + "\n"


_UNLISTABLE = re.compile(r"[\s|%]")


def listed_name(name: str) -> str:
    """Return a name as a list can hold it: blanks, `|` and `%` as %20, %7C and %25.

    So nobody stays out of every draw by a blank in its name, and no two names become one.
    """
    text = _UNLISTABLE.sub(lambda found: quote(found[0], safe=""), name)
    return "%2D" if text == "-" else text


def told_name(listed: str) -> str:
    """Return the name that `listed_name` was given."""
    return unquote(listed)


def list_hash(text: str) -> str:
    """Return the SHA-256 of a list's text, in hexadecimal: what sha256sum prints."""
    return hashlib.sha256(text.encode()).hexdigest()


def _plain(number: Decimal) -> str:
    """Return a decimal without exponent and without zeros at its end."""
    text = format(number, "f")
    return text.rstrip("0").rstrip(".") if "." in text else text


def _name(value: str, what: str) -> str:
    if (
        not value
        or value == "-"
        or any(c.isspace() or c == "|" or not c.isprintable() for c in value)
    ):
        raise DrawError(
            f"{value!r} can't be the name of {what} in a draw's list: "
            "give one without spaces and `|`"
        )
    return value


@dataclass
class _Reader:
    """Takes the lines of a list one after the other and names the line in every error."""

    lines: Iterator[str]
    number: int = 0

    def next(self, fields: int, expected: str) -> list[str]:
        """Return the fields of the next line."""
        self.number += 1
        line = next(self.lines, None)
        if line is None:
            raise DrawError(f"the list ends before line {self.number}; {expected} must come here")
        found = line.split("\t")
        if len(found) != fields:
            raise self.wrong(f"{expected} must be here, {fields} fields apart by tabs")
        return found

    def labelled(self, label: str) -> str:
        """Return the value of a line with this label."""
        name, value = self.next(2, f"`{label}` and its value")
        if name != label:
            raise self.wrong(f"`{label}` must be here, it is {name!r}")
        return value

    def count(self, label: str, *, least: int, most: int = MOST_LINES) -> int:
        """Return the whole number of a line with this label."""
        value = self.labelled(label)
        if not value.isascii() or not value.isdigit() or not least <= int(value[:9]) <= most:
            raise self.wrong(f"`{label}` must be a whole number from {least} to {most}")
        return int(value)

    def decimal(self, value: str, what: str, *, most: Decimal) -> Decimal:
        """Return a decimal between 0 and ``most``."""
        try:
            number = Decimal(value) if len(value) <= 30 else Decimal("nan")
        except InvalidOperation:
            number = Decimal("nan")
        if not number.is_finite() or not 0 <= number <= most or _plain(number) != value:
            raise self.wrong(f"{what} must be a plain decimal from 0 to {most}, it is {value!r}")
        return number

    def wrong(self, message: str) -> DrawError:
        """Return an error that names the line."""
        return DrawError(f"line {self.number} of the list: {message}")


LARGEST_WEIGHT = Decimal(1_000_000)


def read_frame(text: str) -> Frame:
    """Return the list of a text.

    Raises: DrawError that names the line, for all but the one canonical text of a list.
    """
    if not text.endswith("\n"):
        raise DrawError("the list must end with a line feed: is a part of the file missing?")
    reader = _Reader(iter(text[:-1].split("\n")))
    if reader.next(1, f"`{HEADING}`") != [HEADING]:
        raise reader.wrong(f"`{HEADING}` must be here: is this the list of a draw?")
    draw = reader.labelled("draw")
    try:
        frozen_at = datetime.fromisoformat(reader.labelled("frozen"))
    except ValueError as exc:
        raise reader.wrong(f"the time is not one: {exc}") from exc
    if frozen_at.tzinfo is None:
        raise reader.wrong("the time must have its distance from UTC")
    crew = reader.count("crew", least=0, most=20)
    uniform = reader.decimal(reader.labelled("uniform"), "the uniform share", most=Decimal(1))
    piles = tuple(_pile(reader) for _ in range(reader.count("piles", least=1)))
    people = tuple(_inspector(reader) for _ in range(reader.count("inspectors", least=0)))
    if next(reader.lines, None) is not None:
        raise DrawError(f"more lines than told after line {reader.number} of the list")
    frame = Frame(
        draw=draw,
        frozen_at=frozen_at,
        crew=crew,
        uniform=uniform,
        piles=piles,
        inspectors=people,
    )
    _require_distinct(frame)
    if frame.text() != text:
        raise DrawError(
            "the list is not in its one canonical form: piles and inspectors must stand in the "
            "order of their names, without a second space or an empty reason"
        )
    return frame


def _pile(reader: _Reader) -> Pile:
    name, weight, operator, station, why = reader.next(5, "a pile")
    return Pile(
        name=name,
        weight=reader.decimal(weight, "the weight", most=LARGEST_WEIGHT),
        operator=operator,
        station=station,
        why="" if why == "-" else why,
    )


def _inspector(reader: _Reader) -> Inspector:
    name, recused = reader.next(2, "an inspector")
    return Inspector(
        name=name, recused=frozenset() if recused == "-" else frozenset(recused.split(" "))
    )


def _require_distinct(frame: Frame) -> None:
    for names, what in (
        ([one.name for one in frame.piles], "pile"),
        ([one.name for one in frame.inspectors], "inspector"),
    ):
        if len(set(names)) != len(names):
            seen: set[str] = set()
            twice = next(name for name in names if name in seen or seen.add(name))  # type: ignore[func-returns-value]
            raise DrawError(f"the {what} {twice} stands in the list twice: nobody has two tickets")
