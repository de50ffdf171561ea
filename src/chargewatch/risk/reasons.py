"""The reasons of each connector: what was found, from what, or why nothing can be said."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from chargewatch.domain.arrays import Bools, Floats, Ints
from chargewatch.domain.reason import COUNTED, Reason, Reasons, reason
from chargewatch.domain.times import DAY_S

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
    has_mpe: Bools
    min_sessions: int


def _unknown(row: dict[str, float], min_sessions: int) -> Reason:
    if not row["has_mpe"]:
        return reason("no_class")
    if not row["intervals"] and not row["direct"] and row["sessions"] < min_sessions:
        return reason("too_little", sessions=int(row["sessions"]), least=min_sessions)
    return reason("collinear" if row["traced"] else "no_anchor")


def _parts(row: dict[str, float], meters: Sequence[str], min_sessions: int) -> Iterator[Reason]:
    code = row["code"]
    if code == NOT_IDENTIFIABLE:
        yield _unknown(row, min_sessions)
        return
    counts = {name: int(row[name]) for name in COUNTED}
    yield reason("evidence", error=row["error"], u=row["u"], **counts)
    if row["meter_u"] > 0.05 * row["u"]:
        yield reason("reference", meter_u=row["meter_u"])
    if row["changed"] >= 0:
        day = datetime.fromtimestamp(row["changed"] * DAY_S, UTC).date()
        yield reason("changed", day=day.isoformat())
    if row["suspect"]:
        yield reason("suspect", meter=meters[int(row["meter"])])
    if code == UNDECIDED:
        if not row["live"]:
            yield reason("not_borne_out")
        elif row["u"] > row["mpe"] / 3:
            yield reason("too_uncertain", mpe=row["mpe"])
        else:
            yield reason("too_near", mpe=row["mpe"])


def reasons(findings: Findings, meters: Sequence[str]) -> tuple[Reasons, ...]:
    """Return why each connector has its verdict, shape (n,)."""
    columns = {k: v.tolist() for k, v in vars(findings).items() if k != "min_sessions"}
    names = list(columns)
    return tuple(
        tuple(_parts(dict(zip(names, values, strict=True)), meters, findings.min_sessions))
        for values in zip(*columns.values(), strict=True)
    )
