"""The platform failed on a station's data."""

from __future__ import annotations

from chargewatch.domain.sentence import Sentence
from chargewatch.domain.signal import Severity
from chargewatch.domain.times import DAY_S
from chargewatch.signals.findings import Finding
from chargewatch.signals.rule import Check, Rule
from chargewatch.signals.stations import LeftOut, NotJudged

CODE = "not_judged"
FAILED = Sentence(
    "left_out",
    "the platform failed on this station's data, which were left out of: {steps}",
)


def find(judged: NotJudged) -> list[Finding]:
    """Return one finding a station that the run could not judge whole."""
    as_of_s = judged.as_of_s
    steps: dict[int, list[LeftOut]] = {}
    for item in judged.left:
        steps.setdefault(item.station, []).append(item)
    return [
        Finding(
            code=CODE,
            kind="station",
            row=station,
            day=int(as_of_s // DAY_S),
            first_s=as_of_s,
            last_s=as_of_s,
            count=len(items),
            value=float(len(items)),
            limit=0.0,
            detail=FAILED(steps=", ".join(dict.fromkeys(item.step for item in items))),
            records=[{"step": item.step, "error": item.error} for item in items[:5]],
        )
        for station, items in sorted(steps.items())
    ]


RULE = Rule(
    code=CODE,
    severity=Severity.MILD,
    title="Not judged whole",
    raised=(
        "the platform failed on this station's data in a step of the run (named, with the error); "
        "the rest of the station and the whole city are judged without it. A fault of the "
        "platform: report it"
    ),
    sentences=(FAILED,),
    checks=(Check(NotJudged, find),),
    not_simulated="it tells of a fault of the platform",
)
