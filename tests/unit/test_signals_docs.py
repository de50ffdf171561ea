"""docs/signals.md says of every signal and limit what its rule says, and of no others."""

from __future__ import annotations

import importlib.util

from chargewatch.signals.registry import RULES
from documents import CHECKOUT, code, rows, section

SCRIPT = CHECKOUT / "scripts" / "signals_page.py"


def test_the_tables_are_what_the_rules_say() -> None:
    spec = importlib.util.spec_from_file_location("signals_page", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    text = script.PAGE.read_text(encoding="utf-8")
    assert text == script.page(text), "run scripts/signals_page.py"


def test_every_signal_is_documented_with_its_severity_and_its_limits() -> None:
    table = rows(section("signals.md", "What is checked"))
    documented = {code(row[0])[0]: row[1] for row in table}
    assert documented == {name: rule.severity.value for name, rule in RULES.items()}
    obeying = {word for row in rows(section("signals.md", "Limits")) for word in code(row[3])}
    assert obeying == {name for name, rule in RULES.items() if rule.limits or rule.of_rule_set}
