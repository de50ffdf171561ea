"""What a signal says, in the visitor's language.

A run writes a signal's detail in English, as the sentences of its rule (`signals.rules`), with
semicolons between them; the sentences give the values back, and `finding.NAME` has the words. What
no sentence reads, of a rule that isn't there any more, is shown as it was written.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from chargewatch.domain.sentence import CHECK, WORDS, Sentence
from chargewatch.domain.signed_words import SIGNED_SENTENCES
from chargewatch.signals.merge import SENTENCES
from chargewatch.signals.registry import RULES
from chargewatch.web.formats import Formats


def _part(text: str, sentences: Sequence[Sentence], f: Formats) -> str:
    for sentence in sentences:
        values = sentence.read(text)
        if values is None:
            continue
        shown = {}
        for name, value in values.items():
            if isinstance(value, datetime):
                shown[name] = f.time(value, seconds=True)
            elif sentence.fields[name] == WORDS:
                shown[name] = _part(value, sentences, f)
            elif sentence.fields[name] == CHECK:
                shown[name] = f.t.known("signed.check", value)
            else:
                shown[name] = value
        return f.t(f"finding.{sentence.name}", **shown)
    return text


def signed_words(detail: str, f: Formats) -> str:
    """Return what a check of a signed record says, in the visitor's language."""
    return _part(detail, SIGNED_SENTENCES, f)


def finding_words(code: str, detail: str, f: Formats) -> str:
    """Return a signal's detail in the visitor's language, times in the page's zone."""
    rule = RULES.get(code)
    sentences = (*(rule.sentences if rule else ()), *SENTENCES)
    parts = [_part(part, sentences, f) for part in detail.split("; ")]
    return f.t("reason.separator").join(parts)
