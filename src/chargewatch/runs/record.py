"""What of a run is kept: rows, its summary, and a digest that tells two results apart."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, date, datetime
from operator import attrgetter
from typing import Any

import numpy as np
import orjson

from chargewatch.domain.assessment import ASSESSMENT_COLUMNS, Assessment
from chargewatch.domain.columns import ValueKind
from chargewatch.domain.mpe import RuleSet
from chargewatch.domain.reason import encode, in_english
from chargewatch.domain.signal import Signal
from chargewatch.risk.results import RunResult
from chargewatch.runs.load import Loaded


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def result_digest(assessments: Sequence[Assessment], signals: Sequence[Signal]) -> str:
    """Return the SHA-256 of all that a run found: equal results, equal digest, to the last bit."""
    digest = hashlib.sha256()
    for assessment in sorted(assessments, key=lambda a: (a.operator_id, a.station_id, a.connector)):
        # In words: digests of versions before the codes can be compared with.
        told = {**vars(assessment), "reason": in_english(assessment.reason)}
        digest.update(orjson.dumps(told, option=orjson.OPT_APPEND_NEWLINE))
    for signal in signals:
        digest.update(orjson.dumps(signal, option=orjson.OPT_APPEND_NEWLINE))
    return digest.hexdigest()


def run_summary(
    result: RunResult,
    loaded: Loaded,
    signals: Sequence[Signal],
    *,
    tier_counts: Mapping[str, int],
    continued_from: int | None,
    rules: RuleSet,
    day: date,
) -> dict[str, Any]:
    """Return what a run says of itself, for people and for `--json`.

    Where: rules and day: what it judged by, and the day that it judged.
    """
    by_code: dict[str, int] = {}
    for signal in signals:
        by_code[signal.code] = by_code.get(signal.code, 0) + 1
    meters = loaded.inputs.references.meter
    suspects = np.flatnonzero(result.meter_suspect)
    verdicts: dict[str, int] = {}
    for verdict in result.verdict:
        verdicts[verdict.value] = verdicts.get(verdict.value, 0) + 1
    return {
        **{name: _finite(float(value)) for name, value in result.summary.items()},
        "expected_false_flags": float(result.summary.get("expected_false_flags", math.nan)),
        "expected_missed": float(result.summary.get("expected_missed", math.nan)),
        "tiers": dict(tier_counts),
        "verdicts": verdicts,
        "signals": dict(sorted(by_code.items())),
        "suspect_meters": [
            {
                "meter": meters[k],
                "relative_error": _finite(float(result.meter_shift[k])),
                "standard_uncertainty": _finite(float(result.meter_shift_u[k])),
            }
            for k in suspects.tolist()
        ],
        "continued_from": continued_from,
        "rules": {
            "name": rules.name,
            "regulation": rules.regulation,
            "valid_from": rules.valid_from.isoformat(),
            "valid_until": None if rules.valid_until is None else rules.valid_until.isoformat(),
            "in_force": rules.in_force(day),
            "checked_against_source": rules.checked_against_source,
        },
        "archive": None if loaded.archive is None else loaded.archive.summary(),
    }


def _json(value: Any) -> str:
    return orjson.dumps(value).decode()


_values = attrgetter(*(column.name for column in ASSESSMENT_COLUMNS))
_AS_STORED: Mapping[ValueKind, Callable[[Any], str]] = {
    ValueKind.WORD: attrgetter("value"),
    ValueKind.REASONS: encode,
    ValueKind.DOCUMENT: _json,
}
_TURNED = [
    (place, _AS_STORED[column.kind])
    for place, column in enumerate(ASSESSMENT_COLUMNS)
    if column.kind in _AS_STORED
]


def assessment_values(run_id: int, loaded: Loaded, row: int, found: Assessment) -> tuple[Any, ...]:
    """Return a row of the table of assessments, as `save_assessments` takes it."""
    values = list(_values(found))
    for place, stored in _TURNED:
        if values[place] is not None:
            values[place] = stored(values[place])
    return run_id, int(loaded.registry.connector_ids[row]), *values


def data_span(result: RunResult) -> tuple[datetime | None, datetime | None]:
    """Return the first and the last time of data that bore on a run; None without any."""
    first, last = result.data_from_s, result.data_to_s
    first, last = first[np.isfinite(first)], last[np.isfinite(last)]
    return (
        datetime.fromtimestamp(float(first.min()), UTC) if first.size else None,
        datetime.fromtimestamp(float(last.max()), UTC) if last.size else None,
    )
