"""docs/signals.md names every integrity signal with its severity, and no others."""

from __future__ import annotations

from chargewatch.domain.signal import SIGNAL_SEVERITY
from documents import code, rows, section


def test_every_signal_is_documented_with_its_severity() -> None:
    table = rows(section("signals.md", "What is checked"))
    assert [len(row) for row in table] == [4] * len(SIGNAL_SEVERITY)
    documented = {code(row[0])[0]: row[1] for row in table}
    assert documented == {name: severity.value for name, severity in SIGNAL_SEVERITY.items()}
