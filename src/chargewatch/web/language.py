"""The two languages of the pages and which one a visitor reads."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from importlib.resources import files

from chargewatch.signals.merge import SENTENCES
from chargewatch.signals.registry import RULES

LANGUAGES: Mapping[str, str] = {"zh": "中文", "en": "English"}
"""Code to the language's own name."""

FALLBACK = "en"


def _words_of_signals() -> dict[str, str]:
    """Return the English words of signals, which stand in their rules."""
    sentences = [*SENTENCES, *(said for rule in RULES.values() for said in rule.sentences)]
    return {
        **{f"signal.{rule.code}": rule.title for rule in RULES.values()},
        **{f"finding.{sentence.name}": sentence.plain for sentence in sentences},
    }


@cache
def messages(language: str) -> Mapping[str, str]:
    """Return all texts of a language by key."""
    folder = files("chargewatch.web").joinpath("messages")
    found: dict[str, str] = json.loads(
        folder.joinpath(f"{language}.json").read_text(encoding="utf-8")
    )
    return found if language != FALLBACK else found | _words_of_signals()


def choose_language(cookie: str | None, accept_language: str) -> str:
    """Return the visitor's choice, else the best of the browser's languages that we speak."""
    if cookie in LANGUAGES:
        return str(cookie)
    wanted: list[tuple[float, str]] = []
    for part in accept_language[:500].split(","):
        tag, _, parameters = part.strip().partition(";")
        name, _, number = parameters.strip().partition("=")
        try:
            quality = float(number) if name == "q" else 1.0
        except ValueError:
            continue
        wanted.append((quality, tag.split("-")[0].lower()))
    for quality, code in sorted(wanted, key=lambda pair: -pair[0]):
        if quality > 0 and code in LANGUAGES:
            return code
    return FALLBACK


class Translator:
    """Gives texts of one language; a key that is missing is a programming error."""

    def __init__(self, language: str) -> None:
        self.language = language
        self._messages = messages(language)

    def __call__(self, key: str, /, **values: object) -> str:
        """Return the text of a key with its values filled in."""
        text = self._messages[key]
        return text.format_map(values) if values else text

    def known(self, prefix: str, name: str | None) -> str:
        """Return the text of a name from data, or the name itself when it has no text yet."""
        if not name:
            return ""
        return self._messages.get(f"{prefix}.{name}", name)
