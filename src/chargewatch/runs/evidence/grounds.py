"""What an evidence file holds besides the engine's excerpt, and how both become one file."""

from __future__ import annotations

import math
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

import numpy as np
import orjson
import scipy

from chargewatch import __version__
from chargewatch.domain.assessment import Assessment
from chargewatch.domain.reason import encode
from chargewatch.domain.signal import Severity, Signal
from chargewatch.risk.excerpt import Excerpt
from chargewatch.runs.evidence.codec import EXACT_INTEGERS, Flat, Unflattened, flattened
from chargewatch.runs.owed import Amounts
from chargewatch.supervision.evidence.form import EvidenceError, EvidenceFile, made


@dataclass(frozen=True, kw_only=True)
class Books:
    """What bears on an assessment besides the engine, of one connector."""

    last_reading_s: float
    recent_error: Amounts  # shape (1,)
    recent_billing: Amounts


@dataclass(frozen=True, kw_only=True)
class Grounds:
    """All that decided one connector, and what was decided."""

    excerpt: Excerpt
    books: Books
    signals: Sequence[Signal]
    row: Mapping[str, Any]  # the assessment, as `told` tells it
    pile: Mapping[str, str]


def told(assessment: Assessment) -> dict[str, Any]:
    """Return an assessment as JSON values; NaN is null, numbers keep every bit."""
    row = {**vars(assessment), "reason": encode(assessment.reason)}
    told_of: dict[str, Any] = orjson.loads(orjson.dumps(row))
    return told_of


def made_with() -> dict[str, Any]:
    """Return the programs that decide the last bits of a result."""
    config: Any = np.show_config(mode="dicts")
    blas = config["Build Dependencies"]["blas"]
    return {
        "chargewatch": __version__,
        "python": platform.python_version(),
        "numpy": np.__version__,
        "scipy": scipy.__version__,
        "blas": f"{blas.get('name')} {blas.get('version')}",
        "machine": platform.machine(),
        "simd": config["SIMD Extensions"].get("found", []),
    }


def _canonical(value: Any) -> Any:
    """Return a JSON value that canonical JSON can tell."""
    if isinstance(value, Mapping):
        return {str(name): _canonical(each) for name, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_canonical(each) for each in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, int) and abs(value) > EXACT_INTEGERS:
        return str(value)
    return value


def written(grounds: Grounds, *, run: Mapping[str, Any]) -> EvidenceFile:
    """Return the evidence file of some grounds and the run that they are of."""
    flat = Flat()
    flattened(grounds.excerpt, "excerpt", into=flat)
    flattened(grounds.books, "books", into=flat)
    signals = orjson.loads(orjson.dumps([asdict(one) for one in grounds.signals]))
    told_of = {
        "pile": dict(grounds.pile),
        "run": dict(run),
        "row": dict(grounds.row),
        "signals": signals,
        "values": flat.values,
        "made_with": made_with(),
    }
    return made(_canonical(told_of), flat.arrays)


def read(file: EvidenceFile) -> Grounds:
    """Return the grounds of an evidence file.

    Raises: EvidenceError that names what is missing or can't be.
    """
    values, row = file.manifest["values"], file.manifest["row"]
    flat = Unflattened(values, file.arrays)
    excerpt, books = flat.record(Excerpt, "excerpt"), flat.record(Books, "books")
    if not 0 <= excerpt.connector < excerpt.inputs.fleet.size:
        raise EvidenceError("the file's connector is none of its connectors")
    return Grounds(
        excerpt=excerpt,
        books=books,
        signals=[_signal(one) for one in file.manifest["signals"]],
        row=row,
        pile=file.pile,
    )


def _signal(one: Any) -> Signal:
    try:
        return Signal(
            **{
                **one,
                "severity": Severity(one["severity"]),
                "first_at": datetime.fromisoformat(one["first_at"]),
                "last_at": datetime.fromisoformat(one["last_at"]),
                "value": math.nan if one["value"] is None else float(one["value"]),
                "limit": math.nan if one["limit"] is None else float(one["limit"]),
            }
        )
    except (TypeError, KeyError, ValueError) as exc:
        raise EvidenceError(f"a signal of the file can't be read: {exc}") from exc
