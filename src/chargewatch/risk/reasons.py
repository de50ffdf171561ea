"""The reasons of each connector: what was found, from what, or why nothing can be said."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from chargewatch.domain.arrays import Bools, Floats, Ints
from chargewatch.domain.reason import COUNTED, Reason, Reasons, reason
from chargewatch.domain.times import DAY_S
from chargewatch.risk.conflicts import WITNESSES
from chargewatch.risk.situation_errors import SituationError

NOT_IDENTIFIABLE, NONCONFORMING, CONFORMING, UNDECIDED = range(4)


@dataclass(frozen=True, kw_only=True)
class Findings:
    """What the reasons are made of; shape (n,)."""

    error: Floats
    u: Floats
    mpe: Floats
    p: Floats
    code: Ints
    intervals: Ints
    sessions: Ints
    direct: Ints
    meter_u: Floats
    suspect: Bools
    meter: Ints
    traced: Bools
    live: Bools
    changed: Ints  # days since 1970, -1 for none
    replaced_s: Floats  # of the meter, -inf for never
    has_mpe: Bools
    unclosed: Bools
    conflict: Ints  # place in `WITNESSES` of the witness that contradicts all others, -1 for none
    conflict_said: Floats
    conflict_said_u: Floats
    conflict_rest: Floats
    conflict_rest_u: Floats
    situations: Mapping[int, SituationError]  # by connector
    min_sessions: int
    p_conforming: float


def _unknown(row: dict[str, float], min_sessions: int) -> Reason:
    if not row["has_mpe"]:
        return reason("no_class")
    if not row["intervals"] and not row["direct"] and row["sessions"] < min_sessions:
        return reason("too_little", sessions=int(row["sessions"]), least=min_sessions)
    return reason("collinear" if row["traced"] else "no_anchor")


def _situation(one: SituationError) -> Reason:
    """Return where a connector errs otherwise, in the code of its kind of situation."""
    low, high, opened = one.low, one.high, math.isinf(one.high)
    code, values = "at_weekends" if low else "on_workdays", dict[str, float]()
    if one.code == "hours":
        code, values = "in_hours", {"from_hour": round(low), "to_hour": round(high)}
    elif one.code == "load":
        code = "above_load" if opened else "between_loads" if low else "below_load"
        values = {"load_from": low, "load_to": high}
    elif one.code == "energy":
        code = "after_energy" if opened else "up_to_energy"
        values = {"kwh": round((low if opened else high) / 1000)}
    elif one.code == "duration":
        code = "in_long_charges" if opened else "in_short_charges"
        values = {"minutes": round((low if opened else high) * 60)}
    return reason(code, error_in=one.error, error_otherwise=one.error_otherwise, **values)


def _changes(row: dict[str, float]) -> Iterator[Reason]:
    for code, at_s in (("replaced", row["replaced_s"]), ("changed", row["changed"] * DAY_S)):
        if at_s >= 0:
            yield reason(code, day=datetime.fromtimestamp(at_s, UTC).date().isoformat())


def _parts(
    row: dict[str, float],
    meters: Sequence[str],
    situation: SituationError | None,
    min_sessions: int,
) -> Iterator[Reason]:
    code = row["code"]
    if code == NOT_IDENTIFIABLE:
        yield _unknown(row, min_sessions)
        return
    counts = {name: int(row[name]) for name in COUNTED}
    yield reason("evidence", error=row["error"], u=row["u"], **counts)
    if situation is not None:
        yield _situation(situation)
    if row["meter_u"] > 0.05 * row["u"]:
        yield reason("reference", meter_u=row["meter_u"])
    yield from _changes(row)
    conflict = int(row["conflict"])
    if conflict >= 0:
        values = {name: row[f"conflict_{name}"] for name in ("said", "said_u", "rest", "rest_u")}
        yield reason(f"conflict_{WITNESSES[conflict]}", **values)
    if row["suspect"]:
        yield reason("suspect", meter=meters[int(row["meter"])])
    if code == UNDECIDED:
        if not row["live"]:
            yield reason("not_borne_out")
        elif row["unclosed"] and row["p"] <= row["p_conforming"]:
            yield reason("not_closed")
        elif conflict >= 0 and row["p"] <= row["p_conforming"]:
            return
        elif row["u"] > row["mpe"] / 3:
            yield reason("too_uncertain", mpe=row["mpe"])
        else:
            yield reason("too_near", mpe=row["mpe"])


def reasons(findings: Findings, meters: Sequence[str]) -> tuple[Reasons, ...]:
    """Return why each connector has its verdict, shape (n,)."""
    apart = ("situations", "min_sessions", "p_conforming")
    columns = {k: v.tolist() for k, v in vars(findings).items() if k not in apart}
    names, situations = list(columns), findings.situations
    return tuple(
        tuple(
            _parts(
                {"p_conforming": findings.p_conforming, **dict(zip(names, values, strict=True))},
                meters,
                situations.get(row),
                findings.min_sessions,
            )
        )
        for row, values in enumerate(zip(*columns.values(), strict=True))
    )
