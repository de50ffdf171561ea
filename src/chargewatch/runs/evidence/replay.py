"""A flag's verdict computed again from its evidence file, offline, by the run's own functions."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np

from chargewatch.risk.excerpt import Excerpt, replayed
from chargewatch.risk.results import RunResult
from chargewatch.risk.run_inputs import Fleet
from chargewatch.runs.decide import decide
from chargewatch.runs.evidence.grounds import Grounds, made_with, read, told
from chargewatch.runs.load import Loaded, Registry
from chargewatch.signals.findings import Names
from chargewatch.supervision.evidence.form import EvidenceError, EvidenceFile

NEAR = 1e-9
"""Relative difference of numbers that other versions of the same programs may make."""
_PER_METER = ("meter_shift", "meter_shift_u", "meter_suspect")
_WORDS = ("verdict", "tier", "method", "n_intervals", "n_sessions", "n_vehicles", "n_direct")


@dataclass(frozen=True, kw_only=True)
class Recomputed:
    """What came out, beside what the run told."""

    told: Mapping[str, Any]
    computed: Mapping[str, Any]
    differs: tuple[str, ...]  # columns
    largest: float  # relative difference of a number; 0 where all are equal
    same_programs: bool
    other: Mapping[str, tuple[Any, Any]]  # programs: of the file, and here

    @property
    def same_words(self) -> bool:
        """Whether verdict, tier and all that is no number with a fraction are the same."""
        return not set(self.differs) & set(_WORDS)

    @property
    def holds(self) -> bool:
        """Whether the file's verdict follows from what it holds.

        With the same programs to the last bit; with others the words, and numbers nearly.
        """
        if not self.differs:
            return True
        return not self.same_programs and self.same_words and self.largest <= NEAR


def replay(file: EvidenceFile) -> Recomputed:
    """Return what an evidence file's verdict comes to when it is computed again.

    Raises: EvidenceError when parts of the file are missing or don't fit together.
    """
    grounds, here = read(file), made_with()
    of_file = file.manifest["made_with"]
    other = {
        name: (of_file.get(name), value)
        for name, value in here.items()
        if of_file.get(name) != value
    }
    computed = computed_row(grounds)
    missing = set(computed) - set(grounds.row)
    if missing:
        raise EvidenceError(f"the file's assessment lacks {', '.join(sorted(missing))}")
    differs = tuple(name for name in grounds.row if grounds.row[name] != computed.get(name))
    return Recomputed(
        told=grounds.row,
        computed=computed,
        differs=differs,
        largest=max((_away(grounds.row[n], computed.get(n)) for n in differs), default=0.0),
        same_programs=not other,
        other=other,
    )


def _away(one: Any, other: Any) -> float:
    """Return by how much two values differ, relative to the larger; infinite for no numbers."""
    if isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
        return max((_away(a, b) for a, b in zip(one, other, strict=True)), default=0.0)
    if isinstance(one, dict) and isinstance(other, dict) and one.keys() == other.keys():
        return max((_away(one[name], other[name]) for name in one), default=0.0)
    if one == other:
        return 0.0
    if isinstance(one, (int, float)) and isinstance(other, (int, float)):
        return abs(one - other) / max(abs(one), abs(other))
    return math.inf


def computed_row(grounds: Grounds) -> dict[str, Any]:
    """Return the assessment that follows from some grounds, as `told` tells it.

    Raises: EvidenceError when its parts don't fit together.
    """
    try:
        with warnings.catch_warnings():
            # Of connectors that are only held not everything is there.
            warnings.simplefilter("ignore", RuntimeWarning)
            result = replayed(grounds.excerpt)
            row = grounds.excerpt.connector
            assessments = decide(
                _loaded(grounds, row),
                _only(result, row),
                grounds.signals,
                grounds.books,
            )
    except EvidenceError:
        raise
    # What a hostile file makes numpy raise can't be listed.
    except Exception as exc:
        raise EvidenceError(
            f"the file's parts don't fit together: {type(exc).__name__}: {exc}"
        ) from exc
    return told(assessments[0])


def _only(result: RunResult, row: int) -> RunResult:
    """Return the result of one connector."""
    cut: dict[str, Any] = {}
    for field in fields(RunResult):
        value = getattr(result, field.name)
        by_connector = isinstance(value, np.ndarray) and field.name not in _PER_METER
        if by_connector or field.name in ("verdict", "reason", "method"):
            cut[field.name] = value[row : row + 1]
    return replace(result, **cut)


def _loaded(grounds: Grounds, row: int) -> Loaded:
    """Return what a run would have loaded of the one connector, as far as decisions read it."""
    excerpt, pile = grounds.excerpt, grounds.pile
    number = np.array([1], dtype=np.int64)
    none = np.array([math.nan])
    names = Names(
        connector=[pile["connector"]],
        connector_station=[pile["station_id"]],
        connector_operator=[pile["operator_id"]],
        station=[pile["station_id"]],
        station_operator=[pile["operator_id"]],
    )
    return Loaded(
        inputs=replace(excerpt.inputs, fleet=_one_of(excerpt, row)),
        clock_limit_s=0.0,
        registry=Registry(
            connectors=[],
            meters=[],
            connector_ids=number,
            meter_ids=number[:0],
            places=[(pile["operator_id"], pile["station_id"])],
            place_rows={(pile["operator_id"], pile["station_id"]): 0},
            names=names,
        ),
        sessions=np.zeros(0, dtype=[("connector_id", "i4")]),
        meter_ids=number[:0],
        last_reading_s=np.array([grounds.books.last_reading_s]),
        last_meter_s=none[:0],
        valid_until_s=none,
        archive=None,
        is_part=True,
    )


def _one_of(excerpt: Excerpt, row: int) -> Fleet:
    fleet = excerpt.inputs.fleet
    return Fleet(
        **{field.name: getattr(fleet, field.name)[row : row + 1] for field in fields(fleet)}
    )
