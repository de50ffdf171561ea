"""One sentence for each connector: what was found, from what, or why nothing can be said."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from chargewatch.domain.arrays import Bools, Floats, Ints
from chargewatch.domain.times import DAY_S

NOT_IDENTIFIABLE, NONCONFORMING, CONFORMING, UNDECIDED = range(4)


@dataclass(frozen=True, kw_only=True)
class Findings:
    """What the sentences are made of; shape (n,)."""

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


def _evidence(row: dict[str, float]) -> str:
    parts = [
        f"{int(row[name])} {word}"
        for name, word in (
            ("intervals", "intervals"),
            ("sessions", "sessions"),
            ("direct", "direct comparisons"),
        )
        if row[name]
    ]
    return " and ".join(parts) if len(parts) < 3 else f"{parts[0]}, {parts[1]} and {parts[2]}"


def _unknown(row: dict[str, float], min_sessions: int) -> str:
    if not row["has_mpe"]:
        return "no accuracy class in the registry, so no limit to compare with"
    if not row["intervals"] and not row["direct"] and row["sessions"] < min_sessions:
        return (
            "no reference meter, no verification and "
            f"{int(row['sessions'])} of at least {min_sessions} sessions with a known vehicle"
        )
    if not row["traced"]:
        return "its vehicles lead to no connector with a reference meter or verification"
    return "its energy can't be told apart from that of its neighbours"


def _sentence(row: dict[str, float], meters: Sequence[str], min_sessions: int) -> str:
    code = row["code"]
    if code == NOT_IDENTIFIABLE:
        return _unknown(row, min_sessions)
    text = f"{100 * row['error']:+.2f} % ± {200 * row['u']:.2f} % (k = 2) from {_evidence(row)}"
    if row["meter_u"] > 0.05 * row["u"]:
        text += f"; the reference contributes {100 * row['meter_u']:.2f} %"
    if row["changed"] >= 0:
        day = datetime.fromtimestamp(row["changed"] * DAY_S, UTC).date().isoformat()
        text += f"; changed on {day}"
    if row["suspect"]:
        text += f"; its reference meter {meters[int(row['meter'])]} is suspect and not relied on"
    if code == UNDECIDED:
        if not row["live"]:
            text += "; no reading or session bears it out since the verification"
        elif row["u"] > row["mpe"] / 3:
            text += f"; too uncertain for the limit of {100 * row['mpe']:.1f} %"
        else:
            text += f"; too near the limit of {100 * row['mpe']:.1f} %"
    return text


def reasons(findings: Findings, meters: Sequence[str]) -> tuple[str, ...]:
    """Return one sentence for each connector, shape (n,)."""
    columns = {k: v.tolist() for k, v in vars(findings).items() if k != "min_sessions"}
    names = list(columns)
    return tuple(
        _sentence(dict(zip(names, values, strict=True)), meters, findings.min_sessions)
        for values in zip(*columns.values(), strict=True)
    )
