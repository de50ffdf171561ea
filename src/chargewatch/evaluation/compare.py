"""Compares exported assessments and signals with a truth.json: the figures of section 7."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import orjson

from chargewatch.domain.arrays import Bools, Floats
from chargewatch.domain.verdict import Verdict
from chargewatch.errors import InputFileError
from chargewatch.evaluation.kinds import by_kind, sums_by_kind
from chargewatch.evaluation.scores import (
    Compared,
    Detection,
    Marks,
    Share,
    brier_score,
    coverage,
    detection,
    false_flags,
    ideal_brier_score,
    recall,
    reliability_table,
    rmse_over_bound,
    root_mean_square,
    share_json,
)
from chargewatch.evaluation.situations import situation_figures, wrong_in_situation

Rows = Sequence[Mapping[str, Any]]

TARGETS: Mapping[str, str] = {
    "rmse_over_bound": "<= 1.15",
    "rmse_over_oracle": "<= 1.10",
    "coverage": "0.93 to 0.97",
    "false_flags": "<= 0.05",
    "recall_1_5_mpe": ">= 0.95",
    "recall_2_mpe": ">= 0.99",
    "days_to_flag_median": "<= 7",
    "false_drift_alarms_per_1000_month": "<= 4",
    "signals": "precision and recall >= 0.99",
}


def read_json(path: Path, kind: type) -> Any:
    """Return a JSON file's document.

    Raises: InputFileError when it can't be read or isn't an object (or list) as asked for.
    """
    try:
        value = orjson.loads(path.read_bytes())
    except OSError as exc:
        raise InputFileError(f"{path} can't be read: {exc.strerror}") from exc
    except orjson.JSONDecodeError as exc:
        raise InputFileError(f"{path} is not JSON: {exc}") from exc
    if not isinstance(value, kind):
        raise InputFileError(f"{path} must hold {'a list' if kind is list else 'an object'}")
    return value


def read_truth(path: Path) -> dict[str, Any]:
    """Return a truth.json. Raises: InputFileError when it isn't one of version 1."""
    truth: dict[str, Any] = read_json(path, dict)
    if truth.get("version") != 1 or not isinstance(truth.get("connectors"), list):
        raise InputFileError(f"{path} is not a truth.json of version 1")
    return truth


def _number(value: Any) -> float:
    return math.nan if value is None else float(value)


def compare(truth: Mapping[str, Any], assessments: Rows) -> tuple[Compared, list[str]]:
    """Return assessments beside the truth, and the names of the connectors compared."""
    by_name = {str(row["connector"]): row for row in assessments}
    pairs = [
        (row, by_name[row["connector"]])
        for row in truth["connectors"]
        if row["connector"] in by_name and row.get("relative_error") is not None
    ]

    def column(name: str) -> Floats:
        return np.array([_number(found.get(name)) for _, found in pairs], float)

    mpe = column("mpe")
    stated = np.array([_number(row.get("mpe")) for row, _ in pairs], float)
    return (
        Compared(
            relative_error=column("relative_error"),
            standard_uncertainty=column("standard_uncertainty"),
            p_nonconforming=column("p_nonconforming"),
            red=np.array([found.get("tier") == "red" for _, found in pairs], bool),
            true_error=np.array([float(row["relative_error"]) for row, _ in pairs], float),
            mpe=np.where(np.isfinite(mpe), mpe, stated),
            bound=np.full(len(pairs), np.nan),
            conforming=np.array([f.get("verdict") == Verdict.CONFORMING for _, f in pairs], bool),
            is_dc=np.array([row["is_dc"] for row, _ in pairs], bool)
            if all("is_dc" in row for row, _ in pairs)
            else None,
            method=tuple(str(found.get("method", "unknown") or "") for _, found in pairs),
        ),
        [str(row["connector"]) for row, _ in pairs],
    )


def error_figures(
    compared: Compared, *, metered: Bools | None = None, beyond_at_times: Bools | None = None
) -> dict[str, Any]:
    """Return the figures of errors and decisions.

    Where: metered: connectors of stations with a reference meter, for recall; default: all.
    beyond_at_times: connectors that are beyond their MPE in a situation.
    """
    outcome = np.abs(compared.true_error) > compared.mpe
    p = compared.p_nonconforming
    return {
        "connectors": int(compared.true_error.size),
        "identified": int(compared.identified.sum()),
        "red": int(compared.red.sum()),
        "rmse": root_mean_square(compared.relative_error - compared.true_error),
        "rmse_over_bound": rmse_over_bound(compared),
        "coverage": share_json(coverage(compared)),
        "false_flags": share_json(false_flags(compared, beyond_at_times=beyond_at_times)),
        "recall_1_5_mpe": share_json(recall(compared, at_mpe=1.5, among=metered)),
        "recall_2_mpe": share_json(recall(compared, at_mpe=2.0, among=metered)),
        "brier_score": brier_score(p, outcome),
        "ideal_brier_score": ideal_brier_score(p),
        "reliability": reliability_table(p, outcome),
    }


def _places(truth: Mapping[str, Any], assessments: Rows) -> dict[str, str]:
    places = {str(row["connector"]): str(row["station_id"]) for row in assessments}
    for row in truth["connectors"]:
        if row.get("station_id"):
            places[str(row["connector"])] = str(row["station_id"])
    return places


def _marks(truth: Mapping[str, Any], key: str, code: str) -> Marks:
    return Marks(
        connectors=frozenset(
            str(row["connector"]) for row in truth["connectors"] if code in row.get(key, ())
        ),
        stations=frozenset(
            str(row["station_id"]) for row in truth.get("stations", ()) if code in row.get(key, ())
        ),
    )


def signal_figures(
    truth: Mapping[str, Any], assessments: Rows, signals: Rows
) -> dict[str, Detection]:
    """Return precision and recall by signal code, of the codes that are true or found."""
    codes = {str(row["code"]) for row in signals}
    for row in [*truth["connectors"], *truth.get("stations", ())]:
        codes |= set(row.get("signals", ()))
    places = _places(truth, assessments)
    figures = {}
    for code in sorted(codes):
        mine = [row for row in signals if row["code"] == code]
        found = Marks(
            connectors=frozenset(str(r["connector"]) for r in mine if r.get("connector")),
            stations=frozenset(str(r["station_id"]) for r in mine if not r.get("connector")),
        )
        figures[code] = detection(
            found,
            _marks(truth, "signals", code),
            allowed=_marks(truth, "allowed_signals", code),
            station_of=places,
        )
    return figures


def metered_connectors(truth: Mapping[str, Any], names: Sequence[str]) -> Bools | None:
    """Return the connectors of stations with a reference meter; None when truth doesn't tell."""
    stations = {
        row["station_id"]: bool(row["reference_meter"])
        for row in truth.get("stations", ())
        if "reference_meter" in row
    }
    if not stations:
        return None
    place = {row["connector"]: row.get("station_id") for row in truth["connectors"]}
    return np.array([stations.get(place.get(name), False) for name in names], bool)


def evaluation(truth: Mapping[str, Any], assessments: Rows, signals: Rows) -> dict[str, Any]:
    """Return all figures of one run against its truth, as a document."""
    compared, names = compare(truth, assessments)
    detections = signal_figures(truth, assessments, signals)
    pooled_precision, pooled_recall = Share(0, 0), Share(0, 0)
    by_code = {}
    for code, found in detections.items():
        pooled_precision = pooled_precision.plus(found.precision)
        pooled_recall = pooled_recall.plus(found.recall)
        by_code[code] = {
            "precision": share_json(found.precision),
            "recall": share_json(found.recall),
            "false": list(found.false[:20]),
            "missed": list(found.missed[:20]),
        }
    by_name = {str(row["connector"]): row for row in truth["connectors"]}
    rows = [by_name[name] for name in names]
    beyond_at_times = wrong_in_situation(rows, compared)
    missing = sorted({str(row["connector"]) for row in truth["connectors"]} - set(names))
    return {
        "from": truth.get("from"),
        "to": truth.get("to"),
        "not_assessed": missing[:20],
        "errors": error_figures(
            compared,
            metered=metered_connectors(truth, names),
            beyond_at_times=beyond_at_times,
        ),
        "by_kind": by_kind([sums_by_kind(compared, beyond_at_times=beyond_at_times)]),
        "situations": situation_figures(
            [(row.get("situation") or {}).get("code") for row in rows],
            compared,
        ),
        "signals": {
            "precision": share_json(pooled_precision),
            "recall": share_json(pooled_recall),
            "by_code": by_code,
        },
        "targets": dict(TARGETS),
    }
