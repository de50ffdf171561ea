"""Limits of the checks under the rule set that a new installation uses."""

from __future__ import annotations

from chargewatch.domain.mpe import rule_set
from chargewatch.settings import Settings
from chargewatch.signals.findings import limits_of

LIMITS = limits_of(rule_set(Settings().mpe_rules))
