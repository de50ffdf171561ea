#!/usr/bin/env python3
"""Write the tables of docs/signals.md from the rules; a test says when it has to be run again."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import fields
from pathlib import Path

from chargewatch.domain.mpe import RuleSet
from chargewatch.signals.registry import RULES
from chargewatch.signals.rule import Limit

PAGE = Path(__file__).resolve().parents[1] / "docs" / "signals.md"
OF_RULE_SET = "the rule set (`domain/mpe_rules.json`)"


def _row(*cells: str) -> str:
    written = (" ".join(cell.split()).replace("|", "\\|") for cell in cells)
    return "|" + "".join(f" {cell} |" if cell else " |" for cell in written)


def _table(heads: tuple[str, ...], rows: Iterable[str]) -> str:
    return "\n".join(["| " + " | ".join(heads) + " |", "|" + "---|" * len(heads), *rows]) + "\n"


def checks() -> str:
    """Return the table of all signals."""
    return _table(
        ("code", "severity", "raised when", "left alone"),
        (
            _row(f"`{rule.code}`", rule.severity.value, rule.raised, rule.left_alone)
            for rule in RULES.values()
        ),
    )


def limits() -> str:
    """Return the table of all limits, each with the signals that obey it."""
    codes: dict[Limit, list[str]] = {}
    of_rule_set: dict[str, list[str]] = {}
    for rule in RULES.values():
        for limit in rule.limits:
            codes.setdefault(limit, []).append(f"`{rule.code}`")
        for name in rule.of_rule_set:
            of_rule_set.setdefault(name, []).append(f"`{rule.code}`")
    known = {field.name for field in fields(RuleSet)}
    assert set(of_rule_set) <= known, f"no such field of RuleSet: {set(of_rule_set) - known}"
    return _table(
        ("limit", "what it is", "from", "obeyed by"),
        (
            *(
                _row(
                    f"`{name}`", "how far a pile's clock may be off", OF_RULE_SET, ", ".join(users)
                )
                for name, users in of_rule_set.items()
            ),
            *(
                _row(str(limit), limit.meaning, limit.source, ", ".join(users))
                for limit, users in codes.items()
            ),
        ),
    )


def page(text: str) -> str:
    """Return the page with its tables as the rules say."""
    for heading, table in (("What is checked", checks()), ("Limits", limits())):
        pattern = rf"(\n## {heading}\n(?:(?!\|).*\n)*)(?:\|.*\n)+"
        text, count = re.subn(pattern, lambda found: found[1] + table, text, count=1)  # noqa: B023
        assert count, f"{PAGE.name} has no table under {heading!r}"
    return text


if __name__ == "__main__":
    PAGE.write_text(page(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
