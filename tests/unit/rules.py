"""Limits of the checks under the rule set that a new installation uses."""

from __future__ import annotations

from chargewatch.domain.mpe import rule_set
from chargewatch.risk.signals import limits_of
from chargewatch.settings import Settings

LIMITS = limits_of(rule_set(Settings().mpe_rules))
