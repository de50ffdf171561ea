"""The run's sentence about a connector, in the visitor's language.

A run writes its reasons in English (risk.reasons); each part between semicolons is one pattern
here. A part that has no pattern is shown as it was written.
"""

from __future__ import annotations

import re

from chargewatch.web.language import Translator

_PATTERNS: tuple[tuple[str, str], ...] = (
    ("no_class", r"no accuracy class in the registry, so no limit to compare with"),
    (
        "too_little",
        r"no reference meter, no verification and (?P<a>\d+) of at least (?P<b>\d+) sessions "
        r"with a known vehicle",
    ),
    ("no_anchor", r"its vehicles lead to no connector with a reference meter or verification"),
    ("collinear", r"its energy can't be told apart from that of its neighbours"),
    ("evidence", r"(?P<a>\S+ % ± \S+ %) \(k = 2\) from (?P<b>.+)"),
    ("reference", r"the reference contributes (?P<a>\S+ %)"),
    ("changed", r"changed on (?P<a>\S+)"),
    ("suspect", r"its reference meter (?P<a>.+) is suspect and not relied on"),
    ("not_borne_out", r"no reading or session bears it out since the verification"),
    ("too_uncertain", r"too uncertain for the limit of (?P<a>\S+ %)"),
    ("too_near", r"too near the limit of (?P<a>\S+ %)"),
)
_COMPILED = tuple((name, re.compile(pattern)) for name, pattern in _PATTERNS)
_COUNTS = re.compile(r"(?P<n>\d+) (?P<kind>intervals|sessions|direct comparisons)")


def _counts(text: str, t: Translator) -> str:
    found = [
        t(f"reason.count.{match['kind'].split()[0]}", n=match["n"])
        for match in _COUNTS.finditer(text)
    ]
    return t("list.separator").join(found) if found else text


def _part(text: str, t: Translator) -> str:
    for name, pattern in _COMPILED:
        match = pattern.fullmatch(text)
        if match is not None:
            values = dict(match.groupdict())
            if name == "evidence":
                values["b"] = _counts(values["b"], t)
            return t(f"reason.{name}", **values)
    return text


def translate_reason(reason: str, t: Translator) -> str:
    """Return a run's reason in the visitor's language, as one sentence."""
    parts = [_part(part.strip(), t) for part in reason.split(";") if part.strip()]
    if not parts:
        return ""
    text = t("reason.separator").join(parts) + t("reason.end")
    return text[:1].upper() + text[1:]
