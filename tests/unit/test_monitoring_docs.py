"""docs/monitoring.md names every metric and every log event, and no others."""

from __future__ import annotations

from chargewatch.ingest.metrics import IngestMetrics
from documents import code, first_codes, log_events, rows, section

PAGE = "monitoring.md"


def metrics() -> dict[str, str]:
    """Return name and kind of every metric as Prometheus sees it."""
    return {
        family.name + ("_total" if family.type == "counter" else ""): family.type
        for family in IngestMetrics().registry.collect()
    }


def test_every_metric_is_documented_with_its_kind() -> None:
    assert {code(row[0])[0]: row[1] for row in rows(section(PAGE, "Metrics"))} == metrics()


def test_alarms_name_metrics_that_exist() -> None:
    named = {word.partition("{")[0] for word in first_codes(section(PAGE, "Alarms"))}
    assert {word for word in named if word != "error"} <= set(metrics())


def test_every_log_event_is_documented_with_its_level() -> None:
    levels: dict[str, set[str]] = {}
    for event, level in log_events():
        levels.setdefault(event, set()).add(level)
    table = rows(section(PAGE, "Log events"))
    documented = {code(row[0])[0]: set(row[1].split(", ")) for row in table}
    assert set(documented) == set(levels)
    for event, found in levels.items():
        told = documented[event]
        assert told == found or ("any" in found and told >= found - {"any"}), event
    assert len(table) == len(levels), "an event stands there twice"
