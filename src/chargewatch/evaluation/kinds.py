"""Figures by kind of evidence, AC and DC apart; pure functions.

One figure for a whole city hides that one kind of evidence states too small an uncertainty and
another one too large. Sums are kept by city, so that cities can be added and the intervals of
shares can allow for what the connectors of one city have in common.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from chargewatch.domain.arrays import Bools, Floats
from chargewatch.evaluation.scores import NORMAL_975, Compared, Share, pooled, ratio_of_cities

EVERY_KIND = "all"
NONE = "no estimate"
_WORDS = {"balance": "feeder", "vehicles": "vehicles", "verification": "verification"}


def kind_of(method: str) -> str:
    """Return the kind of evidence in words, such as "feeder + vehicles".

    A meter in series outweighs all else, so it is one kind whatever stands beside it.
    """
    parts = method.split("+") if method else []
    if "direct" in parts:
        return "in series"
    return " + ".join(_WORDS.get(part, part) for part in parts) or NONE


@dataclass(frozen=True, kw_only=True)
class Sums:
    """What is added over connectors of one current and kind of evidence in one city."""

    current: str  # "AC", "DC", "" where the truth does not tell
    kind: str
    connectors: int
    identified: int
    error: float
    squared_error: float
    squared_u: float
    squared_z: float  # ((estimate - truth) / u)^2
    bounded: int
    squared_over_bound: float
    covered: int
    red: int
    false_flags: int
    conforming: int
    wrongly_conforming: int
    offenders: int  # of 1.5 MPE or more
    found: int
    judged: int  # with a probability
    brier: float
    ideal_brier: float
    given: Mapping[str, tuple[float, float]]
    """By what is given: squared errors without it and with it, of connectors that have both."""


def _sums(
    compared: Compared, where: Bools, *, current: str, kind: str, beyond_at_times: Bools | None
) -> Sums:
    known = where & compared.identified
    away = (compared.relative_error - compared.true_error)[known]
    u, bound = compared.standard_uncertainty[known], compared.bound[known]
    bounded = np.isfinite(bound)
    size = np.abs(compared.true_error)
    beyond = size > compared.mpe
    excused = beyond if beyond_at_times is None else beyond | beyond_at_times
    offends = where & (size >= 1.5 * compared.mpe)
    judged = where & np.isfinite(compared.p_nonconforming)
    p = compared.p_nonconforming[judged]
    return Sums(
        current=current,
        kind=kind,
        connectors=int(where.sum()),
        identified=int(known.sum()),
        error=float(away.sum()),
        squared_error=float((away**2).sum()),
        squared_u=float((u**2).sum()),
        squared_z=float(((away / u) ** 2).sum()),
        bounded=int(bounded.sum()),
        squared_over_bound=float(((away[bounded] / bound[bounded]) ** 2).sum()),
        covered=int((np.abs(away) <= NORMAL_975 * u).sum()),
        red=int((where & compared.red).sum()),
        false_flags=int((where & compared.red & ~excused).sum()),
        conforming=int((where & compared.conforming).sum()),
        wrongly_conforming=int((where & compared.conforming & beyond).sum()),
        offenders=int(offends.sum()),
        found=int((offends & compared.red).sum()),
        judged=int(judged.sum()),
        brier=float(((p - beyond[judged]) ** 2).sum()),
        ideal_brier=float((p * (1 - p)).sum()),
        given={
            name: _squares(compared, where & np.isfinite(error), error)
            for name, error in compared.given.items()
        },
    )


def _squares(compared: Compared, where: Bools, given: Floats) -> tuple[float, float]:
    both = where & compared.identified
    truth = compared.true_error[both]
    own, other = compared.relative_error[both] - truth, given[both] - truth
    return float((own**2).sum()), float((other**2).sum())


def sums_by_kind(compared: Compared, *, beyond_at_times: Bools | None = None) -> list[Sums]:
    """Return the sums of one city by current and kind of evidence, and of all kinds together.

    Where: beyond_at_times: as in `scores.false_flags`.
    """
    kinds = np.array([kind_of(method) for method in compared.method], dtype=object)
    if compared.is_dc is None:
        sides = {"": np.ones(kinds.size, dtype=bool)}
    else:
        sides = {"AC": ~compared.is_dc, "DC": compared.is_dc}
    found = []
    for current, mine in sides.items():
        groups = {EVERY_KIND: mine} if mine.any() else {}
        groups |= {kind: np.asarray(mine & (kinds == kind)) for kind in set(kinds[mine].tolist())}
        found += [
            _sums(compared, where, current=current, kind=kind, beyond_at_times=beyond_at_times)
            for kind, where in groups.items()
        ]
    return found


def _per(total: float, count: int) -> float:
    return total / count if count else math.nan


def figures(cities: Sequence[Sums]) -> dict[str, Any]:
    """Return the figures of all of these sums together, one for each city; NaN of nothing."""
    words = {"current", "kind", "given"}
    names = [field.name for field in fields(Sums) if field.name not in words]
    total = {name: sum(getattr(c, name) for c in cities) for name in names}
    known = total["identified"]

    over = {
        name: ratio_of_cities([city.given[name] for city in cities if name in city.given])
        for name in dict.fromkeys(name for city in cities for name in city.given)
    }

    def share(part: str, whole: str) -> dict[str, Any]:
        return pooled([Share(getattr(c, part), getattr(c, whole)) for c in cities])

    return {
        "connectors": total["connectors"],
        "identified": known,
        "rmse": math.sqrt(_per(total["squared_error"], known)),
        "bias": _per(total["error"], known),
        "stated_u": math.sqrt(_per(total["squared_u"], known)),
        "mean_squared_z": _per(total["squared_z"], known),
        "rmse_over_bound": math.sqrt(_per(total["squared_over_bound"], total["bounded"])),
        "coverage": share("covered", "identified"),
        "red": total["red"],
        "false_flags": share("false_flags", "red"),
        "conforming": total["conforming"],
        "wrongly_conforming": share("wrongly_conforming", "conforming"),
        "recall_1_5_mpe": share("found", "offenders"),
        "brier_score": _per(total["brier"], total["judged"]),
        "ideal_brier_score": _per(total["ideal_brier"], total["judged"]),
        "rmse_over_given": over,
    }


def by_kind(cities: Iterable[Sequence[Sums]]) -> list[dict[str, Any]]:
    """Return one row of figures for each current and kind of evidence, over all cities.

    Within AC and within DC all kinds together come first, connectors without estimate last.
    """
    found: dict[tuple[str, str], list[Sums]] = {}
    for city in cities:
        for sums in city:
            found.setdefault((sums.current, sums.kind), []).append(sums)
    order = sorted(found, key=lambda key: (key[0], key[1] != EVERY_KIND, key[1] == NONE, key[1]))
    return [{"current": key[0], "kind": key[1], **figures(found[key])} for key in order]
