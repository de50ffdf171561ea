from __future__ import annotations

import re
import string
from pathlib import Path

import pytest

from chargewatch.domain.verdict import Tier, Verdict
from chargewatch.risk.results import BUDGET_COMPONENTS
from chargewatch.signals.registry import RULES
from chargewatch.supervision.audit import Action
from chargewatch.supervision.permissions import Role
from chargewatch.web.language import LANGUAGES, Translator, choose_language, messages

WEB = Path(__file__).resolve().parents[2] / "src/chargewatch/web"
USED = re.compile(r"""\bt\(\s*['"]([a-z0-9_.]+)['"]\s*[,)]""")


def test_both_languages_have_the_same_texts() -> None:
    assert set(messages("en")) == set(messages("zh"))


def _fields(text: str) -> set[str]:
    return {name for _, name, _, _ in string.Formatter().parse(text) if name}


def test_both_languages_fill_in_the_same_values() -> None:
    for key, english in messages("en").items():
        assert _fields(english) == _fields(messages("zh")[key]), key


def test_every_text_is_shown_somewhere() -> None:
    files = [*WEB.glob("templates/*.html"), *WEB.rglob("*.py"), *WEB.glob("static/*.js")]
    source = "\n".join(path.read_text(encoding="utf-8") for path in files)
    named = set(re.findall(r"""['"]([a-z0-9_.]+)['"]""", source))
    # Put together: t.known('tier', tier), t('tier.' ~ tier), t(f"tier.{tier}").
    groups = set(re.findall(r"""known\(\s*['"]([a-z_.]+)['"]""", source))
    groups |= set(re.findall(r"""\bt\(\s*f?['"]([a-z_.]+)\.(?:\{|['"] *~)""", source))
    unused = {key for key in messages("en") if key not in named}
    assert {key for key in unused if key.rpartition(".")[0] not in groups} == set()
    for group, words in {
        "signal": RULES,
        "tier": Tier,
        "tier.meaning": Tier,
        "verdict": Verdict,
        "role": Role,
        "audit.action": Action,
        "component": (*BUDGET_COMPONENTS, "unlisted"),
    }.items():
        members = {key for key in unused if key.rpartition(".")[0] == group}
        assert members <= {f"{group}.{word}" for word in words}


def test_every_text_that_pages_name_exists() -> None:
    sources = [*WEB.glob("templates/*.html"), *WEB.rglob("*.py")]
    used = {key for path in sources for key in USED.findall(path.read_text(encoding="utf-8"))}
    assert len(used) > 100
    assert used <= set(messages("en"))


@pytest.mark.parametrize(
    "key",
    [
        *(f"signal.{code}" for code in RULES),
        *(f"tier.{tier}" for tier in Tier),
        *(f"tier.meaning.{tier}" for tier in Tier),
        *(f"verdict.{verdict}" for verdict in Verdict),
        *(f"role.{role}" for role in Role),
        *(f"audit.action.{action}" for action in Action),
        *(f"component.{name}" for name in BUDGET_COMPONENTS),
    ],
)
def test_every_word_of_the_field_has_a_text(key: str) -> None:
    assert key in messages("en")


@pytest.mark.parametrize(
    ("cookie", "header", "language"),
    [
        (None, "zh-CN,zh;q=0.9,en;q=0.8", "zh"),
        (None, "en-GB,en;q=0.9,zh;q=0.8", "en"),
        (None, "de;q=0.9, zh-TW;q=0.5, en;q=0.4", "zh"),
        (None, "fr", "en"),
        (None, "", "en"),
        (None, "zh;q=0, en;q=0.1", "en"),
        (None, ";;q=x,,zh;q=abc", "en"),
        ("zh", "en", "zh"),
        ("tlh", "zh", "zh"),
    ],
)
def test_the_visitor_chooses_else_the_browser(
    cookie: str | None, header: str, language: str
) -> None:
    assert choose_language(cookie, header) == language


def test_unknown_name_from_data_is_shown_as_it_is() -> None:
    for language in LANGUAGES:
        t = Translator(language)
        assert t.known("signal", "brand_new_signal") == "brand_new_signal"
        assert t.known("signal", None) == ""
