"""What a signal is: its rule, with limits, checks, sentences and honest exceptions.

One module of `signals.rules` declares one rule; `signals.registry` lists them. Runs, pages,
docs/signals.md and tests read them there.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from chargewatch.domain.sentence import Sentence
from chargewatch.domain.signal import Severity
from chargewatch.signals.findings import Finding

Facts = TypeVar("Facts")


@dataclass(frozen=True)
class Check(Generic[Facts]):
    """One way by which a rule finds: what it looks at, and how."""

    facts: type[Facts]
    find: Callable[[Facts], list[Finding]]


@dataclass(frozen=True)
class Limit:
    """A number that a check holds its values against, and where it comes from."""

    value: float
    unit: str
    meaning: str
    source: str

    def __str__(self) -> str:
        """Return value and unit."""
        return f"{self.value:,.10g} {self.unit}".strip()


@dataclass(frozen=True, kw_only=True)
class Rule:
    """One integrity signal. A run raises it wherever one of its checks finds something."""

    code: str
    severity: Severity
    title: str
    """Its name on pages, in English."""
    raised: str
    """When it is raised, in words."""
    left_alone: str = ""
    """Its honest exceptions, in words: what looks alike and is nobody's fault."""
    limits: tuple[Limit, ...] = ()
    of_rule_set: tuple[str, ...] = ()
    """Fields of the rule set (`domain.mpe.RuleSet`) that set limits, too."""
    sentences: tuple[Sentence, ...] = ()
    """What its findings say."""
    checks: tuple[Check[Any], ...] = ()
    """In the order in which their findings are told when nothing else orders them."""
    explained_by: str = ""
    """The code whose finding of the same connector and day explains this one."""
    not_simulated: str = ""
    """Why no simulated fault must raise it; empty where one must."""


# Where limits come from.
DATA_FORM = "how values are rounded when they are sent"
SIMULATED = "chosen with the simulated cities in view"
USE = "how piles are used"
