"""How piles that are wrong only in a situation were judged, by situation; pure functions."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from chargewatch.domain.arrays import Bools
from chargewatch.evaluation.scores import Compared

Figures = Mapping[str, Mapping[str, int]]


SHOWS_AS: Mapping[str, frozenset[str]] = {
    "hours": frozenset({"hours"}),
    "tariff_period": frozenset({"hours"}),
    "weekend": frozenset({"days"}),
    "heat": frozenset({"hours"}),
    "high_load": frozenset({"load"}),
    "low_load": frozenset({"load"}),
    "one_phase": frozenset({"load"}),
    "after_energy": frozenset({"energy", "duration"}),
    "short_session": frozenset({"duration"}),
    "unverified_load": frozenset({"load", "duration", "energy"}),
}
"""Kinds of situation that the engine may name for each of the simulator's."""


def situation_figures(
    codes: Sequence[str | None],
    compared: Compared,
    told: Mapping[int, str] | None = None,
) -> dict[str, dict[str, int]]:
    """Return counts of connectors by code of their situation; no code: right everywhere.

    ``offenders`` err by 1.5 MPE or more over all their energy, ``found`` are those of them that
    are red, ``wrongly_conforming`` were called conforming though they err by more than the MPE
    over all their energy. Where it is known what situation was ``told`` of which connector,
    ``named`` are those of the found with a situation told, and ``rightly_named`` those of them with
    a right one.
    """
    error_mpe = np.abs(compared.true_error) / compared.mpe
    offends = error_mpe >= 1.5
    figures: dict[str, dict[str, int]] = {}
    for code in sorted({code for code in codes if code}):
        mine = np.array([other == code for other in codes], dtype=bool)
        figures[code] = {
            "connectors": int(mine.sum()),
            "red": int(np.sum(mine & compared.red)),
            "offenders": int(np.sum(mine & offends)),
            "found": int(np.sum(mine & offends & compared.red)),
            "wrongly_conforming": int(np.sum(mine & compared.conforming & (error_mpe > 1))),
        }
        if told is not None:
            shown = [
                told[k] for k in np.flatnonzero(mine & offends & compared.red).tolist() if k in told
            ]
            figures[code]["named"] = len(shown)
            figures[code]["rightly_named"] = sum(kind in SHOWS_AS[code] for kind in shown)
    return figures


def summed(several: Sequence[Figures]) -> dict[str, dict[str, int]]:
    """Return the counts of several cities together."""
    total: dict[str, Counter[str]] = {}
    for figures in several:
        for code, counts in figures.items():
            total.setdefault(code, Counter()).update(counts)
    return {code: dict(total[code]) for code in sorted(total)}


def wrong_in_situation(rows: Sequence[Mapping[str, Any]], compared: Compared) -> Bools:
    """Return which connectors err by more than their MPE in their situation.

    ``rows`` are those of truth.json.
    """
    inside = [(row.get("situation") or {}).get("error_inside") or 0.0 for row in rows]
    return np.asarray(np.abs(np.array(inside, dtype=np.float64)) > compared.mpe)
