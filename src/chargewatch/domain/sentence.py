"""Sentences with values: written in English where something is found, worded again on pages.

The database, the API and exports hold the English text. Because writer and reader are made of one
template, a page gets the values back and words them in the visitor's language; no text has to be
kept twice, and rows of earlier versions are worded too.
"""

from __future__ import annotations

import re
import string
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from chargewatch.domain.times import time_text

TIME = "time"
"""Format of a field that holds a time, s since 1970; written as RFC 3339 in UTC."""
WORDS = "words"
"""Format of a field that holds another sentence."""
CHECK = "check"
"""Format of a field that holds the name of a check of signed records."""

_NUMBER = r"[+-]?(?:\d+(?:\.\d+)?(?:e[+-]?\d+)?|inf|nan)"
_TIME = r"\d{4}-\d\d-\d\dT[\d:.]+\+00:00"


class Sentence:
    """One sentence of a kind, with the fields of a format string.

    A field's format says what it holds: `{at:time}` a time, `{energy:.0f}` a number, `{name}` text
    that is the same in all languages, `{reason:words}` another sentence.

    Args:
        name: of the sentence, unique on the platform; pages find its words by it.
        english: the template.
    """

    def __init__(self, name: str, english: str) -> None:
        self.name = name
        self.english = english
        parsed = list(string.Formatter().parse(english))
        self.fields = {field: form or "" for _, field, form, _ in parsed if field is not None}
        self._times = [field for field, form in self.fields.items() if form == TIME]
        self._template = re.sub(f":(?:{TIME}|{WORDS}|{CHECK})}}", "}", english)
        self._pattern = re.compile(
            "".join(
                re.escape(literal)
                + ("" if field is None else f"(?P<{field}>{_written_as(form or '')})")
                for literal, field, form, _ in parsed
            )
        )

    def __call__(self, **values: Any) -> str:
        """Return the sentence in English."""
        for name in self._times:
            values[name] = time_text(values[name])
        return self._template.format_map(values)

    @property
    def plain(self) -> str:
        """The template in English with the names of its fields only, as pages fill it in."""
        return re.sub(r"\{(\w+):[^}]*\}", r"{\1}", self.english)

    def read(self, text: str) -> Mapping[str, str | datetime] | None:
        """Return the values of a text that this sentence wrote, None when another one did."""
        found = self._pattern.fullmatch(text)
        if found is None:
            return None
        values: dict[str, str | datetime] = dict(found.groupdict())
        try:
            return values | {name: datetime.fromisoformat(found[name]) for name in self._times}
        except ValueError:
            return None


def _written_as(form: str) -> str:
    """Return the pattern of what a format writes."""
    if form == TIME:
        return _TIME
    if form == CHECK:
        return r"\w+"
    return ".+?" if form in ("", WORDS) else _NUMBER
