"""From findings, each about one instrument and one day, to integrity signals."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import timedelta

from chargewatch.domain.sentence import Sentence
from chargewatch.domain.signal import Signal
from chargewatch.domain.times import EPOCH
from chargewatch.signals.findings import Finding, Names
from chargewatch.signals.registry import RULES

RULE_VERSION = 2

TIMES = Sentence("times", "{n:d} times")
TIMES_ON_DAYS = Sentence("times_on_days", "{n:d} times on {days:d} days")
SENTENCES = (TIMES, TIMES_ON_DAYS)
"""What a signal of several findings adds to the words of its worst one."""


def subject_of(signal: Signal) -> str:
    """Return what a signal is about: "connector:...", "meter:..." or "station:..."."""
    return str(signal.evidence["subject"])


def merge_findings(findings: Iterable[Finding], names: Names) -> list[Signal]:
    """Return one signal a code and instrument, sorted by (operator, station, subject, code)."""
    groups: dict[tuple[str, str, int], list[Finding]] = {}
    for finding in findings:
        groups.setdefault((finding.code, finding.kind, finding.row), []).append(finding)
    return in_order([_merge(group, names) for group in groups.values()])


def in_order(signals: Iterable[Signal]) -> list[Signal]:
    """Return signals sorted by (operator, station, subject, code)."""
    return sorted(
        signals,
        key=lambda s: (s.operator_id or "", s.station_id or "", subject_of(s), s.code),
    )


def _merge(group: list[Finding], names: Names) -> Signal:
    group = sorted(group, key=lambda finding: (finding.day, finding.first_s))
    worst = max(group, key=lambda finding: finding.excess)
    subject, connector, station_id, operator_id = names.of(worst.kind, worst.row)
    count = sum(finding.count for finding in group)
    days = len({finding.day for finding in group})
    detail = worst.detail
    if count > 1:
        detail += "; " + (TIMES_ON_DAYS(n=count, days=days) if days > 1 else TIMES(n=count))
    records = [record for finding in (group[:1] + group[-1:])[:2] for record in finding.records]
    if len(group) == 1:
        records = list(group[0].records)
    if worst not in (group[0], group[-1]):
        records = [*worst.records, *records]
    return Signal(
        code=worst.code,
        severity=RULES[worst.code].severity,
        operator_id=operator_id,
        station_id=station_id,
        connector=connector,
        first_at=EPOCH + timedelta(seconds=min(f.first_s for f in group)),
        last_at=EPOCH + timedelta(seconds=max(f.last_s for f in group)),
        count=count,
        value=worst.value,
        limit=worst.limit,
        detail=detail,
        rule_version=RULE_VERSION,
        evidence={"subject": subject, "days": days, "records": records},
    )
