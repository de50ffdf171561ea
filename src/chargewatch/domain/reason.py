"""Why a connector has its verdict: codes with values, put into words where people read them.

A run finds codes and values, the table of assessments keeps them (`encode`), the API and exports
say them in English (`in_english`), pages in the visitor's language (`reason.{code}` of their
messages, filled in with `shown`).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple


@dataclass(frozen=True, slots=True)
class Wording:
    """What a code says in English, and the values that it is kept with, in their order."""

    english: str
    values: tuple[str, ...] = ()


_SITUATION = ("error_in", "error_otherwise")
_CONFLICT = ("said", "said_u", "rest", "rest_u")

WORDINGS: Mapping[str, Wording] = {
    "no_class": Wording("no accuracy class in the registry, so no limit to compare with"),
    "too_little": Wording(
        "no reference meter, no verification and {sessions} of at least {least} sessions with a "
        "known vehicle",
        ("sessions", "least"),
    ),
    "no_anchor": Wording(
        "its vehicles lead to no connector with a reference meter or verification"
    ),
    "collinear": Wording("its energy can't be told apart from that of its neighbours"),
    "evidence": Wording(
        "{error} ± {u} (k = 2) from {counts}", ("error", "u", "intervals", "sessions", "direct")
    ),
    "reference": Wording("the reference contributes {meter_u}", ("meter_u",)),
    "changed": Wording("changed on {day}", ("day",)),
    "replaced": Wording("its meter was replaced on {day}", ("day",)),
    "suspect": Wording("its reference meter {meter} is suspect and not relied on", ("meter",)),
    **{
        f"conflict_{witness}": Wording(
            f"its evidence is in conflict: {{said}} ± {{said_u}} (k = 2) by {by}, "
            "{rest} ± {rest_u} by all else",
            _CONFLICT,
        )
        for witness, by in (
            ("vehicles", "vehicles"),
            ("verification", "its verification"),
            ("feeder", "the meter of its feeder"),
            ("series", "the meter in series"),
        )
    },
    **{
        code: Wording(f"{{error_in}} {where}, {{error_otherwise}} otherwise", _SITUATION + values)
        for code, where, values in (
            ("in_hours", "from {from_hour}:00 to {to_hour}:00", ("from_hour", "to_hour")),
            ("at_weekends", "at weekends", ()),
            ("on_workdays", "on workdays", ()),
            ("below_load", "below {load_to} of the rated power", ("load_to",)),
            ("above_load", "above {load_from} of the rated power", ("load_from",)),
            (
                "between_loads",
                "between {load_from} and {load_to} of the rated power",
                ("load_from", "load_to"),
            ),
            ("up_to_energy", "up to {kwh} kWh of a charge", ("kwh",)),
            ("after_energy", "after {kwh} kWh of a charge", ("kwh",)),
            ("in_short_charges", "in charges of up to {minutes} min", ("minutes",)),
            ("in_long_charges", "in charges of over {minutes} min", ("minutes",)),
        )
    },
    "not_closed": Wording(
        "the balance of its feeder doesn't close with it: what was taken for outliers lies on one "
        "side"
    ),
    "not_borne_out": Wording("no reading or session bears it out since the verification"),
    "too_uncertain": Wording("too uncertain for the limit of {mpe}", ("mpe",)),
    "too_near": Wording("too near the limit of {mpe}", ("mpe",)),
    "no_data": Wording("no data in the window"),
    "silent": Wording("silent since {since}", ("since",)),
    # What a run of a version before the codes wrote, in English.
    "sentence": Wording("{text}", ("text",)),
}

COUNTED: Mapping[str, str] = {
    "intervals": "{n} intervals",
    "sessions": "{n} sessions",
    "direct": "{n} direct comparisons",
}
"""The evidence that is counted, in English; in the messages of pages `reason.count.{name}`."""

# Fractions are told in per cent: factor and digits. Of u the expanded uncertainty is told, k = 2.
_PER_CENT: Mapping[str, tuple[float, str]] = {
    "error": (100.0, "+.2f"),
    "u": (200.0, ".2f"),
    "meter_u": (100.0, ".2f"),
    "said": (100.0, "+.2f"),
    "said_u": (200.0, ".2f"),
    "rest": (100.0, "+.2f"),
    "rest_u": (200.0, ".2f"),
    "mpe": (100.0, ".1f"),
    "error_in": (100.0, "+.1f"),
    "error_otherwise": (100.0, "+.1f"),
    "load_from": (100.0, ".0f"),
    "load_to": (100.0, ".0f"),
}
_as_json = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode


class Reason(NamedTuple):
    """One part of a reason: a code, and its values in the order of its wording."""

    code: str
    values: tuple[Any, ...] = ()

    def named(self) -> dict[str, Any]:
        """Return the values by name."""
        return dict(zip(WORDINGS[self.code].values, self.values, strict=True))

    def counts(self) -> Iterable[tuple[str, int]]:
        """Yield what was counted, and how many, without what there is none of."""
        return ((name, n) for name, n in self.named().items() if name in COUNTED and n)

    def shown(self) -> dict[str, str]:
        """Return the values as texts that read the same in every language."""
        return {name: _shown(name, value) for name, value in self.named().items()}


Reasons = tuple[Reason, ...]


def _shown(name: str, value: Any) -> str:
    per_cent = _PER_CENT.get(name)
    return str(value) if per_cent is None else f"{format(per_cent[0] * value, per_cent[1])} %"


def _told(name: str, value: Any) -> Any:
    """Return a value with the digits that are told, and no more."""
    per_cent = _PER_CENT.get(name)
    if per_cent is None:
        return value
    return float(format(per_cent[0] * value, per_cent[1])) / per_cent[0]


def reason(code: str, **values: Any) -> Reason:
    """Return a part of a reason; fractions are rounded to the digits that are told."""
    return Reason(code, tuple([_told(name, values[name]) for name in WORDINGS[code].values]))


def encode(reasons: Reasons) -> str:
    """Return reasons as the table of assessments keeps them: [[code, value, ...], ...]."""
    return _as_json([(each.code, *each.values) for each in reasons]) if reasons else ""


def decode(kept: str) -> Reasons:
    """Return what a table keeps; a text that isn't encoded is the sentence of an older version."""
    if not kept.startswith("[["):
        return (Reason("sentence", (kept,)),) if kept else ()
    return tuple(Reason(code, tuple(values)) for code, *values in json.loads(kept))


def _listed(parts: list[str]) -> str:
    *first, last = parts or [""]
    return f"{', '.join(first)} and {last}" if first else last


def _english(part: Reason) -> str:
    counts = [COUNTED[name].format(n=n) for name, n in part.counts()]
    return WORDINGS[part.code].english.format(counts=_listed(counts), **part.shown())


def in_english(reasons: Reasons) -> str:
    """Return reasons as one English sentence without a full stop, as the API answers them."""
    return "; ".join(map(_english, reasons))
