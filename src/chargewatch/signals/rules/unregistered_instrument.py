"""Telemetry of an instrument that nobody registered."""

from __future__ import annotations

from chargewatch.domain.sentence import Sentence
from chargewatch.domain.signal import Severity
from chargewatch.domain.times import DAY_S, time_text
from chargewatch.signals.findings import Finding
from chargewatch.signals.rule import Check, Rule
from chargewatch.signals.stations import Unregistered

CODE = "unregistered_instrument"
NOBODYS = {
    kind: Sentence(f"nobodys_{kind}", f"telemetry of a {kind} that is in nobody's registry")
    for kind in ("connector", "meter")
}


def find(unregistered: Unregistered) -> list[Finding]:
    """Return one finding an instrument that nobody registered."""
    kind, first_s, last_s = unregistered.kind, unregistered.first_s, unregistered.last_s
    return [
        Finding(
            code=CODE,
            kind=kind,
            row=int(row),
            day=int(last_s[k] // DAY_S),
            first_s=float(first_s[k]),
            last_s=float(last_s[k]),
            count=1,
            value=float(unregistered.readings[k]),
            limit=0.0,
            detail=NOBODYS[kind](),
            records=[{"first_at": time_text(first_s[k]), "last_at": time_text(last_s[k])}],
        )
        for k, row in enumerate(unregistered.rows.tolist())
    ]


RULE = Rule(
    code=CODE,
    severity=Severity.SEVERE,
    title="Unregistered instrument",
    raised="telemetry of a connector or meter that nobody registered",
    sentences=tuple(NOBODYS.values()),
    checks=(Check(Unregistered, find),),
)
