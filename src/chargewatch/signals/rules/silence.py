"""A station or connector is silent."""

from __future__ import annotations

import numpy as np

from chargewatch.domain.arrays import Bools, Ints
from chargewatch.domain.sentence import Sentence
from chargewatch.domain.signal import Severity
from chargewatch.domain.times import DAY_S, time_text
from chargewatch.signals.cadence import LEAST_ASLEEP_S
from chargewatch.signals.findings import Finding
from chargewatch.signals.rule import SIMULATED, Check, Limit, Rule
from chargewatch.signals.stations import Cadence, Listening

CODE = "silence"
CADENCES = Limit(3.0, "x cadence", "how long a pause may last", SIMULATED)
LEAST_S = Limit(3_600.0, "s", "no shorter pause is silence", SIMULATED)
NO_READING = Sentence("no_reading", "no reading of it since {at:time}")
NO_READING_AT_ALL = Sentence("no_reading_at_all", "no reading of all of it since {at:time}")


def find(listening: Listening) -> list[Finding]:
    """Return findings of silent connectors and stations."""
    return silence_findings(listening.cadence, listening.station, as_of_s=listening.as_of_s)


def _silent(cadence: Cadence, *, as_of_s: float) -> Bools:
    """Return connectors past their usual cadence x 3, at least 1 h; shape (n,)."""
    usual = np.nan_to_num(cadence.usual_gap_s, nan=0.0)
    limit = np.maximum(CADENCES.value * usual, LEAST_S.value)
    return np.asarray((cadence.readings > 1) & (as_of_s - cadence.last_s > limit))


def silence_findings(cadence: Cadence, station: Ints, *, as_of_s: float) -> list[Finding]:
    """Return findings of silent connectors, and of stations all of whose connectors are silent.

    Where:
        station: station of each connector, shape (n,).
    """
    silent = _silent(cadence, as_of_s=as_of_s)
    heard = cadence.readings > 1
    size = int(station.max()) + 1 if station.size else 0
    of_station = np.bincount(station[heard], minlength=size)
    silent_of = np.bincount(station[silent], minlength=size)
    usual = np.nan_to_num(cadence.usual_gap_s, nan=0.0)
    limit = np.maximum(CADENCES.value * usual, LEAST_S.value)
    found = [
        _silence(
            "connector", k, float(cadence.last_s[k]), as_of_s, float(limit[k]), words=NO_READING
        )
        for k in np.flatnonzero(silent).tolist()
    ]
    for number in np.flatnonzero((of_station > 0) & (silent_of == of_station)).tolist():
        rows = np.flatnonzero(heard & (station == number))
        last = float(cadence.last_s[rows].max())
        found.append(
            _silence(
                "station", number, last, as_of_s, float(limit[rows].max()), words=NO_READING_AT_ALL
            )
        )
    return found


def _silence(
    kind: str, row: int, last_s: float, as_of_s: float, limit_s: float, *, words: Sentence
) -> Finding:
    return Finding(
        code=CODE,
        kind=kind,
        row=row,
        day=int(as_of_s // DAY_S),
        first_s=last_s,
        last_s=as_of_s,
        count=1,
        value=as_of_s - last_s,
        limit=limit_s,
        detail=words(at=last_s),
        records=[{"last_reading_at": time_text(last_s), "limit_s": limit_s}],
    )


RULE = Rule(
    code=CODE,
    severity=Severity.MILD,
    title="Silence",
    raised=(
        "nothing read for 3 times the usual cadence (95th percentile of gaps), at least 1 h, as of "
        "the run; the station too when all of its connectors are silent. The cadence of a pile "
        "that is read only while it charges, and has ended its last charge, is that of its charges "
        f"(95th percentile of the pauses between them), at least {LEAST_ASLEEP_S}"
    ),
    left_alone="a silent connector is grey, not yellow",
    limits=(CADENCES, LEAST_S, LEAST_ASLEEP_S),
    sentences=(NO_READING, NO_READING_AT_ALL),
    checks=(Check(Listening, find),),
)
