"""All integrity signals, in the order of docs/signals.md.

A new signal is a module of `signals.rules` with its `RULE`, and a line here. Runs raise it,
`scripts/signals_page.py` writes it into docs/signals.md; the pages' Chinese words stand in
`web/messages/zh.json`, and tests name what is missing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from chargewatch.signals.findings import Finding
from chargewatch.signals.rule import Rule
from chargewatch.signals.rules import (
    clock_skew,
    conflict,
    fee_mismatch,
    frequent_declarations,
    idle_consumption,
    loss_adjusted_billing,
    missing_messages,
    not_judged,
    power_register_mismatch,
    register_decrease,
    register_discontinuity,
    register_jitter,
    register_jump,
    sequence_restart,
    session_register_mismatch,
    signature_invalid,
    signature_pagination_gap,
    signed_record_mismatch,
    silence,
    soc_implausible,
    stuck_register,
    tariff_mismatch,
    unit_fault,
    unregistered_instrument,
    verification_expired,
    zero_baseline,
)

RULES: Mapping[str, Rule] = {
    module.RULE.code: module.RULE
    for module in (
        register_decrease,
        register_jitter,
        register_jump,
        stuck_register,
        power_register_mismatch,
        idle_consumption,
        session_register_mismatch,
        zero_baseline,
        loss_adjusted_billing,
        fee_mismatch,
        tariff_mismatch,
        register_discontinuity,
        frequent_declarations,
        clock_skew,
        missing_messages,
        sequence_restart,
        silence,
        conflict,
        unregistered_instrument,
        verification_expired,
        signature_invalid,
        signed_record_mismatch,
        signature_pagination_gap,
        unit_fault,
        soc_implausible,
        not_judged,
    )
}
"""Every signal that the platform may raise, by its code."""


def findings_of(facts: Any) -> list[Finding]:
    """Return what all rules find in facts of one kind, in the order of the registry."""
    return [
        finding
        for rule in RULES.values()
        for check in rule.checks
        if check.facts is type(facts)
        for finding in check.find(facts)
    ]


def without_explained(findings: Iterable[Finding]) -> list[Finding]:
    """Return findings less those that another one of the same connector and day explains."""
    known = list(findings)
    explaining = {rule.explained_by for rule in RULES.values()}
    raised = {(f.code, f.row, f.day) for f in known if f.code in explaining}
    return [f for f in known if (RULES[f.code].explained_by, f.row, f.day) not in raised]
