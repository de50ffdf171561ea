"""What a signal says, in the visitor's language.

A run writes a signal's detail in English, as the sentences of its rule (`signals.rules`), with
semicolons between them; the sentences give the values back, and `finding.NAME` has the words. What
no sentence reads, of a rule that isn't there any more, is shown as it was written.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

from chargewatch.domain.sentence import Sentence
from chargewatch.signals.merge import SENTENCES
from chargewatch.signals.registry import RULES
from chargewatch.web.formats import Formats


def _part(text: str, sentences: Iterable[Sentence], f: Formats) -> str:
    for sentence in sentences:
        values = sentence.read(text)
        if values is not None:
            shown = {
                name: f.time(value, seconds=True) if isinstance(value, datetime) else value
                for name, value in values.items()
            }
            return f.t(f"finding.{sentence.name}", **shown)
    return text


def finding_words(code: str, detail: str, f: Formats) -> str:
    """Return a signal's detail in the visitor's language, times in the page's zone."""
    rule = RULES.get(code)
    sentences = (*(rule.sentences if rule else ()), *SENTENCES)
    parts = [_part(part, sentences, f) for part in detail.split("; ")]
    return f.t("reason.separator").join(parts)
