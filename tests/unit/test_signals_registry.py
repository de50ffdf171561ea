"""What a signal's rule declares is whole, and nothing of it is forgotten in the registry."""

from __future__ import annotations

import importlib
import pkgutil

import pytest

from chargewatch import signals
from chargewatch.domain.sentence import Sentence
from chargewatch.signals import merge, rules
from chargewatch.signals.registry import RULES
from chargewatch.signals.rule import Limit, Rule
from chargewatch.simulators.faults import FAULTS

MODULES = [
    importlib.import_module(found.name)
    for found in pkgutil.walk_packages(signals.__path__, f"{signals.__name__}.")
]


def declared(kind: type) -> set[object]:
    """Return everything of a kind that a module of signals defines."""
    return {value for module in MODULES for value in vars(module).values() if type(value) is kind}


def test_every_module_of_a_rule_is_in_the_registry_under_its_own_name() -> None:
    names = {found.name for found in pkgutil.iter_modules(rules.__path__)}
    assert names == set(RULES)
    assert declared(Rule) == set(RULES.values())


def test_every_limit_is_obeyed_by_a_rule() -> None:
    assert declared(Limit) == {limit for rule in RULES.values() for limit in rule.limits}


def test_every_sentence_is_said_by_a_rule_and_has_a_name_of_its_own() -> None:
    said = {sentence for rule in RULES.values() for sentence in rule.sentences}
    said |= set(merge.SENTENCES)
    assert declared(Sentence) <= said
    assert len({sentence.name for sentence in said}) == len(said)


@pytest.mark.parametrize("rule", RULES.values(), ids=lambda rule: rule.code)
def test_a_rule_is_whole(rule: Rule) -> None:
    assert rule.title
    assert rule.raised
    assert rule.checks
    assert rule.sentences
    assert not rule.explained_by or rule.explained_by in RULES


def test_every_signal_has_a_simulated_fault_or_says_why_not() -> None:
    simulated = {code for kind in FAULTS.values() for code in kind.signals}
    for rule in RULES.values():
        assert (rule.code in simulated) is not bool(rule.not_simulated), rule.code
